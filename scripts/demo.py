"""Demo: a real Pushgateway, the agent on simulated chips, and the gateway's content after a few pushes."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable

PUSHES = 3
WAIT_TIMEOUT_SECONDS = 60.0
LISTENING = re.compile(r'msg="Listening on" address=(\S+)')

CONFIG = """\
hostname = "demo"
interval = "2s"
sample_interval = "200ms"
state_dir = "{state_dir}"

[pushgateway]
url = "{url}"

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
    if gateway is None:
        sys.stderr.write("please install: sudo apt-get install prometheus-pushgateway\n")
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
        config.write_text(CONFIG.format(state_dir=folder / "state", url=url), encoding="utf-8")
        agent = start(stack, [sys.executable, "-m", "agent", "--config", str(config), "--simulate"], None)
        say(f"Waiting for {PUSHES} pushes, one every 2 s ...")
        wait_for(lambda: agent.poll() is not None or pushes(url) >= PUSHES, f"{PUSHES} pushes")
        if agent.poll() is not None:
            return agent.returncode
        say("The gateway now holds:")
        show(url)
        say("Done. The agent and the Pushgateway are stopped.")
    return 0


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
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except (urllib.error.URLError, ConnectionError):
        return None


def samples(url: str) -> list[tuple[str, dict[str, str], float]]:
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(fetch(url) or "")
        for sample in family.samples
    ]


def pushes(url: str) -> float:
    return next((value for name, _, value in samples(url) if name == "wattpush_agent_pushes_total"), 0.0)


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
