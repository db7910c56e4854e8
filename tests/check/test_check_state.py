"""`wattpush check` looks at the folder of the counters before a run needs it."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest

from agent.check import Status
from agent.check.state import check_state_dir
from tests.energy.disks import disk

if TYPE_CHECKING:
    from pathlib import Path

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a disk or to become another user")


def warnings_of(folder: Path) -> list[str]:
    findings = list(check_state_dir(folder, "counters"))
    assert {finding.status for finding in findings} <= {Status.WARNING}
    return [str(finding) for finding in findings]


@NEEDS_ROOT
def test_check_warns_of_a_read_only_or_full_or_forgetful_disk(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "128k") as mounted:
        folder = mounted.folder / "state"
        folder.mkdir()
        forgetful = f"state_dir: {folder} is on tmpfs: the counters start from zero after a reboot; set state_dir to"
        (warning,) = warnings_of(folder)
        assert warning.startswith(forgetful)
        assert warnings_of(folder / "new") == [], "a run makes it"
        with mounted.read_only():
            first, second = warnings_of(folder)
            assert first.startswith(
                f"state_dir: {folder} is on a read-only file system, so the energy counters cannot be saved; set"
            )
            assert second.startswith(forgetful)
        (mounted.folder / "other").write_bytes(bytes(80_000))
        first, _ = warnings_of(folder)
        full = (
            f"state_dir: the disk of {folder} is full, so the energy counters cannot be saved; free some space: df -h "
        )
        assert first == f"{full}{folder}"


@NEEDS_ROOT
def test_check_warns_of_a_folder_that_this_user_cannot_write(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):  # pytest closes some of its own
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    ours, foreign = tmp_path / "ours", tmp_path / "foreign"
    for folder in (ours, foreign):
        folder.mkdir()
    os.chown(foreign, 1, 1)
    os.seteuid(65534)
    try:
        found = {folder: warnings_of(folder) for folder in (ours, ours / "new", foreign)}
    finally:
        os.seteuid(0)
    user = pwd.getpwuid(65534).pw_name
    install = f"sudo install -d -o {user} {ours}"
    assert found[ours][0] == f"state_dir: {ours}: this user may not write it; {install}"
    assert found[ours / "new"] == [f"state_dir: {ours}/new: this user may not create it in {ours}; {install}/new"]
    assert [line for line in found[foreign] if "may not" in line] == [], "the service's own"
