"""A simulated node with every kind of mux, under every name that the configuration accepts, from file to numbers."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent.i2c.muxes import MUX_KINDS, mux_kind
from tests.bench import NODE, ina260, mux

if TYPE_CHECKING:
    from pathlib import Path

# A PCA9540B can only have 0x70, and a TCA9543A or TCA9545A none above 0x73.
ADDRESSES = {name: 0x70 + n for n, name in enumerate(["pca9540b", "tca9543a", "tca9545a"])}
ADDRESSES |= {name: 0x73 + n for n, name in enumerate(name for name in MUX_KINDS if name not in ADDRESSES)}


def names(*, aliases: bool) -> list[str]:
    return [(kind.aliases or (kind.name,))[0] if aliases else kind.name for kind in MUX_KINDS.values()]


@pytest.mark.parametrize("aliases", [False, True], ids=["names", "aliases"])
def test_each_channel_of_every_kind_gives_its_own_rail(tmp_path: Path, *, aliases: bool) -> None:
    config, options = NODE, list[str]()
    expected: dict[str, tuple[float, float]] = {}
    for name in names(aliases=aliases):
        kind = mux_kind(name)
        assert kind is not None
        config += mux(name, ADDRESSES[kind.name], kind=name)
        for channel in range(kind.channels):
            device = f"{name}-{channel}"
            config += ina260(device, f'mux = "{name}", channel = {channel}')
            volts, amperes = 0.5 * (len(expected) + 1), 0.125 * (len(expected) % 7 + 1)
            trace = tmp_path / device
            trace.write_text(f"seconds,volts,amperes\n0,{volts},{amperes}\n3600,{volts},{amperes}\n", encoding="utf-8")
            options += ["--trace", f"{device}={trace}"]
            expected[device] = (volts, amperes)
    file = tmp_path / "config.toml"
    file.write_text(config, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "agent", "--config", file, "--once", "--dry-run", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "is it another kind" not in ran.stderr
    found = {}
    for group in ran.stdout.split("/device/")[1:]:
        device = group.partition("/")[0]
        numbers = dict(re.findall(r"^wattpush_device_(volts|amperes) (\S+)$", group, re.MULTILINE))
        found[device] = (float(numbers["volts"]), float(numbers["amperes"]))
    assert len(expected) == 32
    assert found == expected  # all are multiples of the LSB of an INA260
