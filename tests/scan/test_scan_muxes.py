"""Which kind a scan takes a mux for, what it says of those that look alike, and that nothing else passes for a mux."""

from __future__ import annotations

import errno
import io
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.i2c.bus import Bus
from agent.i2c.muxes import CLOSED, MUX_ADDRESSES, MUX_KINDS, lookalikes
from agent.i2c.transfers import OpenBus
from agent.scan import scan_bus
from agent.scan.configuration import as_toml
from agent.scan.machine import MachineScan
from agent.scan.table import print_scans
from agent.simulate.clock import HandClock
from agent.simulate.i2c import SimulatedI2C
from agent.simulate.mux import SimulatedMux
from agent.simulate.wire import Wire
from tests.scan import parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hypothesis.strategies import SearchStrategy

    from agent.i2c.muxes import MuxKind
    from agent.scan.results import BusScan
    from agent.simulate.part import Part
    from agent.simulate.wire import Transaction

    Populated = Mapping[int, Sequence[int]]
    """The addresses of the chips on each channel."""

KINDS = tuple(MUX_KINDS.values())


class Board:
    """A bus with these parts, and one mux with chips behind it."""

    def __init__(self, *on_trunk: Part) -> None:
        self.clock = HandClock()
        self.wire = Wire(self.clock.monotonic)
        self.muxes: list[SimulatedMux] = []
        for part in on_trunk:
            self.wire.attach(part)

    def add_mux(self, kind: MuxKind, populated: Populated, address: int = 0x70, interrupts: int = 0x00) -> SimulatedMux:
        mux = SimulatedMux(address, kind)
        mux.interrupts = interrupts
        for channel, addresses in populated.items():
            for chip in addresses:
                mux.attach(channel, parts.IdChip(chip, parts.INA226))
        self.wire.attach(mux)
        self.muxes.append(mux)
        return mux

    def scan(self) -> BusScan:
        def opened(_: object) -> OpenBus:
            i2c = SimulatedI2C(self.wire)
            return OpenBus(i2c, None, i2c.deinit)

        result = scan_bus(Bus(1, [], opened, self.clock), (f"m{number}" for number in count()))
        assert all(mux.control == CLOSED for mux in self.muxes)
        return result


def kinds_of(result: BusScan) -> list[tuple[str, ...]]:
    """Of each mux, the name of its kind and those of its lookalikes."""
    return [(mux.kind.name, *(other.name for other in result.lookalikes[mux.name])) for mux in result.muxes]


def filled(kind: MuxKind) -> Populated:
    """Another address on each channel."""
    return {channel: [0x40 + channel] for channel in range(kind.channels)}


@pytest.mark.parametrize(
    ("kind", "address", "interrupts", "found"),
    [
        ("tca9548a", 0x70, 0x00, ("tca9548a",)),
        ("pca9546a", 0x70, 0x00, ("pca9546a", "tca9545a")),
        ("pca9546a", 0x74, 0x00, ("pca9546a",)),
        ("tca9545a", 0x73, 0x00, ("pca9546a", "tca9545a")),
        ("tca9545a", 0x73, 0x20, ("tca9545a",)),
        ("tca9543a", 0x71, 0x00, ("tca9543a",)),
        ("tca9543a", 0x71, 0x30, ("tca9543a",)),
        ("tca9544a", 0x70, 0x00, ("tca9544a",)),
        ("tca9544a", 0x77, 0x00, ("tca9544a",)),
        ("tca9544a", 0x77, 0x80, ("tca9544a",)),
        ("pca9547", 0x70, 0x00, ("pca9547",)),
        ("pca9547", 0x77, 0x00, ("pca9547",)),
        ("pca9540b", 0x70, 0x00, ("tca9544a", "pca9540b")),
    ],
)
def test_a_scan_names_a_mux_as_far_as_it_can_know(
    kind: str, address: int, interrupts: int, found: tuple[str, ...]
) -> None:
    board = Board()
    board.add_mux(MUX_KINDS[kind], filled(MUX_KINDS[kind]), address, interrupts)
    result = board.scan()
    assert kinds_of(result) == [found]
    assert result.errors == ()
    assert [(chip.place.channel, chip.place.address) for chip in result.chips] == [
        (channel, 0x40 + channel) for channel in range(MUX_KINDS[kind].channels)
    ]


