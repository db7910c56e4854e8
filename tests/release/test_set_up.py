"""What `make` sets up: everything in this folder, and nothing in the system without consent."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.run.running import LONG_SECONDS, PROJECT

if TYPE_CHECKING:
    from pathlib import Path

INSTALL = "apt-get install python3 python3-venv"


def run_without_python(folder: Path, *, user_id: int, environ: dict[str, str]) -> tuple[str, list[str]]:
    """Run scripts/environment without a Python: its stderr, and its calls of apt-get."""
    tools = folder / "bin"
    tools.mkdir()
    for tool in ("bash", "env", "dirname"):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    calls = folder / "calls"
    calls.touch()
    for tool, script in (("id", f"echo {user_id}"), ("apt-get", f'echo "$*" >>{calls}')):
        (tools / tool).write_text(f"#!/bin/sh\n{script}\n")
        (tools / tool).chmod(0o755)
    done = subprocess.run(
        [PROJECT / "scripts" / "environment", folder / "environment", "requirements.txt"],
        env={"PATH": str(tools), "PYTHON": "no-such-python", **environ},
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert not (folder / "environment").exists()
    return done.stderr, calls.read_text().splitlines()


@pytest.mark.parametrize(("user_id", "environ"), [(0, {}), (0, {"CI": "false"}), (1000, {}), (1000, {"CI": "true"})])
def test_a_missing_python_is_named_and_not_installed(tmp_path: Path, user_id: int, environ: dict[str, str]) -> None:
    output, calls = run_without_python(tmp_path, user_id=user_id, environ=environ)
    command = INSTALL if user_id == 0 else f"sudo {INSTALL}"
    assert output == f"wattpush needs Python 3.10 or newer with venv: {command}\n"
    assert calls == []


def test_only_root_in_ci_installs_python_after_a_notice(tmp_path: Path) -> None:
    output, calls = run_without_python(tmp_path, user_id=0, environ={"CI": "true"})
    assert output.splitlines()[0] == "CI=true: installing python3 python3-venv into the system with apt-get"
    assert calls == ["update", "install -y --no-install-recommends python3 python3-venv"]
