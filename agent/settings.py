"""The configuration as values: frozen, typed, with the units in the names. Nothing here reads or checks a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from agent.i2c.place import Mux, Place


@dataclass(frozen=True, slots=True)
class AveragingChoices:
    """What a chip can average: counts, and conversion times in seconds, each indexed by its register code."""

    counts: tuple[int, ...]
    conversion_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ChipOptions:
    """What the configuration may say of a kind of chip; each file in `chips/` declares its own.

    Attributes:
        chip: the name in `chip = "..."`.
        addresses: the 7-bit addresses that its straps allow; None for a chip that is not reached over I2C by us.
        inputs: the values that `input` may take; None for a chip with a single input and no such key.
        external_shunt: whether the shunt is on the board, so that `shunt_ohms` is required.
        averaging: what `averaging` may be; None where the key does not apply.
    """

    chip: str
    addresses: range | None
    inputs: range | None = None
    external_shunt: bool = False
    averaging: AveragingChoices | None = None


@dataclass(frozen=True, slots=True)
class Averaging:
    """An averaging that the user chose; `averaging = "auto"` is None instead."""

    count: int
    voltage_seconds: float
    current_seconds: float


@dataclass(frozen=True, slots=True)
class Device:
    """One measured load.

    Attributes:
        place: where its chip sits on I2C; None for a chip that the kernel owns.
        input: 1-3 on a chip with several inputs.
        shunt_ohms: the shunt on the board, for chips that need one.
        averaging: what the user chose; None is "auto".
        sensor: the hwmon name, or its folder in sysfs, for a chip that the kernel owns.
        label: the hwmon label of the input, as an alternative to `input`.
    """

    name: str
    chip: str
    place: Place | None = None
    input: int | None = None
    shunt_ohms: float | None = None
    averaging: Averaging | None = None
    sensor: str | None = None
    label: str | None = None

    @property
    def source(self) -> str:
        """Which input of which chip it is measured at."""
        where = (self.sensor if self.place is None else self.place.address_path, self.label, self.input)
        return " ".join([self.chip, *(str(part) for part in where if part is not None)])


@dataclass(frozen=True, slots=True)
class ConfiguredChip:
    """A chip on I2C with the devices that are read from it, in the order of the configuration."""

    place: Place
    chip: str
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class PushgatewaySettings:
    """Where and how to push. Empty paths of the file are None here."""

    url: str
    job: str = "power"
    group_by: Literal["device", "node"] = "device"
    timeout_seconds: float = 5.0
    username: str | None = None
    password_file: str | None = None
    bearer_token_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    delete_on_exit: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """The files that a push reads."""
        files = (self.password_file, self.bearer_token_file, self.ca_file, self.cert_file, self.key_file)
        return tuple(file for file in files if file is not None)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Where to answer scrapes."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Which optional series are made."""

    extremes: bool = True
    ina260_names: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration that has been found good. `pushgateway` or `serve` is there, or both."""

    hostname: str
    devices: tuple[Device, ...]
    muxes: tuple[Mux, ...] = ()
    interval_seconds: float = 15.0
    sample_interval_seconds: float = 1.0
    max_gap_seconds: float = 600.0
    state_dir: Path | None = None
    pushgateway: PushgatewaySettings | None = None
    serve: ServeSettings | None = None
    metrics: MetricsSettings = MetricsSettings()
    warnings: tuple[str, ...] = ()

    def chips(self) -> tuple[ConfiguredChip, ...]:
        """The chips on I2C, in the order in which the configuration first names them."""
        sharing: dict[Place, list[Device]] = {}
        for device in self.devices:
            if device.place is not None:
                sharing.setdefault(device.place, []).append(device)
        return tuple(ConfiguredChip(place, devices[0].chip, tuple(devices)) for place, devices in sharing.items())
