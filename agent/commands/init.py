"""`wattpush init`: asks what a scan cannot see, and writes a configuration that works."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent import chips
from agent.build_info import hostname
from agent.clock import SystemClock
from agent.commands import (
    builtin_node,
    check,
    cleanup_on_stop,
    config_file,
    is_simulated,
    simulated_from,
    simulated_hostname,
)
from agent.config import DEFAULT_FILE, parse
from agent.errors import ConfigError, ExitCode, UsageError, exit_code
from agent.log import print_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.clock import Clock
    from agent.init.gateway import Gateway
    from agent.init.terminal import Terminal
    from agent.init.write_file import NewFile
    from agent.scan.machine import Machine, MachineScan

HELP = "scan, ask what a scan cannot see, write a configuration, and check it"

_DESCRIPTION = """\
Scans the buses and asks, on a terminal, for what is invisible on them: a name for each device, the shunts, and the
gateway, which it tests at once with a test group that it deletes again. Then it shows the file, and writes it if you
agree: with the owner and mode that the service needs, and the password in a file of its own beside it. An existing
file is kept as config.toml.bak. Ctrl-C leaves everything as it was. With --simulate it asks about a simulated node, and
writes only a file that --config names. Run it with sudo, unless --config names a file of your own."""

_NOTHING_WRITTEN = "nothing was written"

_NOTHING_FOUND = "Nothing was found that wattpush reads."
_NOTHING_ANSWERS = (
    "Is it powered, and are SDA, SCL and ground connected? `wattpush scan` shows everything that answers."
)
_WHERE_TO_READ = """\
docs/boards.md shows the wiring, and how to switch the bus on. To try the questions without hardware:
wattpush init --simulate"""

_SERVE = ("serve", {"listen": "127.0.0.1:9812"})

_UNITS = tuple(
    Path(folder, "wattpush.service")
    for folder in ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
)
_SYSTEMCTL_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options: only those of every command."""
    parser.description = _DESCRIPTION


def run(options: argparse.Namespace) -> int:
    """Ask, write and check; return the exit code."""
    from agent.init.terminal import StandardTerminal
    from agent.init.write_file import refuse_unwritable

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "init asks questions, so it needs a terminal; without one: wattpush scan --toml > FILE, edit FILE, then "
            "wattpush check --config FILE. wattpush config prints an example with every key"
        )
    path = _file_to_write(options)
    if path is not None:
        refuse_unwritable(path)
    dialogue = _Dialogue(options, path, StandardTerminal(), SystemClock())
    try:
        with ExitStack() as stack:
            stack.enter_context(cleanup_on_stop())
            return dialogue.run(stack)
    except (EOFError, KeyboardInterrupt, SystemExit) as stop:
        with suppress(OSError):  # the terminal is gone
            sys.stdout.write("\n")
            sys.stdout.flush()
        print_error(f"{path} is written, and not checked" if dialogue.is_written else _NOTHING_WRITTEN)
        if isinstance(stop, EOFError):
            return 130  # as after Ctrl-C
        raise


def _file_to_write(options: argparse.Namespace) -> Path | None:
    """The file to write; a simulated node never becomes the configuration of the machine unless it is named."""
    if is_simulated(options) and getattr(options, "config", None) is None:
        return None
    return config_file(options)


