"""A real Chromium without a window, driven by the DevTools protocol over a pair of pipes: no library, no open port."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SECONDS = 60.0
"""How long an answer may take on a busy machine."""

_OPTIONS = (
    "--headless",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def binary() -> str:
    """The path of Chromium. If it is missing, the test is skipped, or fails in CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is not None:
        return found
    message = "needs a real Chromium: apt-get install chromium"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


class Browser:
    """A running Chromium."""

    def __init__(self, folder: str) -> None:
        # Above 4, so that neither is in the way of the numbers that Chromium expects.
        child_reads, self._to = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in _closing(os.pipe()))
        self._from, child_writes = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in _closing(os.pipe()))
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._process = os.posix_spawn(
            path := binary(),
            [path, *_OPTIONS, f"--user-data-dir={folder}/profile", "about:blank"],
            {**os.environ, "HOME": folder},
            file_actions=[
                *((os.POSIX_SPAWN_DUP2, null, stream) for stream in (0, 1, 2)),
                (os.POSIX_SPAWN_DUP2, child_reads, 3),
                (os.POSIX_SPAWN_DUP2, child_writes, 4),
            ],
            setsid=True,
        )
        for end in (null, child_reads, child_writes):
            os.close(end)
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(SECONDS)
            assert answer is not None, f"no answer to {method}"
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def listen(self, seconds: float) -> None:
        """Take events for at most this long, until one has come."""
        self._receive(seconds)

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        ends = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], max(0.0, ends - time.monotonic()))[0]:
                return None
            chunk = os.read(self._from, 1 << 20)
            assert chunk, "Chromium has ended"
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def tab(self) -> Tab:
        """Open a tab."""
        target = self.ask("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Tab(self, session, target)

    def close(self) -> None:
        """End it with all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._to)
        os.close(self._from)


class Tab:
    """A tab, and what it has reported."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target
        for domain in ("Page", "Runtime", "Log", "Audits", "DOM", "Accessibility"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        return self._browser.ask(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Load a page and wait until everything has loaded."""
        before = len(self.reports("Page.loadEventFired"))
        self.ask("Page.navigate", url=url)
        ends = time.monotonic() + SECONDS
        while len(self.reports("Page.loadEventFired")) == before:
            assert time.monotonic() < ends, "the page does not load"
            self._browser.listen(SECONDS)

    def close(self) -> None:
        self._browser.ask("Target.closeTarget", targetId=self._target)

    def reports(self, method: str) -> list[dict[str, Any]]:
        """The parameters of the events of one kind."""
        events = [event for event in self._browser.events if event.get("sessionId") == self._session]
        return [event["params"] for event in events if event["method"] == method]

    def complaints(self) -> list[Any]:
        """What a developer sees in the console: errors, and violations of the page's policy."""
        self.value("0")  # everything before this has arrived
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Audits.issueAdded")
        return [report for kind in kinds for report in self.reports(kind)]

    def value(self, expression: str) -> Any:
        """Evaluate JavaScript; also where the page itself may not run any."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, is_right: Callable[[Any], bool] = bool) -> Any:
        """Evaluate until the value is right; return it."""
        ends = time.monotonic() + SECONDS
        while not is_right(value := self.value(expression)):
            assert time.monotonic() < ends, f"{expression} is still {value!r}"
            self._browser.listen(0.05)
        return value

    def emulate(self, width: int = 1280, height: int = 800, scheme: str = "light", scale: float = 1.0) -> None:
        """Be a screen of this size, in points."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, key: str) -> None:
        code = {"Tab": 9}[key]
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def accessible(self) -> list[tuple[str, str, str]]:
        """Role, name and description of every node that a screen reader meets, in order."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        return [
            tuple(str(node.get(part, {}).get("value", "")) for part in ("role", "name", "description"))  # type: ignore[misc] # three
            for node in nodes
            if not node.get("ignored")
        ]

    def picture(self, height: int | None = None) -> bytes:
        """The page, or as much of it as is this high, as a PNG."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        answer = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(answer["data"])


def _closing(ends: Sequence[int]) -> Iterator[int]:
    for end in ends:
        yield end
        os.close(end)


@contextlib.contextmanager
def running_chromium() -> Iterator[Browser]:
    """A Chromium with a profile of its own, which vanishes with it."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        browser = Browser(folder)
        try:
            yield browser
        finally:
            browser.close()
