"""What comes after the answers: a file in place, and the next command."""

from __future__ import annotations

import argparse
import os
import signal
from typing import TYPE_CHECKING

import pytest

from agent.clock import SystemClock
from agent.commands import init
from agent.init import write_file
from agent.init.write_file import NewFile
from tests.init.test_questions import Script

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine where the service is installed; returns its default configuration."""
    unit = tmp_path / "wattpush.service"
    unit.touch()
    monkeypatch.setattr(init, "_UNITS", (unit,))
    monkeypatch.setattr(init, "DEFAULT_FILE", tmp_path / "config.toml")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "config.toml"


@pytest.mark.parametrize(("status", "verb"), [(0, "reload"), (3, "enable --now"), (None, "enable --now")])
def test_the_next_step_is_that_of_the_service(installed: Path, status: int | None, verb: str) -> None:
    if status is not None:
        systemctl = installed.with_name("systemctl")
        systemctl.write_text(f"#!/bin/sh\nexit {status}\n")
        systemctl.chmod(0o755)
    assert init._next_steps(installed, 0, is_simulated=False)[1:] == [f"    sudo systemctl {verb} wattpush"]


def test_another_file_than_that_of_the_service_is_tried_by_hand(installed: Path) -> None:
    other = installed.with_name("mine.toml")
    assert init._next_steps(other, 0, is_simulated=False)[1:] == [
        f"    wattpush watch --config {other}",
        f"    wattpush --once --dry-run --config {other}",
    ]


def test_a_path_with_a_space_is_quoted(installed: Path) -> None:
    other = installed.with_name("my file.toml")
    assert init._next_steps(other, 0, is_simulated=False)[1] == f"    wattpush watch --config '{other}'"


def test_a_failed_check_comes_before_the_service(installed: Path) -> None:
    (line,) = init._next_steps(installed, 74, is_simulated=False)[1:]
    assert line.endswith("wattpush check --hardware")


def test_a_stop_while_files_are_written_knows_that_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = write_file._stage

    def interrupted(path: Path, content: bytes) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return real(path, content)

    monkeypatch.setattr(write_file, "_stage", interrupted)
    file = tmp_path / "config.toml"
    dialogue = init._Dialogue(argparse.Namespace(), file, Script(), SystemClock())
    with pytest.raises(KeyboardInterrupt):
        dialogue._write([NewFile(file, b"new\n")])
    assert (dialogue.is_written, file.read_text()) == (True, "new\n")
