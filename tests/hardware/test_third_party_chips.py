"""Chips of other packages: the example of docs/example-chip as a user installs it, and packages with mistakes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import venv
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from agent import chips, cli, entry_points
from agent.chips import _third_party
from agent.config import parse
from agent.errors import ConfigError, ExitCode
from agent.measure.readings import Failure, Reading
from agent.measure.run_session import CONFIGURATION_CHECK_SECONDS
from tests.bench import FAST, NODE, Bench, constant, failure, ina260
from tests.run.running import LONG_SECONDS

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / "docs" / "example-chip"

pytestmark = pytest.mark.skipif(
    "ina700" in chips.names(),
    reason="the chip of docs/example-chip is built in here, as docs/adding-a-chip.md describes",
)


def device(chip: str, name: str = "radio", address: int = 0x44, more: str = "") -> str:
    return f'[[device]]\nname = "{name}"\nchip = "{chip}"\nbus = 1\naddress = {address}\n{more}\n'


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment with this tree and the example package, which is built and installed as a user does it."""

    folder: Path
    wheel: Path

    @property
    def site_packages(self) -> Path:
        (found,) = (self.folder / "lib").glob("python*/site-packages")
        return found

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "bin" / "python", *arguments],
            cwd=self.folder,
            env={**os.environ, "TMPDIR": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    def wattpush(self, *arguments: str, chip: str = "ina700") -> subprocess.CompletedProcess[str]:
        config = self.folder / "config.toml"
        more = 'averaging = { count = 4, voltage = "150us", current = "150us" }'
        config.write_text(f'state_dir = "{self.folder}"\n{NODE}{device(chip, more=more)}', encoding="utf-8")
        return self.run("-m", "agent", "--config", str(config), *arguments)


def pip(environment: Path, *arguments: str) -> None:
    """The pip of the tests, for another environment; without a network."""
    options = ("--python", str(environment / "bin" / "python"), "--disable-pip-version-check", "--quiet")
    subprocess.run([sys.executable, "-m", "pip", *options, *arguments], check=True, capture_output=True)


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    source = shutil.copytree(EXAMPLE, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("wattpush_ina700-*.whl")
    installed = Installed(tmp_path / "environment", wheel)
    venv.create(installed.folder, symlinks=True)
    tree = f"{PROJECT}\n{sysconfig.get_path('purelib')}\n"
    (installed.site_packages / "wattpush.pth").write_text(tree, encoding="utf-8")
    pip(installed.folder, "install", "--no-index", str(wheel))  # wattpush is there
    return installed


def test_the_example_package_is_a_chip_like_any_other(installed: Installed) -> None:
    checked = installed.wattpush("check")
    assert (checked.returncode, checked.stderr) == (0, "")
    run = installed.wattpush("--simulate", "--once", "--dry-run")
    assert run.returncode == 0, run.stderr
    assert re.search(r"^wattpush_device_up 1$", run.stdout, re.MULTILINE)
    found = installed.wattpush("check", "--simulate", "--hardware")
    assert found.returncode == 0, found.stderr
    assert "INA700 at 0x44" in found.stdout
    assert "INA237" in installed.wattpush("scan", "--simulate").stdout  # as docs/adding-a-chip.md says

    pip(installed.folder, "uninstall", "--yes", "wattpush-ina700")
    without = installed.wattpush("check")
    assert without.returncode == ExitCode.CONFIG
    assert 'device[1] "radio": chip: "ina700" is not a supported chip' in without.stderr

    # As docs/adding-a-chip.md installs it beside the Debian package.
    assert installed.run("-m", "zipfile", "-e", str(installed.wheel), str(installed.site_packages)).returncode == 0
    assert installed.wattpush("check").returncode == 0


def test_the_example_passes_its_own_tests_where_it_is_installed(installed: Installed) -> None:
    tested = installed.run("-m", "pytest", "-p", "no:cacheprovider", "--quiet", str(EXAMPLE / "tests"))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_an_author_sees_the_types_of_wattpush(installed: Installed) -> None:
    """By `py.typed`, from outside of this tree."""
    source = installed.wheel.parent / "source" / "wattpush_ina700"
    mypy = ("-m", "mypy", "--strict", "--cache-dir", str(installed.folder / "types"))
    checked = installed.run(*mypy, str(source))
    assert checked.returncode == 0, checked.stdout
    chip = source / "chip.py"
    chip.write_text(chip.read_text(encoding="utf-8").replace("amperes_per_lsb=", "amperes_per_bit="), encoding="utf-8")
    assert 'Unexpected keyword argument "amperes_per_bit"' in installed.run(*mypy, str(source)).stdout


@dataclass
class Packages:
    """Makes packages that are installed for the time of a test, without pip."""

    folder: Path
    made: list[str] = field(default_factory=list)

    def add(self, name: str, module_text: str, package: str = "", entry_point: str = "") -> str:
        """A package that offers the chip `name`; its module has this text. Returns the name of the module."""
        module = f"offered_{len(self.made)}"
        self.made.append(module)
        package = package or f"wattpush-{len(self.made)}"
        site = self.folder / package
        information = site / f"{package.replace('-', '_')}-2.1.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.1\n", "utf-8")
        points = f"[wattpush.chips]\n{name} = {entry_point or module}\n"
        (information / "entry_points.txt").write_text(points, encoding="utf-8")
        (site / f"{module}.py").write_text(module_text, encoding="utf-8")
        sys.path.insert(0, str(site))
        return module


@pytest.fixture
def packages(tmp_path: Path) -> Iterator[Packages]:
    before, made = list(sys.path), Packages(tmp_path / "packages")
    yield made
    sys.path[:] = before
    for module in made.made:
        sys.modules.pop(module, None)
    entry_points.find.cache_clear()
    _third_party.find.cache_clear()


def offered(text: str = "", **replaced: str) -> str:
    """The module of a chip, the one of the example, with another text in some places and more at its end."""
    module = (EXAMPLE / "wattpush_ina700" / "chip.py").read_text(encoding="utf-8")
    module = module.replace('chip="ina700"', 'chip="abc1"')
    for before, after in replaced.items():
        assert before in module
        module = module.replace(before, after)
    return module + text


MISTAKES = {
    "import no_such_module": "its import fails: ModuleNotFoundError: No module named 'no_such_module' (/",
    "raise SystemExit('no luck')": "its import fails: SystemExit: no luck (",
    "raise GeneratorExit": "its import fails: GeneratorExit: (",
    "class Mute(Exception):\n    __str__ = None\nraise Mute": "its import fails: Mute: without a word (",
    "raise ValueError('\\x1b[2J' + 'no' * 999)": "its import fails: ValueError: [2Jnonono",
    "def": "its import fails: SyntaxError: invalid syntax (offered_0.py, line 1); ",
    "import importlib\nimportlib.import_module('not_there')": "its import fails: ModuleNotFoundError: No module named ",
    "": "its module has no OPTIONS, a ChipOptions",
    "OPTIONS = {'chip': 'abc1'}": "its module has no OPTIONS, a ChipOptions",
    offered("\ndel Chip"): "its module has no Chip, a subclass of I2CChip",
    offered("\nChip = dict"): "its module has no Chip, a subclass of I2CChip",
    offered("\nChip = I2CChip"): "its Chip.options are not its OPTIONS",
    offered("\nOPTIONS = ChipOptions('other', range(0x40, 0x44))"): 'its OPTIONS.chip is "other"',
    offered("\nOPTIONS = ChipOptions('abc1', None)"): "its OPTIONS have no addresses, and only chips on I2C",
    offered("\nOPTIONS = ChipOptions('abc1', range(0x44, 0x48))"): "its OPTIONS have no averaging",
    offered("\nOPTIONS = ChipOptions('abc1', range(0x70, 0x80))"): "its OPTIONS.addresses are not within 0x08..0x77",
    offered("\nOPTIONS = ChipOptions('abc1', 0x44)"): "its OPTIONS.addresses are no addresses",
    offered("\nOPTIONS = ChipOptions('abc1', range(0))"): "its OPTIONS.addresses are no addresses",
    offered("\nOPTIONS = ChipOptions('abc1', (0x44,), averaging=64)"): "its OPTIONS have no averaging",
    offered(
        "\nOPTIONS = ChipOptions('abc1', (0x44,), range(0), averaging=AVERAGING)"
    ): "its OPTIONS.inputs are no range",
    offered("\nOPTIONS = ChipOptions('abc1', (0x44,), 3, averaging=AVERAGING)"): "its OPTIONS.inputs are no range",
    offered("\nOPTIONS = ChipOptions('abc1', (0x44,), averaging=AVERAGING, rails_without_current=())"): (
        "its OPTIONS have rails_without_current"
    ),
    offered("\nChip.ids = Word(0x3E, TEXAS_INSTRUMENTS)"): "its Chip.ids are not Words",
    offered("\nChip.status = Word(0x0B, 0x8001)"): "its Chip.status is no ExpectedBits",
    offered("\nChip.new_result = None"): "its Chip.new_result is no bit",
    offered(decode="decoded"): "its Chip lacks decode",
    offered("\ndel Chip.highest_volts"): "its Chip has no highest_volts",
    offered("\nChip.results = ()"): "its Chip.results are not registers",
    offered("\nChip.results = (5, 7)"): "its Chip.results are not registers",
    offered("\nChip.results = (Register(0x500), Register(7))"): "its Chip.results are not registers",
    offered("\nChip.results = (Register('5'), Register(7))"): "its Chip.results are not registers",
    offered("\nChip.results = (Register(5, length_bytes=0), Register(7))"): "its Chip.results are not registers",
    offered("\nChip.ids = (Word(0x3E3F, TEXAS_INSTRUMENTS),)"): "its Chip.ids are not Words",
    offered("\nChip.status = ExpectedBits(Register(0x100), 1, 0, 1)"): "its Chip.status is no ExpectedBits",
    offered("\nChip.status = ExpectedBits(Register(0x0B), 0x10000, 0)"): "its Chip.status is no ExpectedBits",
    offered(
        '\nChip.computed = ComputedRegister(Register(8), "watts", 1.0, 1.0, 1.0)'
    ): "its Chip.computed is no ComputedRegister",
    offered(
        '\nChip.computed = ComputedRegister(Register(8), "power", 0.0, 1.0, 1.0)'
    ): "its Chip.computed is no ComputedRegister",
    offered(
        '\nChip.computed = ComputedRegister(Register(8), "power", 1.0, 1.0, 1.0, (0x1000,))'
    ): "its Chip.computed is no ComputedRegister",
    offered('\nChip.computed = ComputedRegister(Register(8), "power", 1.0, 1.0, 1.0, unaveraged=7)'): (
        "its Chip.computed is no ComputedRegister"
    ),
    offered("\nChip.counter_registers = (9,)"): "its Chip.counter_registers are not registers",
    offered("\nChip.ids = (Word(0x3E, 'TI'),)"): "its Chip.ids are not Words",
    offered("\nChip.sure_ids = Word(0x3E, 0x5449)"): "its Chip.sure_ids are not Words",
    offered("\nChip.signature_names = 'ina237'"): "its Chip.signature_names are no frozenset of names",
    offered("\nChip.signature_names = {237}"): "its Chip.signature_names are no frozenset of names",
    offered("\nChip.part = 700"): "its Chip.part is no text",
    offered("\nChip.highest_volts = float('nan')"): "its Chip has no highest_volts",
    offered("\nChip.full_scale_amperes = '15'"): "its Chip.full_scale_amperes or full_scale_shunt_volts are no number",
    offered("\nChip.counter_lsbs_per_second = None"): "its Chip.counter_lsbs_per_second are no number",
    offered("\nChip.computed = 0x08"): "its Chip.computed is no ComputedRegister",
    offered("\nChip.computed = property(lambda self: 1 / 0)"): "what its Chip declares cannot be read: SensorError: ",
    offered("\nChip.status = None"): "its Chip has neither status nor is_converted of its own",
    offered("\nChip.conversion_seconds = property(lambda self: 1e999, lambda *_: None)"): (
        "its conversion_seconds are not a time"
    ),
    offered("\nChip.configuration_words = lambda self, codes: (0x4127,)"): "its Chip cannot be made: AttributeError: ",
    offered("\nChip.__init__ = lambda self, devices, seconds: 1 / 0"): "its Chip cannot be made: ZeroDivisionError: ",
    offered("\nChip.__init__ = lambda self, devices, seconds: exit(0)"): "its Chip cannot be made: SystemExit: 0 (",
    offered("\nChip.__init__ = lambda self, devices: None"): "its Chip cannot be made: TypeError: ",
}


@pytest.mark.parametrize("text", MISTAKES, ids=[text.splitlines()[-1][:40] if text else "nothing" for text in MISTAKES])
def test_a_package_with_a_mistake_is_named_with_the_cure(
    text: str, packages: Packages, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    packages.add("abc1", text, "their-chips")
    config = tmp_path / "config.toml"
    config.write_text(NODE + device("abc1") + device("ina260", "fan", 0x99), encoding="utf-8")
    for command in (["check"], ["--once", "--dry-run", "--simulate"]):
        code = cli.main(["--config", str(config), *command])
        told = capfd.readouterr().err
        assert code == ExitCode.CONFIG
        assert (
            f'device[1] "radio": chip: the package their-chips 2.1 adds "abc1", but cannot be used: {MISTAKES[text]}'
            in told
        )
        assert "; update it, or remove it: pip uninstall their-chips\n" in told
        assert 'device[2] "fan": address' in told  # all mistakes at once
        assert "Traceback" not in told
        assert "\x1b" not in told
        assert all(len(line) < 900 for line in told.splitlines())
        assert len(told.splitlines()) == 2


def test_what_a_package_prints_is_not_in_the_output(
    packages: Packages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packages.add("abc1", offered("\nprint('Welcome!')\n"))
    config = tmp_path / "config.toml"
    config.write_text(NODE + device("abc1"), encoding="utf-8")
    assert cli.main(["--config", str(config), "check"]) == ExitCode.OK
    out, err = capsys.readouterr()
    assert ("Welcome!" in out, "Welcome!" in err) == (False, True)


def wrong(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(NODE + text, chips.options(), default_hostname="node", environ={"HOME": "/nowhere"})
    return str(caught.value)


def test_a_name_that_two_packages_add_is_refused(packages: Packages) -> None:
    packages.add("abc1", offered(), "their-chips")
    packages.add("abc1", offered(), "our-chips")
    told = wrong(device("abc1"))
    assert 'several packages add "abc1": ' in told
    assert "their-chips 2.1" in told
    assert "our-chips 2.1" in told


@pytest.mark.parametrize("name", ["ABC1", "abc_1", "abc 1", "../abc", "-abc", "chips.abc"])
def test_a_name_with_odd_characters_is_refused(name: str, packages: Packages) -> None:
    packages.add(name, "raise AssertionError('imported')")
    assert "a name has small letters and digits, with single hyphens between them" in wrong(device(name))


def test_an_entry_point_that_is_no_module_is_refused(packages: Packages) -> None:
    packages.add("abc1", offered(), entry_point="offered_0:Chip")
    assert "offered_0:Chip is not a module" in wrong(device("abc1"))


def test_an_entry_point_without_its_module_is_refused(packages: Packages) -> None:
    for name, module in (("abc1", "no_such_module"), ("abc2", "no module")):
        packages.add(name, offered(), entry_point=module)
        assert f"its import fails: ModuleNotFoundError: No module named '{module}'; update it" in wrong(device(name))


def test_a_package_installed_later_is_found_by_a_reload(packages: Packages) -> None:
    assert '"abc1" is not a supported chip' in wrong(device("abc1"))
    packages.add("abc1", offered())
    settings = parse(NODE + device("abc1"), chips.options(), default_hostname="node", environ={"HOME": "/nowhere"})
    assert settings.devices[0].chip == "abc1"


def test_another_spelling_suggests_the_chip_of_a_package(packages: Packages) -> None:
    assert 'sensor = "ina700"' in wrong(device("INA-700"))
    packages.add("ina700", (EXAMPLE / "wattpush_ina700" / "chip.py").read_text(encoding="utf-8"))
    assert 'did you mean "ina700"?' in wrong(device("INA-700"))


def test_a_package_whose_import_hangs_is_named_in_the_log(
    packages: Packages, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    named = threading.Event()

    def take(_: logging.LogRecord) -> bool:
        named.set()
        return True

    caplog.handler.addFilter(take)
    gate = ModuleType("gate_of_an_import")
    gate.__dict__["named"] = named
    monkeypatch.setitem(sys.modules, gate.__name__, gate)
    monkeypatch.setattr(entry_points, "SLOW_SECONDS", 0.01)
    packages.add("abc1", offered(f"\nimport gate_of_an_import as gate\nassert gate.named.wait({LONG_SECONDS})\n"))
    assert chips.options()["abc1"].chip == "abc1"
    assert "the package wattpush-1 2.1: its import takes more than 0.01 s" in caplog.text


def test_a_built_in_chip_is_not_replaced(packages: Packages) -> None:
    module = packages.add("ina260", offered())
    alias = packages.add("ina220", offered())
    assert chips.i2c_chip("ina260").__module__ == "agent.chips.ina260"
    assert chips.i2c_chip("ina220").__module__ == "agent.chips.ina219"
    assert not {module, alias} & set(sys.modules)


def bench_of(packages: Packages, module_text: str) -> Bench:
    """An INA260 and a chip of a package, on one bus."""
    twin = (EXAMPLE / "wattpush_ina700" / "twin.py").read_text(encoding="utf-8")
    (packages.folder.parent / "abc_twin.py").write_text(twin, encoding="utf-8")
    sys.path.insert(0, str(packages.folder.parent))
    packages.add("abc1", module_text + "\nfrom abc_twin import build\n")
    more = 'averaging = { count = 4, voltage = "84us", current = "84us" }'
    return Bench.of(device("abc1", more=more) + ina260("fan", "bus = 1", more=FAST))


def test_an_error_of_a_chip_is_no_mistake_of_its_package(packages: Packages) -> None:
    bench = bench_of(packages, offered())
    bench.run_next()
    constant(bench.rails["radio"]).amperes = 16.0
    told = failure(bench.run_next()["radio"])
    assert "the end of its range" in told
    assert "package" not in told


def test_a_chip_of_a_package_is_read_lost_and_brought_back(packages: Packages) -> None:
    bench = bench_of(packages, offered())
    bench.run_next()
    outcome = bench.run_next()["radio"]
    assert isinstance(outcome, Reading)
    rail = constant(bench.rails["radio"])
    assert (outcome.volts, outcome.amperes) == pytest.approx((rail.volts, rail.amperes))
    bench.chip("radio").unplug()
    told = failure(bench.run_next()["radio"])
    assert "ABC1 at 0x44" in told
    assert "is it powered?" in told
    assert "package" not in told
    bench.chip("radio").plug()
    bench.run_until_read()
    assert isinstance(bench.run_next()["radio"], Reading)


@pytest.mark.parametrize(
    ("says", "words", "seen"),
    [
        ("", {0x3E: 0x5448}, "gone"),
        ("", {0x3E: 0x0000, 0xFE: 0x5449, 0xFF: 0x2260}, "those of an INA226"),
        ("\nChip.signature_names = None\nChip.identify = I2CChip.identify", {0x3E: 0x5448}, "gone"),
    ],
)
def test_an_exchanged_chip_of_a_package_is_refused(
    says: str, words: dict[int, int], seen: str, packages: Packages
) -> None:
    """By the signatures that it may show; without any, by its own IDs."""
    bench = bench_of(packages, offered(says))
    bench.run_until_read()
    bench.run_next()
    bench.clock.sleep(CONFIGURATION_CHECK_SECONDS)
    outcomes = bench.run_next()
    bench.clock.sleep(CONFIGURATION_CHECK_SECONDS)
    assert isinstance(outcomes["radio"], Reading)
    bench.chip("radio")._words.update(words)
    outcomes = bench.run_next()
    assert f"ABC1 at 0x44 on /dev/i2c-1: its IDs are {seen} now; was the chip exchanged?" in failure(outcomes["radio"])
    assert isinstance(outcomes["fan"], Reading)


def test_a_chip_with_inputs_and_shunts_may_come_from_a_package(packages: Packages) -> None:
    built_in = (PROJECT / "agent" / "chips" / "ina3221.py").read_text(encoding="utf-8")
    packages.add("abc1", built_in.replace('chip="ina3221"', 'chip="abc1"'))
    rail = device("abc1", address=0x41, more="input = 3\nshunt_ohms = 0.05")
    settings = parse(NODE + rail, chips.options(), default_hostname="node", environ={"HOME": "/nowhere"})
    assert (settings.devices[0].input, settings.devices[0].shunt_ohms) == (3, 0.05)


def test_a_bug_in_adopt_is_an_error_that_names_the_package(packages: Packages) -> None:
    packages.add("abc1", offered("\nChip.adopt = lambda self, found: 1 / 0\n"))
    one = chips.i2c_chip("abc1")([chips.Device("radio", "abc1", chips.Place(1, None, None, 0x44))], 1.0)
    with pytest.raises(chips.SensorError, match=r"the package wattpush-1 2\.1 fails in adopt: ZeroDivisionError: "):
        one.adopt([0xFB68])


def test_a_chip_that_cannot_be_made_as_configured_ends_a_run(
    packages: Packages, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    init = "lambda self, devices, seconds: I2CChip.__init__(self, devices, 1 / (seconds - 2))"
    packages.add("abc1", offered(f"\nChip.__init__ = {init}\nfrom agent.simulate.ina260 import build\n"))
    config = tmp_path / "config.toml"
    config.write_text(f'sample_interval = "2s"\n{NODE}{device("abc1")}', encoding="utf-8")
    assert cli.main(["--config", str(config), "--once", "--dry-run", "--simulate"]) == ExitCode.CONFIG
    told = capfd.readouterr().err
    assert "its Chip cannot be made: ZeroDivisionError: " in told
    assert "Traceback" not in told


@pytest.mark.reliability(
    2.25,
    "a chip of another package whose code raises, exits or returns nonsense",
    "an error of its devices with the package, the file and the line; all others are read",
)
@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("decode = lambda self, words: 1 / 0", "fails in decode: ZeroDivisionError: division by zero ("),
        ("decode = lambda self, words: (5.0, 1.0)", "fails in decode: ValueError: 5.0 is no measurement"),
        ("decode = lambda self, words: ()", "fails in decode: ValueError: 0 measurements of 1 devices"),
        ("decode = lambda self, words: (Measurement(float('nan'), 1.0),)", "fails in decode: ValueError: Measurement("),
        ("decode = lambda self, words: (Measurement('12', 1.0),)", "fails in decode: TypeError: "),
        ("decode = lambda self, words: None", "fails in decode: TypeError: "),
        ("decode = lambda self, words: (Measurement(1.0, float('inf')),)", "fails in decode: ValueError: Measurement("),
        ("decode = lambda self, words: (Measurement(1e200, 1e200),)", "fails in decode: ValueError: Measurement("),
        ("decode = lambda self, words: (Measurement(1.0, 1.0, 'x'),)", "fails in decode: ValueError: Measurement("),
        (
            "decode = lambda self, words: (Measurement(1.0, 1.0, HardwareCounters(None, 1, 1.0, 1.0, 1.0, 1.0)),)",
            "fails in decode: ValueError: Measurement(",
        ),
        (
            "decode = lambda self, words: (Measurement(1.0, 1.0, HardwareCounters(1, 1, 1.0, 1.0, 1.0, 0.0)),)",
            "fails in decode: ValueError: Measurement(",
        ),
        ("decode = lambda self, words: exit('no luck')", "fails in decode: SystemExit: no luck ("),
        ("identify = lambda self, port: port.no_such_method()", "fails in identify: AttributeError: "),
        ("is_converted = lambda self, read: read(5) + None", "fails in is_converted: "),
        ("set_canary = lambda self: [][0]", "fails in set_canary: IndexError: "),
    ],
)
def test_a_bug_of_a_package_fails_its_own_devices_alone(mistake: str, told: str, packages: Packages) -> None:
    bench = bench_of(packages, offered(f"\nfrom agent.chips import HardwareCounters\nChip.{mistake}\n"))
    outcomes = [bench.run_next() for _ in range(4)]
    failures = [failure(outcome["radio"]) for outcome in outcomes if isinstance(outcome["radio"], Failure)]
    assert failures
    assert all("INA700" not in text and f"the package wattpush-1 2.1 {told}" in text for text in failures)
    assert not any(isinstance(outcome["radio"], Reading) for outcome in outcomes)
    assert isinstance(outcomes[-1]["fan"], Reading)


@pytest.mark.parametrize(
    ("twin", "code", "told"),
    [
        (
            "",
            ExitCode.USAGE,
            "radio: chip abc1 has no simulated twin; run without --simulate, or add build to",
        ),
        ("def build(*arguments): 1 / 0", ExitCode.CONFIG, "its simulated twin cannot be built: ZeroDivisionError: "),
        ("def build(*arguments): pass", ExitCode.CONFIG, "its build returns no RegisterChip, nor another Part"),
    ],
)
def test_a_package_without_a_good_twin_is_told_by_a_simulation(
    twin: str, code: ExitCode, told: str, packages: Packages, capfd: pytest.CaptureFixture[str]
) -> None:
    packages.add("abc1", offered(f"\n{twin}\n"))
    config = packages.folder / "config.toml"
    config.write_text(f'state_dir = "{packages.folder}"\n{NODE}{device("abc1")}', encoding="utf-8")
    assert cli.main(["--config", str(config), "--once", "--dry-run", "--simulate"]) == code
    error = capfd.readouterr().err
    assert told in error
    assert "Traceback" not in error


MODULES_OF_A_RUN = """
import os, sys
from agent.__main__ import main
try:
    main()
finally:
    os.write(2, " ".join(sys.modules).encode())
"""


def test_built_in_chips_look_for_no_package(packages: Packages, tmp_path: Path) -> None:
    packages.add("abc1", "raise AssertionError('imported')")
    config = tmp_path / "config.toml"
    config.write_text(NODE + ina260("fan", "bus = 1"), encoding="utf-8")
    for arguments in (["--config", str(config), "check"], ["--help"]):
        ended = subprocess.run(
            [sys.executable, "-c", MODULES_OF_A_RUN, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        modules = set(ended.stderr.split())
        assert "agent.chips" in modules
        assert not {"importlib.metadata", "agent.entry_points", "agent.chips._third_party"} & modules
