"""The start of a process: `--once --dry-run` against the imports that any such program needs."""

from __future__ import annotations

import compileall
import shutil
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from bench.bus import NO_BOARD, EmulatedBus, emulated_bus
from bench.measure import Effort, Findings, Goal, Row, Samples, interleaved
from bench.nodes import SHORT_CONVERSION, configuration
from bench.processes import ROOT, run_for_cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

_FLOOR = ["-c", "import prometheus_client, tenacity, adafruit_ina260, adafruit_tca9548a"]
_BARE = ["-c", "pass"]


def measure(effort: Effort, folder: Path) -> Findings:
    """User and system time of whole processes that read 8 INA260 over /dev/i2c-1 and print them."""
    config = folder / "start.toml"
    config.write_text(
        configuration(8, top=f'state_dir = "{folder / "state"}"', each=SHORT_CONVERSION), encoding="utf-8"
    )
    run = ["-m", "agent", "--config", str(config), "--once", "--dry-run", "--log-level", "error"]
    # With PYTHONDONTWRITEBYTECODE, or after an edit, the first run would not leave compiled files for the next ones.
    compileall.compile_dir(ROOT / "agent", quiet=1)
    bus = emulated_bus(folder)
    cold = _without_compiled_packages(folder / "pycache", run, bus)
    taken = interleaved(
        effort.times(25, 5),
        {
            "floor": lambda: _milliseconds(_FLOOR, NO_BOARD),
            "ours": lambda: _milliseconds(run, bus.environment, bus),
            "bare": lambda: _milliseconds(_BARE, NO_BOARD),
        },
    )
    not_compiled = interleaved(effort.times(5, 2), {"ours": lambda: _milliseconds(run, bus.environment | cold, bus)})
    floor, ours, bare = (Samples(taken[variant][0], "ms") for variant in ("floor", "ours", "bare"))
    return Findings(
        (
            Row("`--once --dry-run`: CPU, to the floor of imports", floor, ours, (Goal(1.35, is_ratio=True),)),
            Row("Python that does nothing: CPU, to the floor", floor, bare),
            Row("`--once --dry-run` without compiled files: CPU", ours, Samples(not_compiled["ours"][0], "ms")),
        )
    )


def _milliseconds(arguments: list[str], environment: Mapping[str, str], bus: EmulatedBus | None = None) -> tuple[float]:
    """The CPU time of a process without that of the emulated bus."""
    seconds = run_for_cpu_seconds(arguments, environment)
    return ((seconds - (bus.cpu_seconds() if bus is not None else 0.0)) * 1e3,)


def _without_compiled_packages(cache: Path, run: list[str], bus: EmulatedBus) -> dict[str, str]:
    """An environment that finds only the compiled files of Python's own library, as some installers leave it.

    They are in a separate folder: a run fills it, then those of the packages and of the agent are removed.
    """
    in_cache = {"PYTHONPYCACHEPREFIX": str(cache)}
    run_for_cpu_seconds(run, {**bus.environment, **in_cache, "PYTHONDONTWRITEBYTECODE": ""})
    for source in (Path(sysconfig.get_path("purelib")), ROOT):
        shutil.rmtree(cache / source.relative_to("/"), ignore_errors=True)
    return {**in_cache, "PYTHONDONTWRITEBYTECODE": "1"}
