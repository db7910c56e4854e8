"""The command line: arguments in, exit codes out."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import signal
import sys
import textwrap
from typing import TYPE_CHECKING, Any, NoReturn

from agent import __version__, chips, terminal
from agent.commands import check, config, delete, init, measure, run, scan, watch
from agent.errors import AgentError, ConfigError, ExitCode, UsageError, one_line
from agent.log import FORMATS, LEVELS, print_error, set_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TextIO

log = logging.getLogger("agent")

_DESCRIPTION = """\
Measures power, and pushes volts, amperes, watts and joules to a Prometheus Pushgateway. It reads {chips} chips, on a
bus or behind multiplexers, chips that the kernel owns, and the rails that a Raspberry Pi 5 measures itself. Without a
command it reads and pushes until Ctrl-C or SIGTERM; SIGHUP reloads the configuration. Begin with wattpush init."""

_EXIT_CODES = """\
exit codes:
   0  done                               75  another instance holds the bus
  64  usage                                  or the state
  69  the gateway cannot be reached      76  the gateway rejected the push
  70  internal error                     77  permission denied
  74  a sensor could not be read, or     78  configuration
      the counters not be saved"""

COMMANDS = {
    "init": init,
    "scan": scan,
    "check": check,
    "watch": watch,
    "measure": measure,
    "delete": delete,
    "config": config,
}
"""The command words in the order of `--help`, each with its module."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\nTry: {self.prog} --help\n")

    def options(self) -> list[str]:
        """The options that it knows, `--help` included."""
        return [option for option in self._option_string_actions if option.startswith("--")]


class _CommandParser(_Parser):
    """The parser of the whole command line, for messages that fit the command that was meant."""

    _arguments: Sequence[str] = ()

    def parse_command_line(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse; argparse itself would name every unknown word as one of the command line, not of its command.

        It never sees `--` and the operands behind it, which only `measure` has: what it does about `--` depends on the
        version of Python. 3.13.5 and later skip it, and ran a command after it.
        """
        words = list(arguments)
        has_operands = "--" in words
        end = words.index("--") if has_operands else len(words)
        self._arguments = words[:end]
        options, unknown = self.parse_known_args(self._arguments)
        if options.command is measure.run:
            options.operands = words[end + 1 :]
            if unknown and not unknown[0].startswith("-"):
                options.parser.error(f"{unknown[0]}: a command stands behind --: wattpush measure {measure.OPERANDS}")
        elif has_operands:
            getattr(options, "parser", self).error("unrecognized arguments: --")
        if unknown:
            self._refuse_unknown(unknown, getattr(options, "parser", self))
        return options

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Argparse has no public hook for a command that does not exist."""
        if not isinstance(action, argparse._SubParsersAction) or value in COMMANDS:  # noqa: SLF001 - it has no public name
            super()._check_value(action, value)
            return
        before = self._arguments[: self._arguments.index(value)] if value in self._arguments else ()
        if before and before[-1].startswith("-") and before[-1].partition("=")[0] not in self._option_string_actions:
            self._refuse_unknown([before[-1]], self)  # the word may be meant as its value
        meant = _nearest(value, COMMANDS)
        hint = f"did you mean {meant}? The" if meant else "the"
        self.error(f'unknown command "{one_line(value, 60)}"; {hint} commands are {", ".join(COMMANDS)}')

    def _refuse_unknown(self, unknown: Sequence[str], parser: _Parser) -> NoReturn:
        name = unknown[0].partition("=")[0]
        if parser is not self and name in self._option_string_actions:
            parser.error(f"{name}: only for a run, which has no command")
        meant = _nearest(name, parser.options()) if name.startswith("--") else None
        parser.error(f"unrecognized arguments: {' '.join(unknown)}" + (f"; did you mean {meant}?" if meant else ""))


def _nearest(word: str, known: Iterable[str]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(word, known, n=1)), None)


def build_parser() -> _CommandParser:
    """The parser of the whole command line; like argparse, it exits for `--help`, `--version` and usage errors."""
    common = _Parser(add_help=False)
    _add_common_arguments(common)
    parser = _CommandParser(
        prog="wattpush",
        parents=[common],
        description=textwrap.fill(_DESCRIPTION.format(chips=chips.parts()), 78),
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_arguments(parser)
    parser.set_defaults(command=run.run)
    parser.add_argument("--version", action="version", version=f"wattpush {__version__}")

    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.HELP, parents=[common], allow_abbrev=False)
        command.add_arguments(subparser)
        subparser.set_defaults(command=command.run, parser=subparser)
    return parser


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
        help="auto (default): text on a terminal and in the journal, logfmt elsewhere",
    )
    parser.add_argument(
        "--simulate",
        action="store_true",
        default=argparse.SUPPRESS,
        help="emulate every configured mux and chip; without a configuration, a built-in node. Needs no hardware",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    try:
        return _run_until_output_ends(arguments)
    except AgentError as error:
        for problem in error.problems if isinstance(error, ConfigError) else (str(error),):
            print_error(problem)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            print_error(f"the output cannot be written: {error.strerror}")
            _discard(sys.stdout)
            return ExitCode.IOERR
        log.exception(
            "internal error: a bug in wattpush %s; please report it where you got wattpush from, with your command, "
            "your configuration and the traceback below",
            __version__,
        )
        return ExitCode.SOFTWARE
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            _discard(sys.stderr)


def _run_until_output_ends(arguments: Sequence[str] | None) -> int:
    try:
        return _run_command(arguments)
    except OSError as error:
        is_terminal_gone = error.errno == errno.EIO and not terminal.is_there()
        if not is_terminal_gone and not isinstance(error, BrokenPipeError):
            raise
        _discard(sys.stdout)  # the reader of our output has closed it
        return ExitCode.OK


def _run_command(arguments: Sequence[str] | None) -> int:
    _open_standard_streams()
    try:
        options = build_parser().parse_command_line(sys.argv[1:] if arguments is None else arguments)
        set_up(getattr(options, "log_level", "info"), getattr(options, "log_format", "auto"), sys.stderr, os.environ)
        command: Callable[[argparse.Namespace], int] = options.command
        given = run.given(options)
        if given and command is not run.run:
            raise UsageError(f"{', '.join(given)}: only for a run, which has no command")
        return command(options)
    finally:
        sys.stdout.flush()


def _discard(stream: TextIO) -> None:
    """Send what is still buffered to /dev/null; at exit Python would try to write it, complain, and exit with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_standard_streams() -> None:
    """Open /dev/null in place of a standard stream that is closed.

    Otherwise the next file or socket gets its number, and receives the output for the terminal.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            file = os.open(os.devnull, os.O_RDWR)
            if file != number:
                os.dup2(file, number)
                os.close(file)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))
    # A device may have a name that the encoding of the terminal cannot express.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
