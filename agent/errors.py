"""The hierarchy of errors, and the exit code of each."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExitCode(IntEnum):
    """The exit codes of the process, named and numbered as in sysexits.h."""

    OK = 0
    USAGE = 64
    UNAVAILABLE = 69  # the gateway could not be reached or kept failing
    SOFTWARE = 70  # internal error
    IOERR = 74  # a sensor could not be read, or a file not be written
    TEMPFAIL = 75  # another instance holds the bus or the state
    PROTOCOL = 76  # the gateway rejected the push
    NOPERM = 77  # permission denied
    CONFIG = 78


class AgentError(Exception):
    """The root of all errors that wattpush raises on purpose; the message names the place and the next step."""

    exit_code = ExitCode.SOFTWARE


class UsageError(AgentError):
    """The command line is wrong."""

    exit_code = ExitCode.USAGE


class ConfigError(AgentError):
    """The configuration is invalid; `problems` has one line for each problem."""

    exit_code = ExitCode.CONFIG

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class BusError(AgentError, OSError):
    """An I2C transfer failed, or a bus or mux cannot be used; `errno` is that of the adapter, if it gave one."""

    exit_code = ExitCode.IOERR

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class SensorError(AgentError):
    """A chip is absent, is not the configured one, or returns invalid values."""

    exit_code = ExitCode.IOERR


class MuxSwitchedError(BusError):
    """A mux was not as selected after a chip was read: what was read may be another chip's, and is discarded."""


class BusyError(AgentError):
    """Another process holds the bus or the state."""

    exit_code = ExitCode.TEMPFAIL


class PermissionDeniedError(AgentError, PermissionError):
    """A device file, state folder or secret may not be opened; the message names the group or mode that it needs."""

    exit_code = ExitCode.NOPERM


class UnreachableError(AgentError):
    """The Pushgateway could not be reached, timed out, or kept failing."""

    exit_code = ExitCode.UNAVAILABLE


class RejectedError(AgentError):
    """The Pushgateway, or a proxy before it, rejected the request permanently; the message quotes its answer."""

    exit_code = ExitCode.PROTOCOL


EXIT_CODE_ORDER = (
    ExitCode.PROTOCOL,
    ExitCode.UNAVAILABLE,
    ExitCode.CONFIG,
    ExitCode.NOPERM,
    ExitCode.TEMPFAIL,
    ExitCode.IOERR,
    ExitCode.SOFTWARE,
)
"""Of several failures, the first in this order determines the exit code."""


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The exit code of several outcomes."""
    found = set(codes)
    return next((code for code in EXIT_CODE_ORDER if code in found), ExitCode.OK)


def exit_code(errors: Iterable[AgentError]) -> ExitCode:
    """The exit code of several errors."""
    return worst(error.exit_code for error in errors)


def one_line(text: str, limit: int = 300) -> str:
    """Somebody else's text for a message: one line of at most `limit` characters, without control characters."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