def populated(kind: MuxKind) -> SearchStrategy[Populated]:
    addresses = st.lists(st.sampled_from([0x40, 0x41, 0x45]), unique=True, max_size=2)
    return st.fixed_dictionaries(dict.fromkeys(range(kind.channels), addresses))


def boards() -> SearchStrategy[tuple[MuxKind, int, Populated, int]]:
    """A kind, an address that it can have, what is behind it, and its interrupt lines."""
    return st.sampled_from(KINDS).flatmap(
        lambda kind: st.tuples(
            st.just(kind), st.sampled_from(kind.addresses), populated(kind), st.sampled_from([0x00, 0x10, 0xA0])
        )
    )


@settings(max_examples=60)
@given(boards(), st.sets(st.sampled_from([0x41, 0x4A])))
def test_the_true_kind_is_the_one_found_or_named_beside_it(
    drawn: tuple[MuxKind, int, Populated, int], on_trunk: set[int]
) -> None:
    kind, address, chips, interrupts = drawn
    board = Board(*(parts.IdChip(chip, parts.INA226) for chip in sorted(on_trunk)))
    board.add_mux(kind, chips, address, interrupts)
    result = board.scan()
    assert result.errors == ()
    (names,) = kinds_of(result)
    assert kind.name in names
    (mux,) = result.muxes
    connected = {kind.control_byte(channel): chips[channel] for channel in range(kind.channels)}
    found = [
        (mux.kind.control_byte(c.place.channel), c.place.address) for c in result.chips if c.place.channel is not None
    ]
    # Whatever it is taken for, each chip is found at a control byte that connects it.
    assert all(chip in connected.get(byte, ()) for byte, chip in found)
    if mux.kind.enable_bit == kind.enable_bit:
        assert sorted(found) == sorted((b, c) for b, behind in connected.items() for c in set(behind) - on_trunk)


@pytest.mark.reliability(
    1.051,
    "an error at any transaction while a scan recognises a mux",
    "the same kinds and chips as without",
)
@settings(max_examples=40)
@given(
    boards(),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([errno.EREMOTEIO, errno.ETIMEDOUT]),
    st.booleans(),
)
def test_an_error_anywhere_changes_no_kind(
    drawn: tuple[MuxKind, int, Populated, int],
    share: float,
    code: int,
    after_effect: bool,  # noqa: FBT001 - drawn
) -> None:
    kind, address, chips, interrupts = drawn
    healthy, disturbed = Board(), Board()
    for board in (healthy, disturbed):
        board.add_mux(kind, chips, address, interrupts)
    expected = healthy.scan()
    disturbed.wire.faults.fail_at(int(share * healthy.wire.transactions), code, after_effect=after_effect)
    result = disturbed.scan()
    assert result.errors == ()
    assert (kinds_of(result), result.chips) == (kinds_of(expected), expected.chips)


def test_a_brown_out_while_a_mux_is_recognised_makes_no_other_kind() -> None:
    """A PCA9546A that closes by itself shows other addresses, as a PCA9547 does."""
    kind = MUX_KINDS["pca9546a"]
    healthy = Board()
    log: list[Transaction] = []
    healthy.wire.log = log
    healthy.add_mux(kind, {3: [0x40]})
    expected = kinds_of(healthy.scan())
    assert expected == [("pca9546a", "tca9545a")]
    first = next(n for n, t in enumerate(log) if t.messages[0].data == b"\x01")
    for position in range(first, first + 500, 7):
        board = Board()
        mux = board.add_mux(kind, {3: [0x40]})
        board.wire.faults.fail_when(partial(brown_out, mux, position))
        assert ("pca9547",) not in kinds_of(board.scan()), position


def brown_out(part: Part, position: int, transaction: Transaction) -> None:
    if transaction.index == position:
        part.power_loss()


def two_muxes() -> tuple[Board, SimulatedMux]:
    """A PCA9547, which connects its channel 0 when it loses its power, beside another mux; a third is behind it."""
    board = Board()
    mux = board.add_mux(MUX_KINDS["pca9547"], {0: [0x41], 5: [0x44]}, 0x70)
    mux.attach(0, SimulatedMux(0x73, MUX_KINDS["tca9543a"]))
    board.add_mux(MUX_KINDS["tca9543a"], {0: [0x45], 1: [0x46]}, 0x71)
    return board, mux


