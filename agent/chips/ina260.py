"""TI INA260: one input with its shunt inside, 0-36 V and up to 15 A. Datasheet: SBOS656.

Power is computed from bus voltage and current: the power register (0x03) has lost the sign of the current and counts in
steps of 10 mW. It serves as a check: two chips at one address contradict it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.chips import _averaging as averaging
from agent.chips._base import TEXAS_INSTRUMENTS, ComputedRegister, ExpectedBits, I2CChip, Measurement, Word, signed
from agent.errors import SensorError
from agent.i2c.transfers import Register
from agent.settings import ChipOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.i2c.transfers import I2C

OPTIONS = ChipOptions(chip="ina260", addresses=range(0x40, 0x50), averaging=averaging.CHOICES)


class Chip(I2CChip):
    """One INA260, identified by the constructor of Adafruit's driver."""

    options = OPTIONS
    signature_names = frozenset({"ina260"})
    # Die ID register 0xFF, with the revision in bits 3-0, and manufacturer ID register 0xFE (section 8.6).
    sure_ids = (Word(0xFF, 0x2270, mask=0xFFF0), Word(0xFE, TEXAS_INSTRUMENTS))
    highest_volts = 36.0
    full_scale_amperes = 15.0
    results = (Register(0x02), Register(0x01))
    # Mask/Enable register 0x06 (section 8.6.5), power-on 0x0000:
    #   15  14  13  12  11   10   9   5   4    3    2    1    0
    # +---+---+---+---+---+------+-----+---+----+---+----+-----+
    # |OCL|UCL|BOL|BUL|POL| CNVR |  0  |AFF|CVRF|OVF|APOL| LEN |
    # +---+---+---+---+---+------+-----+---+----+---+----+-----+
    # Canary bit: LEN, which latches the alert pin; no function is selected for that pin. CVRF: a result is complete.
    status = ExpectedBits(Register(0x06), written=1 << 0, power_on=0, bits=0xFFE3)
    new_result = 1 << 3
    # Power register 0x03 (section 8.6.4). MODE 111, and AVG 000 in the configuration register.
    computed = ComputedRegister(
        Register(0x03),
        "power",
        per_lsb=10e-3,
        volts_per_lsb=1.25e-3,
        amperes_per_lsb=1.25e-3,
        requires=(ExpectedBits(Register(0x00), 0b111, power_on=0b111, bits=0b111),),
        unaveraged=ExpectedBits(Register(0x00), 0, power_on=0, bits=0b111 << 9),
    )

    def open_device(self, port: I2C) -> Any:
        """See `I2CChip.open_device`."""
        from adafruit_ina260 import INA260

        try:
            # Only its device is used: its setters write a field at a time, and each write restarts the conversion.
            return INA260(port, self.place.address).i2c_device
        except RuntimeError as error:
            raise SensorError(f"not an {self}: {error}") from error

    def configuration_words(self, codes: averaging.Codes) -> tuple[ExpectedBits, ...]:
        """See `I2CChip.configuration_words`."""
        # Configuration register 0x00 (section 8.6.1), power-on 0x6127:
        #   15    14  13  12   11  10   9    8   7   6    5   4   3    2   1   0
        # +-----+------------+------------+------------+------------+------------+
        # | RST | 1   1   0  |    AVG     |   VBUSCT   |   ISHCT    |    MODE    |
        # +-----+------------+------------+------------+------------+------------+
        # MODE 111: current and bus voltage, continuously.
        word = 0x6000 | codes.count << 9 | codes.voltage << 6 | codes.current << 3 | 0b111
        return (ExpectedBits(Register(0x00), word, power_on=0x6127),)

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
        volts, amperes = voltage_word * 1.25e-3, signed(current_word) * 1.25e-3
        self._refuse_volts_beyond_range(volts, voltage_word)
        if current_word in (0x7FFF, 0x8000):
            raise SensorError(f"{self}: current register reads 0x{current_word:04x}, the end of its range; overload?")
        if abs(amperes) > self.full_scale_amperes:
            raise SensorError(
                f"{self}: current register reads 0x{current_word:04x}, {amperes:.2f} A, beyond "
                f"{self.full_scale_amperes:g} A; overload, or is the bus disturbed?"
            )
        return (Measurement(volts, amperes),)
