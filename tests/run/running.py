"""What the tests of the run share: a clock advanced by hand, agents on simulated chips, and the real program."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.build_info import AgentInfo
from agent.energy.state import State
from agent.i2c.adapters import prepare_blinka
from agent.i2c.muxes import MUX_KINDS
from agent.i2c.place import Mux, Place
from agent.metrics.groups import name_of
from agent.push.base import GatewayDestination
from agent.push.delivery import PushResult
from agent.run.agent import Agent, Parts
from agent.run.publisher import Publisher
from agent.run.saver import Saver
from agent.run.systemd import Notifier
from agent.settings import Device, PushgatewaySettings, Settings
from tests import bench
from tests.servers import get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from agent.energy.state_file import StateFile
    from agent.errors import AgentError
    from agent.metrics.groups import Group
    from agent.run.history import History
    from agent.simulate.clock import HandClock
    from agent.simulate.world import World

prepare_blinka(())

PROJECT = Path(__file__).parents[2]
GOLDEN = PROJECT / "tests" / "golden"
LONG_SECONDS = 120.0
"""How long a test waits on a busy machine before it fails."""

M0 = Mux("m0", MUX_KINDS["tca9548a"], Place(1, None, None, 0x70))
CPU = Device("cpu", "ina260", Place(1, M0, 0, 0x40))
DISK = Device("disk", "ina260", Place(1, M0, 1, 0x40))
RADIO = Device("radio", "ina3221", Place(1, M0, 3, 0x41), input=2, shunt_ohms=0.1)
MODEM = Device("modem", "ina3221", Place(1, M0, 3, 0x41), input=1, shunt_ohms=0.05)

GATEWAY = PushgatewaySettings("http://gateway.invalid:9091")

NO_MANAGER = Notifier({})
"""There is no service manager."""

INFO = AgentInfo("1.2.3", "3.11.2", "10.0.0", "0123456789ab", is_simulated=True, start_time_seconds=1_700_000_000.0)


def settings_for(*devices: Device, **changes: Any) -> Settings:
    changes.setdefault("pushgateway", GATEWAY)
    changes.setdefault("muxes", (M0,))
    return Settings("node-17", devices or (CPU,), **changes)


class HandWaiting:
    """Waiting advances the clock, and stops the loop at `stop_at_seconds`; `on_wait` is called at every wait."""

    def __init__(self, clock: HandClock, stop_at_seconds: float = float("inf")) -> None:
        self.clock = clock
        self.stop_at_seconds = stop_at_seconds
        self.stop_requested = False
        self.reload_requested = False
        self.stop_requested_at_seconds: float | None = None
        self.waits = 0
        self.on_wait: Callable[[], None] = lambda: None

    def wait(self, seconds: float) -> None:
        self.waits += 1
        ends = self.clock.seconds + max(0.0, seconds)
        self.clock.seconds = ends if self.stop_requested else min(ends, self.stop_at_seconds)
        self.stop_requested = self.stop_requested or self.clock.seconds >= self.stop_at_seconds
        self.on_wait()


class HandPublisher(Publisher):
    """Pushes inside `send`, or, while `hangs`, when `release` is called."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__(clock, lambda: None)
        self.hangs = False
        self._held: Any = None

    def _begin(self, job: Any) -> None:
        if self.hangs:
            self._held = job
        else:
            self._run(job)

    def release(self) -> None:
        assert self._held is not None
        held, self._held = self._held, None
        self._run(held)


class InlineSaver(Saver):
    """Saves inside `save`, or, while `hangs`, when `release` is called."""

    def __init__(self, file: StateFile) -> None:
        super().__init__(file, lambda: None)
        self.hangs = False

    def _begin(self) -> None:
        if not self.hangs:
            self._write()

    def release(self) -> None:
        self.hangs = False
        self._write()


class MemoryGateway(GatewayDestination):
    """Handles pushes and deletions as a Pushgateway does, and fails on demand."""

    def __init__(self, settings: PushgatewaySettings | None = None) -> None:
        self._settings = settings or GATEWAY
        self.groups: dict[str, dict[str, float]] = {}
        self.history: list[dict[str, dict[str, float]]] = []
        self.fail: Callable[[Group], AgentError | None] = lambda _group: None
        self.delete_error: AgentError | None = None
        self.held_error: AgentError | None = None
        self.deleted: list[str] = []
        self.deletions = 0
        self.stopped = 0

    def push(self, groups: Sequence[Group], budget_seconds: float) -> Sequence[PushResult]:
        assert budget_seconds > 0
        results = []
        for group in groups:
            error = self.fail(group)
            if error is None:
                self.groups[group.name] = {
                    sample.name: sample.value for family in group.registry.collect() for sample in family.samples
                }
            results.append(PushResult(group.grouping_key, 1, error))
        self.history.append({name: dict(values) for name, values in self.groups.items()})
        return results

    def delete(self, grouping_keys: Sequence[Mapping[str, str]], budget_seconds: float) -> Sequence[PushResult]:
        assert budget_seconds > 0
        self.deletions += 1
        if self.delete_error is None:
            for name in map(name_of, grouping_keys):
                self.groups.pop(name, None)
                self.deleted.append(name)
        return [PushResult(key, 1, self.delete_error) for key in grouping_keys]

    def held(self, hostname: str, budget_seconds: float) -> Mapping[tuple[str, str], float]:
        assert budget_seconds > 0
        if self.held_error is not None:
            raise self.held_error
        return {
            (name.removeprefix("device ") if name != "node" else "", series): value
            for name, values in self.groups.items()
            for series, value in values.items()
        }

    def stop(self) -> None:
        self.stopped += 1

    def close(self) -> None:
        pass


