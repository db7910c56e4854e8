"""Everything that goes wrong, under one root, and the exit code that each kind of failure ends in."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class ExitCode(IntEnum):
    """What the process tells its caller: the names and numbers of sysexits.h."""

    OK = 0
    USAGE = 64
    UNAVAILABLE = 69  # the gateway could not be reached or kept failing
    SOFTWARE = 70  # internal error
    IOERR = 74  # a sensor could not be read
    TEMPFAIL = 75  # another instance holds the bus or the state
    PROTOCOL = 76  # the gateway rejected the push
    NOPERM = 77  # permission denied
    CONFIG = 78


class AgentError(Exception):
    """The root of all errors that wattpush raises on purpose: the message names the place and the next step."""

    exit_code = ExitCode.SOFTWARE


class UsageError(AgentError):
    """The command line asks for something that makes no sense."""

    exit_code = ExitCode.USAGE


class ConfigError(AgentError):
    """The configuration cannot be used; `problems` holds one line for each fault."""

    exit_code = ExitCode.CONFIG

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class BusError(AgentError, OSError):
    """A transaction on an I2C bus failed, or a bus or mux cannot be used; `errno` as the adapter gave it, if it did."""

    exit_code = ExitCode.IOERR

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class SensorError(AgentError):
    """A chip is absent, is another chip than configured, or answers nonsense."""

    exit_code = ExitCode.IOERR


class BusyError(AgentError):
    """Another process holds the bus or the state."""

    exit_code = ExitCode.TEMPFAIL


class PermissionDeniedError(AgentError, PermissionError):
    """A device file, a state folder or a secret may not be opened; the message says which group or mode opens it."""

    exit_code = ExitCode.NOPERM


class GatewayUnreachableError(AgentError):
    """The Pushgateway could not be reached, did not answer in time, or kept failing."""

    exit_code = ExitCode.UNAVAILABLE


class GatewayRejectedError(AgentError):
    """The Pushgateway, or a proxy before it, refused the request for good; the message carries its own words."""

    exit_code = ExitCode.PROTOCOL


# Where several things went wrong, which one the exit code tells.
EXIT_CODE_ORDER = (
    ExitCode.PROTOCOL,
    ExitCode.UNAVAILABLE,
    ExitCode.CONFIG,
    ExitCode.NOPERM,
    ExitCode.TEMPFAIL,
    ExitCode.IOERR,
    ExitCode.SOFTWARE,
)


def exit_code(errors: Sequence[AgentError]) -> ExitCode:
    """The one exit code of several errors."""
    codes = {error.exit_code for error in errors}
    return next((code for code in EXIT_CODE_ORDER if code in codes), ExitCode.OK)
