"""Make from the parser what tells people of the command line: completions for bash and zsh, and the manual page.

`python scripts/command_line.py [FOLDER]` writes them into a folder, deploy/ unless told otherwise.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import shtab

from agent.cli import build_parser
from agent.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"

EXIT_STATUS = {
    ExitCode.OK: "Done.",
    ExitCode.USAGE: "The command line makes no sense.",
    ExitCode.UNAVAILABLE: "The gateway could not be reached or kept failing.",
    ExitCode.SOFTWARE: "Internal error.",
    ExitCode.IOERR: "A sensor could not be read; the rest was still pushed.",
    ExitCode.TEMPFAIL: "Another instance holds the bus or the state.",
    ExitCode.PROTOCOL: "The gateway rejected the push.",
    ExitCode.NOPERM: "Permission denied; the message says which group or device file.",
    ExitCode.CONFIG: "The configuration is missing or bad.",
}

FILES = {
    "/etc/wattpush/config.toml": "The configuration, unless --config or WATTPUSH_CONFIG names another one.",
    "/var/lib/wattpush/counters.json": (
        "The counters, which survive restarts. The folder is state_dir of the configuration, which is this one where a "
        "service is installed; without it, that of systemd, else wattpush in $XDG_STATE_HOME, else "
        "~/.local/state/wattpush: then each user has counters of their own."
    ),
    "/dev/i2c-N": "The buses. Each is locked (flock(2)) for the time of a sweep, so that two programs take turns.",
}

ENVIRONMENT = {
    "WATTPUSH_CONFIG": "The configuration, where there is no --config.",
    "STATE_DIRECTORY, XDG_STATE_HOME, HOME": (
        "Where the counters are kept if the configuration has no state_dir; the first is set by systemd."
    ),
    "CREDENTIALS_DIRECTORY": (
        "Where files that the configuration names without a folder are looked for: the credentials of a systemd unit."
    ),
    "http_proxy, https_proxy, no_proxy": "The proxy between this machine and the gateway.",
    "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID": "Set by systemd, which is told of the start, the end and of life.",
    "JOURNAL_STREAM": "Set by systemd; a log that goes to the journal carries priorities instead of times.",
    "BLINKA_MCP2221, BLINKA_FT232H": 'Set to 1 for the USB adapter that bus = "board" is to be.',
    "NO_COLOR, TERM, COLORTERM": "Whether watch shows colours, and which; on a dumb terminal it writes plain lines.",
    "LC_ALL, LC_CTYPE, LANG": "Whether watch draws with Unicode or, in the locale C, with ASCII.",
}

SIGNALS = {
    "SIGTERM, SIGINT": "End in good order, within 2 s: what was read is pushed or saved, muxes are closed.",
    "SIGHUP": (
        "Read the configuration anew; if it is bad, that is reported and the old one stays in force. It ends a watch."
    ),
}

EXAMPLES = {
    "wattpush check": "Everything that is wrong with the configuration, all at once.",
    "wattpush \\-\\-once \\-\\-dry\\-run": "Read every rail once and print what would be pushed.",
    "wattpush watch": "Look at the rails while the service runs.",
    "wattpush watch | grep device=cpu": "The readings of one device as lines.",
    "wattpush \\-\\-simulate \\-\\-dry\\-run": "See all of it without any hardware.",
    "wattpush delete \\-\\-device fan": "Remove what the gateway still says of a device that is gone.",
}


def parsers() -> tuple[argparse.ArgumentParser, dict[str, tuple[str, argparse.ArgumentParser]]]:
    """The whole parser, and of each command its help and its own parser."""
    parser = build_parser()
    commands: dict[str, tuple[str, argparse.ArgumentParser]] = {}
    for action in _actions(parser):
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._get_subactions()}
            commands = {name: (helps[name], command) for name, command in action.choices.items()}
    for one in (parser, *(command for _, command in commands.values())):
        for action in _actions(one):
            if action.metavar == "FILE":
                vars(action)["complete"] = shtab.FILE
    return parser, commands


def bash_completion() -> str:
    text: str = shtab.complete(parsers()[0], "bash")
    ours = "complete -o bashdefault -F"
    assert ours in text
    # Where it knows nothing better bash completes file names, so also behind --trace cpu=.
    return _trimmed(text.replace(ours, "complete -o bashdefault -o default -F"))


def zsh_completion() -> str:
    return _trimmed(shtab.complete(parsers()[0], "zsh"))


def manual_page() -> str:
    parser, commands = parsers()
    return "\n".join(_manual_lines(parser, commands)) + "\n"


def _manual_lines(
    parser: argparse.ArgumentParser, commands: dict[str, tuple[str, argparse.ArgumentParser]]
) -> Iterator[str]:
    yield '.\\" Made by scripts/command_line.py from the parser: change that, then `make generated`.'
    yield '.TH WATTPUSH 1 "" "wattpush" "User Commands"'
    yield from (".nh", ".ad l")  # options are not to be hyphenated, nor pulled apart
    yield from (".SH NAME", "wattpush \\- measure power and push it to a Prometheus Pushgateway")
    yield ".SH SYNOPSIS"
    yield from _synopsis("wattpush", parser)
    for name, (_, command) in commands.items():
        yield ".br"
        yield from _synopsis(f"wattpush {name}", command)
    yield from (".SH DESCRIPTION", _roff(" ".join((parser.description or "").split())))
    yield ".SH OPTIONS"
    for action in _options(parser):
        yield from _option(action)
    yield ".SH COMMANDS"
    common = {option for action in _options(parser) for option in action.option_strings}
    for name, (what, command) in commands.items():
        yield from (f".SS wattpush {_roff(name)}", _roff(f"{what[:1].upper()}{what[1:]}."))
        for text in (command.description, command.epilog):
            if text:
                yield from (".PP", _roff(" ".join(text.split())))
        for action in _options(command):
            if common.isdisjoint(action.option_strings):
                yield from _option(action)
        shared = [action.option_strings[-1] for action in _options(command) if common & set(action.option_strings)]
        yield from (".PP", _roff(f"As above: {', '.join(shared)}."))
    yield from _list("FILES", ((name, text) for name, text in FILES.items()), ".I")
    yield from _list("ENVIRONMENT", ENVIRONMENT.items(), ".B")
    yield from _list("EXIT STATUS", ((str(int(code)), text) for code, text in EXIT_STATUS.items()), ".B")
    yield from _list("SIGNALS", SIGNALS.items(), ".B")
    yield ".SH EXAMPLES"
    for example, text in EXAMPLES.items():
        yield from (".TP", f".B {example}", _roff(text))
    yield ".SH SEE ALSO"
    yield from (".BR systemctl (1),", ".BR journalctl (1),", ".BR i2cdetect (8)", ".PP")
    yield _roff("The Pushgateway: https://github.com/prometheus/pushgateway")


def _synopsis(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f".B {_roff(name)}"
    for action in _options(parser):
        if not {"--help", "--version"} & set(action.option_strings):
            argument = f" \\fI{_roff(_argument(action))}\\fP" if action.nargs != 0 else ""
            dots = " ..." if isinstance(action, argparse._AppendAction) else ""
            yield f"[\\fB{_roff(action.option_strings[-1])}\\fP{argument}]{dots}"


def _option(action: argparse.Action) -> Iterator[str]:
    argument = f" \\fI{_roff(_argument(action))}\\fP" if action.nargs != 0 else ""
    names = ", ".join(f"\\fB{_roff(name)}\\fP" for name in action.option_strings)
    yield from (".TP", names + argument, _roff(action.help or ""))


def _list(title: str, items: Iterable[tuple[str, str]], face: str) -> Iterator[str]:
    yield f".SH {title}"
    for name, text in items:
        yield from (".TP", f"{face} {_roff(name)}", _roff(text))


def _argument(action: argparse.Action) -> str:
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in _actions(parser) if action.option_strings]


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions


def _roff(text: str) -> str:
    """Text that roff takes literally (groff_man(7)): a hyphen that may be copied into a shell is a minus there."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("~", "\\(ti")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip() + "\n"


FILES_MADE = {
    "completions/wattpush.bash": bash_completion,
    "completions/_wattpush": zsh_completion,
    "man/wattpush.1": manual_page,
}


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEPLOY
    for name, make in FILES_MADE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
