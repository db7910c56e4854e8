"""Thousands of damaged files through the command line: each is refused with its problem, or works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.reliability.fuzzing import fuzz

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.long)])
LONG = 10_000


@FILES
@pytest.mark.reliability(18, "damaged configuration files", "exit code 78 with all problems, or 0; none hangs")
def test_no_damaged_configuration_causes_a_traceback_or_a_hang(
    count: int, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    assert_refused_or_used("configuration", count, tmp_path, measured)


@FILES
@pytest.mark.reliability(
    18.1, "damaged recordings, plain and compressed", "exit code 78 with the line number, or it plays"
)
def test_no_damaged_recording_causes_a_traceback_or_a_hang(
    count: int, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    assert_refused_or_used("recording", count, tmp_path, measured)


def assert_refused_or_used(kind: str, count: int, folder: Path, measured: Callable[[str], None]) -> None:
    codes, wrong = fuzz(kind, count, folder)
    assert not wrong, "\n\n".join(wrong[:5])
    assert codes.total() == count
    assert set(codes) == {0, 78}
    assert min(codes.values()) > count / 100, codes
    if count > LONG:
        measured(f"{count:,} mutated files: no traceback, no hang, no other exit code")
