"""What history costs a node: beside the same agent without it, on file systems whose writes are counted in sectors."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.history.engines import VictoriaMetrics
from tests.run.running import Program, until, write_config
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DAY_SECONDS = 86_400.0
INTERVAL_SECONDS = 15.0
MEASURED_SECONDS = 240.0
"""Some frames of a minute each."""

DEVICES = tuple(f"d{number}" for number in range(8))


@dataclass(frozen=True, slots=True)
class Disk:
    """An ext4 of its own, in a file."""

    folder: Path
    loop: str

    def sectors_written(self) -> int:
        """Since it was attached, with everything written back that waits."""
        subprocess.run(["sync", "--file-system", str(self.folder)], check=True)
        return int(Path("/sys/block", self.loop, "stat").read_text(encoding="ascii").split()[6])


@contextlib.contextmanager
def counted_disk(folder: Path) -> Iterator[Disk]:
    """Mount it; skipped where that is not possible."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root, mkfs.ext4 and a loop device")
    folder.mkdir()
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(64_000_000)
    # Without lazy initialisation the kernel writes nothing of its own.
    options = ("-E", "lazy_itable_init=0,lazy_journal_init=0")
    subprocess.run(["mkfs.ext4", "-q", *options, str(image)], check=True)
    attached = subprocess.run(["losetup", "--find", "--show", str(image)], check=False, capture_output=True, text=True)
    if attached.returncode != 0:
        pytest.skip(f"needs a loop device: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    try:
        subprocess.run(["mount", "-o", "noatime", device, str(folder)], check=True)
        try:
            yield Disk(folder, device.removeprefix("/dev/"))
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@dataclass(frozen=True, slots=True)
class Use:
    """Of an agent so far: CPU time, memory that it shares with no other process, sectors written."""

    cpu_seconds: float
    megabytes: float
    sectors: int

    @classmethod
    def of(cls, program: Program, disk: Disk) -> Use:
        """At this moment."""
        process = Path("/proc", str(program.process.pid))
        fields = (process / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
        lines = (process / "smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
        sizes = {line.split()[0]: line.split()[1] for line in lines}
        ticks = int(fields[11]) + int(fields[12])
        private = int(sizes["Private_Clean:"]) + int(sizes["Private_Dirty:"])
        return cls(ticks / os.sysconf("SC_CLK_TCK"), private / 1024, disk.sectors_written())


@pytest.mark.long
@pytest.mark.reliability(
    12.10,
    "History to a server that answers, and to one that is away, beside the same agent without history",
    "it takes little of the disk, the memory and the processor",
)
def test_history_is_cheap(tmp_path: Path, pushgateway_url: str, measured: Callable[[str], None]) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(VictoriaMetrics(tmp_path / "server"))
        urls = {"without": None, "answers": server.write_url, "away": f"http://127.0.0.1:{free_port()}/api/v1/write"}
        runs: dict[str, tuple[Program, Disk]] = {}
        for name, url in urls.items():
            disk = stack.enter_context(counted_disk(tmp_path / name))
            runtime = tmp_path / f"{name}-runtime"
            runtime.mkdir(mode=0o700)
            # All three push as well: that is the main way.
            more = "" if url is None else f'[remote_write]\nurl = "{url}"\nclock = "system"\n'
            config = write_config(
                disk.folder,
                pushgateway_url,
                name,
                top=f'interval = "{INTERVAL_SECONDS:.0f}s"',
                devices=DEVICES,
                more=more,
            )
            # As in deploy/systemd/wattpush.service.
            environ = {**os.environ, "RUNTIME_DIRECTORY": str(runtime), "MALLOC_ARENA_MAX": "1"}
            program = Program("--config", config, "--simulate", environ=environ)
            stack.callback(program.close)
            runs[name] = program, disk
        until(lambda: server.samples('{job="power"}'), "the first samples arrive")
        # In the first minutes it is not yet what it will be: imports, first folders.
        threading.Event().wait(75.0)
        before = {name: Use.of(*run) for name, run in runs.items()}
        threading.Event().wait(MEASURED_SECONDS)
        after = {name: Use.of(*run) for name, run in runs.items()}
    days = DAY_SECONDS / MEASURED_SECONDS
    megabytes_a_day = {name: (after[name].sectors - before[name].sectors) * 512 * days / 1e6 for name in runs}
    cores = {name: (after[name].cpu_seconds - before[name].cpu_seconds) / MEASURED_SECONDS for name in runs}
    megabytes = {name: use.megabytes for name, use in after.items()}
    found = (megabytes_a_day, cores, megabytes)
    assert megabytes_a_day["without"] > 1.0, found  # the counters: sectors are counted at all
    # The file system writes some of what is saved before or after the time that is measured.
    two_saves = megabytes_a_day["without"] * 2 * INTERVAL_SECONDS / MEASURED_SECONDS
    assert megabytes_a_day["answers"] - megabytes_a_day["without"] <= 1.0 + two_saves, found
    assert megabytes_a_day["away"] - megabytes_a_day["without"] <= 35.0, found
    for name in ("answers", "away"):
        assert megabytes[name] - megabytes["without"] <= 3.0, found
        # On a busy machine the same work takes more time, also without history.
        assert cores[name] - cores["without"] <= max(0.001, 0.5 * cores["without"]), found
    measured("1 MB a day on the disk, 35 MB in an outage, 3 MB of memory, 0.1 % of a core, at most")
