"""What the command line can do, a file each: `HELP`, `add_arguments` and `run`; imported by cli.py.

A file here imports at its top only what every start needs; the rest where it is used.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent import chips, config
from agent.build_info import hostname
from agent.errors import ConfigError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from agent.settings import Settings


SIMULATED = "SIMULATED from the configuration: no chip and no number below is real"


def config_file(options: Namespace) -> Path:
    """Where the configuration is."""
    return config.find_file(getattr(options, "config", None), os.environ)


def is_simulated(options: Namespace) -> bool:
    """Whether no real chip is to be touched: `--simulate`, before the command or after it."""
    return getattr(options, "simulate", False)


def load_settings(options: Namespace) -> Settings:
    """The configuration that the command line names.

    Raises:
        ConfigError: it is missing or bad; every problem names the file.
    """
    path = config_file(options)
    try:
        return config.load(path, chips.options(), default_hostname=hostname(), environ=os.environ)
    except ConfigError as error:
        raise ConfigError(tuple(f"{path}: {problem}" for problem in error.problems)) from error


@contextmanager
def tidied_up_when_stopped() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the command through everything that closes channels on its way out."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
