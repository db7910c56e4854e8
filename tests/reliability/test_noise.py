"""Random NACKs: how many readings are lost, beside the same agent without retries and a script on the stock drivers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from agent.energy.state_file import StateFile
from agent.errors import ExitCode
from agent.i2c.attempts import Attempts
from agent.run.once import run_once
from tests.bench import distinct_rails, settings_of
from tests.noise import WireClock, random_nacks
from tests.reliability.noisy import (
    EIGHT_AND_EIGHT,
    EIGHT_INA260,
    EIGHT_INA3221,
    TWICE_FOUR_INA260,
    NoisyNode,
    StockScript,
)
from tests.run.running import HandWaiting, MemoryGateway, agent_of, world_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NODES = {
    "8 INA260 behind one mux": EIGHT_INA260,
    "8 INA3221 behind one mux": EIGHT_INA3221,
    "2 x 4 INA260 behind two muxes": TWICE_FOUR_INA260,
}
GOALS = {0.02: 0.999, 0.05: 0.995, 0.1: 0.99, 0.2: 0.95}
STARTING_SWEEPS = 2
"""The chips are configured in the first, and convert until the second."""


HEAD = """\
## Random NACKs

Each transfer fails with this probability, a third of the failures after they took effect. Each cell is the share of due
readings in 90 sweeps at 1 s, from the start on. *Without retries* is this agent with one attempt for each transfer. The
stock script reads each chip once a second with Adafruit's drivers, catches the error of each device and opens the bus
again (`StockScript` in tests/reliability/noisy.py). The zeros of a chip that has not converted yet count as no reading:
Adafruit's INA3221 driver resets the chip when it opens it, and its first result takes 3 s. The last two columns are
failures of 20 runs of `--once`.

| chips | NACKs | wattpush | without retries | stock script | `--once` | without retries |
|---|---:|---:|---:|---:|---:|---:|"""


def disturbed(text: str, share: float, seed: str) -> NoisyNode:
    node = NoisyNode(text)
    random_nacks(node.wire, share, random.Random(seed))
    return node


def run(text: str, share: float, sweeps: int, seed: str = "") -> NoisyNode:
    """A node that starts and runs on a wire with this share of NACKs."""
    node = disturbed(text, share, f"{share}{seed}")
    node.sweep(STARTING_SWEEPS, is_due=False)
    node.sweep(sweeps)
    return node


def once(folder: Path, share: float, seed: int) -> tuple[ExitCode, int]:
    """The exit code of `--once` with 8 INA260, and how many devices it published."""
    clock = WireClock()
    settings = settings_of(EIGHT_INA260)
    world = world_for(settings, clock, distinct_rails(settings, clock))
    clock.runs_with(world.wires[1])
    random_nacks(world.wires[1], share, random.Random(f"{share}/{seed}"))
    gateway, folder = MemoryGateway(), folder / f"{share}-{seed}"
    folder.mkdir(parents=True)
    agent = agent_of(settings, world, clock, gateway, state_file=StateFile(folder, "counters", "boot"))
    code = run_once(agent, clock, HandWaiting(clock))
    return code, sum("wattpush_device_volts" in group for group in gateway.groups.values())


@pytest.mark.reliability(
    1.11,
    "random NACKs, a third of them after they took effect",
    "transfers are repeated at once: hardly a reading is lost, and none is wrong",
)
@pytest.mark.parametrize(
    ("name", "text"),
    [("8 INA260 and 8 INA3221 behind one mux", EIGHT_AND_EIGHT), ("2 x 4 INA260 behind two", TWICE_FOUR_INA260)],
    ids=["one-mux", "two-muxes"],
)
def test_random_nacks_lose_hardly_any_reading(name: str, text: str, measured: Callable[[str], None]) -> None:
    shares = {}
    for share, goal in GOALS.items():
        node = run(text, share, sweeps=150)
        assert node.tally.wrong == []
        assert node.tally.share >= goal, (share, node.tally)
        assert node.tally.retries > share * node.tally.due
        assert node.tally.power_losses == 0
        shares[share] = node.tally.percent(2)
    read = ", ".join(f"{percent} % at {100 * share:g} %" for share, percent in shares.items())
    measured(f"{name}: of the readings due {read}")


@pytest.mark.reliability(
    1.12, "`--once` with 8 INA260 at 2 % random NACKs", "it exits with 0 and publishes all devices"
)
def test_once_succeeds_on_a_wire_with_nacks(tmp_path: Path, measured: Callable[[str], None]) -> None:
    runs = [once(tmp_path, 0.02, seed) for seed in range(100)]
    assert {devices for code, devices in runs if code is ExitCode.OK} == {8}
    done = sum(code is ExitCode.OK for code, _ in runs)
    assert done >= 99
    measured(f"{done} of 100 runs")


@pytest.mark.long
@pytest.mark.reliability(
    1.14,
    "random NACKs at 0.5 to 20 %, beside a stock script and this agent without retries",
    "more readings than either, and none is wrong",
)
def test_the_noise_table_compares_with_stock(
    tmp_path: Path,
    measured: Callable[[str], None],
    tabulated: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [HEAD]
    try_once = Attempts.do
    for name, text in NODES.items():
        for share in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2):
            ours = run(text, share, 90)
            stock = StockScript(disturbed(text, share, f"{share}"))
            stock.sweep(90)
            with monkeypatch.context() as patch:
                patch.setattr(Attempts, "do", lambda our, transfers, *_: try_once(our, transfers, 1))
                bare = run(text, share, 90)
                bare_once = [once(tmp_path / "bare", share, seed)[0] for seed in range(20 * (text is EIGHT_INA260))]
            ours_once = [once(tmp_path / "ours", share, seed)[0] for seed in range(len(bare_once))]
            assert ours.tally.wrong == bare.tally.wrong == []
            assert ours.tally.share > max(bare.tally.share, stock.tally.share)
            assert bare.tally.retries == 0
            wrong = f", {len(stock.tally.wrong)} wrong" if stock.tally.wrong else ""
            failed = [str(sum(code is not ExitCode.OK for code in codes)) for codes in (ours_once, bare_once) if codes]
            lines.append(
                f"| {name} | {100 * share:g} % | {ours.tally.percent()} % | {bare.tally.percent()} % | "
                f"{stock.tally.percent()} %{wrong} | {' | '.join(failed or ['', ''])} |"
            )
    measured("see [random NACKs](#random-nacks) below")
    tabulated("\n".join(lines))
