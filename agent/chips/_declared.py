"""What the author of a chip in another package may have declared or measured wrong.

mypy would find most of it, but not every author uses it; so nothing here takes a declared type for granted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from agent.chips._base import ComputedRegister, ExpectedBits, HardwareCounters, I2CChip, Measurement, Word
from agent.errors import SensorError
from agent.i2c.transfers import Register
from agent.settings import AveragingChoices, ChipOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_ADDRESSES = range(0x08, 0x78)
"""Those that the I2C specification does not reserve (NXP UM10204, section 3.1.12)."""

# A pointer has one byte, and a register that is written has two.
_POINTERS = range(0x100)
_WORDS = range(0x10000)
_LENGTHS_BYTES = range(1, 9)


def mistakes(name: str, options: object, chip: object) -> Iterator[str]:
    """What is wrong with the two names that the module of a package offers."""
    if not isinstance(options, ChipOptions):
        yield "its module has no OPTIONS, a ChipOptions"
    elif options.chip != name:
        yield f'its OPTIONS.chip is "{options.chip}"'
    elif options.addresses is None:
        yield "its OPTIONS have no addresses, and only chips on I2C may come from a package"
    elif not _is_a(options.addresses, range, tuple, list) or not options.addresses:
        yield "its OPTIONS.addresses are no addresses"
    elif not all(address in _ADDRESSES for address in options.addresses):
        yield "its OPTIONS.addresses are not within 0x08..0x77"
    elif not isinstance(options.averaging, AveragingChoices):
        yield "its OPTIONS have no averaging"
    elif options.inputs is not None and not (_is_a(options.inputs, range) and options.inputs):
        yield "its OPTIONS.inputs are no range"
    elif options.rails_without_current is not None:
        yield "its OPTIONS have rails_without_current, which only a chip without addresses has"
    elif not isinstance(chip, type) or not issubclass(chip, I2CChip):
        yield "its module has no Chip, a subclass of I2CChip"
    else:
        yield from _mistakes_of_a_class(chip, options)


def _mistakes_of_a_class(chip: type[I2CChip], options: ChipOptions) -> Iterator[str]:
    if getattr(chip, "options", None) != options:
        yield "its Chip.options are not its OPTIONS"
    elif chip.__abstractmethods__:
        yield f"its Chip lacks {' and '.join(sorted(chip.__abstractmethods__))}"
    elif not _is_finite(getattr(chip, "highest_volts", None)):
        yield "its Chip has no highest_volts"
    elif not (_is_finite(chip.full_scale_amperes) and _is_finite(chip.full_scale_shunt_volts)):
        yield "its Chip.full_scale_amperes or full_scale_shunt_volts are no number"
    elif chip.status is None and chip.is_converted is I2CChip.is_converted:
        yield "its Chip has neither status nor is_converted of its own"


def mistakes_of_a_chip(chip: I2CChip) -> Iterator[str]:
    """What a chip declares that a sweep could not use."""
    if not _are(getattr(chip, "results", ()), _is_register) or not chip.results:
        yield "its Chip.results are not registers"
    elif chip.status is not None and not _is_expected(chip.status):
        yield "its Chip.status is no ExpectedBits"
    elif not _is_a(chip.new_result, int):
        yield "its Chip.new_result is no bit"
    elif not _are(chip.counter_registers, _is_register):
        yield "its Chip.counter_registers are not registers"
    elif not _is_finite(chip.counter_lsbs_per_second):
        yield "its Chip.counter_lsbs_per_second are no number"
    elif not _are(chip.configuration, _is_expected) or not chip.configuration:
        yield "its configuration_words are not ExpectedBits"
    elif not 0.0 < chip.conversion_seconds < math.inf:
        yield "its conversion_seconds are not a time"
    elif not _is_computed(chip.computed):
        yield "its Chip.computed is no ComputedRegister"
    else:
        yield from _mistakes_of_its_identity(chip)


def _mistakes_of_its_identity(chip: I2CChip) -> Iterator[str]:
    if not _are(chip.ids, _is_id):
        yield "its Chip.ids are not Words"
    elif not _are(chip.sure_ids, _is_id):
        yield "its Chip.sure_ids are not Words"
    elif not _are_signature_names(chip.signature_names):
        yield "its Chip.signature_names are no frozenset of names"
    elif not _is_a(chip.part, str):
        yield "its Chip.part is no text"


def checked(chip: I2CChip, decoded: Sequence[object]) -> tuple[Measurement | SensorError, ...]:
    """Raise TypeError or ValueError unless these are a finite measurement or an error for each device."""
    for one in decoded:
        if not isinstance(one, SensorError) and not _is_measurement(one):
            raise ValueError(f"{one!r} is no measurement")
    if len(decoded) != len(chip.devices):
        raise ValueError(f"{len(decoded)} measurements of {len(chip.devices)} devices")
    return cast("tuple[Measurement | SensorError, ...]", tuple(decoded))


def _is_a(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds)


def _are(values: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(values, tuple) and all(map(fits, values))


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and 0.0 <= value < math.inf


def _are_signature_names(value: object) -> bool:
    return value is None or (isinstance(value, (set, frozenset)) and all(isinstance(name, str) for name in value))


def _is_register(value: object) -> bool:
    return isinstance(value, Register) and value.number in _POINTERS and value.length_bytes in _LENGTHS_BYTES


def _is_id(value: object) -> bool:
    return isinstance(value, Word) and value.register in _POINTERS and value.value in _WORDS and value.mask in _WORDS


def _is_expected(value: object) -> bool:
    if not isinstance(value, ExpectedBits) or not _is_register(value.register):
        return False
    return all(word in _WORDS for word in (value.written, value.power_on, value.bits))


def _is_computed(value: object) -> bool:
    if not isinstance(value, ComputedRegister):
        return value is None
    lsbs = (value.per_lsb, value.volts_per_lsb, value.amperes_per_lsb)
    unaveraged = () if value.unaveraged is None else (value.unaveraged,)
    return (
        _is_register(value.register)
        and value.quantity in {"power", "current"}
        and all(0.0 < lsb < math.inf for lsb in lsbs)
        and _are((*value.requires, *unaveraged), _is_expected)
    )


def _is_measurement(value: object) -> bool:
    # A product is finite only if both factors are.
    if not isinstance(value, Measurement) or not math.isfinite(value.volts * value.amperes):
        return False
    return value.hardware_counters is None or _are_counters(value.hardware_counters)


def _are_counters(value: object) -> bool:
    if not isinstance(value, HardwareCounters):
        return False
    energy_word, charge_word, *numbers = value
    return _is_a(energy_word, int) and _is_a(charge_word, int) and all(0.0 < number < math.inf for number in numbers)
