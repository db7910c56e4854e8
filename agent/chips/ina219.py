"""TI INA219 (and INA220): one input with a shunt on the board, 0-26 V. Datasheet: SBOS448.

Current is the shunt voltage over the shunt's resistance; the chip's own current register, which a calibration would
have to be written for, is left alone.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from agent.chips import ExpectedBits, I2CChip, Measurement, _signatures, place_of, probe_failure
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
_SHUNT_VOLTAGE = 0x01
_BUS_VOLTAGE = 0x02

# Configuration register 0x00 (section 8.6.2.1), power-on 0x399F:
#   15    14   13   12  11   10   9   8   7    6   5   4   3    2   1   0
# +-----+----+----+--------+----------------+----------------+------------+
# | RST | 0  |BRNG|  PGA   |      BADC      |      SADC      |    MODE    |
# +-----+----+----+--------+----------------+----------------+------------+
# BRNG 1: up to 32 V. PGA 11: +-320 mV. MODE 111: shunt and bus voltage, continuously. BADC, SADC 1nnn: 12 bits, the
# mean of 2^n samples of 532 us. At power-on they are 0011, a single sample: what we write is never what power-on holds.
_WIDEST_RANGES_CONTINUOUSLY = 0x3807
_AVERAGED = 0b1000
_POWER_ON_CONFIGURATION = 0x399F
_NEVER_SET = 0xC000  # RST clears itself

_CONVERSION_READY = 1 << 1
_VOLTS_PER_LSB = 4e-3
_SHUNT_VOLTS_PER_LSB = 10e-6
_HIGHEST_VOLTS = 32.0
_END_OF_SHUNT_RANGE = 32000  # 320 mV

_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)
_AVERAGING = AveragingChoices(_COUNTS, conversion_seconds=(532e-6,))

_WITH_AN_ID = tuple(identity for identity in _signatures.IDENTITIES if identity.is_sure)

OPTIONS = ChipOptions(
    chip="ina219",
    addresses=range(0x40, 0x50),
    external_shunt=True,
    averaging=_AVERAGING,
)


class Chip(I2CChip):
    """One INA219, opened by Adafruit's driver without its constructor.

    It has no register that could carry a mark: a power loss shows in its configuration, which is read in every sweep.
    """

    def __init__(self, devices: Sequence[Device], sample_interval_seconds: float) -> None:
        (device,) = devices
        self.place = place_of(devices)
        self._shunt_ohms = device.shunt_ohms or 0.0
        codes = averaging.codes(_AVERAGING, device.averaging, sample_interval_seconds)
        self.conversion_seconds = codes.conversion_seconds
        samples = _AVERAGED | codes.count
        configuration = _WIDEST_RANGES_CONTINUOUSLY | samples << 7 | samples << 3
        self.results = (Register(_BUS_VOLTAGE), Register(_SHUNT_VOLTAGE))
        self.configuration = (ExpectedBits(Register(_CONFIGURATION), configuration, _POWER_ON_CONFIGURATION),)

    def identify(self, port: I2C) -> tuple[int, ...]:
        """See `I2CChip.identify`.

        An INA219 does not say what it is. Refused is what has a bit set that an INA219 never shows, and every power
        monitor that has an ID; what is left may still be something else.
        """
        try:
            self._driver = _driver()(port, self.place.address)
        except ValueError as error:
            raise SensorError(f"no INA219 at {self.place}: {probe_failure(error)}; is it powered?") from error
        configuration: int = self._driver.configuration
        identity = _signatures.identify(self._driver.word, _WITH_AN_ID)
        if identity is not None:
            raise SensorError(f"not an INA219 at {self.place}: it says that it is an {identity.part}")
        if configuration & _NEVER_SET:
            raise SensorError(
                f"not an INA219 at {self.place}: configuration register reads 0x{configuration:04x}, with bits that an "
                "INA219 never shows"
            )
        return (configuration,)

    def configure(self) -> None:
        """See `I2CChip.configure`."""
        self._driver.configuration = self.configuration[0].written

    def is_converted(self, read: ReadRegister) -> bool:
        """See `I2CChip.is_converted`."""
        # Writing the configuration clears it, and reading the power register, which nobody does.
        return bool(read(Register(_BUS_VOLTAGE)) & _CONVERSION_READY)

    def decode(self, words: Sequence[int]) -> tuple[Measurement, ...]:
        """See `I2CChip.decode`."""
        # Bus voltage register 0x02 (section 8.6.3.2): 4 mV; CNVR: a result is complete
        #   15                                3   2    1     0
        # +------------------------------------+----+------+-----+
        # |              13 bits               | 0  | CNVR | OVF |
        # +------------------------------------+----+------+-----+
        # Shunt voltage register 0x01 (section 8.6.3.1): 10 uV, two's complement, at every PGA
        #   15   14                                            0
        # +----+-------------------------------------------------+
        # | +- |                    15 bits                      |
        # +----+-------------------------------------------------+
        voltage_word, shunt_word = words
        volts = (voltage_word >> 3) * _VOLTS_PER_LSB
        if volts >= _HIGHEST_VOLTS:
            raise SensorError(
                f"INA219 at {self.place}: bus voltage register reads 0x{voltage_word:04x}, 32 V or more; "
                "is the bus disturbed?"
            )
        steps = shunt_word - ((shunt_word & 0x8000) << 1)
        if abs(steps) >= _END_OF_SHUNT_RANGE:
            raise SensorError(
                f"INA219 at {self.place}: shunt voltage register reads 0x{shunt_word:04x}, the end of its range "
                "(320 mV); overload, or a shunt too large?"
            )
        return (Measurement(volts, steps * _SHUNT_VOLTS_PER_LSB / self._shunt_ohms),)


@cache
def _driver() -> Any:
    from adafruit_bus_device.i2c_device import I2CDevice
    from adafruit_ina219 import INA219
    from adafruit_register.i2c_struct import UnaryStruct

    class INA219Driver(INA219):  # type: ignore[misc] # Adafruit publishes no types
        """Adafruit's driver without its constructor, which writes to whatever sits at the address, field by field."""

        configuration = UnaryStruct(_CONFIGURATION, ">H")

        def __init__(self, port: I2C, address: int) -> None:
            self.i2c_device = I2CDevice(port, address)

        def word(self, register: int) -> int:
            result = bytearray(2)
            with self.i2c_device:
                self.i2c_device.write_then_readinto(bytes((register,)), result)
            return int.from_bytes(result, "big")

    return INA219Driver
