"""Every kind of the table of muxes, alone and behind each other kind: a kind is one row, whatever its control byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.check import Status
from agent.check.hardware import check_hardware
from agent.chips import hwmon
from agent.i2c import hints
from agent.i2c.channels import driver_channel
from agent.i2c.muxes import CLOSED, MUX_KINDS, MuxKind, mux_kind, mux_names
from agent.i2c.place import Hop, Mux, Place
from agent.settings import Averaging, Device, Settings
from agent.simulate.i2c import SimulatedI2C
from agent.simulate.mux import SimulatedMux
from agent.simulate.wire import Wire
from tests.bench import Bench

if TYPE_CHECKING:
    from agent.simulate.clock import HandClock

KINDS = tuple(MUX_KINDS.values())
EACH_KIND = pytest.mark.parametrize("kind", KINDS, ids=list(MUX_KINDS))
TCA9548A, PCA9547, PCA9540B = (MUX_KINDS[name] for name in ("tca9548a", "pca9547", "pca9540b"))

INNER_KINDS = [kind for kind in KINDS if 0x71 in kind.addresses]
"""Those that can be behind another one: a PCA9540B has only 0x70."""

FAST = Averaging(4, 140e-6, 140e-6)


def bench_with(outer_kind: MuxKind, inner_kind: MuxKind) -> Bench:
    """A chip on the trunk and one behind each channel of two muxes; the inner one is behind the last outer channel."""
    outer = Mux("outer", outer_kind, Place(1, None, None, 0x70))
    inner = Mux("inner", inner_kind, Place(1, outer, outer_kind.channels - 1, 0x71))
    places = [Place(1, None, None, 0x4F)]
    places += [Place(1, outer, channel, 0x40) for channel in range(outer_kind.channels)]
    places += [Place(1, inner, channel, 0x41) for channel in range(inner_kind.channels)]
    devices = tuple(Device(place.address_path, "ina260", place, averaging=FAST) for place in places)
    return Bench(Settings("node", devices, (outer, inner)))


def raise_interrupts(bench: Bench) -> None:
    for simulated in bench.world.muxes.values():
        simulated.interrupts = 0xF0


@pytest.mark.parametrize(
    ("kind", "channel", "control_byte"),
    [
        ("tca9548a", 0, 0x01),
        ("tca9548a", 7, 0x80),
        ("pca9546a", 3, 0x08),
        ("tca9545a", 2, 0x04),
        ("tca9543a", 1, 0x02),
        ("tca9544a", 0, 0x04),
        ("tca9544a", 3, 0x07),
        ("pca9547", 0, 0x08),
        ("pca9547", 5, 0x0D),
        ("pca9540b", 0, 0x04),
        ("pca9540b", 1, 0x05),
    ],
)
def test_a_channel_has_the_control_byte_of_the_datasheet(kind: str, channel: int, control_byte: int) -> None:
    assert MUX_KINDS[kind].control_byte(channel) == control_byte


@pytest.mark.parametrize(
    ("kind", "aliases", "channels", "addresses", "interrupt_bits", "power_on"),
    [
        ("tca9548a", ("pca9548a",), 8, range(0x70, 0x78), 0x00, 0x00),
        ("pca9546a", ("tca9546a",), 4, range(0x70, 0x78), 0x00, 0x00),
        ("tca9545a", ("pca9545a",), 4, range(0x70, 0x74), 0xF0, 0x00),
        ("tca9543a", ("pca9543a",), 2, range(0x70, 0x74), 0x30, 0x00),
        ("tca9544a", ("pca9544a",), 4, range(0x70, 0x78), 0xF0, 0x00),
        ("pca9547", (), 8, range(0x70, 0x78), 0x00, 0x08),
        ("pca9540b", (), 2, range(0x70, 0x71), 0x00, 0x00),
    ],
)
def test_a_row_says_what_the_datasheet_says(  # noqa: PLR0917 - the columns of the table
    kind: str, aliases: tuple[str, ...], channels: int, addresses: range, interrupt_bits: int, power_on: int
) -> None:
    row = MUX_KINDS[kind]
    assert (row.name, row.aliases, row.channels, row.addresses) == (kind, aliases, channels, addresses)
    assert (row.interrupt_bits, row.power_on) == (interrupt_bits, power_on)


@EACH_KIND
def test_the_bits_of_a_mux_are_those_of_its_twin(kind: MuxKind) -> None:
    mux = SimulatedMux(0x70, kind)
    mux.interrupts = 0x5A
    for byte in range(0x100):
        mux.write(bytes((byte,)))
        mux.stop()
        assert kind.returns(mux.read(1)[0], byte)
        assert kind.connects(byte) == bool(mux.open_channels), hex(byte)


@EACH_KIND
def test_a_control_byte_connects_one_channel_of_the_simulated_mux(kind: MuxKind) -> None:
    mux = SimulatedMux(0x70, kind)
    mux.interrupts = 0xFF
    for channel in range(kind.channels):
        mux.write(bytes((kind.control_byte(channel),)))
        mux.stop()
        assert mux.open_channels == (channel,)
        assert kind.control_byte_in(mux.read(1)[0]) == kind.control_byte(channel)
    mux.write(bytes((CLOSED,)))
    mux.stop()
    assert mux.open_channels == ()


@pytest.mark.parametrize(("kind", "control_byte"), [(PCA9547, 0x07), (PCA9540B, 0x03), (PCA9540B, 0x06)])
def test_a_number_without_enable_bit_or_channel_connects_nothing(kind: MuxKind, control_byte: int) -> None:
    mux = SimulatedMux(0x70, kind)
    mux.write(bytes((control_byte,)))
    mux.stop()
    assert mux.open_channels == ()


def test_a_pca9547_connects_channel_0_at_power_on() -> None:
    mux = SimulatedMux(0x70, PCA9547)
    assert (mux.control, mux.open_channels) == (0x08, (0,))
    mux.write(b"\x00")
    mux.stop()
    mux.power_loss()
    assert mux.open_channels == (0,)


@pytest.mark.parametrize(
    ("kind", "address", "told"),
    [
        ("tca9548a", 0x75, "its address straps: 0x75 is A2 high, A1 low, A0 high"),
        ("tca9545a", 0x72, "its address straps: 0x72 is A1 high, A0 low"),
        ("tca9545a", 0x75, "its address straps: 0x75 is A2 high, A1 low, A0 high"),  # of another kind, then
        ("pca9540b", 0x70, "its wiring; it has no address straps"),
    ],
)
def test_a_silent_mux_is_told_with_the_straps_of_its_kind(kind: str, address: int, told: str) -> None:
    assert hints.of_silent_mux(address, MUX_KINDS[kind].addresses).endswith(told)


ANY_NESTING = {"kind": st.sampled_from(KINDS), "inner_kind": st.sampled_from(INNER_KINDS)}


@settings(max_examples=len(KINDS) * len(INNER_KINDS))
@given(**ANY_NESTING)
def test_every_channel_of_every_kind_is_read_also_nested(kind: MuxKind, inner_kind: MuxKind) -> None:
    bench = bench_with(kind, inner_kind)
    raise_interrupts(bench)
    outcomes = bench.run_until_read()  # sees that every value is right
    assert len(outcomes) == 1 + kind.channels + inner_kind.channels
    assert bench.all_muxes_are_closed()


@settings(max_examples=60)
@given(**ANY_NESTING, data=st.data(), after_effect=st.booleans())
def test_a_fault_at_any_transfer_never_makes_a_wrong_reading(
    kind: MuxKind, inner_kind: MuxKind, data: st.DataObject, *, after_effect: bool
) -> None:
    bench = bench_with(kind, inner_kind)
    bench.run_until_read()
    before = bench.wire.transactions
    bench.run_next()
    length = bench.wire.transactions - before
    position = data.draw(st.integers(0, length - 1))
    bench.wire.faults.fail_at(bench.wire.transactions + position, after_effect=after_effect)
    bench.run_next()  # sees that every value is right
    assert Bench.all_read(bench.run_until_read())


@settings(max_examples=20)
@given(**ANY_NESTING)
def test_the_hardware_check_accepts_every_kind(kind: MuxKind, inner_kind: MuxKind) -> None:
    bench = bench_with(kind, inner_kind)
    raise_interrupts(bench)
    bench.clock.sleep(1.0)
    found = list(check_hardware(bench.settings, list(bench.buses.values()), hwmon.Chip))
    assert {finding.status for finding in found} == {Status.OK}, list(map(str, found))
    assert "opens channels 0, 1" in next(finding.text for finding in found if finding.what == "mux outer")


def test_every_name_of_the_contract_means_a_kind() -> None:
    assert mux_kind("pca9548a") is mux_kind("tca9548a") is TCA9548A
    assert mux_kind("tca9545") is None
    names = ["tca9548a", "pca9548a", "pca9546a", "tca9546a", "tca9545a", "pca9545a", "tca9543a", "pca9543a"]
    names += ["tca9544a", "pca9544a", "pca9547", "pca9540b"]
    assert sorted(mux_names()) == sorted(names)


@EACH_KIND
def test_a_driver_opens_its_channel_and_closes_it_again(kind: MuxKind, clock: HandClock) -> None:
    wire = Wire(clock.monotonic)
    mux = SimulatedMux(0x70, kind)
    wire.attach(mux)
    for number in range(kind.channels):
        channel = driver_channel(SimulatedI2C(wire), Hop(Mux("m0", kind, Place(1, None, None, 0x70)), number))
        assert channel.try_lock()
        assert list(mux.open_channels) == [number]
        assert type(channel).__module__.startswith("agent.") == bool(kind.enable_bit)
        channel.unlock()
        assert mux.open_channels == ()


def test_a_numbered_channel_releases_the_lock_when_its_mux_is_silent(clock: HandClock) -> None:
    wire = Wire(clock.monotonic)
    mux = SimulatedMux(0x70, PCA9547)
    wire.attach(mux)
    i2c = SimulatedI2C(wire)
    channel = driver_channel(i2c, Hop(Mux("m0", PCA9547, Place(1, None, None, 0x70)), 6))
    assert channel.try_lock()
    assert list(mux.open_channels) == [6]
    assert not channel.try_lock()
    channel.unlock()
    assert mux.open_channels == ()
    mux.unplug()
    with pytest.raises(OSError, match=r"\[Errno 121\]"):
        channel.try_lock()
    assert i2c.try_lock()


def test_the_state_file_does_not_keep_mux_names() -> None:
    outer = Mux("a", TCA9548A, Place(1, None, None, 0x70))
    inner = Mux("b", MUX_KINDS["pca9546a"], Place(1, outer, 6, 0x71))
    device = Device("cpu", "ina260", Place(1, inner, 3, 0x40))
    assert device.source == "ina260 1/70.6/71.3/40"
    assert Device("cpu", "ina260", Place("board", None, None, 0x40)).source == "ina260 board/40"
    assert [hop.mux.name for hop in inner.place.path] == ["a"]


def test_devices_of_one_chip_are_grouped_in_the_order_of_the_configuration() -> None:
    shared, alone = Place(1, None, None, 0x41), Place(1, None, None, 0x40)
    devices = (
        Device("radio", "ina3221", shared, input=2, shunt_ohms=0.1),
        Device("module", "hwmon", sensor="ina3221", label="VDD_IN"),
        Device("cpu", "ina260", alone),
        Device("disk", "ina3221", shared, input=1, shunt_ohms=0.1),
    )
    chips = Settings("node", devices).chips()
    assert [(chip.place, chip.chip, [device.name for device in chip.devices]) for chip in chips] == [
        (shared, "ina3221", ["radio", "disk"]),
        (alone, "ina260", ["cpu"]),
    ]
