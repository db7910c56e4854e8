"""Puts values of the environment into the strings of config.toml: `${NAME}`, and `$$` for a dollar sign."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from agent.config.values import InvalidError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Names are those of a shell (POSIX, "Environment Variable Definition"). The last case is a mistake: "${NAME" or "${}".
_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|\{)")


def expand(value: Any, environ: Mapping[str, str]) -> Any:
    """The value with the environment's values in all its strings; other values as they are.

    Raises:
        InvalidError: a variable is not set, or its name cannot be one.
    """
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: _value_of(found, environ), value)
    if isinstance(value, list):
        return [expand(item, environ) for item in value]
    if isinstance(value, dict):
        return {key: expand(item, environ) for key, item in value.items()}
    return value


def escape(text: str) -> str:
    """The text as it is written in the file, so that `expand` gives it back."""
    return text.replace("$", "$$")


def _value_of(found: re.Match[str], environ: Mapping[str, str]) -> str:
    if found["dollar"]:
        return "$"
    name = found["name"]
    if name is None:
        raise InvalidError(
            '"${" without the name of an environment variable and "}"; write $${ for the characters themselves'
        )
    if name not in environ:
        raise InvalidError(
            f"the environment has no variable {name}; set it for this user or service, or write $$ for a $"
        )
    return environ[name]