class _Dialogue:
    """The steps of `wattpush init`.

    Attributes:
        is_written: whether the files are in place.
    """

    def __init__(self, options: argparse.Namespace, path: Path | None, terminal: Terminal, clock: Clock) -> None:
        self._options = options
        self._path = path
        self._terminal = terminal
        self._clock = clock
        self._hostname = hostname()
        self.is_written = False

    def run(self, stack: ExitStack) -> int:
        """Take every step; return the exit code."""
        if not self._may_replace():
            return self._end_without_file()
        found = self._scan(stack)
        if not found.has_devices:
            # Errors have said more than that nothing answers.
            hints = (_WHERE_TO_READ,) if found.errors else (_NOTHING_ANSWERS, _WHERE_TO_READ)
            self._terminal.say(" ".join((_NOTHING_FOUND, *hints)))
            return exit_code(found.errors) or ExitCode.IOERR
        text, gateway = self._ask(found)
        if self._path is None:
            self._terminal.show(f"\n{text}\n")
            self._terminal.say("With --simulate nothing is written, unless --config names a file.")
            return ExitCode.OK
        if not self._may_write(text, self._path):
            return self._end_without_file()
        self._write(self._files(text, gateway, self._path))
        return self._check(self._path)

    def _end_without_file(self) -> int:
        self._terminal.say(_NOTHING_WRITTEN.capitalize() + ".")
        return ExitCode.OK

    def _may_replace(self) -> bool:
        from agent.init.terminal import confirm
        from agent.init.write_file import backup_of

        if self._path is None or not self._path.exists():
            return True
        question = f"{self._path} exists. Replace it, and keep it as {backup_of(self._path).name}?"
        return confirm(self._terminal, question, default=False)

    def _scan(self, stack: ExitStack) -> MachineScan:
        from agent.scan.machine import scan_machine
        from agent.scan.progress import bar_on
        from agent.scan.table import print_scans

        if is_simulated(self._options):
            self._terminal.say(f"{simulated_from(builtin_node())}.")
        with bar_on(sys.stderr, self._clock) as progress:
            found = scan_machine(self._machine(stack), self._clock, progress)
        print_scans(found, sys.stdout)
        sys.stdout.flush()
        for note in found.notes:
            print_error(f"note: {note}")
        for error in found.errors:
            print_error(str(error))
        return found

    def _machine(self, stack: ExitStack) -> Machine:
        from agent.commands.scan import simulated_machine
        from agent.scan.machine import this_machine

        if not is_simulated(self._options):
            return this_machine()
        return simulated_machine(builtin_node(), (), self._clock, stack)

    def _ask(self, found: MachineScan) -> tuple[str, Gateway | None]:
        """Every question; the text of the file, and the gateway."""
        from agent.init.gateway import GatewayQuestions
        from agent.init.questions import ask_devices, ask_hostname, ask_muxes
        from agent.scan.configuration import Answers, as_toml, found_devices

        terminal = self._terminal
        devices = ask_devices(found_devices(found), chips.options(), terminal)
        muxes = ask_muxes(found.buses, terminal)
        name = ask_hostname(self._hostname, terminal)
        pushed_name = self._hostname if name is None else name
        if is_simulated(self._options):
            pushed_name = simulated_hostname(pushed_name)
        gateway = GatewayQuestions(pushed_name, terminal, check.print_finding, self._clock, os.environ).ask()
        destination = _SERVE if gateway is None else ("pushgateway", self._gateway_keys(gateway))
        text = as_toml(found, Answers(devices, muxes, destination, name))
        return f"# {simulated_from(builtin_node())}.\n{text}" if is_simulated(self._options) else text, gateway

    def _gateway_keys(self, gateway: Gateway) -> dict[str, str]:
        if gateway.login is None:
            return {"url": gateway.url}
        file = _password_file(self._path or DEFAULT_FILE)
        return {"url": gateway.url, "username": gateway.login.username, "password_file": str(file)}

    def _may_write(self, text: str, path: Path) -> bool:
        from agent.init.terminal import confirm

        self._terminal.show(f"\n{text}\n")
        try:
            parse(text, chips.options(), default_hostname=self._hostname, environ=os.environ)
        except ConfigError as error:
            for problem in error.problems:
                print_error(problem)
            return confirm(self._terminal, f"It needs an edit first. Write {path} all the same?", default=False)
        return confirm(self._terminal, f"Write {path}?", default=True)

    def _files(self, text: str, gateway: Gateway | None, path: Path) -> list[NewFile]:
        from agent.init.write_file import NewFile

        files = [NewFile(path, text.encode())]
        if gateway is not None and gateway.login is not None:
            # First, since the configuration names it.
            files.insert(0, NewFile(_password_file(path), f"{gateway.login.password}\n".encode()))
        return files

    def _write(self, files: Sequence[NewFile]) -> None:
        from agent.init.write_file import signals_held, write_files

        with signals_held():
            kept = write_files(files)
            self.is_written = True
        for file in files:
            self._terminal.say(f"Written: {file.path}")
        for path, backup in kept:
            self._terminal.say(f"The old {path.name} is kept as {backup}")
        self._terminal.say()

    def _check(self, path: Path) -> int:
        """`wattpush check --hardware` of the new file, and what to do next; the gateway has been tested."""
        code = check.run(
            argparse.Namespace(
                config=str(path), hardware=True, gateway=False, simulate=is_simulated(self._options), trace=()
            )
        )
        self._terminal.say()
        for line in _next_steps(path, code, is_simulated=is_simulated(self._options)):
            self._terminal.show(f"{line}\n")
        return code


def _password_file(path: Path) -> Path:
    """Beside the configuration, with its whole path, since a service runs in another folder."""
    return Path(os.path.realpath(path)).with_name("password")


def _next_steps(path: Path, code: int, *, is_simulated: bool) -> list[str]:
    command = "wattpush --simulate" if is_simulated else "wattpush"
    if os.geteuid() == 0 and path == DEFAULT_FILE:  # which others may not read
        command = f"sudo {command}"
    option = "" if path == DEFAULT_FILE else f" --config {shlex.quote(str(path))}"
    if code:
        return ["Next, once what failed above is put right:", f"    {command} check --hardware{option}"]
    if not is_simulated and path == DEFAULT_FILE and any(unit.exists() for unit in _UNITS):
        verb = "reload" if _is_running() else "enable --now"
        return ["Next:", f"    sudo systemctl {verb} wattpush"]
    return ["Next:", f"    {command} watch{option}", f"    {command} --once --dry-run{option}"]


def _is_running() -> bool:
    """Whether the service runs, so that it has to read the new file."""
    import subprocess

    command = ["systemctl", "is-active", "--quiet", "wattpush.service"]
    try:
        return subprocess.run(command, timeout=_SYSTEMCTL_SECONDS, check=False).returncode == 0  # noqa: S603 - our words
    except (OSError, subprocess.TimeoutExpired):
        return False
