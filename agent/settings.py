"""The configuration as frozen values, with units in their names and defaults. `config/` reads them from a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.i2c.place import Mux, Place

ALL_RAILS = "all"
"""The `rail` that is the sum of all rails of a board that measures itself."""

CHIP_ALIASES = {"ina220": "ina219"}
"""Other names of a chip that has the same registers, and its name."""


@dataclass(frozen=True, slots=True)
class AveragingChoices:
    """The averaging that a chip supports: counts and conversion times, each indexed by its register code."""

    counts: tuple[int, ...]
    conversion_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ChipOptions:
    """The configuration keys that a chip accepts; each file in `chips/` declares them for its chip.

    Attributes:
        chip: the name in `chip = "..."`.
        addresses: the 7-bit addresses that its straps allow, in order; None if the kernel owns the chip.
        inputs: the values that `input` may take; None if the chip has a single input.
        external_shunt: whether the shunt is on the board, so that `shunt_ohms` is required.
        averaging: the choices for `averaging`; None if the key does not apply.
        rails_without_current: the rails of a board that measures itself whose current it does not measure, so that
            `rail` cannot name them; None if the key does not apply.
    """

    chip: str
    addresses: Sequence[int] | None
    inputs: range | None = None
    external_shunt: bool = False
    averaging: AveragingChoices | None = None
    rails_without_current: tuple[str, ...] | None = None


def runs(addresses: Sequence[int]) -> list[range]:
    """Addresses in order, as runs without a gap."""
    found: list[range] = []
    for address in addresses:
        if found and address == found[-1].stop:
            found[-1] = range(found[-1].start, address + 1)
        else:
            found.append(range(address, address + 1))
    return found


@dataclass(frozen=True, slots=True)
class Averaging:
    """An averaging chosen by the user; `averaging = "auto"` is None instead."""

    count: int
    voltage_seconds: float
    current_seconds: float


@dataclass(frozen=True, slots=True)
class Device:
    """One measured load.

    Attributes:
        place: where its chip sits on I2C; None if the kernel owns the chip.
        input: 1-3 on a chip with several inputs.
        shunt_ohms: the shunt on the board, if the chip needs one.
        averaging: chosen by the user; None is "auto".
        sensor: the hwmon name, or its folder in sysfs, for a chip that the kernel owns.
        label: the hwmon label of the input, as an alternative to `input`.
        rail: the rail of a board that measures itself, or "all" for their sum.
    """

    name: str
    chip: str
    place: Place | None = None
    input: int | None = None
    shunt_ohms: float | None = None
    averaging: Averaging | None = None
    sensor: str | None = None
    label: str | None = None
    rail: str | None = None

    @property
    def source(self) -> str:
        """The chip and the input that measure it, as text."""
        where = (self.sensor if self.place is None else self.place.address_path, self.label, self.input, self.rail)
        return " ".join([self.chip, *(str(part) for part in where if part is not None)])


@dataclass(frozen=True, slots=True)
class ConfiguredChip:
    """A chip on I2C with the devices that are read from it, in the order of the configuration."""

    place: Place
    chip: str
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How to reach a server that we push to. A path is None if the file leaves it empty."""

    url: str
    timeout_seconds: float = 5.0
    username: str | None = None
    password_file: str | None = None
    bearer_token_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The files that a push reads."""
        files = (self.password_file, self.bearer_token_file, self.ca_file, self.cert_file, self.key_file)
        return tuple(file for file in files if file is not None)


@dataclass(frozen=True, slots=True)
class PushgatewaySettings(ConnectionSettings):
    """Where and how to push to a Pushgateway."""

    job: str = "power"
    group_by: Literal["device", "node"] = "device"
    delete_on_exit: bool = False


@dataclass(frozen=True, slots=True)
class RemoteWriteSettings(ConnectionSettings):
    """Where and how to keep history by remote write.

    Attributes:
        resolution: a row for each push interval, or for each sweep.
        max_backlog_bytes: on disk; beyond it the oldest is dropped.
        max_age_seconds: what is older is dropped.
        catch_up: how many times faster than real time a backlog is sent.
        clock: "system" trusts the clock as it is; else samples are dated once it is synchronised.
        headers: sent with every request, in addition to the usual ones.
    """

    job: str = "power"
    resolution: Literal["interval", "sample"] = "interval"
    max_backlog_bytes: int = 64_000_000
    max_age_seconds: float = 604_800.0
    catch_up: float = 20.0
    clock: Literal["synchronised", "system"] = "synchronised"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Where to answer scrapes, and which users.

    Attributes:
        cert_file: with `key_file`; None is plain HTTP.
        username: with `password_file`; None lets everyone in.
    """

    host: str
    port: int
    cert_file: str | None = None
    key_file: str | None = None
    username: str | None = None
    password_file: str | None = None


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """The optional series to publish."""

    extremes: bool = True
    charge: bool = False
    ina260_names: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole, valid configuration. One that is read from a file has a destination."""

    hostname: str
    devices: tuple[Device, ...]
    muxes: tuple[Mux, ...] = ()
    interval_seconds: float = 15.0
    sample_interval_seconds: float = 1.0
    max_gap_seconds: float = 600.0
    state_dir: Path | None = None
    pushgateway: PushgatewaySettings | None = None
    remote_write: RemoteWriteSettings | None = None
    serve: ServeSettings | None = None
    metrics: MetricsSettings = MetricsSettings()
    warnings: tuple[str, ...] = ()

    @property
    def has_destination(self) -> bool:
        """Whether it is pushed, kept as history or served: at least one of them, unless no file was read."""
        return any(each is not None for each in (self.pushgateway, self.remote_write, self.serve))

    def chips(self) -> tuple[ConfiguredChip, ...]:
        """The chips on I2C, in the order in which the configuration first names them."""
        devices_at: dict[Place, list[Device]] = {}
        for device in self.devices:
            if device.place is not None:
                devices_at.setdefault(device.place, []).append(device)
        return tuple(ConfiguredChip(place, devices[0].chip, tuple(devices)) for place, devices in devices_at.items())

    def parts_of_sums(self) -> frozenset[str]:
        """The devices whose power another device has too: the rails of a board beside their sum."""
        rails = {device.name: device.rail for device in self.devices if device.rail is not None}
        return frozenset(name for name, rail in rails.items() if rail != ALL_RAILS and ALL_RAILS in rails.values())

    def kernel_chips(self) -> tuple[tuple[Device, ...], ...]:
        """The devices of each chip that the kernel reads, in the order of the configuration.

        Each input of hwmon is a chip of its own; the rails of a board that measures itself are read together.
        """
        chips: dict[tuple[str, str], list[Device]] = {}
        for device in self.devices:
            if device.place is None:
                chips.setdefault((device.chip, "" if device.rail is not None else device.name), []).append(device)
        return tuple(map(tuple, chips.values()))
