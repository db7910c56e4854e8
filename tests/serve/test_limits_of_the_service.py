"""The real program under the limits of its service: among hundreds of clients, and without a thread to spare."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.run.running import PROJECT, Program, ask, samples_of, until, write_config
from tests.servers import Server, answering, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

CLIENTS = 500
SCRAPE_SECONDS = 2.0
TASKS_MAX = int(
    re.findall(r"^TasksMax=(\d+)$", (PROJECT / "deploy/systemd/wattpush.service").read_text(), re.MULTILINE)[0]
)
USER = 20_000 + os.getpid() % 40_000
"""Nobody else's, not even another test run's: the kernel counts the tasks of a user, and does not limit root."""


class Crowd:
    """Clients of which every second one sends a request that never ends; who is disconnected comes again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_over = threading.Event()
        self._selector = selectors.DefaultSelector()
        self.comings = 0
        self._thread = threading.Thread(target=self._crowd, daemon=True)

    def __enter__(self) -> Self:
        for number in range(CLIENTS):
            self._come(number)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        for key in tuple(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr] # these are sockets
        self._selector.close()

    def _come(self, number: int) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", self._port))
        self._selector.register(sock, selectors.EVENT_READ, number)
        self.comings += 1

    def _crowd(self) -> None:
        while not self._is_over.wait(0.5):
            gone = self._selector.select(0)
            for key, _ in gone:
                self._selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr] # these are sockets
                self._come(key.data)
            for key in tuple(self._selector.get_map().values()):
                if key.data % 2:
                    with suppress(OSError):  # the next round sees it
                        key.fileobj.send(b"G")  # type: ignore[union-attr] # these are sockets


@contextmanager
def running_as_user(*limits: str) -> Iterator[tuple[Program, int, Server]]:
    """The program under these limits of prlimit, its port, and its gateway.

    Its files are not in `tmp_path`: every other run of pytest that starts closes the parent of that to other users, and
    the program could not save its counters any longer.
    """
    setpriv, prlimit = shutil.which("setpriv"), shutil.which("prlimit")
    if os.geteuid() != 0 or setpriv is None or prlimit is None:
        pytest.skip("needs root, setpriv and prlimit, to become another user")
    become = [prlimit, *limits, setpriv, f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    tried = subprocess.run(
        [*become, sys.executable, "-c", "import agent"], cwd=PROJECT, capture_output=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"only root may run {PROJECT} with {sys.executable}: put both where everybody may")
    port = free_port()
    with Server(answering("200 OK")) as gateway, ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        folder.chmod(0o755)
        config = write_config(
            folder,
            gateway.url,
            top='interval = "500ms"\nsample_interval = "100ms"',
            more=f'[serve]\nlisten = "127.0.0.1:{port}"\n',
        )
        (folder / "state").mkdir()
        os.chown(folder / "state", USER, USER)
        running = Program("--config", config, "--simulate", before=become)
        stack.callback(running.close)
        running.logs("serving http://")  # fails at once if it has ended
        until(lambda: gateway.requests, "the first push")
        yield running, port, gateway


@contextmanager
def all_tasks_taken() -> Iterator[None]:
    """Another process of the same user has more threads than the limit allows them together."""
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    become = [setpriv, f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    code = (
        "import sys, threading\n"
        "is_over = threading.Event()\n"
        f"for _ in range({TASKS_MAX}): threading.Thread(target=is_over.wait, daemon=True).start()\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [*become, sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        try:
            yield
        finally:
            process.kill()


def readings(port: int) -> float:
    status, body, _ = ask(f"http://127.0.0.1:{port}/metrics")
    assert status == 200
    (value,) = samples_of(body)["wattpush_device_readings_total"].values()
    return value


@pytest.mark.reliability(
    9.5,
    "500 clients that connect to `[serve]` and say nothing, or send a byte now and then; under TasksMax, "
    "and with 64 file descriptors",
    "one thread for all; at most 64 connections, or a quarter of the descriptors; a deadline for each "
    "request; the oldest connection without a request makes room",
)
@pytest.mark.parametrize("limits", [[f"--nproc={TASKS_MAX}"], ["--nofile=64"]], ids=["TasksMax", "few descriptors"])
def test_five_hundred_silent_clients_delay_nothing(limits: list[str], measured: Callable[[str], None]) -> None:
    with running_as_user(*limits) as (running, port, gateway), Crowd(port):
        until(lambda: readings(port), "a scrape")

        def keeps_pace() -> bool:
            """At least once: the machine itself may pause."""
            before, pushes_before, begun = readings(port), len(gateway.requests), time.monotonic()
            slowest = 0.0
            while time.monotonic() < begun + 2.0:
                asked = time.monotonic()
                readings(port)
                slowest = max(slowest, time.monotonic() - asked)
                threading.Event().wait(0.2)
            seconds = time.monotonic() - begun
            samples, pushes = readings(port) - before, len(gateway.requests) - pushes_before
            # Scrapes show what was pushed last, so up to five samples are not counted yet.
            return slowest < SCRAPE_SECONDS and samples >= seconds / 0.1 - 6 and pushes >= 2 * int(seconds / 0.5 - 1)

        until(keeps_pace, "the pace of samples, pushes and scrapes")
        assert running.process.poll() is None, running.stderr
    measured("every scrape within 2 s, no sample and no push missed")


@pytest.mark.reliability(
    9.14,
    "no thread is left for a push (TasksMax, ulimit -u)",
    "sampling goes on, the push counts as failed and says what to raise; the next one covers its interval",
)
def test_a_push_without_a_thread_fails_and_the_run_goes_on(measured: Callable[[str], None]) -> None:
    with running_as_user(f"--nproc={TASKS_MAX}") as (running, port, gateway):
        until(lambda: readings(port), "a scrape")
        with all_tasks_taken():
            running.logs("not pushed: can't start new thread; raise TasksMax= or ulimit -u; the next push covers")
            before = readings(port)
            until(lambda: readings(port) > before + 10, "more samples")
        pushed_before = len(gateway.requests)
        until(lambda: len(gateway.requests) > pushed_before, "a push")
        running.logs("push: works again after")
        assert running.end(signal.SIGTERM)[0] == 0
    measured("no sample lost, pushes resume by themselves")
