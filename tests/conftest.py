"""What all tests share. Its being here also puts this folder on the path, so that tests can import `servers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis
import pytest

from agent.simulate.clock import HandClock
from tests.servers import running_pushgateway

if TYPE_CHECKING:
    from collections.abc import Iterator

# No promise is about how long an example takes, least of all on a machine that does other things as well.
hypothesis.settings.register_profile(
    "any_machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any_machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Read where pytest is started with this folder or one in it: `pytest tests/run --update-golden`."""
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/ anew instead of comparing")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(autouse=True)
def no_proxies_or_state_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "STATE_DIRECTORY", "WATTPUSH_CONFIG"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="session")
def pushgateway_url() -> Iterator[str]:
    """A real Pushgateway for all tests: each uses a job of its own."""
    with running_pushgateway() as url:
        yield url
