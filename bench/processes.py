"""Processes that are measured from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent

# POSIX leaves clock IDs to the system. Linux: ~pid in the upper bits, 2 for the CPU time of the whole process.
# Source: Linux, include/linux/posix-timers.h (make_process_cpuclock, CPUCLOCK_SCHED).
_CPU_CLOCK_OF_PROCESS = 2


class MissingToolError(Exception):
    """A tool that a benchmark needs is not installed; the message names its source."""


def start_python(arguments: list[str], environment: Mapping[str, str], **options: Any) -> subprocess.Popen[bytes]:
    """Start this Python with the project on its path."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        **options,
    )


def run_for_json(arguments: list[str], environment: Mapping[str, str]) -> Any:
    """Run this Python; return what it prints, which is JSON."""
    with start_python(arguments, environment, stdout=subprocess.PIPE) as process:
        output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: exit code {process.returncode}")
    return json.loads(output)


def run_for_cpu_seconds(arguments: list[str], environment: Mapping[str, str]) -> float:
    """Run this Python and discard its output; return the user and system CPU time that it used."""
    process = start_python(arguments, environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def cpu_seconds_of(pid: int) -> float:
    """User and system CPU time of a running process so far, including ended threads, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | _CPU_CLOCK_OF_PROCESS)


def resident_bytes_of(pid: int) -> int:
    """The resident memory of a running process (proc(5), VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process; kill it if it takes too long."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
