"""The questions on what a scan cannot see: names, shunts, and kinds that look the same."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.build_info import machine_hash
from agent.config import USUAL_MAX_SHUNT_OHMS, is_shared_hostname
from agent.config.values import InvalidError, grouping_value, ohms, printed_ohms, quoted
from agent.scan.configuration import ChosenDevice
from agent.scan.results import ASSUMED_SHUNT_OHMS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from agent.chips import Measurement
    from agent.i2c.muxes import MuxKind
    from agent.i2c.place import Mux, Place
    from agent.init.terminal import Terminal
    from agent.scan.configuration import FoundDevice
    from agent.scan.results import BusScan
    from agent.settings import ChipOptions

_SKIP = ("-", "skip")
_HASH_CHARACTERS = 4


class _LeftOutError(Exception):
    """The person leaves the device out after all."""


def ask_devices(
    devices: Sequence[FoundDevice], options: Mapping[str, ChipOptions], terminal: Terminal
) -> dict[str, ChosenDevice]:
    """The devices that a person wants, by the names that the scan gives; at least one."""
    terminal.say('Name what each one measures. Enter takes the name shown, "skip" leaves it out.')
    while True:
        chosen: dict[str, ChosenDevice] = {}
        shunts: dict[Place, float] = {}
        for number, device in enumerate(devices, start=1):
            terminal.say()
            terminal.say(f"{number} of {len(devices)}: {device.words}")
            terminal.say(f"  {_reads_now(device)}")
            # A chip has all its inputs, but a board seldom uses them all.
            default = "skip" if _is_unused_input(device) else device.name
            name = _ask_name(default, [other.name for other in chosen.values()], terminal)
            if name is not None:
                chip = _ask_chip(device, options, terminal)
                with suppress(_LeftOutError):
                    chosen[device.name] = ChosenDevice(name, chip, _ask_shunt(device, shunts, terminal))
        if chosen:
            return chosen
        terminal.say()
        terminal.say("You left out everything, and a configuration needs a device. Once more:")


def _is_unused_input(device: FoundDevice) -> bool:
    is_one_of_several = device.found_chip is not None and len(device.found_chip.inputs) > 1
    return is_one_of_several and device.measurement is not None and device.measurement.volts == 0


def _reads_now(device: FoundDevice) -> str:
    if device.measurement is None:
        return f"reads no valid value now: {device.problem}"
    if device.measurement.volts == 0:
        return "reads 0 V: nothing connected, or switched off?"
    if device.has_external_shunt:
        return f"reads {device.measurement.volts:.3f} V; the amperes depend on its shunt"
    return f"reads {_shown(device.measurement)}"


def _shown(measurement: Measurement, shunt_ohms: float = ASSUMED_SHUNT_OHMS) -> str:
    """What it measures, with a shunt other than the one that the scan has assumed."""
    amperes = measurement.amperes * ASSUMED_SHUNT_OHMS / shunt_ohms
    return f"{measurement.volts:.3f} V, {amperes:.4f} A, {measurement.volts * amperes:.3f} W"


def _ask_name(default: str, taken: Collection[str], terminal: Terminal) -> str | None:
    """A name by the rules of the configuration; None to leave the device out."""
    while True:
        name = terminal.ask("  name", default)
        if name.lower() in _SKIP:
            return None
        if name in taken:
            terminal.say(f"  {quoted(name)} is the name of another device; type another one")
            continue
        try:
            return grouping_value(name)
        except InvalidError as error:
            terminal.say(f"  {error}; type another one")


def _ask_chip(device: FoundDevice, options: Mapping[str, ChipOptions], terminal: Terminal) -> str:
    """Which of the chips that look the same it is."""
    if device.found_chip is None or device.found_chip.signature.is_sure:
        return device.chip
    names = [name.lower() for name in re.findall(r"INA[0-9]+", device.found_chip.signature.part)]
    known = (options.get(name) for name in names)
    choices = sorted({device.chip, *(option.chip for option in known if option is not None)})
    return _ask_kind("chip", choices, device.chip, terminal) if len(choices) > 1 else device.chip


def _ask_kind(what: str, choices: Sequence[str], default: str, terminal: Terminal) -> str:
    terminal.say(f"  Several kinds look the same on the bus: {', '.join(choices)}. Read what is printed on the {what}.")
    while True:
        answer = terminal.ask(f"  {what}", default).lower()
        if answer in choices:
            return answer
        terminal.say(f"  {quoted(answer)} is none of {', '.join(choices)}")


def _ask_shunt(device: FoundDevice, shunts: dict[Place, float], terminal: Terminal) -> float | None:
    """The shunt of a device that needs one; with each answer it shows the reading that follows from it.

    Args:
        device: what was found.
        shunts: those of the chips so far: the inputs of one chip mostly have equal ones.
        terminal: where to ask.

    Raises:
        _LeftOutError: the answer is to skip the device, as for a shunt that is not known.
    """
    if device.found_chip is None or not device.has_external_shunt:
        return None
    place = device.found_chip.place
    shunt_ohms = shunts.get(place)
    if shunt_ohms is None:
        terminal.say("  Its shunt, in ohms or as printed: R100 is 0.1, R010 is 0.01, R002 is 0.002.")
    while True:
        if shunt_ohms is None:
            answer = terminal.ask("  shunt")
        else:
            if device.measurement is not None and device.measurement.volts:
                terminal.say(f"  With {shunt_ohms:g} ohm it reads {_shown(device.measurement, shunt_ohms)}.")
            if shunt_ohms > USUAL_MAX_SHUNT_OHMS:
                terminal.say(f"  That is a lot for a shunt; if it is {shunt_ohms:g} milliohms, type {shunt_ohms:g}m.")
            answer = terminal.ask("  Enter if that is right, or another shunt", f"{shunt_ohms:g}")
            if answer == f"{shunt_ohms:g}":
                shunts[place] = shunt_ohms
                return shunt_ohms
        if answer.lower() in _SKIP:
            raise _LeftOutError
        try:
            shunt_ohms = _parsed(answer)
        except InvalidError as error:
            terminal.say(f'  {error}; type it like 0.1, R100 or 100m, or "skip"')


def _parsed(answer: str) -> float:
    meant = printed_ohms(answer)
    if meant is None:
        raise InvalidError(f"{quoted(answer)} is not a resistance" if answer else "its amperes need a shunt")
    return ohms(meant)


def ask_muxes(scans: Iterable[BusScan], terminal: Terminal) -> dict[str, str]:
    """The kinds of the muxes that may be of several, by the names of the muxes."""
    kinds: dict[str, str] = {}
    for scan in scans:
        for mux in scan.muxes:
            others = [other for other in scan.lookalikes.get(mux.name, ()) if _has_these_channels(other, mux, scan)]
            if others:
                terminal.say()
                terminal.say(f"{mux.kind.part} at {mux.place}")
                kinds[mux.name] = _ask_kind("mux", [mux.kind.name, *(o.name for o in others)], mux.kind.name, terminal)
    return kinds


def _has_these_channels(other: MuxKind, mux: Mux, scan: BusScan) -> bool:
    """Whether a mux of the other kind has on each channel what was found there: if not, all places would be wrong."""
    places = [*(chip.place for chip in scan.chips), *(inner.place for inner in scan.muxes)]
    channels = {place.channel for place in places if place.mux == mux and place.channel is not None}
    return all(
        channel < other.channels and other.control_byte(channel) == mux.kind.control_byte(channel)
        for channel in channels
    )


def ask_hostname(own: str, terminal: Terminal) -> str | None:
    """A name for the machine, if its own is one that many have or that cannot be used; else None."""
    is_shared = is_shared_hostname(own)
    if not is_shared and _name_problem(own) is None:
        return None
    terminal.say()
    terminal.say(
        f"This machine is called {quoted(own)}, as many are, and two machines with one name overwrite each other."
        if is_shared
        else f"This machine's own name cannot be used: {_name_problem(own)}."
    )
    machine = machine_hash()[:_HASH_CHARACTERS]
    while True:
        name = terminal.ask("its name at the gateway", f"{own}-{machine}" if is_shared and machine else "")
        problem = f"many machines are called {quoted(name)}" if is_shared_hostname(name) else _name_problem(name)
        if problem is None:
            return name
        terminal.say(f"{problem}; type another one")


def _name_problem(name: str) -> str | None:
    try:
        grouping_value(name)
    except InvalidError as error:
        return f"the name {error}" if not name else str(error)
    return None
