"""TI INA3221: three inputs with shunts of their own on the board, 0-26 V. Datasheet: SBOS576.

There is no power or current register: current is the shunt voltage over the shunt's resistance.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from agent.chips import ExpectedBits, I2CChip, Measurement, place_of, probe_failure
from agent.chips import _averaging as averaging
from agent.errors import SensorError
from agent.i2c.transfers import Register
from agent.settings import AveragingChoices, ChipOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.chips import ReadRegister
    from agent.i2c.transfers import I2C
    from agent.settings import Device

_CONFIGURATION = 0x00
_MASK_ENABLE = 0x0F

# Mask/Enable register 0x0F (section 8.6.2.15), power-on 0x0002:
#   15   14   13   12  11  10   9  8  7   6   5  4  3   2   1    0
# +---+----+----+----+---+---+---------+----+--------+---+---+----+
# | 0 |SCC1|SCC2|SCC3|WEN|CEN| CF1 - 3 | SF |WF1 - 3 |PVF|TCF|CVRF|
# +---+----+----+----+---+---+---------+----+--------+---+---+----+
# CVRF: all inputs have a new result; cleared by reading the register.
# SCC1 adds input 1 to a sum that nobody reads, and whose limit at power-on is more than an input can reach: it does
# nothing but show that the power was not lost.
_CONVERSION_READY = 1 << 0
_MARK = 1 << 14
_MARK_AND_ITS_EMPTY_NEIGHBOURS = 0xFC00  # a bus stuck high or low is no mark

_POWER_ON_CONFIGURATION = 0x7127

_VOLTS_PER_LSB = 8e-3
_SHUNT_VOLTS_PER_LSB = 40e-6
_LOWEST_VOLTS = -0.1  # a grounded input may read a few steps below zero
_HIGHEST_VOLTS = 26.0

_MANUFACTURER_ID = 0x5449
_DIE_ID = 0x3220

OPTIONS = ChipOptions(
    chip="ina3221",
    addresses=range(0x40, 0x44),
    inputs=range(1, 4),
    external_shunt=True,
    averaging=AveragingChoices(averaging.COUNTS, averaging.CONVERSION_SECONDS),
)


class Chip(I2CChip):
    """One INA3221 with one to three inputs in use, opened by Adafruit's driver without its reset."""

    def __init__(self, devices: Sequence[Device], sample_interval_seconds: float) -> None:
        first = devices[0]
        assert OPTIONS.averaging is not None  # noqa: S101 - declared above
        self.place = place_of(devices)
        inputs = tuple(device.input or 0 for device in devices)
        self._inputs = tuple((device.input or 0, device.shunt_ohms or 0.0) for device in devices)
        codes = averaging.codes(OPTIONS.averaging, first.averaging, sample_interval_seconds, len(inputs))
        self.conversion_seconds = codes.conversion_seconds
        # Configuration register 0x00 (section 8.6.2.1), power-on 0x7127:
        #   15    14  13  12   11  10   9    8   7   6    5   4   3    2   1   0
        # +-----+---+---+---+------------+------------+------------+------------+
        # | RST |IN1|IN2|IN3|    AVG     |   VBUSCT   |   VSHCT    |    MODE    |
        # +-----+---+---+---+------------+------------+------------+------------+
        # Inputs that nobody reads are off: each would take its share of the time.
        # MODE 111: shunt and bus voltage, continuously.
        enabled = sum(1 << (15 - number) for number in inputs)
        configuration = enabled | codes.count << 9 | codes.voltage << 6 | codes.current << 3 | 0b111
        # Shunt voltage of inputs 1-3: 0x01, 0x03, 0x05; bus voltage: 0x02, 0x04, 0x06.
        self.results = tuple(Register(number) for i in inputs for number in (2 * i, 2 * i - 1))
        self.configuration = (ExpectedBits(Register(_CONFIGURATION), configuration, _POWER_ON_CONFIGURATION),)
        self.status = ExpectedBits(Register(_MASK_ENABLE), _MARK, power_on=0, bits=_MARK_AND_ITS_EMPTY_NEIGHBOURS)
        self.new_result = _CONVERSION_READY

    def identify(self, port: I2C) -> tuple[int, ...]:
        """See `I2CChip.identify`."""
        try:
            self._driver = _driver()(port, self.place.address)
        except ValueError as error:
            raise SensorError(f"no INA3221 at {self.place}: {probe_failure(error)}; is it powered?") from error
        manufacturer_id, die_id = self._driver.manufacturer_id, self._driver.die_id
        if (manufacturer_id, die_id) != (_MANUFACTURER_ID, _DIE_ID):
            raise SensorError(
                f"not an INA3221 at {self.place}: its IDs read 0x{manufacturer_id:04x} 0x{die_id:04x} "
                f"instead of 0x{_MANUFACTURER_ID:04x} 0x{_DIE_ID:04x}"
            )
        return (self._driver.configuration,)

    def set_canary(self) -> None:
        """See `I2CChip.set_canary`."""
        self._driver.mask_enable = _MARK

    def configure(self) -> None:
        """See `I2CChip.configure`."""
        self._driver.configuration = self.configuration[0].written

    def is_converted(self, read: ReadRegister) -> bool:
        """See `I2CChip.is_converted`."""
        return bool(read(Register(_MASK_ENABLE)) & _CONVERSION_READY)

    def decode(self, words: Sequence[int]) -> tuple[Measurement | SensorError, ...]:
        """See `I2CChip.decode`."""
        return tuple(
            self._measurement(number, words[2 * position], words[2 * position + 1], shunt_ohms)
            for position, (number, shunt_ohms) in enumerate(self._inputs)
        )

    def _measurement(
        self, number: int, voltage_word: int, shunt_word: int, shunt_ohms: float
    ) -> Measurement | SensorError:
        """What one input measured. An error is returned, since it says nothing about the other inputs."""
        # Bus voltage registers 0x02, 0x04, 0x06 (section 8.6.2.3): 8 mV; shunt voltage registers 0x01, 0x03, 0x05
        # (section 8.6.2.2): 40 uV; both two's complement, left-aligned
        #   15   14                            3   2  1  0
        # +----+--------------------------------+----------+
        # | +- |             12 bits            | 0  0  0  |
        # +----+--------------------------------+----------+
        volts = (_signed(voltage_word) >> 3) * _VOLTS_PER_LSB
        if not _LOWEST_VOLTS <= volts <= _HIGHEST_VOLTS:
            return SensorError(
                f"input {number} of INA3221 at {self.place}: bus voltage register reads 0x{voltage_word:04x}, "
                "outside 0 to 26 V; is the bus disturbed?"
            )
        steps = _signed(shunt_word) >> 3
        if steps in (4095, -4096):
            return SensorError(
                f"input {number} of INA3221 at {self.place}: shunt voltage register reads 0x{shunt_word:04x}, "
                "the end of its range (163.8 mV); overload, or a shunt too large?"
            )
        return Measurement(volts, steps * _SHUNT_VOLTS_PER_LSB / shunt_ohms)


