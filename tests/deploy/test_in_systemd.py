"""The service, the timer and the cron line in a Debian that has booted its own systemd."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from agent import __version__
from tests.deploy.machine import PROJECT, booted, settled
from tests.init.dialogue import answer_for_the_builtin_node, dialogue
from tests.run.running import samples_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.deploy.machine import Machine

# `make test` and "not long" deselect these; `make test-systemd` runs them.
pytestmark = [pytest.mark.long, pytest.mark.systemd]

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/srv/wheels"}
INSTALL = "/srv/wattpush/deploy/install.sh"
SERVICE, ONCE, TIMER = "wattpush.service", "wattpush-once.service", "wattpush-once.timer"
GATEWAY = "http://localhost:9091"
SIMULATED = "[Service]\nExecStart=\nExecStart=/opt/wattpush/bin/wattpush --simulate\n"
SIMULATED_ONCE = "[Service]\nExecStart=\nExecStart=/opt/wattpush/bin/wattpush --once --simulate\n"
AS_SERVICE = ["setpriv", "--reuid=wattpush", "--regid=wattpush", "--init-groups"]
SECONDS = 60.0
"""How long a start, a restart or a push may take on a busy machine."""


def configure(machine: Machine, hostname: str, url: str = GATEWAY, push: str = "", device: str = "") -> None:
    device = device or '[[device]]\nname = "cpu"\nchip = "ina260"\nbus = 1\naddress = 0x40\n'
    text = f'hostname = "{hostname}"\ninterval = "1s"\nsample_interval = "200ms"\nstate_dir = "/var/lib/wattpush"\n'
    text += f'[pushgateway]\nurl = "{url}"\n{push}\n'
    machine.do("install", "--mode=640", "--group=wattpush", "/dev/null", "/etc/wattpush/config.toml")
    (machine.root / "etc/wattpush/config.toml").write_text(text + device, encoding="utf-8")


def pushed(machine: Machine, hostname: str, name: str) -> float | None:
    """The value of a series of the node's device at the Pushgateway."""
    for labels, value in samples_of(machine.samples()).get(name, {}).items():
        names = {("hostname", hostname), ("hostname", f"{hostname}-simulated")}
        if names.intersection(labels) and ("device", "cpu") in labels:
            return value
    return None


def arrives(machine: Machine, hostname: str) -> None:
    until(lambda: pushed(machine, hostname, "wattpush_device_up") == 1, f"{hostname} is at the gateway", SECONDS)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with booted(tmp_path_factory.mktemp("machine")) as machine:
        machine.do(INSTALL, environ=OFFLINE)
        yield machine


@pytest.fixture
def machine(installed: Machine) -> Iterator[Machine]:
    """A machine with wattpush installed, simulated chips, and nothing running before or after."""
    installed.drop_in(SERVICE, SIMULATED)
    installed.drop_in(ONCE, SIMULATED_ONCE)
    yield installed
    installed.run("systemctl", "disable", "--now", SERVICE, TIMER, ONCE)
    installed.run("systemctl", "reset-failed")
    for unit in (SERVICE, ONCE, TIMER):
        installed.run("rm", "--recursive", "--force", f"/etc/systemd/system/{unit}.d")
    installed.do("systemctl", "daemon-reload")


def test_an_installation_enables_nothing(machine: Machine) -> None:
    for unit in (SERVICE, TIMER):
        assert machine.run("systemctl", "is-enabled", unit).stdout.strip() == "disabled"
        assert not machine.is_active(unit)


