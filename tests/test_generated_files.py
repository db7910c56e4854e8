"""Committed files that are generated from the code: completions, the manual page, the picture of `watch`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent.cli import build_parser
from agent.errors import ExitCode
from tests.run.running import LONG_SECONDS, PROJECT
from tests.watch.terminal import terminal

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

COMPLETION = PROJECT / "deploy" / "completions" / "wattpush.bash"
MANUAL = PROJECT / "deploy" / "man" / "wattpush.1"
COMMAND_LINE_FILES = ["completions/wattpush.bash", "completions/_wattpush", "man/wattpush.1"]

COMPLETE = f"""
source {COMPLETION}
line=$1
read -ra COMP_WORDS <<< "$line"
[[ $line == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_wattpush
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def output_of(*command: str | Path, folder: Path = PROJECT) -> str:
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONG_SECONDS, check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), command
    return ended.stdout


def completed(line: str, folder: Path = PROJECT) -> set[str]:
    return {word for word in output_of("bash", "-c", COMPLETE, "bash", line, folder=folder).split("\n") if word}


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = [action for action in build_parser()._actions if action.nargs == "A..."]
    assert isinstance(action.choices, dict)
    return action.choices


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings if option.startswith("--")}


def test_completions_and_manual_page_match_the_parser(tmp_path: Path) -> None:
    output_of(sys.executable, PROJECT / "scripts" / "command_line.py", tmp_path)
    for name in COMMAND_LINE_FILES:
        made = (tmp_path / name).read_text(encoding="utf-8")
        assert made == (PROJECT / "deploy" / name).read_text(encoding="utf-8"), f"{name}: run `make generated`"


def test_the_picture_of_watch_is_up_to_date(tmp_path: Path) -> None:
    output_of(sys.executable, PROJECT / "scripts" / "watch_picture.py", tmp_path / "watch.svg")
    made = (tmp_path / "watch.svg").read_text(encoding="utf-8")
    assert "SIMULATED" in made
    assert made == (PROJECT / "docs" / "watch.svg").read_text(encoding="utf-8"), "run `make generated`"


def test_bash_completes_every_command() -> None:
    assert completed("wattpush ") == set(commands())
    assert completed("wattpush wat") == {"watch"}


def test_bash_completes_options_and_their_choices() -> None:
    assert completed("wattpush --lo") == {"--log-level", "--log-format"}
    assert completed("wattpush --log-level ") == {"debug", "info", "warning", "error"}
    assert completed("wattpush --dry-run --log-format j") == {"json"}
    for name, parser in commands().items():
        assert completed(f"wattpush {name} --") == options_of(parser)


def test_bash_completes_the_names_of_configurations(tmp_path: Path) -> None:
    (tmp_path / "node.toml").touch()
    assert completed("wattpush --config no", tmp_path) == {"node.toml"}
    assert completed("wattpush check --config no", tmp_path) == {"node.toml"}


def test_the_tab_key_completes_in_a_real_bash(tmp_path: Path) -> None:
    (tmp_path / "recording.csv.gz").touch()
    with terminal() as tmux:
        tmux.start(f"cd {tmp_path}; exec bash --norc --noprofile -i", 80, 24)
        tmux.press(f"source {COMPLETION}; clear; echo rea''dy", "Enter")
        tmux.shows("ready")
        tmux.press("-l", line := "wattpush ")
        for typed, whole in (
            ("--sim", "--simulate "),
            ("--trace cpu=rec", "--trace cpu=recording.csv.gz "),
            ("wat", "watch "),
            ("--conf", "--config"),
        ):
            tmux.press("-l", "--", typed)
            tmux.press("Tab")
            line += whole
            tmux.shows(line.rstrip())


def test_the_manual_page_names_every_command_option_and_exit_code() -> None:
    text = MANUAL.read_text(encoding="utf-8").replace("\\-", "-")
    for name, parser in commands().items():
        assert f".SS wattpush {name}\n" in text
        assert not {option for option in options_of(parser) if option not in text}
    assert not {option for option in options_of(build_parser()) if f"\\fB{option}\\fP" not in text}
    for code in ExitCode:
        assert f".B {int(code)}\n" in text


def test_the_manual_page_names_every_environment_variable() -> None:
    read = re.compile(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"|getenv\(\"([A-Z_]+)\"")
    code = "\n".join(path.read_text(encoding="utf-8") for path in (PROJECT / "agent").rglob("*.py"))
    names = {first or second for first, second in read.findall(code)}
    assert {"WATTPUSH_CONFIG", "STATE_DIRECTORY"} <= names
    settings_of_blinka = {"BLINKA_SKIP_DEPENDENCY_CHECK", "BLINKA_FORCEBOARD", "BLINKA_FORCECHIP"}  # set, never read
    text = MANUAL.read_text(encoding="utf-8")
    assert {name for name in names - settings_of_blinka if name not in text} == set()


@pytest.mark.parametrize("device", ["utf8", "ascii"])
def test_groff_renders_the_manual_page_without_warnings(device: str) -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("needs groff: apt-get install groff-base")
    page = output_of(groff, "-man", f"-T{device}", "-ww", MANUAL)
    assert "A sensor could not be read; the rest was still pushed." in page
