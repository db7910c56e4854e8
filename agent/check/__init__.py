"""The checks of `wattpush check` beyond the configuration, a file each; imported by init/ and commands/.

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
    """The verdict of a finding. A note names something that only a person can check."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `wattpush check`.

    Attributes:
        what: the subject: a bus, a mux, a device, a step towards the gateway.
        text: the result.
        hint: how to fix it, as a command if there is one; errors often contain theirs in `text`.
        exit_code: the exit code of the program, if this finding is the worst.
    """

    status: Status
    what: str
    text: str
    hint: str = ""
    exit_code: ExitCode = ExitCode.OK

    def __str__(self) -> str:
        """All but the status, in one line."""
        return " ".join(f"{self.what}: {self.text}{'; ' if self.hint else ''}{self.hint}".split())


def ok(what: str, text: str) -> Finding:
    """It works."""
    return Finding(Status.OK, what, text)


def warning(what: str, text: str, hint: str) -> Finding:
    """It works, but not as well as it should, or not for long."""
    return Finding(Status.WARNING, what, text, hint)


def failed(what: str, error: AgentError, hint: str = "") -> Finding:
    """It does not work; a run would fail with the same error."""
    return Finding(Status.FAILED, what, str(error), hint, error.exit_code)
