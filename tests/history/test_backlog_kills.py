"""A process that is killed at any moment loses nothing that it had added, and nothing arrives twice."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.history.backlogs import TABLE
from tests.history.killed_backlog import line_of, node_of, start, stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UNSAID = 1000
"""Numbers that a killed run may have used without saying so."""


@pytest.mark.reliability(
    12.05, "kill -9 while the backlog grows and drains", "loses nothing that was added, and stores nothing twice"
)
@pytest.mark.parametrize("kills", [5, pytest.param(80, marks=pytest.mark.long)])
def test_a_kill_loses_nothing_that_was_added(kills: int, tmp_path: Path, measured: Callable[[str], None]) -> None:
    chance = random.Random(kills)
    (tmp_path / "run").mkdir()
    server = tmp_path / "server"
    next_number = 0
    added: set[int] = set()
    for kill in range(kills):
        writer = start(tmp_path / "history", tmp_path / "run", server, next_number, kill)
        assert writer.stdout is not None
        said = [writer.stdout.readline()]  # it has begun
        time.sleep(chance.uniform(0, 0.1))  # the moment of the kill
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.readlines()
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        numbers_added = [int(line.split()[1]) for line in said if line.startswith("added") and line.endswith("\n")]
        added.update(range(next_number, numbers_added[-1]))
        next_number = numbers_added[-1] + UNSAID
    node = node_of(tmp_path / "history", tmp_path / "run", next_number)
    backlog = node.open()
    with server.open("ab") as log:
        while (frame := backlog.next()) is not None:
            backlog.about_to_send(frame)
            log.write(line_of(frame))
            backlog.settle(frame, accepted=frame.samples, refused=0)
    arrived = stored(server)
    assert len(arrived) == len(set(arrived))
    assert added <= set(arrived)
    # What a killed run added and could not say any more arrives too, in whole rows.
    assert len(set(arrived) - added) % len(TABLE) == 0
    counters = backlog.status.counters
    assert (counters.accepted, counters.settled) == (len(arrived), len(arrived))
    assert backlog.status.backlog_samples == 0
    measured(f"{kills} kills: 0 lost, 0 doubled")
