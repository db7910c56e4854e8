"""The state file: pushed counters never fall, except to zero."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import stat
import subprocess
import tempfile
import zlib
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent import access
from agent.energy.counters import Counters, LastReading, Saved
from agent.energy.filesystems import forgetful_filesystem
from agent.energy.state import AgentCounters, State
from agent.energy.state_file import StateFile, boot_id
from agent.errors import BusyError, ConfigError, PermissionDeniedError
from tests.energy.disks import disk, full
from tests.energy.disks import state_on_disk as of_boot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.energy.disks import Disk

STATE = State(
    {
        "cpu": Saved(
            Counters(1.5, 0.25, 12.0, 7, 1, 2, coulombs=0.125, returned_coulombs=0.5),
            LastReading(1234.5, 6.75, amperes=0.5, overcounted_coulombs=0.375, returned_overcounted_coulombs=0.0625),
            1_700_000_000.5,
            "ina260 1/40",
        ),
        "rack 1/ä": Saved(),
    },
    AgentCounters(3, 2, 1),
)


def joules(amount: float) -> State:
    """A state with this energy, and the charge of a rail of 4 V."""
    return State({"cpu": Saved(Counters(joules=amount, coulombs=amount / 4))})


def joules_in(state: State) -> float:
    counters = state.devices["cpu"].counters if state.devices else Counters()
    assert counters.coulombs == counters.joules / 4, "a file holds both, or neither"
    return counters.joules


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


# Written by the first version, with fields that have other names in memory now.
FIRST_VERSIONS_FILE = (
    '{"format": 1, "checksum": 874486933, "content": {"boot": "a boot", "ended_well": false, "devices": {"cpu": '
    '{"counters": {"joules": 1.5, "returned_joules": 0.25, "measured_seconds": 12.0, "readings": 7, "read_errors": 1, '
    '"resets": 2}, "last": {"at_seconds": 1234.5, "power_watts": 6.75, "assumed_seconds": 0.5, "excess_joules": 3.25, '
    '"returned_excess_joules": 0.125, "energy_word": 1099511627775, "charge_word": 3, "volts": 12.25}, '
    '"last_read_unix_seconds": 1700000000.5, "source": "ina228 1/40"}, "rack 1/\\u00e4": {"counters": {"joules": 0.0, '
    '"returned_joules": 0.0, "measured_seconds": 0.0, "readings": 0, "read_errors": 0, "resets": 0}, "last": null, '
    '"last_read_unix_seconds": null, "source": null}}, "node": {"pushes": 3, "push_failures": 2, "missed_samples": 1}}}'
)
FIRST_VERSIONS_STATE = State(
    {
        "cpu": Saved(
            Counters(1.5, 0.25, 12.0, 7, 1, 2),
            LastReading(
                1234.5,
                6.75,
                assumed_seconds=0.5,
                overcounted_joules=3.25,
                returned_overcounted_joules=0.125,
                energy_word=(1 << 40) - 1,
                charge_word=3,
                volts=12.25,
            ),
            1_700_000_000.5,
            "ina228 1/40",
        ),
        "rack 1/ä": Saved(),
    },
    AgentCounters(3, 2, 1),
)


def test_the_file_of_the_first_version_is_read(folder: Path) -> None:
    (folder / "counters.json").write_text(FIRST_VERSIONS_FILE, encoding="utf-8")
    assert of_boot(folder, "a boot").load() == FIRST_VERSIONS_STATE


def test_a_file_keeps_every_field_of_the_first_version(folder: Path) -> None:
    def without_new(entry: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        return {name: value for name, value in entry.items() if name not in names}

    of_boot(folder, "a boot").save(FIRST_VERSIONS_STATE, ended_well=False)
    written = json.loads((folder / "counters.json").read_text(encoding="utf-8"))["content"]
    for device in written["devices"].values():
        device["counters"] = without_new(device["counters"], ("retries", "implausible"))
    written["node"] = without_new(written["node"], ("mux_conflicts",))
    written = without_new(written, ("run",))
    assert written == json.loads(FIRST_VERSIONS_FILE)["content"]


def test_earlier_versions_read_a_file_with_charge(folder: Path) -> None:
    """They ignore what stands beside the devices, but refuse a device with a field that they do not know."""
    of_boot(folder, "a boot").save(STATE, ended_well=False)
    written = json.loads((folder / "counters.json").read_text(encoding="utf-8"))["content"]
    known = json.loads(FIRST_VERSIONS_FILE)["content"]["devices"]["cpu"]
    for device in written["devices"].values():
        assert device.keys() == known.keys()
        assert device["counters"].keys() == {*known["counters"], "retries", "implausible"}
        assert device["last"] is None or device["last"].keys() == known["last"].keys()
    assert list(written["charge"]) == ["cpu"], "a device without any has no entry"


def test_without_its_charge_a_file_keeps_its_energy(folder: Path) -> None:
    """As a run of an earlier version leaves it: charge starts from zero, never from an older value."""
    of_boot(folder, "a").save(STATE, ended_well=False)
    path = folder / "counters.json"
    content = json.loads(path.read_text(encoding="utf-8"))["content"]
    del content["charge"]
    checksum = zlib.crc32(json.dumps(content).encode())
    path.write_text(json.dumps({"format": 1, "checksum": checksum, "content": content}), encoding="utf-8")
    loaded = of_boot(folder, "a").load().devices["cpu"]
    assert loaded.counters == Counters(1.5, 0.25, 12.0, 7, 1, 2)
    assert loaded.last == LastReading(1234.5, 6.75)


def test_counters_continue_within_a_boot_however_the_run_ended(folder: Path) -> None:
    assert of_boot(folder, "a").save(STATE, ended_well=False)
    assert of_boot(folder, "a").load() == STATE


def test_counters_continue_after_a_reboot_without_counting_across_it(folder: Path) -> None:
    of_boot(folder, "a").save(STATE, ended_well=True)
    carried = of_boot(folder, "b").load()
    assert carried.agent == STATE.agent
    assert carried.devices["cpu"].counters == STATE.devices["cpu"].counters
    assert carried.devices["cpu"].last is None
    assert carried.devices["cpu"].last_read_unix_seconds == 1_700_000_000.5


def test_counters_start_from_zero_after_a_power_cut(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    of_boot(folder, "a").save(STATE, ended_well=False)
    assert of_boot(folder, "b").load() == State()
    assert "went down before the last run ended" in caplog.text


def test_a_kernel_without_a_boot_id_counts_as_rebooted(folder: Path) -> None:
    of_boot(folder, "").save(STATE, ended_well=False)
    assert of_boot(folder, "").load() == State()


def test_the_running_kernel_has_a_boot_id() -> None:
    assert boot_id() == boot_id() != ""


def test_no_file_is_a_fresh_start(folder: Path) -> None:
    assert of_boot(folder, "a").load() == State()


def _written(state: State) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        of_boot(Path(name), "a").save(state, ended_well=True)
        return Path(name, "counters.json").read_bytes()


whole = _written(STATE)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        data[start:end] = draw(st.binary(max_size=8) | st.sampled_from([b"9", b"null", b"[", b'"', b"-1e999", b"{}"]))
    return bytes(data)


@pytest.mark.reliability(12.2, "a damaged state file", "the file is renamed and logged; counters start from zero")
@given(damaged() | st.binary(max_size=50))
@example(b"")
@example(b"null")
@example(b"[]")
@example(b'{"format": 1}')
@example(b'{"format": 1, "content": [], "checksum": 223132457}')
@example(b'{"format": 2, "content": {}, "checksum": 1}')
@example(b"[" * 100_000)
@example(b"9" * 10_000)
@example(b"\x00" * 4096)
@settings(max_examples=300)
def test_a_damaged_file_is_renamed_and_counters_start_from_zero(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "counters.json").write_bytes(data)
        loaded = of_boot(folder, "a").load()
        if loaded == STATE:  # the damage did not change the content
            return
        assert loaded == State()
        assert not (folder / "counters.json").exists()
        assert (folder / "counters.damaged").read_bytes() == data


def test_the_log_names_a_damaged_file_and_its_new_name(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "counters.json").write_bytes(b"{")
    of_boot(folder, "a").load()
    assert str(folder / "counters.json") in caplog.text
    assert str(folder / "counters.damaged") in caplog.text


def test_a_dry_run_leaves_a_damaged_file_where_it_is(folder: Path) -> None:
    (folder / "counters.json").write_bytes(b"{")
    assert of_boot(folder, "a").load(is_read_only=True) == State()
    assert [path.name for path in folder.iterdir()] == ["counters.json"]


def _socket_at(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


STRANGERS: dict[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo,
    "a symbolic link": lambda path: path.symlink_to(path.parent / "precious"),
    "a folder": Path.mkdir,
    "a socket": _socket_at,
    "a device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5)),
}


@pytest.mark.reliability(
    12.21,
    "a FIFO, link, socket, folder or device in place of a file of the state",
    "refused with its name and exit code 78; never followed, never waited for",
)
@pytest.mark.parametrize("name", ["counters.json", "counters.new", "counters.lock"])
@pytest.mark.parametrize("kind", STRANGERS)
def test_what_is_no_file_is_refused_and_never_followed(
    folder: Path, kind: str, name: str, measured: Callable[[str], None]
) -> None:
    if kind == "a device" and os.geteuid() != 0:
        pytest.skip("needs root, to make a device")
    (folder / "precious").write_text("precious")
    STRANGERS[kind](folder / name)
    before = sorted(path.name for path in folder.iterdir())
    for attempt in (of_boot(folder, "a").lock, of_boot(folder, "a").load):
        with pytest.raises(ConfigError, match=f"{folder / name} is {kind}, not a file.*remove it: sudo rm"):
            attempt()
    assert sorted(path.name for path in folder.iterdir()) == before
    assert (folder / "precious").read_text() == "precious"
    measured("each kind in place of each of the three files; a link's target stays as it is")


def test_a_link_that_appears_while_running_is_replaced_not_followed(folder: Path) -> None:
    (folder / "precious").write_text("precious")
    file = of_boot(folder, "a")
    assert file.save(joules(1), ended_well=False)
    for name in ("counters.json", "counters.new"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(folder / "precious")
    assert file.save(joules(2), ended_well=False)
    assert joules_in(of_boot(folder, "a").load()) == 2
    assert (folder / "precious").read_text() == "precious"


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.reliability(
    12.33,
    "no free file descriptor at the start",
    "exit 75, so that systemd tries again; the file of the state is not taken for damaged, nor run without a lock",
)
def test_a_lack_of_descriptors_at_the_start_throws_nothing_away(folder: Path, measured: Callable[[str], None]) -> None:
    file = of_boot(folder, "a")
    assert file.save(joules(1), ended_well=True)
    for start in (file.lock, file.load):
        with no_descriptors(), pytest.raises(BusyError, match=r"Too many open files\); raise LimitNOFILE="):
            start()
    assert not file.is_locked
    assert joules_in(of_boot(folder, "a").load()) == 1
    measured("the file stays, and is read at the next start")


def test_on_a_disk_that_stays_full_the_old_file_makes_room(folder: Path) -> None:
    with disk(folder / "disk", "8k") as small:  # two blocks: one for the file, one for another
        if not small.is_mounted:
            pytest.skip("needs root, to mount a small file system")
        file = of_boot(small.folder, "a")
        assert file.save(joules(1), ended_well=True)
        with (small.folder / "other").open("wb", buffering=0) as other, contextlib.suppress(OSError):
            while other.write(b"x" * 512):
                pass
        with pytest.raises(OSError, match="No space left"):
            (small.folder / "more").write_bytes(b"x")
        for attempt in range(1, 4):
            assert not file.save(joules(1 + attempt), ended_well=False)
            assert joules_in(of_boot(small.folder, "a").load()) == 1
        assert file.save(joules(5), ended_well=True)
        assert joules_in(of_boot(small.folder, "a").load()) == 5


@pytest.mark.reliability(
    12.3,
    "a full disk, or no free file descriptor, that passes after a minute",
    "the old file stays; counters are not published until it can be written, and nothing is lost",
)
@pytest.mark.parametrize("fault", [full, no_descriptors])
def test_a_failure_that_passes_throws_nothing_away(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[], contextlib.AbstractContextManager[None]],
    measured: Callable[[str], None],
) -> None:
    caplog.set_level(logging.INFO)
    file = of_boot(folder, "a")
    assert file.save(joules(1), ended_well=True)
    before = (folder / "counters.json").read_bytes()
    for amount in (2, 3, 4):
        with fault():
            assert not file.save(joules(amount), ended_well=False)
        assert (folder / "counters.json").read_bytes() == before
    (line,) = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert "counters are not published until it can be written again" in line
    assert str(folder / "counters.json") in line
    assert file.save(joules(5), ended_well=False)
    assert joules_in(of_boot(folder, "a").load()) == 5
    assert "can be written again" in caplog.text
    measured("three failed saves in a row: the file stays byte for byte; the fourth holds everything")


def test_a_failure_that_lasts_resets_to_zero_never_to_an_older_value(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = of_boot(folder, "a")
    assert file.save(joules(1), ended_well=True)
    with full():
        assert [file.save(joules(2), ended_well=False) for _ in range(6)] == [False, False, False, True, True, True]
    assert of_boot(folder, "a").load() == State()
    assert "they start from zero at the next start" in caplog.text
    assert file.save(joules(3), ended_well=False)
    assert joules_in(of_boot(folder, "a").load()) == 3


@pytest.mark.reliability(
    12.31,
    "a state folder that is read-only from the start, without a file in it",
    "counters are published: no older value can come back",
)
@pytest.mark.parametrize("has_folder", [True, False])
def test_a_read_only_folder_without_a_file_publishes_counters(
    folder: Path, measured: Callable[[str], None], *, has_folder: bool
) -> None:
    with disk(folder / "disk") as rescue:
        if not rescue.is_mounted:
            pytest.skip("needs root, to mount a file system")
        with rescue.read_only():
            file = of_boot(rescue.folder if has_folder else rescue.folder / "state", "a")
            file.lock()
            assert file.load() == State()
            assert file.save(joules(1), ended_well=False)
            assert file.save(joules(2), ended_well=False)
            file.unlock()
    measured("published from the first push on, with one line in the log")


@contextlib.contextmanager
def overlay(folder: Path) -> Iterator[Path]:
    """A folder whose changes go to memory, over a lower one on disk: a read-only root of raspi-config."""
    lower, memory, merged = folder / "lower", folder / "memory", folder / "merged"
    for each in (lower, merged):
        each.mkdir()
    with disk(memory) as upper:
        if not upper.is_mounted:
            pytest.skip("needs root, to mount a file system")
        for name in ("upper", "work"):
            (memory / name).mkdir()
        options = f"lowerdir={lower},upperdir={memory / 'upper'},workdir={memory / 'work'}"
        mounted = subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], capture_output=True, check=False
        )
        if mounted.returncode != 0:
            pytest.skip(f"may not mount an overlay: {mounted.stderr!r}")
        try:
            yield merged
        finally:
            subprocess.run(["umount", "--lazy", str(merged)], check=True)


@pytest.mark.reliability(
    12.41,
    "a clean stop at 570 J on an overlay root that forgets it, and three boots",
    "counters start from zero at each boot: no rise that did not flow",
)
def test_a_file_that_an_overlay_brings_back_is_not_carried_on(
    folder: Path, caplog: pytest.LogCaptureFixture, measured: Callable[[str], None]
) -> None:
    with overlay(folder) as root:
        assert of_boot(root, "built").save(joules(570), ended_well=True)
        image = (root / "counters.json").read_bytes()
        flowed, pushed = 570.0, [570.0]
        for boot in ("first", "second", "third"):
            (root / "counters.json").write_bytes(image)
            file = StateFile(root, "counters", boot)
            counted = joules_in(file.load())
            for _ in range(5):
                counted += 10
                flowed += 10
                assert file.save(joules(counted), ended_well=False)
                assert joules_in(StateFile(root, "counters", boot).load()) == counted, "a restart in one boot continues"
                pushed.append(counted)
            assert file.save(joules(counted), ended_well=True)
        assert "set state_dir to a folder on a real disk" in caplog.text
    assert 570 + sum(max(0.0, b - a) if b >= a else b for a, b in pairwise(pushed)) == flowed
    measured("720 J of 720")


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_memory_forgets_and_a_disk_does_not(folder: Path, kind: str) -> None:
    mounts = folder / "mountinfo"
    place, mounted = folder / "a b", f"{folder}/a\\040b"
    mounts.write_text(
        "22 1 259:2 / / rw shared:1 - ext4 /dev/root rw\n"
        "23 22 0:21 / /proc rw - proc proc rw\n"
        f"30 22 0:30 / {mounted} rw shared:2 master:1 - {kind} x rw\n"
    )
    assert forgetful_filesystem(place / "state", mounts) == (None if kind == "ext4" else "tmpfs")
    assert forgetful_filesystem(Path("/var/lib/wattpush"), mounts) is None


def test_a_real_mount_in_memory_is_recognised(folder: Path) -> None:
    with disk(folder / "disk") as memory:
        if not memory.is_mounted:
            pytest.skip("needs root, to mount a file system")
        assert forgetful_filesystem(memory.folder / "state") == "tmpfs"


def test_counters_are_not_published_if_an_old_file_stays(folder: Path) -> None:
    with disk(folder / "disk") as rescue:
        file = of_boot(rescue.folder, "a")
        assert file.save(joules(1), ended_well=True)
        with rescue.read_only():
            assert not file.save(joules(2), ended_well=False)
            assert joules_in(of_boot(rescue.folder, "a").load()) == 1
        assert file.save(joules(3), ended_well=False)


def test_a_folder_on_a_read_only_disk_is_used_without_a_lock(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with disk(folder / "disk") as rescue:
        of_boot(rescue.folder, "a").save(STATE, ended_well=True)
        if not rescue.is_mounted:
            pytest.skip("needs root, to mount a small file system")
        with rescue.read_only():
            file = of_boot(rescue.folder, "a")
            file.lock()
            assert "cannot be locked" in caplog.text
            assert file.load() == STATE
            file.unlock()


def test_the_error_for_a_forbidden_folder_names_a_fix(folder: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere; another test runs the program as another user")
    folder.chmod(0o555)
    with pytest.raises(PermissionDeniedError, match=rf"sudo install -d -o {access.this_user()} "):
        of_boot(folder, "a").lock()


@pytest.mark.reliability(
    12.32,
    "a state folder that belongs to another user",
    "refused with exit code 77; the error names the owner and the command to run as that user",
)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_closed_folder_is_named_and_not_a_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "counters.json").write_text("{}")
    for parent in (tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    tmp_path.chmod(0o700)
    os.seteuid(65534)
    try:
        name = access.this_user()
        with pytest.raises(PermissionDeniedError) as caught:
            StateFile(tmp_path, "counters", "a").load(is_read_only=True)
    finally:
        os.seteuid(0)
    assert str(caught.value) == (
        f"{tmp_path}: permission denied; set state_dir to a folder that this user may write, or "
        f"sudo install -d -o {name} {tmp_path}"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_writes_nothing_into_the_services_folder(folder: Path, measured: Callable[[str], None]) -> None:
    os.chown(folder, 65534, 65534)
    with pytest.raises(PermissionDeniedError, match=r"belongs to \w+, not to root; .*sudo -u \w+ wattpush"):
        of_boot(folder, "a").lock()
    assert list(folder.iterdir()) == []
    # Reading is allowed.
    assert of_boot(folder, "a").load(is_read_only=True) == State()
    measured("root writes nothing there")


@pytest.mark.reliability(
    12.32,
    "a state folder that belongs to another user",
    "refused with exit code 77; the error names the owner and the command to run as that user",
)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_error_for_other_users_names_the_service_user() -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        folder = Path(place, "state")
        folder.mkdir(mode=0o700)
        of_boot(folder, "a").save(STATE, ended_well=True)
        os.chown(folder, 1, 1)
        os.seteuid(65534)
        try:
            for attempt in (of_boot(folder, "a").lock, of_boot(folder, "a").load):
                with pytest.raises(PermissionDeniedError, match=r"belongs to \w+, not to \w+; .*sudo -u \w+ wattpush"):
                    attempt()
        finally:
            os.seteuid(0)


def test_only_one_process_at_a_time_holds_the_lock(folder: Path) -> None:
    first, second = of_boot(folder / "new" / "folder", "a"), of_boot(folder / "new" / "folder", "a")
    first.lock()
    with pytest.raises(BusyError, match=rf"in use by another wattpush \(.+, pid {os.getpid()}\); stop it first"):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()


class PowerCuts:
    """What survives a power cut: the names at the last sync of the folder, with the contents that were synced then.

    A name that reached the disk without its content is an empty file, as on ext4.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._synced = {path.stat().st_ino: path.read_bytes() for path in folder.iterdir()}
        self.certain = self._durable()

    def _durable(self) -> dict[str, bytes]:
        """Every file with its content, or without it where only the name was synced."""
        return {path.name: self._synced_content(path) for path in self.folder.iterdir()}

    def _synced_content(self, path: Path) -> bytes:
        # Compared as well, because the number of a removed file is used again.
        content = path.read_bytes()
        return content if self._synced.get(path.stat().st_ino) == content else b""

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        real = os.fsync

        def fsync(file: int) -> None:
            real(file)
            status = os.fstat(file)
            if stat.S_ISDIR(status.st_mode):
                self.certain = self._durable()
            else:
                self._synced[status.st_ino] = Path(f"/proc/self/fd/{file}").read_bytes()

        with patch("os.fsync", fsync):
            yield

    def cut(self, outcome: str) -> None:
        """Cut the power. Changes that were not synced are lost, or kept, or torn: the names kept without contents."""
        now = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        after = {"lost": self.certain, "kept": now, "torn": self._durable()}[outcome]
        for path in self.folder.iterdir():
            path.unlink()
        for name, data in after.items():
            (self.folder / name).write_bytes(data)
        self._synced = {path.stat().st_ino: path.read_bytes() for path in self.folder.iterdir()}
        self.certain = after


