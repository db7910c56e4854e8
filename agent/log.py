"""Logging to stderr for a person, a journal or a machine."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.stderr import Stderr

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

FORMATS = ("auto", "text", "logfmt", "json")

_LONGEST_MESSAGE = 1800
"""In characters. A line, with a time stamp and all quotes escaped, fits into a pipe at once (PIPE_BUF, 4096 bytes)."""

_KEPT_START = 300

LEVELS = ("debug", "info", "warning", "error")

_JOURNAL_PRIORITIES = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>", logging.ERROR: "<3>"}
"""Prefixes that systemd strips from a line and stores as its priority (sd-daemon(3))."""


def set_up(level: str, form: str, stream: TextIO, environ: Mapping[str, str]) -> None:
    """Send the log to `stream`.

    "auto" is text on a terminal, text with priorities in systemd's journal, and logfmt elsewhere.
    """
    if form == "auto":
        form = "journal" if _is_journal(stream, environ) else "text" if stream.isatty() else "logfmt"
    handler = logging.StreamHandler(stream)
    handler.setFormatter({"journal": _Journal, "text": _Text, "logfmt": _Logfmt, "json": _Json}[form]())
    if isinstance(stream, Stderr):
        stream.notice = lambda missing: f"{handler.format(_missing_lines(missing))}\n"
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Below warnings only our own modules log: debug lines of a library may contain secrets.
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def _missing_lines(missing: int) -> logging.LogRecord:
    lines = f"{missing} lines are" if missing > 1 else "1 line is"
    message = f"{lines} missing before this one: this output was not read"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, None, None)


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream is the journal's socket (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        if len(message) > _LONGEST_MESSAGE:  # a traceback, whose end says most
            message = f"{message[:_KEPT_START]} ... (cut) ... {message[_KEPT_START - _LONGEST_MESSAGE :]}"
        return self.render(record, message)

    def render(self, record: logging.LogRecord, message: str) -> str:
        raise NotImplementedError


class _Text(_Formatter):
    def render(self, record: logging.LogRecord, message: str) -> str:
        return f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.levelname.lower()}: {message}"


class _Journal(_Formatter):
    def render(self, record: logging.LogRecord, message: str) -> str:
        priority = _JOURNAL_PRIORITIES.get(record.levelno, "<5>")
        return "\n".join(f"{priority}{line}" for line in message.splitlines())


class _Logfmt(_Formatter):
    def render(self, record: logging.LogRecord, message: str) -> str:
        return f"ts={_timestamp(record)} level={record.levelname.lower()} msg={quoted(message)}"


class _Json(_Formatter):
    def render(self, record: logging.LogRecord, message: str) -> str:
        import json

        return json.dumps({"ts": _timestamp(record), "level": record.levelname.lower(), "msg": message})


def _timestamp(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def quoted(text: str) -> str:
    """Quote text as a logfmt value."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def counted(number: int, noun: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def print_error(message: str) -> None:
    """Show a person at the terminal why the program ends."""
    with suppress(OSError):  # such as a full disk; the exit code remains
        sys.stderr.write(f"wattpush: {message}\n")
