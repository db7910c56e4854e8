"""Permissions that come late or go, and reloads that the unit refuses."""

from __future__ import annotations

import errno
import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent import access
from agent.energy.state import State
from agent.errors import ExitCode, PermissionDeniedError
from agent.i2c import hints
from agent.measure.readings import Failure, Reading
from agent.run.agent import Agent, Parts
from agent.run.loop import Loop
from agent.run.permissions import Denials
from tests.bench import LinuxBench, failure, ina260, mux
from tests.run.running import (
    INFO,
    LONG_SECONDS,
    NO_MANAGER,
    PROJECT,
    HandPublisher,
    HandWaiting,
    MemoryGateway,
    program,
    write_config,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NODE = mux("m0", 0x70) + ina260("cpu", 'mux = "m0", channel = 0') + ina260("disk", 'mux = "m0", channel = 1')


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LinuxBench]:
    linux = LinuxBench(NODE, monkeypatch, tmp_path)
    yield linux
    linux.bench.sweep.close()


def loop_of(linux: LinuxBench, gateway: MemoryGateway, seconds: float) -> tuple[Loop, HandWaiting]:
    clock, settings = linux.bench.clock, linux.bench.settings
    agent = Agent(Parts(settings, INFO, clock, linux.bench.sweep, gateway, HandPublisher(clock), None), State())
    waiting = HandWaiting(clock, clock.seconds + seconds)
    return Loop(agent, clock, waiting, NO_MANAGER), waiting


@pytest.mark.reliability(
    17.1,
    "a service that was started before the module i2c-dev was loaded, so that systemd denies it every bus",
    "exit 77, and systemd starts it again with the permission; the error says why",
)
def test_a_service_that_is_denied_everything_later_ends_with_77(
    linux: LinuxBench, measured: Callable[[str], None]
) -> None:
    linux.dev.refusal = errno.ENOENT
    loop, waiting = loop_of(linux, MemoryGateway(), 60)
    appears_at = linux.bench.clock.seconds + 20

    def load_the_module() -> None:
        if linux.bench.clock.seconds >= appears_at:
            linux.dev.refusal = errno.EPERM

    waiting.on_wait = load_the_module
    with pytest.raises(PermissionDeniedError, match="sudo systemctl restart wattpush") as caught:
        loop.run()
    assert caught.value.exit_code is ExitCode.NOPERM
    assert linux.bench.clock.seconds - appears_at <= 20
    unit = (PROJECT / "deploy/systemd/wattpush.service").read_text(encoding="utf-8")
    assert "Restart=on-failure\n" in unit
    assert "77" not in re.findall(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)[0].split()
    measured("exit 77 within 20 s after the module is loaded")


def test_a_permission_that_is_denied_for_a_moment_ends_no_run(linux: LinuxBench) -> None:
    gateway = MemoryGateway()
    loop, waiting = loop_of(linux, gateway, 60)
    begun = linux.bench.clock.seconds

    def udev() -> None:
        linux.dev.refusal = errno.EACCES if begun + 10 <= linux.bench.clock.seconds < begun + 14 else None
        if linux.dev.refusal is not None:
            linux.bench.sweep.close()

    waiting.on_wait = udev
    loop.run()
    assert gateway.groups["device cpu"]["wattpush_device_read_errors_total"] > 0
    assert gateway.groups["device cpu"]["wattpush_device_up"] == 1


def test_a_device_that_can_be_read_keeps_the_run() -> None:
    denials = Denials()
    denied = Failure("cpu", PermissionDeniedError("/dev/i2c-1: permission denied"))
    good = Reading("disk", 12.0, 0.5, 6.0, 1000.0, 1.7e9, 1.0)
    assert {denials.lasting([denied, good], float(second)) for second in range(100)} == {None}


@pytest.mark.reliability(
    17.11,
    "permission denied in a sandbox that maps no group, or in a container",
    "the hint names the group i2c, never `nogroup`; in a container, `--device`",
)
def test_in_a_sandbox_the_hint_names_the_usual_group(
    linux: LinuxBench, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give a file away")
    linux.dev.refusal = errno.EACCES
    file = tmp_path / "i2c-9"
    file.touch()
    os.chown(file, -1, 65534)  # as PrivateUsers= shows every group that it does not map
    assert f"usermod -aG i2c {access.this_user()}" in hints.of_denied_permission(str(file), errno.EACCES)
    measured("`usermod -aG i2c`")


@pytest.mark.reliability(
    17.11,
    "permission denied in a sandbox that maps no group, or in a container",
    "the hint names the group i2c, never `nogroup`; in a container, `--device`",
)
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_in_a_container_the_hint_is_an_option_of_docker(
    linux: LinuxBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, measured: Callable[[str], None]
) -> None:
    (tmp_path / ".dockerenv").touch()
    monkeypatch.setattr(hints, "_CONTAINER_MARKS", (tmp_path / ".dockerenv",))
    linux.dev.refusal = code
    message = failure(linux.bench.run()["cpu"])
    assert "--device /dev/i2c-1 " in message
    assert "usermod" not in message
    message = hints.of_missing_bus((), "/dev/i2c-1")
    assert message == "start the container with --device /dev/i2c-1, if the machine has it"
    message = hints.of_missing_bus((7, 8), "/dev/i2c-1")
    assert message.startswith(
        "the container has /dev/i2c-7, /dev/i2c-8: name one of them as bus, or start the container"
    )
    assert "--device /dev/i2c-1" in message
    measured("`--device /dev/i2c-1`")


@pytest.mark.reliability(
    15.21, "`systemctl reload` with a bad configuration", "the reload fails with the reason; the run goes on as it was"
)
def test_a_reload_of_the_unit_refuses_a_bad_file(tmp_path: Path, measured: Callable[[str], None]) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    unit = (PROJECT / "deploy/systemd/wattpush.service").read_text(encoding="utf-8")
    commands = re.findall(r"^ExecReload=(.*)$", unit, re.MULTILINE)

    def reload(pid: int) -> subprocess.CompletedProcess[str]:
        """Do what systemd does: one command after the other, until one fails."""
        ended = subprocess.CompletedProcess("", -1, "", "")
        for command in commands:
            line = command.replace("/opt/wattpush/bin/wattpush", f"{sys.executable} -m agent")
            ended = subprocess.run(
                shlex.split(line.replace("${MAINPID}", str(pid))),
                cwd=PROJECT,
                env={**os.environ, "WATTPUSH_CONFIG": str(config), "MAINPID": str(pid)},
                capture_output=True,
                text=True,
                timeout=LONG_SECONDS,
                check=False,
            )
            if ended.returncode != 0:
                break
        return ended

    with program("--config", config, "--simulate") as running:
        running.logs(" read every")
        good = config.read_text()
        config.write_text("nonsense = 1\n")
        ended = reload(running.process.pid)
        assert ended.returncode == ExitCode.CONFIG
        assert "nonsense" in ended.stderr
        config.write_text(good)
        assert reload(running.process.pid).returncode == 0
        running.logs("configuration reloaded")
        assert "nonsense" not in running.stderr
    measured("exit 78 of ExecReload, and not one line of the run")
