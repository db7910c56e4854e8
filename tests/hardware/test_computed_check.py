"""What a chip computes as a check of its results: it finds two chips at one address, and costs no good one."""

from __future__ import annotations

import random
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent import chips
from agent.check import Status
from agent.chips._averaging import CHOICES, conversion_seconds
from agent.i2c.place import Place
from agent.measure import run_session
from agent.measure.readings import Failure, Reading, Settling
from agent.settings import Device
from agent.simulate.ina226 import SimulatedINA226
from agent.simulate.ina228 import SimulatedINA228
from agent.simulate.ina236 import SimulatedINA236
from agent.simulate.ina260 import (
    AMPERES_LSB,
    CURRENT,
    POWER,
    POWER_LSB_OF_PRODUCT_LSB,
    VOLTS_LSB,
    SimulatedINA260,
)
from agent.simulate.rails import ConstantRail, Segment, values_at
from tests.bench import SHORTEST, Bench, constant, failure, ina260, mux, with_shunt
from tests.check.test_check_hardware import findings
from tests.hardware.test_flips import let_transfers_take_time
from tests.noise import random_flips

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent.chips import ComputedRegister
    from agent.simulate.chips import RegisterChip

PLACE = 'mux = "m0", channel = 3'
TABLES = {"ina260": ina260("cpu", PLACE), **{chip: with_shunt(chip, "cpu", PLACE) for chip in SHORTEST}}


def computed_register(chip: str) -> ComputedRegister | None:
    device = Device("cpu", chip, Place(1, None, None, 0x40), shunt_ohms=0.1)
    return chips.i2c_chip(chip)((device,), 1.0).computed


CHECKED = {chip: computed for chip in TABLES if (computed := computed_register(chip)) is not None}
BY_CURRENT = [chip for chip, computed in CHECKED.items() if computed.quantity == "current"]
AT_POWER_ON = [
    chip for chip, computed in CHECKED.items() if all(bits.is_written(bits.power_on) for bits in computed.requires)
]
"""The chips whose register is computed from power-on on: the others need a calibration first."""


def table(chip: str, shunt_ohms: float = 0.1, averaging: str | None = None) -> str:
    """A node with one chip behind a mux."""
    text = TABLES[chip] if averaging is None else TABLES[chip].replace(TABLES[chip].splitlines()[-1], averaging)
    return mux("m0", 0x70) + text.replace("shunt_ohms = 0.1", f"shunt_ohms = {shunt_ohms!r}")


def set_rail(bench: Bench, volts: float, amperes: float) -> None:
    rail = constant(bench.rails["cpu"])
    rail.volts, rail.amperes = volts, amperes


def with_a_second_chip(
    volts: float,
    amperes: float,
    chip: str = "ina260",
    first: tuple[float, float] = (5.0, 1.0),
    averaging: str | None = None,
) -> Bench:
    """Two chips of one kind at 0x40 on one channel, with these rails."""
    bench = Bench.of(table(chip, 0.01, averaging))
    set_rail(bench, *first)
    other = Bench(bench.settings, bench.clock, {"cpu": ConstantRail(volts, amperes, bench.clock.monotonic)})
    bench.world.muxes["m0"].attach(3, other.chip("cpu"))
    bench.rails = {}  # what both give together is not what a rail has
    bench.clock.sleep(1.0)
    return bench


# Two chips


@pytest.mark.reliability(
    1.24,
    "two chips of one kind at one address",
    "what they compute contradicts voltage and current: an error, no number; `check --hardware` finds it too",
)
@pytest.mark.parametrize("chip", CHECKED)
def test_two_chips_at_one_address_contradict_each_other(chip: str, measured: Callable[[str], None]) -> None:
    bench = with_a_second_chip(12.0, 0.5, chip)
    found_at_power_on = "are two chips at 0x40?" in findings(bench)["cpu"].text
    assert found_at_power_on == (chip in AT_POWER_ON)
    outcomes = [bench.run_next()["cpu"] for _ in range(600)]
    assert not any(isinstance(outcome, Reading) for outcome in outcomes)
    failures = [failure(outcome) for outcome in outcomes if isinstance(outcome, Failure)]
    assert "its registers contradict each other" in failures[-1]
    assert "are two chips at 0x40?" in findings(bench)["cpu"].text
    measured("5 V 1 A and 12 V 0.5 A, each kind with such a register: no reading in 10 minutes")


