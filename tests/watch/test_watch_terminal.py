"""The table in a real terminal: its screens, byte for byte, and the terminal afterwards."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import pytest

from tests.run.running import GOLDEN, until
from tests.watch.terminal import UTF8, Terminal, terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|9[0-7])(?:;[0-9;]*)?m")
LAST_SECOND_OF_MIXED = "at 22:32:30"
LAST_SECOND_OF_MANY = "at 22:30:05"


@pytest.fixture
def tmux() -> Iterator[Terminal]:
    with terminal() as running:
        yield running


def stage(scene: str) -> str:
    return f'trap : INT; "$python" -m tests.watch.staged {scene}; echo "ended with $?"; read -r _'


def assert_golden(running: Terminal, name: str, last_second: str, request: pytest.FixtureRequest) -> None:
    path = GOLDEN / name
    if request.config.getoption("--update-golden", default=False):
        running.shows(last_second)
        # Only when golden files are updated by hand: wait until the last frame is complete.
        threading.Event().wait(3)
        path.write_text(running.screen(), encoding="utf-8")
    running.comes_to_show(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
def test_the_screen_of_mixed_devices_matches_the_golden_file(
    tmux: Terminal, width: int, height: int, request: pytest.FixtureRequest
) -> None:
    tmux.start(stage("mixed"), width, height)
    assert_golden(tmux, f"watch_mixed_{width}x{height}.txt", LAST_SECOND_OF_MIXED, request)


def test_devices_that_do_not_fit_are_counted_instead_of_scrolled(
    tmux: Terminal, request: pytest.FixtureRequest
) -> None:
    tmux.start(stage("many"), 80, 24)
    assert_golden(tmux, "watch_many_80x24.txt", LAST_SECOND_OF_MANY, request)


def test_a_terminal_without_unicode_gets_ascii_bars(tmux: Terminal, request: pytest.FixtureRequest) -> None:
    tmux.start(stage("mixed"), 80, 24, {**UTF8, "LC_ALL": "C"})
    assert_golden(tmux, "watch_mixed_80x24_ascii.txt", LAST_SECOND_OF_MIXED, request)
    assert tmux.screen().isascii()


def test_a_resize_redraws_at_once(tmux: Terminal) -> None:
    """The clock of the scene has stopped when the size changes, so no sweep causes the redraw."""
    tmux.start(stage("mixed"), 200, 50)
    tmux.shows(LAST_SECOND_OF_MIXED)
    tmux.resize(80, 24)
    tmux.comes_to_show((GOLDEN / "watch_mixed_80x24.txt").read_text(encoding="utf-8"))
    tmux.resize(200, 50)
    tmux.comes_to_show((GOLDEN / "watch_mixed_200x50.txt").read_text(encoding="utf-8"))


def test_a_tiny_terminal_shows_the_first_devices_watts(tmux: Terminal) -> None:
    tmux.start(stage("many"), 24, 8)  # ends before another page takes its turn
    until(lambda: re.search(r"^rail-00 .*W$", tmux.screen(), re.MULTILINE), "the watts of the first device")
    assert all(len(line) <= 24 for line in tmux.screen().splitlines())


def test_a_colour_terminal_gets_colour(tmux: Terminal) -> None:
    tmux.start(stage("mixed"), 80, 24)
    tmux.shows(LAST_SECOND_OF_MIXED)
    assert COLOUR.search(tmux.escapes())


def test_no_color_turns_colour_off(tmux: Terminal) -> None:
    tmux.start(stage("mixed"), 80, 24, {**UTF8, "NO_COLOR": "1"})
    tmux.shows(LAST_SECOND_OF_MIXED)
    assert not COLOUR.search(tmux.escapes())


def test_ctrl_c_restores_the_terminal(tmux: Terminal) -> None:
    tmux.start(f"echo before; {stage('mixed')}", 80, 24)
    tmux.shows(LAST_SECOND_OF_MIXED)
    assert not tmux.is_restored()
    tmux.press("C-c")
    assert tmux.shows("ended with 0") == "before\nended with 0\n"
    assert tmux.is_restored()


def test_ctrl_z_restores_the_terminal_and_fg_continues(tmux: Terminal) -> None:
    script = '"$python" -m tests.watch.staged mixed; echo "status $?"; read -r _; fg; echo "ended with $?"; read -r _'
    tmux.start(f"set -m; {script}", 80, 24)
    tmux.shows(LAST_SECOND_OF_MIXED)
    tmux.press("C-z")
    tmux.shows("status 148")  # 128 + SIGTSTP
    assert tmux.is_restored()
    tmux.press("Enter")
    tmux.shows(LAST_SECOND_OF_MIXED)
    assert not tmux.is_restored()
    tmux.press("C-c")
    tmux.shows("ended with 0")
    assert tmux.is_restored()


def test_typed_keys_do_not_stay_on_the_screen(tmux: Terminal) -> None:
    tmux.start(stage("many"), 80, 24)
    expected = (GOLDEN / "watch_many_80x24.txt").read_text(encoding="utf-8")
    tmux.comes_to_show(expected)
    tmux.press("j", "k", "Enter")
    tmux.resize(81, 24)  # the clock of the scene has stopped: the resize causes a redraw
    until(lambda: "jk" not in tmux.screen(), "the table without what was typed")
