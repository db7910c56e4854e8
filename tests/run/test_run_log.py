"""Log formats, signals, the splay, versions, and what is imported."""

from __future__ import annotations

import importlib.metadata
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from agent import build_info
from agent.commands import run as run_command
from agent.errors import RejectedError
from agent.log import set_up
from agent.push.delivery import PushResult
from agent.run.publisher import Publisher, PushReport
from agent.run.push_log import FailureLog, PushLog
from agent.run.signals import Signals
from tests.run.running import PROJECT, run, write_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.simulate.clock import HandClock

log = logging.getLogger("agent.test")

pytestmark = pytest.mark.usefixtures("logging_as_it_was")


def written(form: str, level: str = "info") -> str:
    stream = io.StringIO()
    set_up(level, form, stream, {})
    log.debug("not at this level")
    log.warning('a "quoted"\nword')
    return stream.getvalue()


def test_text_format_has_time_level_and_message() -> None:
    time, _, rest = written("text").partition(" ")
    assert len(time) == len("12:34:56")
    assert rest == 'warning: a "quoted"\nword\n'


def test_logfmt_and_json_write_one_line_per_message() -> None:
    line = written("logfmt")
    assert line.endswith(' level=warning msg="a \\"quoted\\"\\nword"\n')
    assert line.startswith("ts=")
    entry = json.loads(written("json"))
    assert (entry["level"], entry["msg"]) == ("warning", 'a "quoted"\nword')


def test_auto_is_logfmt_in_a_file_and_priorities_in_the_journal(tmp_path: Path) -> None:
    assert written("auto").startswith("ts=")
    with (tmp_path / "journal").open("w+") as stream:
        status = os.fstat(stream.fileno())
        set_up("debug", "auto", stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        log.error("two\nlines")
        log.info("one")
        stream.seek(0)
        assert stream.read() == "<3>two\n<3>lines\n<6>one\n"


def test_libraries_log_no_debug_lines() -> None:
    stream = io.StringIO()
    set_up("debug", "text", stream, {})
    logging.getLogger("urllib3.connectionpool").debug("PUT /secret")
    logging.getLogger("urllib3.connectionpool").info("Authorization: secret")
    assert stream.getvalue() == ""


@pytest.mark.reliability(2.2, "a fault that lasts", "one log line when it begins, and one with the count when it ends")
def test_a_failure_is_logged_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trouble = FailureLog()
    trouble.worked("cpu")
    for _ in range(3):
        trouble.failed("cpu", "cpu: NACK")
    trouble.failed("disk", "disk: NACK")
    trouble.worked("cpu")
    trouble.worked("cpu")
    trouble.worked("disk")
    assert [record.message for record in caplog.records] == [
        "cpu: NACK",
        "disk: NACK",
        "cpu: works again after 3 failures",
        "disk: works again after 1 failure",
    ]


def test_a_signal_before_a_wait_ends_it_at_once() -> None:
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        signals.wait(600)
        assert (signals.reload_requested, signals.stop_requested) == (True, True)


def test_many_wakes_do_not_block() -> None:
    with Signals() as signals:
        for _ in range(100_000):
            signals.wake()
        signals.wait(600)


def test_a_wake_after_exit_writes_to_no_file(tmp_path: Path) -> None:
    with Signals() as signals:
        number = signals._write_end
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.dup2(file, number)  # as the next file to be opened may get it
    signals.wake()
    assert (tmp_path / "file").read_bytes() == b""
    for end in {file, number}:
        os.close(end)


def test_signal_handlers_are_restored() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    with Signals():
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in before} == before


def test_the_end_of_a_push_ends_the_wait_unless_abandoned(clock: HandClock) -> None:
    with Signals() as signals:
        publisher = Publisher(clock, signals.wake)
        publisher.send(lambda: ())
        while (report := publisher.take_report()) is None:
            signals.wait(600)
        assert (report.results, report.error, publisher.is_busy) == ((), None, False)
        hold = threading.Event()

        def held() -> tuple[()]:
            hold.wait()
            return ()

        publisher.send(held)
        assert publisher.is_busy
        with pytest.raises(RuntimeError):
            publisher.send(lambda: ())
        publisher.abandon()
        hold.set()
        signals.wait(600)
        assert publisher.take_report() is None


def test_the_splay_is_fixed_for_each_machine_and_within_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for machine in range(300):
        monkeypatch.setattr(run_command, "machine_hash", lambda machine=machine: f"machine {machine}")
        seconds = run_command._splay_seconds("30s")
        assert 0 <= seconds < 30
        assert run_command._splay_seconds("30s") == run_command._splay_seconds("30") == seconds
        shares.append(seconds / 30)
    for tenth in range(10):  # evenly spread
        assert 10 < sum(tenth / 10 <= share < (tenth + 1) / 10 for share in shares) < 60