@pytest.mark.parametrize(
    ("chip", "is_configured", "most_amperes", "share"),
    [
        ("ina260", False, 8.0, 0.95),
        ("ina260", True, 8.0, 0.8),
        ("ina228", False, 8.0, 0.95),
        ("ina238", False, 8.0, 0.95),
        ("ina226", True, 8.0, 0.95),
        ("ina226", True, 0.5, 0.9),
        ("ina226", True, 0.05, 0.75),
        ("ina236", True, 8.0, 0.95),
        ("ina219", True, 8.0, 0.9),
        ("ina219", True, 0.5, 0.7),
        ("ina234", True, 8.0, 0.9),
        ("ina234", True, 0.5, 0.7),
    ],
)
def test_nearly_any_two_chips_at_one_address_are_found(
    chip: str, most_amperes: float, share: float, *, is_configured: bool
) -> None:
    """At power-on nothing is averaged; later an INA260 averages products, which leaves room for a quarter."""
    draws, found = random.Random(5), 0
    least_amperes = 0.2 if most_amperes == 8.0 else most_amperes / 10
    for _ in range(40):
        pair = [(draws.uniform(3.0, 28.0), draws.uniform(least_amperes, most_amperes)) for _ in range(2)]
        bench = with_a_second_chip(*pair[0], chip, pair[1])
        if is_configured:
            bench.run()
            bench.clock.sleep(1.0)
        found += "are two chips" in findings(bench)["cpu"].text
    assert found >= 40 * share


def test_an_observer_finds_two_chips_and_reads_neither() -> None:
    bench = with_a_second_chip(12.0, 0.5)
    observer = bench.new_sweep(is_observer=True)
    outcomes = []
    for _ in range(30):
        outcomes += observer.run()
        bench.clock.sleep(1.0)
    assert not any(isinstance(outcome, Reading) for outcome in outcomes)
    assert "are two chips at 0x40?" in failure(outcomes[-1])


def test_a_second_chip_is_found_within_a_minute() -> None:
    bench = Bench.of(table("ina260"))
    bench.run_until_read()
    other = ConstantRail(12.0, 0.5, bench.clock.monotonic)
    second = SimulatedINA260(0x40, other, bench.clock.monotonic)
    second.write(bytes((0, *bench.chip("cpu")._words[0].to_bytes(2, "big"))))
    second.write(b"\x06\x00\x01")
    bench.world.muxes["m0"].attach(3, second)
    bench.rails = {}  # what both give together is not what a rail has
    outcomes = [bench.run_next()["cpu"] for _ in range(65)]
    assert any("are two chips at 0x40?" in str(o.error) for o in outcomes if isinstance(o, Failure))


# One chip


def slowest(chip: str, count: int) -> str:
    """The averaging of so many of the slowest conversions of a chip."""
    choices = chips.options()[chip].averaging
    assert choices is not None
    microseconds = choices.conversion_seconds[-1] * 1e6
    return f'averaging = {{ count = {count}, voltage = "{microseconds:g}us", current = "{microseconds:g}us" }}'


@settings(max_examples=60, deadline=None)
@given(
    chip=st.sampled_from(sorted(CHECKED)),
    shunt_ohms=st.floats(1e-4, 1.0),
    count=st.sampled_from([1, 4, 64]),
    rail_values=st.lists(st.tuples(st.floats(0.0, 36.0), st.floats(-0.999, 0.999)), min_size=1, max_size=4),
    foreign=st.lists(st.tuples(st.sampled_from([0x00, 0x01, 0x02, 0x05]), st.integers(0, 0x7FFF)), max_size=2),
)
@example("ina260", 1.0, 64, [(1.0, 0.5), (0.0, 0.0)], [(0, 1)])  # power is older than current until the next result
def test_no_single_chip_contradicts_itself(
    chip: str,
    shunt_ohms: float,
    count: int,
    rail_values: list[tuple[float, float]],
    foreign: list[tuple[int, int]],
) -> None:
    """At any shunt, voltage and current, and with anything that another program has written."""
    bench = Bench.of(table(chip, shunt_ohms, slowest(chip, count)))
    rail, twin, bench.rails = constant(bench.rails["cpu"]), bench.chip("cpu"), {}
    most_amperes = 15.0 if chip == "ina260" else 0.08 / shunt_ohms
    for volts, share in rail_values:
        rail.volts, rail.amperes = volts, share * most_amperes
        for register, word in foreign:
            twin.write(bytes((register, *word.to_bytes(2, "big"))))
        bench.clock.sleep(60.0)
        assert "contradict" not in findings(bench)["cpu"].text
        observer = bench.new_sweep(is_observer=True)
        assert "contradict" not in str(observer.run())
        for _ in range(3):  # configures it, and reads it
            assert "contradict" not in str(bench.run_next())
        assert "contradict" not in findings(bench)["cpu"].text


