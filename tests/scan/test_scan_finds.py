"""What a scan finds on simulated wires, and what it does to the chips there: nothing."""

from __future__ import annotations

import errno
import fcntl
from typing import TYPE_CHECKING

import pytest

from agent.chips import Measurement
from agent.i2c.bus import Bus
from agent.i2c.place import Place
from agent.i2c.transfers import OpenBus
from agent.scan import ADDRESSES, scan_bus
from agent.scan.results import Finds, KernelOwned, Unknown
from agent.simulate.chips import CONFIG
from agent.simulate.mux import SimulatedMux
from agent.simulate.rails import ConstantRail
from tests.bench import SHORTEST, ina260, ina3221, mux, with_shunt
from tests.scan import parts
from tests.scan.node import EEPROM, KERNELS, NODE, OTHER, ScannedNode, messages_to, sysfs_of

if TYPE_CHECKING:
    from pathlib import Path

    from agent.i2c.place import BusName
    from agent.simulate.part import Part

EMPTY = mux("m0", 0x70) + ina260("away", 'mux = "m0", channel = 0')


def only_parts(*on_trunk: Part) -> ScannedNode:
    """A bus with these parts on it and nothing else."""
    node = ScannedNode(EMPTY)
    node.bench.world.muxes["m0"].unplug()
    for part in on_trunk:
        node.wire.attach(part)
    return node


def places(finds: Finds) -> list[str]:
    """Every chip and mux that was identified, in the words of a person."""
    muxes = [f"{found.kind.part} {found.mux.name} {found.place}" for found in finds.muxes]
    return muxes + [f"{chip.identity.part} {chip.place}" for chip in finds.chips]


