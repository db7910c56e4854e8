"""What a person and a program see of a measurement."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from agent.command_energy.notes import notes
from agent.command_energy.report import ReportFile, as_json
from agent.command_energy.results import DeviceResult, Measurement, RunResult
from agent.command_energy.table import table
from agent.errors import UsageError

PROJECT = Path(__file__).parents[2]


def device(name: str, joules: float | None = 10.0, **changes: Any) -> DeviceResult:
    known: dict[str, Any] = {
        "seconds": 4.0 if joules is not None else 0.0,
        "coverage": 1.0 if joules is not None else 0.0,
        "peak_watts": 3.5 if joules is not None else None,
        "idle_watts": None,
        "window_seconds": 1.07,
        "is_in_sum": False,
        "error": None,
    }
    return DeviceResult(name, joules, **{**known, **changes})


def run_of(*devices: DeviceResult, status: int = 0, seconds: float = 4.0) -> RunResult:
    return RunResult(1.7e9, seconds, status, devices)


def measurement(*runs: RunResult, **changes: Any) -> Measurement:
    known: dict[str, Any] = {
        "command": ("make", "-j4", "all tests"),
        "hostname": "node-17",
        "is_simulated": False,
        "reading_interval_seconds": 0.1,
        "idle_seconds": None,
        "runs_requested": len(runs),
        "runs": runs,
    }
    return Measurement(**{**known, **changes})


def test_the_table_shows_each_device_and_the_total() -> None:
    runs = (run_of(device("cpu", 12.345), device("fan", None, error="no INA260 at 0x40")),)
    assert table(measurement(*runs, notes=("be careful",))) == (
        "make -j4 'all tests': 4.000 s\n"
        "device  joules  mean watts  peak watts  seconds  measured\n"
        "cpu      12.35       3.086       3.500    4.000     100 %\n"
        "fan          -           -           -    0.000       0 %  no INA260 at 0x40\n"
        "total    12.35       3.086                4.000    1 of 2\n"
        "note: be careful\n"
    )


def test_several_runs_show_mean_spread_and_idle() -> None:
    runs = [run_of(device("cpu", joules, idle_watts=0.5)) for joules in (9.0, 10.0, 11.0)]
    assert table(measurement(*runs, idle_seconds=10.0)) == (
        "make -j4 'all tests': mean of 3 runs, net of the power in 10 s before\n"
        "device  joules  spread  net joules  idle watts  mean watts  peak watts  seconds  measured\n"
        "cpu      10.00   1.000       8.000      0.5000       2.500       3.500    4.000     100 %\n"
        "total    10.00   1.000       8.000      0.5000       2.500                4.000\n"
    )


def test_what_another_device_has_in_its_sum_counts_once() -> None:
    runs = (run_of(device("all", 10.0), device("core", 4.0, is_in_sum=True), device("disk", 3.0)),)
    assert measurement(*runs).total().joules.mean == 13.0
    assert runs[0].total_joules() == 13.0


def test_a_run_that_failed_is_left_out_of_the_mean() -> None:
    runs = (run_of(device("cpu", 8.0)), run_of(device("cpu", 10.0)), run_of(device("cpu", 99.0), status=2))
    (row,) = measurement(*runs).rows()
    assert row.joules.mean == 9.0
    assert row.joules.spread == pytest.approx(2**0.5)
    assert "exit status 2" in table(measurement(*runs))
    (row,) = measurement(runs[2]).rows()
    assert (row.joules.mean, row.joules.spread) == (99.0, None)


def test_a_short_command_is_warned_about() -> None:
    (note,) = notes([run_of(device("cpu", 0.1), device("fan", 0.1, window_seconds=0.0), seconds=0.3)], 0.1)
    assert note == (
        "cpu: a reading is the mean of 1.1 s, the command took 0.3 s: these joules are the mean power around it, "
        "times its duration; use a longer command, or set a shorter sample_interval for the service"
    )


def test_a_chip_that_does_not_average_is_warned_about() -> None:
    (note,) = notes([run_of(device("cpu", window_seconds=0.0022))], 0.1)
    assert note.startswith("cpu: a reading covers only 2.2 ms of every 100 ms; ")


def test_a_run_that_was_not_measured_all_the_time_is_warned_about() -> None:
    (note,) = notes([run_of(device("cpu", coverage=0.8, seconds=3.2))], 0.1)
    assert note == "cpu: not measured all the time; the joules are those of the seconds shown"


def test_json_has_every_number_with_its_unit(tmp_path: Path) -> None:
    runs = (run_of(device("cpu", 9.0, idle_watts=0.5)), run_of(device("cpu", 11.0, idle_watts=0.5)))
    report = ReportFile(str(tmp_path / "result.json"))
    report.write(measurement(*runs, idle_seconds=10.0))
    report.close()
    written = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert written == as_json(measurement(*runs, idle_seconds=10.0))
    assert written["command"] == ["make", "-j4", "all tests"]
    (cpu,) = written["devices"]
    assert cpu["joules"] == {"mean": 10.0, "standard_deviation": pytest.approx(2**0.5)}
    assert cpu["net_joules"]["mean"] == 8.0
    assert [run["devices"][0]["joules"] for run in written["runs"]] == [9.0, 11.0]
    assert written["total"]["joules"] == cpu["joules"]
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_documented_json_has_every_key_in_order() -> None:
    page = (PROJECT / "docs" / "commands.md").read_text(encoding="utf-8")
    (documented,) = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    actual = json.dumps(as_json(measurement(run_of(device("cpu")))))
    assert re.findall(r'"(\w+)": ', documented) == re.findall(r'"(\w+)": ', actual)


def test_a_report_keeps_link_and_mode_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "result.json", tmp_path / "result.json"
    target.write_text("earlier")
    target.chmod(0o640)
    link.symlink_to(target)
    report = ReportFile(str(link))
    assert target.read_text() == "earlier"
    report.write(measurement(run_of(device("cpu"))))
    assert link.is_symlink()
    assert json.loads(target.read_text())["hostname"] == "node-17"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_report_that_is_not_written_leaves_nothing(tmp_path: Path) -> None:
    report = ReportFile(str(tmp_path / "result.json"))
    report.close()
    assert list(tmp_path.iterdir()) == []


def test_a_report_cannot_be_a_folder_or_in_none(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "none" / "result.json"):
        with pytest.raises(UsageError, match=f"--json {name}: "):
            ReportFile(str(name))