class AveragesProducts(SimulatedINA260):
    """An INA260 whose power register is the mean of the products of its single conversions."""

    def _store_derived(self) -> None:
        plan = self._plan
        conversion_seconds = plan.passes * plan.pair_microseconds * 1e-6
        begin = self._started_seconds + (self._finished - 1) * conversion_seconds
        rail = self._inputs[0][1]
        total = 0.0
        for position in range(plan.passes):
            pair = begin + position * plan.pair_microseconds * 1e-6
            _, amperes = values_at(rail, pair + plan.current_microseconds / 2 * 1e-6)
            volts, _ = values_at(rail, pair + (plan.current_microseconds + plan.voltage_microseconds / 2) * 1e-6)
            total += abs(round(volts / VOLTS_LSB) * round(amperes / AMPERES_LSB))
        self._words[POWER] = int(total / plan.passes / POWER_LSB_OF_PRODUCT_LSB)


class Pulsed:
    """A load with these volts and amperes for a part of each period, and with others for the rest of it."""

    def __init__(
        self, period_seconds: float, duty: float, on: tuple[float, float], off: tuple[float, float] = (12.0, 0.0)
    ) -> None:
        self._period, self._duty, self._on, self._off = period_seconds, duty, on, off

    def segments(self, start_seconds: float, end_seconds: float) -> Iterable[Segment]:
        """See `Rail.segments`."""
        edges: list[float] = []
        period = int(start_seconds / self._period)
        while not edges or edges[-1] < end_seconds:
            edges += [period * self._period, (period + self._duty) * self._period]
            period += 1
        inner = [edge for edge in edges if start_seconds < edge < end_seconds]
        for begin, end in pairwise((start_seconds, *inner, end_seconds)):
            is_on = (begin + end) / 2 / self._period % 1 < self._duty
            yield Segment(begin, end, *(self._on if is_on else self._off))


def replaced(bench: Bench, twin: RegisterChip) -> None:
    """Put another chip in place of the only one."""
    bench.chip("cpu").unplug()
    bench.world.muxes["m0"].attach(3, twin)
    bench.rails = {}


@pytest.mark.reliability(
    1.242,
    "a chip that averages power by itself, at a load that is switched 20 times a second and pulls its supply down",
    "the mean of the products is not the product of the means: no reading is lost",
)
def test_a_pulsed_load_at_a_chip_that_averages_products_costs_no_reading(
    caplog: pytest.LogCaptureFixture, measured: Callable[[str], None]
) -> None:
    averaging = 'averaging = { count = 64, voltage = "1.1ms", current = "1.1ms" }'
    for chip, duty in product(("ina226", "ina260"), (0.1, 0.5)):
        bench = Bench.of(table(chip, 0.01, averaging))
        rail, now = Pulsed(1 / 20.3, duty, on=(9.6, 3.0)), bench.clock.monotonic
        twin = AveragesProducts(0x40, rail, now) if chip == "ina260" else SimulatedINA226(0x40, rail, 0.01, now)
        replaced(bench, twin)
        bench.run_until_read()
        shares = []
        for _ in range(130):
            reading = bench.run_next()["cpu"]
            assert isinstance(reading, Reading)
            watts_per_lsb = 10e-3 if chip == "ina260" else 25 * 2.5e-6 / 0.01 * 8 / 7
            shares.append(twin._words[POWER] * watts_per_lsb / reading.power_watts)
        assert min(shares) < 0.95, "the load makes no difference"
    assert caplog.text == ""
    measured("12 V that sags by 20 %, 10 % and 50 % of the time: 520 of 520 readings")


@pytest.mark.reliability(
    1.241,
    "a chip with a shunt whose rail is switched, volts and amperes together, many times within a result",
    "its current is the same multiple of the shunt voltage all the time: no reading is lost",
)
@pytest.mark.parametrize("chip", BY_CURRENT)
def test_a_rail_switched_within_a_result_costs_no_reading(
    chip: str, caplog: pytest.LogCaptureFixture, measured: Callable[[str], None]
) -> None:
    """The mean of the products is then 10 times the product of the means."""
    time = "532us" if chip == "ina219" else "1.1ms"
    bench = Bench.of(table(chip, 0.01, f'averaging = {{ count = 64, voltage = "{time}", current = "{time}" }}'))
    kind: Any = type(bench.chip("cpu"))
    rail = Pulsed(1 / 20.3, 0.1, on=(12.0, 3.0), off=(0.0, -0.003))
    replaced(bench, kind(0x40, rail, 0.01, bench.clock.monotonic))
    bench.run_until_read()
    assert all(isinstance(bench.run_next()["cpu"], Reading) for _ in range(130))
    assert "contradict" not in findings(bench)["cpu"].text
    is_told = chip in {"ina226", "ina230", "ina231"}  # these average power
    assert caplog.text.count("within one result, the rail was switched") == is_told
    assert caplog.text.count("\n") == is_told
    measured("12 V 3 A for 10 % of the time, 20 times a second: 130 of 130 readings of each kind")


