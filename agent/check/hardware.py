"""Checks that every mux, chip and kernel-owned sensor of the configuration is there, and alone at its address.

Nothing is configured: muxes are switched, and closed again as a run does, and registers are read. The bus is released
after each chip, so that a running service keeps its turn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent import chips
from agent.check import Finding, Status, failed, mux_kinds, ok, warning
from agent.check.kernel_chips import check_kernel_chips
from agent.check.measurements import low_side_warning, shown
from agent.check.shared_address import refuse_shared_address
from agent.chips import ExpectedBits
from agent.errors import AgentError, BusError, SensorError
from agent.i2c import hints
from agent.i2c.failures import describe, is_nack, is_time_out
from agent.i2c.muxes import CLOSED
from agent.i2c.place import TRUNK, Hop, bus_path
from agent.i2c.sysfs import usb_port
from agent.log import counted
from agent.measure.computed_check import ContradictionError, refuse_contradiction
from agent.measure.identify import identify
from agent.measure.session import CONVERSION_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from agent.chips import I2CChip, KernelChip, Measurement
    from agent.i2c.bus import Bus
    from agent.i2c.place import Mux, Place
    from agent.i2c.transfers import I2C
    from agent.settings import ConfiguredChip, Device, Settings

_SCAN = "wattpush scan shows what answers where"


def check_hardware(
    settings: Settings,
    buses: Sequence[Bus],
    open_kernel_chip: Callable[[Sequence[Device]], KernelChip],
    sysfs: Path = Path("/sys"),
) -> Iterator[Finding]:
    """Check everything that the configuration names: a finding for each bus, mux and device.

    Args:
        settings: the expected hardware.
        buses: those that its devices are on; they are left closed.
        open_kernel_chip: makes the reader of a chip that the kernel reads, for its devices.
        sysfs: where the kernel names its adapters.
    """
    for bus in buses:
        muxes = [mux for mux in settings.muxes if mux.bus == bus.name]
        chips = [chip for chip in settings.chips() if chip.place.bus == bus.name]
        try:
            yield from _check_bus(bus, muxes, chips, settings.sample_interval_seconds, sysfs)
        finally:
            bus.close()
    names = [bus.name for bus in buses]
    for mux in settings.muxes:
        if mux.bus not in names:
            yield warning(f"mux {mux.name}", "skipped: no device is on its bus", "remove it, or add a device")
    yield from check_kernel_chips(settings, open_kernel_chip)


def _check_bus(
    bus: Bus,
    muxes: Sequence[Mux],
    chips: Sequence[ConfiguredChip],
    sample_interval_seconds: float,
    sysfs: Path,
) -> Iterator[Finding]:
    try:
        with bus.session():
            number = bus.number
    except AgentError as error:
        count = sum(len(chip.devices) for chip in chips)
        unseen = f"its {counted(count, 'device')} could not be checked"
        yield failed("bus", error, unseen)
        return
    yield ok("bus", f"{bus_path(bus.name)} opened and locked{_adapter(number, sysfs)}")
    yield from _numbered_usb_adapter(bus)
    failed_muxes: set[str] = set()
    for mux in muxes:
        finding = _check_mux(bus, mux, _places_behind(mux, muxes, chips), failed_muxes)
        if finding.exit_code:
            failed_muxes.add(mux.name)
        yield finding
    for chip in chips:
        behind = [] if chip.place.mux is None else _places_behind(chip.place.mux, muxes, chips)
        yield from _check_chip(bus, chip, behind, sample_interval_seconds, failed_muxes)


def _places_behind(mux: Mux, muxes: Iterable[Mux], chips: Iterable[ConfiguredChip]) -> list[Place]:
    """The places of the parts that are directly behind a mux."""
    places = [*(chip.place for chip in chips), *(other.place for other in muxes)]
    return [place for place in places if place.mux == mux]


def _check_mux(bus: Bus, mux: Mux, behind: Sequence[Place], failed_muxes: set[str]) -> Finding:
    """Write control bytes and read them back: a mux has no ID."""
    name, place, chip = f"mux {mux.name}", mux.place, mux.kind.part
    if place.mux is not None and place.mux.name in failed_muxes:
        return _behind(name, place.mux)
    channels = sorted({place.channel for place in behind if place.channel is not None}) or [0]
    channel = None
    try:
        with bus.session():
            port = bus.driver_port(TRUNK)
            for channel in channels:
                bus.select((*place.path, Hop(mux, channel)))
                _expect_control_byte(bus, port, mux, mux.kind.control_byte(channel))
            # Selecting the segment that the mux is on closes it.
            bus.select(place.path)
            _expect_control_byte(bus, port, mux, CLOSED)
            channel = None
            mux_kinds.refuse_more_bits(bus, mux)
            mux_kinds.refuse_other_connections(bus, mux, behind)
    except AgentError as error:
        return failed(name, error)
    except OSError as error:
        reason = describe(error)
        if is_time_out(error) and channel is not None:
            reason += f" since channel {channel} was opened; {hints.of_held_channel()}"
        return failed(name, SensorError(f"{chip} at {place} cannot be read: {reason}"))
    shown = ", ".join(map(str, channels))
    return ok(name, f"{chip} at {place}: opens channel{'s' if ',' in shown else ''} {shown}, and closes")


def _expect_control_byte(bus: Bus, port: I2C, mux: Mux, written: int) -> None:
    found = bytearray(1)
    port.readfrom_into(mux.address, found)
    if not mux.kind.returns(found[0], written):
        mux_kinds.refuse(bus, mux, written, found[0])


def _check_chip(
    bus: Bus,
    configured: ConfiguredChip,
    behind: Sequence[Place],
    sample_interval_seconds: float,
    failed_muxes: set[str],
) -> list[Finding]:
    """Check one chip; `behind` are the places of all parts that are directly behind its mux."""
    place, devices = configured.place, configured.devices
    for hop in place.path:
        if hop.mux.name in failed_muxes:
            return [_behind(device.name, hop.mux) for device in devices]
    name = f"{devices[0].chip.upper()} at {place}"
    try:
        with bus.session():
            try:
                bus.refuse_kernel_owned(place.address)
            except BusError as error:
                return [failed(device.name, error, _kernel_hint(bus, place)) for device in devices]
            refuse_shared_address(bus, place)
        chip = chips.i2c_chip(devices[0].chip)(devices, sample_interval_seconds)
        try:
            found, results = _read_chip(bus, chip, name)
        except ContradictionError:
            # They may be results from before a run configured the chip: those of the next conversion count.
            bus.pause(chip.conversion_seconds * CONVERSION_TOLERANCE)
            found, results = _read_chip(bus, chip, name)
    except ContradictionError as error:
        return [_contradiction(device, error) for device in devices]
    except AgentError as error:
        # An ID that was not acknowledged.
        is_silent = isinstance(error.__cause__, OSError) and is_nack(error.__cause__)
        hint = (mux_kinds.hint_for_silent(bus, place, behind) or _SCAN) if is_silent else ""
        return [failed(device.name, error, hint) for device in devices]
    except OSError as error:
        silent = SensorError(f"no {name}: {describe(error)}; {hints.of_silent_chip(place, error)}")
        return [failed(device.name, silent) for device in devices]
    return [_finding(device, name, chip, found, result) for device, result in zip(devices, results, strict=True)]


def _read_chip(bus: Bus, chip: I2CChip, name: str) -> tuple[tuple[int, ...], tuple[Measurement | SensorError, ...]]:
    """What the configuration registers of a chip hold, and what it measures; raises AgentError, OSError."""
    with bus.session():
        found = identify(bus, chip, name)
        refuse_contradiction(bus, chip, name)
        return found, chip.decode(bus.read(chip.place.address, chip.results))


def _contradiction(device: Device, error: ContradictionError) -> Finding:
    if error.is_sure:
        return failed(device.name, error)
    return warning(device.name, str(error), "the log of a run says which it is")


def _finding(
    device: Device, name: str, chip: I2CChip, found: tuple[int, ...], result: Measurement | SensorError
) -> Finding:
    """Show only the numbers that the chip's present configuration makes valid."""
    if isinstance(result, SensorError):
        return failed(device.name, result)
    is_ours = all(map(ExpectedBits.is_written, chip.configuration, found))
    is_power_on = all(map(ExpectedBits.is_power_on, chip.configuration, found))
    if is_ours or is_power_on:
        warned = low_side_warning(device, name, result)
        if warned is not None:
            return warned
    if is_ours and result.volts == 0:
        return warning(
            device.name, f"{name}: reads 0 V", "is the rail on, and the chip's bus voltage pin on the load's side?"
        )
    if is_ours:
        return ok(device.name, f"{name}: {shown(result)}, configured for a run")
    if is_power_on:
        return ok(device.name, f"{name}: {result.volts:.3f} V, in its power-on state; a run will configure it")
    expected, word = next(
        pair for pair in zip(chip.configuration, found, strict=True) if not pair[0].is_written(pair[1])
    )
    return ok(
        device.name,
        f"{name}: holds configuration 0x{word:04x} (register 0x{expected.register.number:02x}); "
        f"a run will write 0x{expected.written:04x}",
    )


