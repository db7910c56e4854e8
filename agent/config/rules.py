"""The rules between keys of one table of config.toml, and that names are unique.

Where chips and muxes sit is left to `topology.py`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from agent.config import values
from agent.config.keys import TOP
from agent.config.values import InvalidError, describe, quoted, spell_duration
from agent.errors import ConfigError
from agent.settings import ALL_RAILS, Averaging

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent.config.tables import Table
    from agent.settings import ChipOptions

_MOST_READINGS = 200_000
"""Of one interval with `resolution = "sample"`: some 15 MB, beside the 40 MB of the agent."""


def check_top(top: Table, default_hostname: str, *, needs_destination: bool) -> None:
    """Check the keys at the top of the file, and that there is a device and a destination."""
    if "hostname" not in top.given:
        try:
            values.grouping_value(default_hostname)
        except InvalidError as error:
            top.refuse("hostname", f"missing, and this machine's own name cannot be used: {error}")
    _check_order(top, shorter="sample_interval", longer="interval")
    if "device" not in top.given or top.good.get("device") == []:
        top.refuse("device", "missing; describe at least one measured load in a [[device]] table")
    if needs_destination and not top.given & {"pushgateway", "remote_write", "serve"}:
        top.refuse(
            "pushgateway",
            'missing; write [pushgateway] with url = "http://..." to push, [remote_write] with '
            'url = "http://.../api/v1/write" to keep history, or [serve] with listen = "127.0.0.1:9812" to be scraped',
        )


def _check_order(top: Table, *, shorter: str, longer: str) -> None:
    """Refuse a shorter duration that is longer than the longer one, unless one of them was refused already."""
    seconds: dict[str, Any] = {}
    for key in (shorter, longer):
        if key in top.given and key not in top.good:
            return
        seconds[key] = top.good.get(key, TOP.default(key))
    if seconds[shorter] <= seconds[longer]:
        return
    spelled = {key: spell_duration(seconds[key]) + ("" if key in top.given else " (the default)") for key in seconds}
    # Blame a key that is in the file. Keep both values: other rules may refuse them too.
    if shorter in top.given:
        top.problems.append(f"{shorter}: {spelled[shorter]} is longer than {longer}, {spelled[longer]}")
    else:
        top.problems.append(f"{longer}: {spelled[longer]} is shorter than {shorter}, {spelled[shorter]}")


def check_resolution(top: Table, remote_write: Table | None, devices: int) -> None:
    """Refuse to hold more readings of one interval in memory than a small machine has room for."""
    if remote_write is None or remote_write.good.get("resolution") != "sample" or not devices:
        return
    interval_seconds, sample_interval_seconds = (
        top.good.get(key, TOP.default(key)) for key in ("interval", "sample_interval")
    )
    readings = round(devices * interval_seconds / sample_interval_seconds)
    if readings > _MOST_READINGS:
        most_seconds = _MOST_READINGS * sample_interval_seconds // devices
        remote_write.refuse(
            "resolution",
            f'"sample" keeps the {readings} readings of an interval in memory; at most {_MOST_READINGS}: '
            f'interval = "{most_seconds:g}s" is not too long',
        )


def check_connection(table: Table) -> None:
    """Check which keys of a connection need or exclude each other."""
    given = {key for key in table.given if table.good.get(key) or key not in table.good}
    if {"password_file", "bearer_token_file"} <= given:
        table.refuse_if_good("bearer_token_file", "cannot be combined with password_file; keep one of them")
    elif {"username", "bearer_token_file"} <= given:
        table.refuse_if_good("username", "cannot be combined with bearer_token_file; keep one of them")
    else:
        _check_pair(table, given, "username", "password_file")
    _check_pair(table, given, "cert_file", "key_file")


def _check_pair(table: Table, given: set[str], *pair: str) -> None:
    """Refuse one of two keys that need each other, if the other one is missing."""
    for key, other in (pair, pair[::-1]):
        if key in given and other not in given:
            table.refuse_if_good(key, f'needs {other}; write {other} = "..."')


def _check_address(table: Table, allowed: Sequence[int]) -> None:
    table.require("address", f"write address = 0x{allowed[0]:02x}")
    if "address" in table.good:
        try:
            values.check_address(table.good["address"], allowed)
        except InvalidError as error:
            table.refuse("address", str(error))


def check_device(table: Table, chips: Mapping[str, ChipOptions]) -> None:
    """Check which keys this chip needs and which it cannot have, apart from its place."""
    if "chip" not in table.given:
        from agent.config.known_parts import listed

        table.require("chip", f"one of {listed(chips)}")
    chip = table.good.get("chip")
    if chip is None:
        return
    try:
        options = chips.get(chip)
    except ConfigError as error:  # a package adds it, and cannot be used
        table.refuse("chip", str(error))
        return
    if options is None:
        from agent.config.known_parts import about_chip

        table.refuse("chip", f"{quoted(chip)} is not a supported chip{about_chip(chip, chips)}")
        return
    table.good["chip"] = options.chip  # not an alias
    if options.rails_without_current is not None:
        _check_rail(table, options.chip, options.rails_without_current)
        return
    table.refuse_if_good("rail", f"not used by {options.chip}, only by rpi-pmic; remove this line")
    _check_input(table, options)
    _check_shunt(table, options)
    if options.addresses is None:
        table.require("sensor", "write the hwmon name or its folder in sysfs")
        for key in ("mux", "bus", "channel", "address", "averaging"):
            table.refuse_if_good(key, f"not used by {options.chip}: the kernel knows where it is; remove this line")
        return
    _check_address(table, options.addresses)
    _check_averaging(table, options)
    for key in ("sensor", "label"):
        table.refuse_if_good(key, f"not used by {options.chip}, only by chips that the kernel owns; remove this line")


def _check_rail(table: Table, chip: str, without_current: Sequence[str]) -> None:
    """Check a device on a board that measures itself: nothing but `rail` says what is read."""
    table.require("rail", 'write rail = "all" for the sum, or the name of a rail')
    rail = table.good.get("rail", ALL_RAILS)
    if rail != ALL_RAILS and rail.lower() == ALL_RAILS:
        table.refuse("rail", f"{quoted(rail)}; did you mean {quoted(ALL_RAILS)}?")
    if rail in without_current:
        table.refuse("rail", f"{quoted(table.good['rail'])} has volts but no amperes, so its power is not known")
    for key in ("mux", "bus", "channel", "address", "averaging", "input", "shunt_ohms", "sensor", "label"):
        table.refuse_if_good(key, f"not used by {chip}: the board measures itself; remove this line")


def is_on_i2c(table: Table, chips: Mapping[str, ChipOptions]) -> bool:
    """Whether the file must give the place of a device's chip; the kernel knows the places of its chips."""
    options = chips.get(table.good.get("chip", ""))
    if options is None:
        # The chip has been reported already: do not require a bus of what may be hwmon.
        return "mux" in table.given
    return options.addresses is not None


