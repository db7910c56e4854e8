"""install.sh and the package's postinst, unmodified, with a folder that stands in for the system."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

PYTHON = """\
#!/bin/sh
# Creates environments that behave like real ones and downloads nothing.
echo "$0 $*" >>"$CALLS"
case "$*" in
-) cat >/dev/null ;;
-V) echo "Python 3.13.0" ;;
"-m venv "*)
    mkdir -p "$3/bin" "$3/lib"
    cp "$0" "$3/bin/python"
    printf '#!/bin/sh\\n[ "$1" != --version ] || echo "wattpush 1.2.3"\\n' >"$3/bin/wattpush"
    chmod 755 "$3/bin/wattpush"
    ;;
esac
"""

STAND_INS = {
    # Pretend to be root: nothing here needs its rights, or can do harm with them.
    "id": "echo 0",
    "install": 'for word; do case $word in -o | -g | root | wattpush) ;; *) set -- "$@" "$word" ;; esac; shift; done\n'
    'exec "$REAL_INSTALL" "$@"',
    "modprobe": "",
    "systemd-sysusers": "",
    "systemctl": 'echo "systemctl $*" >>"$CALLS"\n'
    'case "$*" in *is-active*) exit 3 ;; "--quiet is-enabled $ENABLED") ;; *is-enabled*) exit 1 ;; esac',
}

SCRIPTS = {"deploy/install.sh": [], "deploy/debian/postinst": ["configure", ""]}
"""Both install the example; the second with dpkg's arguments of a first installation."""


class System:
    """A folder that stands in for /."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.python = self.program("a place/python", PYTHON)
        self.config = root / "etc/wattpush/config.toml"
        for name, script in STAND_INS.items():
            self.program(f"stand-ins/{name}", f"#!/bin/sh\n{script}\n")
        (root / "run/systemd/system").mkdir(parents=True)
        for folder in ("etc", "opt", "usr/lib", "usr/local/bin", "usr/share/wattpush", "var/lib"):
            (root / folder).mkdir(parents=True)
        shutil.copy(PROJECT / "config.toml.example", root / "usr/share/wattpush")

    def program(self, name: str, script: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
        return path

    def run(self, script: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the project with its absolute paths moved into the folder."""
        project = self.root / "srv/wattpush"
        shutil.copytree(PROJECT / "deploy", project / "deploy", dirs_exist_ok=True)
        for name in ("config.toml.example", "requirements.txt", "requirements-build.txt"):
            shutil.copy(PROJECT / name, project)
        text = (PROJECT / script).read_text(encoding="utf-8")
        text = re.sub(r"(?<![\w/])/(?=(etc|opt|run|usr/lib|usr/local|usr/share|var)/)", f"{self.root}/", text)
        (project / script).write_text(text, encoding="utf-8")
        return subprocess.run(
            ["bash" if script.endswith(".sh") else "sh", project / script, *arguments],
            env={
                "PATH": f"{self.root}/stand-ins:{os.environ['PATH']}",
                "REAL_INSTALL": shutil.which("install") or "install",
                "CALLS": str(self.root / "calls"),
                "ENABLED": "nothing",
                "PYTHON": str(self.python),
                **environ,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def install(self, **environ: str) -> str:
        """The output of install.sh, which must succeed."""
        done = self.run("deploy/install.sh", **environ)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def calls(self) -> str:
        return (self.root / "calls").read_text()


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_the_named_interpreter_is_used_even_with_a_space_in_its_path(system: System) -> None:
    system.install()
    assert f"{system.python} -m venv {system.root}/opt/wattpush/a\n" in system.calls()
    assert (system.root / "opt/wattpush/bin").readlink() == Path("a/bin")


def test_an_unusable_named_interpreter_is_not_replaced(system: System) -> None:
    done = system.run("deploy/install.sh", PYTHON="/nowhere/my python")
    assert done.returncode == 1
    assert "PYTHON=/nowhere/my python cannot be used\nwattpush: needs Python 3.10 or newer" in done.stderr
    assert not (system.root / "opt/wattpush").exists()


def test_every_upgrade_installs_the_listed_packages(system: System) -> None:
    system.install()
    assert "packages.txt" not in system.calls()
    listed = system.root / "etc/wattpush/packages.txt"
    listed.write_text("hidapi\n")
    for environment in ("b", "a"):
        system.install()
        assert f"/{environment}/bin/python -m pip " in system.calls()
        assert system.calls().rstrip().count(f" install -r {listed}") == "ba".index(environment) + 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_system_without_a_configuration_gets_the_example(system: System, script: str) -> None:
    done = system.run(script, *SCRIPTS[script])
    assert done.returncode == 0, done.stderr
    assert "[[device]]" in system.config.read_text(encoding="utf-8")
    assert "holds the example; enter your devices in it" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_configuration_that_is_a_dangling_link_is_kept(system: System, script: str) -> None:
    system.config.parent.mkdir()
    system.config.symlink_to("/media/card/config.toml")
    done = system.run(script, *SCRIPTS[script])
    assert done.returncode == 0, done.stderr
    assert system.config.readlink() == Path("/media/card/config.toml")
    assert "holds the example" not in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("line", "warnings"), [("interval = '15s'", 1), ('state_dir = "/srv/counters"', 0)])
def test_a_configuration_without_a_state_folder_is_warned_about(
    system: System, script: str, line: str, warnings: int
) -> None:
    system.config.parent.mkdir()
    system.config.write_text(f"{line}\n")
    done = system.run(script, *SCRIPTS[script])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("has no state_dir") == warnings
    assert system.config.read_text() == f"{line}\n"


@pytest.mark.parametrize(("enabled", "warnings"), [("nothing", 1), ("wattpush.service", 0), ("wattpush-once.timer", 0)])
def test_service_and_timer_are_offered_when_neither_is_enabled(system: System, enabled: str, warnings: int) -> None:
    assert system.install(ENABLED=enabled).count("no unit is enabled") == warnings
    assert "systemctl daemon-reload" in system.calls()
    assert "systemctl enable" not in system.calls()
