"""The rules within one table of config.toml, and that names are unique: everything but how the parts are wired."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import voluptuous as vol

from agent.config import values
from agent.config.tables import AVERAGING_KEYS
from agent.config.values import describe, nearest, quoted, spell_duration
from agent.i2c.muxes import MUX_ADDRESSES, mux_kind
from agent.settings import Averaging, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.config.tables import Table
    from agent.settings import ChipOptions

INTERVAL_KEYS = ("interval", "sample_interval", "max_gap")
_DEFAULT_SECONDS = {
    key: field.default for field in fields(Settings) for key in INTERVAL_KEYS if field.name == f"{key}_seconds"
}


def check_top(top: Table, default_hostname: str) -> None:
    """The keys at the top of the file, and that there is something to measure and somewhere to send it."""
    if "hostname" not in top.given:
        try:
            values.grouping_value(default_hostname)
        except vol.Invalid as error:
            top.refuse("hostname", f"missing, and this machine's own name will not do: {error.msg}")
    _check_order(top, shorter="sample_interval", longer="interval")
    if "device" not in top.given or top.good.get("device") == []:
        top.refuse("device", "missing; describe at least one measured load in a [[device]] table")
    if "pushgateway" not in top.given and "serve" not in top.given:
        top.refuse(
            "pushgateway",
            'missing; write [pushgateway] with url = "http://..." to push, or [serve] with listen = "127.0.0.1:9812" '
            "to be scraped",
        )


def _check_order(top: Table, *, shorter: str, longer: str) -> None:
    """Refuse two durations that are the wrong way round, unless one of them was refused already."""
    seconds: dict[str, Any] = {}
    for key in (shorter, longer):
        if key in top.given and key not in top.good:
            return
        seconds[key] = top.good.get(key, _DEFAULT_SECONDS[key])
    if seconds[shorter] <= seconds[longer]:
        return
    spelled = {key: spell_duration(seconds[key]) + ("" if key in top.given else " (the default)") for key in seconds}
    # The line goes to a key that is in the file. Neither value is forgotten: they may be wrong in other ways too.
    if shorter in top.given:
        top.problems.append(f"{shorter}: {spelled[shorter]} is longer than {longer}, {spelled[longer]}")
    else:
        top.problems.append(f"{longer}: {spelled[longer]} is shorter than {shorter}, {spelled[shorter]}")


def check_pushgateway(table: Table) -> None:
    """What [pushgateway] needs, and which of its keys go only together or only apart."""
    table.require("url", 'write url = "http://127.0.0.1:9091"')
    given = {key for key in table.given if table.good.get(key) or key not in table.good}
    if {"password_file", "bearer_token_file"} <= given:
        table.refuse_if_good("bearer_token_file", "excludes password_file; keep one of them")
    elif "password_file" in given and "username" not in given:
        table.refuse_if_good("password_file", 'goes with username, which is missing; write username = "..."')
    if {"username", "bearer_token_file"} <= given and "password_file" not in given:
        table.refuse_if_good("username", "excludes bearer_token_file; keep one of them")
    elif "username" in given and "password_file" not in given:
        table.refuse_if_good("username", 'goes with password_file, which is missing; write password_file = "..."')
    for key, other in (("cert_file", "key_file"), ("key_file", "cert_file")):
        if key in given and other not in given:
            table.refuse_if_good(key, f'goes with {other}, which is missing; write {other} = "..."')


def _check_address(table: Table, allowed: range) -> None:
    table.require("address", f"write address = 0x{allowed[0]:02x}")
    if "address" in table.good:
        try:
            values.check_address(table.good["address"], allowed)
        except vol.Invalid as error:
            table.refuse("address", error.msg)


def check_serve(table: Table) -> None:
    """What [serve] needs."""
    table.require("listen", 'write listen = "127.0.0.1:9812"')


def check_mux(table: Table) -> None:
    """What every mux needs, but for where it is."""
    table.require("chip", 'write chip = "tca9548a"')
    _check_address(table, MUX_ADDRESSES)


def check_device(table: Table, chips: Mapping[str, ChipOptions]) -> None:
    """What a device with this kind of chip needs and what it cannot have, but for where the chip is."""
    table.require("chip", f"one of {', '.join(map(quoted, sorted(chips)))}")
    chip = table.good.get("chip")
    if chip is None:
        return
    options = chips.get(chip)
    if options is None:
        table.refuse("chip", f"{quoted(chip)} is not a chip that wattpush knows{_suggest_chip(chip, chips)}")
        return
    _check_input(table, options)
    _check_shunt(table, options)
    if options.addresses is None:
        table.require("sensor", "write the hwmon name or its folder in sysfs")
        for key in ("mux", "bus", "channel", "address", "averaging"):
            table.refuse_if_good(key, f"not for {options.chip}: the kernel knows where the chip is; remove this line")
        return
    _check_address(table, options.addresses)
    _check_averaging(table, options)
    for key in ("sensor", "label"):
        table.refuse_if_good(key, f"not for {options.chip}: only a chip that the kernel owns has one; remove this line")


def is_on_i2c(table: Table, chips: Mapping[str, ChipOptions]) -> bool:
    """Whether the file must say where a device's chip is; the kernel knows it of those that it owns."""
    options = chips.get(table.good.get("chip", ""))
    if options is None:
        # The kind of chip is a mistake of its own, and nothing may follow from it.
        return "mux" in table.given
    return options.addresses is not None


