"""The folder in memory: the service's, the session's or this user's own, and never one that others may write."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from agent.history.runtime_folder import key_of, runtime_folder

if TYPE_CHECKING:
    from pathlib import Path


def test_the_folder_of_the_service_is_taken_first(tmp_path: Path) -> None:
    environ = {"RUNTIME_DIRECTORY": f"{tmp_path / 'service'}:{tmp_path / 'other'}", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert runtime_folder(environ, tmp_path) == tmp_path / "service"


def test_a_session_has_a_folder_of_its_own(tmp_path: Path) -> None:
    assert runtime_folder({"XDG_RUNTIME_DIR": str(tmp_path)}, tmp_path) == tmp_path / "wattpush"


@pytest.mark.parametrize("environ", [{}, {"XDG_RUNTIME_DIR": "/nowhere"}, {"XDG_RUNTIME_DIR": "relative"}])
def test_without_one_shared_memory_is_used(environ: dict[str, str], tmp_path: Path) -> None:
    folder = runtime_folder(environ, tmp_path)
    assert folder == tmp_path / f"wattpush-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / f"wattpush-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    assert runtime_folder({}, tmp_path) is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"wattpush-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    assert runtime_folder({}, tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a folder of another user")
def test_a_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "wattpush-0"
    folder.mkdir(0o700)
    os.chown(folder, 65534, 65534)
    assert runtime_folder({}, tmp_path) is None


def test_backlogs_of_several_agents_keep_apart(tmp_path: Path) -> None:
    assert key_of(tmp_path / "a") != key_of(tmp_path / "b")
