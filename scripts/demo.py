"""Demo: the agent on simulated chips, what arrives at a real Pushgateway, and history through an outage.

The history goes to a real VictoriaMetrics, which is stopped for some seconds. It keeps what it is sent twice twice, so
that doubled samples would show. Every row of the history says how many samples the agent had produced before it; as
many must be there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable

PUSHES = 3
OUTAGE_SECONDS = 4.0
WAIT_TIMEOUT_SECONDS = 60.0
LISTENING = re.compile(r'msg="Listening on" address=(\S+)')

PRODUCED = {
    "wattpush_agent_remote_samples_total",
    "wattpush_agent_remote_refused_samples_total",
    "wattpush_agent_remote_dropped_samples_total",
    "wattpush_agent_remote_undated_samples_total",
    "wattpush_agent_remote_backlog_samples",
}
"""Where produced samples can be: their sum is what the agent produced."""

CONFIG = """\
hostname = "demo"
interval = "1s"
sample_interval = "200ms"
state_dir = "{state_dir}"

[pushgateway]
url = "{url}"

[remote_write]
url = "{history_url}/api/v1/write"
# The demo does not wait for time synchronisation, which a container cannot see.
clock = "system"

[[mux]]
name = "m0"
chip = "tca9548a"
bus = 1
address = 0x70

[[device]]
name = "cpu"
chip = "ina260"
mux = "m0"
channel = 0
address = 0x40

[[device]]
name = "accelerator"
chip = "ina260"
mux = "m0"
channel = 1
address = 0x40

[[device]]
name = "radio"
chip = "ina3221"
mux = "m0"
channel = 2
address = 0x41
input = 2
shunt_ohms = 0.05
"""


def main() -> int:
    gateway = shutil.which("prometheus-pushgateway") or shutil.which("pushgateway")
    server = shutil.which("victoria-metrics")
    if gateway is None or server is None:
        sys.stderr.write("please install: sudo apt-get install prometheus-pushgateway victoria-metrics\n")
        return 1
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wattpush-demo-")))
        log = folder / "gateway.log"
        start(stack, [gateway, "--web.listen-address=127.0.0.1:0", "--persistence.file="], log)
        wait_for(lambda: LISTENING.search(log.read_text(encoding="utf-8")) is not None, "the Pushgateway to listen")
        (address,) = LISTENING.findall(log.read_text(encoding="utf-8"))
        url = f"http://{address}"
        say(f"Pushgateway at {url}. The agent runs on simulated chips: two INA260 and an INA3221 behind a TCA9548A.")
        config = folder / "config.toml"
        history = History(stack, server, folder)
        history.begin()
        settings = CONFIG.format(state_dir=folder / "state", url=url, history_url=history.url)
        config.write_text(settings, encoding="utf-8")
        (folder / "run").mkdir(mode=0o700)
        # As systemd does; otherwise the agent leaves its place in the backlog in /dev/shm.
        os.environ["RUNTIME_DIRECTORY"] = str(folder / "run")
        agent = start(stack, [sys.executable, "-m", "agent", "--config", str(config), "--simulate"], None)
        say(f"Waiting for {PUSHES} pushes, one a second ...")
        wait_for(
            lambda: agent.poll() is not None or value_at(url, "wattpush_agent_pushes_total") >= PUSHES,
            f"{PUSHES} pushes",
        )
        if agent.poll() is not None:
            return agent.returncode
        say("The gateway now holds:")
        show(url)
        if not outage(url, history):
            return 1
        say("Done. The agent and both servers are stopped.")
    return 0


class History:
    """A VictoriaMetrics that is stopped and started again on the same data."""

    def __init__(self, stack: ExitStack, binary: str, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{address}"
        self._log = stack.enter_context((folder / "history.log").open("wb"))
        self._command = [binary, f"-storageDataPath={folder / 'history'}", f"-httpListenAddr={address}"]
        self._process: subprocess.Popen[bytes] | None = None
        stack.callback(self.end)

    def begin(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(self._command, stdout=self._log, stderr=self._log)
        wait_for(lambda: fetch(f"{self.url}/health") is not None, "VictoriaMetrics to listen")

    def end(self) -> None:
        """Stop it; everything that it has taken is on its disk."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def counts(self) -> tuple[int, int, int]:
        """Samples that the agent had produced before the newest row, lost ones and doubled ones."""
        fetch(f"{self.url}/internal/force_flush")
        text = fetch(f"{self.url}/api/v1/export?match[]=%7Bjob=%22power%22%7D") or ""
        series = [json.loads(line) for line in text.splitlines()]
        held: Counter[int] = Counter()
        produced: Counter[int] = Counter()
        doubled = 0
        for one in series:
            times = set(one["timestamps"])
            held.update(times)
            doubled += len(one["timestamps"]) - len(times)
            if one["metric"]["__name__"] in PRODUCED:
                for at, value in zip(one["timestamps"], one["values"], strict=True):
                    produced[at] += int(value or 0)
        newest = max(produced)
        return produced[newest], produced[newest] - sum(held[at] for at in held if at < newest), doubled


