"""Nothing is dated before the clock is known to be right, and once it was, only a step takes that away."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.history.dating import Dating, SystemTimebase, adjtimex_reader, system_timebase

if TYPE_CHECKING:
    from collections.abc import Callable

ADJTIMEX = {"x86_64": 159, "aarch64": 171}
"""The number of the system call; source: the kernel's syscall_64.tbl and include/uapi/asm-generic/unistd.h."""

NOW = 1_800_000_000.0
HOUR = 3600.0
DAY = 24 * HOUR


@dataclass
class HandTimebase:
    """Clocks that a test moves: `true` is the right time, and `wrong_by` what the clock is ahead of it."""

    boot: str = "boot-1"
    true: float = NOW
    booted_at: float = NOW - 10
    wrong_by: float = 0.0
    synchronised: bool = False
    pauses: list[float] = field(default_factory=list)
    """Pauses of the process, after each of the next readings of the time since boot."""

    def since_boot(self) -> float:
        seconds = self.true - self.booted_at
        if self.pauses:
            self.true += self.pauses.pop(0)
        return seconds

    def unix(self) -> float:
        return self.true + self.wrong_by

    def is_synchronised(self) -> bool:
        return self.synchronised

    def synchronise(self) -> None:
        """The time daemon sets the clock, and says so."""
        self.wrong_by = 0.0
        self.synchronised = True


def date_of(dating: Dating, row_milliseconds: int) -> float | None:
    """Unix time of a row, in seconds."""
    offset = dating.offset_milliseconds()
    return None if offset is None else (row_milliseconds + offset) / 1000


@pytest.mark.reliability(
    12.06,
    "boots at 1970, at last month (a saved clock) and a year ahead, synchronised later",
    "no sample has a date before the clock is synchronised; then all have the right one",
)
@pytest.mark.parametrize(
    "wrong_by",
    [pytest.param(-NOW, id="1970"), pytest.param(-31 * DAY, id="last month"), pytest.param(365 * DAY, id="next year")],
)
def test_rows_of_a_wrong_clock_get_their_true_dates_later(wrong_by: float, measured: Callable[[str], None]) -> None:
    base = HandTimebase(wrong_by=wrong_by)
    dating = Dating(base)
    rows = []
    for _ in range(240):
        base.true += 15
        rows.append((dating.now_milliseconds(), base.true))
        assert dating.offset_milliseconds() is None

    base.synchronise()

    errors = [abs((date_of(dating, row) or 0) - true) for row, true in rows]
    assert max(errors) <= 0.001
    measured("240 rows of an hour: none dated before, all within 1 ms after")


def test_days_without_a_network_leave_the_clock_known() -> None:
    base = HandTimebase(synchronised=True)
    dating = Dating(base)
    assert dating.offset_milliseconds() is not None

    base.synchronised = False  # the kernel sets STA_UNSYNC some nine hours after the last correction
    for _ in range(10 * 24):
        base.true += HOUR
        base.wrong_by += HOUR * 100e-6  # a bad crystal: 8.6 s a day
        assert date_of(dating, dating.now_milliseconds()) == pytest.approx(base.unix(), abs=0.001)
    assert dating.why_unknown() == ""


@pytest.mark.parametrize("step_seconds", [HOUR, -HOUR, 6.0, -6.0, 365 * DAY])
def test_a_step_without_a_time_server_ends_knowledge(step_seconds: float) -> None:
    base = HandTimebase(synchronised=True)
    dating = Dating(base)
    dating.offset_milliseconds()
    base.synchronised = False
    base.true += 60
    assert dating.offset_milliseconds() is not None

    base.wrong_by = step_seconds

    assert dating.offset_milliseconds() is None
    direction = "forward" if step_seconds > 0 else "back"
    assert f"was set {direction} by {abs(step_seconds):.0f} s" in dating.why_unknown()
    # The longer ago the last synchronisation, the more drift is believed: the step must not become drift one day.
    base.true += 1000 * DAY
    assert dating.offset_milliseconds() is None
    base.synchronise()
    assert date_of(dating, dating.now_milliseconds()) == pytest.approx(base.true, abs=0.001)


def test_small_corrections_without_a_time_server_are_believed() -> None:
    base = HandTimebase(synchronised=True)
    dating = Dating(base)
    dating.offset_milliseconds()
    base.synchronised = False

    base.wrong_by = -3.0

    assert date_of(dating, dating.now_milliseconds()) == pytest.approx(base.unix(), abs=0.001)