def _signed(word: int) -> int:
    return word - ((word & 0x8000) << 1)


@cache
def _driver() -> Any:
    from adafruit_bus_device.i2c_device import I2CDevice
    from adafruit_ina3221 import INA3221

    class INA3221Driver(INA3221):  # type: ignore[misc] # Adafruit publishes no types
        """Adafruit's driver without what makes it unfit for a service.

        Its constructor resets the chip, so that it reads zero for seconds, before it knows that it is an INA3221; a
        failed read is printed and then stumbled over.
        """

        def __init__(self, port: I2C, address: int) -> None:
            self.i2c_dev = I2CDevice(port, address)

        def _read_register(self, register: int, length: int) -> bytearray:
            result = bytearray(length)
            with self.i2c_dev:
                self.i2c_dev.write_then_readinto(bytes((register,)), result)
            return result

        @property
        def configuration(self) -> int:
            return self._get_register_bits(_CONFIGURATION, 0, 16)  # type: ignore[no-any-return] # as above

        @configuration.setter
        def configuration(self, word: int) -> None:
            self._set_register_bits(_CONFIGURATION, 0, 16, word)

        @property
        def mask_enable(self) -> int:
            return self._get_register_bits(_MASK_ENABLE, 0, 16)  # type: ignore[no-any-return] # as above

        @mask_enable.setter
        def mask_enable(self, word: int) -> None:
            self._set_register_bits(_MASK_ENABLE, 0, 16, word)

    return INA3221Driver
