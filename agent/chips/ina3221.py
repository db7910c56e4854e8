"""TI INA3221: three inputs, each with its own shunt on the board, 0-26 V. Datasheet: SBOS576.

The chip has no current or power register: current is the shunt voltage divided by the resistance of the shunt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.chips import _averaging as averaging
from agent.chips._base import TEXAS_INSTRUMENTS, ExpectedBits, I2CChip, Measurement, Word, signed
from agent.errors import SensorError
from agent.i2c.transfers import Register
from agent.settings import ChipOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.settings import Device

OPTIONS = ChipOptions(
    chip="ina3221",
    addresses=range(0x40, 0x44),
    inputs=range(1, 4),
    external_shunt=True,
    averaging=averaging.CHOICES,
)


class Chip(I2CChip):
    """One INA3221 with one to three inputs in use."""

    options = OPTIONS
    signature_names = frozenset({"ina3221"})
    highest_volts = 26.0
    full_scale_shunt_volts = 0.1638
    ids = (Word(0xFE, TEXAS_INSTRUMENTS), Word(0xFF, 0x3220))
    # Mask/Enable register 0x0F (section 8.6.2.15), power-on 0x0002:
    #   15   14   13   12  11  10   9  8  7   6   5  4  3   2   1    0
    # +---+----+----+----+---+---+---------+----+--------+---+---+----+
    # | 0 |SCC1|SCC2|SCC3|WEN|CEN| CF1 - 3 | SF |WF1 - 3 |PVF|TCF|CVRF|
    # +---+----+----+----+---+---+---------+----+--------+---+---+----+
    # Canary bit: SCC1, which adds input 1 to a sum; the limit of that sum is out of reach at power-on. CVRF: all inputs
    # have a new result.
    status = ExpectedBits(Register(0x0F), written=1 << 14, power_on=0, bits=0xFC00)
    new_result = 1 << 0

    def __init__(self, devices: Sequence[Device], sample_interval_seconds: float) -> None:
        self._inputs = tuple((device.input or 0, device.shunt_ohms or 0.0) for device in devices)
        # Shunt voltage of inputs 1-3: 0x01, 0x03, 0x05; bus voltage: 0x02, 0x04, 0x06.
        self.results = tuple(Register(register) for i, _ in self._inputs for register in (2 * i, 2 * i - 1))
        super().__init__(devices, sample_interval_seconds)
        self._enabled = frozenset(number for number, _ in self._inputs)

    def configuration_words(self, codes: averaging.Codes) -> tuple[ExpectedBits, ...]:
        """See `I2CChip.configuration_words`."""
        # Configuration register 0x00 (section 8.6.2.1), power-on 0x7127:
        #   15    14  13  12   11  10   9    8   7   6    5   4   3    2   1   0
        # +-----+---+---+---+------------+------------+------------+------------+
        # | RST |IN1|IN2|IN3|    AVG     |   VBUSCT   |   VSHCT    |    MODE    |
        # +-----+---+---+---+------------+------------+------------+------------+
        # Unused inputs are off: each would take its share of the time. MODE 111: shunt and bus voltage, continuously.
        enabled = sum(1 << (15 - number) for number, _ in self._inputs)
        word = enabled | codes.count << 9 | codes.voltage << 6 | codes.current << 3 | 0b111
        return (ExpectedBits(Register(0x00), word, power_on=0x7127),)

    def adopt(self, found: Sequence[int]) -> None:
        """See `I2CChip.adopt`. An input that is off is an error of its device alone."""
        super().adopt(found)
        self._enabled = frozenset(number for number in (1, 2, 3) if found[0] >> (15 - number) & 1)
        self.conversion_seconds *= len(self._enabled)

    def decode(self, words: Sequence[int]) -> tuple[Measurement | SensorError, ...]:
        """See `I2CChip.decode`."""
        return tuple(
            self._measurement(number, words[2 * position], words[2 * position + 1], shunt_ohms)
            for position, (number, shunt_ohms) in enumerate(self._inputs)
        )

    def _measurement(
        self, number: int, voltage_word: int, shunt_word: int, shunt_ohms: float
    ) -> Measurement | SensorError:
        if number not in self._enabled:
            return SensorError(f"input {number} of {self}: is switched off; a run of the service configures it")
        # Bus voltage registers 0x02, 0x04, 0x06 (section 8.6.2.3): 8 mV; shunt voltage registers 0x01, 0x03, 0x05
        # (section 8.6.2.2): 40 uV; both two's complement, left-aligned
        #   15   14                            3   2  1  0
        # +----+--------------------------------+----------+
        # | +- |             12 bits            | 0  0  0  |
        # +----+--------------------------------+----------+
        volts = (signed(voltage_word) >> 3) * 8e-3
        if not -0.1 <= volts <= self.highest_volts:  # a grounded input may read a few steps below zero
            return SensorError(
                f"input {number} of {self}: bus voltage register reads 0x{voltage_word:04x}, outside 0 to "
                f"{self.highest_volts:g} V; is the bus disturbed?"
            )
        lsbs = signed(shunt_word) >> 3
        if lsbs in (4095, -4096):
            return SensorError(
                f"input {number} of {self}: shunt voltage register reads 0x{shunt_word:04x}, "
                f"the end of its range ({self.full_scale_shunt_volts * 1e3:.1f} mV); overload, or a shunt too large?"
            )
        return Measurement(volts, lsbs * 40e-6 / shunt_ohms)