def outage(gateway_url: str, history: History) -> bool:
    """Stop the remote write server for some seconds; return whether everything is there afterwards."""
    history.end()
    waiting = Waiting(gateway_url)
    back_at = time.monotonic() + OUTAGE_SECONDS
    while time.monotonic() < back_at:
        waiting.look()
    say(f"History: VictoriaMetrics was stopped for {OUTAGE_SECONDS:.0f} s. Samples that wait: {waiting.numbers()}")
    history.begin()
    wait_for(lambda: waiting.look() == 0, "the backlog to drain")
    produced, lost, doubled = history.counts()
    sys.stdout.write(f"It is back, and they are sent. Samples that wait: {waiting.numbers()}\n")
    sys.stdout.write(f"Counted in VictoriaMetrics, of {produced} samples: {lost} lost, {doubled} doubled.\n")
    return lost == doubled == 0


class Waiting:
    """How many samples wait on the node, as the Pushgateway says."""

    def __init__(self, gateway_url: str) -> None:
        self._url = gateway_url
        self._numbers: list[int] = []

    def look(self) -> int:
        """Note the number, if it is another one than before, and return it."""
        time.sleep(0.1)
        number = int(value_at(self._url, "wattpush_agent_remote_backlog_samples"))
        if self._numbers[-1:] != [number]:
            self._numbers.append(number)
        return number

    def numbers(self) -> str:
        """Those since the last call."""
        text = ", ".join(map(str, self._numbers))
        self._numbers.clear()
        return text


def say(line: str) -> None:
    sys.stdout.write(f"\n{line}\n")
    sys.stdout.flush()


def start(stack: ExitStack, command: list[str], log: Path | None) -> subprocess.Popen[bytes]:
    """Start a process, and stop it when the demo ends for any reason."""
    output = None if log is None else stack.enter_context(log.open("wb"))
    process = subprocess.Popen(command, stdout=output, stderr=output)

    def stop() -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(stop)
    return process


def fetch(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except (urllib.error.URLError, ConnectionError):
        return None


def samples(url: str) -> list[tuple[str, dict[str, str], float]]:
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(fetch(f"{url}/metrics") or "")
        for sample in family.samples
    ]


def value_at(url: str, series: str) -> float:
    return next((value for name, _, value in samples(url) if name == series), 0.0)


def show(url: str) -> None:
    columns = ("volts", "amperes", "watts", "min_watts", "max_watts", "joules_total", "readings_total")
    table: dict[str, dict[str, float]] = {}
    for name, labels, value in samples(url):
        column = name.removeprefix("wattpush_device_")
        if column in columns:
            table.setdefault(labels["device"], {})[column] = value
    sys.stdout.write(f"\n{'device':<12}" + "".join(f"{column:>15}" for column in columns) + "\n")
    for device, values in sorted(table.items()):
        shown = (f"{values[column]:.3f}" if column in values else "-" for column in columns)
        sys.stdout.write(f"{device:<12}" + "".join(f"{text:>15}" for text in shown) + "\n")
    sys.stdout.flush()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    give_up_at = time.monotonic() + WAIT_TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > give_up_at:
            raise SystemExit(f"timed out waiting for {what}")
        time.sleep(0.1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
