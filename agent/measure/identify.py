"""Which chip is at a place, and how it is configured. Nothing is written to it; a surprising value is read twice."""

from __future__ import annotations

from operator import and_
from typing import TYPE_CHECKING, TypeVar

from agent.errors import AgentError, BusError, SensorError
from agent.i2c import hints
from agent.i2c.failures import describe
from agent.i2c.transfers import Register
from agent.measure.agreement import until_agreed

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.chips import I2CChip, Word
    from agent.i2c.bus import Bus
    from agent.i2c.place import Place
    from agent.i2c.transfers import I2C

_T = TypeVar("_T")

_ATTEMPTS = 4


def identify(bus: Bus, chip: I2CChip, name: str) -> tuple[int, ...]:
    """Make sure that the chip at a place is the configured one; return what its configuration registers hold.

    Nothing is written to the chip, and its status is not read: that would clear the flag of a new result, which
    another process may be waiting for. The path to the chip is selected afterwards.

    Args:
        bus: in a session.
        chip: the one that is expected.
        name: its name in errors, such as "INA260 at 0x40 on /dev/i2c-1".

    Raises:
        SensorError: no chip answers, or another one does.
        BusError: the bus or a mux fails.
        OSError: any other failed transaction.
    """
    place = chip.place
    registers = tuple(expected.register for expected in chip.configuration)
    bus.select(place.path)
    try:
        # Before the driver, which hides why there is no answer, and may wait for a second time-out.
        before = bus.read(place.address, registers)
    except BusError:
        raise
    except OSError as error:
        raise SensorError(f"no {name}: {describe(error)}; {hints.of_silent_chip(place, error)}") from error
    found = _identify_believing_twice(bus, chip, name)
    if found != before:
        return agreed_configuration(bus, chip, name)
    return found


def refuse_exchanged(bus: Bus, chip: I2CChip, name: str) -> None:
    """Make sure, by its ID registers alone, that a chip which `identify` accepted is still of the configured kind.

    It takes a few transfers, and no driver; the path is selected. Another kind counts only when it is read twice.
    A chip that names no signatures is compared with its own IDs; one that has none either is not checked.

    Raises:
        SensorError: it is another kind, or its IDs read differently each time; otherwise as `Bus.read`.
    """
    names = chip.signature_names

    def read(number: int) -> int:
        (word,) = bus.read(chip.place.address, (Register(number),))
        return word

    def has(ids: tuple[Word, ...]) -> bool:
        return all(word.matches(read(word.register)) for word in ids)

    def found() -> tuple[bool, str]:
        """Whether the chip shows the IDs of its kind, and the kind whose IDs it shows otherwise, if known."""
        if names is None:
            return has(chip.ids), ""
        from agent.chips import _signatures as signatures  # it imports the files of many chips

        signature = signatures.identify(read, signatures.WITH_ID)
        file_name, part = ("", "") if signature is None else (signature.chip, signature.part)
        # Without a signature, its own IDs may be gone as well.
        return file_name in names and (bool(file_name) or has(chip.ids)), part

    if (chip.sure_ids and has(chip.sure_ids)) or found()[0]:
        return
    agreed_kind = until_agreed(found)
    if agreed_kind is None:
        raise SensorError(f"{name}: its IDs read differently each time; is the bus disturbed?")
    is_same, part = agreed_kind
    if not is_same:
        seen = f"those of an {part}" if part else "gone"
        raise SensorError(f"{name}: its IDs are {seen} now; was the chip exchanged?")


def agreed_configuration(bus: Bus, chip: I2CChip, name: str) -> tuple[int, ...]:
    """What the configuration registers hold, by two readings that agree. Raises SensorError, and as `Bus.read`."""
    registers = tuple(expected.register for expected in chip.configuration)
    found = agreed(bus, chip.place, registers)
    if found is None:
        raise SensorError(f"{name}: its configuration reads differently each time; is the bus disturbed?")
    return found


def agreed(
    bus: Bus, place: Place, registers: tuple[Register, ...], bits: tuple[int, ...] | None = None
) -> tuple[int, ...] | None:
    """What two readings in a row agree on, with every mux read back after each; None if none do.

    Only these bits of each register count, as flags may change. Raises MuxSwitchedError, and as `Bus.read`.
    """
    masks = bits or (-1,) * len(registers)

    def read() -> tuple[int, ...]:
        return tuple(map(and_, bus.read(place.address, registers), masks))

    with bus.guarding(place):
        return until_agreed(read)


def _identify_believing_twice(bus: Bus, chip: I2CChip, name: str) -> tuple[int, ...]:
    """Identify the chip. A wrong ID counts only when it is read twice in a row: a bit of it may have flipped."""
    refusal = ""
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            return through_driver(bus, chip, name, chip.identify)
        except SensorError as error:
            if str(error) == refusal or attempts_left == 0:
                raise
            refusal = str(error)
    raise AssertionError


def through_driver(bus: Bus, chip: I2CChip, name: str, act: Callable[[I2C], _T]) -> _T:
    """Let the chip's driver act, which selects and deselects the channel itself; select the path again afterwards."""
    place = chip.place
    try:
        return act(bus.driver_port(place.path))
    except (AgentError, OSError):
        raise
    except Exception as error:  # a driver is foreign code: it may fail to import, or to parse what it reads
        raise SensorError(f"{name}: its driver failed ({type(error).__name__}: {error})") from error
    finally:
        bus.select(place.path)
