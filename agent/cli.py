"""The command line: arguments in, exit codes out."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import sys
import textwrap
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from agent import __version__, chips
from agent.commands import run
from agent.errors import AgentError, ConfigError, ExitCode, UsageError
from agent.log import FORMATS, LEVELS, print_error, set_up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

log = logging.getLogger("agent")

_DESCRIPTION = """\
Measures power with the chips {chips}, also behind TCA9548A multiplexers, and with those that the kernel reads; pushes
volts, amperes, watts and joules to a Prometheus Pushgateway. Without a command it samples and pushes until SIGTERM;
SIGHUP reads the configuration anew."""

_EXIT_CODES = """\
exit codes:
   0  done                               75  another instance holds the bus
  64  usage                                  or the state
  69  the gateway cannot be reached      76  the gateway rejected the push
  70  internal error                     77  permission denied
  74  a sensor could not be read         78  configuration"""

# Each is a file in `commands/`.
_COMMANDS = ("check", "scan", "watch", "delete")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\nTry: {self.prog} --help\n")


class _NotARunError(Exception):
    """The arguments are more than those of a run, or wrong."""


class _RunParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _NotARunError(message)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; exits for `--help`, `--version` and wrong ones, as argparse does.

    Most starts are runs, and timers start them again and again: the parser of all commands, which takes 4 ms to build,
    is built only for what the parser of a run does not understand.
    """
    run_parser = _RunParser(add_help=False, allow_abbrev=False)
    _add_run_arguments(run_parser)
    try:
        return run_parser.parse_args(arguments)
    except _NotARunError:
        return build_parser().parse_args(arguments)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="wattpush",
        description=textwrap.fill(_DESCRIPTION.format(chips=chips.parts()), 78),
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_run_arguments(parser)
    parser.add_argument("--version", action="version", version=f"wattpush {__version__}")

    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in _COMMANDS:
        command = import_module(f"agent.commands.{name}")
        subparser = commands.add_parser(name, help=command.HELP, allow_abbrev=False)
        _add_common_arguments(subparser)
        command.add_arguments(subparser)
        subparser.set_defaults(command=command.run)
    return parser


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    _add_common_arguments(parser)
    parser.set_defaults(command=run.run)
    run.add_arguments(parser)


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="the configuration (default: $WATTPUSH_CONFIG, else /etc/wattpush/config.toml)",
    )
    parser.add_argument("--log-level", choices=LEVELS, default=argparse.SUPPRESS, help="default: info")
    parser.add_argument(
        "--log-format",
        choices=FORMATS,
        default=argparse.SUPPRESS,
        help="auto: text on a terminal and in the journal, logfmt elsewhere (default)",
    )
    parser.add_argument(
        "--simulate",
        action="store_true",
        default=argparse.SUPPRESS,
        help="emulate every configured mux and chip; needs no hardware",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    try:
        return _main(arguments)
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            _write_no_more(sys.stderr)


def _main(arguments: Sequence[str] | None) -> int:  # noqa: PLR0911 - one return for each way to end reads best
    _open_standard_streams()
    try:
        try:
            options = parse(sys.argv[1:] if arguments is None else arguments)
            set_up(
                getattr(options, "log_level", "info"), getattr(options, "log_format", "auto"), sys.stderr, os.environ
            )
            command: Callable[[argparse.Namespace], int] = options.command
            given = run.given(options)
            if given and command is not run.run:
                raise UsageError(f"{', '.join(given)}: only for a run, which has no command")
            return command(options)
        finally:
            sys.stdout.flush()
    except ConfigError as error:
        for problem in error.problems:
            print_error(problem)
        return error.exit_code
    except AgentError as error:
        print_error(str(error))
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has had enough; Python would complain once more when it flushes stdout at the end.
        _write_no_more(sys.stdout)
        return ExitCode.OK
    except KeyboardInterrupt:
        return 128 + 2
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            print_error(f"what was asked for cannot be written: {error.strerror}")
            _write_no_more(sys.stdout)
            return ExitCode.IOERR
        log.exception("internal error; please report this with what is above")
        return ExitCode.SOFTWARE


def _write_no_more(stream: TextIO) -> None:
    """What is left in the buffer goes nowhere; Python would try once more at the end, complain, and exit with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_standard_streams() -> None:
    """Where stdin, stdout or stderr was closed by whoever started us, open /dev/null in its place.

    Else the next file or socket that is opened gets its number, and what is meant for the terminal goes there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            file = os.open(os.devnull, os.O_RDWR)
            if file != number:
                os.dup2(file, number)
                os.close(file)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))
    # A device may have any name, and a terminal any encoding.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
