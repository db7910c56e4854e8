from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from agent.config import parse
from agent.errors import ConfigError
from agent.settings import AveragingChoices, ChipOptions, Settings

Chips = Mapping[str, ChipOptions]
Parse = Callable[[str], Settings]
Problems = Callable[[str], tuple[str, ...]]

_AVERAGING = AveragingChoices(
    counts=(1, 4, 16, 64, 128, 256, 512, 1024),
    conversion_seconds=(140e-6, 204e-6, 332e-6, 588e-6, 1.1e-3, 2.116e-3, 4.156e-3, 8.244e-3),
)


@pytest.fixture(scope="session")
def chips() -> Chips:
    return {
        "ina260": ChipOptions("ina260", addresses=range(0x40, 0x50), averaging=_AVERAGING),
        "ina3221": ChipOptions(
            "ina3221", addresses=range(0x40, 0x44), inputs=range(1, 4), external_shunt=True, averaging=_AVERAGING
        ),
        "hwmon": ChipOptions("hwmon", addresses=None, inputs=range(1, 4)),
        # Not a real chip: it can have the addresses of muxes, and averages nothing.
        "high": ChipOptions("high", addresses=range(0x60, 0x80)),
    }


@pytest.fixture(scope="session")
def parse_text(chips: Chips) -> Parse:
    """A file's text as Settings, on a machine called pi-4 with the home folder /home/pi."""
    return lambda text: parse(text, chips, default_hostname="pi-4", environ={"HOME": "/home/pi"})


@pytest.fixture(scope="session")
def problems_of(parse_text: Parse) -> Problems:
    """The problems reported for a bad file."""

    def problems(text: str) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as caught:
            parse_text(text)
        return caught.value.problems

    return problems
