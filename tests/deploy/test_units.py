"""The unit files: systemd's own tools accept them, and they agree with each other."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).parents[2]
UNITS = PROJECT / "deploy" / "systemd"
SERVICES = ("wattpush.service", "wattpush-once.service")
MOST_EXPOSED = 1.7
"""The exposure out of 10, by `systemd-analyze security`; it rates everything below 2 as OK."""


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        message = "needs systemd-analyze: apt-get install systemd"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """The sections of a unit, with the values of each key in order."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text(encoding="utf-8").splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(header[1], {})
        elif line and not line.startswith("#"):
            key, value = line.split("=", 1)
            section.setdefault(key, []).append(value)
    return sections


@pytest.mark.parametrize("name", SERVICES)
def test_the_sandbox_leaves_little_exposed(name: str) -> None:
    done = analyze("security", "--offline=true", "--no-pager", UNITS / name)
    exposed = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert exposed is not None, done.stdout + done.stderr
    assert float(exposed[1]) <= MOST_EXPOSED


def test_systemd_understands_every_line_of_the_units(tmp_path: Path) -> None:
    # Only the program differs: without an installation, the real path does not exist.
    for path in (*UNITS.glob("*.service"), *UNITS.glob("*.timer")):
        text = path.read_text(encoding="utf-8").replace("/opt/wattpush/bin/wattpush", "/bin/true")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    done = analyze("verify", "--man=no", *sorted(tmp_path.iterdir()))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


SYSTEMD_BLOCKS = [
    block
    for page in ("install.md", "boards.md")
    for block in re.findall(r"```systemd\n(.*?)```", (PROJECT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
]


@pytest.mark.parametrize("block", SYSTEMD_BLOCKS, ids=range(len(SYSTEMD_BLOCKS)))
def test_systemd_understands_every_documented_drop_in(block: str, tmp_path: Path) -> None:
    name = "wattpush-once.timer" if "[Timer]" in block else "wattpush.service"
    for path in (*UNITS.glob("*.service"), *UNITS.glob("*.timer")):
        text = path.read_text(encoding="utf-8").replace("/opt/wattpush/bin/wattpush", "/bin/true")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    folder = tmp_path / f"{name}.d"
    folder.mkdir()
    (folder / "override.conf").write_text(block, encoding="utf-8")
    done = analyze("verify", "--man=no", tmp_path / name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # The drop-in is read: an unknown key in the same file is reported.
    (folder / "override.conf").write_text(block + "NoSuchKey=1\n", encoding="utf-8")
    assert "NoSuchKey" in analyze("verify", "--man=no", tmp_path / name).stderr


def calls_of(name: str) -> set[str]:
    """The system calls of one of systemd's sets, those of the sets in it included."""
    listed = [line.strip() for line in analyze("syscall-filter", name).stdout.splitlines()[1:]]
    assert listed, name
    return {
        call
        for entry in listed
        if entry and not entry.startswith("#")
        for call in (calls_of(entry) if entry.startswith("@") else {entry})
    }


@pytest.mark.parametrize("name", SERVICES)
def test_the_agent_may_ask_for_the_clock_state_but_not_set_it(name: str) -> None:
    service = unit(name)["Service"]
    # ProtectClock= has a filter of its own, which SystemCallFilter= cannot open again.
    assert "ProtectClock" not in service
    assert service["CapabilityBoundingSet"] == [""]
    allowed: set[str] = set()
    for line in service["SystemCallFilter"]:
        named = line.removeprefix("~").split()
        calls = {call for entry in named for call in (calls_of(entry) if entry.startswith("@") else {entry})}
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    # On 32-bit Arm, the C library asks by the last one.
    assert allowed & calls_of("@clock") == {"adjtimex", "clock_adjtime", "clock_adjtime64"}
    assert "read" in allowed


@pytest.mark.parametrize("name", SERVICES)
def test_samples_in_memory_outlive_a_killed_agent(name: str) -> None:
    service = unit(name)["Service"]
    assert service["RuntimeDirectory"] == service["StateDirectory"]
    assert service["RuntimeDirectoryMode"] == ["0700"]
    assert service["RuntimeDirectoryPreserve"] == ["yes"]


def test_the_one_shot_has_the_sandbox_of_the_service() -> None:
    how_each_starts_and_ends = {
        "Type", "NotifyAccess", "WatchdogSec", "ExecStart", "ExecReload", "Restart", "RestartSec",
        "RestartPreventExitStatus", "TimeoutStartSec",
    }  # fmt: skip
    service, once = (unit(name)["Service"] for name in SERVICES)
    assert {key: value for key, value in service.items() if key not in how_each_starts_and_ends} == {
        key: value for key, value in once.items() if key not in how_each_starts_and_ends
    }


def test_no_unit_waits_for_a_network_or_hides_the_buses() -> None:
    for name in SERVICES:
        sections = unit(name)
        assert "network-online.target" not in str(sections)
        assert not {"PrivateDevices", "ProcSubset", "PrivateNetwork"} & set(sections["Service"])
        assert sections["Service"]["DeviceAllow"] == ["char-i2c rw", "/dev/vcio_gencmd rw", "/dev/vcio rw"]


def test_a_group_that_may_be_absent_does_not_keep_a_unit_from_starting() -> None:
    users = (PROJECT / "deploy/sysusers.d/wattpush.conf").read_text(encoding="utf-8")
    for name in SERVICES:
        assert unit(name)["Service"]["SupplementaryGroups"] == ["i2c"]
    assert {"m wattpush i2c", "m wattpush video"} <= set(users.splitlines())


CRON_LINE = next(
    line for line in (PROJECT / "deploy/cron/wattpush").read_text(encoding="utf-8").splitlines() if line.startswith("*")
)


@pytest.fixture
def cron(tmp_path: Path) -> Callable[[], str]:
    """Run the cron line with a folder that stands in for /; the commands that it ran and what it logged."""
    for folder in ("bin", "opt/wattpush/bin", "run", "var/lib/wattpush"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "log").touch()
    for name in ("opt/wattpush/bin/wattpush", "bin/logger"):
        (tmp_path / name).write_text('#!/bin/sh\n[ "${0##*/}" = wattpush ] && echo "wattpush $*" || cat >>"$LOG"\n')
        (tmp_path / name).chmod(0o755)

    def run() -> str:
        command = re.sub(r"(?<!\S)/(?=(opt|run|var)/)", f"{tmp_path}/", CRON_LINE.split(" wattpush ", 1)[1])
        environ = {"PATH": f"{tmp_path}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LOG": str(tmp_path / "log")}
        done = subprocess.run(
            ["sh", "-c", command], env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        # cron would mail any output, every minute.
        assert (done.stdout, done.stderr) == ("", "")
        return (tmp_path / "log").read_text()

    return run


def test_the_cron_line_runs_once_with_a_splay_and_logs_its_output(cron: Callable[[], str]) -> None:
    assert cron() == "wattpush --once --splay 45s\n"


def test_the_cron_line_does_nothing_under_systemd_or_without_the_program(
    cron: Callable[[], str], tmp_path: Path
) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert cron() == ""
    (tmp_path / "run/systemd/system").rmdir()
    (tmp_path / "opt/wattpush/bin/wattpush").unlink()
    assert cron() == ""


def test_the_cron_line_does_nothing_while_the_previous_run_goes_on(cron: Callable[[], str], tmp_path: Path) -> None:
    with (tmp_path / "var/lib/wattpush/cron.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cron() == ""
    assert cron() != ""


def test_the_cron_line_has_no_percent_sign() -> None:
    # cron turns it into a newline.
    assert "%" not in CRON_LINE
