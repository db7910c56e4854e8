"""Every chip that wattpush reads, a file each: registers and what they mean; imported by all to its right.

A file here is found by its name, which is the chip's name in the configuration. It offers `OPTIONS`, what the
configuration may say of it, and `Chip`: an `I2CChip` that the sweep reads over a bus, or, where
`OPTIONS.addresses` is None, a `KernelChip` that the kernel reads for us.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from agent.i2c.bus import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.errors import SensorError
    from agent.i2c.place import Place
    from agent.i2c.transfers import I2C, Register
    from agent.settings import ChipOptions, Device

    ReadRegister = Callable[[Register], int]
    """Reads a register as an unsigned number, most significant byte first; raises OSError."""


@dataclass(frozen=True, slots=True)
class Accumulated:
    """What a chip has added up by itself since it got its power, whether anybody looked or not.

    Both words have `ACCUMULATOR_BITS` and begin again at zero beyond them. They are kept as they were read, so that a
    shunt corrected in the configuration holds for all of the difference between two of them.

    Attributes:
        energy_word: energy in steps of `joules_per_step`; rises whichever way the energy flows.
        charge_word: charge in steps of `coulombs_per_step`, two's complement; rises while current flows to the load.
        most_watts: more than this the chip cannot measure.
        most_amperes: the same for current.
    """

    energy_word: int
    charge_word: int
    joules_per_step: float
    coulombs_per_step: float
    most_watts: float
    most_amperes: float


ACCUMULATOR_BITS = 40


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a chip says of one device: load-side bus voltage, and current, positive towards the load.

    Attributes:
        accumulated: what it has added up, where it does and that was read too.
    """

    volts: float
    amperes: float
    accumulated: Accumulated | None = None


@dataclass(frozen=True, slots=True)
class ExpectedBits:
    """Bits of a register that hold what we wrote for as long as the chip has power.

    Attributes:
        written: what they hold once the chip is configured.
        power_on: what they hold after the chip lost its power.
    """

    register: Register
    written: int
    power_on: int
    bits: int = 0xFFFF

    def is_written(self, word: int) -> bool:
        """Whether the register holds what we wrote."""
        return word & self.bits == self.written

    def is_power_on(self, word: int) -> bool:
        """Whether the register is as the chip wakes up."""
        return word & self.bits == self.power_on


class I2CChip(ABC):
    """One chip on an I2C bus, with the devices on its inputs.

    Attributes:
        place: where it sits; every error names it.
        results: what a conversion brings; they tell one conversion from another, and `decode` turns them into
            measurements.
        accumulators: what the chip adds up by itself, read after the results; they change during a conversion too.
        configuration: what we write to the chip.
        status: a register that says in one word whether the chip lost its power, by a bit that we set and that does
            nothing else, and whether a result is new. None where a chip has no such register.
        new_result: the bit of `status` that a finished conversion sets, and that reading it clears.
        conversion_seconds: how long one result takes, averaging included; a reading covers this much time.
    """

    place: Place
    results: tuple[Register, ...]
    accumulators: tuple[Register, ...] = ()
    configuration: tuple[ExpectedBits, ...]
    status: ExpectedBits | None = None
    new_result: int = 0
    conversion_seconds: float

    @abstractmethod
    def __init__(self, devices: Sequence[Device], sample_interval_seconds: float) -> None:
        """Prepare for `devices`, which all sit on this chip, read every `sample_interval_seconds`."""

    @abstractmethod
    def identify(self, port: I2C) -> tuple[int, ...]:
        """Make sure through its driver that it is this chip; return what the registers of `configuration` hold now.

        The register of `status` is left alone: reading it would forget that there is a result.

        Raises:
            OSError: a transaction failed.
            SensorError: nothing, or another chip, answers at the address.
        """

    @abstractmethod
    def configure(self) -> None:
        """Write `configuration` to the chip just identified, which starts a conversion. Raises OSError."""

    def set_canary(self) -> None:  # noqa: B027 - a chip without a status has nothing to be marked with
        """Write `status` to the chip just identified. Raises OSError."""

    @abstractmethod
    def is_converted(self, read: ReadRegister) -> bool:
        """Whether a conversion has finished since the chip was configured or asked last. Raises OSError."""

    @abstractmethod
    def decode(self, words: Sequence[int]) -> tuple[Measurement | SensorError, ...]:
        """Turn the words of `results` into a measurement for each device, in the order of `devices`.

        Those of `accumulators` may follow them. A word that the chip cannot have measured, or one at the end of its
        range, is an error: in place of the measurement where the chip has inputs that do not mind each other.

        Raises:
            SensorError: the chip has only one input, and the error is about that.
        """


class KernelChip(Protocol):
    """A chip that a kernel driver reads: nothing is configured, its values are in files."""

    def read(self) -> Measurement:
        """Read the device. Raises SensorError, PermissionDeniedError."""

    def where(self) -> str:
        """Where the last reading came from, in words."""


def names() -> tuple[str, ...]:
    """The names of all chips, from the files of this folder."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def options() -> dict[str, ChipOptions]:
    """What the configuration may say of each chip."""
    return {name: import_module(f"{__name__}.{name}").OPTIONS for name in names()}


def place_of(devices: Sequence[Device]) -> Place:
    """The place that the devices of one I2C chip share."""
    place = devices[0].place
    if place is None:
        raise ValueError(f"{devices[0].name}: not on an I2C bus")
    return place


def probe_failure(error: ValueError) -> str:
    """Why there was no answer to a driver's probe, which says it with a ValueError for whatever reason."""
    reason = error.__context__
    return describe(reason) if isinstance(reason, OSError) else str(error)


def i2c_chip(name: str) -> type[I2CChip]:
    """The class of a chip on I2C."""
    chip: type[I2CChip] = import_module(f"{__name__}.{name}").Chip
    return chip