def _suggest_chip(chip: str, chips: Mapping[str, ChipOptions]) -> str:
    if mux_kind(chip.lower()) is not None:
        return "; a mux is described in a [[mux]] table"
    meant = nearest(chip, chips)
    return f"; did you mean {quoted(meant)}?" if meant else f"; it knows {', '.join(map(quoted, sorted(chips)))}"


def _check_input(table: Table, options: ChipOptions) -> None:
    if options.inputs is None:
        table.refuse_if_good("input", f"not for {options.chip}, which has only one; remove this line")
    elif "input" in table.good and table.good["input"] not in options.inputs:
        limits = f"{options.inputs[0]}..{options.inputs[-1]}"
        table.refuse("input", f"{describe(table.good['input'])} is not in {limits}")
    if options.addresses is not None:
        if options.inputs is not None:
            table.require("input", f"which of {options.inputs[0]}..{options.inputs[-1]} is this load on?")
    elif not table.given & {"label", "input"}:
        table.require("label", 'write label = "..." as hwmon shows it' + (", or input = 1" if options.inputs else ""))
    elif table.given >= {"label", "input"}:
        table.refuse_if_good("input", "excludes label; keep one of them")


def _check_shunt(table: Table, options: ChipOptions) -> None:
    if options.external_shunt:
        table.require("shunt_ohms", "write that of the shunt on the board, such as 0.1")
    else:
        why = "has its shunt inside" if options.addresses is not None else "gets its shunt from the kernel"
        table.refuse_if_good("shunt_ohms", f"not for {options.chip}, which {why}; remove this line")


def _check_averaging(table: Table, options: ChipOptions) -> None:
    """Hold the numbers against what the chip can do, and put an `Averaging` in their place."""
    asked = table.good.get("averaging")
    if asked is None:
        return
    if options.averaging is None:
        table.refuse("averaging", f"not for {options.chip}, which has none; remove this line")
        return
    wrong = [f"{key}: missing; count, voltage and current go together" for key in AVERAGING_KEYS if key not in asked]
    count = asked.get("count")
    if count is not None and count not in options.averaging.counts:
        wrong.append(f"count: {describe(count)} is not one of {', '.join(map(str, options.averaging.counts))}")
    choices = options.averaging.conversion_seconds
    exact_seconds: dict[str, float] = {}
    for key in ("voltage", "current"):
        if key in asked:
            # "1.1ms" need not be the very float that the chip's own file has.
            chosen = [choice for choice in choices if math.isclose(choice, asked[key], rel_tol=1e-6)]
            if chosen:
                exact_seconds[key] = chosen[0]
            else:
                wrong.append(
                    f"{key}: {spell_duration(asked[key])} is not one of {', '.join(map(spell_duration, choices))}"
                )
    for text in wrong:
        table.refuse("averaging", text)
    if not wrong:
        table.good["averaging"] = Averaging(count, exact_seconds["voltage"], exact_seconds["current"])


def check_unique_names(tables: Iterable[Table], kind: str) -> None:
    """Every mux and every device has a name that no other of its kind has."""
    first_with: dict[str, Table] = {}
    for table in tables:
        table.require("name", f'give every {kind} its own, such as name = "{"m0" if kind == "mux" else "cpu"}"')
        name = table.good.get("name")
        if name in first_with:
            table.problems.append(f"{table.title}: name: is already that of {first_with[name].title.split()[0]}")
        elif name is not None:
            first_with[name] = table