def test_this_systemd_knows_every_setting_of_the_units(machine: Machine) -> None:
    done = machine.run(
        "systemd-analyze", "verify", "--man=no", *(f"/etc/systemd/system/{unit}" for unit in (SERVICE, ONCE, TIMER))
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_becomes_active_when_ready_and_pushes(machine: Machine) -> None:
    configure(machine, "loop")
    machine.do("systemctl", "start", SERVICE)
    assert machine.show(SERVICE, "ActiveState") == "active"
    assert "devices up" in machine.show(SERVICE, "StatusText") or "device up" in machine.show(SERVICE, "StatusText")
    arrives(machine, "loop")


def test_the_service_starts_without_a_network(machine: Machine) -> None:
    configure(machine, "offline", "http://192.0.2.1:9091")
    machine.do("systemctl", "start", SERVICE)
    assert machine.show(SERVICE, "ActiveState") == "active"


def test_the_service_has_no_privileges_and_fits_its_memory_limit(machine: Machine) -> None:
    configure(machine, "locked")
    machine.do("systemctl", "start", SERVICE)
    arrives(machine, "locked")
    process = machine.show(SERVICE, "MainPID")
    status = dict(
        line.split(":\t", 1) for line in machine.do("cat", f"/proc/{process}/status").splitlines() if ":\t" in line
    )
    user = machine.do("id", "--user", "wattpush").strip()
    assert status["Uid"].split() == [user] * 4
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    limit_bytes = int(machine.show(SERVICE, "MemoryMax"))
    assert int(status["VmHWM"].split()[0]) * 1024 < 0.75 * limit_bytes


HANG = """\
import pathlib, signal, socket
listener = socket.create_server(("127.0.0.1", 9099))
client, _ = listener.accept()
pathlib.Path("/srv/asked").touch()
signal.pause()
"""


def test_a_stop_does_not_wait_for_a_gateway_that_hangs(machine: Machine) -> None:
    machine.write("/srv/hang.py", HANG)
    machine.do("systemd-run", "--unit=hanging", "/usr/bin/python3", "/srv/hang.py")
    configure(machine, "stopped", "http://127.0.0.1:9099", push='timeout = "1h"')
    # systemd remembers the result of an enabled unit after its end.
    machine.do("systemctl", "enable", "--now", SERVICE)
    until((machine.root / "srv/asked").exists, "it pushes", SECONDS)
    machine.do("systemctl", "stop", SERVICE)
    # It would be "timeout" otherwise: the unit allows five seconds.
    assert machine.show(SERVICE, "Result") == "success"
    machine.do("systemctl", "stop", "hanging")


def test_an_agent_that_hangs_is_restarted_by_the_watchdog(machine: Machine) -> None:
    machine.drop_in(SERVICE, "[Service]\nWatchdogSec=3s\nRestartSec=100ms\n", "watchdog.conf")
    configure(machine, "hung")
    machine.do("systemctl", "start", SERVICE)
    hung = machine.show(SERVICE, "MainPID")
    machine.do("sh", "-c", f"kill -STOP {hung}")

    def is_restarted() -> bool:
        return machine.is_active(SERVICE) and machine.show(SERVICE, "MainPID") not in ("0", hung)

    until(is_restarted, "the watchdog restarts it", SECONDS)
    assert int(machine.show(SERVICE, "NRestarts")) >= 1
    assert "Watchdog timeout" in machine.do("journalctl", "--no-pager", "--unit", SERVICE)
    arrives(machine, "hung")


def test_an_agent_that_is_killed_is_restarted(machine: Machine) -> None:
    machine.drop_in(SERVICE, "[Service]\nRestartSec=100ms\n", "quick.conf")
    configure(machine, "killed")
    machine.do("systemctl", "start", SERVICE)
    killed = machine.show(SERVICE, "MainPID")
    machine.do("sh", "-c", f"kill -KILL {killed}")
    until(lambda: int(machine.show(SERVICE, "NRestarts")) >= 1 and machine.is_active(SERVICE), "it is back", SECONDS)
    assert machine.show(SERVICE, "MainPID") != killed


def test_a_bad_configuration_is_reported_and_not_retried(machine: Machine) -> None:
    configure(machine, "bad", device='[[device]]\nname = "cpu"\nchip = "ina261"\n')
    assert machine.run("systemctl", "start", SERVICE).returncode != 0
    # Between two attempts it would be "auto-restart".
    assert settled(machine, SERVICE) == "failed"
    assert machine.show(SERVICE, "ExecMainStatus") == "78"
    assert machine.show(SERVICE, "NRestarts") == "0"
    assert "ina261" in machine.do("journalctl", "--no-pager", "--unit", SERVICE)


def test_a_reload_works_within_the_sandbox(machine: Machine) -> None:
    configure(machine, "before")
    machine.do("systemctl", "start", SERVICE)
    process = machine.show(SERVICE, "MainPID")
    configure(machine, "after")
    machine.do("systemctl", "reload", SERVICE)
    arrives(machine, "after")
    assert machine.show(SERVICE, "MainPID") == process


def test_a_reload_of_a_bad_file_fails_and_changes_nothing(machine: Machine) -> None:
    configure(machine, "steady")
    machine.do("systemctl", "start", SERVICE)
    process = machine.show(SERVICE, "MainPID")
    configure(machine, "steady", device='[[device]]\nname = "cpu"\nchip = "ina261"\n')
    assert machine.run("systemctl", "reload", SERVICE).returncode != 0
    assert "ina261" in machine.do("journalctl", "--no-pager", "--unit", SERVICE)
    assert (machine.is_active(SERVICE), machine.show(SERVICE, "MainPID")) == (True, process)
    arrives(machine, "steady")


def test_timer_and_service_replace_each_other(machine: Machine) -> None:
    configure(machine, "either")
    machine.do("systemctl", "start", SERVICE)
    machine.do("systemctl", "start", TIMER)
    assert (machine.is_active(SERVICE), machine.is_active(TIMER)) == (False, True)
    machine.do("systemctl", "start", SERVICE)
    assert (machine.is_active(SERVICE), machine.is_active(TIMER)) == (True, False)
    assert "cycle" not in machine.do("journalctl", "--no-pager", "--boot", "_PID=1")


def test_each_run_of_the_timer_pushes_one_reading(machine: Machine) -> None:
    configure(machine, "timed")
    # Every 2 s instead of every minute; the rest of the timer is as installed.
    machine.drop_in(TIMER, "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/2\nRandomizedDelaySec=0\n")
    machine.do("systemctl", "start", TIMER)

    def readings() -> float:
        return pushed(machine, "timed", "wattpush_device_readings_total") or 0.0

    until(lambda: readings() >= 2, "two runs have pushed", SECONDS)
    assert machine.show(ONCE, "Result") == "success"
    assert machine.run("systemctl", "is-failed", ONCE).returncode != 0


def test_the_installed_timer_fires_within_two_minutes(machine: Machine) -> None:
    machine.do("systemctl", "start", TIMER)
    # None during a run.
    moment = until(lambda: machine.show(TIMER, "NextElapseUSecRealtime"), "the timer waits", SECONDS)
    next_seconds = int(machine.do("date", "+%s", "--date", moment))
    now_seconds = int(machine.do("date", "+%s"))
    assert now_seconds - 1 <= next_seconds <= now_seconds + 120


def test_a_manual_run_beside_the_service_is_refused(machine: Machine) -> None:
    configure(machine, "beside")
    machine.do("systemctl", "start", SERVICE)
    assert machine.run("systemctl", "start", ONCE).returncode != 0
    assert machine.show(ONCE, "ExecMainStatus") == "75"
    assert machine.is_active(SERVICE)


def test_the_example_of_credentials_works(machine: Machine) -> None:
    configure(machine, "secret", push='username = "node"\npassword_file = "password"')
    machine.write("/etc/wattpush/password", "hunter2\n", 0o600)
    example = (PROJECT / "deploy/systemd/examples/credentials.conf").read_text(encoding="utf-8")
    machine.drop_in(SERVICE, example, "credentials.conf")
    machine.do("systemctl", "start", SERVICE)
    # Every push reads the file; without it, no push would arrive.
    arrives(machine, "secret")


def test_a_kernel_chip_is_read_within_the_sandbox(machine: Machine) -> None:
    for name, text in {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "1200"}.items():
        machine.write(f"/srv/hwmon/hwmon0/{name}", f"{text}\n")
    # This kernel has no such chip: a folder stands in for the one in sysfs, below the same read-only /sys.
    machine.drop_in(
        SERVICE,
        "[Service]\nExecStart=\nExecStart=/opt/wattpush/bin/wattpush\n"
        "TemporaryFileSystem=/sys/class\nBindReadOnlyPaths=/srv/hwmon:/sys/class/hwmon\n",
    )
    chip = '[[device]]\nname = "cpu"\nchip = "hwmon"\nsensor = "ina3221"\nlabel = "VDD_IN"\n'
    configure(machine, "jetson", device=chip)
    machine.do("systemctl", "start", SERVICE)
    arrives(machine, "jetson")
    assert pushed(machine, "jetson", "wattpush_device_watts") == pytest.approx(6.0)


OPEN_DEVICES = """\
import errno, os
for name in ("i2c-1", "other"):
    try:
        os.open("/dev/" + name, os.O_RDWR)
    except OSError as error:
        print(name, errno.errorcode[error.errno])
"""


def load_i2c_dev(machine: Machine) -> None:
    """Show the class of the I2C buses in /proc/devices, where systemd looks up DeviceAllow=char-i2c."""
    machine.write("/srv/devices", machine.do("cat", "/proc/devices").replace("\n\nBlock", "\n 89 i2c\n\nBlock"))
    machine.do("mount", "--bind", "/srv/devices", "/proc/devices")


def test_the_sandbox_allows_i2c_buses_and_no_other_device(machine: Machine) -> None:
    """No driver provides buses here, so opening one ends in ENXIO, which comes after all permission checks."""
    machine.write("/srv/open.py", OPEN_DEVICES)
    load_i2c_dev(machine)
    try:
        # The same kind of device with another number: only the sandbox distinguishes them.
        for name, major in (("i2c-1", "89"), ("other", "90")):
            machine.do("mknod", "--mode=660", f"/dev/{name}", "c", major, "1")
            machine.do("chgrp", "i2c", f"/dev/{name}")
        machine.drop_in(ONCE, "[Service]\nExecStart=\nExecStart=/usr/bin/python3 /srv/open.py\n")
        machine.do("systemctl", "start", ONCE)
        said = machine.do("journalctl", "--no-pager", "--output=cat", "--unit", ONCE)
        assert re.findall(r"^(\S+) (E\w+)$", said, re.MULTILINE)[-2:] == [("i2c-1", "ENXIO"), ("other", "EPERM")]
    finally:
        machine.do("umount", "/proc/devices")
        machine.do("rm", "--force", "/dev/i2c-1", "/dev/other")


def test_a_service_started_before_i2c_dev_is_restarted_until_it_is_loaded(machine: Machine) -> None:
    machine.drop_in(SERVICE, "[Service]\nExecStart=\nExecStart=/opt/wattpush/bin/wattpush\nRestartSec=500ms\n")
    configure(machine, "early")
    machine.do("mknod", "--mode=660", "/dev/i2c-1", "c", "89", "1")
    machine.do("chgrp", "i2c", "/dev/i2c-1")
    try:
        assert machine.run("systemctl", "start", SERVICE).returncode != 0
        until(lambda: int(machine.show(SERVICE, "NRestarts")) >= 1, "it is restarted", SECONDS)
        said = machine.do("journalctl", "--no-pager", "--unit", SERVICE)
        assert "status=77" in said
        assert "nogroup" not in said
        load_i2c_dev(machine)
        # Then opening the bus ends in ENXIO: an error of the bus, with which the service goes on.
        until(lambda: machine.is_active(SERVICE), "it may open the bus", SECONDS)
    finally:
        machine.run("umount", "/proc/devices")
        machine.do("rm", "--force", "/dev/i2c-1")


VCGENCMD = """\
#!/usr/bin/python3
import errno, os, sys
try:
    os.open("/dev/vcio_gencmd", os.O_RDONLY)
except OSError as error:
    if error.errno != errno.ENXIO:
        print("Can't open device file: /dev/vcio_gencmd")
        sys.exit(255)
print("VDD_CORE_A current(7)=2.0A\\n VDD_CORE_V volt(15)=0.75V\\n EXT5V_V volt(24)=5.0V")
"""
"""Prints its answer if all permission checks of the device file pass: without a driver, opening it ends in ENXIO."""

BOARD = '[[device]]\nname = "cpu"\nchip = "rpi-pmic"\nrail = "all"\n'


def test_the_service_may_ask_the_firmware_of_a_raspberry_pi(machine: Machine) -> None:
    machine.drop_in(SERVICE, "[Service]\nExecStart=\nExecStart=/opt/wattpush/bin/wattpush\nRestartSec=500ms\n")
    configure(machine, "pi5", device=BOARD)
    machine.write("/usr/local/bin/vcgencmd", VCGENCMD)
    machine.do("chmod", "755", "/usr/local/bin/vcgencmd")
    machine.do("mknod", "--mode=660", "/dev/vcio_gencmd", "c", "92", "1")
    try:
        assert machine.run("systemctl", "start", SERVICE).returncode != 0
        said = machine.do("journalctl", "--no-pager", "--unit", SERVICE)
        assert "/dev/vcio_gencmd: permission denied; only root may open it" in said
        assert "status=77" in said
        machine.do("chgrp", "video", "/dev/vcio_gencmd")
        arrives(machine, "pi5")
        assert pushed(machine, "pi5", "wattpush_device_watts") == pytest.approx(1.5)
        assert machine.show(SERVICE, "SupplementaryGroups") == "i2c"
    finally:
        machine.do("rm", "--force", "/dev/vcio_gencmd", "/usr/local/bin/vcgencmd")


LISTEN_AS_LIBUSB = "[Service]\nExecStart=\nExecStart=/usr/bin/python3 -c 'import socket; socket.socket(16, 3, 15)'\n"
"""AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT: without it, libusb does not start."""


def test_only_the_usb_drop_in_lets_libusb_through_the_sandbox(machine: Machine) -> None:
    (change,) = re.findall(r"```systemd\n(.*?)```", (PROJECT / "docs/boards.md").read_text(encoding="utf-8"), re.DOTALL)
    machine.drop_in(ONCE, LISTEN_AS_LIBUSB)
    assert machine.run("systemctl", "start", ONCE).returncode != 0
    machine.drop_in(ONCE, change, "usb.conf")
    machine.do("systemctl", "start", ONCE)


def test_every_user_shares_one_set_of_counters(machine: Machine) -> None:
    by_hand = ["/opt/wattpush/bin/wattpush", "--once", "--simulate"]
    configure(machine, "hand")
    machine.do("systemctl", "start", SERVICE)
    arrives(machine, "hand")
    beside = machine.run(*AS_SERVICE, *by_hand)
    assert (beside.returncode, "in use by another wattpush" in beside.stderr) == (75, True)
    machine.do("systemctl", "stop", SERVICE)
    as_root = machine.run(*by_hand)
    assert (as_root.returncode, "sudo -u wattpush wattpush" in as_root.stderr) == (77, True)
    machine.do(*AS_SERVICE, *by_hand)
    machine.do("systemctl", "start", SERVICE)


def test_an_upgrade_restarts_the_service_and_keeps_its_counters(machine: Machine) -> None:
    configure(machine, "upgraded")
    machine.do("systemctl", "start", SERVICE)
    arrives(machine, "upgraded")
    before = pushed(machine, "upgraded", "wattpush_device_joules_total")
    config, process = machine.read("/etc/wattpush/config.toml"), machine.show(SERVICE, "MainPID")
    environment = machine.do("readlink", "/opt/wattpush/bin")

    machine.do(INSTALL, environ=OFFLINE)
    assert machine.read("/etc/wattpush/config.toml") == config
    assert machine.do("readlink", "/opt/wattpush/bin") != environment
    assert machine.is_active(SERVICE)
    assert machine.show(SERVICE, "MainPID") != process
    assert before is not None

    def joules() -> float:
        return pushed(machine, "upgraded", "wattpush_device_joules_total") or 0.0

    until(lambda: joules() > before, "the counter goes on", SECONDS)


def test_an_upgrade_that_refuses_the_configuration_keeps_the_old_version(machine: Machine) -> None:
    configure(machine, "kept")
    machine.do("systemctl", "start", SERVICE)
    process, environment = machine.show(SERVICE, "MainPID"), machine.do("readlink", "/opt/wattpush/bin")
    configure(machine, "kept", device='[[device]]\nname = "cpu"\nchip = "ina261"\n')
    done = machine.run(INSTALL, environ=OFFLINE)
    assert done.returncode == 78
    assert "ina261" in done.stderr
    assert "the installed version stays in place" in done.stderr
    assert (machine.show(SERVICE, "MainPID"), machine.do("readlink", "/opt/wattpush/bin")) == (process, environment)


def cron_command() -> str:
    """The command that cron hands to the shell."""
    line: str
    (line,) = re.findall(
        r"^\* \* \* \* \* wattpush (.*)$", (PROJECT / "deploy/cron/wattpush").read_text(encoding="utf-8"), re.MULTILINE
    )
    return line.replace("--once", "--once --simulate").replace("--splay 45s", "--splay 1s")


AS_CRON = [*AS_SERVICE, "sh", "-c"]
CRON_ENVIRON = {"STATE_DIRECTORY": "/var/lib/wattpush", "HOME": "/var/lib/wattpush"}


def test_the_cron_line_does_nothing_where_systemd_runs(machine: Machine) -> None:
    configure(machine, "cron-beside")
    machine.run(*AS_CRON, cron_command(), environ=CRON_ENVIRON)
    assert pushed(machine, "cron-beside", "wattpush_device_up") is None


def test_the_cron_line_pushes_without_systemd(machine: Machine) -> None:
    configure(machine, "cron")
    without_systemd = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run/systemd && exec "$@"', "sh"]
    machine.do(*without_systemd, *AS_CRON, cron_command(), environ=CRON_ENVIRON)
    assert pushed(machine, "cron", "wattpush_device_up") == 1


def test_the_commands_of_the_installation_page_work_in_order(tmp_path: Path) -> None:
    """The blocks of `sh`; blocks of `shell` need more than this machine has: PyPI, pipx, Docker."""
    page = (PROJECT / "docs" / "install.md").read_text(encoding="utf-8")
    commands = "".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)).splitlines()
    assert len(commands) > 10
    seen = set()
    with booted(tmp_path) as machine:
        machine.write("/usr/local/bin/sudo", '#!/bin/sh\nexec "$@"\n', 0o755)
        # Simulated chips: the only thing that the page does not say.
        config = "/etc/wattpush/config.toml"
        program = f'#!/bin/sh\nexec /usr/local/bin/wattpush --simulate --config {config} "$@"\n'
        machine.write("/usr/local/sbin/wattpush", program, 0o755)
        machine.drop_in(SERVICE, SIMULATED)
        machine.drop_in(ONCE, SIMULATED_ONCE)
        for command in commands:
            if command == "sudo wattpush init":
                with dialogue(machine.command("sh", "-c", command)) as person:
                    answer_for_the_builtin_node(person)
                assert machine.do("stat", "--format=%U:%G %a", config).strip() == "root:wattpush 640"
            elif "/dev/stdin" in command:
                machine.do("sh", "-c", f"echo hunter2 | {command}")
                assert machine.do(*AS_SERVICE, "cat", "/etc/wattpush/password") == "hunter2\n"
            else:
                machine.do("sh", "-c", f"cd /srv/wattpush && {command}", environ=OFFLINE)
                continue
            seen.add(command.split()[1])
        assert seen == {"wattpush", "install"}
        assert not (machine.root / "opt/wattpush").exists()


