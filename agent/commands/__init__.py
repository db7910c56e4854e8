"""The commands, a file each: `HELP`, `add_arguments` and `run`; imported by cli.py.

Every start imports every command, so a file does only cheap imports at its top, and the others in `run`.
"""

from __future__ import annotations

import gc
import os
import signal
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from agent import chips
from agent import config as configuration  # `config` is a command of this package
from agent.build_info import hostname
from agent.errors import ConfigError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from agent.settings import Settings


_GARBAGE_THRESHOLD = 700
"""Python's default: see __main__.py."""

_SIMULATED_SUFFIX = "-simulated"


def config_file(options: Namespace) -> Path:
    """The path of the configuration."""
    return configuration.find_file(getattr(options, "config", None), os.environ)


def is_simulated(options: Namespace) -> bool:
    """Whether no real chip is accessed: `--simulate` was given, before the command or after it, or `--trace`."""
    return getattr(options, "simulate", False) or bool(getattr(options, "trace", ()))


def has_file(options: Namespace) -> bool:
    """Whether a configuration is named, or is in the default place; without one, some commands do without."""
    return configuration.is_file_expected(getattr(options, "config", None), os.environ)


def simulated_from(settings: Settings) -> str:
    """The line above what is simulated."""
    source = "configuration" if settings.has_destination else "built-in node"
    return f"SIMULATED from the {source}: no chip and no number below is real"


def load_settings(options: Namespace, *, needs_file: bool = False) -> Settings:
    """The configuration that the command line names; `--simulate` without one means the built-in node.

    A simulated node has a hostname of its own, so that no command touches the groups of the real one.

    Args:
        options: the command line.
        needs_file: there is no built-in node: a run whose file is gone does not become another node.

    Raises:
        ConfigError: it is missing or invalid; every problem names the file.
    """
    if is_simulated(options) and not needs_file and not has_file(options):
        return builtin_node()
    path = config_file(options)
    try:
        settings = configuration.load(path, chips.options(), default_hostname=hostname(), environ=os.environ)
    except ConfigError as error:
        raise ConfigError(tuple(f"{path}: {problem}" for problem in error.problems)) from error
    if is_simulated(options) and not settings.hostname.endswith(_SIMULATED_SUFFIX):
        return replace(settings, hostname=simulated_hostname(settings.hostname))
    return settings


def builtin_node() -> Settings:
    """Without a folder for its counters: nothing is left behind, and several may run at once."""
    from agent.config.builtin_node import BUILTIN_NODE

    settings = configuration.parse(
        BUILTIN_NODE, chips.options(), default_hostname="", environ={"HOME": "/"}, needs_destination=False
    )
    return replace(settings, hostname=simulated_hostname(settings.hostname), state_dir=None)


def simulated_hostname(hostname: str) -> str:
    """The hostname of the simulated node; a long one is cut, to be as long as a hostname may be."""
    return hostname[: configuration.MAX_NAME_CHARACTERS - len(_SIMULATED_SUFFIX)] + _SIMULATED_SUFFIX


def parse_duration(text: str) -> float:
    """The seconds of a duration on the command line, as in the configuration: "500ms" or a number of seconds.

    Raises:
        ValueError: it is no duration; the message says what one looks like.
    """
    duration: str | float = text
    with suppress(ValueError):
        duration = float(text)
    return configuration.parse_duration(duration)


def collect_garbage_as_usual() -> None:
    """Restore the default, for long-running commands; a short one is faster without collections."""
    gc.set_threshold(_GARBAGE_THRESHOLD)


@contextmanager
def cleanup_on_stop() -> Iterator[None]:
    """Make SIGTERM and Ctrl-C raise SystemExit, so that the command closes mux channels before it ends."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
