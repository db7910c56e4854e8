"""The loop of a measurement: what fails, hangs or is interrupted, with a clock advanced by hand."""

from __future__ import annotations

import signal

import pytest

from agent.command_energy.measuring import StoppedError
from agent.errors import PermissionDeniedError
from tests.bench import Bench, ina260, mux
from tests.command_energy.scene import Scene

TWO = mux("m0", 0x70) + ina260("cpu", 'mux = "m0", channel = 0') + ina260("fan", 'mux = "m0", channel = 1')
FAST = 'sample_interval = "100ms"\n'


def two(seconds: float = 3.0, top: str = FAST) -> Scene:
    return Scene(Bench.of(TWO, top), seconds)


def test_the_command_is_over_soon_after_its_end() -> None:
    for interval, longest_seconds in (("1s", 2.5), ("100ms", 0.5)):
        scene = Scene(Bench.of(ina260("cpu", "bus = 1", more=""), f'sample_interval = "{interval}"\n'))
        scene.measuring.measure(1, None)
        assert scene.clock.seconds - scene.spans[0][1] <= longest_seconds


def test_a_device_that_fails_leaves_the_others_measured(capsys: pytest.CaptureFixture[str]) -> None:
    scene = two()
    scene.bench.chip("fan").unplug()
    scene.measuring.measure(1, None)
    assert scene.result("cpu").joules == pytest.approx(scene.true_joules("cpu"), rel=0.01)
    fan = scene.result("fan")
    assert (fan.joules, fan.seconds, fan.coverage) == (None, 0.0, 0.0)
    assert fan.error is not None
    assert "no INA260 at 0x40 behind mux m0" in fan.error
    assert f"warning: fan: {fan.error}" in capsys.readouterr().err  # before the command starts


def test_a_bus_that_hangs_delays_neither_start_nor_end() -> None:
    scene = two()
    scene.sampler.hangs_now = lambda: True
    began_seconds = scene.clock.seconds
    scene.measuring.measure(1, None)
    assert scene.spans[0][0] - began_seconds <= 3.0
    assert scene.clock.seconds - scene.spans[0][1] <= 1.5
    assert (scene.result("cpu").joules, scene.result("cpu").error) == (None, "its bus hangs")


def test_a_bus_that_hangs_during_the_command_does_not_delay_its_end() -> None:
    scene = two(5.0)
    scene.sampler.hangs_now = lambda: bool(scene.spans) and scene.clock.seconds > scene.spans[0][0] + 2.0
    scene.measuring.measure(1, None)
    assert scene.clock.seconds - scene.spans[0][1] <= 1.5
    assert scene.result("cpu").coverage == pytest.approx(0.4, abs=0.05)
    assert scene.result("cpu").mean_watts == pytest.approx(10.0, rel=0.02)


def test_a_time_without_readings_is_not_counted() -> None:
    scene = two(20.0)

    def unplug_for_8_s() -> None:
        if scene.spans:
            seconds, chip = scene.clock.seconds - scene.spans[0][0], scene.bench.chip("cpu")
            if 5.0 < seconds < 13.0:
                chip.unplug()
            else:
                chip.plug()

    scene.on_wait = unplug_for_8_s
    scene.measuring.measure(1, None)
    cpu, fan = scene.result("cpu"), scene.result("fan")
    assert 0.3 < cpu.coverage < 0.65  # the chip backs off, too
    assert cpu.mean_watts == pytest.approx(10.0, rel=0.02)
    assert cpu.seconds == pytest.approx(20.0 * cpu.coverage)
    assert fan.coverage == pytest.approx(1.0)


def test_a_device_denied_to_the_user_is_no_reason_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    scene = two()
    scene.sampler._sweep = scene.bench.new_sweep(is_observer=True)
    scene.bench.refusal = PermissionDeniedError("/dev/i2c-1: permission denied")
    with pytest.raises(PermissionDeniedError):
        scene.measuring.measure(1, None)
    assert scene.spans == []


def test_runs_stop_after_one_that_fails() -> None:
    scene = two(0.5)
    scene.statuses = [0, 0, 7, 0, 0]
    scene.measuring.measure(5, None)
    assert [run.exit_status for run in scene.measuring.runs] == [0, 0, 7]
    assert scene.measuring.notes == ["run 3 of 5 ended with exit status 7; 2 runs not done"]


def test_every_run_is_measured_by_itself() -> None:
    scene = two(3.0)
    scene.measuring.measure(3, None)
    for run in range(3):
        assert scene.result("cpu", run).joules == pytest.approx(scene.true_joules("cpu", run), rel=0.005)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_before_the_start_leaves_the_command_alone(number: int) -> None:
    scene = two()
    scene.on_wait = lambda: scene.pending.append(number)
    with pytest.raises(StoppedError) as stopped:
        scene.measuring.measure(1, 5.0)
    assert stopped.value.number == number
    assert scene.spans == []


def test_a_signal_is_passed_on_and_ends_the_runs() -> None:
    scene = two(60.0)

    def terminate() -> None:
        if scene.spans and scene.clock.seconds > scene.spans[0][0] + 1.0 and not scene.passed_on:
            scene.pending.append(signal.SIGTERM)

    scene.on_wait = terminate
    scene.measuring.measure(3, None)
    assert scene.passed_on == [signal.SIGTERM]
    assert scene.measuring.runs[0].seconds == pytest.approx(1.0, abs=0.2)
    assert scene.measuring.notes == ["run 1 of 3 was interrupted; 2 runs not done"]


def test_a_signal_after_the_end_waits_for_no_reading() -> None:
    scene = Scene(Bench.of(ina260("cpu", "bus = 1", more="")))

    def interrupt() -> None:
        if scene.spans and scene.clock.seconds > scene.spans[0][1] and not scene.pending:
            scene.pending.append(signal.SIGINT)

    scene.on_wait = interrupt
    scene.measuring.measure(2, None)
    assert scene.clock.seconds - scene.spans[0][1] < 0.3
    assert len(scene.measuring.runs) == 1
    assert scene.passed_on == []


def test_a_suspension_waits_for_the_sweep() -> None:
    scene = two()
    suspended_while_busy = []
    suspend = scene.suspend

    def suspended() -> None:
        suspended_while_busy.append(scene.sampler.is_busy)
        suspend()

    scene.suspend = suspended
    scene.on_wait = lambda: setattr(scene, "suspension_requested", scene.suspended == 0)
    scene.measuring.measure(1, None)
    assert suspended_while_busy == [False]
