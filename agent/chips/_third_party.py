"""Chips of other packages: the entry points of the group `wattpush.chips`, by their names in the configuration.

A mistake of such a package, in what it declares at the start or does later, is an error with its name. Its own devices
then fail, and all others are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, cast

from agent import entry_points
from agent.chips._declared import checked, mistakes, mistakes_of_a_chip
from agent.errors import AgentError, SensorError
from agent.i2c.place import Place
from agent.settings import Device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agent.chips._base import I2CChip, Measurement
    from agent.entry_points import Addition
    from agent.settings import ChipOptions

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
    _refuse(mistakes(name, options, chip), addition)
    offered = ThirdPartyChip(cast("ChipOptions", options), _contained(cast("type[I2CChip]", chip), addition))
    _refuse(mistakes_of_a_chip(_made(offered)), addition)
    return offered


def _refuse(found: Iterator[str], addition: Addition) -> None:
    """Raise a ConfigError for the first of these mistakes, or for one that hides them."""
    try:
        mistake = next(found, None)
    except Exception as error:
        raise addition.unusable("what its Chip declares cannot be read", error) from error
    if mistake is not None:
        raise addition.unusable(mistake)


def _made(offered: ThirdPartyChip) -> I2CChip:
    """A chip as a run makes it. Raises ConfigError."""
    options = offered.options
    assert options.addresses is not None  # noqa: S101 - `mistakes` has refused it
    device = Device(
        name=options.chip,
        chip=options.chip,
        place=Place(0, None, None, options.addresses[0]),
        input=options.inputs[0] if options.inputs else None,
        shunt_ohms=_TRIAL_OHMS if options.external_shunt else None,
    )
    return offered.chip((device,), _TRIAL_INTERVAL_SECONDS)


def _contained(chip: type[I2CChip], addition: Addition) -> type[I2CChip]:
    """A subclass whose mistakes name the package: as a ConfigError where it is made, and then as SensorErrors."""

    def make(self: I2CChip, devices: Sequence[Device], sample_interval_seconds: float) -> None:
        try:
            chip.__init__(self, devices, sample_interval_seconds)
        except (Exception, SystemExit) as error:
            raise addition.unusable("its Chip cannot be made", error) from error

    def decode(self: I2CChip, words: Sequence[int]) -> tuple[Measurement | SensorError, ...]:
        return checked(self, chip.decode(self, words))

    methods = {
        name: _catching(getattr(chip, name), name, addition)
        for name in ("identify", "set_canary", "configure", "is_converted", "adopt")
    }
    members: dict[str, Any] = {**methods, "__init__": make, "decode": _catching(decode, "decode", addition)}
    contained: Any = type(chip.__name__, (chip,), members)

    def computed(self: I2CChip) -> object:
        return super(contained, self).computed

    contained.computed = property(_catching(computed, "computed", addition))
    return cast("type[I2CChip]", contained)


def _catching(method: Callable[..., Any], name: str, addition: Addition) -> Callable[..., Any]:
    @wraps(method)
    def caught(self: I2CChip, *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except (AgentError, OSError):
            raise
        except (Exception, SystemExit) as error:
            mistake = entry_points.describe_mistake(error)
            raise SensorError(f"{self}: {addition} fails in {name}: {mistake}; report it there") from error

    return caught
