"""Options and fixtures of all tests."""

from __future__ import annotations

import logging
import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from agent.i2c import hints
from agent.simulate.clock import HandClock
from tests.servers import running_pushgateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trustme

    from tests.watch.terminal import Terminal

# No promise limits the time that an example takes, and the machine may be busy.
hypothesis.settings.register_profile(
    "any_machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any_machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known only where pytest is started on this folder or one below it: `pytest tests/run --update-golden`."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden/ instead of comparing")


@pytest.fixture(scope="session", autouse=True)
def untouched_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail if the tests write into the home directory.

    Tests run with an empty HOME, which must stay empty. A program without HOME in its environment looks up the home
    directory in the user database. That one is compared in CI only, since other programs may use it elsewhere.
    """
    home = tmp_path_factory.mktemp("home")
    real_home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    before = _listing(real_home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        # pip asks rustc for its version, and rustup's shim then creates this folder, in HOME unless told otherwise.
        patch.setenv("RUSTUP_HOME", str(tmp_path_factory.mktemp("rustup")))
        # Without a runtime folder, agents with history keep their place in /dev/shm, which outlives the tests.
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield
    assert _listing(home) == {}
    if os.environ.get("CI") == "true":
        assert _listing(real_home) == before


def _listing(folder: Path) -> dict[str, int]:
    """Each entry, and when it was last modified if it is a file."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return {path.name: path.lstat().st_mtime_ns if path.is_file() else 0 for path in entries}


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(autouse=True)
def no_proxies_or_state_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "STATE_DIRECTORY", "WATTPUSH_CONFIG"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(autouse=True)
def no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run in a container, where other hints are right."""
    monkeypatch.setattr(hints, "_CONTAINER_MARKS", ())


@pytest.fixture(scope="session")
def pushgateway_url() -> Iterator[str]:
    """A real Pushgateway, shared by all tests; each pushes under its own job."""
    with running_pushgateway() as url:
        yield url


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """A certificate authority that no machine trusts."""
    import trustme

    return trustme.CA()


@pytest.fixture
def tmux() -> Iterator[Terminal]:
    """A real terminal. Its module is not imported for tests without one."""
    from tests.watch.terminal import terminal

    with terminal() as running:
        yield running


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Restore the root logger, which the program sets up."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
