"""The rate of a backlog whose frames are too large for one request."""

from __future__ import annotations

import pytest

from tests.history.sending import LARGE, Sending, Store


@pytest.mark.parametrize("most_samples", [1, 3, 40])
def test_small_requests_do_not_slow_a_backlog_down(most_samples: int) -> None:
    """Parts that each wait like a whole frame would make a backlog that only grows."""
    store = Store(rule=lambda request: LARGE if sum(len(one.samples) for one in request) > most_samples else None)
    sending = Sending(store, catch_up=2.0)
    sending.add(frames=50, rows=10)
    began = sending.node.clock.seconds
    sending.run()
    assert sending.counts == (sending.node.produced, 0, 0)
    assert sending.node.clock.seconds - began == pytest.approx(50 * 10 / 2, rel=0.1)
