"""What a watch leaves on the screen when it ends."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from agent.measure.readings import Reading
from agent.quantities import format_elapsed
from agent.simulate.clock import HandClock
from agent.watch.closing import closing_lines
from agent.watch.history import History
from tests.bench import ina260, mux, settings_of
from tests.watch.watched import Watched


def closing(watched: Watched, width: int = 80) -> list[str]:
    return closing_lines(watched.history.view(), width)


def test_the_energy_of_each_device_and_their_total_are_named() -> None:
    watched = Watched()
    watched.load("cpu", 5.0, 2.0)
    watched.load("radio", 5.0, 0.5)
    watched.sweeps(62)
    assert closing(watched) == ["watched 1 min 2 s: cpu 600.0 J, radio 150.0 J, total 750.0 J"]


def test_one_device_has_no_total() -> None:
    watched = Watched(ina260("cpu", "bus = 1"))
    watched.load("cpu", 5.0, 2.0)
    watched.sweeps(11)
    assert closing(watched) == ["watched 11 s: cpu 90.00 J"]


def test_a_device_that_was_not_always_read_says_for_how_long() -> None:
    watched = Watched()
    watched.load("cpu", 5.0, 2.0)
    watched.load("radio", 5.0, 2.0)
    watched.sweeps(31)
    watched.bench.chip("radio").unplug()
    watched.sweeps(60)
    assert closing(watched) == ["watched 1 min 31 s: cpu 890.0 J, radio 290.0 J in 29 s, total 1.180 kJ"]


def test_a_device_that_was_never_read_has_no_energy() -> None:
    watched = Watched()
    watched.load("cpu", 5.0, 2.0)
    watched.bench.chip("radio").unplug()
    watched.sweeps(11)
    assert closing(watched) == ["watched 11 s: cpu 90.00 J, radio not measured, total 90.00 J"]


def test_a_watch_without_a_reading_says_so() -> None:
    watched = Watched()
    assert closing(watched) == ["watched 0 s: nothing was measured"]
    for name in ("cpu", "radio"):
        watched.bench.chip(name).unplug()
    watched.sweeps(5)
    assert closing(watched) == ["watched 5 s: nothing was measured"]


def test_simulated_energy_is_marked() -> None:
    watched = Watched()
    history = History(watched.bench.settings, watched.bench.clock, is_simulated=True)
    assert closing_lines(history.view(), 80) == ["watched 0 s (SIMULATED): nothing was measured"]


def test_a_rail_in_a_sum_counts_once_in_the_total() -> None:
    rails = (("board", "all", 6.0), ("core", "VDD_CORE", 1.5))
    device = '[[device]]\nname = "{}"\nchip = "rpi-pmic"\nrail = "{}"\n'
    clock = HandClock()
    history = History(settings_of("".join(device.format(*rail) for rail in rails)), clock, is_simulated=False)
    for _ in range(3):
        clock.sleep(1.0)
        history.add([Reading(name, 1.0, watts, watts, clock.seconds, 0.0, 0.0) for name, _, watts in rails])
    assert closing_lines(history.view(), 80) == ["watched 3 s: board 12.00 J, core 3.000 J, total 12.00 J"]


def test_many_devices_are_counted_not_listed() -> None:
    devices = "".join(
        ina260(f"rail-{number:02d}", f'mux = "m0", channel = {number % 8}', 0x40 + number // 8) for number in range(24)
    )
    watched = Watched(mux("m0", 0x70) + devices)
    for number in range(24):
        watched.load(f"rail-{number:02d}", 5.0, 0.1)
    watched.bench.chip("rail-07").unplug()
    watched.sweeps(11)
    assert closing(watched) == ["watched 11 s: 23 of 24 devices, total 103.5 J"]
    assert "rail-23 4.500 J" in " ".join(closing(watched, 400))


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_lines_are_wrapped_between_devices(width: int) -> None:
    names = ["cpu", "電源の名前", "accelerator"]
    watched = Watched(
        mux("m0", 0x70) + "".join(ina260(name, f'mux = "m0", channel = {n}') for n, name in enumerate(names))
    )
    watched.sweeps(4)
    lines = closing(watched, width)
    assert len(lines) <= 3
    assert max(map(cell_len, lines)) <= max(width, cell_len("  accelerator 10.00 mJ,"))
    assert all(line.startswith("  ") for line in lines[1:])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (723.0, "12 min 3 s"),
        (7500.0, "2 h 5 min"),
        (273600.0, "3 d 4 h"),
    ],
)
def test_a_time_that_has_passed_has_two_units(seconds: float, text: str) -> None:
    assert format_elapsed(seconds) == text
