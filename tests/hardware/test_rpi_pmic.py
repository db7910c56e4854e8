"""The rails that a Raspberry Pi 5 measures itself, asked through a program that stands for `vcgencmd`."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import access
from agent.chips import Measurement, rpi_pmic
from agent.errors import AgentError, PermissionDeniedError, SensorError
from agent.i2c import hints
from agent.measure.readings import Failure, Reading
from agent.measure.sweep import Sweep
from agent.settings import Device
from agent.simulate.clock import HandClock
from tests.bench import settings_of
from tests.hardware.raspberry_pi import INPUT_VOLTS, NO_DEVICE, PI_4, RAILS, TOTAL_WATTS, Vcgencmd, answer, on_path
from tests.run.running import until

if TYPE_CHECKING:
    from collections.abc import Iterator

TOTAL = Measurement(INPUT_VOLTS, cast("float", pytest.approx(TOTAL_WATTS / INPUT_VOLTS, rel=1e-6)))

LAYOUTS = (
    "{label:>15} {kind}({number})={value:.8f}{unit}",
    "{label} {kind}({number})={value:.4f}{unit}",
    "  {label}\t{kind} ( {number} ) = {value:.6f} {unit}  ",
)
"""That of today's firmware, and others; each has the digits that the values of the tests need."""


def chip(*rails: str, says: str) -> rpi_pmic.Chip:
    return rpi_pmic.Chip(devices(*rails), lambda: says)


def devices(*rails: str) -> tuple[Device, ...]:
    return tuple(Device(f"d{number}", "rpi-pmic", rail=rail) for number, rail in enumerate(rails))


@pytest.fixture
def vcgencmd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vcgencmd:
    return on_path(tmp_path, monkeypatch)


def error_of(*rails: str, says: str) -> str:
    """The one error of all these rails."""
    errors = chip(*rails, says=says).read()
    assert all(isinstance(error, SensorError) for error in errors), errors
    (text,) = {str(error) for error in errors}
    return text


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_rail_and_their_sum_are_read_in_each_layout(layout: str) -> None:
    found = chip("all", *RAILS, says=answer(layout)).read()
    assert found == (TOTAL, *(Measurement(volts, amperes) for volts, amperes in RAILS.values()))
    assert chip(says=answer(layout)).find() == {
        **{rail: Measurement(*values) for rail, values in RAILS.items()},
        "all": TOTAL,
    }


@pytest.mark.parametrize("rail", ["EXT5V", "BATT"])
def test_a_rail_without_current_is_refused_with_its_reason(rail: str) -> None:
    error = error_of(rail, says=answer())
    assert f"{rail} has volts but no amperes, so it has no power; rails with both: 3V7_WL_SW, 3V3_SYS, " in error


def test_an_unknown_rail_is_refused_with_the_known_ones() -> None:
    assert f"no rail VDD_GPU; rails with both: {', '.join(RAILS)}; or all" in error_of("VDD_GPU", says=answer())


@pytest.mark.reliability(
    1.47,
    "an answer of `vcgencmd` that is cut off anywhere, or in which a line is lost or repeated",
    "an error, never a smaller sum",
)
def test_no_cut_answer_gives_a_wrong_number() -> None:
    whole = answer()
    core = Measurement(*RAILS["VDD_CORE"])
    read = 0
    for length in range(len(whole)):
        try:
            total, one = chip("all", "VDD_CORE", says=whole[:length]).read()
        except SensorError as error:
            assert "no rail in its answer" in str(error)  # noqa: PT017 - the other cuts raise nothing
            continue
        assert isinstance(total, SensorError) or total == TOTAL, whole[:length]
        assert isinstance(one, SensorError) or one == core, whole[:length]
        read += isinstance(one, Measurement)
    assert read > 100


@pytest.mark.reliability(
    1.47,
    "an answer of `vcgencmd` that is cut off anywhere, or in which a line is lost or repeated",
    "an error, never a smaller sum",
)
@given(number=st.integers(min_value=0, max_value=len(RAILS) * 2 + 1), is_repeated=st.booleans())
def test_no_lost_or_repeated_line_gives_a_wrong_number(number: int, *, is_repeated: bool) -> None:
    lines = answer().splitlines()
    lines[number : number + 1] = [lines[number]] * 2 if is_repeated else []
    total, *singles = chip("all", *RAILS, says="\n".join(lines)).read()
    assert isinstance(total, SensorError) or total == TOTAL
    wrong = [single for single in singles if isinstance(single, SensorError)]
    assert len(wrong) == (number < len(RAILS) * 2)
    assert [single for single in singles if single not in wrong] == [
        Measurement(*values) for values, single in zip(RAILS.values(), singles, strict=True) if single not in wrong
    ]
    assert isinstance(total, SensorError) or "BATT" in answer().splitlines()[number]


