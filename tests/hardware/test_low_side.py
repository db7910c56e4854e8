"""A chip in the ground line of its load: the limits of what counts as a current without a voltage."""

from __future__ import annotations

import pytest

from agent.i2c.place import Place
from agent.measure import low_side
from agent.settings import Device


@pytest.mark.parametrize(("shunt_ohms", "amperes"), [(0.1, 0.005), (0.002, 0.25), (None, 0.5)])
def test_a_current_counts_from_half_a_millivolt_at_the_shunt(shunt_ohms: float | None, amperes: float) -> None:
    least = low_side.least_amperes(Device("cpu", "ina226", Place(1, None, None, 0x40), shunt_ohms=shunt_ohms))
    assert least == pytest.approx(amperes)
    assert low_side.is_likely(0.0, -1.001 * amperes, least)
    assert not low_side.is_likely(0.0, 0.999 * amperes, least)


@pytest.mark.parametrize(("volts", "lacks"), [(0.1, True), (-0.1, True), (0.101, False), (1.0, False)])
def test_a_tenth_of_a_volt_is_a_rail_that_is_off(volts: float, *, lacks: bool) -> None:
    assert low_side.is_likely(volts, 1.0, 0.5) is lacks
