"""A chip that is exchanged for one of another kind, which takes the same configuration: never a wrong number for long.

The twins of two kinds share a wire and a clock, and measure the same rail; one takes the place of the other right
before a transfer. With the power of its own, it may hold our configuration and canary bit already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent import chips
from agent.chips import _signatures
from agent.measure.readings import Failure, Reading
from agent.measure.run_session import CONFIGURATION_CHECK_SECONDS
from tests.bench import SHORTEST, Bench, failure, ina260, ina3221, settings_of, with_shunt
from tests.noise import before_each_transfer

if TYPE_CHECKING:
    from agent.simulate.chips import RegisterChip

ALL = {
    "ina260": ina260("cpu", "bus = 1"),
    "ina3221": ina3221("cpu", "bus = 1", 1, 0x40),
    **{name: with_shunt(name, "cpu", "bus = 1") for name in SHORTEST},
}


def another(bench: Bench, kind: str, *, is_configured: bool) -> RegisterChip:
    """A chip of this kind on the rail of the bench, powered on just now or configured by another node."""
    other = Bench(settings_of(ALL[kind], 'sample_interval = "1s"\n'), bench.clock, bench.rails)
    if is_configured:
        other.run_until_read()
        other.run_next()
    return other.chip("cpu")


def exchange(bench: Bench, new: RegisterChip) -> None:
    parts = bench.wire._trunk
    parts[parts.index(bench.chip("cpu"))] = new


@pytest.mark.parametrize(
    ("configured", "wired"),
    [("ina226", "ina236"), ("ina236", "ina226"), ("ina231", "ina232"), ("ina234", "ina230"), ("ina232", "ina231")],
)
def test_a_chip_exchanged_while_it_is_opened_is_never_read(configured: str, wired: str) -> None:
    """`Bench.run` compares each reading with the rail."""
    transfers, number, refused = 1, 0, 0
    while number < transfers:
        bench = Bench.of(ALL[configured])
        new = another(bench, wired, is_configured=False)
        left = number

        def act(bench: Bench = bench, new: RegisterChip = new) -> None:
            nonlocal left
            if left == 0:
                exchange(bench, new)
                new.power_loss()
            left -= 1

        before_each_transfer(bench.wire, act)
        bench.run_next()
        bench.run_next()  # reads the first result
        transfers, number = number - left, number + 1
        outcomes = [bench.run_next()["cpu"] for _ in range(3)] if left < 0 else []
        refused += left < 0 and all(isinstance(outcome, Failure) for outcome in outcomes)
    assert refused == transfers > 20


MEANING = {
    **dict.fromkeys(("ina226", "ina230", "ina231"), "ina226"),
    **dict.fromkeys(("ina232", "ina236"), "ina236"),
    **dict.fromkeys(("ina237", "ina238"), "ina238"),
}
"""The chips whose words mean the same as those of another one."""


@pytest.mark.reliability(
    7.11,
    "a chip that is exchanged between two sweeps for one of another kind, which has kept our configuration",
    "what is written to a kind shows in every sweep: it is refused",
)
@pytest.mark.parametrize("wired", ALL)
@pytest.mark.parametrize("configured", ALL)
def test_a_configured_chip_of_another_kind_is_never_read(configured: str, wired: str) -> None:
    """`Bench.run` compares each reading with the rail."""
    bench = Bench.of(ALL[configured])
    bench.run_until_read()
    observer = bench.new_sweep(is_observer=True)
    bench.assert_right(observer.run())
    new = another(bench, wired, is_configured=True)
    exchange(bench, new)
    outcomes = [bench.run_next()["cpu"] for _ in range(3)]
    bench.assert_right(observer.run())
    if MEANING.get(configured, configured) != MEANING.get(wired, wired):
        assert all(isinstance(outcome, Failure) for outcome in outcomes)


@pytest.mark.parametrize(
    ("configured", "wired", "seen"),
    [
        ("ina226", "ina236", "those of an INA236"),
        ("ina236", "ina231", "gone"),
        ("ina228", "ina238", "those of an INA238"),
    ],
)
def test_a_chip_configured_as_another_kind_is_found_within_a_minute(configured: str, wired: str, seen: str) -> None:
    bench = Bench.of(ALL[configured])
    bench.run_until_read()
    new, old = another(bench, wired, is_configured=True), bench.chip("cpu")
    for bits in chips.i2c_chip(configured)(bench.settings.devices, 1.0).configuration:
        new.write(bytes((bits.register.number, *bits.written.to_bytes(2, "big"))))
    new._words[new.MASK_ENABLE] = old._words[old.MASK_ENABLE]
    bench.clock.sleep(CONFIGURATION_CHECK_SECONDS)
    exchange(bench, new)
    message = f"{configured.upper()} at 0x40 on /dev/i2c-1: its IDs are {seen} now; was the chip exchanged?"
    assert failure(bench.run()["cpu"]) == message
    assert failure(bench.run_next()["cpu"]).startswith(f"not an {configured.upper()} at 0x40")


@pytest.mark.parametrize(
    ("register", "word", "seen"), [(0xFF, 0x2260, "those of an INA226"), (0xFF, 0x2280, "gone"), (0xFE, 0x0000, "gone")]
)
def test_each_id_of_an_ina260_is_read_again_within_a_minute(register: int, word: int, seen: str) -> None:
    bench = Bench.of(ALL["ina260"])
    bench.run_until_read()
    bench.clock.sleep(CONFIGURATION_CHECK_SECONDS)
    bench.chip("cpu")._words[register] = word
    assert f"its IDs are {seen} now; was the chip exchanged?" in failure(bench.run()["cpu"])


@pytest.mark.parametrize("name", ["ina226", "ina236", "ina219", "ina260"])
def test_a_flip_in_an_id_that_is_read_again_costs_nothing(name: str) -> None:
    bench = Bench.of(ALL[name])
    bench.run_until_read()
    bench.run_next()
    before = bench.wire.bits
    bench.clock.sleep(CONFIGURATION_CHECK_SECONDS)
    assert isinstance(bench.run()["cpu"], Reading)
    for number in range((bench.wire.bits - before) // 9):
        bench.clock.sleep(CONFIGURATION_CHECK_SECONDS)
        left = number

        def flip(byte: int) -> int:
            nonlocal left
            left -= 1
            return byte ^ 0x10 if left == -1 else byte

        bench.wire.faults.flip = flip
        assert isinstance(bench.run()["cpu"], Reading), number
        bench.wire.faults.flip = None


def test_a_chip_with_a_known_id_says_which_ids_it_shows() -> None:
    """An added chip that does not say so is compared with its own IDs."""
    known = {signature.chip for signature in _signatures.WITH_ID}
    shown = {
        name: chips.i2c_chip(name).signature_names for name, options in chips.options().items() if options.addresses
    }
    assert known <= set(shown)
    for name, names in shown.items():
        assert name not in known or (names is not None and name in names), name
        assert names or chips.i2c_chip(name).ids, f"nothing shows that {name} was exchanged"
        assert names is None or names <= known | {""}, name


def test_an_exchanged_clone_that_keeps_no_canary_bit_is_found_too() -> None:
    bench = Bench.of(ALL["ina260"])
    chip = bench.chip("cpu")
    keeps = chip._write_register
    chip._write_register = lambda pointer, word: keeps(pointer, 0 if pointer == chip.MASK_ENABLE else word)
    bench.run_until_read()
    bench.run_next()
    bench.clock.sleep(CONFIGURATION_CHECK_SECONDS)
    chip._words[0xFF] = 0x2280
    assert "its IDs are gone now" in failure(bench.run()["cpu"])


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ({0x00: 0x5127, 0x3E: 0x5449}, "INA232"),  # in the narrow range
        ({0x00: 0x6127, 0x3E: 0x5449}, None),
        ({0x00: 0x3FF0, 0x3E: 0x5449}, "INA237 or INA700"),
        ({0x00: 0x0008, 0x3E: 0x5449}, None),
        ({0x00: 0x0001, 0x3E: 0x5449}, None),
        ({0x00: 0x0000, 0x3E: 0x5448}, None),
    ],
)
def test_a_manufacturer_id_alone_counts_with_a_layout_that_fits(words: dict[int, int], part: str | None) -> None:
    signature = _signatures.identify(lambda number: words.get(number, 0), _signatures.WITH_ID)
    assert (signature and signature.part) == part
