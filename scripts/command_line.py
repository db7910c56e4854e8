"""Make completions for bash and zsh and the manual page from the parser of the command line.

`python scripts/command_line.py [FOLDER]` writes them into a folder, by default deploy/.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import shtab

from agent.cli import COMMANDS, build_parser
from agent.errors import ExitCode

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"

EXIT_STATUS = {
    ExitCode.OK: "Done.",
    ExitCode.USAGE: "The command line is wrong.",
    ExitCode.UNAVAILABLE: "A server could not be reached or kept failing.",
    ExitCode.SOFTWARE: (
        "A bug. Please report it where you got wattpush from: everything from the words internal error on, the "
        "configuration and the command."
    ),
    ExitCode.IOERR: "A sensor could not be read; the rest was still pushed. Or the counters could not be saved.",
    ExitCode.TEMPFAIL: "Another instance holds the bus or the state, or no file descriptor is free.",
    ExitCode.PROTOCOL: "A server rejected what was sent.",
    ExitCode.NOPERM: "Permission denied; the message says which group or file.",
    ExitCode.CONFIG: "The configuration is missing or invalid.",
}

FILES = {
    "/etc/wattpush/config.toml": "The configuration, unless --config or WATTPUSH_CONFIG names another file.",
    "/var/lib/wattpush/counters.json": (
        "The counters, which survive restarts. The folder is state_dir of the configuration; an installed service sets "
        "it to this one. Without it, the folder is that of systemd, else wattpush in $XDG_STATE_HOME, else "
        "~/.local/state/wattpush, and each user has separate counters."
    ),
    "/var/lib/wattpush/history": "The backlog of remote write: samples that its server has not taken yet.",
    "/dev/i2c-N": "The buses. Each is locked (flock(2)) during a sweep, so that two programs take turns.",
}

ENVIRONMENT = {
    "WATTPUSH_CONFIG": "The configuration, if --config is not given.",
    "STATE_DIRECTORY, XDG_STATE_HOME, HOME": (
        "Where the counters are saved if the configuration has no state_dir; systemd sets the first."
    ),
    "RUNTIME_DIRECTORY, XDG_RUNTIME_DIR": (
        "Where remote write keeps the newest samples in memory, so that none is lost if the program is killed; systemd "
        "sets the first. Without either it is a folder in /dev/shm."
    ),
    "CREDENTIALS_DIRECTORY": (
        "The folder of files that the configuration names without a folder: the credentials of a systemd unit."
    ),
    "http_proxy, https_proxy, no_proxy": "The proxy between this machine and the gateway.",
    "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID": "Set by systemd, which is notified of start, stop and progress.",
    "JOURNAL_STREAM": "Set by systemd; a log that goes to the journal has priorities instead of times.",
    "BLINKA_MCP2221, BLINKA_FT232H": 'Set to 1 for the USB adapter that bus = "board" stands for.',
    "PATH": "Where measure looks for its command.",
    "NO_COLOR, TERM, COLORTERM": "Whether watch uses colours, and which; on a dumb terminal it writes plain lines.",
    "LC_ALL, LC_CTYPE, LANG": "Whether watch draws with Unicode, or with ASCII in the C locale.",
}

SIGNALS = {
    "SIGTERM, SIGINT": "Shut down cleanly, within 2 s: push or save what was read, and close every mux channel.",
    "SIGHUP": (
        "Reload the configuration; if it is invalid, that is logged and the old one stays in force. Ends a watch. "
        "When the terminal of a run is closed: shut down."
    ),
    "Under measure": (
        "SIGTERM and SIGHUP are passed on to the command, and so is SIGINT, unless the terminal sends it to both. The "
        "program ends when the command does, after the last readings; another signal then ends the wait for those."
    ),
}

EXAMPLES = {
    "sudo wattpush init": "Write a configuration for what is connected.",
    "wattpush check": "Find every problem of the configuration.",
    "wattpush \\-\\-once \\-\\-dry\\-run": "Read every device once and print what would be pushed.",
    "wattpush watch": "Watch the devices while the service runs.",
    "wattpush watch | grep device=cpu": "Print the readings of one device as lines.",
    "wattpush \\-\\-simulate \\-\\-dry\\-run": "Try it without any hardware.",
    "wattpush measure \\-\\-runs 5 \\-\\- make": "Measure the energy of a command, five times.",
    "wattpush delete \\-\\-device fan": "Delete the group of a device that no longer exists.",
}


def parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The whole parser, and that of each command."""
    parser = build_parser()
    commands: dict[str, argparse.ArgumentParser] = {}
    for action in _actions(parser):
        if isinstance(action.choices, dict):
            commands = action.choices
    for one in (parser, *commands.values()):
        for action in _actions(one):
            if action.metavar == "FILE":
                vars(action)["complete"] = shtab.FILE
    return parser, commands


def bash_completion() -> str:
    text: str = shtab.complete(parsers()[0], "bash")
    without_files = "complete -o bashdefault -F"
    if without_files not in text:
        raise RuntimeError(f"shtab no longer writes {without_files!r}")
    # Where bash has no better completion it then completes file names, as after --trace cpu=.
    return _trimmed(text.replace(without_files, "complete -o bashdefault -o default -F"))


def zsh_completion() -> str:
    return _trimmed(shtab.complete(parsers()[0], "zsh"))


def manual_page() -> str:
    parser, commands = parsers()
    return "\n".join(_manual_lines(parser, commands)) + "\n"


def _manual_lines(parser: argparse.ArgumentParser, commands: dict[str, argparse.ArgumentParser]) -> Iterator[str]:
    yield '.\\" Made by scripts/command_line.py from the parser: change that, then `make generated`.'
    yield '.TH WATTPUSH 1 "" "wattpush" "User Commands"'
    yield from (".nh", ".ad l")  # no hyphenation and no justification, for the sake of options
    yield from (".SH NAME", "wattpush \\- measure power and push it to a Prometheus Pushgateway")
    yield ".SH SYNOPSIS"
    yield from _synopsis("wattpush", parser)
    for name, command in commands.items():
        yield ".br"
        yield from _synopsis(f"wattpush {name}", command)
        if operands := getattr(COMMANDS[name], "OPERANDS", ""):
            yield _roff(operands)
    yield from (".SH DESCRIPTION", _roff(" ".join((parser.description or "").split())))
    yield ".SH OPTIONS"
    for action in _options(parser):
        yield from _option(action)
    yield ".SH COMMANDS"
    common = {option for action in _options(parser) for option in action.option_strings}
    for name, command in commands.items():
        what = COMMANDS[name].HELP
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
            dots = " ..." if isinstance(action.default, list) else ""
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
    """Escape text for roff (groff_man(7)): a hyphen that may be copied into a shell must be a minus there."""
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
