"""install.sh and the package's postinst, unmodified, with a folder that stands in for the system."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

NEW_ENVIRONMENT = """\
-) cat >/dev/null ;;
-V) echo "Python 3.13.0" ;;
"-m venv "*)
    mkdir -p "$3/bin" "$3/lib"
    cp "$0" "$3/bin/python"
    printf '#!/bin/sh\\n[ "$1" != --version ] || echo "wattpush 1.2.3"\\n' >"$3/bin/wattpush"
    chmod 755 "$3/bin/wattpush"
    ;;
"""

PYTHON = f"""\
#!/bin/sh
# Creates environments that behave like real ones and downloads nothing.
echo "$0 $*" >>"$CALLS"
case "$*" in
{NEW_ENVIRONMENT}esac
"""

REAL_PYTHON = f"""\
#!/bin/sh
# Lists and installs the listed packages for real, in one environment; nothing else.
case "$*" in
{NEW_ENVIRONMENT}*" list "* | *packages.txt*) exec "{{environment}}/bin/python" "$@" ;;
esac
"""


def wheel(folder: Path, name: str, needs: str, version: str = "1.0") -> Path:
    """A wheel without a module."""
    information = f"{name}-{version}.dist-info"
    requires = f"Requires-Dist: {needs}\n" if needs else ""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
        archive.writestr(f"{information}/METADATA", metadata)
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    return path


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
"""Both install; the second with dpkg's arguments of a first installation."""


class System:
    """A folder that stands in for /."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.python = self.program("a place/python", PYTHON)
        self.config = root / "etc/wattpush/config.toml"
        for name, script in STAND_INS.items():
            self.program(f"stand-ins/{name}", f"#!/bin/sh\n{script}\n")
        (root / "run/systemd/system").mkdir(parents=True)
        for folder in ("etc", "opt", "usr/lib", "usr/local/bin", "var/lib"):
            (root / folder).mkdir(parents=True)

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
        for name in ("requirements.txt", "requirements-build.txt"):
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
        assert system.calls().rstrip().count(f" install -r {listed} -c ") == "ba".index(environment) + 1


def test_listed_packages_replace_no_pinned_one(system: System) -> None:
    """The real pip, into an environment that exists, of two packages of which one needs another version."""
    environment = system.root / "real"
    subprocess.run([sys.executable, "-m", "venv", "--symlinks", environment], check=True, timeout=120)
    system.program("a place/python", REAL_PYTHON.format(environment=environment))
    (folder,) = environment.glob("lib/python*/site-packages")
    pip = (environment / "bin/python", "-m", "pip", "install", "--quiet", "--no-index")
    subprocess.run([*pip, wheel(system.root, "wattpush", "", "1.2.3")], check=True, timeout=120)
    listed = system.root / "etc/wattpush/packages.txt"
    listed.parent.mkdir()
    good, bad = (wheel(system.root, name, needs) for name, needs in (("good", "wattpush"), ("bad", "wattpush>=2")))
    wheel(system.root, "wattpush", "", "2.0")  # as an index may offer it
    listed.write_text(f"{good}\n")
    system.install(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(system.root))
    listed.write_text(f"{bad}\n")
    refused = system.run("deploy/install.sh", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(system.root))
    assert refused.returncode == 1
    assert "cannot be installed beside wattpush, see above; the installed version stays in place" in refused.stderr
    assert {path.name for path in folder.glob("*.dist-info")} >= {"good-1.0.dist-info", "wattpush-1.2.3.dist-info"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_first_installation_invents_no_devices_and_names_init(system: System, script: str) -> None:
    done = system.run(script, *SCRIPTS[script])
    assert done.returncode == 0, done.stderr
    assert system.config.parent.is_dir()
    assert not system.config.exists()
    assert "sudo wattpush init, which writes " in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_configuration_that_is_a_dangling_link_is_kept(system: System, script: str) -> None:
    system.config.parent.mkdir()
    system.config.symlink_to("/media/card/config.toml")
    done = system.run(script, *SCRIPTS[script])
    assert done.returncode == 0, done.stderr
    assert system.config.readlink() == Path("/media/card/config.toml")


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
