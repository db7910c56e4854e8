"""The energy of a burst, compared with what really flowed."""

from __future__ import annotations

import pytest

from tests.bench import Bench, ina260, ina3221, with_shunt
from tests.command_energy.scene import IDLE_AMPERES, Scene

PLACE = "bus = 1"
CHIPS = {
    "ina260": ina260("d", PLACE, more=""),
    "ina3221": ina3221("d", PLACE, 1, 0x41, more="").replace("0.1", "0.05"),
    "ina226": with_shunt("ina226", "d", PLACE, more="").replace("0.1", "0.03"),
    "ina228": with_shunt("ina228", "d", PLACE, more="").replace("0.1", "0.03"),
}
PHASES = [0.183 * number for number in range(6)]
"""When the command starts, in seconds of the chip's own time: it converts when it wants."""


def scene(text: str, interval: str, phase: float, *, observes: bool = True, seconds: float = 3.0) -> Scene:
    bench = Bench.of(text, f'sample_interval = "{interval}"\n')
    made = Scene(bench, seconds, observes=observes)
    made.wait_for(phase)
    return made


@pytest.mark.parametrize("interval", ["1s", "500ms", "100ms"])
@pytest.mark.parametrize("chip", CHIPS)
def test_a_burst_of_3_s_is_right_within_half_a_percent(chip: str, interval: str) -> None:
    for phase in PHASES:
        measured = scene(CHIPS[chip], interval, phase)
        measured.measuring.measure(1, None)
        result = measured.result("d")
        assert result.joules == pytest.approx(measured.true_joules("d"), rel=0.005), phase
        assert result.coverage == pytest.approx(1.0)
        assert result.peak_watts == pytest.approx(10.0, rel=0.05)
        assert measured.measuring.notes == []


@pytest.mark.parametrize("chip", CHIPS)
def test_without_a_run_beside_it_a_burst_is_as_right(chip: str) -> None:
    """As simulated chips: this process configures them."""
    for phase in PHASES:
        measured = scene(CHIPS[chip], "1s", phase, observes=False)
        measured.measuring.measure(1, None)
        assert measured.result("d").joules == pytest.approx(measured.true_joules("d"), rel=0.005), phase


def test_a_chip_as_at_power_on_is_right_for_a_steady_load() -> None:
    """It averages over 2 ms only, so that its readings are moments."""
    for phase in PHASES:
        bench = Bench.of(CHIPS["ina260"])
        measured = Scene(bench, observes=False, noise=0.0)
        measured.sampler._sweep = bench.new_sweep(is_observer=True)
        measured.wait_for(1.0 + phase)
        measured.measuring.measure(1, None)
        assert measured.result("d").joules == pytest.approx(measured.true_joules("d"), rel=0.005)
        assert measured.result("d").window_seconds == pytest.approx(2.2e-3)


def test_the_energy_above_idle_is_right() -> None:
    for phase in PHASES:
        measured = scene(CHIPS["ina260"], "1s", phase)
        measured.measuring.measure(2, 10.0)
        for run in range(2):
            result = measured.result("d", run)
            assert result.idle_watts == pytest.approx(5.0 * IDLE_AMPERES, rel=0.02)
            expected = measured.true_joules("d", run) - 3.0 * 5.0 * IDLE_AMPERES
            assert result.net_joules == pytest.approx(expected, rel=0.01)


def test_a_command_shorter_than_a_conversion_shows_no_absurd_power() -> None:
    for phase in PHASES:
        measured = scene(CHIPS["ina260"], "1s", phase, seconds=0.002)
        measured.measuring.measure(1, None)
        result = measured.result("d")
        assert result.mean_watts is not None
        assert 1.5 < result.mean_watts < 10.5
        assert result.peak_watts == result.mean_watts


def test_a_long_command_takes_little_memory_and_stays_right() -> None:
    measured = scene(CHIPS["ina260"], "1s", 0.3, seconds=500.0)
    measured.measuring.measure(1, None)
    assert measured.result("d").joules == pytest.approx(measured.true_joules("d"), rel=0.0005)
    assert measured.result("d").coverage == pytest.approx(1.0)
    assert len(measured.sampler.timelines["d"]._results) <= 256
