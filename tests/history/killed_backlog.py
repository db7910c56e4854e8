"""A process that fills and drains a backlog without a pause, says how far it came, and can be killed at any moment.

Run as `python -m tests.history.killed_backlog FOLDER RUNTIME SERVER FIRST SEED`; it prints `added N`, `synced N` and
`settled N`, where N is the number after that of the last sample.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.history.backlogs import TABLE, Node, numbers

if TYPE_CHECKING:
    from agent.history.samples import Frame

PROJECT = Path(__file__).parents[2]


def node_of(folder: Path, runtime: Path | None, first: int) -> Node:
    """The node whose next sample has this number; its clocks never go back."""
    node = Node(folder, runtime, produced=first)
    node.dating.now += first * 1000
    return node


def start(folder: Path, runtime: Path, server: Path, first: int, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", __name__, str(folder), str(runtime), str(server), str(first), str(seed)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)


def line_of(frame: Frame) -> bytes:
    assert frame.table == TABLE
    assert frame.offset_milliseconds is not None
    times = [time + frame.offset_milliseconds for time in frame.times_milliseconds]
    return json.dumps([times, numbers([frame])]).encode() + b"\n"


def stored(server: Path) -> list[int]:
    """The numbers of the samples that a server holds after these requests; the same request again changes nothing."""
    held: dict[int, list[int]] = {}
    for line in server.read_text().splitlines():
        times, values = json.loads(line)
        for row, time in enumerate(times):
            of_row = values[row * len(TABLE) : (row + 1) * len(TABLE)]
            assert held.get(time, of_row) == of_row, "another value for a sample that is stored"
            assert time in held or time > max(held, default=0), "out of order"
            held[time] = of_row
    return [number for row in held.values() for number in row]


def run(folder: Path, runtime: Path, server: Path, first: int, seed: int) -> None:
    chance = random.Random(seed)
    node = node_of(folder, runtime, first)
    backlog = node.open()
    log = os.open(server, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    while True:
        node.add(backlog, chance.randint(1, 20))
        _say("added", node.produced)
        node.pass_seconds(chance.choice((0, 0, 60)))
        backlog.maintain()
        if backlog._memory.start is None:
            _say("synced", node.produced)
        for _ in range(chance.choice((0, 0, 0, 3))):
            frame = backlog.next()
            if frame is not None:
                backlog.about_to_send(frame)
                os.write(log, line_of(frame))
                backlog.settle(frame, accepted=frame.samples, refused=0)
                _say("settled", numbers([frame])[-1] + 1)


def _say(word: str, number: int) -> None:
    os.write(1, f"{word} {number}\n".encode())


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
