"""The table of a watch, from the registers of simulated chips to lines of text."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from agent.errors import SensorError
from agent.measure.readings import Failure, Reading
from agent.quantities import format_duration, format_energy, format_quantity, format_range
from agent.simulate.clock import HandClock
from agent.watch.glyphs import ASCII, UNICODE, bar, glyphs_for, sparkline
from agent.watch.history import TRACE_SLOTS, History
from agent.watch.layout import lines
from tests.bench import ina260, mux, settings_of
from tests.watch.watched import TWO, Watched

if TYPE_CHECKING:
    from agent.watch.glyphs import Glyphs


def test_energy_and_extremes_start_with_the_watch() -> None:
    watched = Watched()
    watched.load("cpu", 5.0, 1.0)
    watched.sweeps(3)
    watched.load("cpu", 5.0, 2.0)
    watched.sweeps(2)
    before, after = watched.history.view(), watched.history.view()
    assert before == after, "making a view changes nothing"
    row = before.rows[0]
    assert isinstance(row.outcome, Reading)
    assert row.outcome.power_watts == pytest.approx(10.0)
    assert row.extremes is not None
    assert (row.extremes.min_watts, row.extremes.max_watts) == pytest.approx((5.0, 10.0))
    # The first reading is at the second sweep; then 1 s at 5 W, 0.5 s at each, and 1 s at 10 W.
    assert row.joules == pytest.approx(22.5, abs=0.1)


def test_power_that_flows_back_is_negative_and_reduces_the_energy() -> None:
    watched = Watched()
    watched.load("cpu", 12.0, -2.5)
    watched.sweeps(6)
    line = watched.line("cpu")
    assert "-30.0 W" in line
    assert "-2.50 A" in line
    assert "-120 J" in line


def test_an_error_replaces_the_numbers_until_it_clears() -> None:
    watched = Watched()
    watched.load("cpu", 5.0, 1.0)
    watched.load("radio", 5.0, 1.0)
    watched.sweeps(3)
    assert " W " in watched.line("radio")
    watched.bench.chip("radio").unplug()
    watched.sweeps(1)
    assert watched.line("radio").startswith("radio  no INA260 at 0x40 behind mux m0 (0x70 on /dev/i2c-1) channel 1")
    assert " W " not in watched.line("radio")
    assert watched.line("radio").endswith("…")
    assert watched.line("radio", width=200).endswith("is it powered? Are the channel and the address right?")
    assert " W " in watched.line("cpu")
    assert "1 of 2" in watched.line("total")
    watched.bench.chip("radio").plug()
    watched.sweeps(30)
    assert " W " in watched.line("radio")
    assert "of" not in watched.line("total")


def test_the_total_covers_the_devices_that_can_be_read() -> None:
    watched = Watched()
    watched.load("cpu", 5.0, 1.0)
    watched.load("radio", 5.0, 0.5)
    watched.sweeps(4)
    assert "7.500 W" in watched.line("total")
    watched.bench.chip("cpu").unplug()
    watched.sweeps(1)
    assert "2.500 W" in watched.line("total")


def test_the_total_counts_a_rail_in_a_sum_once() -> None:
    rails = (("board", "all", 6.0), ("core", "VDD_CORE", 1.5))
    device = '[[device]]\nname = "{}"\nchip = "rpi-pmic"\nrail = "{}"\n'
    clock = HandClock()
    history = History(settings_of("".join(device.format(*rail) for rail in rails)), clock, is_simulated=False)
    for _ in range(2):
        clock.sleep(1.0)
        history.add([Reading(name, 1.0, watts, watts, clock.seconds, 0.0, 0.0) for name, _, watts in rails])
    table = ["".join(text for text, _ in line) for line in lines(history.view(), 80, 24, UNICODE)]
    (total,) = (line for line in table if line.startswith("total"))
    assert "6.000 W" in total
    assert "6.000 J" in total


def test_a_converting_chip_shows_when_its_first_result_is_due() -> None:
    slow = 'averaging = { count = 1024, voltage = "8.244ms", current = "8.244ms" }'
    watched = Watched(ina260("cpu", "bus = 1", more=slow))
    assert "not read yet" in watched.line("cpu")
    watched.sweeps(2)
    assert "converting, first result in 15.9 s" in watched.line("cpu")


def test_an_overdue_sweep_marks_the_numbers_as_old() -> None:
    watched = Watched()
    watched.sweeps(3)
    watched.bench.clock.sleep(1.9)
    assert "old" not in watched.text()
    watched.bench.clock.sleep(3)
    assert "No sweep has ended for 5 s: these numbers are old." in watched.text()


@pytest.mark.parametrize("width", [1, 10, 24, 40, 60, 79, 80, 81, 100, 132, 200, 500])
@pytest.mark.parametrize("height", [1, 3, 5, 24])
def test_the_table_never_exceeds_the_terminal(width: int, height: int) -> None:
    watched = Watched(TWO + ina260("a-name-of-thirty-three-characters", "bus = 2") + ina260("電源の名前", "bus = 3"))
    watched.sweeps(3)
    watched.bench.chip("radio").unplug()
    watched.sweeps(1)
    drawn = lines(watched.history.view(), width, height, UNICODE)
    assert 0 < len(drawn) <= height
    assert max(cell_len("".join(text for text, _ in line)) for line in drawn) <= width


@pytest.mark.parametrize(
    ("width", "foot"),
    [
        (80, "q quits. Nothing is pushed. min..max and energy since 22:30:00."),
        (60, "q quits. min..max and energy since 22:30:00."),
        (48, "q quits. energy since 22:30:00."),
        (24, "q quits."),
    ],
)
def test_the_foot_is_whole_and_about_the_columns_shown(width: int, foot: str) -> None:
    watched = Watched()
    watched.sweeps(3)
    assert watched.text(width).splitlines()[-1] == foot


@pytest.mark.parametrize(("width", "titles"), [(16, 2), (28, 3), (40, 4), (60, 5)])
def test_a_narrow_terminal_keeps_the_watts(width: int, titles: int) -> None:
    watched = Watched()
    watched.load("cpu", 5.0, 1.5)
    watched.sweeps(3)
    assert "7.500 W" in watched.line("cpu", width)
    (line,) = [line for line in watched.text(width).splitlines() if line.startswith("device")]
    assert len(line.replace("last ", "").replace("2 min", "trace").split()) >= titles


@pytest.mark.parametrize("cells", [6, 12, 20, 31, 32])
@pytest.mark.parametrize("width", [80, 100, 132, 200])
def test_a_name_of_32_cells_is_whole_from_80_columns_on(cells: int, width: int) -> None:
    name = "n" * cells
    watched = Watched(ina260(name, "bus = 1"))
    watched.load(name, 5.0, 1.5)
    watched.sweeps(4)
    line = watched.line(name, width)
    assert line.startswith(f"{name} 5.000 V  1.500 A  7.500 W ")
    assert line.endswith("15.00 J")


def test_decoration_goes_before_a_name_is_cut() -> None:
    name = "n" * 32
    watched = Watched(ina260(name, "bus = 1"))
    watched.load(name, 5.0, 1.5)
    watched.sweeps(4)
    seen = []
    for width in range(24, 121):
        titles = watched.text(width).splitlines()[2]
        is_whole = name in watched.text(width)
        seen.append((is_whole, *(title in titles for title in ("energy", "min..max", "2 min"))))
        assert is_whole or not any(seen[-1][1:]), width
        assert ("▏" in watched.text(width) or "█" in watched.text(width)) <= is_whole
    assert seen[0] == (False, False, False, False)
    assert seen[-1] == (True, True, True, True)


@pytest.mark.parametrize("width", [34, 40, 50, 60, 80, 120])
def test_a_total_of_some_devices_says_so_at_every_width(width: int) -> None:
    watched = Watched()
    watched.load("cpu", 5.0, 1.0)
    watched.sweeps(3)
    watched.bench.chip("radio").unplug()
    watched.sweeps(1)
    assert "1 of 2" in watched.line("total", width)


def test_devices_that_do_not_fit_are_counted_with_their_failures() -> None:
    watched = Watched(mux("m0", 0x70) + "".join(ina260(f"r{n}", f'mux = "m0", channel = {n}') for n in range(8)))
    watched.sweeps(1)
    watched.bench.chip("r7").unplug()
    watched.sweeps(2)
    text = watched.text(height=9)
    assert len(text.splitlines()) == 9
    assert "… 4 more in turns, 1 of them failing: r7" in text
    assert "wattpush check --hardware" in text
    assert "r3" in text
    assert "r4" not in text
    assert "more" not in watched.text(height=12)


@pytest.mark.parametrize("every", ["1s", "15s"])
@pytest.mark.parametrize("height", [6, 8, 9, 11])
def test_devices_that_do_not_fit_take_turns(height: int, every: str) -> None:
    names = {f"r{n}" for n in range(8)}
    parts = mux("m0", 0x70) + "".join(ina260(name, f'mux = "m0", channel = {name[1:]}') for name in sorted(names))
    watched = Watched(parts, every)
    pages = []
    for _ in range(80):
        watched.sweeps(1)
        drawn = watched.text(height=height).splitlines()
        assert len(drawn) == height
        pages.append(tuple(line[:2] for line in drawn if line[:2] in names))
    assert set().union(*pages) == names
    assert len({len(page) for page in pages}) == 1
    turns = sum(page != after for page, after in pairwise(pages))
    assert turns <= (80 if every == "15s" else 8), "pages must not change faster than people read"


@pytest.mark.parametrize(
    "names",
    [
        [f"m{mux}-ch{channel}-0x41-in{number}" for mux in (0,) for channel in (3, 4) for number in (1, 2, 3)],
        ["rack-seven-pump-left", "rack-seven-pump-right"],
        ["left-pump-of-rack-seven", "right-pump-of-rack-seven"],
    ],
)
def test_long_names_are_cut_where_they_do_not_differ(names: list[str]) -> None:
    watched = Watched("".join(ina260(name, "bus = 1", 0x40 + at) for at, name in enumerate(names)))
    watched.sweeps(3)
    drawn = watched.text(38).splitlines()[3 : 3 + len(names)]
    assert all("V" in line and "…" in line[:11] for line in drawn)
    assert len({line[:11] for line in drawn}) == len(names)


def test_a_cut_error_names_the_command_that_shows_it_in_full() -> None:
    watched = Watched()
    watched.sweeps(1)
    assert "check --hardware" not in watched.text()
    watched.bench.chip("radio").unplug()
    watched.sweeps(1)
    assert "is it powered" not in watched.line("radio")
    assert watched.text().splitlines()[-1].endswith("Errors in full: wattpush check --hardware")
    assert "is it powered" in watched.line("radio", 200)
    assert "check --hardware" not in watched.text(200)


def test_a_simulated_watch_is_marked_at_every_width() -> None:
    watched = Watched()
    history = History(watched.bench.settings, watched.bench.clock, is_simulated=True)
    for width in (12, 20, 30, 44, 80, 200):
        heading = "".join(text for text, _ in lines(history.view(), width, 24, UNICODE)[0])
        assert "SIMULATED" in heading
    assert "SIMULATED" not in watched.text()


def test_a_drivers_message_cannot_control_the_terminal() -> None:
    watched = Watched()
    watched.sweeps(1)
    watched.history.add([Failure("cpu", SensorError("\x1b[2J gone\nnext"))])
    assert "\x1b" not in watched.text()
    assert "gone next" in watched.line("cpu")


def test_a_terminal_without_unicode_gets_ascii_only() -> None:
    watched = Watched()
    watched.sweeps(5)
    watched.bench.chip("radio").unplug()
    watched.sweeps(1)
    assert watched.text(glyphs=ASCII).isascii()
    assert watched.text(height=5, glyphs=ASCII).isascii()


@pytest.mark.parametrize(
    ("encoding", "environ", "glyphs"),
    [
        ("utf-8", {"LANG": "en_GB.UTF-8"}, UNICODE),
        ("UTF8", {"LANG": "C.UTF-8"}, UNICODE),
        ("utf-8", {"LANG": "en_GB.UTF-8", "LC_ALL": "C"}, ASCII),
        ("utf-8", {"LC_CTYPE": "POSIX"}, ASCII),
        ("utf-8", {}, ASCII),
        ("iso8859-15", {"LANG": "de_DE@euro"}, ASCII),
        ("ascii", {"LANG": "C.UTF-8"}, ASCII),
    ],
)
def test_the_encoding_of_the_terminal_selects_the_glyphs(
    encoding: str, environ: dict[str, str], glyphs: Glyphs
) -> None:
    assert glyphs_for(encoding, environ) is glyphs


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000 W "),
        (-0.0, "0.000 W "),
        (1e-9, "0.000 W "),
        (-1e-9, "0.000 W "),
        (0.0004, "0.400 mW"),
        (0.3241, "324.1 mW"),
        (0.99994, "999.9 mW"),
        (0.99996, "1.000 W "),
        (-0.3241, " -324 mW"),
        (-0.9996, "-1.00 W "),
        (1.6543, "1.654 W "),
        (9.99951, "10.00 W "),
        (999.96, "1.000 kW"),
        (-12.345, "-12.3 W "),
        (540.0, "540.0 W "),
        (12_345_678.0, "12.35 MW"),
        (4.6116e12, "4.612 TW"),  # a kernel driver may report this after a failed transfer
    ],
)
def test_a_quantity_has_a_fixed_width(value: float, text: str) -> None:
    assert format_quantity(value, "W") == text


@pytest.mark.parametrize(
    ("lowest", "highest", "text"),
    [
        (1.61, 9.98, "1.61..9.98 W "),
        (0.0132, 0.0793, "13.2..79.3 mW"),
        (0.0132, 9.98, "0.01..9.98 W "),
        (-7.3, 7.4, "-7.3..7.40 W "),
        (0.0, 0.0, "0.00..0.00 W "),
        (-0.2, 123.4, " -0.2..123 W "),
    ],
)
def test_a_range_has_one_unit(lowest: float, highest: float, text: str) -> None:
    assert format_range(lowest, highest, "W") == text


@pytest.mark.parametrize(
    ("joules", "text"),
    [
        (0.0, "0.000 J  "),
        (22.5, "22.50 J  "),
        (3599.0, "3.599 kJ "),
        (3600.0, "1.000 Wh "),
        (-3600.0, "-1.00 Wh "),
        (7.2e6, "2.000 kWh"),
    ],
)
def test_energy_is_in_joules_below_one_watt_hour(joules: float, text: str) -> None:
    assert format_energy(joules) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "250 ms"), (1.0, "1 s"), (1.5, "1.5 s"), (90.0, "90 s"), (120.0, "2 min"), (7200, "2 h")],
)
def test_a_duration_is_a_whole_number_of_its_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_bar_grows_by_eighths_of_a_cell_up_to_its_width() -> None:
    assert [bar(value, 8.0, 1, UNICODE) for value in range(9)] == ["", *"▏▎▍▌▋▊▉█"]
    assert bar(-8.0, 8.0, 4, UNICODE) == "████"
    assert bar(9.0, 8.0, 4, ASCII) == "####"
    assert bar(1.0, 0.0, 4, UNICODE) == ""


def test_a_sparkline_includes_zero_and_leaves_gaps() -> None:
    per_cell = TRACE_SLOTS // 10
    trace = [(slot, 8.0) for slot in range(per_cell)] + [(slot, 1.0) for slot in range(2 * per_cell, 3 * per_cell)]
    assert sparkline(trace, 3 * per_cell - 1, 10, UNICODE) == "       █ ▂"
    assert sparkline([(0, -5.0), (per_cell, 5.0)], per_cell, 10, ASCII) == "        .#"
    assert sparkline([(0, 0.0)], 0, 10, UNICODE) == "         ▁"


def test_a_steady_load_is_a_level_line_at_every_sample_interval() -> None:
    for every in ("100ms", "1s", "10s"):
        watched = Watched(every=every)
        watched.load("cpu", 5.0, 1.0)
        watched.sweeps(1300 if every == "100ms" else 130)
        row = watched.history.view().rows[0]
        assert len(row.trace) == TRACE_SLOTS
        drawn = sparkline(row.trace, watched.history.view().slot, 10, UNICODE)
        assert drawn == "██████████", every
