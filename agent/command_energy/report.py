"""A measurement as JSON, for a program; the keys are documented in docs/commands.md."""

from __future__ import annotations

import errno
import json
import os
import select
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.errors import AgentError, ExitCode, PermissionDeniedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.command_energy.results import DeviceResult, Measurement, Row, RunResult, Statistic

_POLL_SECONDS = 0.1
_STDOUT = ("-", "/dev/stdout")


class ReportError(AgentError):
    """The file cannot be written."""

    exit_code = ExitCode.IOERR


class ReportFile:
    """The file of `--json`: made before the command runs, and in place once all of it is written."""

    def __init__(self, name: str) -> None:
        """Make sure that it can be written. Raises UsageError, PermissionDeniedError."""
        self._name = name
        self._is_stdout = name in _STDOUT
        self._path = Path(os.path.realpath("/dev/stdout" if self._is_stdout else name))  # a link stays one
        # A pipe or a device cannot be replaced; and standard output may be a file that the command writes to.
        is_stream = self._is_stdout or Path(name).absolute().parts[1:2] in {("dev",), ("proc",)}
        self._is_replaced = not is_stream and (not self._path.exists() or self._path.is_file())
        self._temporary: Path | None = None
        try:
            self._prepare()
        except PermissionError as error:
            raise PermissionDeniedError(f"--json {name}: permission denied") from error
        except OSError as error:
            raise UsageError(f"--json {name}: {error.strerror}") from error

    def _prepare(self) -> None:
        if self._is_stdout:
            return
        if self._path.exists() and not os.access(self._path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if self._is_replaced:
            file, temporary = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
            self._temporary = Path(temporary)
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(file, self._path.stat().st_mode & 0o777 if self._path.exists() else 0o666 & ~mask)
            os.close(file)

    def write(self, measurement: Measurement, has_to_end: Callable[[], bool] = lambda: False) -> None:
        """Write the measurement; raises ReportError. A pipe whose reader stalls is given up once it `has_to_end`."""
        data = (json.dumps(as_json(measurement), indent=2, allow_nan=False) + "\n").encode()
        try:
            file = self._open()
            try:
                write_all(file, data, has_to_end)
                if self._temporary is not None:
                    os.fsync(file)
            finally:
                os.close(file)
            if self._temporary is not None:
                self._temporary.replace(self._path)
                self._temporary = None
        except OSError as error:
            raise ReportError(f"--json {self._name}: {error.strerror}") from error

    def _open(self) -> int:
        if self._is_stdout:
            return os.dup(1)  # at its position: opened again, the next program would write over the measurement
        # Without a reader, a pipe that is opened in this way is an error, where it would wait for one.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        return os.open(self._temporary or self._name, flags)

    def close(self) -> None:
        """Remove what was not written to its end."""
        if self._temporary is not None:
            with suppress(OSError):
                self._temporary.unlink()


def write_all(file_descriptor: int, data: bytes, has_to_end: Callable[[], bool]) -> None:
    """Write all of it; a reader that has no room loses the rest once this has to end. Raises OSError."""
    while data:
        if select.select([], [file_descriptor], [], _POLL_SECONDS)[1]:
            data = data[os.write(file_descriptor, data[: select.PIPE_BUF]) :]
        elif has_to_end():
            return


def as_json(measurement: Measurement) -> dict[str, Any]:
    """The measurement, with units in the names of the keys; what is not known is null."""
    total = measurement.total()
    return {
        "wattpush_version": __version__,
        "hostname": measurement.hostname,
        "simulated": measurement.is_simulated,
        "command": [os.fsencode(word).decode(errors="replace") for word in measurement.command],
        "exit_status": measurement.runs[-1].exit_status,
        "reading_interval_seconds": measurement.reading_interval_seconds,
        "idle_seconds": measurement.idle_seconds,
        "runs_requested": measurement.runs_requested,
        "runs_counted": len(measurement.counted_runs()),
        "devices": [{"device": row.device, **_row(row), "error": row.error} for row in measurement.rows()],
        "total": {
            "joules": _statistic(total.joules),
            "net_joules": _statistic(total.net_joules),
            "idle_watts": total.idle_watts,
            "mean_watts": total.mean_watts,
        },
        "runs": [_run(run) for run in measurement.runs],
        "notes": list(measurement.notes),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "joules": _statistic(row.joules),
        "net_joules": _statistic(row.net_joules),
        "idle_watts": row.idle_watts,
        "mean_watts": row.mean_watts,
        "peak_watts": row.peak_watts,
        "seconds": row.seconds,
        "coverage": row.coverage,
        "window_seconds": row.window_seconds,
    }


def _run(run: RunResult) -> dict[str, Any]:
    return {
        "began_unix_seconds": run.began_unix_seconds,
        "seconds": run.seconds,
        "exit_status": run.exit_status,
        "total_joules": run.total_joules(),
        "total_net_joules": run.total_net_joules(),
        "devices": [_device(result) for result in run.devices],
    }


def _device(result: DeviceResult) -> dict[str, Any]:
    return {
        "device": result.device,
        "joules": result.joules,
        "net_joules": result.net_joules,
        "mean_watts": result.mean_watts,
        "peak_watts": result.peak_watts,
        "seconds": result.seconds,
        "coverage": result.coverage,
        "error": result.error,
    }


def _statistic(statistic: Statistic) -> dict[str, float | None]:
    return {"mean": statistic.mean, "standard_deviation": statistic.spread}
