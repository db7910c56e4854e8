"""Chips that an IIO driver of the kernel owns, as Debian's ina2xx-adc: each command names it, and a cure that works.

Debian's kernels have ina2xx-adc and no ina2xx (CONFIG_INA2XX_ADC=m, CONFIG_SENSORS_INA2XX is not set, in its package
linux-config-6.12 for amd64), so an INA226 of a device tree becomes an IIO device there.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from agent import cli
from agent.check import Status
from agent.check.hardware import check_hardware
from agent.chips import hwmon
from agent.errors import ExitCode, SensorError
from agent.i2c.sysfs import KernelOwner, kernel_owner
from agent.measure.readings import Reading
from agent.scan.results import KernelOwned
from agent.settings import Device
from tests.bench import Bench, failure, with_shunt
from tests.scan.node import ScannedNode
from tests.scan.test_scan_command import Linux, settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RAW = {
    "in_voltage0_raw": "400",
    "in_voltage0_scale": "0.010000000",
    "in_voltage1_raw": "1250",
    "in_voltage1_scale": "4.000000000",
    "in_power2_raw": "100",
    "in_current3_raw": "400",
    "in_current3_scale": "0.100000000",
    "in_shunt_resistor": "0.100000000",
}
"""What drivers/iio/adc/ina2xx-adc.c of Linux 6.12 shows of an INA219: raw numbers and their scales."""


def own(
    sysfs: Path,
    chip: str = "ina219",
    driver: str = "ina2xx_adc",
    *,
    module: str | None = "ina2xx_adc",
    files: Mapping[str, str] = RAW,
    client: str = "1-0040",
) -> Path:
    """Let an IIO driver own a chip: the folders and links that the kernel makes. Return the folder of the chip."""
    device = sysfs / "devices/i2c-1" / client
    (device / "iio:device0").mkdir(parents=True)
    (device / "name").write_text(f"{chip}\n")
    (device / "iio:device0/name").write_text(f"{chip}\n")
    for name, text in files.items():
        (device / "iio:device0" / name).write_text(f"{text}\n")
    folder = sysfs / "bus/i2c/drivers" / driver
    folder.mkdir(parents=True, exist_ok=True)
    (folder / client).symlink_to(device)
    (folder / "unbind").touch()
    (device / "driver").symlink_to(folder)
    if module is not None:
        (sysfs / "module" / module).mkdir(parents=True, exist_ok=True)
        (folder / "module").symlink_to(sysfs / "module" / module)
    (sysfs / "bus/i2c/devices").mkdir(parents=True, exist_ok=True)
    (sysfs / "bus/i2c/devices" / client).symlink_to(device)
    return device


NODE = with_shunt("ina219", "cpu", "bus = 1", 0x40) + with_shunt("ina219", "radio", "bus = 1", 0x41)
OWNED = (
    "0x40 on /dev/i2c-1 belongs to the kernel driver ina2xx_adc; that is an IIO driver, which wattpush does not read; "
)
CURE = (
    "take the chip from it: echo 1-0040 | sudo tee /sys/bus/i2c/drivers/ina2xx_adc/unbind; "
    "for good: echo blacklist ina2xx_adc | sudo tee /etc/modprobe.d/wattpush.conf"
)


@pytest.mark.reliability(
    2.27,
    "a chip that an IIO driver of the kernel owns, such as the ina2xx-adc of Debian",
    "the chip is not accessed; the error has the command that frees it, and the others are read",
)
def test_a_run_names_the_driver_and_accesses_no_chip(tmp_path: Path) -> None:
    own(tmp_path)
    bench = Bench(Bench.of(NODE).settings, sysfs=tmp_path)
    bench.wire.log = []
    outcomes = [bench.run_next() for _ in range(3)]
    assert failure(outcomes[0]["cpu"]) == OWNED + CURE
    assert isinstance(outcomes[-1]["radio"], Reading)
    assert not any(message.address == 0x40 for transaction in bench.wire.log for message in transaction.messages)


def test_the_printed_command_frees_the_chip(tmp_path: Path) -> None:
    """The command runs as printed, but in the emulated /sys; then what the kernel does is done for it."""
    device = own(tmp_path)
    bench = Bench(Bench.of(NODE).settings, sysfs=tmp_path)
    printed = re.search(r"echo 1-0040 \| sudo tee (/sys/\S+/unbind)", failure(bench.run()["cpu"]))
    assert printed is not None
    command = printed[0].replace("sudo ", "").replace("/sys/", f"{tmp_path}/")
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
    (driver,) = (file.parent for file in tmp_path.glob("bus/i2c/drivers/*/unbind") if file.read_text() == "1-0040\n")
    assert driver == (device / "driver").resolve()
    (driver / "1-0040").unlink()
    (device / "driver").unlink()
    for file in (device / "iio:device0").iterdir():
        file.unlink()
    (device / "iio:device0").rmdir()
    bench.clock.sleep(60.0)  # the back-off of a chip that failed
    assert bench.all_read([bench.run_next() for _ in range(3)][-1])


def test_the_check_repeats_no_advice_about_hwmon(tmp_path: Path) -> None:
    own(tmp_path)
    bench = Bench(Bench.of(NODE).settings, sysfs=tmp_path)
    bench.clock.sleep(1.0)
    findings = check_hardware(bench.settings, list(bench.buses.values()), hwmon.Chip, tmp_path)
    by_name = {finding.what: finding for finding in findings}
    assert by_name["cpu"].status is Status.FAILED
    assert str(by_name["cpu"]) == f"cpu: {OWNED}{CURE}"
    assert by_name["radio"].status is Status.OK


def read(sysfs: Path, sensor: str) -> None:
    device = Device("module", "hwmon", sensor=sensor, input=1)
    hwmon.Chip((device,), sysfs / "class/hwmon", sysfs / "bus/i2c/drivers").read()


@pytest.mark.parametrize(
    "sensor", ["ina219", "ina2xx_adc", "bus/i2c/devices/1-0040", "bus/i2c/devices/1-0040/iio:device0"]
)
def test_hwmon_names_the_driver_and_the_chip_to_configure(tmp_path: Path, sensor: str) -> None:
    own(tmp_path)
    sensor = str(tmp_path / sensor) if "/" in sensor else sensor
    with pytest.raises(SensorError) as caught:
        read(tmp_path, sensor)
    assert str(caught.value) == (
        f"hwmon {sensor}: 1-0040 belongs to the kernel driver ina2xx_adc; that is an IIO driver, which wattpush does "
        f'not read; {CURE}; then chip = "ina219" reads it, with its bus and address'
    )


def test_a_chip_that_we_cannot_read_is_not_recommended(tmp_path: Path) -> None:
    own(tmp_path, "pac1934", "pac1934", module="pac1934", client="1-0010")
    with pytest.raises(
        SensorError, match="1-0010 belongs to the kernel driver pac1934; that is an IIO driver, "
    ) as caught:
        read(tmp_path, "pac1934")
    assert "chip =" not in str(caught.value)


def test_another_chips_iio_driver_is_not_blamed(tmp_path: Path) -> None:
    own(tmp_path)
    with pytest.raises(SensorError, match=r"^no hwmon chip is named ina3221 \("):
        read(tmp_path, "ina3221")


def test_a_driver_that_is_built_in_cannot_be_blacklisted(tmp_path: Path) -> None:
    own(tmp_path, module=None)
    with pytest.raises(SensorError, match=r"unbind, again after each boot, or remove .* device tree; then chip = "):
        read(tmp_path, "ina219")


def test_nvidias_older_driver_is_read_by_hwmon(tmp_path: Path) -> None:
    own(tmp_path, "ina3221", "ina3221x", files={"in_voltage0_input": "5000", "in_current0_input": "400"})
    owner = kernel_owner(1, 0x40, tmp_path)
    assert owner == KernelOwner("ina3221x", "1-0040", "ina3221", "ina2xx_adc", is_unread=False)
    read(tmp_path, "ina3221x")
    bench = Bench(Bench.of(NODE).settings, sysfs=tmp_path)
    assert 'ina3221x; read it with chip = "hwmon" instead' in failure(bench.run()["cpu"])


def test_an_hwmon_driver_is_read_although_iio_shows_the_chip_too(tmp_path: Path) -> None:
    """A driver may register with both, as the kernel's iio-hwmon does for others."""
    device = own(tmp_path)
    (device / "hwmon/hwmon2").mkdir(parents=True)
    owner = kernel_owner(1, 0x40, tmp_path)
    assert owner is not None
    assert not owner.is_unread


def test_a_scan_tells_why_it_shows_no_values(tmp_path: Path) -> None:
    own(tmp_path, client="1-004f")
    node = ScannedNode(with_shunt("ina219", "cpu", "bus = 1", 0x41), sysfs=tmp_path)
    (owned,) = node.scan().kernel_owned
    assert isinstance(owned, KernelOwned)
    assert owned.unread == f"that is an IIO driver, which wattpush does not read; {CURE.replace('0040', '004f')}"


def test_table_and_toml_of_a_scan_contain_the_cure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linux = Linux(monkeypatch, tmp_path)
    own(linux.sysfs)
    linux.wire(1)
    assert cli.main(["scan"]) == ExitCode.OK
    words = " ".join(capsys.readouterr().out.split())
    assert "trunk 0x40 ina2xx_adc kernel" in words
    assert f"0x40: ina2xx_adc: that is an IIO driver, which wattpush does not read; {CURE}" in words
    assert cli.main(["scan", "--toml"]) == ExitCode.OK
    text = capsys.readouterr().out
    assert f"# 0x40: ina2xx_adc: that is an IIO driver, which wattpush does not read; {CURE}\n" in text
    assert settings_of(text + with_shunt("ina219", "cpu", "bus = 1", 0x40)).devices
