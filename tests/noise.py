"""Disturbances of a wire, drawn from a seed: errors at random, bits that flip, and programs that switch a mux."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from agent.simulate.wire import Transaction, Wire


def random_nacks(wire: Wire, share: float, draws: random.Random, code: int = errno.EREMOTEIO) -> None:
    """Let this share of all transfers fail, a third of them after they took effect."""

    def before(_: Transaction) -> int | None:
        return code if draws.random() < share * 2 / 3 else None

    def after(_: Transaction) -> int | None:
        return code if draws.random() < share / 3 / (1 - share * 2 / 3) else None

    wire.faults.fail_when(before)
    wire.faults.fail_when(after, after_effect=True)


def random_flips(wire: Wire, share: float, draws: random.Random) -> None:
    """Flip one bit in this share of all bytes that are written or read."""
    wire.faults.flip = lambda byte: byte ^ (1 << draws.randrange(8)) if draws.random() < share else byte
