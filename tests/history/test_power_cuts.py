"""A power cut, as copies of the image of a mounted disk while a backlog is written to it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.history.backlogs import drained, numbers
from tests.history.killed_backlog import node_of, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CUTS = 20
IMAGE_BYTES = 16_000_000


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    mount = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, text=True, check=False)
    if mount.returncode != 0:
        pytest.skip(f"cannot mount an image: {mount.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


class Said:
    """What a writer has said so far."""

    def __init__(self, writer: subprocess.Popen[str]) -> None:
        self.numbers = {"added": 0, "synced": 0, "settled": 0}
        self._thread = threading.Thread(target=self._read, args=(writer,))
        self._thread.start()

    def _read(self, writer: subprocess.Popen[str]) -> None:
        assert writer.stdout is not None
        with writer.stdout as lines:
            for line in lines:
                word, number = line.split()
                self.numbers[word] = int(number)

    def join(self) -> None:
        self._thread.join()


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a disk")
@pytest.mark.reliability(
    12.04, "the power is cut while the backlog is written", "no gap, nothing that was synced is missing"
)
def test_a_power_cut_leaves_no_gap(tmp_path: Path, measured: Callable[[str], None]) -> None:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4: apt-get install e2fsprogs")
    chance = random.Random(4)
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    runtime = tmp_path / "run"
    runtime.mkdir()
    cuts: list[tuple[Path, dict[str, int]]] = []
    with mounted(image, tmp_path / "disk") as disk:
        writer = start(disk / "history", runtime, tmp_path / "server", 0, 4)
        said = Said(writer)
        try:
            while len(cuts) < CUTS:
                time.sleep(chance.uniform(0.05, 0.5))  # the moment of the cut
                writer.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WNOWAIT)
                copy = tmp_path / f"cut-{len(cuts)}.img"
                shutil.copyfile(image, copy)
                cuts.append((copy, dict(said.numbers)))
                writer.send_signal(signal.SIGCONT)
                assert writer.poll() is None
        finally:
            writer.kill()
            writer.wait()
            said.join()
    torn = 0
    for copy, numbers_said in cuts:
        with mounted(copy, tmp_path / "copy") as disk:
            before = sum(path.stat().st_size for path in (disk / "history").glob("*.v1"))
            node = node_of(disk / "history", None, 200_000)
            node.dating.boot = "boot-2"
            backlog = node.open()
            after = sum(path.stat().st_size for path in (disk / "history").glob("*.v1"))
            torn += after < before
            left = numbers(drained(backlog))
            backlog.close()
        # Nothing is missing that was synced and not settled; what was settled may come again.
        assert left == list(range(left[0], left[-1] + 1)) if left else True
        if numbers_said["synced"] > numbers_said["settled"]:
            assert left
            assert left[0] <= numbers_said["settled"]
            assert left[-1] + 1 >= numbers_said["synced"]
    measured(f"{CUTS} power cuts: no gap, nothing synced is missing")
