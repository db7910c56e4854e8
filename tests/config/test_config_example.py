"""config.toml.example documents the configuration: it is checked against what the program does."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from agent import chips, cli
from agent.config import parse
from agent.config.keys import DEVICE, TABLES
from agent.errors import ConfigError, ExitCode
from agent.settings import MetricsSettings, PushgatewaySettings, RemoteWriteSettings, ServeSettings, Settings

Parse = Callable[[str], Settings]

EXAMPLE = (Path(__file__).parents[2] / "config.toml.example").read_text()
# A commented-out line of TOML has no space after its "#"; prose has one.
COMMENTED_LINE = re.compile(r"^#(?=\[|[a-z0-9_]+ = )", re.MULTILINE)
# These differ between machines; all other commented-out keys of tables in force show their defaults.
SHOWN_WITHOUT_DEFAULT = {"hostname", "state_dir"}


@pytest.fixture(scope="module")
def parse_text() -> Parse:
    """With the real chips."""
    options = chips.options()
    return lambda text: parse(text, options, default_hostname="pi-4", environ={"HOME": "/home/pi"})


def uncommented(text: str) -> str:
    return COMMENTED_LINE.sub("", text)


def test_the_example_works_as_it_is(parse_text: Parse) -> None:
    settings = parse_text(EXAMPLE)

    assert settings.pushgateway == PushgatewaySettings(url="http://127.0.0.1:9091")
    assert settings.remote_write is None
    assert settings.serve is None
    assert [mux.name for mux in settings.muxes] == ["m0"]
    assert [(device.name, device.chip, device.input) for device in settings.devices] == [
        ("cpu", "ina260", None),
        ("disk", "ina260", None),
        ("radio", "ina3221", 2),
    ]
    assert all(device.place and device.place.mux == settings.muxes[0] for device in settings.devices)


def test_the_example_works_with_every_line_in_force(parse_text: Parse) -> None:
    settings = parse_text(uncommented(EXAMPLE))

    assert settings.hostname == "node-17"
    assert settings.state_dir == Path("/var/lib/wattpush")
    assert settings.remote_write == RemoteWriteSettings(
        url="https://vm.example.org/api/v1/write", headers=(("X-Scope-OrgID", "tenant"),)
    )
    assert settings.serve == ServeSettings("127.0.0.1", 9812)
    assert [mux.name for mux in settings.muxes] == ["m0", "m1"]
    # Chips without a separate block follow.
    assert [device.name for device in settings.devices][:11] == [
        "cpu",
        "disk",
        "radio",
        "fan",
        "server",
        "router",
        "battery",
        "motor",
        "heater",
        "module",
        "board",
    ]


def test_a_commented_out_value_is_the_default(parse_text: Parse) -> None:
    assert parse_text(uncommented(EXAMPLE)).pushgateway == parse_text(EXAMPLE).pushgateway
    assert parse_text(uncommented(EXAMPLE)).metrics == MetricsSettings()
    everything = parse_text(uncommented(EXAMPLE))
    as_it_is = parse_text(EXAMPLE)
    for name in (field.name for field in fields(Settings)):
        if name.endswith("_seconds"):
            assert getattr(everything, name) == getattr(as_it_is, name)
    assert everything.devices[:3] == as_it_is.devices


def commented_out_lines() -> list[str]:
    """The commented-out keys below a table header that is in force."""
    lines, header_in_force = [], True
    for line in EXAMPLE.splitlines():
        if line.startswith(("[", "#[")):
            header_in_force = line.startswith("[")
        elif header_in_force and COMMENTED_LINE.match(line):
            lines.append(line)
    return lines


@pytest.mark.parametrize("line", commented_out_lines())
def test_each_commented_out_line_works_alone(line: str, parse_text: Parse) -> None:
    settings = parse_text(EXAMPLE.replace(line, line[1:], 1))

    key = line[1:].partition(" = ")[0]
    assert (settings == parse_text(EXAMPLE)) == (key not in SHOWN_WITHOUT_DEFAULT)


def test_every_key_is_in_the_example() -> None:
    blocks: dict[str, str] = {}
    header = ""
    for line in uncommented(EXAMPLE).splitlines():
        if line.startswith("["):
            header = line
        blocks[header] = blocks.get(header, "") + line + "\n"

    missing = {
        (table.name, key.name)
        for table in TABLES
        for key in table.keys
        if not re.search(rf"^{key.name} = ", blocks[table.header if table.name else ""], re.MULTILINE)
    }

    assert missing == set()
    (averaging,) = (key.kind.keys for key in DEVICE.keys if key.name == "averaging")
    assert all(re.search(rf"averaging = {{.*\b{key} = ", EXAMPLE) for key in averaging)


def test_the_averaging_table_of_the_example_works(parse_text: Parse) -> None:
    found = re.search(r"averaging = \{.*\}", EXAMPLE)
    assert found

    averaging = parse_text(EXAMPLE.replace('#averaging = "auto"', found[0])).devices[0].averaging

    assert averaging is not None
    assert averaging.count == 64


def test_the_example_and_the_readme_name_every_chip(parse_text: Parse) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    table = readme.partition("## Supported chips")[2]
    assert {device.chip for device in parse_text(uncommented(EXAMPLE)).devices} == set(chips.options())
    assert all(f"`{chip}`" in table for chip in chips.options())


@pytest.mark.parametrize("chip", ["ina219", "ina228", "ina237", "ina238"])
def test_a_bad_averaging_is_refused_with_what_the_chip_can_do(parse_text: Parse, chip: str) -> None:
    table = f'name = "x"\nchip = "{chip}"\nbus = 1\naddress = 0x40\nshunt_ohms = 0.1\n'
    averaging = 'averaging = { count = 3, voltage = "1.1ms", current = "1.1ms" }\n'
    with pytest.raises(ConfigError) as caught:
        parse_text(f'hostname = "n"\n[pushgateway]\nurl = "http://g"\n[[device]]\n{table}{averaging}')
    times = "532us" if chip == "ina219" else "50us, 84us, 150us, 280us, 540us, 1.052ms, 2.074ms, 4.12ms"
    counts = "1, 2, 4, 8, 16, 32, 64, 128" if chip == "ina219" else "1, 4, 16, 64, 128, 256, 512, 1024"
    assert [problem.partition(": averaging: ")[2] for problem in caught.value.problems] == [
        f"count: 3 is not one of {counts}",
        f"voltage: 1.1ms is not one of {times}",
        f"current: 1.1ms is not one of {times}",
    ]


def test_the_program_prints_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config"]) == ExitCode.OK
    assert capsys.readouterr().out == EXAMPLE
