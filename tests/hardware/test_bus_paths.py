"""Never another rail's number: NACKs in a row, silent muxes and programs that switch a mux between any two transfers.

The readings here are those of the bus alone: select, read the results twice, check the path, and take the reading again
if a mux was switched.
"""

from __future__ import annotations

import errno
import random
from contextlib import suppress
from functools import cache
from itertools import cycle
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import BusError, MuxSwitchedError
from agent.i2c.muxes import MUX_KINDS, MuxKind
from agent.i2c.transfers import Register
from tests.bench import Bench, ina260, mux

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hypothesis.strategies import SearchStrategy

    from agent.i2c.place import Place
    from agent.simulate.mux import SimulatedMux
    from agent.simulate.wire import Transaction, Wire

TCA9548A = MUX_KINDS["tca9548a"]
# Of four muxes at most; a PCA9540B can only be the first, which has 0x70.
TCA9548AS = (TCA9548A,) * 4


def last(kind: MuxKind) -> str:
    return f"channel = {kind.channels - 1}"


def two(kinds: Kinds) -> str:
    return (
        mux("m0", 0x70, kind=kinds[0].name)
        + mux("m1", 0x71, kind=kinds[1].name)
        + ina260("a0", 'mux = "m0", channel = 0')
        + ina260("a1", 'mux = "m0", channel = 1')
        + ina260("b0", 'mux = "m1", channel = 0')
        + ina260("b5", f'mux = "m1", {last(kinds[1])}')
    )


def three(kinds: Kinds) -> str:
    return (
        two(kinds)
        + mux("m2", 0x73, kind=kinds[2].name)
        + ina260("c1", 'mux = "m2", channel = 1')
        + ina260("trunk", "bus = 1", 0x4F)
    )


def nested(kinds: Kinds) -> str:
    behind = f'mux = "m0", {last(kinds[0])}'
    return (
        mux("m0", 0x70, kind=kinds[0].name)
        + mux("m1", 0x73, kind=kinds[1].name)
        + mux("inner", 0x71, behind, kind=kinds[2].name)
        + mux("twin", 0x72, behind, kind=kinds[3].name)
        + ina260("behind", 'mux = "inner", channel = 0')
        + ina260("other", f'mux = "inner", {last(kinds[2])}')
        + ina260("twin", f'mux = "twin", {last(kinds[3])}')
        + ina260("beside", behind, 0x41)
        + ina260("apart", 'mux = "m0", channel = 0')
        + ina260("outside", 'mux = "m1", channel = 1')
    )


WIRINGS = {"two muxes": two, "three muxes": three, "nested": nested}
TWO, THREE, NESTED = two(TCA9548AS), three(TCA9548AS), nested(TCA9548AS)

Kinds = tuple[MuxKind, ...]
TRUNK = ina260("trunk", "bus = 1", 0x4F)

RESULTS = (Register(0x02), Register(0x01))
Words = tuple[int, ...]


class Reader:
    """Reads every chip of a node through its bus, as a sweep does, and counts what is wrong."""

    def __init__(self, text: str) -> None:
        self.bench = Bench.of(text)
        for simulated in self.bench.world.muxes.values():
            simulated.interrupts = 0xA0
        self.bench.run_until_read()
        self.bus = self.bench.buses[1]
        self.places = [session.place for session in self.bench.sweep._buses[0]._sessions]
        self.truth: dict[str, Words] = {}
        self.count = 0
        for place, words in self.session().items():
            assert words is not None
            self.truth[place] = words
        assert len(set(self.truth.values())) == len(self.places)

    def session(self) -> dict[str, Words | None]:
        """The results of every chip; None where they were discarded. No number may be wrong."""
        found: dict[str, Words | None] = {}
        with self.bus.session():
            for place in self.places:
                found[str(place)] = None
                with suppress(OSError):
                    found[str(place)] = self._take(place)
        for name, words in found.items():
            self.count += words is not None
            assert words is None or not self.truth or words == self.truth[name], name
        return found

    def _take(self, place: Place) -> Words | None:
        for _ in range(3):
            with suppress(MuxSwitchedError):
                self.bus.select(place.path)
                try:
                    first = self.bus.read(place.address, RESULTS)
                    second = self.bus.read(place.address, RESULTS)
                finally:
                    self.bus.check_path(place)  # a channel without this chip is silent
                if first == second:
                    return first
        return None

    def heal(self) -> None:
        """Without a fault everything is read, and closed afterwards, within two sessions."""
        self.bench.wire.faults.clear()
        self.session()
        assert self.session() == self.truth
        assert self.bench.all_muxes_are_closed()

    def transactions(self) -> int:
        before = self.bench.wire.transactions
        self.session()
        return self.bench.wire.transactions - before