def found_on(result: BusScan) -> list[tuple[str, object]]:
    muxes = [(mux.place.address_path, mux.kind.name) for mux in result.muxes]
    return [*muxes, *((chip.place.address_path, chip.signature) for chip in result.chips)]


def test_a_brown_out_at_any_moment_puts_no_chip_elsewhere() -> None:
    healthy, _ = two_muxes()
    log: list[Transaction] = []
    healthy.wire.log = log
    expected = healthy.scan()
    assert len(expected.chips) == 4
    identified = [n for n, t in enumerate(log) if t.messages[0].address == 0x44 and not t.messages[0].is_read]
    first, second = ([n for n, t in enumerate(log) if t.messages[0].address == address] for address in (0x70, 0x71))
    recognised = [*first[:30:4], *second[2:20:4]]  # the second one after the first one was closed
    for position in sorted({*identified[:6], *recognised, *range(20, healthy.wire.transactions - 60, 131)}):
        board, mux = two_muxes()
        board.wire.faults.fail_when(partial(brown_out, mux, position))
        result = board.scan()
        assert result.errors == (), position
        assert found_on(result) == found_on(expected), position


def test_a_part_that_refuses_what_is_written_hides_no_brown_out() -> None:
    """After such an error, the muxes are switched again before the segment is complete."""
    board, mux = two_muxes()
    board.muxes[1].attach(0, parts.Foreign(0x72))
    has_lost_power = False

    def act(transaction: Transaction) -> int | None:
        nonlocal has_lost_power
        message = transaction.messages[0]
        # The first probe of the address that is also behind channel 0 of the PCA9547, on the segment of the part.
        if message.address == 0x41 and board.muxes[1].open_channels == (0,) and not has_lost_power:
            has_lost_power = True
            mux.power_loss()
        return errno.EREMOTEIO if message.address == 0x72 and not message.is_read else None

    board.wire.faults.fail_when(act)
    result = board.scan()
    assert has_lost_power
    assert [place for place, _ in found_on(result)][3:] == ["1/70.0/41", "1/70.5/44", "1/71.0/45", "1/71.1/46"]


def test_a_mux_that_is_unplugged_during_a_scan_hides_no_other() -> None:
    board, _ = two_muxes()

    def act(transaction: Transaction) -> None:
        message = transaction.messages[0]
        if message.address == 0x44 and not message.is_read:  # a chip of the first mux is identified
            board.muxes[1].unplug()

    board.wire.faults.fail_when(act)
    result = board.scan()
    assert [chip.place.address_path for chip in result.chips] == ["1/70.0/41", "1/70.5/44"]
    assert "mux m1 (0x71 on /dev/i2c-1) does not answer" in " ".join(map(str, result.errors))


def test_a_mux_that_keeps_opening_by_itself_is_an_error() -> None:
    board, mux = two_muxes()

    def act(transaction: Transaction) -> None:
        if transaction.index % 50 == 0:
            mux.power_loss()

    board.wire.faults.fail_when(act)
    result = board.scan()
    assert result.errors
    assert "stable supply" in str(result.errors[0])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.interrupt_bits], ids=lambda kind: kind.name)
def test_an_interrupt_line_that_changes_hides_no_mux(kind: MuxKind) -> None:
    for after in range(30):
        board = Board()
        mux = board.add_mux(kind, filled(kind), 0x72)
        mux.write(b"\x07")  # left open by a process that was killed
        mux.stop()
        board.wire.faults.fail_when(partial(change_line, mux, after, count()))
        result = board.scan()
        (names,) = kinds_of(result)
        assert kind.name in names, after
        # Once it is taken for a kind without lines, the user has to scan again.
        assert result.errors == () or names[0] == "pca9546a"
        assert result.errors != () or [c.place.channel for c in result.chips] == list(range(kind.channels)), after


def change_line(mux: SimulatedMux, after: int, numbers: Iterator[int], transaction: Transaction) -> None:
    if transaction.messages[0].address == mux.address and next(numbers) == after:
        mux.interrupts ^= 0x10


