"""The base of all chips. A chip on I2C declares its registers; `I2CChip` identifies, configures and reads it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from agent.chips import _averaging as averaging
from agent.errors import SensorError
from agent.i2c import hints
from agent.i2c.failures import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.i2c.place import Place
    from agent.i2c.transfers import I2C, Register
    from agent.settings import ChipOptions, Device

    ReadRegister = Callable[[Register], int]
    """Reads a register as an unsigned number, most significant byte first; raises OSError."""

HARDWARE_COUNTER_BITS = 40

TEXAS_INSTRUMENTS = 0x5449
"""The manufacturer ID of all these chips: "TI" in ASCII."""


class HardwareCounters(NamedTuple):
    """The hardware energy and charge counters of a chip. They count from power-on, whether or not an agent runs.

    Both wrap around at `HARDWARE_COUNTER_BITS`. They stay raw words, so that a shunt value corrected in the
    configuration applies to the whole difference between two of them.

    Attributes:
        energy_word: energy in LSBs of `joules_per_lsb`; rises whichever way the energy flows.
        charge_word: charge in LSBs of `coulombs_per_lsb`, two's complement; rises while current flows to the load.
        most_watts: the most power that the chip can measure.
        most_amperes: the most current that the chip can measure.
    """

    energy_word: int
    charge_word: int
    joules_per_lsb: float
    coulombs_per_lsb: float
    most_watts: float
    most_amperes: float


class Measurement(NamedTuple):
    """One measurement of one device: load-side bus voltage, and current, positive towards the load.

    Attributes:
        hardware_counters: those of the chip, if it has any and they were read too.
    """

    volts: float
    amperes: float
    hardware_counters: HardwareCounters | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """The expected value of the bits under a mask of a two-byte register."""

    register: int
    value: int
    mask: int = 0xFFFF

    def matches(self, word: int) -> bool:
        """Whether a word read from the register has the expected value."""
        return word & self.mask == self.value


@dataclass(frozen=True, slots=True)
class ExpectedBits:
    """Bits of a register that keep what we write for as long as the chip has power.

    Attributes:
        written: their value once the chip is configured.
        power_on: their value after a power loss.
    """

    register: Register
    written: int
    power_on: int
    bits: int = 0xFFFF

    def is_written(self, word: int) -> bool:
        """Whether the register holds what we wrote."""
        return word & self.bits == self.written

    def is_power_on(self, word: int) -> bool:
        """Whether the register holds its power-on value."""
        return word & self.bits == self.power_on


@dataclass(frozen=True, slots=True)
class ComputedRegister:
    """A register that the chip itself computes from its two results, so that it must fit them.

    Attributes:
        quantity: "power", unsigned, whichever way it flows: voltage times current. Or "current", in two's complement:
            the result scaled by a calibration that makes it another number.
        per_lsb: its LSB in watts or amperes; for a chip with a calibration, with the one in `requires`.
        volts_per_lsb: the LSB of the bus voltage.
        amperes_per_lsb: that of the current; for a chip with a shunt on the board, of the shunt voltage divided by it.
        requires: what the chip must hold for the register to be computed so: the calibration, a mode that measures
            both. With anything else the register shows nothing.
        unaveraged: with these bits the chip does not average, and the register is computed from the two results.
            Otherwise it is the mean of the products of single conversions, which a changing load makes another number.
            None if it is computed from the results in any case, or is their multiple, as a current is.
    """

    register: Register
    quantity: Literal["power", "current"]
    per_lsb: float
    volts_per_lsb: float
    amperes_per_lsb: float
    requires: tuple[ExpectedBits, ...] = ()
    unaveraged: ExpectedBits | None = None


class I2CChip(ABC):
    """One chip on an I2C bus, with the devices on its inputs.

    A subclass declares `options`, `ids`, `results`, `status` and `new_result`, and implements `configuration_words` and
    `decode`. The order of calls is `identify`, `set_canary`, `configure`; `identify` alone writes nothing.

    Attributes:
        options: the configuration keys that this chip accepts.
        ids: the ID registers, in the order in which they are read. Empty if something else identifies the chip.
        signature_names: the built-in chips, by the names of their files, whose IDs it may show; "" is to show none.
            With None, its own `ids` are read again once it is identified, and nothing else is looked up.
        sure_ids: ID registers that no other chip holds, in the order in which they are read again. Where they match,
            no other signature is looked up.
        highest_volts: the highest bus voltage that it can measure.
        full_scale_shunt_volts: the highest shunt voltage, in both directions; 0 if the shunt is inside the chip.
        full_scale_amperes: the highest current, in both directions; 0 if the shunt on the board decides.
        place: where the chip sits; every error names it.
        results: the registers that a conversion fills; `decode` turns them into measurements.
        counter_registers: the hardware counters, read after the results; they also change during a conversion.
        counter_lsbs_per_second: the most that any of them can change in a second.
        configuration: the words that we write to the chip, in this order; the last word starts a conversion.
        scales: whether `configuration` decides what a word of `results` or `counter_registers` means; then it is read
            with every result, as another program may write it. Such a chip needs no canary bit in `status`.
        status: a register with the canary bit: a bit that we set, that has no other effect, and that a power loss
            clears. Its neighbours have a fixed value, so that a bus stuck high or low cannot pass for it. The same word
            shows whether a result is new. None if the chip has no such register.
        new_result: the bit of `status` that a finished conversion sets, and that reading the register clears.
        conversion_seconds: how long one result takes, averaging included; a reading covers this much time.
        shunt_ohms: the shunt of a chip with one input; 0 for a chip that needs none.
    """

    options: ChipOptions
    ids: tuple[Word, ...] = ()
    signature_names: frozenset[str] | None = None
    sure_ids: tuple[Word, ...] = ()
    highest_volts: float
    full_scale_shunt_volts: float = 0.0
    full_scale_amperes: float = 0.0
    place: Place
    results: tuple[Register, ...]
    counter_registers: tuple[Register, ...] = ()
    counter_lsbs_per_second: float = 0.0
    configuration: tuple[ExpectedBits, ...]
    scales: bool = False
    status: ExpectedBits | None = None
    new_result: int = 0
    conversion_seconds: float
    shunt_ohms: float

    def __init__(self, devices: Sequence[Device], sample_interval_seconds: float) -> None:
        """Prepare for `devices`, which all sit on this chip, read every `sample_interval_seconds`."""
        first = devices[0]
        if first.place is None or self.options.averaging is None:
            raise ValueError(f"{first.name}: {self.options.chip} needs a place on an I2C bus and choices of averaging")
        self.place = first.place
        self.devices = tuple(devices)
        self.shunt_ohms = first.shunt_ohms or 0.0
        codes = averaging.codes(self.options.averaging, first.averaging, sample_interval_seconds, len(devices))
        self.conversion_seconds = codes.conversion_seconds
        self.configuration = self.configuration_words(codes)

    @property
    def part(self) -> str:
        """The name of the chip in its datasheet."""
        return self.options.chip.upper()

    @property
    def computed(self) -> ComputedRegister | None:
        """A register that the chip computes from its results, which checks its readings.

        None if it has no such register, or if reading it would disturb a run. Its LSBs are those of `decode`: they
        depend on the shunt, and on the range that `adopt` found.
        """
        return None

    @property
    def averaged_power(self) -> ComputedRegister | None:
        """The power register of a chip that averages its products, if `computed` is another one.

        It shows a rail that is switched within a result.
        """
        return None

    def __str__(self) -> str:
        return f"{self.part} at {self.place}"

    @abstractmethod
    def configuration_words(self, codes: averaging.Codes) -> tuple[ExpectedBits, ...]:
        """The words to write for this averaging, each with the power-on value of its register."""

    @abstractmethod
    def decode(self, words: Sequence[int]) -> tuple[Measurement | SensorError, ...]:
        """Turn the words of `results` into a measurement for each device, in the order of `devices`.

        Those of `counter_registers` may follow. A word that the chip cannot have measured, or one at the end of its
        range, is an error. A chip with several inputs returns the error in place of that input's measurement.

        Raises:
            SensorError: the chip has only one input, and the error is about that.
        """

    def open_device(self, port: I2C) -> Any:
        """Adafruit's `I2CDevice` for this chip. Raises ValueError if no chip answers, SensorError for a wrong chip."""
        from adafruit_bus_device.i2c_device import I2CDevice

        return I2CDevice(port, self.place.address)

    def identify(self, port: I2C) -> tuple[int, ...]:
        """Make sure that it is this chip; return what the registers of `configuration` hold now.

        The register of `status` is not read: reading it would clear the bit of a new result.

        Raises:
            OSError: a transaction failed.
            SensorError: nothing, or another chip, answers at the address.
        """
        try:
            self._device = self.open_device(port)
        except ValueError as error:  # raised for any failed probe; its context is the OSError with the reason
            reason = error.__context__
            if not isinstance(reason, OSError):
                raise SensorError(f"no {self}: {error}; is it powered?") from error
            raise SensorError(f"no {self}: {describe(reason)}; {hints.of_silent_chip(self.place, reason)}") from error
        found = [self.read_word(word.register) for word in self.ids]
        if not all(map(Word.matches, self.ids, found)):
            read = " ".join(f"0x{value & word.mask:04x}" for word, value in zip(self.ids, found, strict=True))
            expected = " ".join(f"0x{word.value:04x}" for word in self.ids)
            raise SensorError(
                f"not an {self}: its IDs read {read} instead of {expected}; wattpush scan says what is there"
            )
        return tuple(self.read_word(expected.register.number) for expected in self.configuration)

    def _refuse_another_kind(self, configuration: int = 0, fixed: Word = Word(0x00, 0, mask=0)) -> None:
        """For a chip without an ID of its own, just identified: refuse it if it shows that it is another kind.

        Args:
            configuration: what its configuration register holds.
            fixed: the bits of it that no host can change.

        Raises:
            OSError: a transaction failed.
            SensorError: it holds the IDs of another kind, or a configuration that this kind never has.
        """
        # It imports the files of many chips.
        from agent.chips import _signatures as signatures

        signatures.refuse_another_kind(self, self.signature_names or ())
        if not fixed.matches(configuration):
            raise SensorError(
                f"not an {self}: configuration register reads 0x{configuration:04x}, with bits that an {self.part} "
                "never shows"
            )

    def _refuse_volts_beyond_range(self, volts: float, word: int, digits: int = 4) -> None:
        """Raise SensorError if the bus voltage, by this word of so many hexadecimal digits, is beyond the range."""
        if volts > self.highest_volts:
            raise SensorError(
                f"{self}: bus voltage register reads 0x{word:0{digits}x}, more than {self.highest_volts:g} V; "
                "is the bus disturbed?"
            )

    def set_canary(self) -> None:
        """Set the canary bit of the chip just identified, if it has one. Raises OSError."""
        if self.status is not None:
            self._write(self.status)

    def configure(self) -> None:
        """Write `configuration` to the chip just identified, which starts a conversion. Raises OSError."""
        for expected in self.configuration:
            self._write(expected)

    def stop_averaging(self) -> None:
        """Write `configuration` once more, without averaging; `configure` undoes it. Raises OSError."""
        unaveraged = None if self.computed is None else self.computed.unaveraged
        for expected in self.configuration:
            if unaveraged is not None and expected.register == unaveraged.register:
                word = expected.written & ~unaveraged.bits | unaveraged.written
                self._write(replace(expected, written=word))

    def is_converted(self, read: ReadRegister) -> bool:
        """Whether a conversion has finished since the chip was configured or this was last called. Raises OSError.

        A chip without `status` overrides this.
        """
        return self.status is not None and bool(read(self.status.register) & self.new_result)

    def adopt(self, found: Sequence[int]) -> None:
        """Decode from now on what the chip measures with a configuration that was found in it.

        This is that of INA226, INA260 and INA3221: AVG, two conversion times and MODE from bit 11 down. A chip with
        another layout overrides it.

        Raises:
            SensorError: the chip does not measure voltage and current, over and over.
        """
        word = found[0]
        self._require_continuous(word, word, 0b111)
        self.conversion_seconds = averaging.conversion_seconds(
            averaging.CHOICES, word >> 9 & 7, word >> 6 & 7, word >> 3 & 7
        )

    def _require_continuous(self, word: int, mode: int, continuous: int) -> None:
        """Raise SensorError unless all bits of `continuous` are set in the `mode` that a configuration selects."""
        if mode & continuous != continuous:
            raise SensorError(
                f"{self}: does not measure voltage and current continuously (configuration 0x{word:04x}: powered down, "
                "or switched by another program); a run of the service configures it"
            )

    def read_word(self, register: int) -> int:
        """Read a register of two bytes of the chip just identified. Raises OSError."""
        word = bytearray(2)
        with self._device as device:
            device.write_then_readinto(bytes((register,)), word)
        return int.from_bytes(word, "big")

    def _write(self, expected: ExpectedBits) -> None:
        with self._device as device:
            device.write(bytes((expected.register.number, *expected.written.to_bytes(2, "big"))))


class KernelChip(Protocol):
    """A chip that the kernel or the firmware reads: nothing is configured, and its values are in files or a text."""

    def read(self) -> tuple[Measurement | SensorError, ...]:
        """Read the chip: a measurement for each of its devices, or the error of that device alone.

        Raises:
            SensorError: nothing could be read.
            PermissionDeniedError: this user may not read it.
        """

    def where(self) -> tuple[str, ...]:
        """For each device the source of the last reading, in words."""


def signed(word: int, bits: int = 16) -> int:
    """The value of a two's complement word with this many bits."""
    return word - ((word >> (bits - 1) & 1) << bits)