@pytest.mark.reliability(
    4.1,
    "1 to 8 NACKs in a row at any transfer, equal addresses behind two, three and nested muxes",
    "no number is another chip's; the next sweep reads everything",
)
@pytest.mark.parametrize("after_effect", [False, True], ids=["before effect", "after effect"])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_nacks_in_a_row_never_show_another_rail(
    wiring: str, measured: Callable[[str], None], *, after_effect: bool
) -> None:
    reader = Reader(WIRINGS[wiring](TCA9548AS))
    positions = reader.transactions()
    for position in range(positions):
        for length in range(1, 9):
            read_with_nacks(reader, position, length, after_effect=after_effect)
    measured(f"{wiring}: all {positions} positions of a sweep, 0 wrong")


def read_with_nacks(reader: Reader, position: int, length: int, *, after_effect: bool) -> None:
    """Some NACKs in a row: four cost nothing, and after more of them the next session reads everything."""
    faults = reader.bench.wire.faults
    first = reader.bench.wire.transactions + position
    for index in range(first, first + length):
        faults.fail_at(index, after_effect=after_effect)
    found = reader.session()
    assert length >= 5 or found == reader.truth
    faults.clear()
    assert reader.session() == reader.truth, (position, length)
    assert reader.bench.all_muxes_are_closed()


def silence(addresses: Sequence[int], first: int = 0) -> Callable[[Transaction], int | None]:
    """A NACK of every transfer to these addresses, from this index on."""
    return lambda transaction: (
        errno.EREMOTEIO if transaction.index >= first and transaction.messages[0].address in addresses else None
    )


@pytest.mark.reliability(
    4.13,
    "a mux, or everything, that does not answer from any transfer on, with a channel open or not",
    "a reading that another chip may have answered is discarded; everything else is read",
)
@pytest.mark.parametrize("after_effect", [False, True], ids=["before effect", "after effect"])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_mux_silent_from_any_transfer_shows_no_other_rail(
    wiring: str, measured: Callable[[str], None], *, after_effect: bool
) -> None:
    reader = Reader(WIRINGS[wiring](TCA9548AS))
    positions = reader.transactions()
    addresses = sorted({simulated.address for simulated in reader.bench.world.muxes.values()})
    for position in range(positions):
        for silent in [[address] for address in addresses] + [addresses, list(range(0x80))]:
            read_beside_silence(reader, position, silent, after_effect=after_effect)
    measured(f"{wiring}: all {positions} positions of a sweep, 0 wrong")


def read_beside_silence(reader: Reader, position: int, silent: Sequence[int], *, after_effect: bool) -> None:
    first = reader.bench.wire.transactions + position
    reader.bench.wire.faults.fail_when(silence(silent, first), after_effect=after_effect)
    reader.session()
    reader.session()
    reader.heal()