@pytest.mark.parametrize("words", [parts.INA226, parts.INA228, parts.INA3221, parts.INA219, parts.INA231])
def test_equal_monitors_on_all_channels_tell_a_pca9547(words: Mapping[int, int]) -> None:
    """Each keeps a register pointer of its own, also if every register of all of them is equal."""
    board = Board()
    mux = board.add_mux(MUX_KINDS["pca9547"], {})
    for channel in range(8):
        mux.attach(channel, parts.IdChip(0x40, words))
    result = board.scan()
    assert kinds_of(result) == [("pca9547",)]
    assert [(chip.place.channel, chip.place.address) for chip in result.chips] == [(n, 0x40) for n in range(8)]


def test_one_monitor_on_the_last_channel_tells_a_switch() -> None:
    board = Board(parts.IdChip(0x41, parts.INA226))
    board.add_mux(MUX_KINDS["pca9546a"], {3: [0x40]}, 0x74)
    result = board.scan()
    assert kinds_of(result) == [("pca9546a",)]
    assert [chip.place.channel for chip in result.chips] == [None, 3]


def test_a_brown_out_while_equal_monitors_are_told_apart_makes_no_other_kind() -> None:
    kind = MUX_KINDS["pca9547"]
    healthy = Board()
    log: list[Transaction] = []
    healthy.wire.log = log
    healthy.add_mux(kind, {channel: [0x40] for channel in range(8)})
    assert kinds_of(healthy.scan()) == [("pca9547",)]
    first = next(n for n, t in enumerate(log) if t.messages[0].data == b"\xfe")
    for position in range(first, first + 60, 3):
        board = Board()
        mux = board.add_mux(kind, {channel: [0x40] for channel in range(8)})
        chips = [part for channel in mux._behind for part in channel]
        for part in (mux, *chips[:2]):
            board.wire.faults.fail_when(partial(brown_out, part, position))
        (names,) = kinds_of(board.scan())
        assert "pca9547" in names, position


def test_equal_chips_without_registers_are_said_to_be_possible() -> None:
    board = Board()
    mux = board.add_mux(MUX_KINDS["pca9547"], {})
    for channel in range(8):
        mux.attach(channel, parts.Foreign(0x40))
    result = board.scan()
    assert kinds_of(result) == [("pca9546a", "tca9545a", "pca9547")]
    words = (
        "returns 4 control bits, as a TCA9545A or PCA9547 does; "
        "a PCA9547 would have its channel 0 shown as channel 3, and the others hidden"
    )
    assert f'chip = "pca9546a"   # {words}\n' in as_toml(MachineScan([result], [], {}))
    shown = io.StringIO()
    print_scans(MachineScan([result], [], {}), shown)
    assert f"m0: {words}" in " ".join(shown.getvalue().split())


def test_a_pca9547_that_is_closed_before_the_scan_is_found_too() -> None:
    """So does one that was just powered, with its channel 0 connected."""
    for control in (b"\x00", b"\x08", b"\x0d"):
        board = Board()
        mux = board.add_mux(MUX_KINDS["pca9547"], {0: [0x40], 6: [0x44]})
        mux.write(control)
        mux.stop()
        result = board.scan()
        assert kinds_of(result) == [("pca9547",)]
        assert [(c.place.channel, c.place.address) for c in result.chips] == [(0, 0x40), (6, 0x44)]


def test_a_mux_behind_a_mux_shows_which_kind_the_outer_one_is() -> None:
    board = Board()
    outer = board.add_mux(MUX_KINDS["pca9547"], {})
    inner = SimulatedMux(0x71, MUX_KINDS["tca9543a"])
    inner.attach(1, parts.IdChip(0x40, parts.INA226))
    outer.attach(5, inner)
    result = board.scan()
    assert kinds_of(result) == [("pca9547",), ("tca9543a",)]
    assert [chip.place.address_path for chip in result.chips] == ["1/70.5/71.1/40"]


def test_the_sure_and_the_likely_ones_are_marked() -> None:
    board = Board()
    board.add_mux(MUX_KINDS["tca9543a"], {}, 0x71)
    board.add_mux(MUX_KINDS["pca9546a"], {0: [0x40]}, 0x72)
    shown = io.StringIO()
    print_scans(MachineScan([board.scan()], [], {}), shown)
    assert [line.split()[-1] for line in shown.getvalue().splitlines() if line.startswith("trunk")] == ["yes", "likely"]


