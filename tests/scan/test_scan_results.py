"""What a scan finds on simulated wires, and that it changes no chip there."""

from __future__ import annotations

import errno
import fcntl
from typing import TYPE_CHECKING, Any

import pytest

from agent import chips
from agent.chips import Measurement
from agent.config import parse
from agent.i2c.bus import Bus
from agent.i2c.muxes import MUX_KINDS
from agent.i2c.place import Place
from agent.i2c.transfers import OpenBus
from agent.scan import ADDRESSES, scan_bus
from agent.scan.configuration import as_toml
from agent.scan.machine import MachineScan
from agent.scan.results import BusScan, KernelOwned, UnknownChip
from agent.simulate import wire
from agent.simulate.chips import CONFIG
from agent.simulate.mux import SimulatedMux
from agent.simulate.rails import ConstantRail
from tests.bench import SHORTEST, TOLERANCE_VOLTS, Bench, ina260, ina3221, mux, with_shunt
from tests.scan import parts
from tests.scan.node import EEPROM, KERNELS, NODE, OTHER, ScannedNode, messages_to, sysfs_of

if TYPE_CHECKING:
    from pathlib import Path

    from agent.i2c.place import BusName
    from agent.simulate.part import Part
    from agent.simulate.wire import Transaction

EMPTY = mux("m0", 0x70) + ina260("away", 'mux = "m0", channel = 0')


def only_parts(*on_trunk: Part) -> ScannedNode:
    """A bus with these parts on it and nothing else."""
    node = ScannedNode(EMPTY)
    node.bench.world.muxes["m0"].unplug()
    for part in on_trunk:
        node.wire.attach(part)
    return node


def places(found: BusScan) -> list[str]:
    """Every chip and mux that was identified, in words."""
    muxes = [f"{mux.kind.part} {mux.name} {mux.place}" for mux in found.muxes]
    return muxes + [f"{chip.signature.part} {chip.place}" for chip in found.chips]


def test_a_scan_finds_every_part_and_writes_to_no_chip(tmp_path: Path) -> None:
    node = ScannedNode(sysfs=sysfs_of(tmp_path, {(1, KERNELS): "ina3221"}))
    node.add_strangers()
    result = node.scan()
    m0, m1 = "behind mux m0 (0x70 on /dev/i2c-1) channel", "behind mux m1 (0x71 on /dev/i2c-1) channel"
    assert places(result) == [
        "TCA9548A m0 0x70 on /dev/i2c-1",
        "TCA9548A m1 0x71 on /dev/i2c-1",
        f"TCA9548A m2 0x72 {m0} 6",
        "INA260 0x4f on /dev/i2c-1",
        f"INA260 0x40 {m0} 0",
        f"INA260 0x40 {m0} 3",
        f"INA3221 0x41 {m0} 4",
        f"INA260 0x40 {m1} 0",
        f"INA260 0x45 {m1} 0",
        f"INA3221 0x44 {m1} 2",
        f"INA260 0x40 {m1} 7",
        f"INA260 0x40 behind mux m2 (0x72 {m0} 6) channel 3",
    ]
    assert result.unknown == (UnknownChip(Place(1, None, None, EEPROM)),)
    assert result.kernel_owned == (KernelOwned(Place(1, None, None, KERNELS), "ina3221"),)
    assert result.errors == ()
    assert node.assert_right(result.chips) == 10
    # Nothing went to the kernel's chip, no byte to the unknown one, and only register numbers to the others.
    assert messages_to(node.log, [KERNELS]) == []
    assert {is_read for _, is_read, _ in messages_to(node.log, [EEPROM])} == {True}
    writes = [m for m in messages_to(node.log, ADDRESSES) if not m[1]]
    assert {len(data) for _, _, data in writes} == {1}
    assert {address for address, _, _ in writes} == {0x40, 0x41, OTHER, 0x45, 0x4F, 0x70, 0x71, 0x72}
    for transaction in node.log:
        first, *rest = transaction.messages
        if first.address < 0x70 and not first.is_read:
            assert [message.is_read for message in rest] == [True]