@pytest.mark.parametrize("name", ["m0", "m1", "m2"])
def test_an_absent_mux_costs_only_its_own_chips(name: str) -> None:
    reader = Reader(THREE)
    reader.bench.world.muxes[name].unplug()
    for _ in range(2):
        lost = [place for place, words in reader.session().items() if words is None]
        assert lost == [str(place) for place in reader.places if f"behind mux {name}" in str(place)]
    reader.bench.world.muxes[name].plug()
    reader.heal()


def test_a_silent_mux_with_an_open_channel_is_named() -> None:
    reader = Reader(TWO)
    reader.bench.world.muxes["m1"].write(b"\x01")
    reader.bench.world.muxes["m1"].stop()
    reader.bench.wire.faults.fail_when(silence([0x71]))
    place = reader.places[0]
    with reader.bus.session():
        reader.bus.select(place.path)
        with pytest.raises(
            MuxSwitchedError, match=r"^0x40 behind mux m0 .* another chip answers .* mux m1 \(0x71 on /dev/i2c-1\)"
        ):
            reader.bus.check_path(place)
    assert all(words is None for words in reader.session().values())
    reader.heal()


def test_a_chip_that_stays_on_a_silent_mux_with_equal_addresses_is_read() -> None:
    """The silent mux is closed, so its chips are the only ones that are lost."""
    reader = Reader(NESTED)
    reader.bench.wire.faults.fail_when(silence([0x72]))
    lost = [place for place, words in reader.session().items() if words is None]
    assert lost == [str(place) for place in reader.places if "mux twin" in str(place)]


# A stranger


def act_before(wire: Wire, actions: Mapping[int, Callable[[], None]]) -> None:
    """Let another program act before the transfers at these positions, counted from the next one."""
    first = wire.transactions

    def acted(transaction: Transaction) -> None:
        action = actions.get(transaction.index - first)
        if action is not None:
            action()

    wire.faults.fail_when(acted)


def stranger(
    simulated: SimulatedMux, control_byte: int, position: int, back_after: int | None
) -> dict[int, Callable[[], None]]:
    """Switches a mux before the transfer at a position, and back some transfers later."""
    before: list[int] = []

    def switch() -> None:
        before.append(simulated.control)
        simulated.write(bytes([control_byte]))
        simulated.stop()

    def back() -> None:
        simulated.write(bytes(before))
        simulated.stop()

    return {position: switch} if back_after is None else {position: switch, position + back_after: back}


@pytest.mark.reliability(
    4.2,
    "another program switches a mux between any two transfers, to any channel, perhaps back before the check",
    "the reading is taken again; the switch is counted and named",
)
@pytest.mark.parametrize("back_after", [None, 1, 2], ids=lambda back: f"back after {back}")
@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_switched_mux_never_shows_another_rail(
    wiring: str, back_after: int | None, measured: Callable[[str], None]
) -> None:
    reader = Reader(WIRINGS[wiring](TCA9548AS))
    positions = reader.transactions()
    used = {hop.control_byte for place in reader.places for hop in place.path}
    for position in range(positions):
        for simulated in reader.bench.world.muxes.values():
            for control_byte in (*used, 0x00, 0xFF):
                read_beside_stranger(reader, stranger(simulated, control_byte, position, back_after))
    assert reader.bus.mux_conflicts > (positions if back_after is None else 0)
    assert reader.session() == reader.truth
    measured(f"{wiring}: all {positions} positions of a sweep, 0 wrong")


def read_beside_stranger(reader: Reader, actions: Mapping[int, Callable[[], None]]) -> None:
    act_before(reader.bench.wire, actions)
    assert reader.session() == reader.truth, list(actions)
    reader.bench.wire.faults.clear()


def test_a_conflict_names_the_mux_and_what_to_do() -> None:
    reader = Reader(TWO)
    assert reader.bus.last_mux_conflict is None
    with reader.bus.session():
        place = reader.places[0]
        reader.bus.select(place.path)
        reader.bench.world.muxes["m0"].write(b"\x20")
        with pytest.raises(MuxSwitchedError):
            reader.bus.check_path(place)
    assert reader.bus.mux_conflicts == 1
    assert reader.bus.last_mux_conflict == (
        "mux m0 (0x70 on /dev/i2c-1) was switched while a chip was read: its control byte is 0x20 instead of 0x01. "
        "Stop the program that does it, or let it lock the bus as in: flock /dev/i2c-1 i2cget ... "
        "If there is none, check the supply of the mux and the wiring"
    )