@pytest.mark.parametrize("outcome", ["lost", "kept", "torn"])
def test_a_power_cut_after_a_clean_end_loses_nothing(folder: Path, outcome: str) -> None:
    cuts = PowerCuts(folder)
    with cuts.watched():
        of_boot(folder, "a").save(joules(5), ended_well=False)
        of_boot(folder, "a").save(joules(7), ended_well=True)
    cuts.cut(outcome)
    assert joules_in(of_boot(folder, "b").load()) == 7


@pytest.mark.parametrize("outcome", ["lost", "kept", "torn"])
def test_a_power_cut_during_a_run_resets_counters_to_zero(folder: Path, outcome: str) -> None:
    cuts = PowerCuts(folder)
    with cuts.watched():
        of_boot(folder, "a").save(joules(5), ended_well=True)
        running = of_boot(folder, "a")
        running.save(joules(7), ended_well=False)
        running.save(joules(9), ended_well=False)
    cuts.cut(outcome)
    assert of_boot(folder, "b").load() == State()


pushes = st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(["", "", "", "full", "read-only"])), max_size=4)
runs = st.lists(
    st.tuples(
        st.sampled_from(["once", "loop"]),
        pushes,
        st.sampled_from(["well", "well", "killed", "reboot", "lost", "kept", "torn"]),
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def one_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with disk(tmp_path_factory.mktemp("disk")) as made:
        yield made


@pytest.mark.reliability(
    12.11,
    "random sequences of runs, kills, power cuts that lose or tear writes, full and read-only disks",
    "Prometheus never adds up more energy than flowed",
)
@given(runs)
@settings(max_examples=250)
@example([("loop", [(500, "")], "well"), ("once", [(1, "read-only"), (1, "")], "lost"), ("loop", [(1, "")], "well")])
@example([("once", [(500, ""), (500, "full")], "lost"), ("loop", [(1, "")], "well")])
@example([("loop", [(500, ""), (500, "")], "lost"), ("loop", [(7, "")], "well")])
def test_prometheus_never_adds_energy_that_did_not_flow(
    one_disk: Disk, runs: list[tuple[str, list[tuple[int, str]], str]]
) -> None:
    """Over any sequence of runs, kills, power cuts and disk faults."""
    boot, flowed, rise, before = 0, 0.0, 0.0, 0.0
    for path in one_disk.folder.iterdir():
        path.unlink()
    cuts = PowerCuts(one_disk.folder)
    with cuts.watched():
        for kind, pushed, end in runs:
            file = of_boot(one_disk.folder, str(boot))
            counted = joules_in(file.load())
            for amount, fault in pushed:
                counted += amount
                flowed += amount
                with ExitStack() as stack:
                    if fault:
                        stack.enter_context({"full": full, "read-only": one_disk.read_only}[fault]())
                    publishable = file.save(joules(counted), ended_well=kind == "once")
                if publishable:
                    rise += counted - before if counted >= before else counted  # what rate() and increase() do
                    before = counted
            if end in ("well", "reboot") and kind == "loop":
                file.save(joules(counted), ended_well=True)
            if end in ("lost", "kept", "torn"):
                cuts.cut(end)
            boot += end not in ("well", "killed")
    assert rise <= flowed


@given(runs)
@settings(max_examples=100)
def test_without_faults_and_power_cuts_no_energy_is_lost(runs: list[tuple[str, list[tuple[int, str]], str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, boot, flowed = Path(name), 0, 0.0
        for kind, pushed, end in runs:
            file = of_boot(folder, str(boot))
            counted = joules_in(file.load())
            for amount, _ in pushed:
                counted += amount
                flowed += amount
                assert file.save(joules(counted), ended_well=kind == "once")
            if end != "killed" and pushed:
                file.save(joules(counted), ended_well=True)
                boot += end == "reboot"
            assert counted == flowed


def test_a_running_loop_does_not_sync_at_every_push(folder: Path) -> None:
    """To spare the memory card, only the first file of a run and its last are synced."""
    cuts = PowerCuts(folder)
    with cuts.watched():
        file = of_boot(folder, "a")
        file.save(joules(1), ended_well=False)
        first = cuts.certain["counters.json"]
        file.save(joules(2), ended_well=False)
        assert cuts.certain["counters.json"] == first
        file.save(joules(3), ended_well=True)
    assert cuts.certain["counters.json"] == (folder / "counters.json").read_bytes() != first