@settings(max_examples=60, deadline=None)
@given(
    chip=st.sampled_from(BY_CURRENT),
    shunt_ohms=st.floats(1e-3, 1.0),
    codes=st.integers(0, 0x3FF),
    seconds=st.tuples(st.floats(2e-3, 3.0), st.floats(0.0, 0.2)),
    rail_values=st.lists(st.tuples(st.floats(0.0, 28.0), st.floats(-0.999, 0.999)), min_size=2, max_size=2),
)
def test_no_load_makes_a_current_contradict_its_shunt_voltage(
    chip: str,
    shunt_ohms: float,
    codes: int,
    seconds: tuple[float, float],
    rail_values: list[tuple[float, float]],
) -> None:
    """With any averaging and conversion times, in both ranges, and with results that come between the transfers.

    Of the four transfers from a current to the next at most one meets a new result: a transfer takes up to a fifth of
    its time, or 1 ms.
    """
    period_seconds, transfer_share = seconds
    calibration, _ = CHECKED[chip].requires
    configuration, result_seconds = 0x4007, conversion_seconds(CHOICES, codes >> 6 & 7, codes >> 3 & 7, codes & 7)
    if chip == "ina219":
        codes = 0x8 << 4 | 0x8 | codes & 0x77
        configuration, result_seconds = 0x3807, 532e-6 * ((1 << (codes >> 4 & 7)) + (1 << (codes & 7)))
    transfer_seconds = min(transfer_share * result_seconds, 1e-3)
    is_narrow = codes >> 9 and chip in {"ina232", "ina236"}
    full_scale_volts = 0.02 if is_narrow else 0.08
    bench = Bench.of(table(chip, shunt_ohms))
    kind: Any = type(bench.chip("cpu"))

    class TakesTime(kind):  # type: ignore[misc] # a class of a variable
        def read(self, length: int) -> bytes:
            bench.clock.sleep(transfer_seconds)
            return super().read(length)  # type: ignore[no-any-return] # of such a class

    on, off = ((volts, share * full_scale_volts / shunt_ohms) for volts, share in rail_values)
    rail = Pulsed(period_seconds, 0.3, on, off)
    twin = TakesTime(0x40, rail, shunt_ohms, bench.clock.monotonic)
    replaced(bench, twin)
    twin.write(bytes((0x05, *calibration.written.to_bytes(2, "big"))))
    twin.write(bytes((0x00, *(configuration | (codes if is_narrow else codes & 0x1FF) << 3).to_bytes(2, "big"))))
    bench.clock.sleep(20.0)
    observer = bench.new_sweep(is_observer=True)
    for _ in range(5):
        bench.clock.sleep(0.0777)
        assert "contradict" not in findings(bench)["cpu"].text
        assert "contradict" not in str(observer.run())
    for _ in range(5):
        bench.clock.sleep(60.0777)
        assert "contradict" not in str(bench.run()["cpu"])


@pytest.mark.parametrize("calibration", [0x0000, 0x0500, 0x0800, 0x7FFF])
@pytest.mark.parametrize("chip", BY_CURRENT)
def test_a_current_of_another_calibration_shows_nothing(chip: str, calibration: int) -> None:
    """Neither good nor bad: the numbers come from the shunt voltage, whatever another program has written."""
    bench = Bench.of(table(chip, 0.01))
    bench.run_until_read()
    set_rail(bench, 12.0, 2.0)
    bench.chip("cpu").write(bytes((0x05, *calibration.to_bytes(2, "big"))))
    bench.clock.sleep(1.0)
    assert findings(bench)["cpu"].status is Status.OK
    (outcome,) = bench.new_sweep(is_observer=True).run()
    assert isinstance(outcome, Reading)
    assert outcome.amperes == pytest.approx(2.0)


class StoresCurrentFirst(SimulatedINA260):
    """An INA260 that does not average: its current is new as soon as it is converted, before voltage and power."""

    def _update_results(self) -> None:
        super()._update_results()
        plan = self._plan
        since_seconds = (self._now() - self._started_seconds) % (plan.pair_microseconds * 1e-6)
        if plan.passes == 1 and since_seconds >= plan.current_microseconds * 1e-6:
            _, amperes = values_at(self._inputs[0][1], self._now() - since_seconds)
            self._words[CURRENT] = round(amperes / AMPERES_LSB)


