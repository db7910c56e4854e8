"""Finds what other packages add to wattpush: they declare it as an entry point (Python Packaging User Guide)."""

from __future__ import annotations

import importlib
import logging
import re
import sys
import threading
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from agent.errors import ConfigError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import Distribution
    from types import ModuleType

log = logging.getLogger(__name__)

CHIPS = "wattpush.chips"
"""The group of the chips."""

SLOW_SECONDS = 5.0
"""An import takes less than a second, also on a slow card."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Addition:
    """What a package adds.

    Attributes:
        name: under which it adds it.
        package: the name of the package for pip.
        version: that of the package.
        module: what the entry point names.
    """

    name: str
    package: str
    version: str
    module: ModuleType

    def unusable(self, why: str, error: BaseException | None = None) -> ConfigError:
        """The error for a package with a mistake; `error` is what its code raised, if that is the mistake."""
        return _unusable(self.name, self.package, self.version, why, error)

    def __str__(self) -> str:
        return f"the package {self.package} {self.version}"


@cache  # not of what it raises: a package that is installed later is found by the next reload
def find(group: str, name: str) -> Addition:
    """What the installed packages add to a group under this name; only then the module of that package is imported.

    Raises:
        KeyError: no package adds anything under this name.
        ConfigError: a package does, but it cannot be used.
    """
    # It takes some milliseconds, and most nodes have built-in chips alone.
    from importlib import metadata

    found = [point for point in metadata.entry_points(group=group) if point.name == name]
    if not found:
        raise KeyError(name)
    packages = [_package(point.dist) for point in found]
    if len(found) > 1:
        offering = " and ".join(f"{package} {version}" for package, version in packages)
        raise ConfigError((f'several packages add "{name}": {offering}; remove all but one of them',))
    ((package, version),) = packages
    if not _NAME.fullmatch(name):
        why = "a name has small letters and digits, with single hyphens between them"
        raise _unusable(name, package, version, why)
    module_name = found[0].value
    if ":" in module_name:
        raise _unusable(name, package, version, f"{module_name} is not a module")
    try:
        importlib.invalidate_caches()
        # Our own output may be read by a program.
        with redirect_stdout(sys.stderr), _naming_what_hangs(f"the package {package} {version}"):
            module = importlib.import_module(module_name)
    except KeyboardInterrupt:  # of the user
        raise
    except BaseException as error:
        raise _unusable(name, package, version, "its import fails", error) from error
    return Addition(name, package, version, module)


@contextmanager
def _naming_what_hangs(package: str) -> Iterator[None]:
    """Name the package in the log if its import takes long: until it ends, nothing else shows what is waited for."""
    timer = threading.Timer(SLOW_SECONDS, log.warning, ("%s: its import takes more than %g s", package, SLOW_SECONDS))
    timer.daemon = True
    with suppress(RuntimeError):  # the system has no thread left
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def describe_mistake(error: BaseException) -> str:
    """An exception of somebody else's code, and the line that raised it, in one line."""
    import traceback

    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - that code too is somebody else's
        said = "without a word"
    text = one_line(f"{type(error).__name__}: {said}")
    if isinstance(error, SyntaxError):  # its text names file and line
        return text
    # The import system and this file are no place to look for it.
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and frame.filename not in (importlib.__file__, __file__)
    ]
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text


def _package(distribution: Distribution | None) -> tuple[str, str]:
    """The name and the version of a package; pip writes both."""
    return ("?", "?") if distribution is None else (distribution.name, distribution.version)


def _unusable(name: str, package: str, version: str, why: str, error: BaseException | None = None) -> ConfigError:
    cause = "" if error is None else f": {describe_mistake(error)}"
    hint = f"update it, or remove it: pip uninstall {package}"
    return ConfigError((f'the package {package} {version} adds "{name}", but cannot be used: {why}{cause}; {hint}',))
