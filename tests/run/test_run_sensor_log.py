"""The log lines about devices: one a cause, and few when the wires are bad."""

from __future__ import annotations

import errno
import random
import re
from typing import TYPE_CHECKING

import pytest

from agent.errors import SensorError
from agent.measure.readings import Failure, Outcome, Reading, Settling
from agent.run.sensor_log import SensorLog
from agent.settings import Device
from tests.bench import Bench, constant, ina260, ina3221, mux
from tests.check.test_check_hardware import findings
from tests.noise import random_nacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.simulate.clock import HandClock

STUCK = "/dev/i2c-1: stuck, transactions time out; is a chip holding SDA or SCL low?"


def good(device: str) -> Reading:
    return Reading(device, 12.0, 0.5, 6.0, 1000.0, 1.7e9, 1.0)


def bad(device: str, error: str, *, tried: bool = True) -> Failure:
    return Failure(device, SensorError(error), tried)


class Writer:
    """Gives sweeps to the log, a second apart."""

    def __init__(self, clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        self.clock = clock
        self._log = SensorLog(clock.monotonic)
        self._caplog = caplog

    def sweep(self, *outcomes: Outcome, conflicts: int = 0, times: int = 1) -> list[str]:
        """The lines that these sweeps add."""
        before = len(self._caplog.records)
        for _ in range(times):
            self.clock.sleep(1.0)
            self._log.write(outcomes, {1: (conflicts, "mux m0 was switched; lock the bus")} if conflicts else {})
        return [record.getMessage() for record in self._caplog.records[before:]]


@pytest.fixture
def writer(clock: HandClock, caplog: pytest.LogCaptureFixture) -> Writer:
    return Writer(clock, caplog)


def test_a_fault_is_logged_when_it_begins_and_when_it_ends(writer: Writer) -> None:
    assert writer.sweep(good("cpu"), good("disk")) == []
    assert writer.sweep(bad("cpu", "NACK"), good("disk"), times=3) == ["cpu: NACK"]
    assert writer.sweep(bad("cpu", "NACK", tried=False), bad("disk", "off")) == ["disk: off"]
    assert writer.sweep(good("cpu"), good("disk")) == [
        "cpu: works again after 3 failures",
        "disk: works again after 1 failure",
    ]
    assert writer.sweep(good("cpu"), good("disk"), times=7200) == []


@pytest.mark.reliability(
    2.21,
    "a device that fails for another reason than before, such as another chip in its place",
    "the new cause is a new line; a number that changes is not a new cause",
)
def test_a_new_cause_is_a_new_line(writer: Writer, measured: Callable[[str], None]) -> None:
    nack, other = "no INA260 at 0x40: NACK; is it powered?", "0x40 is not an INA260: its id is 0x2270"
    assert writer.sweep(bad("cpu", nack), times=5) == [f"cpu: {nack}"]
    assert writer.sweep(bad("cpu", other)) == [f"cpu: {other}"]
    assert writer.sweep(bad("cpu", other.replace("2270", "2271")), times=5) == []
    assert writer.sweep(good("cpu")) == ["cpu: works again after 11 failures"]
    measured("two lines for two causes in 11 failures")


@pytest.mark.reliability(
    2.21,
    "a device that fails for another reason than before, such as another chip in its place",
    "the new cause is a new line; a number that changes is not a new cause",
)
def test_a_chip_replaced_in_operation_is_named(
    caplog: pytest.LogCaptureFixture, measured: Callable[[str], None]
) -> None:
    bench, other = Bench.of(ina260("cpu", "bus = 1")), Bench.of(ina3221("cpu", "bus = 1", 1, 0x40))
    log = SensorLog(bench.clock.monotonic)
    log.write(bench.run_until_read().values(), {})

    def sweep_for(seconds: int) -> list[str]:
        caplog.clear()
        for _ in range(seconds):
            log.write(bench.run_next().values(), {})
        return [record.getMessage() for record in caplog.records]

    bench.wire.faults.fail_when(lambda _: errno.EREMOTEIO)
    (unplugged,) = sweep_for(60)
    bench.world.wires[1] = other.world.wires[1]
    (replaced,) = sweep_for(60)
    assert "no INA260 at 0x40 on /dev/i2c-1: NACK" in unplugged
    assert "not an INA260 at 0x40 on /dev/i2c-1" in replaced
    measured("an INA3221 in place of an INA260: named within 10 s")


@pytest.mark.reliability(
    2.22, "one cause behind many devices: a bus, a mux", "one line that names the devices, and one when they work again"
)
def test_one_cause_of_many_devices_is_one_line(writer: Writer, measured: Callable[[str], None]) -> None:
    names = [f"d{number}" for number in range(10)]
    writer.sweep(*map(good, names))
    (line,) = writer.sweep(*(bad(name, STUCK) for name in names[:9]), good("d9"))
    assert line == f"{STUCK} (9 devices: d0, d1, d2, d3, d4, d5, d6, d7, ...)"
    assert writer.sweep(*(bad(name, STUCK) for name in names)) == []  # one more that is behind it
    assert writer.sweep(*map(good, names)) == [
        "10 devices work again after 19 failures: d0, d1, d2, d3, d4, d5, d6, d7, ..."
    ]
    measured("one line for 10 devices behind a stuck bus")


def test_chips_that_lose_power_together_are_one_line(writer: Writer) -> None:
    lost = [Settling(name, 0.0, power_lost=True) for name in ("cpu", "disk")]
    assert writer.sweep(*lost) == ["the chips of 2 devices lost their power and were configured again: cpu, disk"]
    assert writer.sweep(lost[0]) == [
        "cpu: its chip lost its power and was configured again",
    ]


def test_every_fault_at_the_start_has_its_line(writer: Writer) -> None:
    lines = writer.sweep(*(bad(f"d{number}", f"no chip at {number}") for number in range(24)))
    assert lines == [f"d{number}: no chip at {number}" for number in range(24)]


def test_many_faults_at_once_are_all_named(writer: Writer) -> None:
    names = [f"d{number}" for number in range(8)]
    writer.sweep(*map(good, names))
    lines = writer.sweep(*(bad(name, f"{name} is off") for name in names))
    assert lines[:5] == [f"{name}: {name} is off" for name in names[:5]]
    assert lines[5:] == ["d5 is off; and other errors at others (3 devices: d5, d6, d7)"]


def test_a_fault_that_lasts_is_told_after_a_minute(writer: Writer) -> None:
    names = [f"d{number}" for number in range(20)]
    writer.sweep(*map(good, [*names, "cpu"]))
    for name in names:  # until no line is left
        writer.sweep(bad(name, f"{name} is off"))
        writer.sweep(good(name))
    assert writer.sweep(bad("cpu", "NACK"), times=59) == []
    assert writer.sweep(bad("cpu", "NACK"), times=5) == ["cpu: NACK"]


@pytest.mark.reliability(
    2.23,
    "a device that flaps: it fails and works again every few seconds",
    "three lines an hour, then a summary with its count twice an hour",
)
def test_a_flapping_device_is_summarised(writer: Writer, measured: Callable[[str], None]) -> None:
    writer.sweep(good("cpu"))
    lines = []
    for _ in range(900):
        lines += writer.sweep(bad("cpu", "NACK"), times=2)
        lines += writer.sweep(good("cpu"), times=2)
    assert len(lines) <= 8
    assert lines.count("cpu: NACK") == 3
    (summary,) = [line for line in lines if "failed for moments" in line]
    pattern = "1 device failed for moments in the last 30 min, 9.. times in all: cpu 9..; the last time: cpu: NACK"
    assert re.fullmatch(pattern, summary)
    measured(f"{len(lines)} lines for 900 faults in an hour")


def test_conflicts_are_named_once_and_then_counted(writer: Writer) -> None:
    assert writer.sweep(good("cpu"), conflicts=2) == ["mux m0 was switched; lock the bus"]
    lines = []
    for count in range(3, 1803):
        lines += writer.sweep(good("cpu"), conflicts=count)
    assert lines == []
    lines = writer.sweep(good("cpu"), conflicts=1803)
    assert lines == ["also in the last 30 min: 1801 x mux m0 was switched; lock the bus"]


@pytest.mark.reliability(
    7.4,
    "a shunt in the ground line of its load: 25 A at 0 V",
    "one warning; a rail that is switched on, or off, gets none",
)
def test_a_current_without_volts_is_warned_about_once(writer: Writer, measured: Callable[[str], None]) -> None:
    grounded = good("radio")._replace(volts=0.0, amperes=25.0, power_watts=0.0)
    assert writer.sweep(good("radio"), times=5) == []
    (line,) = writer.sweep(grounded, good("cpu"), times=3600)
    assert line.startswith("radio: 25 A at 0 V; is the shunt in the ground line of the load?")
    off = good("disk")._replace(volts=0.02, amperes=0.1, power_watts=0.0)
    inrush = good("fan")._replace(volts=0.05, amperes=3.0, power_watts=0.15)
    for _ in range(3):
        assert writer.sweep(off, inrush, times=9) == []
        assert writer.sweep(off, good("fan"), times=9) == []
    assert writer.sweep(good("radio")) == writer.sweep(grounded, times=20) == []
    assert writer.sweep(off._replace(device="radio"), times=3600) == writer.sweep(grounded, times=20) == []
    measured("one line in an hour")


def test_a_current_without_volts_is_warned_about_again_after_it_was_well(writer: Writer) -> None:
    grounded = good("radio")._replace(volts=0.0, amperes=25.0, power_watts=0.0)
    assert len(writer.sweep(grounded, times=600)) == 1
    assert writer.sweep(good("radio"), times=59) == writer.sweep(grounded, times=600) == []
    assert writer.sweep(good("radio"), times=60) == []
    assert len(writer.sweep(grounded, times=600)) == 1


def test_an_ina3221_in_the_ground_line_is_named_by_a_run_and_a_check(caplog: pytest.LogCaptureFixture) -> None:
    text = ina3221("battery", "bus = 1", 1).replace("shunt_ohms = 0.1", "shunt_ohms = 0.0015")  # 75 mV at 50 A
    bench = Bench.of(text)
    rail = constant(bench.rails["battery"])
    rail.volts, rail.amperes, bench.rails = 0.0, 25.0, {}
    log = SensorLog(bench.clock.monotonic, bench.settings.devices)
    for _ in range(60):
        log.write(bench.run_next().values(), {})
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        "battery: 25 A at 0 V; is the shunt in the ground line of the load? Put it in the supply line"
    )
    assert "battery: INA3221 at 0x41 on /dev/i2c-1: 25 A at 0 V" in str(findings(bench)["battery"])


