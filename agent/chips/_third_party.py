"""Chips of other packages: the entry points of the group `wattpush.chips`, by their names in the configuration.

A mistake of such a package, in what it declares at the start or does later, is an error with its name. Its own devices
then fail, and all others are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, cast

from agent import entry_points
from agent.chips._base import ExpectedBits, I2CChip, Measurement, PowerRegister
from agent.errors import AgentError, ConfigError, SensorError
from agent.i2c.place import Place
from agent.i2c.transfers import Register
from agent.settings import ChipOptions, Device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agent.entry_points import Addition

_ADDRESSES = range(0x08, 0x78)
"""Those that the I2C specification does not reserve (NXP UM10204, section 3.1.12)."""

# Any values do: a chip is made to see what it declares.
_TRIAL_INTERVAL_SECONDS = 1.0
_TRIAL_OHMS = 0.1


@dataclass(frozen=True, slots=True)
class ThirdPartyChip:
    """A chip of another package.

    Attributes:
        options: the configuration keys that it accepts.
        chip: its class, whose mistakes are errors of its devices.
    """

    options: ChipOptions
    chip: type[I2CChip]


@cache
def find(name: str) -> ThirdPartyChip:
    """The chip that an installed package adds under this name.

    Raises:
        KeyError: no package adds it.
        ConfigError: a package does, but it cannot be used.
    """
    addition = entry_points.find(entry_points.CHIPS, name)
    options, chip = getattr(addition.module, "OPTIONS", None), getattr(addition.module, "Chip", None)
    if (mistake := next(_mistakes(name, options, chip), None)) is not None:
        raise addition.unusable(mistake)
    offered = ThirdPartyChip(cast("ChipOptions", options), _contained(cast("type[I2CChip]", chip), addition))
    made = _made(offered)
    try:
        mistake = next(_mistakes_of_a_chip(made), None)
    except Exception as error:
        raise addition.unusable("what its Chip declares cannot be read", error) from error
    if mistake is not None:
        raise addition.unusable(mistake)
    return offered


def _mistakes(name: str, options: object, chip: object) -> Iterator[str]:
    """What is wrong with the two names that the module of a package offers."""
    if not isinstance(options, ChipOptions):
        yield "its module has no OPTIONS, a ChipOptions"
    elif options.chip != name:
        yield f'its OPTIONS.chip is "{options.chip}"'
    elif options.addresses is None:
        yield "its OPTIONS have no addresses, and only chips on I2C may come from a package"
    elif not options.addresses or not all(address in _ADDRESSES for address in options.addresses):
        yield "its OPTIONS.addresses are not within 0x08..0x77"
    elif options.averaging is None:
        yield "its OPTIONS have no averaging"
    elif not isinstance(chip, type) or not issubclass(chip, I2CChip):
        yield "its module has no Chip, a subclass of I2CChip"
    else:
        yield from _mistakes_of_a_class(chip, options)


def _mistakes_of_a_class(chip: type[I2CChip], options: ChipOptions) -> Iterator[str]:
    if getattr(chip, "options", None) != options:
        yield "its Chip.options are not its OPTIONS"
    elif chip.__abstractmethods__:
        yield f"its Chip lacks {' and '.join(sorted(chip.__abstractmethods__))}"
    elif not isinstance(getattr(chip, "highest_volts", None), (int, float)):
        yield "its Chip has no highest_volts"
    elif chip.status is None and chip.is_converted is I2CChip.is_converted:
        yield "its Chip has neither status nor is_converted of its own"


def _made(offered: ThirdPartyChip) -> I2CChip:
    """A chip as a run makes it. Raises ConfigError."""
    options = offered.options
    assert options.addresses is not None  # noqa: S101 - by `_mistakes`
    device = Device(
        name=options.chip,
        chip=options.chip,
        place=Place(0, None, None, options.addresses[0]),
        input=options.inputs[0] if options.inputs else None,
        shunt_ohms=_TRIAL_OHMS if options.external_shunt else None,
    )
    return offered.chip((device,), _TRIAL_INTERVAL_SECONDS)


def _mistakes_of_a_chip(chip: I2CChip) -> Iterator[str]:
    """What a chip declares that a sweep could not use."""
    if not _are(getattr(chip, "results", ()), Register) or not chip.results:
        yield "its Chip.results are not registers"
    elif not _are(chip.counter_registers, Register):
        yield "its Chip.counter_registers are not registers"
    elif not _are(chip.configuration, ExpectedBits) or not chip.configuration:
        yield "its configuration_words are not ExpectedBits"
    elif not 0.0 < chip.conversion_seconds < math.inf:
        yield "its conversion_seconds are not a time"
    elif not _is_power(chip.power):
        yield "its Chip.power is no PowerRegister"


def _are(values: object, kind: type) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, kind) for value in values)


def _is_power(value: object) -> bool:
    return value is None or isinstance(value, PowerRegister)


def _contained(chip: type[I2CChip], addition: Addition) -> type[I2CChip]:
    """A subclass whose mistakes name the package: as a ConfigError where it is made, and then as SensorErrors."""

    def make(self: I2CChip, devices: Sequence[Device], sample_interval_seconds: float) -> None:
        try:
            chip.__init__(self, devices, sample_interval_seconds)
        except ConfigError:
            raise
        except Exception as error:
            raise addition.unusable("its Chip cannot be made", error) from error

    def decode(self: I2CChip, words: Sequence[int]) -> tuple[Measurement | SensorError, ...]:
        return _checked(self, chip.decode(self, words))

    methods = {
        name: _catching(getattr(chip, name), name, addition)
        for name in ("identify", "set_canary", "configure", "is_converted", "adopt")
    }
    members: dict[str, Any] = {**methods, "__init__": make, "decode": _catching(decode, "decode", addition)}
    contained: Any = type(chip.__name__, (chip,), members)

    def power(self: I2CChip) -> object:
        return super(contained, self).power

    contained.power = property(_catching(power, "power", addition))
    return cast("type[I2CChip]", contained)


def _catching(method: Callable[..., Any], name: str, addition: Addition) -> Callable[..., Any]:
    @wraps(method)
    def caught(self: I2CChip, *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except (AgentError, OSError):
            raise
        except Exception as error:
            mistake = entry_points.describe_mistake(error)
            raise SensorError(f"{self}: {addition} fails in {name}: {mistake}; report it there") from error

    return caught


def _checked(chip: I2CChip, decoded: Sequence[object]) -> tuple[Measurement | SensorError, ...]:
    """Raise TypeError or ValueError unless these are a finite measurement or an error for each device."""
    for one in decoded:
        is_measured = isinstance(one, Measurement) and math.isfinite(one.volts) and math.isfinite(one.amperes)
        if not is_measured and not isinstance(one, SensorError):
            raise ValueError(f"{one!r} is no measurement")
    if len(decoded) != len(chip.devices):
        raise ValueError(f"{len(decoded)} measurements of {len(chip.devices)} devices")
    return cast("tuple[Measurement | SensorError, ...]", tuple(decoded))
