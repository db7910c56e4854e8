"""`check --hardware` on chips at register level: what is there, what is not, and that nothing is written to a chip."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent import access
from agent.check import Finding, Status
from agent.check.hardware import check_hardware
from agent.chips import hwmon
from agent.errors import ExitCode
from agent.i2c.muxes import MUX_KINDS
from agent.measure.readings import Reading
from agent.simulate.ina260 import SimulatedINA260
from agent.simulate.mux import SimulatedMux
from agent.simulate.rails import ConstantRail
from tests.bench import HOLD_THE_BUS, Bench, LinuxBench, ina260, ina3221, mux, with_shunt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.simulate.part import Part

NODE = (
    mux("m0", 0x70)
    + mux("inner", 0x71, 'mux = "m0", channel = 6')
    + ina260("cpu", 'mux = "m0", channel = 3')
    + ina260("gpu", 'mux = "inner", channel = 5')
    + ina3221("radio", 'mux = "m0", channel = 4', 2)
    + ina3221("modem", 'mux = "m0", channel = 4', 3)
    + ina260("trunk", "bus = 1", 0x4F)
)
DEVICES = ["cpu", "gpu", "radio", "modem", "trunk"]


def findings(bench: Bench) -> dict[str, Finding]:
    bench.wire.log = []
    found = list(
        check_hardware(
            bench.settings,
            list(bench.buses.values()),
            lambda devices: hwmon.Chip(devices, bench.hwmon_folder),
            bench.sysfs,
        )
    )
    by_name = {finding.what: finding for finding in found}
    assert len(by_name) == len(found)
    assert_that_nothing_was_changed_in_a_chip(bench)
    for i2c in bench.opened:
        assert i2c.try_lock(), "a lock is still held"
        i2c.unlock()
    return by_name


def assert_that_nothing_was_changed_in_a_chip(bench: Bench) -> None:
    muxes = {simulated.address for simulated in bench.world.muxes.values()}
    log = bench.wire.log or []
    written = [m for transaction in log for m in transaction.messages if not m.is_read and m.address not in muxes]
    assert not any(len(message.data) > 1 for message in written), "more than the number of a register"
    # Reading the status clears the flag of a new result, which a run waits for.
    status = {0x40: b"\x06", 0x4F: b"\x06", 0x41: b"\x0f"}
    assert not any(message.data == status.get(message.address) for message in written)


def failures(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.status is Status.FAILED}


def another_ina260(bench: Bench, address: int = 0x40) -> SimulatedINA260:
    return SimulatedINA260(address, ConstantRail(1.0, 1.0, bench.clock.monotonic), bench.clock.monotonic)


def test_every_bus_mux_and_device_has_a_line() -> None:
    bench = Bench.of(NODE)
    bench.clock.sleep(1.0)
    found = findings(bench)
    assert [*found] == ["bus", "mux m0", "mux inner", *DEVICES]
    assert {finding.status for finding in found.values()} == {Status.OK}
    assert str(found["mux m0"]) == "mux m0: TCA9548A at 0x70 on /dev/i2c-1: opens channels 3, 4, 6, and closes"
    assert bench.all_muxes_are_closed()


def test_a_chip_in_its_power_on_state_is_not_configured() -> None:
    bench = Bench.of(NODE)
    bench.clock.sleep(1.0)
    found = findings(bench)
    assert str(found["cpu"]) == (
        "cpu: INA260 at 0x40 behind mux m0 (0x70 on /dev/i2c-1) channel 3: 2.000 V, in its power-on state; "
        "a run will configure it"
    )
    assert findings(bench)["cpu"] == found["cpu"]


def test_values_are_shown_without_disturbing_a_running_service() -> None:
    bench = Bench.of(NODE)
    bench.run_until_read()
    found = findings(bench)
    for device in DEVICES:
        rail = bench.rails[device]
        assert isinstance(rail, ConstantRail)
        assert f": {rail.volts:.3f} V, {rail.amperes:.3f} A, configured for a run" in str(found[device])
    assert bench.all_read(bench.run_next())


def test_values_under_a_foreign_configuration_are_not_shown() -> None:
    bench = Bench.of(NODE)
    bench.chip("cpu").write(bytes((0x00, 0x60, 0x00)))  # shut down: what it holds is old
    bench.chip("cpu").stop()
    finding = findings(bench)["cpu"]
    assert finding.status is Status.OK
    assert "channel 3: holds configuration 0x6000 (register 0x00); a run will write 0x6207" in finding.text


def test_the_configuration_register_that_differs_is_shown() -> None:
    bench = Bench.of(with_shunt("ina228", "cpu", "bus = 1"))
    bench.wire.transfer([(0x40, False, b"\x01\xfb\x6b")])
    received = str(findings(bench)["cpu"])
    assert "holds configuration 0xfb6b (register 0x01); a run will write 0xb269" in received


def test_a_rail_without_voltage_is_a_warning() -> None:
    bench = Bench(Bench.of(NODE).settings)
    dead = ConstantRail(0.0, 0.0, bench.clock.monotonic)
    bench = Bench(bench.settings, bench.clock, {**bench.rails, "cpu": dead})
    bench.run_until_read()
    finding = findings(bench)["cpu"]
    assert (finding.status, finding.exit_code) == (Status.WARNING, ExitCode.OK)
    assert "reads 0 V; is the rail on" in str(finding)


@pytest.mark.parametrize("is_configured", [False, True], ids=["power-on", "configured"])
def test_a_current_without_volts_is_a_warning_with_a_cure(*, is_configured: bool) -> None:
    bench = Bench.of(NODE)
    for device, amperes in {"cpu": 5.0, "radio": 1.0, "modem": 0.0}.items():
        rail = bench.rails[device]
        assert isinstance(rail, ConstantRail)
        rail.volts, rail.amperes = 0.0, amperes
    bench.clock.sleep(1.0)
    if is_configured:
        bench.run_until_read()
    found = findings(bench)
    for device, current in {"cpu": "5 A", "radio": "1 A"}.items():
        assert (found[device].status, found[device].exit_code) == (Status.WARNING, ExitCode.OK)
        assert f": {current} at 0 V; is the shunt in the ground line of the load?" in found[device].text
        assert "Put it in the supply line" in found[device].hint
    assert "ground line" not in str(found["modem"])  # switched off


def test_a_missing_chip_is_one_line_and_the_others_are_checked() -> None:
    bench = Bench.of(NODE)
    bench.clock.sleep(1.0)
    bench.chip("cpu").unplug()
    found = findings(bench)
    assert failures(found) == {"cpu"}
    assert found["cpu"].exit_code == ExitCode.IOERR
    assert str(found["cpu"]) == (
        "cpu: no INA260 at 0x40 behind mux m0 (0x70 on /dev/i2c-1) channel 3: NACK; "
        "is it powered? Are the channel and the address right?; wattpush scan shows what answers where"
    )


def test_a_chip_of_another_kind_is_refused() -> None:
    bench = Bench.of(NODE + ina260("fan", "bus = 1", 0x43))
    bench.chip("fan").unplug()
    twin = Bench.of(ina3221("x", "bus = 1", 1, 0x43)).chip("x")
    bench.wire.attach(twin)
    found = findings(bench)
    assert failures(found) == {"fan"}
    assert "not an INA260 at 0x43 on /dev/i2c-1" in str(found["fan"])


@pytest.mark.parametrize("gone", ["m0", "inner"])
def test_devices_behind_a_missing_mux_are_skipped(gone: str) -> None:
    bench = Bench.of(NODE)
    bench.clock.sleep(1.0)
    bench.world.muxes[gone].unplug()
    found = findings(bench)
    assert failures(found) == (
        {"mux m0", "mux inner", "cpu", "gpu", "radio", "modem"} if gone == "m0" else {"mux inner", "gpu"}
    )
    assert "does not answer: NACK" in str(found[f"mux {gone}"])
    assert str(found["gpu"]) == f"gpu: skipped: mux {gone}, which it is behind, failed (see above)"


def test_a_mux_with_too_few_channels_is_a_failure() -> None:
    bench = Bench.of(
        mux("m0", 0x70) + ina260("cpu", 'mux = "m0", channel = 1') + ina260("gpu", 'mux = "m0", channel = 5')
    )
    bench.world.muxes["m0"].unplug()
    bench.wire.attach(SimulatedMux(0x70, MUX_KINDS["pca9546a"]))
    finding = findings(bench)["mux m0"]
    assert finding.exit_code == ExitCode.IOERR
    assert str(finding).endswith(
        "0x20 was written, 0x00 is read; it answers as a pca9546a or a tca9545a or a pca9547 does"
    )


def with_another_mux(
    configured: str, channels: Sequence[int], true_kind: str, interrupts: int = 0x00, others: Sequence[int] = ()
) -> Bench:
    """A node with an INA260 on each of these channels, whose mux is not of the kind in its configuration.

    If `others` are given, the chips are on those channels instead.
    """
    devices = (ina260(f"ch{channel}", f'mux = "m0", channel = {channel}') for channel in channels)
    bench = Bench.of(mux("m0", 0x70, kind=configured) + "".join(devices))
    bench.clock.sleep(1.0)
    true = SimulatedMux(0x70, MUX_KINDS[true_kind])
    true.interrupts = interrupts
    for channel in others:
        true.attach(channel, Bench.of(ina260("other", "bus = 1", 0x40)).chip("other"))
    for channel in channels:
        if channel < true._kind.channels and not others:
            true.attach(channel, bench.chip(f"ch{channel}"))
    bench.world.muxes["m0"].unplug()
    bench.wire.attach(true)
    return bench


@pytest.mark.parametrize(
    ("configured", "true_kind", "interrupts", "shown"),
    [
        ("tca9543a", "tca9544a", 0x00, "0x04 was written, 0x04 is read; it answers as a tca9544a or a pca9540b does"),
        ("tca9543a", "tca9548a", 0x00, "0x04 was written, 0x04 is read; it answers as a tca9548a does"),
        ("tca9544a", "tca9543a", 0x00, "0x04 was written, 0x00 is read; it answers as a tca9543a does"),
        ("pca9540b", "pca9547", 0x00, "0x08 was written, 0x08 is read; it answers as a pca9546a or"),
        ("pca9546a", "tca9548a", 0x00, "0x10 was written, 0x10 is read; it answers as a tca9548a does"),
        ("pca9547", "tca9548a", 0x00, "0x10 was written, 0x10 is read; it answers as a tca9548a does"),
        ("pca9546a", "tca9545a", 0x40, "0x01 was written, 0x41 is read; it answers as a tca9545a does"),
        ("pca9547", "pca9546a", 0x00, "0x40 answers behind it at control byte 0x01, with which a pca9547 connects no"),
    ],
)
def test_a_mux_of_another_kind_is_named(configured: str, true_kind: str, interrupts: int, shown: str) -> None:
    bench = with_another_mux(configured, (0, 1), true_kind, interrupts)
    finding = findings(bench)["mux m0"]
    assert finding.exit_code == ExitCode.IOERR
    assert shown in str(finding)


@pytest.mark.parametrize(
    ("configured", "true_kind", "shown"),
    [
        ("tca9548a", "tca9544a", "a tca9544a or a pca9540b"),
        ("tca9548a", "pca9547", "a pca9546a or a tca9545a or a pca9547"),
        ("pca9546a", "pca9540b", "a tca9544a or a pca9540b"),
    ],
)
def test_a_mux_without_a_bit_of_its_kind_is_told_with_the_silent_chip(
    configured: str, true_kind: str, shown: str
) -> None:
    found = findings(with_another_mux(configured, (0, 1), true_kind))
    assert found["mux m0"].status == Status.OK  # it keeps the bits of these channels
    for device in ("ch0", "ch1"):
        assert str(found[device]).endswith(f"the address right?; mux m0 answers as {shown} does")


def test_a_silent_chip_behind_the_right_mux_says_nothing_of_kinds() -> None:
    for kind in MUX_KINDS:
        bench = with_another_mux(kind, (0, 1), kind, interrupts=0xA0)
        bench.chip("ch1").unplug()
        assert str(findings(bench)["ch1"]).endswith("the address right?; wattpush scan shows what answers where"), kind


def test_a_pca9547_that_is_configured_as_another_kind_is_hinted_at() -> None:
    found = findings(with_another_mux("tca9546a", (0, 2), "pca9547"))
    assert found["mux m0"].status == Status.OK  # it returns the same bits
    for channel, byte in ((0, "0x08"), (2, "0x0a")):
        assert str(found[f"ch{channel}"]).endswith(
            f"the address right?; 0x40 answers at control byte {byte}, which is channel {channel} of a pca9547: "
            "is mux m0 one?"
        )


def test_equal_chips_behind_a_pca9547_show_that_it_is_no_pca9546a() -> None:
    bench = with_another_mux("pca9546a", (3,), "pca9547", others=range(8))
    finding = findings(bench)["mux m0"]
    assert finding.exit_code == ExitCode.IOERR
    assert str(finding).endswith("control bytes 0x08 and 0x09 connect two chips at 0x40; is it a pca9547?")


def test_one_chip_behind_a_pca9546a_shows_that_it_is_no_pca9547() -> None:
    """It would be measured as the channels 0 and 1 of a PCA9547."""
    bench = with_another_mux("pca9547", (0, 1), "pca9546a", others=(3,))
    finding = findings(bench)["mux m0"]
    assert str(finding).endswith("control bytes 0x08 and 0x09 connect the same chip at 0x40; is it a pca9546a?")


def test_a_dead_chip_behind_a_right_mux_brings_no_hint_at_another_kind() -> None:
    bench = with_another_mux("pca9546a", (0, 1, 3), "pca9546a")
    bench.chip("ch0").unplug()
    assert str(findings(bench)["ch0"]).endswith("the address right?; wattpush scan shows what answers where")


@pytest.mark.parametrize(("configured", "true_kind"), [("tca9544a", "pca9540b"), ("pca9540b", "tca9544a")])
def test_a_kind_that_works_like_the_configured_one_is_accepted(configured: str, true_kind: str) -> None:
    assert failures(findings(with_another_mux(configured, (0, 1), true_kind))) == set()


def test_interrupt_lines_of_a_closed_mux_are_not_taken_for_an_open_channel() -> None:
    bench = with_another_mux("tca9545a", (0,), "tca9545a", 0x20)
    bench.wire.attach(another_ina260(bench))
    assert "strap one of them to another address" in str(findings(bench)["ch0"])


def test_a_channel_that_takes_the_bus_down_is_named() -> None:
    bench = Bench.of(NODE)
    m0 = bench.world.muxes["m0"]
    bench.wire.faults.fail_when(lambda _: errno.ETIMEDOUT if 4 in m0.open_channels else None)
    received = str(findings(bench)["mux m0"])
    assert "time-out since channel 4 was opened; is a chip behind it holding SDA or SCL low" in received


def test_a_mux_that_keeps_a_channel_open_is_a_failure() -> None:
    class Stuck(SimulatedMux):
        def write(self, data: bytes) -> None:
            super().write(bytes(byte | 0x01 for byte in data))

    bench = Bench.of(mux("m0", 0x70) + ina260("cpu", 'mux = "m0", channel = 0'))
    bench.world.muxes["m0"].unplug()
    bench.wire.attach(Stuck(0x70))
    assert "0x00 was written, 0x01 is read" in str(findings(bench)["mux m0"])


@pytest.mark.parametrize(
    ("device", "where", "answers"),
    [
        ("cpu", "the trunk", "on /dev/i2c-1"),
        ("gpu", "the trunk", "on /dev/i2c-1"),
        ("gpu", "m0", "behind mux m0 (0x70 on /dev/i2c-1) channel 6"),
    ],
)
def test_a_second_part_at_the_address_is_reported_with_both_places(device: str, where: str, answers: str) -> None:
    bench = Bench.of(NODE)
    bench.clock.sleep(1.0)
    second: Part = another_ina260(bench)
    if where == "m0":
        bench.world.muxes["m0"].attach(6, second)
    else:
        bench.wire.attach(second)
    finding = findings(bench)[device]
    assert finding.exit_code == ExitCode.IOERR
    place = next(d.place for d in bench.settings.devices if d.name == device)
    assert f"0x40 also answers {answers} while the path to {place} is closed" in str(finding)
    assert "a wrong number without an error" in str(finding)
    assert "strap one of them to another address" in str(finding)


def test_an_open_mux_that_is_not_configured_is_found() -> None:
    bench = Bench.of(NODE)
    bench.clock.sleep(1.0)
    unknown = SimulatedMux(0x74)
    unknown.attach(5, another_ina260(bench))
    unknown.write(b"\x20")
    unknown.stop()
    bench.wire.attach(unknown)
    text = str(findings(bench)["cpu"])
    assert "0x74 on /dev/i2c-1 looks like a mux with an open channel (control byte 0x20)" in text
    assert "add it as a [[mux]]" in text


def test_the_interrupt_line_of_a_configured_mux_is_no_open_channel() -> None:
    bench = Bench.of(NODE + mux("other", 0x73, kind="tca9545a"))
    bench.clock.sleep(1.0)
    bench.world.muxes["other"].interrupts = 0x20
    bench.wire.attach(another_ina260(bench))
    assert "strap one of them to another address" in str(findings(bench)["cpu"])


def test_equal_addresses_behind_other_channels_are_accepted() -> None:
    bench = Bench.of(NODE)
    bench.clock.sleep(1.0)
    bench.world.muxes["m0"].attach(0, another_ina260(bench))
    bench.world.muxes["inner"].attach(0, another_ina260(bench))
    assert failures(findings(bench)) == set()


def test_a_kernel_owned_chip_is_skipped_with_two_hints(tmp_path: Path) -> None:
    driver = tmp_path / "bus/i2c/drivers/ina3221"
    driver.mkdir(parents=True)
    client = tmp_path / "bus/i2c/devices/1-0041"
    client.mkdir(parents=True)
    (client / "driver").symlink_to(driver)
    adapter = tmp_path / "bus/i2c/devices/i2c-1"
    adapter.mkdir()
    (adapter / "name").write_text("bcm2835 (i2c@7e804000)\n")
    bench = Bench(Bench.of(NODE).settings, sysfs=tmp_path)
    bench.clock.sleep(1.0)
    found = findings(bench)
    assert failures(found) == {"radio", "modem"}
    text = str(found["radio"])
    assert "belongs to the kernel driver ina3221" in text
    assert 'for chip = "hwmon", set sensor = "/sys/bus/i2c/devices/1-0041"' in text
    assert "echo 1-0041 | sudo tee /sys/bus/i2c/devices/1-0041/driver/unbind" in text
    assert not any(m.address == 0x41 for transaction in bench.wire.log or () for m in transaction.messages)
    assert str(found["bus"]) == "bus: /dev/i2c-1 opened and locked, bcm2835 (i2c@7e804000)"


HWMON = '[[device]]\nname = "module"\nchip = "hwmon"\nsensor = "ina3221"\nlabel = "VDD_IN"\n'


def test_a_kernel_sensor_is_read_and_its_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "hwmon3"
    folder.mkdir()
    for file, text in {"name": "ina3221", "in2_label": "VDD_IN", "in2_input": "5072", "curr2_input": "-250"}.items():
        (folder / file).write_text(f"{text}\n")
    bench = Bench(Bench.of(NODE + HWMON).settings, hwmon_folder=tmp_path)
    bench.clock.sleep(1.0)
    assert str(findings(bench)["module"]) == (f"module: {folder}/in2_input and curr2_input (VDD_IN): 5.072 V, -0.250 A")
    twice = HWMON + HWMON.replace('"module"', '"again"').replace('label = "VDD_IN"', "input = 2")
    finding = findings(Bench(Bench.of(NODE + twice).settings, hwmon_folder=tmp_path))["again"]
    assert finding.exit_code == ExitCode.CONFIG
    assert "already read by module" in str(finding)
    for file, text in {"in2_input": "0", "curr2_input": "3000"}.items():
        (folder / file).write_text(f"{text}\n")
    finding = findings(bench)["module"]
    assert finding.status is Status.WARNING
    assert "3 A at 0 V; is the shunt in the ground line of the load?" in finding.text
    (folder / "in2_label").write_text("VDD_GPU\n")
    finding = findings(bench)["module"]
    assert finding.exit_code == ExitCode.IOERR
    assert 'no label "VDD_IN"; can be configured: label = "VDD_GPU"' in str(finding)


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LinuxBench]:
    linux = LinuxBench(NODE, monkeypatch, tmp_path)
    linux.bench.clock.sleep(1.0)
    yield linux
    linux.bench.sweep.close()


@pytest.mark.parametrize("refuses_zero_length", [False, True])
def test_the_findings_through_a_device_file_are_the_same(linux: LinuxBench, *, refuses_zero_length: bool) -> None:
    linux.bench.wire.refuses_zero_length = refuses_zero_length
    linux.dev.reads_once_and_last = refuses_zero_length
    simulated = Bench.of(NODE)
    simulated.clock.sleep(1.0)
    assert findings(linux.bench) == findings(simulated)
    linux.bench.run_until_read()
    simulated.run_until_read()
    assert findings(linux.bench) == findings(simulated)
    assert linux.dev.system_calls > 100


def test_a_missing_bus_is_one_line_for_all_of_its_devices(linux: LinuxBench) -> None:
    linux.dev.unplug()
    found = findings(linux.bench)
    assert [*found] == ["bus"]
    assert found["bus"].exit_code == ExitCode.IOERR
    assert "modprobe i2c-dev" in str(found["bus"])
    assert "its 5 devices could not be checked" in str(found["bus"])


def test_permission_denied_names_the_group_of_the_device_file(linux: LinuxBench) -> None:
    linux.dev.refusal = errno.EACCES
    finding = findings(linux.bench)["bus"]
    assert finding.exit_code == ExitCode.NOPERM
    assert f"sudo usermod -aG i2c {access.this_user()}" in str(finding)


def test_the_process_that_holds_the_bus_is_named(linux: LinuxBench, tmp_path: Path) -> None:
    linux.dev.stand_in("/dev/i2c-1")
    command = [sys.executable, "-c", HOLD_THE_BUS, str(tmp_path / "i2c-1")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        finding = findings(linux.bench)["bus"]
        assert finding.exit_code == ExitCode.TEMPFAIL
        assert "/dev/i2c-1: another process has held the bus for 1 s" in str(finding)
        if _locks_are_shown(tmp_path / "i2c-1"):
            assert f"pid {holder.pid}; is a second agent running?; its 5 devices could not be checked" in str(finding)
        holder.kill()
    assert failures(findings(linux.bench)) == set()


def _locks_are_shown(file: Path) -> bool:
    """Whether this kernel lists the locks of other processes: some containers' do not."""
    return f":{file.stat().st_ino} " in Path("/proc/locks").read_text(encoding="ascii")


def test_an_error_at_any_transaction_leaves_all_findings_and_closed_muxes() -> None:
    bench = Bench.of(NODE)
    bench.run_until_read()
    before = bench.wire.transactions
    assert failures(findings(bench)) == set()
    positions = bench.wire.transactions - before
    assert positions > 60
    for position in range(positions):
        bench.wire.faults.fail_at(bench.wire.transactions + position, errno.EREMOTEIO)
        assert [*findings(bench)] == ["bus", "mux m0", "mux inner", *DEVICES]
        bench.wire.faults.clear()
        outcomes = bench.run_until_read(3)
        assert all(isinstance(outcome, Reading) for outcome in outcomes.values())
        assert bench.all_muxes_are_closed()