def test_a_node_of_three_muxes_and_eleven_chips_is_found_as_it_is_and_no_chip_is_written_to(tmp_path: Path) -> None:
    node = ScannedNode(sysfs=sysfs_of(tmp_path, {(1, KERNELS): "ina3221"}))
    node.add_strangers()
    finds = node.scan()
    m0, m1 = "behind mux m0 (0x70 on /dev/i2c-1) channel", "behind mux m1 (0x71 on /dev/i2c-1) channel"
    assert places(finds) == [
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
    assert finds.unknown == (Unknown(Place(1, None, None, EEPROM)),)
    assert finds.kernel_owned == (KernelOwned(Place(1, None, None, KERNELS), "ina3221"),)
    assert finds.troubles == ()
    assert node.assert_right(finds.chips) == 10
    # Nothing at all went to the kernel's chip, no byte to the unknown one, and to the others numbers of registers only.
    assert messages_to(node.log, [KERNELS]) == []
    assert {is_read for _, is_read, _ in messages_to(node.log, [EEPROM])} == {True}
    writes = [m for m in messages_to(node.log, ADDRESSES) if not m[1]]
    assert {len(data) for _, _, data in writes} == {1}
    assert {address for address, _, _ in writes} == {0x40, 0x41, OTHER, 0x45, 0x4F, 0x70, 0x71, 0x72}
    for transaction in node.log:
        first, *rest = transaction.messages
        if first.address < 0x70 and not first.is_read:
            assert [message.is_read for message in rest] == [True]


def test_a_scan_leaves_the_configuration_of_every_chip_as_it_was() -> None:
    node = ScannedNode()
    before = {name: dict(node.bench.chip(name)._words) for name in node.bench.world.chips}
    node.scan()
    for name, words in before.items():
        assert {number: word for number, word in node.bench.chip(name)._words.items() if number == CONFIG} == {
            CONFIG: words[CONFIG]
        }


def test_a_bus_with_nothing_on_it_has_nothing() -> None:
    assert only_parts().scan() == Finds(1, (), (), (), (), frozenset(), ())


def test_eight_muxes_with_eight_channels_each_give_sixty_four_chips() -> None:
    text = "".join(mux(f"m{n}", 0x70 + n) for n in range(8)) + "".join(
        ina260(f"m{n}-{channel}", f'mux = "m{n}", channel = {channel}', more="")
        for n in range(8)
        for channel in range(8)
    )
    node = ScannedNode(text)
    finds = node.scan()
    assert len(finds.muxes) == 8
    # An empty address costs one NACK, and does not have the channel opened anew.
    assert node.wire.transactions < 65 * 150
    assert len(finds.chips) == node.assert_right(finds.chips) == 64


def test_a_channel_that_somebody_left_open_hides_nothing_and_moves_nothing() -> None:
    expected = ScannedNode().scan()
    node = ScannedNode()
    for name, control in (("m2", b"\x08"), ("m0", b"\x41"), ("m1", b"\xff")):
        node.bench.world.muxes[name].write(control)
        node.bench.world.muxes[name].stop()
    assert node.scan() == expected


def test_an_address_on_the_trunk_is_shown_once_and_said_to_hide_the_same_behind_every_mux() -> None:
    node = ScannedNode(mux("m0", 0x70) + ina260("trunk", "bus = 1", 0x4F, more=""))
    node.bench.world.muxes["m0"].attach(3, parts.IdChip(0x4F, parts.INA226))
    finds = node.scan()
    assert places(finds) == ["TCA9548A m0 0x70 on /dev/i2c-1", "INA260 0x4f on /dev/i2c-1"]
    assert 0x4F in finds.hiding


@pytest.mark.parametrize(
    ("words", "part", "is_sure"),
    [
        (parts.INA226, "INA226", True),
        (parts.INA228, "INA228", True),
        (parts.INA237, "INA237", True),
        (parts.INA238, "INA238", True),
        (parts.INA219, "INA219 or INA220", False),
        (parts.INA231, "INA230 or INA231", False),
    ],
)
def test_a_power_chip_is_named_by_its_ids_and_one_without_ids_as_likely_only(
    words: dict[int, int], part: str, *, is_sure: bool
) -> None:
    finds = only_parts(parts.IdChip(0x45, words)).scan()
    (chip,) = finds.chips
    assert (chip.identity.part, chip.identity.is_sure) == (part, is_sure)


@pytest.mark.parametrize("words", [parts.HDC1080, {}, {0xFF: 0x2270}, {0xFF: 0x3220, 0xFE: 0x4954}])
def test_another_chip_where_power_chips_sit_is_unknown_and_0xfe_is_read_only_of_what_may_be_one(
    words: dict[int, int],
) -> None:
    chip = parts.IdChip(0x45, words)
    finds = only_parts(chip).scan()
    assert finds.chips == ()
    assert [unknown.place.address for unknown in finds.unknown] == [0x45]
    assert (0xFE in chip.pointers) == (words.get(0xFF) in (0x2270, 0x3220))  # it resets a Si7021


def test_a_chip_with_the_id_of_an_ina3221_at_an_address_that_none_can_have_is_not_offered_for_reading() -> None:
    words = {0xFE: 0x5449, 0xFF: 0x3220}
    (chip,) = only_parts(parts.IdChip(0x45, words)).scan().chips
    assert (chip.identity.part, chip.inputs) == ("INA3221", ())


def test_a_chip_just_powered_reads_zero_and_a_chip_switched_off_nothing() -> None:
    node = ScannedNode(ina260("fresh", "bus = 1", 0x40, more="") + ina260("off", "bus = 1", 0x41, more=""))
    node.bench.chip("fresh").power_loss()
    node.bench.chip("off").write(bytes((CONFIG, 0x61, 0x20)))  # the last result stays in its registers
    fresh, off = node.scan().chips
    assert fresh.inputs[0].measurement == Measurement(0.0, 0.0)
    assert off.inputs[0].measurement is None
    assert off.inputs[0].problem == "switched off, does not measure now"


def test_an_input_of_an_ina3221_that_is_switched_off_shows_no_number() -> None:
    node = ScannedNode(ina3221("radio", "bus = 1", 2, more=""))
    node.bench.chip("radio").write(bytes((CONFIG, 0x21, 0x27)))  # as an agent leaves it that reads input 2 alone
    node.bench.clock.sleep(1.0)
    (chip,) = node.scan().chips
    assert [found.measurement is not None for found in chip.inputs] == [False, True, False]


@pytest.mark.parametrize("chip", SHORTEST)
def test_a_chip_with_a_shunt_on_the_board_is_read_as_it_is_and_named_again_once_it_is_set_up(chip: str) -> None:
    node = ScannedNode(with_shunt(chip, "cpu", "bus = 1", 0x45))
    node.bench.chip("cpu").power_loss()
    node.bench.clock.sleep(1.0)
    (fresh,) = node.scan().chips
    node.bench.run_until_read()
    (set_up,) = node.scan().chips
    rail = node.bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    for found in (fresh, set_up):
        assert (found.identity.chip, found.identity.is_sure) == (chip, chip != "ina219")
        measured = found.inputs[0].measurement
        assert measured is not None
        assert (measured.volts, measured.amperes) == pytest.approx((rail.volts, rail.amperes))
        assert found.has_external_shunt
    node.bench.run_next()  # the scan has taken no mark and no power away


def test_an_ina228_in_its_narrow_range_shows_no_number() -> None:
    node = ScannedNode(with_shunt("ina228", "cpu", "bus = 1"))
    node.bench.chip("cpu").write(b"\x00\x00\x10")
    node.bench.clock.sleep(1.0)
    (found,) = node.scan().chips
    assert found.inputs[0].measurement is None


def test_a_value_at_the_end_of_a_chips_range_is_no_value() -> None:
    overloaded = {0x00: 0x6127, 0x01: 0x7FFF, 0x02: 0x1000, 0xFE: 0x5449, 0xFF: 0x2270}
    (chip,) = only_parts(parts.IdChip(0x40, overloaded)).scan().chips
    assert chip.inputs[0].measurement is None
    assert "overload?" in (chip.inputs[0].problem or "")


# Muxes, and what only looks like one.


def test_a_four_channel_mux_is_told_from_one_with_eight_and_called_likely() -> None:
    four = SimulatedMux(0x73, 4)
    node = only_parts(four, SimulatedMux(0x74, 8))
    four.attach(3, parts.IdChip(0x40, parts.INA226))
    finds = node.scan()
    assert [(found.mux.chip, found.kind.is_sure) for found in finds.muxes] == [("pca9546a", False), ("tca9548a", True)]
    assert [chip.place.channel for chip in finds.chips] == [3]
    assert four.control == 0


@pytest.mark.parametrize("memory", [bytes(16), b"\x00\x01\x02\x03" + bytes(12), b"\xff" * 16])
def test_a_display_at_the_address_of_a_mux_gets_no_command_and_is_no_mux(memory: bytes) -> None:
    display = parts.HT16K33(0x70, memory)
    finds = only_parts(display).scan()
    assert finds.muxes == ()
    assert finds.unknown == (Unknown(Place(1, None, None, 0x70), "no mux"),)
    assert display.written[0] == b"\x00"


def test_a_sensor_with_registers_at_the_address_of_a_mux_is_no_mux_after_two_numbers_of_registers() -> None:
    sensor = parts.PointedRegisters(0x76, {0x01: 0x60})
    assert only_parts(sensor).scan().muxes == ()
    assert set(sensor.written) <= {b"\x00", b"\x01"}


def test_what_says_another_thing_each_time_it_is_read_is_not_written_to() -> None:
    stream = parts.Foreign(0x71, b"$GPGGA,")
    assert only_parts(stream).scan().muxes == ()
    assert stream.written == []


def test_what_does_not_take_the_zero_is_written_nothing_else() -> None:
    stubborn = parts.Foreign(0x71, b"\x5a")
    assert only_parts(stubborn).scan().muxes == ()
    assert set(stubborn.written) == {b"\x00"}


# The kernel's chips and muxes.


def test_nothing_of_the_kernels_is_touched_not_even_its_mux_whose_channels_are_named(tmp_path: Path) -> None:
    sysfs_of(tmp_path, {(1, 0x70): "pca954x", (1, 0x4F): "ina2xx"})
    adapter = tmp_path / "devices/i2c-1/i2c-11"
    adapter.mkdir(parents=True)
    (tmp_path / "bus/i2c/devices/i2c-11").symlink_to(adapter)
    (tmp_path / "bus/i2c/devices/1-0070/channel-2").symlink_to(adapter)
    node = ScannedNode(sysfs=tmp_path)
    finds = node.scan()
    place = Place(1, None, None, 0x70)
    assert KernelOwned(place, "pca954x", ((2, 11),)) in finds.kernel_owned
    assert [found.mux.address for found in finds.muxes] == [0x71]
    assert messages_to(node.log, [0x70, 0x4F]) == []
    # On the bus that the kernel makes of a channel, the chips before the mux answer too: they have the same owner.
    bus = Bus(11, [], lambda _: OpenBus(node.bench.world.open(1), None, lambda: None, 11), node.bench.clock, tmp_path)
    del node.log[:]
    behind = scan_bus(bus, iter(["k0"]), finds.hiding)
    assert messages_to(node.log, [0x70, 0x71, 0x4F]) == []
    assert not behind.kernel_owned
    assert not behind.chips
    alone = scan_bus(bus, iter(["k0"]))  # without having looked at the bus before it
    assert {owned.place.address for owned in alone.kernel_owned} == {0x70, 0x4F}
    assert messages_to(node.log, [0x70, 0x4F]) == []


# The bus is shared.


def test_the_bus_is_free_for_others_between_two_stretches(tmp_path: Path) -> None:
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

        finds = scan_bus(Bus(1, [], opener, node.bench.clock), iter(("m0", "m1", "m2")), progress=take_a_turn)
    assert finds.troubles == ()
    assert [done for done, _, _ in turns] == list(range(25))  # the trunk and three muxes
    assert turns[0] == (0, 1, "on /dev/i2c-1")
    assert turns[-1][1] == 25


def test_a_run_on_the_same_wire_reads_on_right_values_while_it_is_scanned() -> None:
    node = ScannedNode(NODE)
    node.bench.run_until_read()

    def let_the_agent_read(done: int, _: int, __: str) -> None:
        if done % 5 == 0:
            outcomes = node.bench.run_next()
            assert node.bench.all_read(outcomes)  # right as well: see Bench.run

    finds = node.scan(progress=let_the_agent_read)
    assert node.assert_right(finds.chips) == 10


# Faults.


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize("code", [errno.EREMOTEIO, errno.ETIMEDOUT])
@pytest.mark.reliability(
    8,
    "a scan disturbed at any transaction of it",
    "finds the same chips and muxes, reads right values, closes every channel",
)
def test_a_fault_at_any_transaction_changes_nothing_that_is_found(code: int, *, after_effect: bool) -> None:
    text = mux("m0", 0x70).replace("tca9548a", "pca9546a") + "".join(
        (
            ina260("trunk", "bus = 1", 0x4F, more=""),
            ina260("cpu", 'mux = "m0", channel = 3', more=""),
            ina3221("radio", 'mux = "m0", channel = 0', 2, more=""),
        )
    )
    expected, log = (node := ScannedNode(text)).scan(), node.log
    # Where nobody answers, a fault is the same as nobody: of those a few will do.
    positions = [n for n, transaction in enumerate(log) if transaction.error is None or n % 29 == 0]
    assert len(positions) > 60
    for position in positions:
        node = ScannedNode(text)
        node.wire.faults.fail_at(position, code, after_effect=after_effect)
        finds = node.scan()
        assert finds.troubles == (), position
        assert (finds.muxes, finds.chips) == (expected.muxes, expected.chips), position


def test_a_mux_that_stops_answering_costs_what_is_behind_it_and_says_what_to_look_at() -> None:
    node = ScannedNode()

    def is_selected(transaction: object) -> int | None:
        (message, *_) = transaction.messages  # type: ignore[attr-defined] # a Transaction
        return errno.EREMOTEIO if (message.address, message.data) == (0x70, b"\x20") else None

    node.wire.faults.fail_when(is_selected)
    finds = node.scan()
    (trouble,) = finds.troubles
    assert str(trouble) == (
        "mux m0 (0x70 on /dev/i2c-1) does not answer: NACK; "
        "check its power, its wiring and its address straps: 0x70 is A2 low, A1 low, A0 low"
    )
    assert {chip.place.mux.name for chip in finds.chips if chip.place.mux} == {"m0", "m1"}
    assert {chip.place.channel for chip in finds.chips if chip.place.mux and chip.place.mux.name == "m0"} == {0, 3, 4}


def test_what_answers_at_the_address_of_a_mux_and_refuses_every_byte_is_no_mux() -> None:
    node = ScannedNode()
    node.wire.faults.fail_when(
        lambda t: errno.EREMOTEIO if t.messages[0].address == 0x70 and not t.messages[0].is_read else None
    )
    finds = node.scan()
    assert [found.mux.address for found in finds.muxes] == [0x71]
    assert finds.troubles == ()


def test_a_chip_that_holds_the_bus_until_it_times_out_is_a_trouble_that_names_its_place() -> None:
    node = ScannedNode()
    m1 = node.bench.world.muxes["m1"]
    node.wire.faults.fail_when(
        lambda t: errno.ETIMEDOUT if t.messages[0].address == 0x45 and m1.open_channels == (0,) else None
    )
    finds = node.scan()
    (trouble,) = finds.troubles
    assert str(trouble).startswith("0x45 behind mux m1 (0x71 on /dev/i2c-1) channel 0: time-out")
    assert node.assert_right(finds.chips) == 9


@pytest.mark.parametrize("begins_at", [0, 200, 700])
def test_a_bus_that_gets_stuck_is_given_up_at_once(begins_at: int) -> None:
    node = ScannedNode()
    node.wire.faults.fail_when(lambda t: errno.ETIMEDOUT if t.index >= begins_at else None)
    bus = Bus(1, [], node.bench._open, node.bench.clock, node.sysfs)
    finds = scan_bus(bus, iter(("m0", "m1", "m2")))
    assert len(finds.troubles) == 1
    assert node.wire.transactions < begins_at + 30  # each may block for a second
    node.assert_right(finds.chips)


def test_a_channel_that_takes_the_whole_bus_down_is_named() -> None:
    node = ScannedNode()
    m0 = node.bench.world.muxes["m0"]
    node.wire.faults.fail_when(lambda _: errno.ETIMEDOUT if 3 in m0.open_channels else None)
    finds = scan_bus(Bus(1, [], node.bench._open, node.bench.clock, node.sysfs), iter(("m0", "m1", "m2")))
    (trouble,) = finds.troubles
    assert str(trouble).startswith(
        "/dev/i2c-1: stuck since channel 3 of the mux at 0x70 on /dev/i2c-1 was opened; does"
    )
    assert "Unplug it, and switch the mux off and on" in str(trouble)


def test_behind_a_mux_that_does_not_close_nothing_is_taken_for_its_neighbours() -> None:
    node = ScannedNode()
    m0 = node.bench.world.muxes["m0"]
    write = m0.write
    m0.write = lambda data: None if data == b"\0" else write(data)  # type: ignore[method-assign] # it has lost a wire
    finds = scan_bus(Bus(1, [], node.bench._open, node.bench.clock, node.sysfs), iter(("m0", "m1", "m2")))
    (trouble,) = finds.troubles
    assert "the mux at 0x70 on /dev/i2c-1 does not close" in str(trouble)
    assert finds.chips == ()


@pytest.mark.parametrize("goes_at", [0, 100, 1000])
def test_an_adapter_that_is_unplugged_is_one_trouble_and_not_one_for_each_address(goes_at: int) -> None:
    node = ScannedNode()
    node.wire.faults.fail_when(lambda t: errno.ENODEV if t.index > goes_at else None)
    finds = scan_bus(Bus(1, [], node.bench._open, node.bench.clock, node.sysfs), iter(("m0", "m1", "m2")))
    assert [str(trouble) for trouble in finds.troubles] == [
        "/dev/i2c-1: No such device, the adapter is gone; was it unplugged?"
    ]
    node.assert_right(finds.chips)


def test_an_adapter_that_cannot_do_plain_transfers_is_named_as_such() -> None:
    node = only_parts()
    node.wire.faults.fail_when(lambda _: errno.EOPNOTSUPP)
    (trouble,) = node.scan().troubles
    assert "cannot do plain I2C transfers" in str(trouble)
    assert "--bus N" in str(trouble)


def test_a_scan_that_is_interrupted_closes_every_channel() -> None:
    node = ScannedNode(NODE)
    transfer, first = node.wire.transfer, True

    def interrupted(messages: object) -> None:
        nonlocal first
        transfer(messages)  # type: ignore[arg-type] # handed on
        if first and node.bench.world.muxes["m0"].control == 0x08:
            first = False
            raise KeyboardInterrupt

    node.wire.transfer = interrupted  # type: ignore[method-assign] # somebody at the keyboard
    with pytest.raises(KeyboardInterrupt):
        node.scan()  # sees that all muxes are closed
    assert not first