def test_a_scan_changes_no_configuration_register() -> None:
    node = ScannedNode()
    before = {name: dict(node.bench.chip(name)._words) for name in node.bench.world.chips}
    node.scan()
    for name, words in before.items():
        assert {number: word for number, word in node.bench.chip(name)._words.items() if number == CONFIG} == {
            CONFIG: words[CONFIG]
        }


def test_an_empty_bus_gives_an_empty_result() -> None:
    assert only_parts().scan() == BusScan(1, (), (), (), (), frozenset(), ())


def test_64_chips_behind_eight_muxes_are_found() -> None:
    text = "".join(mux(f"m{n}", 0x70 + n) for n in range(8)) + "".join(
        ina260(f"m{n}-{channel}", f'mux = "m{n}", channel = {channel}', more="")
        for n in range(8)
        for channel in range(8)
    )
    node = ScannedNode(text)
    result = node.scan()
    assert len(result.muxes) == 8
    # An empty address costs two NACKs, three where a chip could be used, and the channel is not selected again.
    assert node.wire.transactions < 65 * 280
    assert len(result.chips) == node.assert_right(result.chips) == 64


def test_channels_left_open_do_not_change_the_result() -> None:
    expected = ScannedNode().scan()
    node = ScannedNode()
    for name, control in (("m2", b"\x08"), ("m0", b"\x41"), ("m1", b"\xff")):
        node.bench.world.muxes[name].write(control)
        node.bench.world.muxes[name].stop()
    assert node.scan() == expected


def test_a_chip_on_the_trunk_is_found_only_there() -> None:
    node = ScannedNode(mux("m0", 0x70) + ina260("trunk", "bus = 1", 0x4F, more=""))
    node.bench.world.muxes["m0"].attach(3, parts.IdChip(0x4F, parts.INA226))
    result = node.scan()
    assert places(result) == ["TCA9548A m0 0x70 on /dev/i2c-1", "INA260 0x4f on /dev/i2c-1"]
    assert 0x4F in result.trunk_addresses


@pytest.mark.parametrize(
    ("words", "part", "is_sure"),
    [
        (parts.INA226, "INA226", True),
        (parts.INA228, "INA228", True),
        (parts.INA237, "INA237", True),
        (parts.INA238, "INA238", True),
        (parts.INA219, "INA219 or INA220", False),
        (parts.INA231, "INA230, INA231 or a clone of INA226", False),
        (parts.INA226 | {0xFE: 0x190F, 0xFF: 0x0000}, "INA230, INA231 or a clone of INA226", False),
        (parts.INA232, "INA232", False),
        (parts.INA234, "INA234", True),
        (parts.INA236, "INA236", True),
        (parts.INA237_WITHOUT_DEVICE_ID, "INA237 or INA700", False),
    ],
)
def test_ids_identify_a_power_chip_and_registers_make_one_likely(
    words: dict[int, int], part: str, *, is_sure: bool
) -> None:
    result = only_parts(parts.IdChip(0x45, words)).scan()
    (chip,) = result.chips
    assert (chip.signature.part, chip.signature.is_sure) == (part, is_sure)


@pytest.mark.parametrize("words", [parts.HDC1080, {}, {0xFF: 0x2270}, {0xFF: 0x3220, 0xFE: 0x4954}])
def test_another_chip_at_a_power_chips_address_is_unknown(
    words: dict[int, int],
) -> None:
    chip = parts.IdChip(0x45, words)
    result = only_parts(chip).scan()
    assert result.chips == ()
    assert [unknown.place.address for unknown in result.unknown] == [0x45]
    assert (0xFE in chip.pointers) == (words.get(0xFF) in (0x2270, 0x3220))  # it resets a Si7021


def test_an_ina3221_at_an_impossible_address_is_not_read() -> None:
    words = {0xFE: 0x5449, 0xFF: 0x3220}
    (chip,) = only_parts(parts.IdChip(0x45, words)).scan().chips
    assert (chip.signature.part, chip.inputs) == ("INA3221", ())


