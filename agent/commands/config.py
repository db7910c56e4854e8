"""`wattpush config`: prints the documented example configuration."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from agent import chips
from agent.errors import ExitCode

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

HELP = "print the example configuration, which documents every key"

_DESCRIPTION = """\
Prints a configuration that documents every key; lines that begin with "#" show defaults and further examples. Write
it to a file, enter your devices, and run `wattpush check`. To have the file written for what is connected, use
`wattpush init`, or `wattpush scan --toml`."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options: only those of every command, which it does not use."""
    parser.description = _DESCRIPTION


def run(_options: Namespace) -> int:
    """Print; return the exit code."""
    from agent.config.example import example

    sys.stdout.write(example(chips.options()))
    return ExitCode.OK
