"""What a sweep costs on the wire, in bits: one for a START or STOP, nine for a byte."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import adafruit_ina260
import adafruit_tca9548a
import pytest

from tests.bench import Bench, ina260, ina3221, mux

if TYPE_CHECKING:
    from collections.abc import Callable


def steady_bits(bench: Bench) -> int:
    """The bits of a sweep once every chip is configured; the next sweep takes as many."""
    bench.run_until_read()
    costs = []
    for _ in range(2):
        before = bench.wire.bits
        assert bench.all_read(bench.run_next())
        costs.append(bench.wire.bits - before)
    assert costs[0] == costs[1]
    assert bench.all_muxes_are_closed()
    return costs[0]


def eight_behind(mux_name: str) -> str:
    return "".join(ina260(f"{mux_name}-{n}", f'mux = "{mux_name}", channel = {n}') for n in range(8))


def test_eight_ina260_behind_a_mux_take_2260_bits() -> None:
    bench = Bench.of(mux("m0", 0x70) + eight_behind("m0"))
    assert steady_bits(bench) == 2260
    i2c = bench.world.open(1)
    stock_mux = adafruit_tca9548a.TCA9548A(i2c, 0x70)
    stock = [adafruit_ina260.INA260(stock_mux[channel], 0x40) for channel in range(8)]
    before = bench.wire.bits
    for driver in stock:
        _ = driver.voltage, driver.current, driver.power
    assert bench.wire.bits - before == 4224


def test_64_ina260_behind_eight_muxes_take_at_most_28000_bits() -> None:
    """Of them, 10,240 read back all eight muxes after each chip, as any of them may have been switched."""
    text = "".join(mux(f"m{n}", 0x70 + n) + eight_behind(f"m{n}") for n in range(8))
    assert steady_bits(Bench.of(text)) <= 28_000


def test_three_ina3221_inputs_behind_a_mux_take_at_most_700_bits() -> None:
    text = mux("m0", 0x70) + "".join(ina3221(f"in{n}", 'mux = "m0", channel = 3', n) for n in (1, 2, 3))
    assert steady_bits(Bench.of(text)) <= 700


@pytest.mark.parametrize(("chip", "status"), [(ina260, b"\x06"), (partial(ina3221, number=1), b"\x0f")])
def test_a_sweep_reads_the_canary_after_the_results(chip: Callable[[str, str], str], status: bytes) -> None:
    bench = Bench.of(chip("cpu", "bus = 1"))
    bench.run_until_read()
    bench.wire.log = []
    bench.run_next()
    registers = [transaction.messages[0].data for transaction in bench.wire.log]
    assert registers[-1] == status
    assert len(registers) == 5


def test_the_configuration_is_read_again_once_a_minute() -> None:
    bench = Bench.of(mux("m0", 0x70) + "".join(ina260(f"c{n}", 'mux = "m0", channel = 2', 0x40 + n) for n in range(6)))
    bench.run_until_read()
    bench.run_next()
    bench.wire.log = []
    for _ in range(121):
        bench.run_next()
    assert sum(t.messages[0].address == 0x45 and t.messages[0].data == b"\x00" for t in bench.wire.log) == 2


def test_a_channel_with_many_chips_is_opened_once_a_sweep() -> None:
    text = mux("m0", 0x70) + "".join(ina260(f"c{n}", 'mux = "m0", channel = 2', 0x40 + n) for n in range(6))
    bench = Bench.of(text)
    bench.run_until_read()
    bench.wire.log = []
    bench.run_next()
    messages = [t.messages[0] for t in bench.wire.log if not t.messages[0].is_read]
    switched = [message.data for message in messages if message.address == 0x70]
    assert switched == [b"\x04", b"\x00"]


def test_each_channel_of_nested_muxes_is_opened_once_a_sweep() -> None:
    bench = Bench.of(
        ina260("apart", 'mux = "m0", channel = 5')
        + ina260("other", 'mux = "inner", channel = 4')
        + ina260("twin", 'mux = "twin", channel = 3')
        + ina260("beside", 'mux = "m0", channel = 2', 0x41)
        + ina260("behind", 'mux = "inner", channel = 3')
        + mux("twin", 0x72, 'mux = "m0", channel = 2')
        + mux("inner", 0x71, 'mux = "m0", channel = 2')
        + mux("m0", 0x70)
    )
    bench.run_until_read()
    bench.wire.log = []
    bench.run_next()
    written: dict[int, list[int]] = {0x70: [], 0x71: [], 0x72: []}
    for transaction in bench.wire.log:
        message = transaction.messages[0]
        if message.address in written and not message.is_read:
            written[message.address].append(message.data[0])
    assert written == {0x70: [1 << 2, 1 << 5, 0], 0x71: [1 << 3, 1 << 4, 0], 0x72: [0, 1 << 3, 0]}