sweep_of, world_for = bench.sweep_of, bench.world_for


def agent_of(
    settings: Settings,
    world: World,
    clock: HandClock,
    destination: MemoryGateway | None,
    publisher: Publisher | None = None,
    *,
    state_file: StateFile | None = None,
    history: History | None = None,
) -> Agent:
    state = State() if state_file is None else state_file.load()
    state = state.with_sources({device.name: device.source for device in settings.devices})
    sweep = sweep_of(settings, world, clock, state.devices_read_in_this_boot())
    saver = None if state_file is None else InlineSaver(state_file)
    parts = Parts(settings, INFO, clock, sweep, destination, publisher or HandPublisher(clock), saver, history)
    return Agent(parts, state)


def until(condition: Callable[[], Any], what: str, seconds: float = LONG_SECONDS) -> Any:
    """Poll until something is true; return its value."""
    pause = threading.Event()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if value := condition():
            return value
        pause.wait(0.02)
    pytest.fail(f"did not happen within {seconds:g} s: {what}")


def has_grown(count: Callable[[], int], before: int) -> bool:
    return count() > before


def groups_of(url: str, job: str, hostname: str | None = None) -> dict[str, dict[str, float]]:
    """What a real Pushgateway holds of a job: by device ("" for the node's group), then by metric name."""
    found: dict[str, dict[str, float]] = {}
    for entry in json.loads(get(f"{url}/api/v1/metrics"))["data"]:
        labels = entry.pop("labels")
        if labels["job"] == job and hostname in (None, labels["hostname"]):
            found[labels.get("device", "")] = {
                name: float(family["metrics"][0]["value"])
                for name, family in entry.items()
                if isinstance(family, dict) and "value" in family["metrics"][0]
            }
    return found


def ask(url: str, method: str = "GET", body: str = "", **headers: str) -> tuple[int, str, dict[str, str]]:
    """Send a request; return status, body and headers."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=LONG_SECONDS)
    try:
        connection.request(
            method, parts.path, body or None, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


def samples_of(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """The samples of an exposition: by metric name, then by labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


DEVICE_TOML = """
[[device]]
name = "{name}"
chip = "ina260"
mux = "m0"
channel = {channel}
address = 0x40
averaging = {{ count = 4, voltage = "1.1ms", current = "1.1ms" }}
"""


def write_config(
    folder: Path,
    gateway: str | None,
    job: str = "power",
    *,
    devices: Sequence[str] = ("cpu",),
    top: str = "",
    push: str = "",
    more: str = "",
) -> Path:
    """Write a configuration for a fast run: its chips convert in 9 ms."""
    text = f'hostname = "node-17"\nstate_dir = "{folder / "state"}"\n{top or _QUICK}\n'
    if gateway is not None:
        text += f'[pushgateway]\nurl = "{gateway}"\njob = "{job}"\n{push or _PUSH}\n'
    text += '[[mux]]\nname = "m0"\nchip = "tca9548a"\nbus = 1\naddress = 0x70\n'
    for channel, name in enumerate(devices):
        text += DEVICE_TOML.format(name=name, channel=channel)
    path = folder / "config.toml"
    path.write_text(text + more)
    return path


_QUICK = 'interval = "200ms"\nsample_interval = "50ms"'
_PUSH = 'timeout = "1m"'


class Program:
    """The real program as a process; `lines` collects its stderr."""

    def __init__(
        self,
        *arguments: str | Path,
        environ: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
        module: str = "agent",
    ) -> None:
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", module, *map(str, arguments)],
            cwd=PROJECT,
            env=None if environ is None else dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
        self._ended = True

    @property
    def stderr(self) -> str:
        return "".join(self.lines)

    def logs(self, text: str, times: int = 1) -> None:
        """Wait until its stderr contains the text."""

        def output() -> bool:
            return self.stderr.count(text) >= times

        until(lambda: output() or self._ended, f"{text!r} in:\n{self.stderr}")
        assert output(), self.stderr

    def catches(self, number: int) -> bool:
        """Whether it handles a signal already; until then the kernel would end it."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(mask, 16) >> (number - 1) & 1)

    def end(self, number: int | None = None) -> tuple[int, float]:
        """Send a signal, if given, and wait for the exit; return the exit code and the seconds that it took."""
        begun = time.monotonic()
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(LONG_SECONDS)
        seconds = time.monotonic() - begun
        self._reader.join(LONG_SECONDS)
        assert "Traceback" not in self.stderr, self.stderr
        return code, seconds

    def close(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait(LONG_SECONDS)
        self._reader.join(LONG_SECONDS)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@contextlib.contextmanager
def program(
    *arguments: str | Path, environ: Mapping[str, str] | None = None, module: str = "agent"
) -> Iterator[Program]:
    running = Program(*arguments, environ=environ, module=module)
    try:
        yield running
    finally:
        running.close()


def run(*arguments: str | Path, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real program to its end."""
    return subprocess.run(
        [sys.executable, "-m", "agent", *map(str, arguments)],
        cwd=PROJECT,
        env=None if environ is None else dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
    )


def on_a_terminal(*arguments: str | Path, environ: Mapping[str, str]) -> str:
    """Run the real program with its stdout on a terminal; return what that shows."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "agent", *map(str, arguments)]
    environ = {**os.environ, **environ}
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        with subprocess.Popen(command, cwd=PROJECT, env=environ, stdin=subprocess.DEVNULL, stdout=theirs) as process:
            os.close(theirs)
            with contextlib.suppress(OSError):  # EIO: the program has closed the terminal
                while data := terminal.read(65536):
                    shown += data
            assert process.wait(LONG_SECONDS) == 0
    return shown.decode().replace("\r\n", "\n")
