"""Installation without booting a machine: what install.sh refuses, and the contents of the Debian package."""

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
        # Another user may not be able to enter the project's folder, so the script comes through a pipe.
        input=INSTALL.read_text(encoding="utf-8"),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=None if is_root or os.geteuid() != 0 else NOBODY,
    )


def test_installing_without_root_is_refused() -> None:
    done = install(is_root=False)
    assert done.returncode == 77
    assert "please run this as root: sudo" in done.stderr


@pytest.mark.parametrize("arguments", [["--remove"], ["--purge"], ["somewhere"]], ids=lambda given: given[0])
def test_a_bad_argument_is_refused_before_any_change(arguments: list[str]) -> None:
    done = install(*arguments)
    assert done.returncode == 64
    assert arguments[0] in done.stderr


def test_help_describes_every_option() -> None:
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
def test_only_the_compiled_package_is_dropped_from_the_pins(name: str) -> None:
    before, after = (PROJECT / name).read_text(encoding="utf-8"), pure(name)

    def packages(text: str) -> dict[str, list[str]]:
        found = re.split(r"^([a-z][^=]*)==", text, flags=re.MULTILINE)[1:]
        return {name: re.findall(r"sha256:\w{64}", rest) for name, rest in zip(found[::2], found[1::2], strict=True)}

    expected = packages(before)
    expected.pop("sysv-ipc", None)
    assert packages(after) == expected
    assert all(packages(after).values())
    # No marker remains: every Python gets every package.
    assert ";" not in after


def test_the_agent_never_imports_the_dropped_package() -> None:
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
def test_documented_installation_commands_parse_and_their_files_exist(block: str) -> None:
    subprocess.run(["bash", "-n"], input=block, text=True, check=True, timeout=60)
    for file in re.findall(r"(?<![/\w])deploy/[\w./-]+", block):
        assert (PROJECT / file).exists(), file


@pytest.mark.long
def test_packages_for_a_node_without_network_fit_every_node(tmp_path: Path) -> None:
    """The documented commands, run here; then what pip finds in the folder for other architectures and Pythons."""
    (block,) = (block for block in SHELL_BLOCKS if "pip download" in block)
    recipe, install_line = block.strip().rsplit("\n", 1)
    assert "PIP_FIND_LINKS=$PWD/wheels" in install_line
    for file in ("requirements.txt", "requirements-build.txt", "deploy/pure.awk"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes((PROJECT / file).read_bytes())
    pip = f'pip() {{ "{sys.executable}" -m pip "$@"; }}\nset -e\n'
    subprocess.run(["bash"], input=pip + recipe, cwd=tmp_path, text=True, check=True, timeout=300)
    wheels = sorted(file.name for file in (tmp_path / "wheels").iterdir())
    assert len(wheels) > 25
    assert [name for name in wheels if not name.endswith("-none-any.whl")] == []
    for python, machine in (("3.10", "armv7l"), ("3.11", "armv7l"), ("3.13", "aarch64")):
        node = ["--python-version", python, "--platform", f"linux_{machine}", "--only-binary", ":all:"]
        found = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *node, "--dest", machine]
        for pins in ("pure.txt", "requirements-build.txt"):
            folder = ["--no-index", "--find-links", "wheels", "-r", pins]
            subprocess.run([*found, *folder], cwd=tmp_path, check=True, timeout=120)
