"""Processes that are measured from outside, with /dev/i2c-N answered at the boundary of system calls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
_SOURCE = Path(__file__).with_name("i2c_dev.c")

# POSIX leaves the numbers to the system; Linux: ~pid in the upper bits, 2 for the CPU time of the whole process.
# Source: Linux, include/linux/posix-timers.h (make_process_cpuclock, CPUCLOCK_SCHED).
_CPU_CLOCK_OF_PROCESS = 2


class MissingToolError(Exception):
    """Something that a benchmark needs is not installed; the message says how to get it."""


def hardware(folder: Path) -> dict[str, str]:
    """The environment in which a process finds 64 INA260 behind eight muxes on /dev/i2c-1.

    Raises:
        MissingToolError: there is no C compiler.
    """
    library = folder / "i2c_dev.so"
    if not library.exists():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise MissingToolError("a C compiler is needed to emulate /dev/i2c-N: sudo apt-get install gcc libc6-dev")
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
        subprocess.run(command, check=True)  # noqa: S603 - the compiler of this machine on a file beside this one
    stand_in = folder / "i2c-1"
    stand_in.touch()
    return {
        "LD_PRELOAD": str(library),
        "BENCH_I2C_STAND_IN": str(stand_in),
        "BLINKA_FORCEBOARD": "GENERIC_LINUX_PC",
        "BLINKA_FORCECHIP": "GENERIC_X86",
        "BLINKA_SKIP_DEPENDENCY_CHECK": "1",
    }


def start_python(arguments: list[str], environment: Mapping[str, str], **options: Any) -> subprocess.Popen[bytes]:
    """Start this Python with the project on its path."""
    return subprocess.Popen(  # noqa: S603 - our own modules in our own interpreter
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
    """Run this Python with its output thrown away; return the user and system CPU time that it used."""
    process = start_python(arguments, environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def cpu_seconds_of(pid: int) -> float:
    """User and system CPU time of a running process so far, ended threads included, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | _CPU_CLOCK_OF_PROCESS)


def resident_bytes_of(pid: int) -> int:
    """Memory that a running process holds now (proc(5), VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that we started, in good order if it does that within some seconds."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