def test_a_fresh_chip_reads_zero_and_a_disabled_one_nothing() -> None:
    node = ScannedNode(ina260("fresh", "bus = 1", 0x40, more="") + ina260("off", "bus = 1", 0x41, more=""))
    node.bench.chip("fresh").power_loss()
    node.bench.chip("off").write(bytes((CONFIG, 0x61, 0x20)))  # the last result stays in its registers
    fresh, off = node.scan().chips
    assert fresh.inputs[0].measurement == Measurement(0.0, 0.0)
    assert off.inputs[0].measurement is None
    assert off.inputs[0].problem == "switched off, does not measure now"


def test_a_disabled_ina3221_input_shows_no_number() -> None:
    node = ScannedNode(ina3221("radio", "bus = 1", 2, more=""))
    node.bench.chip("radio").write(bytes((CONFIG, 0x21, 0x27)))  # as an agent leaves it that reads input 2 alone
    node.bench.clock.sleep(1.0)
    (chip,) = node.scan().chips
    assert [found.measurement is not None for found in chip.inputs] == [False, True, False]


@pytest.mark.parametrize("chip", SHORTEST)
def test_a_chip_with_an_external_shunt_is_read_in_any_configuration(chip: str) -> None:
    node = ScannedNode(with_shunt(chip, "cpu", "bus = 1", 0x4B))
    node.bench.chip("cpu").power_loss()
    node.bench.clock.sleep(1.0)
    (fresh,) = node.scan().chips
    node.bench.run_until_read()
    (set_up,) = node.scan().chips
    rail = node.bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    # INA230 and INA231 have no ID, and what an INA226 can do they can do.
    expected = "ina226" if chip in ("ina230", "ina231") else chip
    has_device_id = chip in ("ina226", "ina228", "ina234", "ina236", "ina238")
    for found in (fresh, set_up):
        assert (found.signature.chip, found.signature.is_sure) == (expected, has_device_id)
        assert chip.upper() in found.signature.part
        measured = found.inputs[0].measurement
        assert measured is not None
        assert measured.volts == pytest.approx(rail.volts, abs=TOLERANCE_VOLTS.get(chip, 1e-9))
        assert measured.amperes == pytest.approx(rail.amperes)
        assert found.has_external_shunt
    node.bench.run_next()  # the scan has not cleared the canary bit


@pytest.mark.parametrize("chip", ["ina230", "ina231"])
def test_the_configuration_of_a_scan_names_what_looks_the_same(chip: str) -> None:
    node = ScannedNode(with_shunt(chip, "cpu", "bus = 1", 0x45))
    node.bench.run_until_read()
    text = as_toml(MachineScan([node.scan()], [], {}))
    assert '\nchip = "ina226"   # INA230, INA231 or a clone of INA226, or another chip: no ID; ' in text
    settings = parse(text, chips.options(), default_hostname="node", environ={"HOME": "/nowhere"})
    found = Bench(settings, node.bench.clock, {"i2c1-0x45": node.bench.rails["cpu"]})
    found.world.wires[1] = node.bench.world.wires[1]
    found.sweep = found.new_sweep()
    found.run_until_read()  # compared with the rail


@pytest.mark.parametrize(("chip", "written"), [("ina228", b"\x00\x00\x10"), ("ina236", b"\x00\x51\x27")])
def test_a_chip_in_its_narrow_range_shows_no_number(chip: str, written: bytes) -> None:
    node = ScannedNode(with_shunt(chip, "cpu", "bus = 1"))
    node.bench.chip("cpu").write(written)
    node.bench.clock.sleep(1.0)
    (found,) = node.scan().chips
    assert found.inputs[0].measurement is None


def test_a_value_at_the_end_of_the_range_is_not_shown() -> None:
    overloaded = {0x00: 0x6127, 0x01: 0x7FFF, 0x02: 0x1000, 0xFE: 0x5449, 0xFF: 0x2270}
    (chip,) = only_parts(parts.IdChip(0x40, overloaded)).scan().chips
    assert chip.inputs[0].measurement is None
    assert "overload?" in (chip.inputs[0].problem or "")


