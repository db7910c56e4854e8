"""What `make demo` and `make live` run: the agent on simulated chips, and real servers, in one temporary folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from prometheus_client.parser import text_string_to_metric_families

from agent.config.builtin_node import BUILTIN_NODE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType, TracebackType

    from prometheus_client.samples import Sample
    from typing_extensions import Self

WAIT_TIMEOUT_SECONDS = 60.0
_STOP_TIMEOUT_SECONDS = 5.0

_without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class StopError(Exception):
    """SIGTERM, or the terminal went away: everything that was started must end too."""


class Stack:
    """Processes that end with this one, and a folder for their files.

    Attributes:
        folder: removed at the end.
    """

    def __init__(self) -> None:
        self._exits = ExitStack()
        self.folder = Path()

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _raise_stopped)
        self.folder = Path(self._exits.enter_context(tempfile.TemporaryDirectory(prefix="wattpush-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A second Ctrl-C while the servers stop would leave some of them running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._exits.close()

    def start(self, name: str, *command: str | Path, environ: Mapping[str, str] | None = None) -> Server:
        """Start a process, whose output goes to NAME.log in the folder."""
        server = Server(self.folder / f"{name}.log", list(map(str, command)), {**os.environ, **(environ or {})})
        self._exits.callback(server.end)
        server.begin()
        return server

    def start_agent(self, top: str, tables: str) -> Server:
        """Start the agent on the simulated built-in node.

        Args:
            top: the keys before the first table.
            tables: the destinations.
        """
        config = self.folder / "config.toml"
        config.write_text(f'{top}state_dir = "{self.folder / "state"}"\n{BUILTIN_NODE}\n{tables}', encoding="utf-8")
        runtime_folder = self.folder / "run"
        runtime_folder.mkdir(mode=0o700)
        # As systemd does; otherwise the agent leaves its place in the backlog in /dev/shm.
        environ = {"RUNTIME_DIRECTORY": str(runtime_folder), "NO_PROXY": "*"}
        command = (sys.executable, "-m", "agent", "--config", config, "--simulate")
        return self.start("agent", *command, environ=environ)


class Server:
    """A process that can be ended and begun again with the same command."""

    def __init__(self, log: Path, command: list[str], environ: Mapping[str, str]) -> None:
        self._log = log
        self._command = command
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start it."""
        with self._log.open("ab") as log:
            # In a group of its own: a Ctrl-C ends it when this program says so, and not before.
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environ, start_new_session=True
            )

    def end(self) -> None:
        """Stop it in the clean way, and wait for its end."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def wait_for_answer(self, url: str) -> None:
        """Wait until it answers at this URL."""
        self.wait_until(lambda: fetch(url) is not None, f"{url} answers")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for what this server makes true; if it ends, show its log."""
        give_up_at = time.monotonic() + WAIT_TIMEOUT_SECONDS
        while not condition():
            has_ended = self._process is None or self._process.poll() is not None
            if has_ended or time.monotonic() > give_up_at:
                sys.stderr.write(self._log.read_text(encoding="utf-8", errors="replace"))
                raise SystemExit(f"{'ended before' if has_ended else 'timed out waiting for'} {what}")
            time.sleep(0.05)


def run(main: Callable[[], int], *, on_interrupt: Callable[[], int]) -> NoReturn:
    """Run a program to its exit code; it may be stopped, and its reader may go away."""
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = on_interrupt()
    except StopError:
        code = 128 + signal.SIGTERM
    except BrokenPipeError:
        # Python would complain about what it cannot write at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def find_program(*names: str) -> str:
    """The path of a program that goes by one of these names. Exits with what to install if there is none."""
    for name in names:
        if path := shutil.which(name):
            return path
    raise SystemExit(f"please install: sudo apt-get install {names[0]}")


def free_address(port: int = 0) -> str:
    """A local address that nothing listens on, with this port if it is free."""
    for wanted in (port, 0):
        try:
            with socket.create_server(("127.0.0.1", wanted)) as probe:
                return f"127.0.0.1:{probe.getsockname()[1]}"
        except OSError:
            continue
    raise SystemExit("no local port is free")


def fetch(url: str) -> str | None:
    """The text at a URL; None if the server does not answer, or answers with an error."""
    try:
        with _without_proxy.open(url, timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def samples(url: str) -> list[Sample]:
    """All samples at a URL; none if the server does not answer."""
    return [sample for family in text_string_to_metric_families(fetch(url) or "") for sample in family.samples]


def _raise_stopped(_number: int, _frame: FrameType | None) -> None:
    raise StopError
