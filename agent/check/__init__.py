"""What `wattpush check` tests beyond the configuration, a file each; imported by commands/.

A check yields findings and prints nothing. It continues after a failure as far as it can, and changes
nothing that lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from agent.errors import ExitCode

if TYPE_CHECKING:
    from agent.errors import AgentError


class Status(Enum):
    """How good a finding is. A note is what no check can see and a person has to."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `wattpush check`.

    Attributes:
        what: what was looked at: a bus, a mux, a device, a step on the way to the gateway.
        said: what was found.
        cure: what mends it, a command where there is one; errors often carry theirs in `said`.
        exit_code: what the program ends with, if this is the worst.
    """

    status: Status
    what: str
    said: str
    cure: str = ""
    exit_code: ExitCode = ExitCode.OK

    def __str__(self) -> str:
        """All but the status, in one line."""
        return " ".join(f"{self.what}: {self.said}{'; ' if self.cure else ''}{self.cure}".split())


def ok(what: str, said: str) -> Finding:
    """All is well."""
    return Finding(Status.OK, what, said)


def warning(what: str, said: str, cure: str) -> Finding:
    """It works, but not as well as it should, or not for long."""
    return Finding(Status.WARNING, what, said, cure)


def failed(what: str, error: AgentError, cure: str = "") -> Finding:
    """It does not work: what a run would fail with."""
    return Finding(Status.FAILED, what, str(error), cure, error.exit_code)
