"""Everything at once: random campaigns of ten minutes over eight chips behind two muxes, in simulated time."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from agent.i2c.adapters import open_bus
from agent.measure.readings import Reading
from tests.emulated_i2c_dev import EmulatedI2CDev
from tests.noise import (
    Stranger,
    leaves_open,
    random_bursts,
    random_flips,
    random_holds,
    random_nacks,
    random_power_losses,
    random_wrong_addresses,
    slow_adapter,
    stock_script,
)
from tests.reliability.noisy import EIGHT_AND_EIGHT, FOUR_AND_FOUR, THREE_MUXES, NoisyNode, Tally, stepping_rails

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.settings import Settings
    from agent.simulate.rails import Rail
    from tests.noise import WireClock

CAMPAIGN_SECONDS = 600
FLIPS = 0.001


def noisy_node(text: str, draws: random.Random, sample_interval: str = "1s") -> NoisyNode:
    """A node whose loads step at random."""

    def rails_of(settings: Settings, clock: WireClock) -> dict[str, Rail]:
        return stepping_rails(settings, draws, clock.seconds, CAMPAIGN_SECONDS)

    return NoisyNode(text, sample_interval=sample_interval, rails_of=rails_of)


@pytest.mark.reliability(
    1.2,
    "one bit flips in one byte of 1,000 that is read or written, although acknowledged",
    "results are read twice; a power loss, a configuration or an ID counts only when two readings agree",
)
@pytest.mark.parametrize("sweeps", [400, pytest.param(6_000, marks=pytest.mark.long)])
def test_flipped_bits_make_no_wrong_number_and_no_reset(sweeps: int, measured: Callable[[str], None]) -> None:
    draws = random.Random(sweeps)
    node = noisy_node(EIGHT_AND_EIGHT, draws, "100ms")
    random_flips(node.wire, FLIPS, draws)
    node.sweep(3, is_due=False)
    node.sweep(sweeps)
    numbers = node.tally.numbers()
    assert node.tally.power_losses == 0
    assert node.tally.implausible > 0
    assert node.tally.share > 0.999, node.tally
    if sweeps > 1000:
        measured(f"{numbers}; 0 resets")


@pytest.mark.reliability(
    1.22,
    "one bit flips in one address byte of 1,000, so that another chip or mux may answer",
    "the reading is taken again: the results disagree, or a mux is not as it should be",
)
@pytest.mark.parametrize("sweeps", [400, pytest.param(6_000, marks=pytest.mark.long)])
def test_a_wrong_address_makes_no_wrong_number(sweeps: int, measured: Callable[[str], None]) -> None:
    draws = random.Random(sweeps)
    node = noisy_node(FOUR_AND_FOUR, draws, "100ms")
    random_wrong_addresses(node.wire, 0.001, draws)
    node.sweep(3, is_due=False)
    node.sweep(sweeps)
    assert node.tally.wrong == []
    assert node.tally.power_losses == 0
    assert node.tally.share > 0.999, node.tally
    if sweeps > 1000:
        measured(f"{node.tally.read:,} readings: 0 wrong, 0 resets")


def test_an_adapter_that_hangs_costs_a_sweep_one_transfer() -> None:
    draws = random.Random(7)
    node = NoisyNode(THREE_MUXES)
    hangs = [False]
    slow_adapter(node.wire, node.clock, draws, is_hung=lambda: hangs[0])
    random_nacks(node.wire, 0.02, draws)
    node.sweep(10)
    hangs[0], hung_seconds = True, []
    for _ in range(20):
        node.clock.sleep(1.0)
        began_seconds = node.clock.seconds
        outcomes = node.bench.sweep.run()
        hung_seconds.append(node.clock.seconds - began_seconds)
        assert not any(isinstance(outcome, Reading) for outcome in outcomes)
    assert 2.0 < max(hung_seconds) < 3.1
    hangs[0] = False
    node.clock.sleep(20.0)
    node.sweep(3, is_due=False)
    node.tally = Tally()
    node.sweep(50)
    assert node.tally.share == 1.0
    assert node.tally.wrong == []


@pytest.mark.reliability(
    16.1,
    "campaigns of ten minutes over 8 chips at one address behind two muxes: 2 % NACKs, bursts, flips, "
    "a driver and a stock script that switch the muxes, power losses, held buses",
    "no number is wrong, hardly a reading is lost, and the energy of the measured time is right",
)
@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 40), marks=pytest.mark.long)], ids=["one", "many"])
def test_random_campaigns_publish_nothing_wrong(
    seeds: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: Callable[[str], None]
) -> None:
    total = Tally()
    for seed in seeds:
        draws = random.Random(seed)
        node = noisy_node(FOUR_AND_FOUR, draws)
        folder = tmp_path / str(seed)
        folder.mkdir()
        with monkeypatch.context() as patch:
            EmulatedI2CDev(node.world.wires, folder).install(patch)
            node.bench.sweep = node.bench.new_sweep(open_bus)
            ends_seconds = node.clock.seconds + CAMPAIGN_SECONDS
            node.sweep(3, is_due=False)
            random_nacks(node.wire, 0.02, draws)
            random_bursts(node.wire, node.clock, 1e-4, draws)
            random_flips(node.wire, FLIPS, draws)
            strangers = [
                Stranger(node.wire, node.clock, draws, leaves_open(0x70, range(4), draws)),
                Stranger(node.wire, node.clock, draws, stock_script(0x71, range(4), 0x40, draws)),
            ]
            node.has_stock_script = True
            parts = [*node.world.muxes.values(), *dict.fromkeys(node.world.chips.values())]
            losses = random_power_losses(node.clock, parts, 60.0, draws, ends_seconds - 10)
            holds = random_holds(
                node.clock,
                folder / "i2c-1",
                draws,
                mean_seconds=40.0,
                longest_seconds=2.0,
                until_seconds=ends_seconds - 10,
            )
            while node.clock.seconds < ends_seconds:
                node.sweep()
            node.bench.sweep.close()
        tally = node.tally
        assert tally.wrong == [], seed
        assert tally.share >= 0.99, (seed, tally)
        assert tally.power_losses <= losses, (seed, tally)
        assert all(stranger.visits > 100 for stranger in strangers)
        assert holds > 3
        assert node.bench.sweep.mux_conflicts > 0
        for name, error in node.energy_errors().items():
            assert abs(error) <= 0.005, (seed, name, error)
        total.add(tally)
    numbers = total.numbers()
    assert total.share >= 0.99
    if len(seeds) > 2:
        measured(
            f"{len(seeds)} seeds of ten minutes: {numbers}; {total.percent(2)} % of those due; energy within 0.5 %"
        )
