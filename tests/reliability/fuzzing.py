"""Damaged files, given to the real command line in worker processes, each with a time limit."""

from __future__ import annotations

import contextlib
import gzip
import io
import multiprocessing
import os
import random
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

# Set before any driver is imported, so that Blinka needs no GPIO library and looks for no board.
os.environ["BLINKA_FORCEBOARD"] = "GENERIC_LINUX_PC"
os.environ["BLINKA_FORCECHIP"] = "GENERIC_X86"

from agent import cli
from agent.clock import SystemClock
from agent.commands import load_settings
from agent.energy.state import State
from agent.run.assembly import RunOptions, make_sweep

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from agent.settings import Settings

PROJECT = Path(__file__).parents[2]
TIME_LIMIT_SECONDS = 60.0
"""A file that takes longer than this has made the program hang, even on a busy machine."""

_PLAY_EVERY = 100
"""Only one recording in this many is played: playing takes real time, and the risk lies in reading."""

_TOKENS = (
    *(
        b"=",
        b'"',
        b"'",
        b"[",
        b"]]",
        b"{",
        b"}",
        b"#",
        b"\\",
        b".",
        b",",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
    ),
    *(b"nan", b"inf", b"-1", b"0", b"1e999", b"9" * 400, b"0x40", b"true", b"1979-05-27", b'"""', b"''", b"[[device]]"),
    *("\u2028".encode(), b"\x1b[2J", b"../..", b"~", b"[" * 2000, b"a." * 2000, b"1_0", b"%s", b"9:99"),
)

CONFIG = """\
hostname = "node-17"
[pushgateway]
url = "http://127.0.0.1:9"
[[device]]
name = "cpu"
chip = "ina260"
bus = 1
address = 0x40
averaging = { count = 1, voltage = "140us", current = "140us" }
"""

OTHER_DEVICE = """\
[[device]]
name = "other"
chip = "ina260"
bus = 1
address = 0x41
"""


class Hang(BaseException):
    """A file took longer than its time limit. No handler in the program catches this."""


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The bytes after one to four mutations: flipped bits; lost, doubled, moved and foreign pieces."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        here = chance.randrange(len(changed) + 1)
        there = min(len(changed), here + int(chance.expovariate(1 / 20)))
        match chance.randrange(7):
            case 0 if here < len(changed):
                changed[here] ^= 1 << chance.randrange(8)
            case 1:
                del changed[here:there]
            case 2:
                changed[here:here] = changed[here:there]
            case 3:
                piece = changed[here:there]
                del changed[here:there]
                at = chance.randrange(len(changed) + 1)
                changed[at:at] = piece
            case 4:
                changed[here:there] = chance.randbytes(there - here)
            case 5:
                changed[here:there] = chance.choice(_TOKENS)
            case 6 if chance.random() < 0.1:
                del changed[here:]
    return bytes(changed)


def configurations() -> list[bytes]:
    """The example, the example with every line in force, and the small one of this module."""
    lines = (PROJECT / "config.toml.example").read_text(encoding="utf-8").splitlines(keepends=True)
    keys = "".join(line for line in lines if not line.startswith(("# ", "\n")))
    in_force = "".join(line.removeprefix("#") for line in keys.splitlines(keepends=True))
    return [keys.encode(), in_force.encode(), CONFIG.encode()]


def recordings() -> list[bytes]:
    """Short ones, so that a mutation hits the header as often as the rows."""
    rows = [f"{number * 0.5},{5 + number % 7 * 0.008:.3f},{(number % 11 - 2) * 0.008:.3f}\n" for number in range(120)]
    return [("seconds,volts,amperes\n" + "".join(rows[:count])).encode() for count in (6, 20, 120)]


def _answer(arguments: list[str]) -> tuple[int | str, str]:
    """The exit code, or the exception instead, and the text on stderr."""
    output = io.StringIO()
    limit = signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT_SECONDS)
    assert limit == (0.0, 0.0)
    try:
        with contextlib.redirect_stderr(output):
            return cli.main(arguments), output.getvalue()
    except (Hang, Exception) as error:  # noqa: BLE001 - the test looks for exceptions of any kind
        return f"{type(error).__name__}: {error}", output.getvalue()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _complaint(answer: int | str, output: str) -> str | None:
    if answer not in (0, 78):
        return f"ended in {answer}: {output[-400:]}"
    if "Traceback" in output:
        return f"a traceback: {output[-400:]}"
    if answer == 78 and not output.strip():
        return "ended in 78 without a message"
    return None