def test_the_machine_id_is_not_revealed(tmp_path: Path) -> None:
    file = tmp_path / "machine-id"
    file.write_text("0123456789abcdef0123456789abcdef\n")
    hashed = build_info.machine_hash(file)
    assert len(hashed) == 12
    assert hashed not in file.read_text()
    assert build_info.machine_hash(file) == hashed
    file.write_text("0123456789abcdef0123456789abcdee\n")
    assert build_info.machine_hash(file) != hashed


@pytest.mark.reliability(
    13.2,
    "a machine id that is empty, missing or `uninitialized`, as on a first boot",
    "it counts as none: machines from one image do not share a hash",
)
@pytest.mark.parametrize("content", ["\n", "uninitialized\n", None])
def test_a_machine_without_an_id_has_no_hash(
    content: str | None, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    file = tmp_path / "machine-id"
    if content is not None:
        file.write_text(content)
    assert build_info.machine_hash(file) == ""
    measured("the label `machine` is empty")


def test_the_blinka_version_is_the_installed_one() -> None:
    assert build_info.blinka_version() == importlib.metadata.version("adafruit-blinka")


@pytest.mark.parametrize(
    ("left_behind", "version"),
    [
        (["adafruit_blinka-8.1.2.dist-info"], "8.1.2"),
        (["Adafruit_Blinka-8.1.2.dist-info", "adafruit_blinka_displayio-1.0.dist-info"], "8.1.2"),
        (["Adafruit_Blinka-8.1.2.egg-info"], "8.1.2"),  # as Debian's packages leave it
        ([], ""),
    ],
    ids=str,
)
def test_the_blinka_version_is_found_however_it_was_installed(
    left_behind: list[str], version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adafruit_blinka").mkdir()
    (tmp_path / "adafruit_blinka" / "__init__.py").touch()
    for name in left_behind:
        file = "PKG-INFO" if name.endswith("egg-info") else "METADATA"
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(f"Metadata-Version: 2.1\nName: {name.split('-')[0]}\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert build_info.blinka_version() == version


def test_of_two_blinka_versions_python_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adafruit_blinka").mkdir()
    (tmp_path / "adafruit_blinka" / "__init__.py").touch()
    for version in ("8.1.2", "9.0.0"):
        (tmp_path / f"adafruit_blinka-{version}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: adafruit-blinka\nVersion: {version}\n"
        (tmp_path / f"adafruit_blinka-{version}.dist-info" / "METADATA").write_text(metadata)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert build_info.blinka_version() == importlib.metadata.version("adafruit-blinka")


def imported_by(*arguments: str) -> set[str]:
    program = (
        "import sys; from agent.cli import main; code = main(sys.argv[1:]); "
        "sys.stderr.write('\\n'.join(sys.modules)); sys.exit(code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True
    )
    return set(ended.stderr.splitlines())


def test_slow_imports_happen_only_where_needed(tmp_path: Path) -> None:
    config = str(write_config(tmp_path, "http://127.0.0.1:9"))
    checked = imported_by("check", "--config", config)
    assert not checked & {"prometheus_client", "tenacity", "urllib3", "board", "adafruit_ina260", "agent.simulate"}
    once = imported_by("--config", config, "--simulate", "--once", "--dry-run", "--log-level", "error")
    assert "prometheus_client" in once
    assert not once & {"urllib3", "board", "agent.serve.server", "adafruit_ina3221", "asyncio", "requests"}


def test_stdout_carries_only_the_exposition(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    ended = run("--config", config, "--simulate", "--once", "--dry-run", "--log-level", "debug")
    assert ended.returncode == 0
    for line in ended.stdout.splitlines():
        assert line.startswith(("# PUT /", "# HELP ", "# TYPE ", "wattpush_", "process_")), line
    assert "simulated chips" in ended.stderr


def rejected(device: str, reason: str) -> PushResult:
    error = RejectedError(f"device {device}: gw rejected PUT /metrics/job/power/device/{device} with {reason}")
    return PushResult({"hostname": "node-17", "device": device}, 1, error)


def test_groups_rejected_for_one_reason_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    push_log = PushLog()
    refused = [
        rejected("cpu", "401; a"),
        rejected("disk", "401; a"),
        rejected("radio", "400; b"),
        rejected("gpu", "401; a"),
    ]
    push_log.write(PushReport(refused, 1.0))
    push_log.write(PushReport(refused, 1.0))
    push_log.write(PushReport([PushResult(result.grouping_key, 1, None) for result in refused], 1.0))
    assert caplog.messages == [
        "device cpu: gw rejected PUT /metrics/job/power/device/cpu with 401; a (and 2 more groups)",
        "device radio: gw rejected PUT /metrics/job/power/device/radio with 400; b",
        "device cpu (and 3 more groups): works again after 2 failures",
    ]