def _check_input(table: Table, options: ChipOptions) -> None:
    if options.inputs is None:
        table.refuse_if_good("input", f"not used by {options.chip}, which has only one; remove this line")
    elif "input" in table.good and table.good["input"] not in options.inputs:
        limits = f"{options.inputs[0]}..{options.inputs[-1]}"
        table.refuse("input", f"{describe(table.good['input'])} is not in {limits}")
    if options.addresses is not None:
        if options.inputs is not None and table.given >= {"bus", "channel"} and not table.given & {"mux", "input"}:
            number = table.good.get("channel")
            meant = number if number in options.inputs else options.inputs[0]
            table.refuse_if_good("channel", f"is that of a mux; for that of the {options.chip}, write input = {meant}")
        elif options.inputs is not None:
            table.require("input", f"which of {options.inputs[0]}..{options.inputs[-1]} is this load on?")
    elif not table.given & {"label", "input"}:
        table.require("label", 'write label = "..." as hwmon shows it' + (", or input = 1" if options.inputs else ""))
    elif table.given >= {"label", "input"}:
        table.refuse_if_good("input", "cannot be combined with label; keep one of them")


def _check_shunt(table: Table, options: ChipOptions) -> None:
    if options.external_shunt:
        table.require("shunt_ohms", "write the resistance of the shunt on the board, such as 0.1")
    else:
        why = "the shunt is inside the chip" if options.addresses is not None else "the kernel knows the shunt"
        table.refuse_if_good("shunt_ohms", f"not used by {options.chip}: {why}; remove this line")


def _check_averaging(table: Table, options: ChipOptions) -> None:
    """Check the numbers against the choices of the chip, and replace them with an `Averaging`."""
    wanted = table.good.get("averaging")
    if wanted is None:
        return
    if options.averaging is None:
        table.refuse("averaging", f"not used by {options.chip}, which has none; remove this line")
        return
    wrong = [
        f"{key}: missing; count, voltage and current go together"
        for key in ("count", "voltage", "current")
        if key not in wanted
    ]
    count = wanted.get("count")
    if count is not None and count not in options.averaging.counts:
        wrong.append(f"count: {describe(count)} is not one of {', '.join(map(str, options.averaging.counts))}")
    choices = options.averaging.conversion_seconds
    exact_seconds: dict[str, float] = {}
    for key in ("voltage", "current"):
        if key in wanted:
            # "1.1ms" may be a slightly different float from the one in the chip's own file.
            chosen = [choice for choice in choices if math.isclose(choice, wanted[key], rel_tol=1e-6)]
            if chosen:
                exact_seconds[key] = chosen[0]
            else:
                wrong.append(
                    f"{key}: {spell_duration(wanted[key])} is not one of {', '.join(map(spell_duration, choices))}"
                )
    for text in wrong:
        table.refuse("averaging", text)
    if not wrong:
        table.good["averaging"] = Averaging(count, exact_seconds["voltage"], exact_seconds["current"])


def check_unique_names(tables: Iterable[Table]) -> None:
    """Refuse a mux or a device with the name of an earlier one."""
    first_with: dict[str, Table] = {}
    for table in tables:
        name = table.good.get("name")
        if name in first_with:
            table.problems.append(f"{table.title}: name: already used by {first_with[name].title.split()[0]}")
        elif name is not None:
            first_with[name] = table
