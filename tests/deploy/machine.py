"""A small Debian with its own systemd, booted by systemd-nspawn from the tree that scripts/machine creates."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.run.running import until

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[2]
MACHINE = PROJECT / ".cache" / "machine"
ROOT = MACHINE / os.environ.get("SUITE", "bookworm")
TOOLS = MACHINE / "tools"
BOOT_SECONDS = 120.0
COMMAND_SECONDS = 300.0

_numbers = itertools.count(1)

NOT_OURS = ("run", "tmp", "proc", "sys", "dev", "var/log", "var/tmp", "var/cache", "var/lib/systemd", "var/lib/dpkg")
"""Folders in which a running system writes on its own."""


def why_not() -> str | None:
    """What is missing to boot a machine, or None."""
    if os.geteuid() != 0:
        return "booting a systemd takes root: sudo make test-systemd"
    if not (ROOT / ".complete").exists():
        return "no machine to boot: make test-systemd makes one"
    if nspawn() is None:
        return "needs systemd-nspawn: sudo apt-get install systemd-container"
    return None


def nspawn() -> str | None:
    return shutil.which("systemd-nspawn", path=f"{TOOLS}/usr/bin:{os.environ.get('PATH', '')}")


class Machine:
    """One booted machine.

    Attributes:
        root: its file system, as it is seen from outside.
    """

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self._leader = leader

    def run(
        self, *command: str, environ: dict[str, str] | None = None, seconds: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine as root."""
        return subprocess.run(
            self.command(*command, environ=environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def command(self, *command: str, environ: dict[str, str] | None = None) -> list[str]:
        """What runs a command in the machine, as root."""
        assignments = [f"{name}={value}" for name, value in (environ or {}).items()]
        inside = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *assignments]
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        return ["nsenter", f"--target={self._leader}", *namespaces, "--", *inside, *command]

    def on_its_network(self, *command: str) -> list[str]:
        """What runs a command of the host on the machine's network."""
        return ["nsenter", f"--target={self._leader}", "--net", "--", *command]

    def do(self, *command: str, environ: dict[str, str] | None = None) -> str:
        """Run a command that must succeed; return its stdout."""
        done = self.run(*command, environ=environ)
        assert done.returncode == 0, (
            f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log()}"
        )
        return done.stdout

    def log(self) -> str:
        """The end of the journal."""
        return self.run("journalctl", "--no-pager", "--lines=40", "--output=cat").stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.do("systemctl", "show", "--property", name, "--value", unit).strip()

    def is_active(self, unit: str) -> bool:
        return self.run("systemctl", "--quiet", "is-active", unit).returncode == 0

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)

    def read(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text(encoding="utf-8")

    def drop_in(self, unit: str, text: str, name: str = "test.conf") -> None:
        """Change a unit with a drop-in, as users do."""
        self.write(f"/etc/systemd/system/{unit}.d/{name}", text)
        self.do("systemctl", "daemon-reload")

    def files(self) -> set[str]:
        """Every file and folder, except those that a running system writes on its own."""
        found = set()
        for folder, folders, names in os.walk(self.root):
            place = Path(folder).relative_to(self.root)
            folders[:] = [name for name in folders if str(place / name) not in NOT_OURS]
            found |= {str(place / name) for name in (*folders, *names)}
        return found

    def samples(self) -> str:
        """The exposition of the Pushgateway in the machine."""
        ask = (
            "import urllib.request as u; print(u.urlopen('http://localhost:9091/metrics', timeout=10).read().decode())"
        )
        return self.do("/usr/bin/python3", "-c", ask)


@contextlib.contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """A fresh machine with a loopback network only; the project is at /srv/wattpush, the wheels at /srv/wheels."""
    reason = why_not()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    name = f"wattpush-test-{os.getpid()}-{next(_numbers)}"
    root = folder / "root"
    subprocess.run(["cp", "--archive", "--reflink=auto", ROOT, root], check=True)
    (root / "etc" / "hostname").write_text("node-17\n")
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost node-17\n")
    log = folder / "nspawn.log"
    with contextlib.ExitStack() as stack:
        # Delete hundreds of megabytes, which pytest would keep for three runs.
        stack.callback(shutil.rmtree, root)
        cgroups = stack.enter_context(_own_cgroups(name))
        process = stack.enter_context(_started(name, root, log, cgroups))
        leader = until(lambda: _leader_of(process, log), "systemd-nspawn starts an init", BOOT_SECONDS)
        machine = Machine(root, leader)

        def is_up() -> bool:
            assert process.poll() is None, f"systemd-nspawn ended:\n{log.read_text()}"
            return machine.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

        until(is_up, "the machine boots", BOOT_SECONDS)
        yield machine


@contextlib.contextmanager
def _own_cgroups(name: str) -> Iterator[list[Path]]:
    """The cgroups in which nspawn starts when no systemd provides them; the machine's are below."""
    if Path("/run/systemd/system").is_dir():
        yield []
        return
    folders = [mount / name for mount in _cgroup_mounts()]
    try:
        for folder in folders:
            folder.mkdir(exist_ok=True)
    except OSError as error:
        pytest.fail(f"cannot boot a machine: its cgroup cannot be made: {error}")
    try:
        yield folders
    finally:
        for folder in folders:
            until(functools.partial(_is_removed, folder), f"{folder} is empty", BOOT_SECONDS)


def _is_removed(cgroup: Path) -> bool:
    """Whether a cgroup and those below it are removed, which takes until their last process has ended."""
    try:
        for below in sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True):
            below.rmdir()
        cgroup.rmdir()
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def _cgroup_mounts() -> list[Path]:
    """Where the hierarchies for systemd's units are mounted: cgroup2, and the named one of version 1."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, right = line.split(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            mounts.append(Path(left.split(" ")[4]))
    if not mounts:
        pytest.fail("cannot boot a machine: no cgroup hierarchy that a systemd could use is mounted")
    return mounts


@contextlib.contextmanager
def _started(name: str, root: Path, log: Path, cgroups: list[Path]) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        str(nspawn()),
        f"--directory={root}",
        f"--machine={name}",
        "--boot",
        "--settings=no",
        "--register=no",
        "--link-journal=no",
        "--console=pipe",
        "--private-network",
        # systemd uses a BPF program to deny devices to services. A container may not ask for the state of the clock.
        "--system-call-filter=bpf adjtimex clock_adjtime",
        f"--bind-ro={PROJECT}:/srv/wattpush",
        f"--bind-ro={MACHINE / 'wheels'}:/srv/wheels",
    ]
    if cgroups:
        command.append("--keep-unit")

    def enter_cgroups() -> None:
        for folder in cgroups:
            (folder / "cgroup.procs").write_text("0")

    libraries = next(TOOLS.glob("usr/lib/*/systemd"), None)
    environ = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    if libraries is not None:
        environ["LD_LIBRARY_PATH"] = str(libraries)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ,
            preexec_fn=enter_cgroups,  # noqa: PLW1509 - subprocess has no other way, and no thread holds a lock here
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # End the machine's init first: everything in the machine ends with it.
        leader = _child_of(process.pid)
        if leader is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(leader, signal.SIGKILL)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with contextlib.suppress(OSError):
            Path("/run/systemd/nspawn/propagate", name).rmdir()


def _child_of(pid: int) -> int | None:
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                return int(status.parent.name)
    return None


def _leader_of(process: subprocess.Popen[bytes], log: Path) -> int | None:
    """The machine's init once it runs: systemd as the first process of a process namespace."""
    assert process.poll() is None, f"systemd-nspawn ended:\n{log.read_text()}"
    leader = _child_of(process.pid)
    if leader is None:
        return None
    with contextlib.suppress(OSError):
        if Path(f"/proc/{leader}/comm").read_text().strip() == "systemd":
            return leader
    return None


def settled(machine: Machine, unit: str) -> str:
    """The state of a unit once it is settled."""

    def state() -> str | None:
        now = machine.show(unit, "SubState")
        return None if now.startswith(("start", "stop", "final", "reload")) else now

    found: str = until(state, f"{unit} settles", COMMAND_SECONDS)
    return found