def test_a_current_stored_before_its_power_is_no_contradiction() -> None:
    bench = Bench.of(table("ina260", averaging=slowest("ina260", 1)))
    rail = constant(bench.rails["cpu"])
    replaced(bench, StoresCurrentFirst(0x40, rail, bench.clock.monotonic))
    bench.run_until_read()
    draws, pauses = random.Random(1), 0
    for number in range(200):
        bench.clock.sleep(60.0)  # the check is due
        rail.amperes = 1.0 + number % 2
        bench.clock.sleep(draws.uniform(0.0, 0.033))
        before = bench.clock.monotonic()
        assert isinstance(bench.run()["cpu"], Reading)
        pauses += bench.clock.monotonic() > before
    assert pauses > 20, "nothing was compared in between"


@settings(max_examples=60, deadline=None)
@given(
    chip=st.sampled_from(sorted(CHECKED)),
    shunt_ohms=st.floats(1e-4, 1.0),
    volts=st.floats(0.0, 28.0),
    share=st.floats(-0.999, 0.999),
)
def test_what_follows_from_numbers_not_yet_rounded_fits(
    chip: str, shunt_ohms: float, volts: float, share: float
) -> None:
    bench = Bench.of(table(chip, shunt_ohms))
    rail, twin, computed, bench.rails = constant(bench.rails["cpu"]), bench.chip("cpu"), CHECKED[chip], {}
    rail.volts, rail.amperes = volts, share * (15.0 if chip == "ina260" else 0.08 / shunt_ohms)
    per_lsb = computed.per_lsb * (1.0 if chip == "ina260" else 0.1 / shunt_ohms)

    def store() -> None:
        exact = rail.amperes if chip in BY_CURRENT else abs(rail.volts * rail.amperes)
        twin._words[computed.register.number] = int(exact / per_lsb) % (1 << 8 * computed.register.length_bytes)

    twin._store_derived = store
    bench.run_until_read()
    before = bench.clock.monotonic()
    assert "contradict" not in findings(bench)["cpu"].text
    assert bench.clock.monotonic() == before, "it did not fit at once"


def test_a_temperature_compensation_of_the_shunt_is_no_contradiction() -> None:
    """With TEMPCOMP (SLYS021, section 7.6.1.1) current and power are no longer those of the shunt voltage alone."""
    bench = Bench.of(table("ina228"))
    bench.run_until_read()
    disturbed(bench, "ina228", 1.1)
    bench.clock.sleep(1.0)
    assert "contradict" in findings(bench)["cpu"].text
    bench.chip("cpu").write(b"\x00\x00\x20")
    assert "contradict" not in findings(bench)["cpu"].text
    (outcome,) = bench.new_sweep(is_observer=True).run()
    assert isinstance(outcome, Reading)


@pytest.mark.parametrize(
    ("chip", "write"),
    [
        ("ina226", b"\x00\x41\x25"),
        ("ina260", b"\x00\x61\x25"),
        ("ina228", b"\x01\xab\x68"),
        ("ina237", b"\x01\xab\x68"),
    ],
)
def test_a_power_older_than_the_current_is_no_contradiction(chip: str, write: bytes) -> None:
    """Another program has let the chip measure the current alone."""
    bench = Bench.of(table(chip))
    bench.run_until_read()
    bench.chip("cpu").write(write)
    constant(bench.rails["cpu"]).amperes = 0.5
    bench.clock.sleep(1.0)
    assert "contradict" not in findings(bench)["cpu"].text


# A chip whose computed register is of no use


def disturbed(bench: Bench, chip: str, share: float, add: int = 0) -> None:
    """A chip that does not compute quite what it should."""
    twin, register = bench.chip("cpu"), CHECKED[chip].register
    store = twin._store_derived

    def store_another() -> None:
        store()
        twin._words[register.number] = round(twin._words[register.number] * share) + add

    twin._store_derived = store_another


