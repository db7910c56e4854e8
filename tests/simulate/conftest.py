from __future__ import annotations

import os

import pytest

from agent.simulate.rails import ConstantRail
from agent.simulate.wire import Wire
from tests.simulate.simulated_clock import HandClock

# Before any test imports a driver: these need no GPIO library and know no board.
os.environ["BLINKA_FORCEBOARD"] = "GENERIC_LINUX_PC"
os.environ["BLINKA_FORCECHIP"] = "GENERIC_X86"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def wire(clock: HandClock) -> Wire:
    return Wire(clock)


@pytest.fixture
def rail(clock: HandClock) -> ConstantRail:
    return ConstantRail(volts=5.0, amperes=1.0, now=clock)
