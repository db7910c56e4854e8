"""docs/adding-a-chip.md: its chip as part of wattpush, on the simulator; then the tests run with it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

import agent.chips
import agent.simulate.chips
from agent.config import parse
from agent.measure.readings import Failure, Reading
from agent.simulate.clock import HandClock
from agent.simulate.rails import ConstantRail
from tests.bench import NODE, Bench, with_shunt

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "adding-a-chip.md").read_text(encoding="utf-8")
COPIES = dict(reversed(pair.split()) for pair in re.findall(r"^    cp (\S+ agent/\S+)$", PAGE, re.MULTILINE))
"""The file of the example by the place that the page copies it to."""
FILES = {name: (PROJECT / source).read_text(encoding="utf-8") for name, source in COPIES.items()}
INSERTIONS = re.findall(
    r"^\d\. In `(.*?)`, above the line that starts with `(.*?)`, .*?:\n\n   ```\n(.*?)   ```$",
    PAGE,
    re.MULTILINE | re.DOTALL,
)
SENSOR, TWIN = "agent/chips/ina700.py", "agent/simulate/ina700.py"
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", ".cache", ".*_cache", ".hypothesis", "__pycache__", "build", "dist"
)
WITHOUT_CHIPS = ("gateway", "history", "prometheus", "push", "serve")
"""Folders of tests that one more chip cannot change: they begin where a reading has been taken, read no list of chips,
and use the INA260 alone."""
LISTS_OF_CHIPS = (
    r"agent\.chips|agent\.simulate\.chips|reference_chips|docs.*chips|configuration\.md|config\.toml\.example"
)

DEVICE = """
[[device]]
name = "radio"
chip = "ina700"
bus = 1
address = 0x44
"""
SHORT = 'averaging = { count = 4, voltage = "150us", current = "150us" }'


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The files of the page, where the agent looks for its own."""
    for package, name in ((agent.chips, SENSOR), (agent.simulate, TWIN)):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_text(FILES[name], encoding="utf-8")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(file.parent)])
    yield
    for package, module in ((agent.chips, "agent.chips.ina700"), (agent.simulate, "agent.simulate.ina700")):
        sys.modules.pop(module, None)
        if hasattr(package, "ina700"):
            delattr(package, "ina700")


def bench_with(volts: float, amperes: float, averaging: str = SHORT) -> Bench:
    settings = parse(
        NODE + DEVICE + averaging, agent.chips.options(), default_hostname="node", environ={"HOME": "/nowhere"}
    )
    clock = HandClock()
    return Bench(settings, clock, {"radio": ConstantRail(volts, amperes, clock.monotonic)})


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("amperes", [0.48, -0.48])
def test_the_pages_chip_is_read_from_its_twin(amperes: float) -> None:
    bench = bench_with(12.0, amperes)
    bench.run_next()
    outcome = bench.run_next()["radio"]
    assert isinstance(outcome, Reading)
    assert outcome.volts == pytest.approx(12.0)
    assert outcome.amperes == pytest.approx(amperes)


@pytest.mark.usefixtures("added")
def test_the_pages_chip_notices_a_power_loss() -> None:
    bench = bench_with(12.0, 0.48)
    bench.run_next()
    assert isinstance(bench.run_next()["radio"], Reading)
    bench.chip("radio").power_loss()
    assert not isinstance(bench.run_next()["radio"], Reading)
    bench.run_next()
    assert isinstance(bench.run_next()["radio"], Reading)


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("amperes", [16.0, -16.0])
def test_the_pages_chip_refuses_the_end_of_its_range(amperes: float) -> None:
    bench = bench_with(12.0, amperes)
    bench.run_next()
    outcome = bench.run_next()["radio"]
    assert isinstance(outcome, Failure)
    assert "the end of its range" in str(outcome.error)


@pytest.mark.usefixtures("added")
def test_two_of_the_pages_chips_at_one_address_contradict_each_other() -> None:
    bench = bench_with(5.0, 0.96, 'averaging = { count = 1, voltage = "150us", current = "150us" }')
    other = ConstantRail(12.0, 0.48, bench.clock.monotonic)
    twin = import_module("agent.simulate.ina700").SimulatedINA700(0x44, other, bench.clock.monotonic)
    bench.world.wires[1].attach(twin)
    bench.rails = {}  # what both give together is not what a rail has
    outcomes = [bench.run_next()["radio"] for _ in range(65)]
    assert any("are two chips at 0x44?" in str(o.error) for o in outcomes if isinstance(o, Failure))


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize(("chip", "is_refused"), [("ina228", True), ("ina238", True), ("ina237", False)])
def test_the_pages_chip_is_not_taken_for_one_with_an_id(chip: str, is_refused: bool) -> None:  # noqa: FBT001 - a row
    bench = bench_with(12.0, 0.48)
    bench.chip("radio").unplug()
    other = Bench.of(with_shunt(chip, "radio", "bus = 1", 0x44)).chip("radio")
    bench.world.wires[1].attach(other)
    outcome = bench.run_next()["radio"]
    assert isinstance(outcome, Failure) == is_refused
    assert f"it as an {chip.upper()}" in str(getattr(outcome, "error", "")) or not is_refused