@pytest.mark.reliability(
    1.25,
    "a healthy chip that computes power or current in another way, or not at all",
    "the check turns itself off for that chip, and says so once",
)
@pytest.mark.parametrize(("chip", "share", "quantity"), [("ina238", 1.1, "power"), ("ina226", 1.008, "current")])
def test_a_check_that_always_fails_turns_itself_off(
    chip: str, share: float, quantity: str, caplog: pytest.LogCaptureFixture, measured: Callable[[str], None]
) -> None:
    bench = Bench.of(table(chip))
    disturbed(bench, chip, share)
    rail = constant(bench.rails["cpu"])
    rail.volts = 5.0
    read_at = None
    for sweep in range(300):
        rail.amperes = 0.1 + sweep % 7 / 10
        outcome = bench.run_next()["cpu"]
        if read_at is None and isinstance(outcome, Reading):
            read_at = sweep
        assert read_at is None or isinstance(outcome, Reading)
    assert read_at is not None
    assert 5 < read_at <= 100
    assert caplog.text.count(f"the {quantity} register is no longer used to check its readings") == 1
    measured("an INA238 with 10 % more power, an INA226 with 0.8 % more current: read within 100 sweeps, one line")


def test_a_current_that_is_clearly_another_is_never_believed() -> None:
    """The current of two chips is often within a quarter of what follows from their shunt voltage."""
    bench = Bench.of(table("ina226"))
    disturbed(bench, "ina226", 1.03)
    rail = constant(bench.rails["cpu"])
    rail.volts = 5.0
    for sweep in range(400):
        rail.amperes = 0.1 + sweep % 7 / 10
        assert not isinstance(bench.run_next()["cpu"], Reading)
    assert "the current register reads" in findings(bench)["cpu"].text


@pytest.mark.reliability(
    1.25,
    "a healthy chip that computes power or current in another way, or not at all",
    "the check turns itself off for that chip, and says so once",
)
@pytest.mark.parametrize("blank", [0, -1], ids=["zeros", "ones"])
@pytest.mark.parametrize("chip", CHECKED)
def test_a_register_that_is_not_implemented_costs_no_reading(
    chip: str, blank: int, caplog: pytest.LogCaptureFixture, measured: Callable[[str], None]
) -> None:
    bench, register = Bench.of(table(chip, 0.01, 'averaging = "auto"')), CHECKED[chip].register
    blank %= 1 << 8 * register.length_bytes
    disturbed(bench, chip, 0.0, blank)
    rail = constant(bench.rails["cpu"])
    rail.volts, rail.amperes = 5.0, 1.0
    bench.run_until_read()
    for _ in range(130):
        assert isinstance(bench.run_next()["cpu"], Reading)
    assert caplog.text.count(f"it always reads 0x{blank:0{2 * register.length_bytes}x}") == 1
    measured("always 0, or all bits 1: no reading lost, one line")


# A load that changes within a result


