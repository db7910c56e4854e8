"""Writes a configuration for the results of a scan.

It works as it is, with comments that mark what to change or look up; or it has what a person has answered instead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.chips import rpi_pmic
from agent.config import escape
from agent.scan.muxes import proof
from agent.scan.results import ASSUMED_SHUNT_OHMS
from agent.settings import ALL_RAILS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agent.chips import Measurement
    from agent.chips.hwmon import PowerInput
    from agent.i2c.muxes import MuxKind
    from agent.i2c.place import Mux, Place
    from agent.scan.machine import MachineScan
    from agent.scan.results import FoundChip, FoundInput

_HEAD = """\
# Found by `wattpush scan --toml`. It works as it is, but three things are invisible on a bus: which load is which (the
# names below), the shunts on your boards (shunt_ohms), and where your gateway is (url).
# Then: wattpush check, and wattpush --once --dry-run. `wattpush config` shows every other key.

# The name of this machine at the gateway; the default is its hostname. Two machines with one name overwrite each other.
#hostname = "node-17"
{state_dir}
[pushgateway]
url = "http://127.0.0.1:9091"
"""

_ANSWERED_HEAD = """\
# Written by `wattpush init`. `wattpush config` shows every other key.
"""

# Exists where the service is installed; as in deploy/install.sh.
_SERVICE_STATE = Path("/var/lib/wattpush")

_NOTHING = """
# The scan found nothing that wattpush reads: describe at least one load here.
#[[device]]
#name = "cpu"
#chip = "ina260"
#bus = 1
#address = 0x40
"""

_SHUNT_COMMENT = "# read it on the resistor: R100 is 0.1, R050 is 0.05, R015 is 0.015, R010 is 0.01, R002 is 0.002"


@dataclass(frozen=True, slots=True)
class FoundDevice:
    """A device that can be made of what was found.

    Attributes:
        name: the one that the scan gives it, which no other has.
        words: what it is, and where it sits.
        chip: the name in `chip = "..."`.
        keys: the lines of its table that say where it is, without its name, chip and shunt.
        comments: the lines above its table in a configuration that is made without questions.
        measurement: what it reads now; None if it reads nothing meaningful.
        problem: why it reads nothing meaningful.
        found_chip: the chip on I2C; None if the kernel or the board reads it.
    """

    name: str
    words: str
    chip: str
    keys: tuple[str, ...]
    comments: tuple[str, ...]
    measurement: Measurement | None
    problem: str = ""
    found_chip: FoundChip | None = None

    @property
    def has_external_shunt(self) -> bool:
        """Whether its amperes are those of a shunt that is still unknown."""
        return self.found_chip is not None and self.found_chip.has_external_shunt


@dataclass(frozen=True, slots=True)
class ChosenDevice:
    """What a person says of a device that was found."""

    name: str
    chip: str
    shunt_ohms: float | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What a person says of what was found; see `wattpush init`.

    Attributes:
        devices: by the name that the scan gives; those that are missing are left out.
        muxes: the kind of each mux that may be of several, by its name.
        destination: the name of a table and its keys, all of them text.
        hostname: None for the machine's own.
    """

    devices: Mapping[str, ChosenDevice]
    muxes: Mapping[str, str]
    destination: tuple[str, Mapping[str, str]]
    hostname: str | None = None


def as_toml(found: MachineScan, answers: Answers | None = None) -> str:
    """The text of the configuration: with comments for a person to edit, or made from their answers."""
    # There is one set of counters, whichever user runs it: a second set would count the same energy again.
    state_dir = f'state_dir = "{_SERVICE_STATE}"\n' if _SERVICE_STATE.is_dir() else ""
    if answers is not None:
        return "\n".join([_answered_head(answers, state_dir), *_answered_parts(found, answers)])
    parts = [_HEAD.replace("{state_dir}\n", f"{state_dir}\n")]
    for scan in found.buses:
        parts += [_mux_table(mux, scan.lookalikes.get(mux.name, ())) for mux in scan.muxes]
    parts += [part if isinstance(part, str) else _commented_table(part) for part in _parts(found)]
    parts += [
        f"# 0x{owned.place.address:02x}: {owned.driver}: {owned.unread}\n"
        for scan in found.buses
        for owned in scan.kernel_owned
        if owned.unread
    ]
    if not found.has_devices:
        parts.append(_NOTHING)
    return "\n".join(parts)


