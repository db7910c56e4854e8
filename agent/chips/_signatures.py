"""How power monitors are told apart without configuring any: a row for each, also for those that wattpush cannot read.

A register is read by writing its number, which some other chip at these addresses may take for a command: 0xFE resets
a Si7021 at 0x40. So what tells most comes first, and the next register is read only if the one before it fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    ReadWord = Callable[[int], int | None]
    """Reads a register of two bytes by its number; None if the chip does not acknowledge it. Raises OSError."""

ADDRESSES = range(0x40, 0x50)
"""Where all of them sit: the straps A0 and A1 select one of these, of four on an INA3221."""


@dataclass(frozen=True, slots=True)
class Word:
    """What the bits under a mask of a register are."""

    register: int
    value: int
    mask: int = 0xFFFF


@dataclass(frozen=True, slots=True)
class Identity:
    """A kind of power monitor.

    Attributes:
        part: its name in the datasheet; several, where nothing in them differs.
        chip: what its file in this folder is called, or will be.
        words: what its registers hold; all have to fit, and they are read in this order.
        proof: what that rests on.
        is_sure: whether it can hardly be anything else.
        measuring: for each input, what the registers hold while the results of `decode` are measured over and over: a
            chip that is switched off goes on showing its last result. Empty where nobody decodes it yet.
    """

    part: str
    chip: str
    words: tuple[Word, ...]
    proof: str
    is_sure: bool
    measuring: tuple[tuple[Word, ...], ...] = ()


_BY_ID = "manufacturer and die ID"
_BY_POWER_ON = "no ID; its configuration is that of power-on"
_BY_OUR_SETUP = "no ID; its configuration is one that wattpush writes"

# Die ID (0xFF): bits 15-4 device, 3-0 revision; manufacturer ID (0xFE): "TI" (SBOS656 and SBOS547, section "Register
# maps"; SBOS576, section 8.6.2). Device ID (0x3F) and manufacturer ID (0x3E) of the newer ones: SLYS021 (INA228),
# SLYS024 (INA237), SLYS025 (INA238).
_OLDER_MAKER = Word(0xFE, 0x5449)
_NEWER_MAKER = Word(0x3E, 0x5449)

# MODE, bits 2-0 of the configuration (0x00): 111 = current and bus voltage, continuously. In an INA3221 bits 14-12
# switch inputs 1-3 on.
_CONTINUOUSLY = Word(0x00, 0b111, 0b111)
# MODE, bits 15-12 of the ADC configuration (0x01): 1x11 = bus and shunt voltage, continuously; with ADCRANGE, bit 4 of
# the configuration (0x00), at its power-on value of +-163.84 mV.
_NEWER_CONTINUOUSLY = (Word(0x01, 0xB000, 0xB000), Word(0x00, 0, 1 << 4))

# What ina219.py writes, whatever it averages: bits 15-14 zero, BRNG and PGA at their widest, bits 10 and 6 of averages.
_SET_UP_INA219 = Word(0x00, 0x3C47, 0xFC47)

IDENTITIES = (
    Identity("INA260", "ina260", (Word(0xFF, 0x2270, 0xFFF0), _OLDER_MAKER), _BY_ID, True, ((_CONTINUOUSLY,),)),
    Identity(
        "INA3221",
        "ina3221",
        (Word(0xFF, 0x3220), _OLDER_MAKER),
        _BY_ID,
        True,
        tuple((Word(0x00, enabled | 0b111, enabled | 0b111),) for enabled in (1 << 14, 1 << 13, 1 << 12)),
    ),
    Identity("INA226", "ina226", (Word(0xFF, 0x2260, 0xFFF0), _OLDER_MAKER), _BY_ID, True, ((_CONTINUOUSLY,),)),
    Identity("INA228", "ina228", (Word(0x3F, 0x2280, 0xFFF0), _NEWER_MAKER), _BY_ID, True, (_NEWER_CONTINUOUSLY,)),
    Identity("INA237", "ina237", (Word(0x3F, 0x2370, 0xFFF0), _NEWER_MAKER), _BY_ID, True, (_NEWER_CONTINUOUSLY,)),
    Identity("INA238", "ina238", (Word(0x3F, 0x2380, 0xFFF0), _NEWER_MAKER), _BY_ID, True, (_NEWER_CONTINUOUSLY,)),
    # These do not say what they are (SBOS448 INA219; SBOS644 INA231; SBOS601 leaves the die ID of an INA230 open).
    Identity("INA219 or INA220", "ina219", (Word(0x00, 0x399F),), _BY_POWER_ON, False, ((_CONTINUOUSLY,),)),
    Identity("INA219 or INA220", "ina219", (_SET_UP_INA219,), _BY_OUR_SETUP, False, ((_CONTINUOUSLY,),)),
    Identity("INA230 or INA231", "ina230", (Word(0x00, 0x4127),), _BY_POWER_ON, False, ((_CONTINUOUSLY,),)),
)


def identify(read: ReadWord, identities: Iterable[Identity] = IDENTITIES) -> Identity | None:
    """What answers at an address of `ADDRESSES`; None for something else. Raises what `read` raises."""
    words: dict[int, int | None] = {}

    def fits(word: Word) -> bool:
        if word.register not in words:
            words[word.register] = read(word.register)
        found = words[word.register]
        return found is not None and found & word.mask == word.value

    return next((identity for identity in identities if all(map(fits, identity.words))), None)
