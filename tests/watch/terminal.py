"""A real terminal for tests: tmux, detached."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.run.running import LONG_SECONDS, PROJECT, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONFIGURATION = """\
set -g status off
set -g default-terminal screen-256color
set -g remain-on-exit on
set -s escape-time 0
"""

UTF8 = {"LANG": "C.UTF-8", "TZ": "UTC", "TERM": "screen-256color"}


class Terminal:
    """One pane of tmux."""

    def __init__(self, tmux: str, folder: Path) -> None:
        self._configuration = folder / "tmux.conf"
        self._configuration.write_text(CONFIGURATION)
        self._command = [tmux, "-u", "-S", str(folder / "socket"), "-f", str(self._configuration)]
        # scripts/servers unpacks tmux with its libraries beside it.
        libraries = ":".join(map(str, Path(tmux).parents[1].glob("lib/*-linux-*")))
        beside_it = {"LD_LIBRARY_PATH": libraries} if ".cache" in Path(tmux).parts else {}
        self._environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(folder), **beside_it}

    def _tmux(self, *arguments: str) -> str:
        ended = subprocess.run(
            [*self._command, *arguments],
            env=self._environ,
            cwd=PROJECT,
            capture_output=True,
            timeout=LONG_SECONDS,
            check=False,
        )
        assert ended.returncode == 0, (arguments, ended.stderr.decode())
        return ended.stdout.decode()

    def start(self, script: str, width: int, height: int, environ: Mapping[str, str] = UTF8) -> None:
        """Run a bash script, with the tests' interpreter as $python."""
        names = {"PATH": os.environ["PATH"], "python": sys.executable, **environ}
        if "CI" in os.environ:
            names["CI"] = os.environ["CI"]
        # Keep an interactive bash away from the files of the user who runs the tests.
        names |= {"HOME": self._environ["HOME"], "HISTFILE": ""}
        # tmux ignores the signals that stop a background job which uses its terminal.
        usual = "--default-signal=TTIN,TTOU"
        clean = shlex.join(["exec", "env", usual, "-i", *(f"{name}={value}" for name, value in names.items())])
        command = f"{clean} bash -c {shlex.quote(script)}"
        self._tmux("new-session", "-d", "-x", str(width), "-y", str(height), command)

    def screen(self) -> str:
        """The text on the screen, without trailing spaces and empty lines."""
        text = self._tmux("capture-pane", "-p")
        return "\n".join(line.rstrip() for line in text.splitlines()).rstrip() + "\n"

    def escapes(self) -> str:
        """The text with its colours, as SGR sequences."""
        return self._tmux("capture-pane", "-p", "-e")

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names: C-c, Enter, q."""
        self._tmux("send-keys", *keys)

    def process(self) -> int:
        """The number of the Python process in it."""
        pending = [int(self._tmux("display-message", "-p", "#{pane_pid}"))]
        while pending:
            number = pending.pop()
            if Path(f"/proc/{number}/exe").resolve() == Path(sys.executable).resolve():
                return number
            children = Path(f"/proc/{number}/task/{number}/children").read_text(encoding="ascii")
            pending += map(int, children.split())
        pytest.fail("no Python process")

    def is_restored(self) -> bool:
        """Whether the cursor is visible, long lines wrap, and the alternate screen is off."""
        return self._tmux("display-message", "-p", "#{cursor_flag} #{wrap_flag} #{alternate_on}").strip() == "1 1 0"

    def shows(self, text: str) -> str:
        """Wait until the screen contains the text; return the whole screen."""
        seen = [""]

        def is_there() -> bool:
            seen[0] = self.screen()
            return text in seen[0]

        with contextlib.suppress(pytest.fail.Exception):
            until(is_there, text)
        assert text in seen[0], f"does not show {text!r} but:\n{seen[0]}"
        return seen[0]

    def comes_to_show(self, screen: str) -> None:
        """Wait until the screen is exactly this."""
        with contextlib.suppress(pytest.fail.Exception):
            until(lambda: self.screen() == screen, "the expected screen")
        assert self.screen() == screen

    def close(self) -> None:
        subprocess.run([*self._command, "kill-server"], env=self._environ, capture_output=True, check=False)


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal. Without tmux the test is skipped, but fails in continuous integration."""
    tmux = shutil.which("tmux")
    if tmux is None:
        message = "needs tmux: apt-get install tmux"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    # Not in pytest's folder: the path of a socket is limited to 107 characters.
    with tempfile.TemporaryDirectory(prefix="wattpush-") as folder:
        running = Terminal(tmux, Path(folder))
        try:
            yield running
        finally:
            running.close()
