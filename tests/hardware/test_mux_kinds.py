"""A kind of mux is one row, whatever its control byte looks like: these rows are not in the table that we ship."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, cast

import pytest

from agent.check import Status
from agent.check.hardware import check_hardware
from agent.chips import hwmon
from agent.i2c.bus import Bus
from agent.i2c.channels import driver_channel
from agent.i2c.muxes import CLOSED, MUX_KINDS, MuxKind, mux_kind, mux_names
from agent.i2c.place import Hop, Mux, Place
from agent.scan import scan_bus
from agent.scan.muxes import lookalikes
from agent.settings import Averaging, Device, Settings
from agent.simulate.i2c import SimulatedI2C
from agent.simulate.mux import SimulatedMux
from agent.simulate.wire import Wire
from tests.bench import Bench

if TYPE_CHECKING:
    from agent.simulate.clock import HandClock

TCA9548A = MUX_KINDS["tca9548a"]
PCA9546A = MUX_KINDS["pca9546a"]
PCA9547 = MuxKind("pca9547", part="PCA9547", channels=8, datasheet="NXP PCA9547", enable_bit=0x08, power_on=0x08)
PCA9540B = MuxKind("pca9540b", part="PCA9540B", channels=2, datasheet="NXP PCA9540B", enable_bit=0x04)
TCA9545A = MuxKind("tca9545a", part="TCA9545A", channels=4, datasheet="SCPS204", interrupt_bits=0xF0, aliases=("irq4",))
KINDS = (TCA9548A, PCA9546A, PCA9547, PCA9540B, TCA9545A)
EACH_KIND = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])

FAST = Averaging(4, 140e-6, 140e-6)


def use_table(monkeypatch: pytest.MonkeyPatch, *kinds: MuxKind) -> None:
    """Make these the rows of the table, in this order."""
    table = cast("dict[str, MuxKind]", MUX_KINDS)
    for name in tuple(table):
        monkeypatch.delitem(table, name)
    for kind in kinds:
        monkeypatch.setitem(table, kind.name, kind)


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
        (TCA9548A, 0, 0x01),
        (TCA9548A, 7, 0x80),
        (PCA9546A, 3, 0x08),
        (PCA9547, 0, 0x08),
        (PCA9547, 5, 0x0D),
        (PCA9540B, 0, 0x04),
        (PCA9540B, 1, 0x05),
        (TCA9545A, 2, 0x04),
    ],
)
def test_a_channel_has_the_control_byte_of_the_datasheet(kind: MuxKind, channel: int, control_byte: int) -> None:
    assert kind.control_byte(channel) == control_byte


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


@EACH_KIND
@pytest.mark.parametrize("inner_kind", [TCA9548A, PCA9547], ids=["in_tca9548a", "in_pca9547"])
def test_every_channel_of_every_kind_is_read_also_nested(kind: MuxKind, inner_kind: MuxKind) -> None:
    bench = bench_with(kind, inner_kind)
    raise_interrupts(bench)
    outcomes = bench.run_until_read()  # sees that every value is right
    assert len(outcomes) == 1 + kind.channels + inner_kind.channels
    assert bench.all_muxes_are_closed()


def test_a_fault_at_any_transfer_never_makes_a_wrong_reading() -> None:
    bench = bench_with(PCA9547, PCA9540B)
    bench.run_until_read()
    length = bench.wire.transactions
    for position in range(length):
        bench = bench_with(PCA9547, PCA9540B)
        bench.wire.faults.fail_at(position, after_effect=position % 2 == 0)
        bench.run()  # sees that every value is right
        bench.run_next()
    assert length > 50


@EACH_KIND
def test_the_hardware_check_accepts_every_kind(kind: MuxKind) -> None:
    bench = bench_with(kind, PCA9547)
    raise_interrupts(bench)
    bench.clock.sleep(1.0)
    found = list(check_hardware(bench.settings, list(bench.buses.values()), hwmon.Chip))
    assert {finding.status for finding in found} == {Status.OK}, list(map(str, found))
    assert "opens channels 0, 1" in next(finding.text for finding in found if finding.what == "mux outer")


@EACH_KIND
@pytest.mark.parametrize("interrupts", [0x00, 0x10, 0xF0])
def test_a_scan_finds_each_kind_and_every_chip_behind_it(
    kind: MuxKind, interrupts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_table(monkeypatch, kind, *(other for other in KINDS if other.control_bits != kind.control_bits))
    bench = bench_with(kind, kind)
    for simulated in bench.world.muxes.values():
        simulated.interrupts = interrupts
    bench.clock.sleep(1.0)
    result = scan_bus(Bus(1, [], bench._open, bench.clock), (f"m{number}" for number in count()))
    assert result.errors == ()
    assert [mux.kind for mux in result.muxes] == [kind, kind]
    paths = {chip.place.address_path for chip in result.chips}
    assert paths == {device.name for device in bench.settings.devices}
    assert all(simulated.control == CLOSED for simulated in bench.world.muxes.values())


def test_kinds_with_equal_control_bits_are_reported_as_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    use_table(monkeypatch, TCA9548A, PCA9546A, PCA9547, PCA9540B)
    assert lookalikes(PCA9546A) == ("PCA9545A", "PCA9547")
    assert lookalikes(PCA9547) == ("PCA9546A",)
    assert lookalikes(PCA9540B) == lookalikes(TCA9548A) == ()


def test_an_alias_means_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    use_table(monkeypatch, *KINDS)
    assert mux_kind("irq4") is mux_kind("tca9545a") is TCA9545A
    assert mux_kind("tca9545") is None
    assert mux_names() == (*(kind.name for kind in KINDS), "irq4")


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
    inner = Mux("b", PCA9546A, Place(1, outer, 6, 0x71))
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