def flip_one_byte(wire: Wire, number: int) -> None:
    flips = iter([*[0x00] * number, 0x10, *[0x00] * 100])
    wire.faults.flip = lambda byte: byte ^ next(flips)


def test_a_flipped_read_back_is_no_conflict() -> None:
    reader = Reader(NESTED)
    place = reader.places[0]
    with reader.bus.session():
        for number in range(16):
            reader.bus.select(place.path)
            flip_one_byte(reader.bench.wire, number)
            reader.bus.check_path(place)
            reader.bench.wire.faults.clear()
    assert reader.bus.mux_conflicts == 0


def test_a_mux_that_lost_its_power_is_found() -> None:
    reader = Reader(TWO)
    with reader.bus.session():
        place = reader.places[0]
        reader.bus.select(place.path)
        reader.bench.world.muxes["m0"].power_loss()
        with pytest.raises(MuxSwitchedError):
            reader.bus.check_path(place)
        reader.bus.select(place.path)
        reader.bus.check_path(place)


def test_a_time_out_while_the_muxes_are_closed_is_no_error() -> None:
    reader = Reader(NESTED)
    place = next(place for place in reader.places if "mux inner" in str(place))
    with reader.bus.session():
        reader.bus.select(place.path)
        reader.bench.world.muxes["inner"].unplug()
        reader.bench.wire.faults.fail_when(
            lambda transaction: errno.ETIMEDOUT if transaction.messages[0].is_read else None
        )
    reader.bench.world.muxes["inner"].plug()
    reader.heal()


# Disturbances

BIT_SECONDS = 1e-5


def disturb(reader: Reader, draws: random.Random, gap_seconds: float) -> None:
    """NACK everything for 0.1 to 5 ms at random moments of the wire's own time, a third of it after its effect."""
    wire = reader.bench.wire
    burst = [0.0, 0.0]

    def is_disturbed(_: Transaction) -> bool:
        now = wire.bits * BIT_SECONDS
        while now >= burst[1]:
            burst[0] = burst[1] + draws.expovariate(1 / gap_seconds)
            burst[1] = burst[0] + draws.uniform(1e-4, 5e-3)
        return now >= burst[0]

    wire.faults.fail_when(lambda t: errno.EREMOTEIO if is_disturbed(t) and draws.random() < 2 / 3 else None)
    wire.faults.fail_when(lambda t: errno.EREMOTEIO if is_disturbed(t) else None, after_effect=True)


@pytest.mark.reliability(
    4.11,
    "disturbances of 0.1 to 5 ms at random moments, equal addresses behind two, three and nested muxes",
    "no number is another chip's",
)
@pytest.mark.parametrize("readings", [3_000, pytest.param(35_000, marks=pytest.mark.long)], ids=["few", "many"])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_random_disturbances_never_show_another_rail(
    wiring: str, readings: int, measured: Callable[[str], None]
) -> None:
    reader = Reader(WIRINGS[wiring](TCA9548AS))
    draws = random.Random(wiring)
    reader.count = taken = 0
    while reader.count < readings:
        reader.bench.wire.faults.clear()
        disturb(reader, draws, draws.choice((0.003, 0.01, 0.03)))
        for _ in range(50):
            reader.session()
            taken += len(reader.places)
    if readings >= 35_000:
        measured(f"{wiring}: 0 wrong of {readings:,} readings")
    assert reader.count > taken / 4


# Every kind of mux


