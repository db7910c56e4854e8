"""The power register as a check of voltage and current: it finds two chips at one address, and costs no good one."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from agent.measure.readings import Failure, Reading
from agent.simulate.ina260 import CURRENT, POWER, POWER_LSB_OF_PRODUCT_LSB, VOLTAGE, SimulatedINA260
from agent.simulate.rails import ConstantRail
from tests.bench import Bench, constant, failure, ina260, mux
from tests.check.test_check_hardware import findings

if TYPE_CHECKING:
    from collections.abc import Callable

NODE = mux("m0", 0x70) + ina260("cpu", 'mux = "m0", channel = 3')


def with_a_second_chip(volts: float, amperes: float) -> Bench:
    """Two INA260 at 0x40 on one channel: 5 V and 1 A, and these."""
    bench = Bench.of(NODE)
    rail = constant(bench.rails["cpu"])
    rail.volts, rail.amperes = 5.0, 1.0
    other = ConstantRail(volts, amperes, bench.clock.monotonic)
    bench.world.muxes["m0"].attach(3, SimulatedINA260(0x40, other, bench.clock.monotonic))
    bench.clock.sleep(1.0)
    return bench


@pytest.mark.reliability(
    1.24,
    "two chips of one kind at one address",
    "voltage, current and power contradict each other: an error, no number; `check --hardware` finds it too",
)
def test_two_chips_at_one_address_contradict_each_other(measured: Callable[[str], None]) -> None:
    bench = with_a_second_chip(12.0, 0.5)
    assert "are two chips at 0x40?" in findings(bench)["cpu"].text
    outcomes = [bench.run_next()["cpu"] for _ in range(600)]
    assert not any(isinstance(outcome, Reading) for outcome in outcomes)
    failures = [failure(outcome) for outcome in outcomes if isinstance(outcome, Failure)]
    assert "its registers contradict each other" in failures[-1]
    measured("5 V 1 A and 12 V 0.5 A, together 1.76 V and 0.32 A: no reading in 10 minutes")


def test_nearly_any_two_chips_at_one_address_are_found() -> None:
    draws, found = random.Random(5), 0
    for _ in range(40):
        bench = with_a_second_chip(draws.uniform(3.0, 30.0), draws.uniform(0.2, 8.0))
        found += "are two chips" in findings(bench)["cpu"].text
    assert found >= 38


def test_a_second_chip_is_found_within_a_minute() -> None:
    bench = Bench.of(NODE)
    bench.run_until_read()
    other = ConstantRail(12.0, 0.5, bench.clock.monotonic)
    second = SimulatedINA260(0x40, other, bench.clock.monotonic)
    second.write(bytes((0, *bench.chip("cpu")._words[0].to_bytes(2, "big"))))
    second.write(b"\x06\x00\x01")
    bench.world.muxes["m0"].attach(3, second)
    bench.rails = {}  # what both give together is not what a rail has
    outcomes = [bench.run_next()["cpu"] for _ in range(65)]
    assert any("are two chips at 0x40?" in str(o.error) for o in outcomes if isinstance(o, Failure))


def disturbed(bench: Bench, share: float) -> None:
    """A chip whose power register is not quite the product, and a load that changes."""
    chip = bench.chip("cpu")
    assert isinstance(chip, SimulatedINA260)

    def store() -> None:
        chip._words[POWER] = round(chip._words[CURRENT] * chip._words[VOLTAGE] * share / POWER_LSB_OF_PRODUCT_LSB)

    chip._store_derived = store


@pytest.mark.reliability(
    1.25,
    "a healthy chip whose power register is not the product of its results, or is not implemented",
    "the check turns itself off for that chip, and says so once",
)
def test_a_check_that_always_fails_turns_itself_off(
    caplog: pytest.LogCaptureFixture, measured: Callable[[str], None]
) -> None:
    bench = Bench.of(NODE)
    disturbed(bench, 1.1)
    rail = constant(bench.rails["cpu"])
    rail.volts = 5.0
    read_at = None
    for sweep in range(300):
        rail.amperes = 1.0 + sweep % 7 / 10
        outcome = bench.run_next()["cpu"]
        if read_at is None and isinstance(outcome, Reading):
            read_at = sweep
        assert read_at is None or isinstance(outcome, Reading)
    assert read_at is not None
    assert read_at <= 100
    assert caplog.text.count("the power register is not used to check its readings any more") == 1
    measured("averages the product: read again within 100 sweeps, one line")


@pytest.mark.reliability(
    1.25,
    "a healthy chip whose power register is not the product of its results, or is not implemented",
    "the check turns itself off for that chip, and says so once",
)
def test_a_power_register_that_is_not_implemented_costs_no_reading(
    caplog: pytest.LogCaptureFixture, measured: Callable[[str], None]
) -> None:
    bench = Bench.of(NODE)
    disturbed(bench, 0.0)
    rail = constant(bench.rails["cpu"])
    rail.volts, rail.amperes = 5.0, 1.0
    bench.run_until_read()
    for _ in range(130):
        assert isinstance(bench.run_next()["cpu"], Reading)
    assert caplog.text.count("it always reads 0x0000") == 1
    measured("always 0x0000: no reading lost, one line")
