"""Word to systemd: ready, alive, what is going on. Harmless where nobody listens.

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
        watchdog_seconds: how often at least `alive` has to be said; None if nobody waits for it.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if self._address else None
        self._last_status = ""
        self.watchdog_seconds = _watchdog_seconds(environ) if self._socket is not None else None

    def ready(self) -> None:
        """The first sweep is done: the service has started."""
        self._send("READY=1")

    def alive(self) -> None:
        """The loop gets on. Said by the loop itself and by nothing else, so that a stuck loop is restarted."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def status(self, line: str) -> None:
        """One line for `systemctl status`; sent when it changes."""
        if line != self._last_status:
            self._last_status = line
            self._send(f"STATUS={line}")

    def stopping(self) -> None:
        """The service is about to end."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            # Never wait: a manager that does not read must not stop the measuring.
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
