"""Run as a script: the program on a disk whose every call takes three seconds, with a lock file for each simulated bus.

Usage: slow_node.py STATE_DIR BUS_DIR ARGUMENT...
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.__main__ import main
from agent.i2c.transfers import OpenBus
from agent.run.assembly import Hardware

if TYPE_CHECKING:
    from collections.abc import Callable


SECONDS = 3.0


def slow_down(folder: Path) -> None:
    """Delay every call that concerns the folder or a file in it, as soon as there is a file `stall` beside it."""
    stall, stalling = folder.parent / "stall", folder.parent / "stalling"

    def is_inside(argument: object) -> bool:
        return isinstance(argument, (str, Path)) and Path(argument).is_relative_to(folder)

    def slow(call: Callable[..., Any], *, always: bool = False) -> Callable[..., Any]:
        def slowed(*arguments: Any, **options: Any) -> Any:
            if (always or is_inside(arguments[0])) and stall.exists():
                stalling.touch()
                time.sleep(SECONDS)
            return call(*arguments, **options)

        return slowed

    for name in ("stat", "lstat", "mkdir", "unlink", "replace", "resolve"):
        setattr(Path, name, slow(getattr(Path, name)))
    os.open = slow(os.open)
    os.fdopen = slow(os.fdopen, always=True)  # the write
    os.fsync = slow(os.fsync, always=True)


def lock_buses(folder: Path) -> None:
    """Give every simulated bus a file that other processes can lock, as /dev/i2c-N."""
    simulate = Hardware._simulate

    def with_lock_files(self: Hardware, *arguments: Any) -> None:
        simulate(self, *arguments)
        open_bus = self.open_bus

        def opened(bus: Any) -> OpenBus:
            file = os.open(folder / str(bus), os.O_RDWR | os.O_CREAT)
            return OpenBus(open_bus(bus).i2c, file, lambda: os.close(file))

        self.open_bus = opened

    setattr(Hardware, "_simulate", with_lock_files)  # noqa: B010 - an assignment would need the whole signature


if __name__ == "__main__":
    _, state, buses, *options = sys.argv
    lock_buses(Path(buses))
    slow_down(Path(state))
    sys.argv[1:] = options
    sys.exit(main())