@pytest.mark.parametrize(
    ("changed", "to", "reason"),
    [
        ("VDD_CORE_A current(7)=1.23400000A", "VDD_CORE_A current(7)=nanA", "is no measurement"),
        ("VDD_CORE_A current(7)=1.23400000A", "VDD_CORE_A current(7)=1.2.3A", "is no measurement"),
        ("VDD_CORE_A current(7)=1.23400000A", "VDD_CORE_A current(7)=1.23400000V", "is no measurement"),
        ("VDD_CORE_A current(7)=1.23400000A", "VDD_CORE_A volt(7)=1.23400000A", "is no measurement"),
        ("VDD_CORE_A current(7)=1.23400000A", "VDD_CORE_A current(7)=51.0A", "51 A is not in -1..50"),
        ("VDD_CORE_A current(7)=1.23400000A", "VDD_CORE_A current(7)=-1.1A", "-1.1 A is not in -1..50"),
        ("VDD_CORE_V volt(19)=0.87500000V", "VDD_CORE_V volt(19)=30.5V", "30.5 V is not in 0..30"),
        ("VDD_CORE_V volt(19)=0.87500000V", "VDD_CORE_V volt(19)=-0.1V", "-0.1 V is not in 0..30"),
    ],
)
def test_a_value_that_is_no_measurement_is_an_error_of_its_rail(changed: str, to: str, reason: str) -> None:
    assert changed in answer()
    total, core, other = chip("all", "VDD_CORE", "HDMI", says=answer().replace(changed, to)).read()
    assert isinstance(core, SensorError)
    assert reason in str(core)
    assert isinstance(total, SensorError)
    assert "so the sum is not known" in str(total)
    assert other == Measurement(*RAILS["HDMI"])


def test_a_line_that_is_no_rails_spoils_the_sum_alone() -> None:
    garbled = answer().replace("HDMI_A", "HD?I_A")
    total, core = chip("all", "VDD_CORE", says=garbled).read()
    assert "is no line of a rail" in str(total)
    assert core == Measurement(*RAILS["VDD_CORE"])
    # Another kind of value, well formed, is none of ours.
    assert chip("all", says=answer() + "PMIC_T temp(26)=45.2C\n").read() == (TOTAL,)


def test_the_sum_is_refused_while_a_rail_is_missing() -> None:
    without_core = "".join(line for line in answer().splitlines(True) if "VDD_CORE" not in line)
    texts = [answer(), without_core, answer()]
    board = rpi_pmic.Chip(devices("all"), lambda: texts.pop(0))
    assert board.read() == (TOTAL,)
    assert board.where() == (f"vcgencmd pmic_read_adc: sum of 12 rails ({', '.join(RAILS)})",)
    (error,) = board.read()
    assert "no VDD_CORE, which it had before; is the answer whole?" in str(error)
    assert board.read() == (TOTAL,)


def test_a_first_answer_without_a_rail_does_not_spoil_the_others() -> None:
    texts = ["".join(line for line in answer().splitlines(True) if "VDD_CORE" not in line), answer(), answer()]
    board = rpi_pmic.Chip(devices("all"), lambda: texts.pop(0))
    board.read()
    assert [board.read(), board.read()] == [(TOTAL,)] * 2


def test_an_answer_without_any_rail_is_none_of_a_pi_5() -> None:
    for says in ("", "\n", "PMIC_T temp(26)=45.2C\n"):
        with pytest.raises(SensorError, match="no rail in its answer; only a Raspberry Pi 5 measures itself"):
            chip("all", "VDD_CORE", says=says).read()


@pytest.mark.parametrize("volts", ["0.0", "2.9"])
def test_the_sum_needs_the_input_of_a_running_board(volts: str) -> None:
    says = answer().replace(f"={INPUT_VOLTS:.8f}V", f"={volts}V")
    assert f"EXT5V: {float(volts):g} V is not the input of a running board" in error_of("all", says=says)