@pytest.mark.parametrize(
    ("shunt_ohms", "amperes", "lines"), [(0.1, 0.004, 0), (0.1, 0.006, 1), (0.0015, 0.3, 0), (0.0015, 0.4, 1)]
)
def test_the_shunt_tells_a_current_from_an_offset(
    shunt_ohms: float, amperes: float, lines: int, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a millivolt is more than the offset of any of these chips."""
    log = SensorLog(clock.monotonic, (Device("radio", "ina3221", shunt_ohms=shunt_ohms),))
    for _ in range(20):
        log.write([good("radio")._replace(volts=0.008, amperes=-amperes)], {})
    assert caplog.text.count("is the shunt in the ground line of the load?") == lines


DEVICES = (
    mux("m0", 0x70)
    + "".join(ina260(f"a{n}", f'mux = "m0", channel = {n}') for n in range(8))
    + "".join(ina3221(f"b{n}{i}", f'mux = "m0", channel = {n}', i) for n in range(8) for i in (1, 2))
)


@pytest.mark.parametrize(
    ("share", "sample_seconds"),
    [
        (0.02, 10),
        (0.1, 10),
        pytest.param(
            0.02,
            1,
            marks=[
                pytest.mark.long,
                pytest.mark.reliability(
                    2.24, "2 % random NACKs, 24 devices, an hour at 1 s", "at most 20 log lines an hour"
                ),
            ],
        ),
    ],
)
def test_an_hour_of_nacks_makes_few_lines(
    share: float, sample_seconds: int, caplog: pytest.LogCaptureFixture, measured: Callable[[str], None]
) -> None:
    caplog.set_level("INFO")
    bench = Bench.of(DEVICES, f'sample_interval = "{sample_seconds}s"\n')
    log = SensorLog(bench.clock.monotonic)
    log.write(bench.run_until_read().values(), {})
    random_nacks(bench.wire, share, random.Random(share))
    for _ in range(3600 // sample_seconds):
        log.write(bench.run_next().values(), bench.sweep.last_mux_conflicts())
    assert len(caplog.records) <= 20
    measured("at most 20 lines")
