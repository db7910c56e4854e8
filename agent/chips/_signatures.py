"""Signatures of power monitors: how a scan recognises one without configuring it, even one that has no file here.

Reading a register means writing its number, which another chip at these addresses may take for a command: 0xFE resets a
Si7021 at 0x40. So the most specific register comes first, and each further one is read only if the one before matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.chips import ina228, ina234, ina236, ina238, ina260, ina3221
from agent.chips._base import TEXAS_INSTRUMENTS, Word
from agent.errors import SensorError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from agent.chips._base import I2CChip

    ReadWord = Callable[[int], int | None]
    """Reads a register of two bytes by its number; None if the chip does not acknowledge it. Raises OSError."""

ADDRESSES = range(0x40, 0x50)
"""Of all power monitors here: the straps A0 and A1 select one of them, one of four on an INA3221."""


@dataclass(frozen=True, slots=True)
class Signature:
    """How a kind of power monitor is recognised.

    Attributes:
        part: its name in the datasheet; several names where no register differs.
        chip: the name of its file in this folder, which need not exist yet.
        words: what its registers hold; they are read in this order, and all have to match.
        proof: the evidence for a match.
        is_sure: False if another chip may well match too.
        has_id: whether the proof is an ID register, which no chip without one passes for.
        measuring: for each input, what the registers hold while the chip converts continuously. A chip that is switched
            off keeps its last result. Empty where that is not known.
    """

    part: str
    chip: str
    words: tuple[Word, ...]
    proof: str
    is_sure: bool
    has_id: bool
    measuring: tuple[tuple[Word, ...], ...] = ()


_BY_ID = "manufacturer and die ID"
_BY_MANUFACTURER = "manufacturer ID alone; its configuration has the layout of this chip"
_BY_POWER_ON = "no ID; its configuration is that of power-on"
_BY_OUR_SETUP = "no ID; its configuration is one that wattpush writes"

# Manufacturer ID (0xFE) and die ID (0xFF), whose bits 3-0 are the revision (SBOS656 and SBOS547, section "Register
# maps"). Adafruit's driver identifies an INA260; an INA226 may be a clone, whose IDs differ; an INA237 need not have a
# device ID. The other chips declare their IDs.
_INA226_IDS = (Word(0xFE, TEXAS_INSTRUMENTS), Word(0xFF, 0x2260, 0xFFF0))
_INA237_IDS = (Word(0x3E, TEXAS_INSTRUMENTS), Word(0x3F, 0x2370, 0xFFF0))

# MODE, bits 2-0 of the configuration (0x00): 111 = current and bus voltage, continuously. In an INA3221 bits 14-12
# switch inputs 1-3 on.
_CONTINUOUSLY = ((Word(0x00, 0b111, 0b111),),)
_CONTINUOUSLY_BY_INPUT = tuple((Word(0x00, on | 0b111, on | 0b111),) for on in (1 << 14, 1 << 13, 1 << 12))
# The same, with ADCRANGE, bit 12, at its power-on value of +-81.92 mV.
_INA234_CONTINUOUSLY = ((Word(0x00, 0b111, 1 << 12 | 0b111),),)
# MODE, bits 15-12 of the ADC configuration (0x01): 1x11 = bus and shunt voltage, continuously; with ADCRANGE, bit 4 of
# the configuration (0x00), at its power-on value of +-163.84 mV.
_INA228_CONTINUOUSLY = ((Word(0x01, 0xB000, 0xB000), Word(0x00, 0, 1 << 4)),)


def _by_id(part: str, ids: tuple[Word, ...], measuring: tuple[tuple[Word, ...], ...]) -> Signature:
    """The die ID comes before the manufacturer ID, which many other chips share."""
    return Signature(part, part.lower(), ids[::-1], _BY_ID, is_sure=True, has_id=True, measuring=measuring)


def _by_manufacturer(part: str, chip: str, configuration: Word, measuring: tuple[tuple[Word, ...], ...]) -> Signature:
    """A chip with a manufacturer ID alone, which comes last: few other chips hold such a configuration."""
    words = (configuration, Word(0x3E, TEXAS_INSTRUMENTS))
    return Signature(part, chip, words, _BY_MANUFACTURER, is_sure=False, has_id=True, measuring=measuring)


def _by_configuration(part: str, chip: str, words: tuple[Word, ...], proof: str) -> Signature:
    """A chip without an ID; any other chip may happen to hold the same words."""
    return Signature(part, chip, words, proof, is_sure=False, has_id=False, measuring=_CONTINUOUSLY)


# Bits 14-13 of the configuration of INA232, INA234 and INA236 always read 10 (SBOSAA2, section 7.6.1). In that of the
# INA228 family, no host can set bits 15 and 14 for good, nor bits 3-0 (SBOSA20, section 7.6.1).
_INA232_LAYOUT = Word(0x00, 0x4000, 0xE000)
_INA237_LAYOUT = Word(0x00, 0x0000, 0xC00F)

_INA219 = "INA219 or INA220"
_LIKE_INA237 = "INA237 or INA700"
_LIKE_INA226 = "INA230, INA231 or a clone of INA226"

SIGNATURES = (
    _by_id("INA260", ina260.Chip.sure_ids[::-1], _CONTINUOUSLY),
    _by_id("INA3221", ina3221.Chip.ids, _CONTINUOUSLY_BY_INPUT),
    _by_id("INA226", _INA226_IDS, _CONTINUOUSLY),
    _by_id("INA228", ina228.Chip.ids, _INA228_CONTINUOUSLY),
    _by_id("INA237", _INA237_IDS, _INA228_CONTINUOUSLY),
    _by_id("INA238", ina238.Chip.ids, _INA228_CONTINUOUSLY),
    _by_id("INA234", ina234.Chip.ids, _INA234_CONTINUOUSLY),
    _by_id("INA236", ina236.Chip.ids, _INA234_CONTINUOUSLY),
    # No device ID, according to the datasheets (SBOSAA2 INA232; SBOSA20 INA237; SBOSAB4A INA700).
    _by_manufacturer("INA232", "ina232", _INA232_LAYOUT, _INA234_CONTINUOUSLY),
    _by_manufacturer(_LIKE_INA237, "ina237", _INA237_LAYOUT, _INA228_CONTINUOUSLY),
    # These have no ID (SBOS448 INA219; SBOS644 INA231; SBOS601 leaves the die ID of an INA230 open).
    _by_configuration(_INA219, "ina219", (Word(0x00, 0x399F),), _BY_POWER_ON),
    # Common to every configuration that ina219.py writes: bits 15-14 zero, BRNG and PGA at their widest, bits 10 and 6
    # set.
    _by_configuration(_INA219, "ina219", (Word(0x00, 0x3C47, 0xFC47),), _BY_OUR_SETUP),
    # What an INA226 can do, these can do, except that an INA231 ends at 28 V.
    _by_configuration(_LIKE_INA226, "ina226", (Word(0x00, 0x4127),), _BY_POWER_ON),
    # Common to every configuration that _ina226_family.py writes; the calibration is the same in all.
    _by_configuration(_LIKE_INA226, "ina226", (Word(0x00, 0x4007, 0xF007), Word(0x05, 0x0700)), _BY_OUR_SETUP),
)

WITH_ID = tuple(signature for signature in SIGNATURES if signature.has_id)


def identify(read: ReadWord, signatures: Iterable[Signature] = SIGNATURES) -> Signature | None:
    """The signature of the chip at one of `ADDRESSES`; None if none matches. Raises what `read` raises."""
    words: dict[int, int | None] = {}

    def matches(word: Word) -> bool:
        if word.register not in words:
            words[word.register] = read(word.register)
        found = words[word.register]
        return found is not None and word.matches(found)

    return next((signature for signature in signatures if all(map(matches, signature.words))), None)


def refuse_another_kind(chip: I2CChip, names: Container[str] = ()) -> None:
    """Refuse the chip just identified if its IDs are those of a chip whose file is none of `names`.

    Raises:
        OSError: a transaction failed.
        SensorError: it is another kind of chip.
    """
    signature = identify(chip.read_word, WITH_ID)
    if signature is not None and signature.chip not in names:
        raise SensorError(f"not an {chip}: its registers identify it as an {signature.part}")