def _behind(what: str, mux: Mux) -> Finding:
    """The exit code is that of the mux; the line of the mux says how to fix it."""
    return failed(what, SensorError(f"skipped: mux {mux.name}, which it is behind, failed (see above)"))


def _kernel_hint(bus: Bus, place: Place) -> str:
    """How to read the chip through the kernel, or to take it from the kernel; the error itself may have said that."""
    owner = bus.kernel_owner(place.address)
    if owner is None or owner.is_unread:
        return ""
    chip = f"/sys/bus/i2c/devices/{owner.client}"
    return (
        f'for chip = "hwmon", set sensor = "{chip}"; '
        f"to unbind it (never on a Jetson module, which uses its chips to limit its own current): "
        f"echo {owner.client} | sudo tee {chip}/driver/unbind"
    )


def _adapter(number: int | None, sysfs: Path) -> str:
    """The kernel's name of the adapter, if it can be read."""
    try:
        return f", {(sysfs / 'bus/i2c/devices' / f'i2c-{number}' / 'name').read_text(encoding='utf-8').strip()}"
    except (OSError, UnicodeDecodeError):
        return ""


def _numbered_usb_adapter(bus: Bus) -> Iterator[Finding]:
    """A note for a USB adapter that the configuration names by a number."""
    port = usb_port(bus.adapter or "")
    if port is not None:
        yield Finding(
            Status.NOTE,
            "bus",
            f"{bus_path(bus.name)} is a USB adapter, whose number depends on the order of plugging in",
            "to name it by its port, write this line into /etc/udev/rules.d/61-wattpush-i2c.rules: "
            f'SUBSYSTEM=="i2c-dev", KERNELS=="{port}", SYMLINK+="i2c-rack" and plug it in again; '
            'then set bus = "/dev/i2c-rack"',
        )
