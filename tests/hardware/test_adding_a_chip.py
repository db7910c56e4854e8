"""docs/adding-a-chip.md: the chip that it shows how to add is added, and read on the simulator."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import agent.chips
import agent.simulate
from agent.config import parse
from agent.measure.readings import Failure, Reading
from agent.simulate.clock import HandClock
from agent.simulate.rails import ConstantRail
from tests.bench import NODE, Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "adding-a-chip.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(agent/\w+/\w+\.py)`:\n\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SENSOR, TWIN = "agent/chips/ina226.py", "agent/simulate/ina226.py"

DEVICE = """
[[device]]
name = "radio"
chip = "ina226"
bus = 1
address = 0x44
shunt_ohms = 0.1
averaging = { count = 4, voltage = "140us", current = "140us" }
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The files of the page, where the agent looks for its own."""
    for package, name in ((agent.chips, SENSOR), (agent.simulate, TWIN)):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_text(FILES[name], encoding="utf-8")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(file.parent)])
    yield
    for package, module in ((agent.chips, "agent.chips.ina226"), (agent.simulate, "agent.simulate.ina226")):
        sys.modules.pop(module, None)
        if hasattr(package, "ina226"):
            delattr(package, "ina226")


def bench_with(volts: float, amperes: float) -> Bench:
    settings = parse(NODE + DEVICE, agent.chips.options(), default_hostname="node", environ={"HOME": "/nowhere"})
    clock = HandClock()
    return Bench(settings, clock, {"radio": ConstantRail(volts, amperes, clock.monotonic)})


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("amperes", [0.5, -0.5])
def test_the_page_s_chip_is_read_from_its_twin(amperes: float) -> None:
    bench = bench_with(12.0, amperes)
    bench.run_next()
    outcome = bench.run_next()["radio"]
    assert isinstance(outcome, Reading)
    assert outcome.volts == pytest.approx(12.0)
    assert outcome.amperes == pytest.approx(amperes)


@pytest.mark.usefixtures("added")
def test_the_page_s_chip_notices_a_power_loss() -> None:
    bench = bench_with(12.0, 0.5)
    bench.run_next()
    assert isinstance(bench.run_next()["radio"], Reading)
    bench.chip("radio").power_loss()
    assert not isinstance(bench.run_next()["radio"], Reading)
    bench.run_next()
    assert isinstance(bench.run_next()["radio"], Reading)


@pytest.mark.usefixtures("added")
def test_the_page_s_chip_refuses_the_end_of_its_range() -> None:
    bench = bench_with(12.0, 2.0)
    bench.run_next()
    outcome = bench.run_next()["radio"]
    assert isinstance(outcome, Failure)
    assert "the end of its range" in str(outcome.error)


@pytest.mark.parametrize("name", [SENSOR, TWIN])
def test_the_page_s_files_pass_lint(name: str) -> None:
    for arguments in (["check"], ["format", "--check"]):
        checked = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--no-cache", "--stdin-filename", name, "-"],
            input=FILES[name],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
