"""Pushed counters across killed processes and disks that lose writes."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import shutil
import threading
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.reliability.killed_run import AMPERES, VOLTS, run_until_killed
from tests.run.running import LONG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POWER_WATTS = VOLTS * AMPERES
TOLERANCE = 1.005

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.reliability.killed_run", "adafruit_ina260", "adafruit_tca9548a"])


@dataclass(frozen=True)
class Push:
    life: int
    life_began_seconds: float
    at_seconds: float
    counters: dict[str, float]


def live_and_be_killed(life: int, folder: Path, boot: str, chance: random.Random) -> list[Push]:
    """The pushes of a run that is killed shortly after one of its first ten."""
    disk_is_full = chance.random() < 0.1
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(
        target=run_until_killed, args=(folder, boot, theirs), kwargs={"disk_is_full": disk_is_full}
    )
    process.start()
    theirs.close()
    assert ours.poll(LONG_SECONDS)
    began_seconds, _ = ours.recv()
    pushes: list[Push] = []
    killed_after = chance.randrange(10)
    with ours, contextlib.suppress(EOFError):
        while True:
            if len(pushes) == killed_after:
                threading.Event().wait(chance.uniform(0, 0.003))
                process.kill()
            assert ours.poll(LONG_SECONDS)
            at_seconds, counters = ours.recv()
            pushes.append(Push(life, began_seconds, at_seconds, counters))
    process.join(LONG_SECONDS)
    return pushes


def forget(chance: random.Random, folder: Path, older: Path, boot: str) -> tuple[str, str]:
    """What happens to the disk, and to the boot, between two runs."""
    file = folder / "counters.json"
    fate = chance.choices(
        ["nothing", "power cut", "power cut, writes lost", "power cut, file cut short", "file damaged"],
        [60, 10, 15, 10, 5],
    )[0]
    if fate == "nothing":
        return fate, boot
    if fate == "power cut, writes lost" and older.exists():
        shutil.copy(older, file)
    elif fate == "power cut, file cut short" and file.exists():
        file.write_bytes(file.read_bytes()[: chance.randrange(1, 200)])
    elif fate == "file damaged" and file.exists():
        data = bytearray(file.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
    return fate, boot if fate == "file damaged" else f"{boot}+"


def increase(values: list[float]) -> float:
    """What Prometheus adds up: a lower value is a counter reset, and all of it counts."""
    total = 0.0
    for earlier, later in pairwise(values):
        total += later - earlier if later >= earlier else later
    return total


@pytest.mark.long
@pytest.mark.reliability(
    12.1,
    "`kill -9`, power cuts, lost writes, a full disk, damaged state files",
    "counters continue from at least the pushed value, or start from zero",
)
def test_no_kill_and_no_disk_fault_creates_phantom_energy(tmp_path: Path, measured: Callable[[str], None]) -> None:
    chance = random.Random(1)
    kills = 500
    folder, older, boot = tmp_path / "state", tmp_path / "older.json", "boot"
    folder.mkdir()
    pushes: list[Push] = []
    fates: dict[str, int] = {}
    for life in range(kills):
        lived = live_and_be_killed(life, folder, boot, chance)
        # While the disk is full, the first pushes have no counters: the older file is still there.
        pushes += [push for push in lived if "wattpush_device_joules_total" in push.counters]
        if (folder / "counters.json").exists() and chance.random() < 0.3:
            shutil.copy(folder / "counters.json", older)
        fate, boot = forget(chance, folder, older, boot)
        fates[fate] = fates.get(fate, 0) + 1
    assert len(pushes) > kills
    assert len(fates) == 5
    falls = 0
    for name, rate in (
        ("wattpush_device_joules_total", POWER_WATTS),
        ("wattpush_device_coulombs_total", AMPERES),
        ("wattpush_device_measured_seconds_total", 1.0),
    ):
        for earlier, later in pairwise(pushes):
            if later.counters[name] < earlier.counters[name]:
                # It fell: then it started from zero in this run.
                falls += 1
                assert later.life != earlier.life
                assert later.counters[name] <= rate * (later.at_seconds - later.life_began_seconds) * TOLERANCE
        truth = rate * (pushes[-1].at_seconds - pushes[0].life_began_seconds)
        assert increase([0.0, *(push.counters[name] for push in pushes)]) <= truth * TOLERANCE
    assert falls > 0, "no fate made a counter start from zero: this test shows nothing"
    measured(f"{kills} kills, two in five with a disk fault or a power cut: no rise above the true energy + 0.5 %")