def test_an_input_without_any_rail_is_no_sum() -> None:
    (line,) = (line for line in answer().splitlines() if "EXT5V" in line)
    assert "no rail, in its answer; is it whole?" in error_of("all", says=line)


def test_two_devices_are_read_by_one_call_without_a_shell(vcgencmd: Vcgencmd) -> None:
    board = rpi_pmic.Chip(devices("all", "VDD_CORE"))
    for _ in range(2):
        assert board.read() == (TOTAL, Measurement(*RAILS["VDD_CORE"]))
    assert vcgencmd.calls == ["pmic_read_adc"] * 2


def test_ctrl_c_in_the_terminal_is_not_for_the_program(vcgencmd: Vcgencmd) -> None:
    vcgencmd.runs(f"cat /proc/$$/stat >{vcgencmd.folder}/stat; cat {vcgencmd.folder}/answer")
    assert rpi_pmic.Chip(devices("all")).read() == (TOTAL,)
    number, *_, group, session = (vcgencmd.folder / "stat").read_text().split()[:6]
    assert number == group == session


def test_the_program_does_not_read_what_is_typed(vcgencmd: Vcgencmd) -> None:
    vcgencmd.runs(f"cat >{vcgencmd.folder}/typed; cat {vcgencmd.folder}/answer")
    reads, writes = os.pipe()
    before = os.dup(0)
    try:
        os.dup2(reads, 0)
        os.write(writes, b"typed")
        assert rpi_pmic.Chip(devices("all")).read() == (TOTAL,)
    finally:
        os.dup2(before, 0)
        for number in (reads, writes, before):
            os.close(number)
    assert (vcgencmd.folder / "typed").read_bytes() == b""


def test_no_secret_of_the_agent_reaches_the_program(vcgencmd: Vcgencmd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSH_PASSWORD", "secret")
    vcgencmd.runs(f'env >{vcgencmd.folder}/env; cat {vcgencmd.folder}/answer; echo "ld.so: ignored" >&2')
    assert rpi_pmic.Chip(devices("all")).read() == (TOTAL,)
    assert "secret" not in (vcgencmd.folder / "env").read_text()


def children() -> set[int]:
    """The processes that this one has not waited for, ended ones included."""
    own = os.getpid()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):  # it has ended
            continue
        if parent == own:
            found.add(int(folder.name))
    return found


@pytest.mark.reliability(
    1.46,
    "`vcgencmd` hangs, floods its output, or cannot be killed",
    "it is killed in time, no process is left behind, and no second one is started beside it; its rails fail",
)
def test_a_hung_program_is_killed_in_time_and_leaves_nothing(vcgencmd: Vcgencmd) -> None:
    board = rpi_pmic.Chip(devices("all"))
    assert board.read() == (TOTAL,)
    before, files_before = children(), open_files()
    vcgencmd.runs(f"trap '' TERM; sleep 3600 & echo $! >{vcgencmd.folder}/inner; echo half; wait")
    began_seconds = time.monotonic()
    with pytest.raises(SensorError, match=r"did not end within 0\.5 s, and was killed"):
        board.read()
    assert time.monotonic() - began_seconds < 1.5  # of the 2 s that a stop has
    assert children() == before
    assert open_files() == files_before
    inner = int((vcgencmd.folder / "inner").read_text())
    until(lambda: not is_running(inner), "the inner process ends")
    vcgencmd.says(answer())
    assert board.read() == (TOTAL,)


def open_files() -> set[str]:
    return {file.name for file in Path("/proc/self/fd").iterdir()}


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.reliability(
    1.46,
    "`vcgencmd` hangs, floods its output, or cannot be killed",
    "it is killed in time, no process is left behind, and no second one is started beside it; its rails fail",
)
def test_a_program_that_floods_its_output_is_killed(vcgencmd: Vcgencmd) -> None:
    vcgencmd.runs("exec yes")
    before = children()
    with pytest.raises(SensorError, match="wrote more than 16384 bytes, and was killed"):
        rpi_pmic.Chip(devices("all")).read()
    assert children() == before


def test_a_program_that_closes_its_output_and_hangs_is_killed(vcgencmd: Vcgencmd) -> None:
    vcgencmd.runs(f"cat {vcgencmd.folder}/answer; exec >&- 2>&-; exec sleep 3600")
    before = children()
    with pytest.raises(SensorError, match=r"did not end within 0\.5 s, and was killed"):
        rpi_pmic.Chip(devices("all")).read()
    assert children() == before


