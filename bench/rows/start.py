"""The start of a process: `--once --dry-run` against the imports that no such program can do without."""

from __future__ import annotations

import compileall
import shutil
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Effort, Findings, Goal, Row, Samples, interleaved
from bench.nodes import SHORT_CONVERSION, configuration
from bench.processes import ROOT, hardware, run_for_cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FLOOR = ["-c", "import prometheus_client, tenacity, adafruit_ina260, adafruit_ina3221, adafruit_tca9548a"]
_BARE = ["-c", "pass"]


def measure(effort: Effort, folder: Path) -> Findings:
    """User and system time of whole processes that read 8 INA260 over /dev/i2c-1 and print them."""
    config = folder / "start.toml"
    config.write_text(
        configuration(8, top=f'state_dir = "{folder / "state"}"', each=SHORT_CONVERSION), encoding="utf-8"
    )
    run = ["-m", "agent", "--config", str(config), "--once", "--dry-run", "--log-level", "error"]
    # Where PYTHONDONTWRITEBYTECODE is set, or after an edit, the first run would not leave what the next ones load.
    compileall.compile_dir(ROOT / "agent", quiet=1)
    warm = hardware(folder)
    cold = {**warm, **_without_compiled_packages(folder / "pycache", run, warm)}
    taken = interleaved(
        effort.times(25, 5),
        {
            "floor": _timed(_FLOOR, warm),
            "ours": _timed(run, warm),
            "bare": _timed(_BARE, warm),
        },
    )
    not_compiled = interleaved(effort.times(5, 2), {"ours": _timed(run, cold)})
    floor, ours, bare = (Samples(taken[way][0], "ms") for way in ("floor", "ours", "bare"))
    return Findings(
        (
            Row("`--once --dry-run`: CPU, to the floor of imports", floor, ours, (Goal(1.35, is_ratio=True),)),
            Row("Python that does nothing: CPU, to the floor", floor, bare),
            Row("`--once --dry-run` without compiled files: CPU", ours, Samples(not_compiled["ours"][0], "ms")),
        )
    )


def _timed(arguments: list[str], environment: Mapping[str, str]) -> Callable[[], tuple[float]]:
    return lambda: (run_for_cpu_seconds(arguments, environment) * 1e3,)


def _without_compiled_packages(cache: Path, run: list[str], environment: Mapping[str, str]) -> dict[str, str]:
    """An environment that finds compiled files of Python's own library only, as after an install that leaves them out.

    They are kept in a folder of their own: a run fills it, then those of the packages and of the agent are taken out.
    """
    in_cache = {"PYTHONPYCACHEPREFIX": str(cache)}
    run_for_cpu_seconds(run, {**environment, **in_cache, "PYTHONDONTWRITEBYTECODE": ""})
    for source in (Path(sysconfig.get_path("purelib")), ROOT):
        shutil.rmtree(cache / source.relative_to("/"), ignore_errors=True)
    return {**in_cache, "PYTHONDONTWRITEBYTECODE": "1"}