class Square:
    """Switches between two pairs of volts and amperes."""

    def __init__(self, period_seconds: float, on: tuple[float, float], off: tuple[float, float]) -> None:
        self._period, self._on, self._off = period_seconds, on, off

    def segments(self, start_seconds: float, end_seconds: float) -> Iterable[Segment]:
        """See `Rail.segments`."""
        half = self._period / 2
        begin, number = start_seconds, int(start_seconds // half)
        while True:
            end = min((number + 1) * half, end_seconds)
            yield Segment(begin, max(begin, end), *(self._off if number % 2 else self._on))
            if end >= end_seconds:
                return
            begin, number = max(begin, end), number + 1


def at_square(chip: str, rail: Square, averaging: str = 'averaging = "auto"') -> tuple[Bench, RegisterChip]:
    """A node whose only chip measures this rail; an INA260 averages products."""
    bench = Bench.of(table(chip, 0.01, averaging))
    now = bench.clock.monotonic
    twin: RegisterChip
    if chip == "ina260":
        twin = AveragesProducts(0x40, rail, now)
    elif chip == "ina226":
        twin = SimulatedINA226(0x40, rail, 0.01, now)
    else:
        twin = {"ina228": SimulatedINA228, "ina236": SimulatedINA236}[chip](0x40, rail, 0.01, now)
    replaced(bench, twin)
    return bench, twin


BATTERY = Square(1 / 20.3, (12.0, 3.0), (12.2, -2.5))
SWITCHED_RAIL = Square(1 / 20.3, (12.0, 3.0), (0.0, 0.0))
SWITCHED_SELDOM = Square(7.3, (12.0, 3.0), (0.0, 0.0))


@pytest.mark.reliability(
    1.243,
    "a chip that averages power by itself, at a battery whose current changes direction, or at a rail that is switched",
    "one chip, as its registers agree without averaging: looked at once an hour, no failure",
)
@pytest.mark.parametrize("rail", [BATTERY, SWITCHED_RAIL, SWITCHED_SELDOM])
@pytest.mark.parametrize("chip", ["ina226", "ina260", "ina228"])
def test_one_chip_at_a_load_that_changes_within_a_result_stays_read(
    chip: str, rail: Square, caplog: pytest.LogCaptureFixture, measured: Callable[[str], None]
) -> None:
    bench, _ = at_square(chip, rail)
    bench.run_until_read()
    outcomes = [bench.run_next()["cpu"] for _ in range(600)]
    assert not [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert sum(isinstance(outcome, Reading) for outcome in outcomes) >= 598
    assert not any(isinstance(outcome, Settling) and outcome.power_lost for outcome in outcomes)
    assert caplog.text.count("its own average of the power") == (chip != "ina228")
    measured("at most 2 of 600 readings lost, no failure")


def test_a_trusted_chip_is_examined_again_after_an_hour_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    bench, twin = at_square("ina260", BATTERY)
    bench.run_until_read()
    for _ in range(3):
        bench.run_next()
    written: list[float] = []
    write = twin._write_register

    def note(pointer: int, word: int) -> None:
        if pointer == 0 and not word & 0b111 << 9:
            written.append(bench.clock.monotonic())
        write(pointer, word)

    twin._write_register = note
    for _ in range(3 * 60 + 2):
        bench.clock.sleep(60.0)
        bench.run_next()
    assert len(written) == 3
    assert caplog.text.count("its own average of the power") == 1
    assert all(3600 <= later - earlier <= 3800 for earlier, later in pairwise(written))


def test_an_observer_reads_an_examined_chip_and_check_leaves_it_open() -> None:
    bench, _ = at_square("ina260", BATTERY)
    bench.run_until_read()
    for _ in range(5):
        bench.run_next()
    finding = findings(bench)["cpu"]
    assert "does its rail switch" in finding.text
    assert finding.exit_code == 0
    observer = bench.new_sweep(is_observer=True)
    outcomes = []
    for _ in range(30):
        outcomes += observer.run()
        bench.clock.sleep(1.0)
    assert not any(isinstance(outcome, Failure) for outcome in outcomes)
    assert all(isinstance(outcome, Reading) for outcome in outcomes[6:])


def test_a_power_loss_while_examined_is_counted() -> None:
    bench, twin = at_square("ina260", BATTERY)
    write, lost = twin._write_register, 0

    def brown_out(pointer: int, word: int) -> None:
        nonlocal lost
        write(pointer, word)
        if pointer == 0 and not word & 0b111 << 9 and not lost:
            lost = 1
            twin.power_loss()

    twin._write_register = brown_out
    outcomes = [bench.run_next()["cpu"] for _ in range(100)]
    assert lost
    assert sum(isinstance(outcome, Settling) and outcome.power_lost for outcome in outcomes) == 1
    assert isinstance(outcomes[-1], Reading)


def test_fast_conversions_of_a_fast_load_never_contradict() -> None:
    """No two of the registers are of the same conversion."""
    fast = 'averaging = { count = 1, voltage = "140us", current = "140us" }'
    bench, _ = at_square("ina226", Square(1 / 397.3, (12.0, 3.0), (0.0, 0.0)), fast)
    let_transfers_take_time(bench)
    bench.run_until_read()
    for _ in range(500):
        bench.clock.sleep(60.0)
        assert not isinstance(bench.run_next()["cpu"], Failure)


@pytest.mark.reliability(
    1.244,
    "one chip at loads that are switched slowly and fast, one bit in a thousand flipped, checked at each reading",
    "no reading is taken for that of two chips, none lies outside of the load",
)
@pytest.mark.parametrize("sweeps", [40, pytest.param(600, marks=pytest.mark.long)])
@pytest.mark.parametrize("chip", ["ina226", "ina236", "ina228"])
def test_one_chip_is_never_taken_for_two_although_bits_flip(
    chip: str, sweeps: int, measured: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_session, "CONFIGURATION_CHECK_SECONDS", 0.0)
    draws, readings = random.Random(chip), 0
    for period_seconds in (0.0013, 0.0077, 0.049, 0.36, 1.7, 7.3):
        for off in ((0.0, 0.0), (12.2, -2.5)):
            rail, averaging = Square(period_seconds, (12.0, 3.0), off), draws.choice([None, 'averaging = "auto"'])
            bench, _ = at_square(chip, rail, averaging or SHORTEST[chip])
            let_transfers_take_time(bench)
            random_flips(bench.wire, 1e-3, random.Random(draws.random()))
            for _ in range(sweeps):
                outcome = bench.run_next()["cpu"]
                assert "registers contradict" not in str(outcome)
                if isinstance(outcome, Reading):
                    readings += 1
                    assert -0.05 <= outcome.volts <= 12.25
                    assert -2.55 <= outcome.amperes <= 3.05
    assert readings > 0.9 * sweeps * 12
    if sweeps > 100:
        measured(f"{sweeps * 12:,} sweeps of each kind")


@pytest.mark.parametrize("chip", AT_POWER_ON)
@pytest.mark.parametrize("averaging", [None, 'averaging = "auto"'])
def test_an_observer_reads_neither_of_two_chips_beside_a_run(chip: str, averaging: str | None) -> None:
    """The run lets them average again and again, which leaves it open until it has examined them."""
    bench = with_a_second_chip(12.0, 0.5, chip, averaging=averaging)
    run, observer = bench.sweep, bench.new_sweep(is_observer=True)
    outcomes, errors = [], []
    for _ in range(120):
        seen = observer.run()
        errors += [str(outcome.error) for outcome in seen if isinstance(outcome, Failure)]
        bench.clock.sleep(0.3)
        outcomes += [*seen, *run.run()]
        bench.clock.sleep(0.7)
    assert not any(isinstance(outcome, Reading) for outcome in outcomes)
    assert "are two chips at 0x40?" in errors[-1]


def reads_of(twin: RegisterChip, register: int, before: Callable[[int], None]) -> None:
    """Call `before` with the number of each reading of a register."""
    read, count = twin.read, 0

    def counted(length: int) -> bytes:
        nonlocal count
        if twin._pointer == register:
            count += 1
            before(count)
        return read(length)

    twin.read = counted


def test_an_examination_that_never_reached_the_chip_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    bench, twin = at_square("ina260", BATTERY)
    write, lost = twin._write_register, 0

    def lose_the_first(pointer: int, word: int) -> None:
        nonlocal lost
        if pointer == 0 and not word & 0b111 << 9 and not lost:
            lost = 1
        else:
            write(pointer, word)

    twin._write_register = lose_the_first
    outcomes = [bench.run_next()["cpu"] for _ in range(30)]
    assert lost
    assert not [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert caplog.text.count("its own average of the power") == 1


def test_registers_that_are_never_of_one_conversion_fit_after_a_few() -> None:
    bench = Bench.of(table("ina226", averaging=slowest("ina226", 1)))
    rail, twin, bench.rails = constant(bench.rails["cpu"]), bench.chip("cpu"), {}
    rail.volts = 5.0
    bench.run_until_read()
    bench.clock.sleep(60.0)

    def alternate(number: int) -> None:
        for register, words in ((2, (4000, 2000)), (1, (20_000, 10_000)), (4, (8750, 17_500))):
            twin._words[register] = words[number % 2]

    twin._update_results = lambda: None
    alternate(0)
    reads_of(twin, 0x02, lambda number: alternate(number // 2 % 2 + 1) if number > 2 else None)
    assert "contradict" not in str(bench.run())


def test_a_bit_flipped_within_the_check_costs_no_reading() -> None:
    bench = Bench.of(table("ina226"))
    bench.run_until_read()
    bench.clock.sleep(60.0)
    twin, keeps = bench.chip("cpu"), bench.chip("cpu")._words
    store = twin._update_results

    def flip(number: int) -> None:
        twin._update_results = store
        if number == 3:  # after both readings of the sweep
            store()
            keeps[0x02] |= 0x7000
            twin._update_results = lambda: None

    reads_of(twin, 0x02, flip)
    assert isinstance(bench.run()["cpu"], Reading)


def test_a_result_that_ends_within_the_check_is_not_examined(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench.of(table("ina260"))
    rail, twin, bench.rails = constant(bench.rails["cpu"]), bench.chip("cpu"), {}
    rail.volts, rail.amperes = 5.0, 0.2
    bench.run_until_read()
    bench.clock.sleep(60.0)

    def end_a_result(number: int) -> None:
        if number == 1:
            rail.amperes = 0.6
            bench.clock.sleep(0.01)

    reads_of(twin, 0x03, end_a_result)
    assert isinstance(bench.run()["cpu"], Reading)
    assert isinstance(bench.run_next()["cpu"], Reading)
    assert twin._words[0] >> 9 & 0b111
    assert caplog.text == ""


def test_a_chip_that_seems_not_to_average_for_once_is_no_contradiction() -> None:
    bench, twin = at_square("ina226", BATTERY)
    bench.run_until_read()
    for _ in range(5):
        bench.run_next()
    bench.clock.sleep(60.0)
    configuration = twin._words[0]

    def flip(number: int) -> None:
        twin._words[0] = configuration & ~(0b111 << 9) if number == 3 else configuration

    reads_of(twin, 0x00, flip)  # the configuration, the mode, then the averaging
    assert isinstance(bench.run()["cpu"], Reading)
