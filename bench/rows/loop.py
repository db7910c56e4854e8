"""The running loop: CPU time and memory of the real program and of the stock script."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.bus import EmulatedBus, emulated_bus
from bench.measure import Effort, Findings, Goal, Row, Samples, interleaved
from bench.nodes import configuration
from bench.processes import cpu_seconds_of, resident_bytes_of, start_python, stop
from bench.servers import running_pushgateway

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

SAMPLES_A_PUSH = 15

_FASTER = 20
"""The speed-up over loops at 1 s and 15 s: the work for each sample and each push stays the same and comes 20 times
as often, so that the CPU time of one second is that of 20."""

_START_SECONDS = 2.0


def measure(effort: Effort, folder: Path) -> Findings:
    """Run both against one Pushgateway, each with its own emulated bus, taking turns."""
    seconds = effort.times(9, 3)
    with running_pushgateway(folder=folder) as port:
        config = folder / "loop.toml"
        sample_seconds = 1 / _FASTER
        config.write_text(
            configuration(
                8,
                top=f'state_dir = "{folder / "loop-state"}"\nsample_interval = {sample_seconds}\n'
                f"interval = {sample_seconds * SAMPLES_A_PUSH}",
                url=f"http://127.0.0.1:{port}",
            ),
            encoding="utf-8",
        )
        bus = emulated_bus(folder)
        stock = ["-m", "bench.stock", f"127.0.0.1:{port}", str(sample_seconds), str(SAMPLES_A_PUSH)]
        ours = ["-m", "agent", "--config", str(config), "--log-level", "error"]
        taken = interleaved(
            effort.times(4, 1),
            {
                "stock": _Watch(stock, bus, seconds),
                "ours": _Watch(ours, bus, seconds),
            },
        )
    percent = {
        variant: Samples(tuple(share * 100 / _FASTER for share in values[0]), "%") for variant, values in taken.items()
    }
    megabytes = {variant: Samples(tuple(value / 1e6 for value in values[1]), "MB") for variant, values in taken.items()}
    return Findings(
        (
            Row(
                "loop, 8 INA260 at 1 s, push every 15 s: CPU of one core",
                percent["stock"],
                percent["ours"],
                (Goal(0.5, is_ratio=True),),
            ),
            Row("loop, the same: resident memory", megabytes["stock"], megabytes["ours"], (Goal(1.1, is_ratio=True),)),
        )
    )


@dataclass(frozen=True, slots=True)
class _Watch:
    """Starts a process and measures it for some seconds after its start."""

    arguments: list[str]
    bus: EmulatedBus
    seconds: float

    def __call__(self) -> tuple[float, float]:
        """CPU seconds per second, and resident bytes at the end."""
        clock = threading.Event()
        process: subprocess.Popen[bytes] = start_python(self.arguments, self.bus.environment)
        try:
            clock.wait(_START_SECONDS)
            before = self._cpu_seconds(process.pid)
            clock.wait(self.seconds)
            used = self._cpu_seconds(process.pid) - before
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(self.arguments)}: ended with exit code {process.returncode}")
            return used / self.seconds, resident_bytes_of(process.pid)
        finally:
            stop(process)

    def _cpu_seconds(self, pid: int) -> float:
        return cpu_seconds_of(pid) - self.bus.cpu_seconds()
