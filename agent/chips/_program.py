"""Runs a small program for its output: without a shell, one at a time, and never for longer than a time-out."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, NamedTuple

from agent.errors import SensorError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_BYTES = 16_384
"""More than this is no answer; reading it all would only take memory."""

_REAP_SECONDS = 0.1
"""How long a killed program may take to end; one that waits in the kernel ends only when the kernel lets it."""


class Output(NamedTuple):
    """What a program wrote, and its exit status; negative for a signal."""

    status: int
    text: str
    errors: str


class Program:
    """A program that is run again and again."""

    def __init__(self, arguments: Sequence[str], timeout_seconds: float) -> None:
        """Prepare; `arguments` begins with the path of the program."""
        self._arguments = tuple(arguments)
        self._timeout_seconds = timeout_seconds
        self._killed: subprocess.Popen[bytes] | None = None  # until it ends

    def run(self) -> Output:
        """Run the program to its end.

        It has a session of its own, so that Ctrl-C in the terminal is not meant for it, and none of the environment:
        neither the language nor a secret of the agent reaches it.

        Raises:
            SensorError: it did not end in time, wrote too much, or still has not ended after the last call.
            OSError: it could not be started.
        """
        name = os.path.basename(self._arguments[0])  # noqa: PTH119 - the argument is a string
        if self._killed is not None:
            if self._killed.poll() is None:
                raise SensorError(f"{name}: was killed because it hung, and has not ended yet; does the firmware hang?")
            self._killed = None
        ends_at_seconds = time.monotonic() + self._timeout_seconds
        process = subprocess.Popen(  # noqa: S603 - no shell, and fixed arguments
            self._arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"LC_ALL": "C", "PATH": os.defpath},
            cwd="/",
            start_new_session=True,
        )
        try:
            text, errors = _read(process, ends_at_seconds)
            status = process.wait(max(0.0, ends_at_seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise SensorError(f"{name}: did not end within {self._timeout_seconds:g} s, and was killed") from None
        except _TooMuchError:
            raise SensorError(f"{name}: wrote more than {_MOST_BYTES} bytes, and was killed") from None
        finally:
            self._end(process)
        return Output(status, text, errors)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Close the pipes, and leave no process behind: neither this one nor one that it started."""
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            self._killed = process


class _TooMuchError(Exception):
    """The program wrote more than `_MOST_BYTES`."""


def _read(process: subprocess.Popen[bytes], ends_at_seconds: float) -> tuple[str, str]:
    """What the program writes to both pipes until it closes them. Raises TimeoutExpired, _TooMuchError."""
    pipes: tuple[IO[bytes] | None, ...] = (process.stdout, process.stderr)
    parts = {pipe.fileno(): b"" for pipe in pipes if pipe is not None}
    poll = select.poll()
    for number in parts:
        poll.register(number, select.POLLIN)
    is_open = set(parts)
    while is_open:
        left_seconds = ends_at_seconds - time.monotonic()
        if left_seconds <= 0:
            raise subprocess.TimeoutExpired(process.args, 0.0)
        for number, _ in poll.poll(left_seconds * 1000):
            piece = os.read(number, _MOST_BYTES)
            if not piece:
                poll.unregister(number)
                is_open.remove(number)
            parts[number] += piece
            if len(parts[number]) > _MOST_BYTES:
                raise _TooMuchError
    text, errors = (part.decode("ascii", errors="replace") for part in parts.values())
    return text, errors
