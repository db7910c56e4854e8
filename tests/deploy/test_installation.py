"""Installation without booting anything: what install.sh refuses, and what the Debian package is made of."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
INSTALL = PROJECT / "deploy" / "install.sh"
NOBODY = 65534


def install(*arguments: str, is_root: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-s", "--", *arguments],
        # Somebody else may not be let into the folder of the project, so the script comes through the pipe.
        input=INSTALL.read_text(encoding="utf-8"),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=None if is_root or os.geteuid() != 0 else NOBODY,
    )


def test_whoever_is_not_root_is_told_to_be() -> None:
    done = install(is_root=False)
    assert done.returncode == 77
    assert "please run this as root: sudo" in done.stderr


@pytest.mark.parametrize("arguments", [["--remove"], ["--purge"], ["somewhere"]], ids=lambda given: given[0])
def test_an_argument_that_makes_no_sense_is_refused_before_anything_is_done(arguments: list[str]) -> None:
    done = install(*arguments)
    assert done.returncode == 64
    assert arguments[0] in done.stderr


def test_help_says_what_each_way_to_call_it_does() -> None:
    done = subprocess.run([INSTALL, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "deploy/install.sh --uninstall --purge" in done.stdout
    assert "set -euo" not in done.stdout


def pure(name: str) -> str:
    return subprocess.run(
        ["awk", "-f", PROJECT / "deploy/pure.awk", PROJECT / name],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt"])
def test_of_the_pinned_packages_only_the_compiled_one_is_left_out_and_every_other_keeps_its_hashes(name: str) -> None:
    before, after = (PROJECT / name).read_text(encoding="utf-8"), pure(name)

    def packages(text: str) -> dict[str, list[str]]:
        found = re.split(r"^([a-z][^=]*)==", text, flags=re.MULTILINE)[1:]
        return {name: re.findall(r"sha256:\w{64}", rest) for name, rest in zip(found[::2], found[1::2], strict=True)}

    expected = packages(before)
    expected.pop("sysv-ipc", None)
    assert packages(after) == expected
    assert all(packages(after).values())
    # No marker is left: every Python gets every package.
    assert ";" not in after


def test_nothing_of_the_agent_imports_the_package_that_is_left_out() -> None:
    code = "import sys; sys.modules['sysv_ipc'] = None; from agent.__main__ import main; sys.exit(main())"
    config = PROJECT / "config.toml.example"
    command = ["-c", code, "--config", str(config), "--once", "--dry-run", "--simulate"]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "wattpush_device_watts" in done.stdout


@pytest.mark.parametrize("script", [INSTALL, *(PROJECT / "deploy/debian").glob("p[ro]*")], ids=lambda path: path.name)
def test_a_script_has_no_syntax_error(script: Path) -> None:
    shell = "bash" if script == INSTALL else "sh"
    subprocess.run([shell, "-n", script], check=True, timeout=60)


SHELL_BLOCKS = re.findall(
    r"```(?:sh|shell)\n(.*?)```", (PROJECT / "docs" / "install.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=range(len(SHELL_BLOCKS)))
def test_commands_in_the_installation_page_are_commands_and_name_files_that_exist(block: str) -> None:
    subprocess.run(["bash", "-n"], input=block, text=True, check=True, timeout=60)
    for file in re.findall(r"(?<![/\w])deploy/[\w./-]+", block):
        assert (PROJECT / file).exists(), file