# Muxes, and what only looks like one.


def test_a_mux_with_four_channels_is_only_likely() -> None:
    four = SimulatedMux(0x73, MUX_KINDS["pca9546a"])
    node = only_parts(four, SimulatedMux(0x74))
    four.attach(2, parts.IdChip(0x40, parts.INA226))
    result = node.scan()
    assert [(mux.kind.name, result.lookalikes[mux.name]) for mux in result.muxes] == [
        ("pca9546a", (MUX_KINDS["tca9545a"],)),
        ("tca9548a", ()),
    ]
    assert [chip.place.channel for chip in result.chips] == [2]
    assert four.control == 0


@pytest.mark.parametrize("memory", [bytes(16), b"\x00\x01\x02\x03" + bytes(12), b"\xff" * 16])
def test_a_display_at_a_mux_address_gets_no_command(memory: bytes) -> None:
    display = parts.HT16K33(0x70, memory)
    result = only_parts(display).scan()
    assert result.muxes == ()
    assert result.unknown == (UnknownChip(Place(1, None, None, 0x70), "no mux"),)
    assert display.written[0] == b"\x00"


def test_a_sensor_at_a_mux_address_gets_two_register_numbers_at_most() -> None:
    sensor = parts.PointedRegisters(0x76, {0x01: 0x60})
    assert only_parts(sensor).scan().muxes == ()
    assert set(sensor.written) <= {b"\x00", b"\x01"}


def test_a_chip_that_reads_differently_each_time_is_not_written_to() -> None:
    stream = parts.Foreign(0x71, b"$GPGGA,")
    assert only_parts(stream).scan().muxes == ()
    assert stream.written == []


def test_a_chip_that_does_not_store_zero_gets_no_other_byte() -> None:
    stubborn = parts.Foreign(0x71, b"\x5a")
    assert only_parts(stubborn).scan().muxes == ()
    assert set(stubborn.written) == {b"\x00"}


# The kernel's chips and muxes.


def test_kernel_chips_and_muxes_are_not_accessed(tmp_path: Path) -> None:
    sysfs_of(tmp_path, {(1, 0x70): "pca954x", (1, 0x4F): "ina2xx"})
    adapter = tmp_path / "devices/i2c-1/i2c-11"
    adapter.mkdir(parents=True)
    (tmp_path / "bus/i2c/devices/i2c-11").symlink_to(adapter)
    (tmp_path / "bus/i2c/devices/1-0070/channel-2").symlink_to(adapter)
    node = ScannedNode(sysfs=tmp_path)
    result = node.scan()
    place = Place(1, None, None, 0x70)
    assert KernelOwned(place, "pca954x", ((2, 11),)) in result.kernel_owned
    assert [mux.address for mux in result.muxes] == [0x71]
    assert messages_to(node.log, [0x70, 0x4F]) == []
    # On the bus that the kernel makes of a channel, the chips before the mux answer too and have the same owner.
    bus = Bus(11, [], lambda _: OpenBus(node.bench.world.open(1), None, lambda: None, 11), node.bench.clock, tmp_path)
    del node.log[:]
    behind = scan_bus(bus, iter(["k0"]), result.trunk_addresses)
    assert messages_to(node.log, [0x70, 0x71, 0x4F]) == []
    assert not behind.kernel_owned
    assert not behind.chips
    alone = scan_bus(bus, iter(["k0"]))  # without having scanned the parent bus first
    assert {owned.place.address for owned in alone.kernel_owned} == {0x70, 0x4F}
    assert messages_to(node.log, [0x70, 0x4F]) == []


# The bus is shared.