@pytest.mark.parametrize("kind", KINDS, ids=list(MUX_KINDS))
def test_lookalikes_return_equal_bits_to_every_byte(kind: MuxKind) -> None:
    for other in lookalikes(kind):
        assert all(kind.returns(byte & other.control_bits, byte) for byte in range(0x100))


# What is no mux


def assert_no_mux(part: parts.Foreign) -> None:
    """It is listed as unknown, and got no byte that is more than a register number to the known chips."""
    result = Board(part).scan()
    assert result.muxes == ()
    assert [unknown.note for unknown in result.unknown] == ["no mux"]
    assert all(len(data) == 1 and data[0] < 0x10 for data in part.written)


@settings(max_examples=200)
@given(st.binary(min_size=16, max_size=16), st.sampled_from(MUX_ADDRESSES))
def test_a_display_with_any_picture_is_no_mux(memory: bytes, address: int) -> None:
    assert_no_mux(parts.HT16K33(address, memory))


@pytest.mark.parametrize(
    ("bits", "last_byte"),
    [(bits, last) for bits in (0x03, 0x07) for last in range(0x05, 0x0A)]
    + [(0x0F, last) for last in range(0x04, 0x08)],
)
def test_a_display_that_looks_like_a_mux_at_first_is_no_mux(bits: int, last_byte: int) -> None:
    """Up to a byte, each holds its own number, with a picture above it."""
    memory = bytes(n & bits | 0x50 if n <= last_byte else 0x50 for n in range(16))
    assert_no_mux(parts.HT16K33(0x70, memory))


def test_a_display_that_counts_under_a_changing_picture_is_no_mux() -> None:
    """The upper bits would be interrupt lines that change with each byte."""
    assert_no_mux(parts.HT16K33(0x70, bytes(n | n * 0x30 & 0xF0 for n in range(16))))


def test_a_display_that_counts_gets_no_command() -> None:
    """Each byte holds its own number and a picture: it passes for a TCA9545A, but gets only register numbers."""
    display = parts.HT16K33(0x70, bytes(n | 0x50 for n in range(16)))
    Board(display).scan()  # the display refuses commands
    assert len(display.written) > 4


@given(st.sampled_from([0x01, 0x11, 0x21, 0xA1]), st.dictionaries(st.integers(0x06, 0x45), st.integers(0, 0xFF)))
def test_the_all_call_address_of_led_drivers_is_no_mux(mode1: int, leds: Mapping[int, int]) -> None:
    driver = parts.PCA9685(mode1, leds)
    assert_no_mux(driver)
    assert set(driver.written) <= {b"\x00"}


@given(
    st.sampled_from([0x76, 0x77]),
    st.dictionaries(st.integers(0x00, 0x10), st.sampled_from([0x00, 0x01, 0x02, 0x04, 0x50, 0x58, 0x60, 0x80])),
)
def test_a_pressure_sensor_is_no_mux(address: int, low_registers: Mapping[int, int]) -> None:
    calibration = {0x88 + n: 0x6B ^ n * 37 & 0xFF for n in range(26)}
    sensor = parts.PointedRegisters(address, {**low_registers, **calibration, 0xD0: 0x58})
    looks_like_one = all(low_registers.get(n, 0) & 0x0F == n & 0x07 for n in (0, 1, 2, 4, 8, 5, 6, 9, 10))
    if not looks_like_one:
        assert_no_mux(sensor)


def test_a_sensor_with_16_bit_commands_is_no_mux() -> None:
    sensor = parts.SHTC3(0x70)
    assert_no_mux(sensor)
    assert set(sensor.written) <= {b"\x00"}


@pytest.mark.parametrize("answers", [b"\x00", b"\xff", b"\x40", b"\x00\x01\x02"])
def test_a_regulator_gets_no_command_without_data(answers: bytes) -> None:
    assert_no_mux(parts.PMBusRegulator(0x70, answers))


@pytest.mark.parametrize("answers", [b"\x50\x20", b"\x20\x30\x40\x50\x60\x70"])
def test_a_stream_that_looks_like_interrupt_lines_gets_at_most_a_zero(answers: bytes) -> None:
    stream = parts.Foreign(0x72, answers)
    assert_no_mux(stream)
    assert set(stream.written) <= {b"\x00"}
