from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.prometheus.fleet import Fleet, running_fleet
from tests.prometheus_server import prometheus_of, victoria_metrics_of

if TYPE_CHECKING:
    from collections.abc import Iterator


DATABASES = {"prometheus": prometheus_of, "victoria-metrics": victoria_metrics_of}


@pytest.fixture(scope="session", params=["prometheus", pytest.param("victoria-metrics", marks=pytest.mark.long)])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet for all tests of a database: it takes a quarter of a minute to start."""
    with running_fleet(tmp_path_factory.mktemp("fleet"), DATABASES[request.param]) as running:
        yield running