def test_the_bus_is_free_for_others_between_two_segments(tmp_path: Path) -> None:
    node = ScannedNode()
    device_file = tmp_path / "i2c-1"
    device_file.touch()
    turns = []

    def take_a_turn(done: int, total: int, where: str) -> None:
        with device_file.open() as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        turns.append((done, total, where))

    with device_file.open() as ours:

        def opener(name: BusName) -> OpenBus:
            return OpenBus(node.bench.world.open(name), ours.fileno(), lambda: None, None)

        result = scan_bus(Bus(1, [], opener, node.bench.clock), iter(("m0", "m1", "m2")), progress=take_a_turn)
    assert result.errors == ()
    assert [done for done, _, _ in turns] == list(range(25))  # the trunk and three muxes
    assert turns[0] == (0, 1, "on /dev/i2c-1")
    assert turns[-1][1] == 25


def test_a_run_keeps_reading_right_values_during_a_scan() -> None:
    node = ScannedNode(NODE)
    node.bench.run_until_read()

    def let_the_agent_read(done: int, _: int, __: str) -> None:
        if done % 5 == 0:
            outcomes = node.bench.run_next()
            assert node.bench.all_read(outcomes)  # right as well: see Bench.run

    result = node.scan(progress=let_the_agent_read)
    assert node.assert_right(result.chips) == 10


# Faults.


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize("code", [errno.EREMOTEIO, errno.ETIMEDOUT])
@pytest.mark.reliability(
    1.05,
    "an error at any transaction of a scan",
    "the scan finds the same chips and muxes, reads right values and closes every channel",
)
def test_a_fault_at_any_transaction_does_not_change_the_result(code: int, *, after_effect: bool) -> None:
    text = mux("m0", 0x70).replace("tca9548a", "pca9546a") + "".join(
        (
            ina260("trunk", "bus = 1", 0x4F, more=""),
            ina260("cpu", 'mux = "m0", channel = 3', more=""),
            ina3221("radio", 'mux = "m0", channel = 0', 2, more=""),
        )
    )
    expected, log = (node := ScannedNode(text)).scan(), node.log
    # At an empty address a fault changes nothing, so a few of those are enough.
    positions = [n for n, transaction in enumerate(log) if transaction.error is None or n % 29 == 0]
    assert len(positions) > 60
    for position in positions:
        node = ScannedNode(text)
        node.wire.faults.fail_at(position, code, after_effect=after_effect)
        result = node.scan()
        assert result.errors == (), position
        assert (result.muxes, result.chips) == (expected.muxes, expected.chips), position


def test_a_mux_that_stops_answering_is_reported_and_given_up() -> None:
    node = ScannedNode()

    def is_selected(transaction: Transaction) -> int | None:
        (message, *_) = transaction.messages
        return errno.EREMOTEIO if (message.address, message.data) == (0x70, b"\x20") else None

    node.wire.faults.fail_when(is_selected)
    result = node.scan()
    (error,) = result.errors
    assert str(error) == (
        "mux m0 (0x70 on /dev/i2c-1) does not answer: NACK; "
        "check its power, its wiring and its address straps: 0x70 is A2 low, A1 low, A0 low"
    )
    assert {chip.place.mux.name for chip in result.chips if chip.place.mux} == {"m0", "m1"}
    assert {chip.place.channel for chip in result.chips if chip.place.mux and chip.place.mux.name == "m0"} == {0, 3, 4}


def test_a_chip_that_refuses_every_byte_is_not_a_mux() -> None:
    node = ScannedNode()
    node.wire.faults.fail_when(
        lambda t: errno.EREMOTEIO if t.messages[0].address == 0x70 and not t.messages[0].is_read else None
    )
    result = node.scan()
    assert [mux.address for mux in result.muxes] == [0x71]
    assert result.errors == ()


def test_a_nack_that_a_usb_adapter_gives_no_number_is_a_nack(monkeypatch: pytest.MonkeyPatch) -> None:
    # As Blinka's code for an MCP2221 and others does.
    monkeypatch.setattr(wire, "_os_error", lambda _: RuntimeError("I2C write error"))
    node = only_parts(parts.IdChip(0x45, {}), parts.Foreign(0x70))
    node.wire.faults.fail_when(lambda t: None if t.messages[0].is_read else errno.EREMOTEIO)
    result = node.scan()
    assert [unknown.place.address for unknown in result.unknown] == [0x45, 0x70]
    assert result.errors == ()


