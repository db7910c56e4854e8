"""A backlog on a disk of its own, whose writes are counted, and vmagent in the same outage on another one."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from agent.energy.state import RemoteCounters
from agent.history.backlog import Backlog
from agent.history.dating import Dating
from agent.history.samples import ABSENT, VALUE_BYTES
from agent.history.write_request import write_request
from bench.processes import stop
from bench.remote_frames import INTERVAL_SECONDS
from bench.servers import debian_binary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.simulate.clock import HandClock
    from bench.remote_frames import Rows

_SECTOR_BYTES = 512  # of /sys/block/*/stat, whatever the disk's own are; Linux, Documentation/block/stat.rst
_SECTORS_WRITTEN = 6
_DISK_BYTES = 256 << 20
_DAY_SECONDS = 86_400.0
_SETTLING_SECONDS = 8.0


class CannotMountError(Exception):
    """This user or machine cannot make a file system of its own."""


class Disk:
    """A mounted file system of its own, on a file.

    Attributes:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self.folder = folder
        self._stat = Path("/sys/block", device, "stat")

    def written_bytes(self) -> int:
        """What has reached the device so far, after everything that waits has been written."""
        subprocess.run(["sync", "--file-system", self.folder], check=True)
        return int(self._stat.read_text(encoding="ascii").split()[_SECTORS_WRITTEN]) * _SECTOR_BYTES


@contextlib.contextmanager
def mounted_disk(folder: Path) -> Iterator[Disk]:
    """An ext4 file system with journal, as an SD card has.

    Raises:
        CannotMountError: this user may not mount, or e2fsprogs are missing.
    """
    image, mounted = folder.with_suffix(".img"), folder
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(_DISK_BYTES)
    try:
        # Nothing may write in the background later.
        made_now = "lazy_itable_init=0,lazy_journal_init=0"
        subprocess.run(["mkfs.ext4", "-q", "-E", made_now, image], check=True)
        subprocess.run(["mount", "-o", "loop,noatime", image, mounted], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotMountError(f"needs root, loop devices and mkfs.ext4 ({error})") from error
    try:
        yield Disk(mounted, _device_of(mounted))
    finally:
        subprocess.run(["umount", mounted], check=True)
        image.unlink()


def _device_of(mounted: Path) -> str:
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        device, place, *_ = line.split(" ")
        if place == str(mounted):
            return Path(device).name
    raise FileNotFoundError(mounted)


@dataclass(slots=True)
class _HandTimebase:
    """Clocks that a simulation turns; the time is known."""

    clock: HandClock
    boot: str = "00000000-0000-0000-0000-000000000000"

    def since_boot(self) -> float:
        return self.clock.monotonic()

    def unix(self) -> float:
        return self.clock.time()

    def is_synchronised(self) -> bool:
        return True


def opened_backlog(folder: Path, clock: HandClock) -> Backlog:
    """A backlog with a clock that the caller turns."""
    return Backlog(
        folder,
        None,
        Dating(_HandTimebase(clock)),
        clock,
        max_bytes=1 << 30,
        max_age_seconds=30 * _DAY_SECONDS,
        saved=RemoteCounters(),
    )


def keep(rows: Sequence[Rows], backlog: Backlog, clock: HandClock) -> None:
    """Let an outage pass: add each interval at its time, and tend the backlog as often as it asks for."""
    tend_at = began = clock.monotonic()
    for number, one in enumerate(rows, start=1):
        due = began + number * INTERVAL_SECONDS
        while tend_at <= due:
            clock.sleep(max(tend_at - clock.monotonic(), 0.0))
            tend_at = clock.monotonic() + max(backlog.maintain(), 1.0)
        clock.sleep(due - clock.monotonic())
        shift = round(clock.monotonic() * 1000) - one.times_milliseconds[-1]
        backlog.add(one.table, tuple(at + shift for at in one.times_milliseconds), one.values)


def replay(backlog: Backlog) -> tuple[int, int]:
    """Read and encode all of it as if a server took it at once; return the samples and the bytes of the requests."""
    samples = size = 0
    while (frame := backlog.next()) is not None:
        backlog.about_to_send(frame)
        size += len(write_request(frame))
        samples += frame.samples
        backlog.settle(frame, accepted=frame.samples, refused=0)
    return samples, size


def vmagent_bytes_a_day(rows: Sequence[Rows], disk: Disk, seconds: float, folder: Path) -> float:
    """What vmagent writes when it scrapes the same values once a second and its server is away.

    Raises:
        MissingToolError: it is not installed.
    """
    with _exposed(rows) as target:
        config = folder / "vmagent.yml"
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            f"scrape_configs: [{{job_name: power, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n",
            encoding="utf-8",
        )
        command = [
            debian_binary("vmagent"),
            f"-promscrape.config={config}",
            "-remoteWrite.url=http://127.0.0.1:9/api/v1/write",  # nobody answers there
            f"-remoteWrite.tmpDataPath={disk.folder / 'vmagent'}",
            "-httpListenAddr=127.0.0.1:0",
            "-loggerLevel=FATAL",
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            time.sleep(_SETTLING_SECONDS)
            began, before = time.perf_counter(), disk.written_bytes()
            time.sleep(seconds)
            written = disk.written_bytes() - before
            if process.poll() is not None or not written:
                raise RuntimeError(f"vmagent wrote {written} bytes, exit code {process.poll()}")
            return written / (time.perf_counter() - began) * _DAY_SECONDS
        finally:
            stop(process)


@contextlib.contextmanager
def _exposed(rows: Sequence[Rows]) -> Iterator[int]:
    """The port of an exporter that shows the next row at every scrape."""
    texts = [text.encode() for one in rows for text in _expositions(one)]
    turn = iter(range(1 << 30))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = texts[next(turn) % len(texts)]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _expositions(rows: Rows) -> Iterator[str]:
    """Each row as the text of a scrape, without the labels that a scrape adds."""
    width = VALUE_BYTES * len(rows.table)
    for at in range(0, len(rows.values), width):
        lines = []
        for column, labels in enumerate(rows.table):
            value = rows.values[at + VALUE_BYTES * column : at + VALUE_BYTES * (column + 1)]
            if value != ABSENT:
                named = dict(labels)
                name = named.pop("__name__")
                del named["job"]
                inner = ",".join(f'{label}="{text}"' for label, text in named.items())
                lines.append(f"{name}{{{inner}}} {struct.unpack('<d', value)[0]!r}\n")
        yield "".join(lines)
