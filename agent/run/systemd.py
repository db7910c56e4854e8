"""Notifications to systemd: ready, watchdog ping, status, stopping. Without a service manager they do nothing.

Source: sd_notify(3), "a datagram to the socket named in $NOTIFY_SOCKET"; sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """Sends datagrams to the service manager that started this process, if one did.

    Attributes:
        watchdog_seconds: the longest time between two calls of `ping_watchdog`; None if there is no watchdog.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if self._address else None
        self._last_status = ""
        self.watchdog_seconds = _watchdog_seconds(environ) if self._socket is not None else None

    def ready(self) -> None:
        """Report that the service has started: its first sweep is done."""
        self._send("READY=1")

    def ping_watchdog(self) -> None:
        """Report that the main loop is making progress; only the loop calls this, so that a stuck one is restarted."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def status(self, line: str) -> None:
        """Set the line that `systemctl status` shows; sent only when it changes."""
        if line != self._last_status:
            self._last_status = line
            self._send(f"STATUS={line}")

    def stopping(self) -> None:
        """Report that the service is stopping."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            # Never block: a manager that does not read must not stop the loop.
            self._socket.sendto(text.encode(), socket.MSG_DONTWAIT, self._address)
        except OSError:
            return


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(environ["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return microseconds / 1e6 if microseconds > 0 else None