def test_a_chip_that_times_out_is_reported_with_its_place() -> None:
    node = ScannedNode()
    m1 = node.bench.world.muxes["m1"]
    node.wire.faults.fail_when(
        lambda t: errno.ETIMEDOUT if t.messages[0].address == 0x45 and m1.open_channels == (0,) else None
    )
    result = node.scan()
    (error,) = result.errors
    assert str(error).startswith("0x45 behind mux m1 (0x71 on /dev/i2c-1) channel 0: time-out")
    assert node.assert_right(result.chips) == 9


@pytest.mark.parametrize("begins_at", [0, 200, 700])
def test_a_stuck_bus_is_given_up_at_once(begins_at: int) -> None:
    node = ScannedNode()
    node.wire.faults.fail_when(lambda t: errno.ETIMEDOUT if t.index >= begins_at else None)
    bus = Bus(1, [], node.bench._open, node.bench.clock, node.sysfs)
    result = scan_bus(bus, iter(("m0", "m1", "m2")))
    assert len(result.errors) == 1
    assert node.wire.transactions < begins_at + 30  # each may block for a second
    node.assert_right(result.chips)


def test_a_channel_that_blocks_the_bus_is_reported() -> None:
    node = ScannedNode()
    m0 = node.bench.world.muxes["m0"]
    node.wire.faults.fail_when(lambda _: errno.ETIMEDOUT if 3 in m0.open_channels else None)
    result = scan_bus(Bus(1, [], node.bench._open, node.bench.clock, node.sysfs), iter(("m0", "m1", "m2")))
    (error,) = result.errors
    assert str(error).startswith(
        "/dev/i2c-1: stuck since channel 3 of the mux at 0x70 on /dev/i2c-1 was opened; is a chip"
    )
    assert "Unplug it, then power-cycle the mux" in str(error)


def test_a_mux_that_does_not_close_ends_the_scan() -> None:
    node = ScannedNode()
    m0 = node.bench.world.muxes["m0"]
    write = m0.write
    m0.write = lambda data: None if data == b"\0" else write(data)
    result = scan_bus(Bus(1, [], node.bench._open, node.bench.clock, node.sysfs), iter(("m0", "m1", "m2")))
    (error,) = result.errors
    assert "the mux at 0x70 on /dev/i2c-1 does not close" in str(error)
    assert result.chips == ()


@pytest.mark.parametrize("goes_at", [0, 100, 1000])
def test_an_unplugged_adapter_is_a_single_error(goes_at: int) -> None:
    node = ScannedNode()
    node.wire.faults.fail_when(lambda t: errno.ENODEV if t.index > goes_at else None)
    result = scan_bus(Bus(1, [], node.bench._open, node.bench.clock, node.sysfs), iter(("m0", "m1", "m2")))
    assert [str(error) for error in result.errors] == [
        "/dev/i2c-1: No such device, the adapter is gone; was it unplugged?"
    ]
    node.assert_right(result.chips)


def test_an_adapter_without_plain_transfers_is_reported() -> None:
    node = only_parts()
    node.wire.faults.fail_when(lambda _: errno.EOPNOTSUPP)
    (error,) = node.scan().errors
    assert "cannot do plain I2C transfers" in str(error)
    assert "--bus N" in str(error)


def test_an_interrupted_scan_closes_every_channel() -> None:
    node = ScannedNode(NODE)
    transfer, first = node.wire.transfer, True

    def interrupted(messages: Any) -> None:
        nonlocal first
        transfer(messages)
        if first and node.bench.world.muxes["m0"].control == 0x08:
            first = False
            raise KeyboardInterrupt

    node.wire.transfer = interrupted
    with pytest.raises(KeyboardInterrupt):
        node.scan()  # sees that all muxes are closed
    assert not first
