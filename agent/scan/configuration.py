"""Writes a configuration for the results of a scan. It works as it is; comments mark what to change or look up."""

from __future__ import annotations

import json
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
# Then: wattpush check, and wattpush --once --dry-run. Every other key is in config.toml.example.

# The name of this machine at the gateway; the default is its hostname. Two machines with one name overwrite each other.
#hostname = "node-17"
{state_dir}
[pushgateway]
url = "http://127.0.0.1:9091"
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


def as_toml(found: MachineScan) -> str:
    """The text of the configuration."""
    # There is one set of counters, whichever user runs it: a second set would count the same energy again.
    state_dir = f'state_dir = "{_SERVICE_STATE}"\n' if _SERVICE_STATE.is_dir() else ""
    parts = [_HEAD.replace("{state_dir}\n", f"{state_dir}\n")]
    for scan in found.buses:
        parts += [_mux_table(mux, scan.lookalikes.get(mux.name, ())) for mux in scan.muxes]
    devices = [part for scan in found.buses for chip in scan.chips for part in _chip_tables(chip)]
    devices += _kernel_tables(found.kernel_inputs)
    devices += _board_table(found.board)
    devices += [
        f"# 0x{owned.place.address:02x}: {owned.driver}: {owned.unread}\n"
        for scan in found.buses
        for owned in scan.kernel_owned
        if owned.unread
    ]
    if not found.has_devices:
        devices.append(_NOTHING)
    return "\n".join([*parts, *devices])


def _mux_table(mux: Mux, others: Sequence[MuxKind]) -> str:
    comment = f"   # {proof(mux.kind, others)}" if others else ""
    lines = ["[[mux]]", f"name = {_quoted(mux.name)}", f"chip = {_quoted(mux.kind.name)}{comment}"]
    return _lines([*lines, *_where(mux.place)])


def _chip_tables(chip: FoundChip) -> Iterator[str]:
    if not chip.inputs:
        yield f"# {chip.signature.part} at {chip.place}: wattpush does not read it.\n"
    for found in chip.inputs:
        name = _name(chip.place) + ("" if found.number is None else f"-in{found.number}")
        lines = [f"# {_reading(found)}", "[[device]]", f"name = {_quoted(name)}", _chip_line(chip)]
        lines += _where(chip.place)
        if found.number is not None:
            lines.append(f"input = {found.number}")
        if chip.has_external_shunt:
            lines.append(f"shunt_ohms = {ASSUMED_SHUNT_OHMS:g}   {_SHUNT_COMMENT}")
        yield _lines(lines)


def _chip_line(chip: FoundChip) -> str:
    signature = chip.signature
    comment = "" if signature.is_sure else f"   # {signature.part}, or another chip: {signature.proof}"
    return f"chip = {_quoted(signature.chip)}{comment}"


def _reading(found: FoundInput) -> str:
    unused = " Nothing connected? Then delete this table." if found.number is not None else ""
    if found.measurement is None:
        return f"Reads no valid value now: {found.problem}.{unused}"
    return f"{_now(found.measurement)}{unused}"


def _now(measurement: Measurement) -> str:
    return f"Now {measurement.volts:.3f} V, {measurement.amperes:.4f} A."


def _kernel_tables(kernel_inputs: Iterable[tuple[PowerInput, Measurement | None]]) -> Iterator[str]:
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
        now = "Cannot be read now." if measurement is None else _now(measurement)
        lines = [f"# Owned by the kernel. {now}", "[[device]]", f"name = {_quoted(name)}", 'chip = "hwmon"']
        yield _lines([*lines, *_kernel_keys(power_input, inputs)])


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


def _board_table(board: Mapping[str, Measurement]) -> Iterator[str]:
    """One device, the sum; the rails in it stand in a comment."""
    total = board.get(ALL_RAILS)
    if total is not None:
        rails = ", ".join(rail for rail in board if rail != ALL_RAILS)
        yield _lines(
            [
                f"# This board itself, without its USB ports and HATs. {_now(total)}",
                f"# One rail alone: {rails}.",
                "[[device]]",
                'name = "board"',
                f"chip = {_quoted(rpi_pmic.OPTIONS.chip)}",
                f"rail = {_quoted(ALL_RAILS)}",
            ]
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
