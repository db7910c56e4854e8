"""The INA700 alone, and as wattpush reads it from its simulated twin."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from wattpush_ina700 import OPTIONS, Chip

from agent.chips import Device, Measurement, Place, SensorError

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = """
[pushgateway]
url = "http://localhost:9091"

[[device]]
name = "radio"
chip = "ina700"
bus = 1
address = 0x44
averaging = { count = 4, voltage = "150us", current = "150us" }
"""


def chip(sample_interval_seconds: float = 1.0) -> Chip:
    return Chip([Device("radio", "ina700", Place(1, None, None, 0x44))], sample_interval_seconds)


CHIP = chip()


def decoded(voltage_word: int, current_word: int) -> Measurement:
    (measured,) = CHIP.decode([voltage_word, current_word])
    return measured


def test_the_example_of_the_datasheet_is_decoded() -> None:
    """Section 8.2.2.3: 12 V and 5.00016 A; -9.3312 A."""
    assert decoded(3840, 10417) == pytest.approx((12.0, 5.00016, None))
    assert decoded(3840, 0b1011_0100_0001_0000).amperes == pytest.approx(-9.3312)


def test_every_voltage_word_is_volts_or_an_error() -> None:
    for word in range(0x10000):
        if word <= 40.0 / 3.125e-3:
            assert abs(decoded(word, 0).volts - word * 3.125e-3) < 1e-9
        else:
            with pytest.raises(SensorError, match="more than 40 V"):
                decoded(word, 0)


def test_every_current_word_is_amperes_or_an_error() -> None:
    for lsbs in range(-0x8000, 0x8000):
        if abs(lsbs) <= 15.7 / 480e-6:
            assert abs(decoded(0, lsbs & 0xFFFF).amperes - lsbs * 480e-6) < 1e-9
        else:
            with pytest.raises(SensorError, match="the end of its range"):
                decoded(0, lsbs & 0xFFFF)


@pytest.mark.parametrize("seconds", [0.1, 1.0, 5.0])
def test_a_result_covers_the_sample_interval(seconds: float) -> None:
    """It lasts longer than that of another chip, by the conversions of the temperature."""
    assert seconds <= chip(seconds).conversion_seconds <= seconds * 1.1 * 1.25


def test_a_configuration_without_current_is_not_adopted() -> None:
    one = chip()
    one.adopt([0xFB68])
    assert one.conversion_seconds == pytest.approx(3 * 1.052e-3)
    with pytest.raises(SensorError, match="does not measure voltage and current continuously"):
        one.adopt([0xDB68])


def test_wattpush_reads_what_its_twin_measures(tmp_path: Path) -> None:
    config, trace = tmp_path / "config.toml", tmp_path / "trace.csv"
    config.write_text(f'state_dir = "{tmp_path}"\n{DEVICE}', encoding="utf-8")
    trace.write_text("seconds,volts,amperes\n0,12.0,-1.5\n3600,12.0,-1.5\n", encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "agent", "--config", config, "--once", "--dry-run", "--trace", f"radio={trace}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    values = dict(re.findall(r"^wattpush_device_(volts|amperes|watts) (\S+)$", run.stdout, re.MULTILINE))
    assert {name: float(value) for name, value in values.items()} == pytest.approx(
        {"volts": 12.0, "amperes": -1.5, "watts": -18.0}
    )


def test_its_addresses_are_those_of_the_pin_a0() -> None:
    assert [hex(address) for address in OPTIONS.addresses or ()] == ["0x44", "0x45", "0x46", "0x47"]