@pytest.mark.parametrize("step_seconds", [-3.0, -HOUR, HOUR])
def test_a_step_by_a_time_server_gives_a_new_offset(step_seconds: float) -> None:
    base = HandTimebase(synchronised=True, wrong_by=-step_seconds)
    dating = Dating(base)
    before = dating.offset_milliseconds()

    base.wrong_by = 0.0

    after = dating.offset_milliseconds()
    assert before is not None
    assert after == pytest.approx(before + 1000 * step_seconds, abs=1)


def test_a_pause_between_two_readings_is_no_step() -> None:
    base = HandTimebase(synchronised=True)
    dating = Dating(base)
    dating.offset_milliseconds()
    base.synchronised = False

    row, true = dating.now_milliseconds(), base.true

    base.pauses = [60.0, 0.0, HOUR, 0.0]  # SIGSTOP, a hypervisor, or a suspended machine

    assert date_of(dating, row) == pytest.approx(true, abs=0.001)
    assert dating.why_unknown() == ""


def test_a_machine_that_always_pauses_is_not_dated() -> None:
    base = HandTimebase(synchronised=True, pauses=[1.0] * 100)

    assert Dating(base).offset_milliseconds() is None


def test_a_trusted_clock_is_known_from_the_start() -> None:
    base = HandTimebase(wrong_by=-DAY)
    dating = Dating(base, trusts_clock=True)

    assert date_of(dating, dating.now_milliseconds()) == pytest.approx(base.unix(), abs=0.001)
    base.wrong_by = DAY
    assert date_of(dating, dating.now_milliseconds()) == pytest.approx(base.unix(), abs=0.001)


def test_an_unknown_clock_tells_what_to_do() -> None:
    why = Dating(HandTimebase()).why_unknown()

    assert "not been synchronised since boot" in why
    assert 'clock = "system"' in why


def refused() -> bool:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_forbidden_question_names_the_unit_and_the_key(tmp_path: Path) -> None:
    dating = Dating(SystemTimebase(tmp_path / "synchronized", refused))

    assert dating.offset_milliseconds() is None
    assert "adjtimex: Operation not permitted" in dating.why_unknown()
    assert "ProtectClock=no" in dating.why_unknown()
    assert 'clock = "system"' in dating.why_unknown()


def test_timesyncd_is_enough_where_adjtimex_is_forbidden(tmp_path: Path) -> None:
    file = tmp_path / "synchronized"
    dating = Dating(SystemTimebase(file, refused))
    assert dating.offset_milliseconds() is None

    file.touch()

    assert dating.offset_milliseconds() is not None
    assert dating.offset_milliseconds() is not None


def test_each_adjustment_of_timesyncd_counts_once(tmp_path: Path) -> None:
    """Else a clock that is set by hand later would still be called synchronised."""
    file = tmp_path / "synchronized"
    file.touch()
    base = SystemTimebase(file, lambda: False)

    assert [base.is_synchronised(), base.is_synchronised()] == [True, False]
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))
    assert [base.is_synchronised(), base.is_synchronised()] == [True, False]


@pytest.mark.parametrize("age_seconds", [-HOUR, 20 * 365 * DAY])
def test_a_file_of_another_time_proves_nothing(tmp_path: Path, age_seconds: float) -> None:
    file = tmp_path / "synchronized"
    file.touch()
    base = SystemTimebase(file, lambda: False)
    written = base.unix() - age_seconds
    os.utime(file, (written, written))

    assert not base.is_synchronised()


@pytest.mark.skipif(platform.machine() not in ADJTIMEX, reason="needs the number of the system call")
def test_the_answer_is_that_of_the_system_call() -> None:
    """By the bytes of its struct timex on 64 bits, without the C library's idea of it."""
    buffer = bytearray(512)
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.syscall(ADJTIMEX[platform.machine()], (ctypes.c_char * 512).from_buffer(buffer))
    if state < 0:
        with pytest.raises(OSError, match=os.strerror(ctypes.get_errno())):
            adjtimex_reader()()
        return
    (status,) = struct.unpack_from("=i", buffer, 40)

    assert adjtimex_reader()() == (state, status)
    assert system_timebase(Path("/no such file")).is_synchronised() == (not status & 0x40 and state != 5)


def test_the_clocks_of_this_machine_are_read() -> None:
    base = system_timebase()
    before = base.since_boot()

    dating = Dating(base, trusts_clock=True)

    offset = dating.offset_milliseconds()
    assert offset is not None
    assert dating.now_milliseconds() >= 1000 * before - 1
    assert (offset + dating.now_milliseconds()) / 1000 == pytest.approx(base.unix(), abs=1)
    assert dating.boot == base.boot != ""