def kinds_at(*addresses: int) -> SearchStrategy[Kinds]:
    """A kind for each address, among those that can have it."""
    return st.tuples(
        *(st.sampled_from([k for k in MUX_KINDS.values() if address in k.addresses]) for address in addresses)
    )


# A wiring, and what is at its addresses in the order of its muxes.
ANY_WIRING = st.one_of(
    st.tuples(st.just("two muxes"), kinds_at(0x70, 0x71)),
    st.tuples(st.just("three muxes"), kinds_at(0x70, 0x71, 0x73)),
    st.tuples(st.just("nested"), kinds_at(0x70, 0x73, 0x71, 0x72)),
)
ON_ANY_KIND = settings(max_examples=60, deadline=None)


@cache
def reader_of(wiring: str, kinds: Kinds) -> Reader:
    return Reader(WIRINGS[wiring](kinds))


def healthy_reader(wiring: tuple[str, Kinds]) -> Reader:
    reader = reader_of(*wiring)
    reader.heal()
    return reader


@ON_ANY_KIND
@given(wiring=ANY_WIRING, data=st.data(), length=st.integers(1, 8), after_effect=st.booleans())
def test_nacks_on_any_kind_of_mux_show_no_other_rail(
    wiring: tuple[str, Kinds], data: st.DataObject, length: int, *, after_effect: bool
) -> None:
    reader = healthy_reader(wiring)
    position = data.draw(st.integers(0, reader.transactions() - 1))
    read_with_nacks(reader, position, length, after_effect=after_effect)


@ON_ANY_KIND
@given(wiring=ANY_WIRING, data=st.data(), after_effect=st.booleans())
def test_any_kind_of_mux_that_falls_silent_shows_no_other_rail(
    wiring: tuple[str, Kinds], data: st.DataObject, *, after_effect: bool
) -> None:
    reader = healthy_reader(wiring)
    addresses = [simulated.address for simulated in reader.bench.world.muxes.values()]
    position = data.draw(st.integers(0, reader.transactions() - 1))
    silent = data.draw(st.sets(st.sampled_from(addresses), min_size=1))
    read_beside_silence(reader, position, sorted(silent), after_effect=after_effect)


@pytest.mark.reliability(
    4.22,
    "another program writes any control byte to a mux of any kind, at any transfer",
    "no reading is of another rail",
)
@ON_ANY_KIND
@given(
    wiring=ANY_WIRING,
    data=st.data(),
    control_byte=st.one_of(st.integers(0, 0x0F), st.integers(0, 0xFF)),
    back_after=st.sampled_from([None, 1, 2]),
)
def test_any_kind_of_mux_that_is_switched_shows_no_other_rail(
    wiring: tuple[str, Kinds], data: st.DataObject, control_byte: int, back_after: int | None
) -> None:
    reader = healthy_reader(wiring)
    simulated = data.draw(st.sampled_from(list(reader.bench.world.muxes.values())))
    position = data.draw(st.integers(0, reader.transactions() - 1))
    read_beside_stranger(reader, stranger(simulated, control_byte, position, back_after))


@pytest.mark.reliability(
    4.23,
    "the power of a mux of any kind fails for a moment, at any transfer",
    "no reading is of another rail, even if a PCA9547 then connects its channel 0 by itself; the next sweep is right",
)
@ON_ANY_KIND
@given(wiring=ANY_WIRING, data=st.data())
def test_a_brown_out_of_any_kind_of_mux_shows_no_other_rail(wiring: tuple[str, Kinds], data: st.DataObject) -> None:
    """A PCA9547 then connects its channel 0 by itself, where a chip has the address of the one that is read."""
    reader = healthy_reader(wiring)
    simulated = data.draw(st.sampled_from(list(reader.bench.world.muxes.values())))
    position = data.draw(st.integers(0, reader.transactions() - 1))
    read_beside_stranger(reader, {position: simulated.power_loss})
    reader.heal()


