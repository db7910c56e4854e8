"""What TI's INA228, INA237 and INA238 share: one input, a shunt on the board, up to 85 V, registers 0x00-0x3F.

Datasheets: SLYS021 (INA228), SLYS024 (INA237), SLYS025 (INA238); the sections named here are those of SLYS021.
Current is the shunt voltage over the shunt's resistance.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

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
_ADC_CONFIGURATION = 0x01
_SHUNT_CALIBRATION = 0x02
SHUNT_VOLTAGE = 0x04
BUS_VOLTAGE = 0x05
_DIAGNOSTICS = 0x0B

# Configuration register 0x00 (section 7.6.1.1), power-on 0x0000:
#   15   14     13                6    5     4    3       0
# +-----+------+-------------------+------+-----+----------+
# | RST |RSTACC|      CONVDLY      |TEMPC | ADC |    0     |
# |     |      |                   | OMP  |RANGE|          |
# +-----+------+-------------------+------+-----+----------+
# ADCRANGE 0: +-163.84 mV. TEMPCOMP 0: the shunt is taken as it is. RST and RSTACC, which would set what was added up to
# zero, are never written as 1.
_RANGE_AND_DELAY = 0x3FF0
_WIDE_RANGE = 0x0000

# Shunt calibration register 0x02 (section 7.6.1.3), power-on 0x1000: 13107.2e6 x CURRENT_LSB x shunt (INA237 and
# INA238: 819.2e6). With CURRENT_LSB = LSB of the shunt voltage / shunt, which is 312.5 nV in an INA228 and 5 uV in the
# others, it is 0x1000 for any shunt.
_EVERY_SHUNT = 0x1000

# ADC configuration register 0x01 (section 7.6.1.2), power-on 0xFB68:
#   15       12   11        9   8         6   5         3   2        0
# +-------------+-------------+-------------+-------------+-----------+
# |    MODE     |   VBUSCT    |    VSHCT    |    VTCT     |    AVG    |
# +-------------+-------------+-------------+-------------+-----------+
# MODE 1011: shunt and bus voltage, continuously; the temperature, which power-on measures too, would take its time.
_SHUNT_AND_BUS_CONTINUOUSLY = 0xB000
_TEMPERATURE_TIME_AT_POWER_ON = 0x0028
_POWER_ON_ADC_CONFIGURATION = 0xFB68

# Diagnostic flags and alert register 0x0B (section 7.6.1.12), power-on 0x0001:
#    15    14   13   12    11    10     9   8    7   6   5   4   3   2    1    0
# +------+----+----+----+------+------+----+---+----+---+---+---+---+---+-----+----+
# |ALATCH|CNVR|SLOW|APOL|ENERGY|CHARGE|MATH| 0 |TMP |SHN|SHN|BUS|BUS|POL|CNVRF|MEM |
# |      |    |ALRT|    |  OF  |  OF  | OF |   | OL |TOL|TUL|OL |UL |   |     |STAT|
# +------+----+----+----+------+------+----+---+----+---+---+---+---+---+-----+----+
# CNVRF: a result is complete; with ALATCH it stays until the register is read. ALATCH latches the alert pin too, whose
# limits are out of reach at power-on: it shows that the power was not lost. MEMSTAT 1: the chip's memory is sound.
_CONVERSION_READY = 1 << 1
_MARK = 0x8001
_MARK_AT_POWER_ON = 0x0001
_MARK_AND_ITS_STEADY_NEIGHBOURS = 0xF101  # a bus stuck high or low is no mark

HIGHEST_VOLTS = 85.0
FULL_SCALE_SHUNT_VOLTS = 0.16384

_MANUFACTURER_ID = 0x5449

CONVERSION_SECONDS = (50e-6, 84e-6, 150e-6, 280e-6, 540e-6, 1.052e-3, 2.074e-3, 4.12e-3)
"""By register code (section 7.6.1.2)."""


def options(chip: str) -> ChipOptions:
    """What the configuration may say of a chip of this family."""
    return ChipOptions(
        chip=chip,
        addresses=range(0x40, 0x50),
        external_shunt=True,
        averaging=_AVERAGING,
    )


_AVERAGING = AveragingChoices(averaging.COUNTS, CONVERSION_SECONDS)


class INA23xChip(I2CChip):
    """One chip of the family, opened by Adafruit's driver for an INA228 without its constructor.

    The numbers are those of an INA237, which an INA238 differs from in its accuracy and its ID alone.

    Attributes:
        NAME: what is printed on it.
        DEVICE_ID: bits 15-4 of register 0x3F.
        BITS: of a voltage register, without what lies to the right of the value.
        RIGHT_OF_VALUE: how many bits that is.
        SHUNT_VOLTS_PER_LSB: at +-163.84 mV.
        BUS_VOLTS_PER_LSB: that of the bus voltage.
    """

    NAME: ClassVar[str]
    DEVICE_ID: ClassVar[int]
    BITS: ClassVar[int] = 16
    RIGHT_OF_VALUE: ClassVar[int] = 0
    SHUNT_VOLTS_PER_LSB: ClassVar[float] = 5e-6
    BUS_VOLTS_PER_LSB: ClassVar[float] = 3.125e-3

    def __init__(self, devices: Sequence[Device], sample_interval_seconds: float) -> None:
        (device,) = devices
        self.place = place_of(devices)
        self.shunt_ohms = device.shunt_ohms or 0.0
        codes = averaging.codes(_AVERAGING, device.averaging, sample_interval_seconds)
        self.conversion_seconds = codes.conversion_seconds
        adc_configuration = (
            _SHUNT_AND_BUS_CONTINUOUSLY
            | codes.voltage << 9
            | codes.current << 6
            | _TEMPERATURE_TIME_AT_POWER_ON
            | codes.count
        )
        length_bytes = (self.BITS + self.RIGHT_OF_VALUE) // 8
        self.results = (Register(BUS_VOLTAGE, length_bytes), Register(SHUNT_VOLTAGE, length_bytes))
        self.configuration = (
            ExpectedBits(Register(_CONFIGURATION), _WIDE_RANGE, power_on=_WIDE_RANGE, bits=_RANGE_AND_DELAY),
            ExpectedBits(Register(_SHUNT_CALIBRATION), _EVERY_SHUNT, power_on=_EVERY_SHUNT),
            ExpectedBits(Register(_ADC_CONFIGURATION), adc_configuration, _POWER_ON_ADC_CONFIGURATION),
        )
        self.status = ExpectedBits(
            Register(_DIAGNOSTICS), _MARK, power_on=_MARK_AT_POWER_ON, bits=_MARK_AND_ITS_STEADY_NEIGHBOURS
        )
        self.new_result = _CONVERSION_READY

    def identify(self, port: I2C) -> tuple[int, ...]:
        """See `I2CChip.identify`."""
        try:
            self._driver = _driver()(port, self.place.address)
        except ValueError as error:
            raise SensorError(f"no {self.NAME} at {self.place}: {probe_failure(error)}; is it powered?") from error
        manufacturer_id, device_id = self._driver.manufacturer_id, self._driver.device_id
        if (manufacturer_id, device_id) != (_MANUFACTURER_ID, self.DEVICE_ID):
            raise SensorError(
                f"not an {self.NAME} at {self.place}: its IDs read 0x{manufacturer_id:04x} 0x{device_id:03x} "
                f"instead of 0x{_MANUFACTURER_ID:04x} 0x{self.DEVICE_ID:03x}"
            )
        return (self._driver.configuration, self._driver.shunt_calibration, self._driver.adc_configuration)

    def set_canary(self) -> None:
        """See `I2CChip.set_canary`."""
        self._driver.diagnostics = _MARK

    def configure(self) -> None:
        """See `I2CChip.configure`."""
        configuration, shunt_calibration, adc_configuration = self.configuration
        self._driver.configuration = configuration.written
        self._driver.shunt_calibration = shunt_calibration.written
        self._driver.adc_configuration = adc_configuration.written

    def is_converted(self, read: ReadRegister) -> bool:
        """See `I2CChip.is_converted`."""
        return bool(read(Register(_DIAGNOSTICS)) & _CONVERSION_READY)

    def decode(self, words: Sequence[int]) -> tuple[Measurement, ...]:
        """See `I2CChip.decode`."""
        voltage_word, shunt_word = words
        return (self.measurement(voltage_word, shunt_word),)

    def measurement(self, voltage_word: int, shunt_word: int) -> Measurement:
        """What the bus voltage and the shunt voltage registers say. Raises SensorError; see `I2CChip.decode`."""
        # Bus voltage register 0x05 (section 7.6.1.6), never negative, and shunt voltage register 0x04 (section
        # 7.6.1.5), two's complement. INA228: 195.3125 uV and 312.5 nV
        #   23   22                                        4   3      0
        # +----+---------------------------------------------+---------+
        # | +- |                  20 bits                    |    0    |
        # +----+---------------------------------------------+---------+
        # INA237 and INA238: 3.125 mV and 5 uV
        #   15   14                                        0
        # +----+---------------------------------------------+
        # | +- |                  16 bits                    |
        # +----+---------------------------------------------+
        digits = (self.BITS + self.RIGHT_OF_VALUE) // 4
        volts = (voltage_word >> self.RIGHT_OF_VALUE) * self.BUS_VOLTS_PER_LSB
        if volts > HIGHEST_VOLTS:
            raise SensorError(
                f"{self.NAME} at {self.place}: bus voltage register reads 0x{voltage_word:0{digits}x}, more than 85 V; "
                "is the bus disturbed?"
            )
        steps = shunt_word >> self.RIGHT_OF_VALUE
        negative = 1 << (self.BITS - 1)
        if steps in (negative - 1, negative):
            raise SensorError(
                f"{self.NAME} at {self.place}: shunt voltage register reads 0x{shunt_word:0{digits}x}, the end of its "
                "range (163.84 mV); overload, or a shunt too large?"
            )
        steps -= (steps & negative) << 1
        return Measurement(volts, steps * self.SHUNT_VOLTS_PER_LSB / self.shunt_ohms)


@cache
def _driver() -> Any:
    from adafruit_bus_device.i2c_device import I2CDevice
    from adafruit_ina228 import INA2XX
    from adafruit_register.i2c_struct import UnaryStruct

    class INA23xDriver(INA2XX):  # type: ignore[misc] # Adafruit publishes no types
        """The base of Adafruit's drivers for INA228, INA237 and INA238, without what makes it unfit for a service.

        Its constructor resets the chip, or with `skip_reset` still writes an averaging and a mode of its own, and those
        above it a calibration for a shunt that is not the one on the board.
        """

        configuration = UnaryStruct(_CONFIGURATION, ">H")
        shunt_calibration = UnaryStruct(_SHUNT_CALIBRATION, ">H")
        adc_configuration = UnaryStruct(_ADC_CONFIGURATION, ">H")
        diagnostics = UnaryStruct(_DIAGNOSTICS, ">H")

        def __init__(self, port: I2C, address: int) -> None:
            self.i2c_device = I2CDevice(port, address)

        @property
        def manufacturer_id(self) -> int:
            return self._manufacturer_id  # type: ignore[no-any-return] # as above

    return INA23xDriver