def found_devices(found: MachineScan) -> list[FoundDevice]:
    """Every device that can be made of what was found, in the order of the file."""
    return [part for part in _parts(found) if isinstance(part, FoundDevice)]


def _parts(found: MachineScan) -> Iterator[FoundDevice | str]:
    """Devices, and comments on what can be none."""
    for scan in found.buses:
        for chip in scan.chips:
            yield from _chip_devices(chip)
    yield from _kernel_devices(found.kernel_inputs)
    yield from _board_device(found.board)


def _answered_head(answers: Answers, state_dir: str) -> str:
    hostname = "" if answers.hostname is None else f"hostname = {_quoted(answers.hostname)}\n"
    table, keys = answers.destination
    lines = [f"[{table}]", *(f"{key} = {_quoted(value)}" for key, value in keys.items())]
    return "\n".join([_ANSWERED_HEAD, *filter(None, [hostname + state_dir]), _lines(lines)])


def _answered_parts(found: MachineScan, answers: Answers) -> Iterator[str]:
    devices = [device for device in found_devices(found) if device.name in answers.devices]
    used = {device.found_chip.place.bus for device in devices if device.found_chip is not None}
    for mux in (mux for scan in found.buses for mux in scan.muxes if mux.bus in used):
        kind = answers.muxes.get(mux.name, mux.kind.name)
        yield _lines(["[[mux]]", f"name = {_quoted(mux.name)}", f"chip = {_quoted(kind)}", *_where(mux.place)])
    for device in devices:
        chosen = answers.devices[device.name]
        lines = ["[[device]]", f"name = {_quoted(chosen.name)}", f"chip = {_quoted(chosen.chip)}", *device.keys]
        if chosen.shunt_ohms is not None:
            lines.append(f"shunt_ohms = {chosen.shunt_ohms:.9g}")
        yield _lines(lines)


def _mux_table(mux: Mux, others: Sequence[MuxKind]) -> str:
    comment = f"   # {proof(mux.kind, others)}" if others else ""
    lines = ["[[mux]]", f"name = {_quoted(mux.name)}", f"chip = {_quoted(mux.kind.name)}{comment}"]
    return _lines([*lines, *_where(mux.place)])


def _commented_table(device: FoundDevice) -> str:
    lines = [f"# {comment}" for comment in device.comments]
    lines += ["[[device]]", f"name = {_quoted(device.name)}", f"chip = {_quoted(device.chip)}"]
    if device.found_chip is not None and not device.found_chip.signature.is_sure:
        signature = device.found_chip.signature
        lines[-1] += f"   # {signature.part}, or another chip: {signature.proof}"
    lines += device.keys
    if device.has_external_shunt:
        lines.append(f"shunt_ohms = {ASSUMED_SHUNT_OHMS:g}   {_SHUNT_COMMENT}")
    return _lines(lines)


def _chip_devices(chip: FoundChip) -> Iterator[FoundDevice | str]:
    part = chip.signature.part
    if not chip.inputs:
        yield f"# {part} at {chip.place}: wattpush does not read it.\n"
    for found in chip.inputs:
        name, words, keys = _name(chip.place), f"{part} at {chip.place}", _where(chip.place)
        if found.number is not None:
            name, words = f"{name}-in{found.number}", f"{words}, input {found.number}"
            keys.append(f"input = {found.number}")
        yield FoundDevice(
            name,
            words,
            chip.signature.chip,
            tuple(keys),
            (_reading(found),),
            found.measurement,
            found.problem or "",
            chip,
        )