@pytest.mark.reliability(
    4.23,
    "the power of a mux of any kind fails for a moment, at any transfer",
    "no reading is of another rail, even if a PCA9547 then connects its channel 0 by itself; the next sweep is right",
)
@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_pca9547_that_browns_out_at_any_transfer_shows_no_other_rail(wiring: str) -> None:
    reader = Reader(WIRINGS[wiring]((MUX_KINDS["pca9547"],) * 4))
    for position in range(reader.transactions()):
        for simulated in reader.bench.world.muxes.values():
            read_beside_stranger(reader, {position: simulated.power_loss})
    assert reader.bus.mux_conflicts > 0
    reader.heal()


def test_a_chip_on_the_trunk_is_not_mixed_with_one_behind_a_browned_out_pca9547() -> None:
    reader = Reader(mux("m0", 0x70, kind="pca9547") + ina260("a3", 'mux = "m0", channel = 3') + TRUNK)
    simulated = reader.bench.world.muxes["m0"]
    unknown = Bench.of(TRUNK).chip("trunk")  # the configuration would refuse it
    simulated.attach(0, unknown)
    positions = reader.transactions()
    for position in range(positions):
        read_beside_stranger(reader, {position: simulated.power_loss})
    assert reader.bus.mux_conflicts > 0


@pytest.mark.reliability(
    4.24,
    "interrupt lines of a mux that toggle at every transfer",
    "every reading is right, and no conflict is counted",
)
@ON_ANY_KIND
@given(wiring=ANY_WIRING, lines=st.lists(st.integers(0, 0xFF), min_size=2, max_size=7))
def test_interrupt_lines_that_toggle_are_no_conflict(wiring: tuple[str, Kinds], lines: list[int]) -> None:
    reader = healthy_reader(wiring)
    conflicts = reader.bus.mux_conflicts
    levels = cycle(lines)

    def toggle(_: Transaction) -> None:
        for simulated in reader.bench.world.muxes.values():
            simulated.interrupts = next(levels)

    reader.bench.wire.faults.fail_when(toggle)
    assert reader.session() == reader.truth
    assert reader.bus.mux_conflicts == conflicts


def test_interrupt_lines_of_a_mux_taken_for_another_kind_are_named() -> None:
    reader = Reader(mux("m0", 0x70, kind="pca9546a") + ina260("cpu", 'mux = "m0", channel = 1'))
    simulated = reader.bench.world.muxes["m0"]
    simulated._kind = MUX_KINDS["tca9545a"]
    assert all(words is None for words in reader.session().values())
    assert (reader.bus.last_mux_conflict or "").endswith(
        "its control byte is 0xa2 instead of 0x02. Stop the program that does it, or let it lock the bus as in: "
        "flock /dev/i2c-1 i2cget ... If there is none, check the supply of the mux and the wiring; "
        'or does it have interrupt lines, and is chip = "tca9545a"?'
    )


def test_a_node_without_muxes_is_checked_at_no_cost() -> None:
    reader = Reader(ina260("cpu", "bus = 1"))
    before = reader.bench.wire.transactions
    with reader.bus.session():
        reader.bus.check_path(reader.places[0])
    assert reader.bench.wire.transactions == before


def test_a_read_back_costs_20_bits() -> None:
    reader = Reader(mux("m0", 0x70) + ina260("cpu", 'mux = "m0", channel = 3'))
    with reader.bus.session():
        reader.bus.select(reader.places[0].path)
        before = reader.bench.wire.bits
        reader.bus.check_path(reader.places[0])
        assert reader.bench.wire.bits - before == 20


def test_a_bus_without_its_path_is_an_error() -> None:
    reader = Reader(TWO)
    with reader.bus.session():
        reader.bench.world.muxes["m0"].unplug()
        with pytest.raises(BusError, match=r"^mux m0 \(0x70 on /dev/i2c-1\) does not answer: NACK; check its power"):
            reader.bus.check_path(reader.places[0])
