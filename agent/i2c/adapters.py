"""Opens a bus through Blinka: by its number, by the path of a link to it, or as the board's default."""

from __future__ import annotations

import os
import re
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from agent.errors import BusError, PermissionDeniedError
from agent.i2c import hints, sysfs
from agent.i2c.place import BOARD, bus_path
from agent.i2c.transfers import OpenBus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.i2c.place import BusName


def open_bus(bus: BusName) -> OpenBus:
    """Open a bus through Blinka.

    A numbered bus uses Blinka's generic Linux I2C, which needs no GPIO library and knows no boards, so it works on any
    Linux machine. A path is resolved each time: a link that udev makes follows the adapter to another number. The
    board's default bus works only if Blinka recognises the board.

    Raises:
        PermissionDeniedError: the device file may not be opened.
        BusError: there is no such bus, or Blinka does not know the board.
    """
    if bus == BOARD:
        return _open_board()
    return _open_numbered(bus if isinstance(bus, int) else _number_behind(bus), bus_path(bus))


class BusNames:
    """The name that each bus is used under: one only.

    Each name has its own muxes, chips and sessions. For chips under one name, nothing would keep the channels of a mux
    closed that is configured under the other.
    """

    def __init__(self) -> None:
        self._by_number: dict[int, BusName] = {}

    def claim(self, name: BusName, number: int) -> None:
        """Note that a bus is used under this name.

        Raises:
            BusError: it is used under another one.
        """
        first = self._by_number.setdefault(number, name)
        if first != name and _still_leads_to(first, number):
            raise BusError(
                f"{bus_path(name)}: is the same bus as {bus_path(first)}, which is configured too; "
                "give its muxes and chips one name for it"
            )
        self._by_number[number] = name

    def release(self, number: int) -> None:
        """Forget the bus of a configured number, as another adapter has it now."""
        if self._by_number.get(number) == number:
            del self._by_number[number]


def _still_leads_to(bus: BusName, number: int) -> bool:
    """Whether a bus that had this number still has it: a link may lead elsewhere by now."""
    try:
        return not isinstance(bus, str) or bus == BOARD or _number_behind(bus) == number
    except BusError:
        return False


def prepare_blinka(buses: Sequence[BusName]) -> None:
    """Set the variables that Blinka reads on import; call this before importing anything of Blinka.

    Without them, importing a driver on a Raspberry Pi or a Jetson requires a GPIO library that nothing here uses and
    offers on the terminal to install it, and a forgotten BLINKA_MCP2221=1 breaks every other bus.
    """
    os.environ.setdefault("BLINKA_SKIP_DEPENDENCY_CHECK", "1")
    if BOARD not in buses:
        os.environ["BLINKA_FORCEBOARD"] = "GENERIC_LINUX_PC"
        os.environ["BLINKA_FORCECHIP"] = "GENERIC_X86"


def _number_behind(path: str) -> int:
    """N of the /dev/i2c-N that a path leads to."""
    device_file = os.path.realpath(path)
    found = re.fullmatch(r"/dev/i2c-(\d+)", device_file)
    if found is None:
        if not os.path.lexists(path):
            reason = "no such link"
        elif device_file == path:
            reason = "is no link to a /dev/i2c-N"
        else:
            reason = f"leads to {device_file}, which is no /dev/i2c-N"
        raise BusError(f"{path}: {reason}; {hints.of_missing_link()}")
    return int(found[1])


def _open_numbered(number: int, name: str) -> OpenBus:
    path = f"/dev/i2c-{number}"
    try:
        # Opened here first, because Blinka turns every kind of failure into the same RuntimeError.
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError as error:
        hint = hints.of_denied_permission(path, error.errno)
        raise PermissionDeniedError(f"{name}: permission denied; {hint}") from error
    except OSError as error:
        raise BusError(f"{name}: {error.strerror}; {hints.of_missing_bus(sysfs.bus_numbers(), path)}") from error
    from adafruit_blinka import Lockable
    from adafruit_blinka.microcontroller.generic_linux.i2c import I2C as LinuxI2C  # noqa: N811 - its name in Blinka is that of a class

    class NumberedI2C(Lockable, LinuxI2C):  # type: ignore[misc] # Blinka publishes no types
        """Blinka's Linux I2C with Blinka's lock: the same as `busio.I2C`, without detecting the board."""

    i2c = NumberedI2C(number)
    return _opened(i2c, i2c)


def _open_board() -> OpenBus:
    try:
        with redirect_stdout(sys.stderr):  # libraries of boards print warnings; stdout is for results
            import board

            i2c = board.I2C()
    except PermissionError as error:
        raise PermissionDeniedError(
            f"the board's default bus: {error}; add the user to the groups i2c and gpio, or name the bus by number: "
            f"{hints.of_header_bus()}"
        ) from error
    except Exception as error:  # Blinka raises unrelated types on an unknown board
        raise BusError(
            f"the board's default bus: Blinka cannot open it ({type(error).__name__}: {error}); "
            f"{hints.of_default_bus()}"
        ) from error
    return _opened(i2c, getattr(i2c, "_i2c", None))


def _opened(i2c: Any, linux_i2c: Any) -> OpenBus:
    # Blinka does not publish its device file; USB adapters have none.
    smbus = getattr(linux_i2c, "_i2c_bus", None)
    device_file = getattr(smbus, "_device", None)
    if smbus is None or device_file is None:
        return OpenBus(i2c, None, i2c.deinit)
    number = str(device_file.name).rpartition("-")[2]
    return OpenBus(i2c, device_file.fileno(), smbus.close, int(number) if number.isdecimal() else None)
