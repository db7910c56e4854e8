"""Renders the table of exit codes in docs/troubleshooting.md from those of the manual page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import ExitCode
from scripts.blocks import with_blocks
from scripts.command_line import EXIT_STATUS

if TYPE_CHECKING:
    from collections.abc import Mapping

SECTIONS: Mapping[ExitCode, tuple[str, ...]] = {
    ExitCode.UNAVAILABLE: ("Gateway", "History"),
    ExitCode.IOERR: ("Bus and muxes", "Chips", "Counters"),
    ExitCode.TEMPFAIL: ("Other processes",),
    ExitCode.PROTOCOL: ("Gateway", "History"),
    ExitCode.NOPERM: ("Permissions",),
    ExitCode.CONFIG: ("Start",),
}
"""Where the page explains the messages that come with a code."""


def page() -> str:
    """The whole docs/troubleshooting.md, with its table of exit codes."""
    return with_blocks("docs/troubleshooting.md", {"exit codes": _table})


def _table() -> str:
    rows = ["| exit code | meaning | section |", "|---|---|---|"]
    for code, meaning in EXIT_STATUS.items():
        links = ", ".join(f"[{name}](#{name.lower().replace(' ', '-')})" for name in SECTIONS.get(code, ()))
        rows.append(f"| {code.value} | {meaning} |{f' {links} ' if links else ' '}|")
    return "\n".join(rows)