@pytest.mark.reliability(
    1.46,
    "`vcgencmd` hangs, floods its output, or cannot be killed",
    "it is killed in time, no process is left behind, and no second one is started beside it; its rails fail",
)
def test_a_killed_program_that_does_not_end_is_not_started_again(
    vcgencmd: Vcgencmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits in the kernel; a process that is not killed stands for it."""
    board = rpi_pmic.Chip(devices("all"))
    vcgencmd.runs("exec sleep 3600")
    groups: list[int] = []
    with monkeypatch.context() as kernel:
        kernel.setattr("os.killpg", lambda group, _: groups.append(group))
        with pytest.raises(SensorError, match="did not end within"):
            board.read()
    (group,) = groups
    try:
        with pytest.raises(SensorError, match="has not ended yet"):
            board.read()
        assert len(vcgencmd.calls) == 1
    finally:
        os.killpg(group, signal.SIGKILL)
    vcgencmd.says(answer())
    until(lambda: not is_running(group), "the program ends")
    assert board.read() == (TOTAL,)


def test_a_program_that_moves_is_found(vcgencmd: Vcgencmd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = rpi_pmic.Chip(devices("all"))
    assert board.read() == (TOTAL,)
    (vcgencmd.folder / "vcgencmd").unlink()
    with pytest.raises(SensorError, match="there is no vcgencmd"):
        board.read()
    monkeypatch.setenv("PATH", f"{Vcgencmd(tmp_path / 'elsewhere').folder}:{os.environ['PATH']}")
    assert board.read() == (TOTAL,)


def test_no_vcgencmd_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SensorError, match="there is no vcgencmd; on a Raspberry Pi: sudo apt install raspi-utils"):
        rpi_pmic.Chip(devices("all")).read()


def test_a_pi_4_is_told_that_only_a_pi_5_measures_itself(vcgencmd: Vcgencmd) -> None:
    for status in (0, 255):
        vcgencmd.says(PI_4, status)
        with pytest.raises(SensorError, match=r"only a Raspberry Pi 5 measures itself; .*Command not registered"):
            rpi_pmic.Chip(devices("all")).read()


def test_a_program_that_cannot_run_is_an_error(vcgencmd: Vcgencmd) -> None:
    (vcgencmd.folder / "vcgencmd").write_bytes(b"\x7fELF of another machine")
    with pytest.raises(SensorError, match="vcgencmd cannot be started: Exec format error"):
        rpi_pmic.Chip(devices("all")).read()
    for lines, told in (
        ("echo broken >&2; exit 3", "failed (exit status 3): broken"),
        ("kill -SEGV $$", "failed (killed by signal 11): without a word"),
        ("printf '\\033[2J\\000\\377'; exit 1", "failed (exit status 1): [2J \ufffd"),
        ("printf '\\033[2J\\000\\377'", "no rail in its answer"),
    ):
        vcgencmd.runs(lines)
        with pytest.raises(SensorError, match=re.escape(told)):
            rpi_pmic.Chip(devices("all")).read()


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may open everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_denied_device_file_names_the_group_video(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        vcgencmd = Vcgencmd(Path(name) / "bin", NO_DEVICE, 255)
        monkeypatch.setenv("PATH", f"{vcgencmd.folder}:{os.environ['PATH']}")
        monkeypatch.setattr(hints, "_CONTAINER_MARKS", (Path(name) / "mark",))
        file = Path(name) / "vcio"
        file.touch(mode=0o000)
        if os.geteuid() == 0:
            os.chown(file, 0, 44)
        files = (Path(name) / "vcio_gencmd", file)
        with as_nobody():
            denied = rf"{file}: .*usermod -aG video {access.this_user()}, then log in again"
        with as_nobody(), pytest.raises(PermissionDeniedError, match=denied):
            rpi_pmic.Chip(devices("all"), rpi_pmic.Firmware(files).ask).read()
        if os.geteuid() == 0:
            os.chown(file, 0, 0)
            with as_nobody(), pytest.raises(PermissionDeniedError, match=r'only root .* KERNEL=="vcio", GROUP="video"'):
                rpi_pmic.Chip(devices("all"), rpi_pmic.Firmware(files).ask).read()
        (Path(name) / "mark").touch()
        with as_nobody(), pytest.raises(PermissionDeniedError, match=f"start the container with --device {file}"):
            rpi_pmic.Chip(devices("all"), rpi_pmic.Firmware(files).ask).read()


def test_a_vcgencmd_older_than_its_kernel_is_told_so(vcgencmd: Vcgencmd, tmp_path: Path) -> None:
    vcgencmd.says(NO_DEVICE, 255)
    newer = tmp_path / "vcio_gencmd"
    newer.touch()
    with pytest.raises(SensorError, match=f"could not open its device file, but {newer} opens; upgrade raspi-utils"):
        rpi_pmic.Chip(devices("all"), rpi_pmic.Firmware((newer, tmp_path / "vcio")).ask).read()


@pytest.mark.parametrize("says", [NO_DEVICE, "VCHI initialization failed\n"])
def test_an_absent_device_file_is_told_with_its_cause(
    says: str, vcgencmd: Vcgencmd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vcgencmd.says(says, 255)
    board = rpi_pmic.Chip(devices("all"), rpi_pmic.Firmware((tmp_path / "vcio_gencmd", tmp_path / "vcio")).ask)
    monkeypatch.setattr(hints, "_CONTAINER_MARKS", (tmp_path / "mark",))
    with pytest.raises(SensorError, match="the kernel of Raspberry Pi OS has them"):
        board.read()
    (tmp_path / "mark").touch()
    with pytest.raises(SensorError, match=f"start the container with --device {tmp_path}/vcio$"):
        board.read()


NODE = "".join(
    f'[[device]]\nname = "{name}"\nchip = "rpi-pmic"\nrail = "{rail}"\n'
    for name, rail in (("board", "all"), ("core", "VDD_CORE"), ("usb", "USB"))
)


class Answers:
    """The firmware: its next answers, or what it raises; it takes its time."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.next: str | AgentError = answer()
        self.takes_seconds = 0.0
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        self.clock.sleep(self.takes_seconds)
        if isinstance(self.next, AgentError):
            raise self.next
        return self.next


def test_a_sweep_asks_once_and_each_rail_fails_alone() -> None:
    clock = HandClock()
    firmware = Answers(clock)
    sweep = Sweep(settings_of(NODE), [], clock, lambda those: rpi_pmic.Chip(those, firmware))
    for _ in range(3):
        board, core, usb = sweep.run()
        assert isinstance(board, Reading)
        assert board.power_watts == pytest.approx(TOTAL_WATTS, rel=1e-6)
        assert isinstance(core, Reading)
        assert (core.volts, core.amperes) == RAILS["VDD_CORE"]
        assert isinstance(usb, Failure)
        assert "no rail USB" in str(usb.error)
        clock.sleep(1.0)
    assert firmware.calls == 3
    assert [outcome.device for outcome in sweep.run({"core"})] == ["board", "core", "usb"]
    assert firmware.calls == 4


def test_a_firmware_that_fails_backs_off_and_comes_back() -> None:
    clock = HandClock()
    firmware = Answers(clock)
    sweep = Sweep(
        settings_of(NODE, 'sample_interval = "1s"\n'), [], clock, lambda those: rpi_pmic.Chip(those, firmware)
    )
    firmware.next, firmware.takes_seconds = SensorError("did not end within 0.5 s"), 0.6
    began_seconds = clock.seconds
    while clock.seconds < began_seconds + 60:
        assert all(isinstance(outcome, Failure) for outcome in sweep.run())
        clock.sleep(1.0)
    assert firmware.calls < 15
    firmware.next, firmware.takes_seconds = answer(), 0.0
    clock.sleep(20.0)
    assert [type(outcome) for outcome in sweep.run()] == [Reading, Reading, Failure]


def test_a_good_answer_ends_the_back_off() -> None:
    clock = HandClock()
    firmware = Answers(clock)
    sweep = Sweep(
        settings_of(NODE, 'sample_interval = "1s"\n'), [], clock, lambda those: rpi_pmic.Chip(those, firmware)
    )

    def calls_in(seconds: int) -> int:
        before = firmware.calls
        for _ in range(seconds):
            sweep.run()
            clock.sleep(1.0)
        return firmware.calls - before

    for _ in range(2):
        firmware.next = answer().replace("(", "[")  # an error of each rail alone
        assert calls_in(30) == 6
        firmware.next = answer()
        calls_in(10)
        assert calls_in(10) == 10