def _reading(found: FoundInput) -> str:
    unused = " Nothing connected? Then delete this table." if found.number is not None else ""
    if found.measurement is None:
        return f"Reads no valid value now: {found.problem}.{unused}"
    return f"{_now(found.measurement)}{unused}"


def _now(measurement: Measurement) -> str:
    return f"Now {measurement.volts:.3f} V, {measurement.amperes:.4f} A."


def _kernel_devices(kernel_inputs: Iterable[tuple[PowerInput, Measurement | None]]) -> Iterator[FoundDevice | str]:
    found = list(kernel_inputs)
    inputs = [power_input for power_input, _ in found]
    names: set[str] = set()
    for power_input, measurement in found:
        title = power_input.label or f"in{power_input.number}"
        if not power_input.is_enabled:
            switch = f"{power_input.folder}/hwmon/hwmon*/in{power_input.number}_enable"
            yield f"# {power_input.name} {title!r} is switched off: echo 1 | sudo tee {switch}\n"
            continue
        short = f"{power_input.name}-{title}"
        longer = f"{short}-{power_input.folder.name}"
        name = next(name for name in (short, longer, f"{longer}-in{power_input.number}") if name not in names)
        names.add(name)
        unread = "cannot be read now"
        yield FoundDevice(
            name,
            f"{power_input.name} {title} ({power_input.folder.name}), read by the kernel",
            "hwmon",
            _kernel_keys(power_input, inputs),
            (f"Owned by the kernel. {f'{unread.capitalize()}.' if measurement is None else _now(measurement)}",),
            measurement,
            unread if measurement is None else "",
        )


def _kernel_keys(power_input: PowerInput, inputs: Sequence[PowerInput]) -> tuple[str, str]:
    """What selects an input and no other: several inputs of a chip may share a label, and several chips a name."""
    others = [other for other in inputs if other is not power_input]
    by_label = power_input.label is not None and not any(
        other.label == power_input.label for other in others if other.folder == power_input.folder
    )
    is_alone = not any(
        other.label == power_input.label if by_label else other.number == power_input.number
        for other in others
        if other.name == power_input.name
    )
    sensor = power_input.name if is_alone else str(power_input.folder)
    key = f"label = {_quoted(power_input.label or '')}" if by_label else f"input = {power_input.number}"
    return f"sensor = {_quoted(sensor)}", key


def _board_device(board: Mapping[str, Measurement]) -> Iterator[FoundDevice]:
    """One device, the sum; the rails in it stand in a comment."""
    total = board.get(ALL_RAILS)
    if total is not None:
        rails = ", ".join(rail for rail in board if rail != ALL_RAILS)
        comments = (
            f"This board itself, without its USB ports and HATs. {_now(total)}",
            f"One rail alone: {rails}.",
        )
        yield FoundDevice(
            "board",
            "this board itself, without its USB ports and HATs",
            rpi_pmic.OPTIONS.chip,
            (f"rail = {_quoted(ALL_RAILS)}",),
            comments,
            total,
        )


def _where(place: Place) -> list[str]:
    address = f"address = 0x{place.address:02x}"
    if place.mux is not None:
        return [f"mux = {_quoted(place.mux.name)}", f"channel = {place.channel}", address]
    return [f"bus = {_quoted(place.bus) if isinstance(place.bus, str) else place.bus}", address]


def _name(place: Place) -> str:
    """Such as m0-ch3-0x40; on the trunk i2c1-0x40."""
    if place.mux is not None:
        return f"{place.mux.name}-ch{place.channel}-0x{place.address:02x}"
    bus = place.bus.rpartition("/")[2] if isinstance(place.bus, str) else f"i2c{place.bus}"
    return f"{bus}-0x{place.address:02x}"


def _quoted(text: str) -> str:
    """A basic string of TOML (1.0.0, "String"): the same as in JSON, except that JSON allows DEL."""
    return json.dumps(escape(text), ensure_ascii=False).replace("\x7f", "\\u007f")


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"