def test_the_page_names_what_other_packages_may_use() -> None:
    """Everything that the files of the example import from wattpush."""
    for name, module in ((SENSOR, agent.chips), (TWIN, agent.simulate.chips)):
        imported = [node for node in ast.walk(ast.parse(FILES[name])) if isinstance(node, ast.ImportFrom)]
        used = {alias.name for node in imported if node.module == module.__name__ for alias in node.names}
        assert used <= set(module.__all__)
        assert {node.module for node in imported} <= {"__future__", "typing", "collections.abc", module.__name__}


@pytest.mark.parametrize("name", [SENSOR, TWIN])
def test_the_pages_files_pass_lint(name: str) -> None:
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


def insert(project: Path, name: str, start: str, block: str) -> None:
    """Follow a numbered step of the page."""
    file = project / name
    text = file.read_text(encoding="utf-8")
    assert len(re.findall(rf"^{re.escape(start)}", text, re.MULTILINE)) == 1, (name, start)
    before, _, after = f"\n{text}".partition(f"\n{start}")
    file.write_text(f"{before}\n{re.sub('^   ', '', block, flags=re.MULTILINE)}{start}{after}"[1:], encoding="utf-8")


@pytest.fixture
def copy_of_the_project() -> Iterator[Path]:
    """The files of this tree, and an environment with the packages of this one that imports the copy.

    It is not in `tmp_path`: every run of pytest that starts closes the parent of that to other users, and a test in the
    copy starts the program as another user.
    """
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield _copied_to(Path(folder, "wattpush"))


def _copied_to(project: Path) -> Path:
    shutil.copytree(PROJECT, project, ignore=NOT_COPIED)
    if (PROJECT / ".cache" / "servers").exists():  # those that are not installed; the results of a run are its own
        (project / ".cache").mkdir()
        (project / ".cache" / "servers").symlink_to(PROJECT / ".cache" / "servers")
    venv.create(project / ".venv", symlinks=True)
    binaries = project / ".venv" / "bin"
    (site_packages,) = (project / ".venv" / "lib").glob("python*/site-packages")
    (site_packages / "copy.pth").write_text(f"{project}\n{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    (binaries / "ruff").symlink_to(Path(sysconfig.get_path("scripts"), "ruff"))
    (binaries / "mypy").write_text(f'#!/bin/sh\nexec {binaries}/python -m mypy "$@"\n', encoding="utf-8")
    (binaries / "mypy").chmod(0o755)
    return project


def make(project: Path, target: str) -> None:
    """Without the targets that install packages and servers. `make test` leaves out this test, which is long."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTEST", "PYTHONPATH"))
    }
    left_out = " ".join(f"--ignore=tests/{folder}" for folder in WITHOUT_CHIPS)
    run = subprocess.run(
        ["make", "-o", "environment", "-o", "servers", target],
        cwd=project,
        env={**environ, "PYTEST_ADDOPTS": left_out},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-20_000:]


@pytest.mark.parametrize("folder", WITHOUT_CHIPS)
def test_a_folder_left_out_knows_no_chip_but_the_ina260(folder: str) -> None:
    files = list((PROJECT / "tests" / folder).glob("*.py"))
    assert files
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert not re.search(LISTS_OF_CHIPS, "".join(texts))
    assert set(re.findall(r"\bina\d+", "".join(texts))) <= {"ina260"}


@pytest.mark.long
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_test_passes_after_every_step_of_the_page(copy_of_the_project: Path) -> None:
    project = copy_of_the_project
    assert set(FILES) == {SENSOR, TWIN}
    for name, text in FILES.items():
        assert not (project / name).exists()
        (project / name).write_text(text, encoding="utf-8")
    assert len(INSERTIONS) == 2
    for name, start, block in INSERTIONS:
        insert(project, name, start, block)
    assert "`make generated` for the references and config.toml.example, then `make test`" in PAGE
    make(project, "generated")
    make(project, "test")