def test_an_uninstall_keeps_configuration_and_counters_and_a_purge_nothing(tmp_path: Path) -> None:
    with booted(tmp_path) as machine:
        before = machine.files()
        machine.do(INSTALL, environ=OFFLINE)
        configure(machine, "gone")
        machine.drop_in(SERVICE, SIMULATED)
        machine.do("systemctl", "enable", "--now", SERVICE)
        arrives(machine, "gone")

        machine.do(INSTALL, "--uninstall")
        assert not machine.is_active(SERVICE)
        kept = ("etc/wattpush", "var/lib/wattpush", "etc/systemd/system/wattpush.service.d")
        assert [path for path in machine.files() - before if not path.startswith(kept)] == []
        assert "joules" in "".join(path.read_text() for path in (machine.root / "var/lib/wattpush").glob("*.json"))
        assert machine.read("/etc/wattpush/config.toml")

        machine.do(INSTALL, "--uninstall", "--purge")
        assert machine.files() == before
        assert "wattpush" not in machine.read("/etc/passwd") + machine.read("/etc/group") + machine.read("/etc/shadow")
        assert "wattpush" not in machine.do("systemctl", "list-units", "--all", "wattpush*", "--no-legend")


def test_the_debian_package_installs_offline_upgrades_and_purges(tmp_path: Path) -> None:
    inside = f"/srv/wattpush/dist/wattpush_{__version__}_all.deb"
    with booted(tmp_path) as machine:
        before = machine.files()
        machine.do("dpkg", "--install", inside)
        assert not machine.is_active(SERVICE)
        machine.do("cp", "/usr/share/doc/wattpush/examples/cron", "/etc/cron.d/wattpush")
        assert machine.do("stat", "--format=%U:%G %a", "/etc/wattpush").strip() == "root:wattpush 750"
        configure(machine, "package")
        machine.drop_in(SERVICE, SIMULATED.replace("/opt/wattpush/bin", "/usr/bin"))
        machine.do("systemctl", "enable", "--now", SERVICE)
        arrives(machine, "package")
        config, process = machine.read("/etc/wattpush/config.toml"), machine.show(SERVICE, "MainPID")

        machine.do("dpkg", "--install", inside)
        assert machine.is_active(SERVICE)
        assert machine.show(SERVICE, "MainPID") != process
        assert machine.read("/etc/wattpush/config.toml") == config

        machine.do("dpkg", "--remove", "wattpush")
        assert not machine.is_active(SERVICE)
        assert machine.read("/etc/wattpush/config.toml") == config
        machine.do("dpkg", "--purge", "wattpush")
        assert machine.files() == before
        assert "wattpush" not in machine.read("/etc/passwd")