def _simulate(settings: Settings) -> None:
    """What `--simulate` does first: a valid configuration can be built and read."""
    with contextlib.ExitStack() as stack:
        assert make_sweep(settings, RunOptions(is_simulated=True), SystemClock(), stack, State()).run()


def check_configuration(data: bytes, folder: Path, chance: random.Random) -> tuple[int | str, str | None]:
    """`wattpush check`; a configuration that passes can be simulated, too."""
    file = folder / "fuzzed.toml"
    file.write_bytes(mutated(data, chance))
    answer, output = _answer(["check", "--config", str(file)])
    complaint = _complaint(answer, output)
    if complaint is None and answer == 0 and chance.random() < 0.2:
        try:
            _simulate(load_settings(cli.build_parser().parse_args(["check", "--config", str(file)])))
        except Exception as error:  # noqa: BLE001 - as in _answer
            complaint = f"passed the check and cannot be simulated: {type(error).__name__}: {error}"
    return answer, complaint


def check_recording(data: bytes, folder: Path, chance: random.Random) -> tuple[int | str, str | None]:
    """`--trace`: some recordings are played; the others are only read, because a second one is bad."""
    match chance.randrange(3):
        case 0:
            file, data = folder / "fuzzed.csv.gz", mutated(gzip.compress(data, 1), chance)
        case 1:
            file, data = folder / "fuzzed.csv.gz", gzip.compress(mutated(data, chance), 1)
        case _:
            file, data = folder / "fuzzed.csv", mutated(data, chance)
    file.write_bytes(data)
    arguments = ["--config", str(folder / "config.toml"), "--trace", f"cpu={file}", "--log-level", "error"]
    if chance.randrange(_PLAY_EVERY) == 0:
        answer, output = _answer([*arguments, "--once", "--dry-run"])
        return answer, _complaint(answer, output)
    # If it is the second that is refused, the first one was read and is valid.
    bad = folder / "bad.csv"
    answer, output = _answer([*arguments, "--once", "--dry-run", "--trace", f"other={bad}"])
    if answer == 78 and str(bad) in output:
        return 0, None
    return answer, _complaint(answer, output)


def _work(kind: str, seed: int, count: int, folder: Path) -> tuple[Counter[int | str], list[str]]:
    """Try some of the files in a separate process: the exit codes, and the complaints with the files' bytes."""

    def hang(number: int, frame: FrameType | None) -> None:
        raise Hang(f"took longer than {TIME_LIMIT_SECONDS:g} s")

    signal.signal(signal.SIGALRM, hang)
    own = folder / f"{kind}-{seed}"
    own.mkdir()
    (own / "config.toml").write_text(f'state_dir = "{own}"\n' + CONFIG + OTHER_DEVICE)
    (own / "bad.csv").write_bytes(b"no recording\n")
    # `--dry-run` writes to the file descriptor, not to sys.stdout.
    stdout, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    chance = random.Random(seed)
    codes: Counter[int | str] = Counter()
    wrong: list[str] = []
    try:
        sources = configurations() if kind == "configuration" else recordings()
        check = check_configuration if kind == "configuration" else check_recording
        while codes.total() < count and not wrong:
            answer, complaint = check(chance.choice(sources), own, chance)
            codes[answer] += 1
            if complaint is not None:
                files = {path.name: path.read_bytes()[:2000] for path in own.glob("fuzzed*")}
                wrong.append(f"{complaint}\n{files}")
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(nowhere)
    return codes, wrong


def fuzz(kind: str, count: int, folder: Path) -> tuple[Counter[int | str], list[str]]:
    """Try `count` mutated files of a kind in two processes: the exit codes, and the complaints."""
    chunks = 2 if count < 10_000 else 20
    processes = multiprocessing.get_context("forkserver")
    work: Callable[[int], tuple[Counter[int | str], list[str]]] = partial(
        _work, kind, count=count // chunks, folder=folder
    )
    with processes.Pool(2) as pool:
        parts = pool.map(work, range(chunks), chunksize=1)
    codes: Counter[int | str] = Counter()
    wrong: list[str] = []
    for part_codes, part_wrong in parts:
        codes += part_codes
        wrong += part_wrong
    return codes, wrong
