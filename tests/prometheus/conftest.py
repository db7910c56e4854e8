from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.prometheus.fleet import Database, Fleet, Way, running_fleet
from tests.prometheus_server import prometheus_of, victoria_metrics_of, vmalert_of

if TYPE_CHECKING:
    from collections.abc import Iterator


DATABASES = {
    "prometheus": Database(prometheus_of, None),
    "victoria-metrics": Database(victoria_metrics_of, vmalert_of),
}
WAYS: tuple[Way, ...] = ("scrape", "remote write")


@pytest.fixture(
    scope="session",
    params=[
        pytest.param((database, way), id=f"{database}, {way}", marks=() if number == 0 else pytest.mark.long)
        for number, (database, way) in enumerate(itertools.product(DATABASES, WAYS))
    ],
)
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet for all tests of a database and a way: it takes a quarter of a minute to start."""
    database, way = request.param
    with running_fleet(tmp_path_factory.mktemp("fleet"), DATABASES[database], way) as running:
        yield running
