"""Signals to the real program: stops at any moment, and storms of reloads."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.run.running import PROJECT, groups_of, has_grown, program, until, write_config
from tests.servers import Server, hanging

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WATTS = 6.0
MANY = 60


@pytest.mark.parametrize(
    "stops",
    [
        6,
        pytest.param(
            MANY,
            marks=[
                pytest.mark.long,
                pytest.mark.reliability(
                    15,
                    "SIGTERM at any moment from the start on, with a gateway that answers and one that hangs",
                    "a clean exit within 2 s, state saved",
                ),
            ],
        ),
    ],
)
def test_a_stop_is_clean_at_any_moment_and_waits_for_no_gateway(
    stops: int, tmp_path: Path, pushgateway_url: str, measured: Callable[[str], None]
) -> None:
    chance = random.Random(15)
    pause = threading.Event()
    start_seconds = 0.0
    hung_seconds = []
    with Server(hanging) as hung:
        for number in range(stops):
            folder = tmp_path / str(number)
            folder.mkdir()
            # Every third stop comes while a push hangs, the others at any moment.
            is_while_hanging = number % 3 == 0
            url = hung.url if is_while_hanging else chance.choice([pushgateway_url, hung.url])
            # A stop that waited for the gateway would take an hour.
            config = write_config(folder, url, "stopped", devices=["cpu", "fan"], push='timeout = "1h"')
            begun_seconds, connections = time.monotonic(), hung.connections
            with program("--config", config, "--simulate") as running:
                if is_while_hanging:
                    until(partial(has_grown, lambda: hung.connections, connections), "a push")
                    start_seconds = time.monotonic() - begun_seconds
                else:
                    pause.wait(chance.uniform(0, 2 * start_seconds))
                is_caught = running.catches(signal.SIGTERM)
                code, seconds = running.end(signal.SIGTERM)
                assert code in ((0,) if is_caught else (0, -signal.SIGTERM)), running.stderr
            if is_while_hanging:
                hung_seconds.append(seconds)
            state = folder / "state" / "simulated.json"
            if is_caught and state.exists():
                assert '"ended_well": true' in state.read_text()
    if stops == MANY:
        # A busy machine may delay some of them; a program that takes longer does so every time.
        assert statistics.median(hung_seconds) < 2
    measured(f"{stops} stops: exit 0 as soon as the handler is installed, even while a push hangs")


BUS_TOML = """[[device]]
name = "held{number}"
chip = "ina260"
bus = {number}
address = 0x40
"""

EVERYTHING = pytest.mark.reliability(
    15.02,
    "SIGTERM with up to 16 buses held by others, a disk whose every call takes 3 s, a gateway that hangs, "
    "and a stderr that is full, all at once",
    "exit 0 within 2 s",
)


@EVERYTHING
@pytest.mark.parametrize("held_buses", [0, 1, 4, 16])
@pytest.mark.parametrize("moment", ["while it starts", "while it saves"])
def test_a_stop_waits_for_nothing_that_hangs(
    tmp_path: Path, held_buses: int, moment: str, measured: Callable[[str], None]
) -> None:
    buses = tmp_path / "buses"
    buses.mkdir()
    numbers = range(2, 2 + held_buses)
    with Server(hanging) as hung, ExitStack() as stack:
        for number in numbers:
            file = stack.enter_context((buses / str(number)).open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        config = write_config(
            tmp_path,
            hung.url,
            top='interval = "100ms"\nsample_interval = "50ms"',
            push='timeout = "1h"',
            more="".join(BUS_TOML.format(number=number) for number in numbers),
        )
        read_end, write_end = os.pipe()
        stack.callback(os.close, read_end)
        os.set_blocking(write_end, False)
        with suppress(BlockingIOError):
            while True:
                os.write(write_end, b"x" * 4096)
        os.set_blocking(write_end, True)
        if not held_buses:
            os.close(write_end)
            write_end = os.open(os.devnull, os.O_WRONLY)
        if moment == "while it starts":
            (tmp_path / "stall").touch()
        script = PROJECT / "tests" / "reliability" / "slow_node.py"
        process = subprocess.Popen(
            [sys.executable, script, tmp_path / "state", buses, "--config", config, "--simulate"],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdin=subprocess.DEVNULL,
            stderr=write_end,
        )
        os.close(write_end)
        stack.callback(process.wait)
        stack.callback(process.kill)
        if moment == "while it starts":
            until((tmp_path / "stalling").exists, "a call of the disk")
        else:
            until(lambda: hung.connections, "a push")
            (tmp_path / "stall").touch()
        begun_seconds = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert time.monotonic() - begun_seconds < 2
    measured("0, 1, 4 and 16 buses held: exit 0 in less than 2 s, while it starts and while it saves")


@pytest.mark.reliability(
    15.2,
    "a storm of SIGHUPs: good files, bad files, devices added, removed and renamed",
    "a bad file changes nothing; a device that stays loses nothing; the group of a removed device is deleted",
)
def test_a_storm_of_reloads_loses_nothing(
    tmp_path: Path, pushgateway_url: str, measured: Callable[[str], None]
) -> None:
    chance = random.Random(1)
    job, storms = "storm", 300
    recording = tmp_path / "rail.csv"
    recording.write_text(f"seconds,volts,amperes\n0,12,{WATTS / 12}\n")

    def write(*devices: str) -> Path:
        # Every reload of a simulated run creates new chips, whose first conversion takes 9 ms.
        return write_config(
            tmp_path,
            pushgateway_url,
            job,
            devices=devices,
            top='interval = "100ms"\nsample_interval = "20ms"',
            more="[metrics]\ncharge = true\n",
        )

    config = write("cpu", "disk")
    with program("--config", config, "--trace", f"cpu={recording}") as running:

        def answers() -> int:
            return running.stderr.count("configuration reloaded") + running.stderr.count("is not reloaded")

        until(lambda: groups_of(pushgateway_url, job).get("cpu", {}).get("wattpush_device_up"), "a reading of cpu")
        before = groups_of(pushgateway_url, job)["cpu"]
        for number in range(storms):
            kind = chance.choice(["same", "bad", "half a file", "added", "removed", "renamed"])
            devices = {"added": ("cpu", "disk", "fan"), "removed": ("cpu",), "renamed": ("cpu", "drive")}
            write(*devices.get(kind, ("cpu", "disk")))
            if kind == "bad":
                config.write_text("nonsense = 1\n")
            elif kind == "half a file":
                text = config.read_text()
                config.write_text(text[: chance.randrange(len(text))])
            so_far = answers()
            for _ in range(chance.choice([1, 1, 5])):
                running.process.send_signal(signal.SIGHUP)
            if number % 3 == 0:  # wait for some; others arrive during a reload
                until(partial(has_grown, answers, so_far), "an answer to SIGHUP")
        write("cpu", "last")  # a device that no storm had: its group marks the last configuration
        running.process.send_signal(signal.SIGHUP)
        until(lambda: groups_of(pushgateway_url, job).keys() == {"cpu", "last", ""}, "the last configuration")
        assert running.end(signal.SIGTERM)[0] == 0
        assert "nonsense" in running.stderr
        assert "is not reloaded" in running.stderr
    groups = groups_of(pushgateway_url, job)
    assert groups.keys() == {"cpu", "last", ""}
    cpu = groups["cpu"]
    assert cpu["wattpush_device_joules_total"] == pytest.approx(
        WATTS * cpu["wattpush_device_measured_seconds_total"], rel=0.005
    )
    assert cpu["wattpush_device_coulombs_total"] == pytest.approx(
        WATTS / 12 * cpu["wattpush_device_measured_seconds_total"], rel=0.005
    )
    name = "wattpush_device_last_read_timestamp_seconds"
    assert cpu["wattpush_device_measured_seconds_total"] == pytest.approx(
        before["wattpush_device_measured_seconds_total"] + cpu[name] - before[name], abs=0.01
    )
    assert cpu["wattpush_device_read_errors_total"] == 0
    measured(f"{storms} storms: the device that stays counts from its first reading to its last")
