"""Released packages: the same bytes wherever they are built, complete, and with nothing else in them."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path

import pytest

from agent import __version__
from scripts import release
from scripts.package_readme import without_links_to_files

PROJECT = Path(__file__).parents[2]
EPOCH = "1700000000"
NAME = f"wattpush-{__version__}"
WHEEL = f"{NAME}-py3-none-any.whl"
SDIST = f"{NAME}.tar.gz"

LEFT_BEHIND = (".git", ".venv*", ".cache", ".*_cache", ".hypothesis", "__pycache__", "build", "dist")
"""Entries of a working folder that are not part of the project."""


@dataclass(frozen=True, slots=True)
class Built:
    wheel: bytes
    sdist: bytes

    def wheel_files(self) -> dict[str, bytes]:
        with zipfile.ZipFile(io.BytesIO(self.wheel)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def sdist_files(self) -> dict[str, tarfile.TarInfo]:
        with tarfile.open(fileobj=io.BytesIO(self.sdist)) as archive:
            return {member.name.removeprefix(f"{NAME}/"): member for member in archive.getmembers()}


def copy_of_the_project(folder: Path) -> Path:
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns(*LEFT_BEHIND), symlinks=True)
    return folder


def build(project: Path, output: Path, *, umask: int = 0o022, **environ: str) -> Built:
    """Build as scripts/release.py does, with another umask and environment."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(output)],
        cwd=project,
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH, **environ},
        umask=umask,
        check=True,
        capture_output=True,
    )
    return Built((output / WHEEL).read_bytes(), (output / SDIST).read_bytes())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("build")
    release.build(copy_of_the_project(folder / "project"), folder / "dist", EPOCH)
    return Built((folder / "dist" / WHEEL).read_bytes(), (folder / "dist" / SDIST).read_bytes())


@pytest.fixture(scope="module")
def unpacked(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist, as a user gets it."""
    folder = tmp_path_factory.mktemp("sdist")
    (folder / SDIST).write_bytes(built.sdist)
    # Use tar: Python's tarfile warns without a filter since 3.12 and has none before 3.11.4.
    release.run("tar", "--extract", "--file", SDIST, folder=folder)
    return folder / NAME


def test_builds_do_not_depend_on_folder_umask_clock_or_time_zone(built: Built, tmp_path: Path) -> None:
    project = copy_of_the_project(tmp_path / "elsewhere" / "by another name")
    for path in project.rglob("*"):
        # A checkout with umask 077, on another day.
        is_executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o700 if is_executable else 0o600)
        os.utime(path, (86_400, 86_400))
    again = build(project, tmp_path / "out", umask=0o077, TZ="Pacific/Kiritimati", LC_ALL="C", PYTHONHASHSEED="7")
    assert again.wheel == built.wheel
    assert again.sdist == built.sdist


def test_the_wheel_built_from_the_source_distribution_is_the_wheel(
    built: Built, unpacked: Path, tmp_path: Path
) -> None:
    again = build(unpacked, tmp_path)
    assert again.wheel == built.wheel
    assert again.sdist == built.sdist


def test_the_wheel_holds_the_agent_and_nothing_else(built: Built) -> None:
    sources = {
        str(path.relative_to(PROJECT))
        for path in (PROJECT / "agent").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    records = {f"{NAME}.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}
    assert built.wheel_files().keys() == sources | records | {f"{NAME}.dist-info/licenses/LICENSE"}


def test_the_wheel_brings_types_a_licence_and_a_command(built: Built) -> None:
    files = built.wheel_files()
    assert "agent/py.typed" in files
    assert files[f"{NAME}.dist-info/licenses/LICENSE"] == (PROJECT / "LICENSE").read_bytes()
    assert b"wattpush = agent.__main__:main" in files[f"{NAME}.dist-info/entry_points.txt"]


def test_the_package_index_page_has_no_dead_links(built: Built) -> None:
    metadata = message_from_string(built.wheel_files()[f"{NAME}.dist-info/METADATA"].decode())
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Description-Content-Type"] == "text/markdown"
    readme = metadata.get_payload()
    assert isinstance(readme, str)
    assert readme.startswith("# wattpush\n")
    assert re.findall(r"\]\((?!https?://)[^)]*\)", readme) == []


def test_a_link_to_a_file_becomes_text_and_its_path() -> None:
    shown = without_links_to_files("[Rules](docs/a.md#b), [docs/a.md](docs/a.md), [there](https://example.org/a.md)")
    assert shown == "Rules (docs/a.md#b), docs/a.md, [there](https://example.org/a.md)"
    assert (
        without_links_to_files("A table:\n\n![What it shows](docs/a.svg)") == "A table:\n\nWhat it shows (docs/a.svg)"
    )


def test_the_sdist_holds_exactly_the_versioned_files(built: Built) -> None:
    if not (PROJECT / ".git").exists():
        pytest.skip("needs a git checkout: this is an unpacked source distribution")
    listed = release.run("git", "ls-files", "--cached", "--others", "--exclude-standard", folder=PROJECT).splitlines()
    kept = {name for name in listed if not name.startswith(".ci/") and (PROJECT / name).exists()}
    assert built.sdist_files().keys() == kept | {"PKG-INFO"}


def test_scripts_in_the_sdist_are_executable_and_have_no_owner(built: Built) -> None:
    files = built.sdist_files()
    for name, member in files.items():
        is_executable = (PROJECT / name).exists() and os.access(PROJECT / name, os.X_OK)
        assert (name, member.mode) == (name, 0o755 if is_executable else 0o644)
        assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", int(EPOCH))
    assert files["scripts/environment"].mode == 0o755


def test_the_unpacked_sdist_collects_every_test(unpacked: Path) -> None:
    def collected(folder: Path) -> set[str]:
        said = release.run(
            *(sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"),
            folder=folder,
            environ={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        return {line for line in said.splitlines() if "::" in line}

    found = collected(unpacked)
    assert found == collected(PROJECT)
    assert any(name.startswith("tests/release/") for name in found)
