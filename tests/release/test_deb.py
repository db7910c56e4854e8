"""The Debian package as a file; tests/deploy/test_in_systemd.py installs, runs and purges it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from agent import __version__
from tests.release.test_packages import EPOCH, copy_of_the_project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.long


def package(project: Path, *, umask: int = 0o022, **environ: str) -> Path:
    if shutil.which("dpkg-deb") is None:
        missing = "needs dpkg-deb: apt-get install dpkg"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    subprocess.run(
        ["scripts/deb", sys.prefix],
        cwd=project,
        # Not a checkout, wherever the test's folders are.
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "GIT_DIR": str(project / "none"), **environ},
        umask=umask,
        check=True,
        capture_output=True,
    )
    return project / "dist" / f"wattpush_{__version__}_all.deb"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = copy_of_the_project(tmp_path_factory.mktemp("deb") / "project")
    (project / "dist").mkdir()
    (project / "dist" / "wattpush_0.0.1_all.deb").touch()
    return package(project)


def test_the_package_does_not_depend_on_folder_umask_or_time_zone(built: Path, tmp_path: Path) -> None:
    project = copy_of_the_project(tmp_path / "by another name")
    again = package(project, umask=0o077, TZ="Pacific/Kiritimati", LC_ALL="C")
    assert again.read_bytes() == built.read_bytes()


def test_a_build_removes_packages_of_other_versions(built: Path) -> None:
    """`apt-get install ./dist/wattpush_*_all.deb` would match both."""
    assert list(built.parent.iterdir()) == [built]


def test_the_package_holds_nothing_for_one_processor_only(built: Path, tmp_path: Path) -> None:
    with (tmp_path / "files.tar").open("wb") as file:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", built], stdout=file, check=True)
    with tarfile.open(tmp_path / "files.tar") as archive:
        files = {one.name: archive.extractfile(one) for one in archive.getmembers() if one.isfile()}
        compiled = [name for name, file in files.items() if file is not None and file.read(4) == b"\x7fELF"]
    assert "./usr/bin/wattpush" in files
    assert compiled == []


def test_the_package_names_its_maintainer_and_size(built: Path) -> None:
    fields = dict(
        line.split(": ", 1)
        for line in subprocess.run(
            ["dpkg-deb", "--field", built], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        if not line.startswith(" ")
    )
    assert (fields["Package"], fields["Version"], fields["Architecture"]) == ("wattpush", __version__, "all")
    # Built outside a checkout; in one, it is the author of the commit.
    assert fields["Maintainer"] == "The wattpush authors <wattpush@localhost>"
    assert 5_000 < int(fields["Installed-Size"]) < 20_000
