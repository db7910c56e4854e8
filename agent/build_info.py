"""Facts that the agent reports about itself and its machine."""

from __future__ import annotations

import hashlib
import platform
import socket
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from agent import __version__

if TYPE_CHECKING:
    from agent.clock import ClockSteps

_HASH_CHARACTERS = 12

_NO_MACHINE_ID = (b"", b"uninitialized")
"""What images hold that get their machine id in their first boot: the same on all machines (machine-id(5))."""


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """Facts about this run of the agent.

    Attributes:
        machine: a short hash of the machine id.
        start_time_seconds: Unix time, by the clock as it was then.
        clock_steps: how far the clock was set since.
    """

    version: str
    python_version: str
    blinka_version: str
    machine: str
    is_simulated: bool
    start_time_seconds: float
    clock_steps: ClockSteps | None = None

    def started_at_seconds(self) -> float:
        """When the agent started, as Unix time by the clock as it is now: it may have been set since."""
        return self.start_time_seconds + (0.0 if self.clock_steps is None else self.clock_steps.seconds())


def hostname() -> str:
    """The hostname of the machine, the default of the grouping key."""
    return socket.gethostname()


def machine_hash(machine_id: Path = Path("/etc/machine-id")) -> str:
    """A short hash that identifies the machine without revealing its machine id; empty if there is none.

    Source: machine-id(5): the id is confidential; publish only a hash keyed for the application.
    """
    try:
        secret = machine_id.read_bytes().strip()
    except OSError:
        return ""
    if secret in _NO_MACHINE_ID:
        return ""
    return hashlib.blake2s(secret, key=b"wattpush").hexdigest()[:_HASH_CHARACTERS]


def agent_info(*, is_simulated: bool, start_time_seconds: float, clock_steps: ClockSteps | None = None) -> AgentInfo:
    """Collect what `wattpush_agent_info` reports."""
    return AgentInfo(
        version=__version__,
        python_version=platform.python_version(),
        blinka_version=blinka_version(),
        machine=machine_hash(),
        is_simulated=is_simulated,
        start_time_seconds=start_time_seconds,
        clock_steps=clock_steps,
    )


def blinka_version() -> str:
    """The installed version of Blinka; empty if there is none.

    Installers leave `NAME-VERSION.dist-info` beside the package. Reading that name takes a fraction of a millisecond;
    `importlib.metadata`, which takes 6 ms to import, is used only if there is no such name.
    Source: Python Packaging User Guide, "Recording installed projects", "The .dist-info directory".
    """
    blinka = PathFinder.find_spec("adafruit_blinka")
    if blinka is not None and blinka.origin is not None:
        begin, end = "adafruit_blinka-", ".dist-info"
        for name in (path.name for path in Path(blinka.origin).parents[1].iterdir()):
            if name.lower().startswith(begin) and name.endswith(end):
                return name[len(begin) : -len(end)]
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("adafruit-blinka")
    except PackageNotFoundError:
        return ""
