"""The table in a real terminal: its screens, byte for byte, and the terminal afterwards."""

from __future__ import annotations

import os
import re
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from tests.run.running import GOLDEN, until
from tests.watch.terminal import UTF8, Terminal

if TYPE_CHECKING:
    from pathlib import Path

COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|9[0-7])(?:;[0-9;]*)?m")
LAST_SECOND_OF_MIXED = "at 22:32:30"
LAST_SECOND_OF_MANY = "at 22:30:05"


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


SUMMARY = """\
watched 2 min 30 s (SIMULATED): cpu 775.8 J, accelerator 2.319 kJ,
  radio 2.927 J, battery 7.324 J, fan not measured, disk 256.0 J in 2 min 8 s,
  a name that is far too long for its column 1.862 J, total 3.363 kJ
"""
KEEPS_MODE = 'mode=$(stty -g); {}; [ "$mode" = "$(stty -g)" ] && echo "mode is as before"; read -r _'


def with_mode(command: str) -> str:
    """The command, then whether it has left the mode of the terminal as it was."""
    return KEEPS_MODE.format(command)


def ending(scene: str) -> str:
    return with_mode(f'trap : INT TERM; "$python" -m tests.watch.staged {scene}; echo "ended with $?"')


@pytest.mark.parametrize("key", ["q", "Q", "C-d", "C-c"])
def test_a_key_ends_it_and_leaves_the_energy_on_the_screen(tmux: Terminal, key: str) -> None:
    tmux.start(f"echo before; {ending('mixed')}", 80, 24)
    tmux.shows(LAST_SECOND_OF_MIXED)
    assert not tmux.is_restored()
    tmux.press(key)
    assert tmux.shows("mode is as before") == f"before\n{SUMMARY}ended with 0\nmode is as before\n"
    assert tmux.is_restored()


def test_sigterm_restores_the_terminal(tmux: Terminal) -> None:
    tmux.start(ending("mixed"), 80, 24)
    tmux.shows(LAST_SECOND_OF_MIXED)
    os.kill(tmux.process(), signal.SIGTERM)
    assert SUMMARY in tmux.shows("mode is as before")
    assert tmux.is_restored()


def test_an_internal_error_restores_the_terminal(tmux: Terminal) -> None:
    tmux.start(ending("crash"), 80, 24)
    screen = tmux.shows("mode is as before")
    assert "RuntimeError: as staged" in screen
    assert "watched" not in screen
    assert tmux.is_restored()


def test_arrow_keys_do_not_end_it(tmux: Terminal) -> None:
    tmux.start(ending("mixed"), 80, 24)
    tmux.shows(LAST_SECOND_OF_MIXED)
    tmux.press("Up", "M-q", "F1", "x", "Enter")
    tmux.resize(81, 24)  # ends a wait, so the keys have been read
    until(lambda: "battery" in tmux.screen() and not tmux.is_restored(), "the table")
    tmux.press("q")
    tmux.shows("ended with 0")


def test_q_restores_a_terminal_whose_output_is_stopped(tmux: Terminal) -> None:
    tmux.start(ending("mixed"), 80, 24)
    tmux.shows(LAST_SECOND_OF_MIXED)
    tmux.press("C-s", "q")
    assert SUMMARY in tmux.shows("mode is as before")
    assert tmux.is_restored()


def test_without_a_keyboard_ctrl_c_ends_it(tmux: Terminal) -> None:
    tmux.start('trap : INT; "$python" -m tests.watch.staged many </dev/null; echo "ended with $?"; read -r _', 80, 24)
    assert tmux.shows(LAST_SECOND_OF_MANY).splitlines()[-1].startswith("Ctrl-C ends. ")
    tmux.press("q", "C-c")
    tmux.shows("ended with 0")


@pytest.mark.parametrize("tostop", ["stty tostop; ", ""], ids=["tostop", "usual"])
def test_a_background_job_leaves_the_terminal_to_the_shell(tmux: Terminal, tmp_path: Path, tostop: str) -> None:
    job = '"$python" -m tests.watch.staged mixed & read -r _; jobs; fg; echo "ended with $?"'
    last_sweep = tmp_path / "last sweep"
    tmux.start(f"set -m; {tostop}echo begin; {with_mode(job)}", 80, 24, {**UTF8, "LAST_SWEEP": str(last_sweep)})
    until(last_sweep.exists, "the last sweep")
    assert tmux.screen().splitlines()[0] == "begin", "nothing is drawn"
    assert tmux.is_restored()
    tmux.press("Enter")
    tmux.shows(LAST_SECOND_OF_MIXED)
    tmux.press("q")
    screen = tmux.shows("mode is as before")
    assert "Running" in screen, "the kernel has not stopped it"
    assert SUMMARY in screen


def test_ctrl_z_restores_the_terminal_and_fg_continues(tmux: Terminal) -> None:
    script = '"$python" -m tests.watch.staged mixed; echo "status $?"; read -r _; fg; echo "ended with $?"; read -r _'
    tmux.start(f"set -m; {with_mode(script)}", 80, 24)
    tmux.shows(LAST_SECOND_OF_MIXED)
    tmux.press("C-z")
    assert "watched" not in tmux.shows("status 148")  # 128 + SIGTSTP
    assert tmux.is_restored()
    tmux.press("Enter")
    tmux.shows(LAST_SECOND_OF_MIXED)
    assert not tmux.is_restored()
    tmux.press("C-c")
    tmux.shows("ended with 0")
    assert tmux.is_restored()


def test_a_background_job_is_ended_not_stopped_by_the_kernel(tmux: Terminal, tmp_path: Path) -> None:
    last_sweep = tmp_path / "last sweep"
    job = '"$python" -m tests.watch.staged mixed & read -r _; kill %1; wait %1; echo "ended with $?"'
    environ = {**UTF8, "LAST_SWEEP": str(last_sweep)}
    tmux.start(f"set -m; stty tostop; {with_mode(job)}", 80, 24, environ)
    until(last_sweep.exists, "the last sweep")
    tmux.press("Enter")
    assert SUMMARY in tmux.shows("mode is as before")
    assert "ended with 0" in tmux.screen()


def test_ctrl_z_and_bg_leave_the_terminal_to_the_shell(tmux: Terminal) -> None:
    script = '"$python" -m tests.watch.staged mixed; bg; echo "in the back"; read -r _; jobs; fg; echo "ended with $?"'
    tmux.start(f"set -m; {with_mode(script)}", 80, 24)
    tmux.shows(LAST_SECOND_OF_MIXED)
    tmux.press("C-z")
    tmux.shows("in the back")
    tmux.resize(81, 24)  # redraws a table that is shown
    assert tmux.is_restored()
    tmux.press("Enter")
    tmux.shows(LAST_SECOND_OF_MIXED)
    tmux.press("q")
    assert "Running" in tmux.shows("mode is as before")


def test_typed_keys_do_not_stay_on_the_screen(tmux: Terminal) -> None:
    tmux.start(stage("many"), 80, 24)
    expected = (GOLDEN / "watch_many_80x24.txt").read_text(encoding="utf-8")
    tmux.comes_to_show(expected)
    tmux.press("j", "k", "Enter")
    tmux.resize(81, 24)  # the clock of the scene has stopped: the resize causes a redraw
    until(lambda: "jk" not in tmux.screen(), "the table without what was typed")
