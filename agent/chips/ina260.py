"""TI INA260: one input with its shunt inside, 0-36 V and up to 15 A. Datasheet: SBOS656.

Bus voltage (0x02) and current (0x01) are read; power is their product, because the power register (0x03) has lost the
sign of the current and counts in steps of 10 mW.
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
_CURRENT = 0x01
_BUS_VOLTAGE = 0x02
_MASK_ENABLE = 0x06

# Mask/Enable register 0x06 (section 8.6.5), power-on 0x0000:
#   15  14  13  12  11   10   9   5   4    3    2    1    0
# +---+---+---+---+---+------+-----+---+----+---+----+-----+
# |OCL|UCL|BOL|BUL|POL| CNVR |  0  |AFF|CVRF|OVF|APOL| LEN |
# +---+---+---+---+---+------+-----+---+----+---+----+-----+
# CVRF: a result is complete; cleared by reading the register.
# LEN latches the alert pin, which no function is selected for: it does nothing but show that the power was not lost.
_CONVERSION_READY = 1 << 3
_MARK = 1 << 0
_MARK_AND_ITS_EMPTY_NEIGHBOURS = 0xFFE3  # a bus stuck high or low is no mark

_POWER_ON_CONFIGURATION = 0x6127

_VOLTS_PER_LSB = 1.25e-3
_AMPERES_PER_LSB = 1.25e-3
_HIGHEST_VOLTS = 36.0

OPTIONS = ChipOptions(
    chip="ina260",
    addresses=range(0x40, 0x50),
    averaging=AveragingChoices(averaging.COUNTS, averaging.CONVERSION_SECONDS),
)


class Chip(I2CChip):
    """One INA260, opened by Adafruit's driver."""

    def __init__(self, devices: Sequence[Device], sample_interval_seconds: float) -> None:
        (device,) = devices
        assert OPTIONS.averaging is not None  # noqa: S101 - declared above
        self.place = place_of(devices)
        codes = averaging.codes(OPTIONS.averaging, device.averaging, sample_interval_seconds)
        self.conversion_seconds = codes.conversion_seconds
        # Configuration register 0x00 (section 8.6.1), power-on 0x6127:
        #   15    14  13  12   11  10   9    8   7   6    5   4   3    2   1   0
        # +-----+------------+------------+------------+------------+------------+
        # | RST | 1   1   0  |    AVG     |   VBUSCT   |   ISHCT    |    MODE    |
        # +-----+------------+------------+------------+------------+------------+
        # MODE 111: current and bus voltage, continuously.
        configuration = 0x6000 | codes.count << 9 | codes.voltage << 6 | codes.current << 3 | 0b111
        self.results = (Register(_BUS_VOLTAGE), Register(_CURRENT))
        self.configuration = (ExpectedBits(Register(_CONFIGURATION), configuration, _POWER_ON_CONFIGURATION),)
        self.status = ExpectedBits(Register(_MASK_ENABLE), _MARK, power_on=0, bits=_MARK_AND_ITS_EMPTY_NEIGHBOURS)
        self.new_result = _CONVERSION_READY

    def identify(self, port: I2C) -> tuple[int, ...]:
        """See `I2CChip.identify`."""
        try:
            self._driver = _driver()(port, self.place.address)
        except ValueError as error:
            raise SensorError(f"no INA260 at {self.place}: {probe_failure(error)}; is it powered?") from error
        except RuntimeError as error:
            raise SensorError(f"not an INA260 at {self.place}: {error}") from error
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

    def decode(self, words: Sequence[int]) -> tuple[Measurement, ...]:
        """See `I2CChip.decode`."""
        # Bus voltage register 0x02 (section 8.6.3): 1.25 mV, 0 to 36 V
        #   15   14                                      0
        # +----+------------------------------------------+
        # |  0 |                 VBUS                     |
        # +----+------------------------------------------+
        # Current register 0x01 (section 8.6.2): 1.25 mA, two's complement
        #   15   14                                      0
        # +----+------------------------------------------+
        # | +- |                CURRENT                   |
        # +----+------------------------------------------+
        voltage_word, current_word = words
        volts = voltage_word * _VOLTS_PER_LSB
        if volts > _HIGHEST_VOLTS:
            raise SensorError(
                f"INA260 at {self.place}: bus voltage register reads 0x{voltage_word:04x}, more than 36 V; "
                "is the bus disturbed?"
            )
        if current_word in (0x7FFF, 0x8000):
            raise SensorError(
                f"INA260 at {self.place}: current register reads 0x{current_word:04x}, the end of its range; overload?"
            )
        amperes = (current_word - ((current_word & 0x8000) << 1)) * _AMPERES_PER_LSB
        return (Measurement(volts, amperes),)


@cache
def _driver() -> Any:
    from adafruit_ina260 import INA260
    from adafruit_register.i2c_struct import UnaryStruct

    class INA260Driver(INA260):  # type: ignore[misc] # Adafruit publishes no types
        """Adafruit's driver, with the registers that we write as a whole.

        Its setters write a field at a time, each restarting the conversion, and do not mask what they are given.
        """

        configuration = UnaryStruct(_CONFIGURATION, ">H")
        mask_enable = UnaryStruct(_MASK_ENABLE, ">H")

    return INA260Driver
