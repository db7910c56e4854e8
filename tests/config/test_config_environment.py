"""Values of the environment in the strings of config.toml."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import chips
from agent.config import escape, parse
from agent.config.environment import expand
from agent.config.values import InvalidError
from agent.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from agent.settings import Settings

FILE = """
hostname = "${NODE_NAME}"
interval = "${PERIOD}"
state_dir = "${BASE}/state"
[pushgateway]
url = "https://${GATEWAY_HOST}:9091/a$$b"
username = "$user"
password_file = "${CREDENTIALS_DIRECTORY}/password"
[[mux]]
name = "${MUX}"
chip = "tca9548a"
bus = 1
address = 0x70
[[device]]
name = "${NODE_NAME}-cpu"
chip = "ina260"
mux = "${MUX}"
channel = 0
address = 0x40
averaging = { count = 64, voltage = "${CONVERSION}", current = "1.1ms" }
"""
ENVIRON = {
    "NODE_NAME": "node-17",
    "PERIOD": "30s",
    "BASE": "/var/lib",
    "GATEWAY_HOST": "push.example.org",
    "CREDENTIALS_DIRECTORY": "/run/credentials/wattpush.service",
    "MUX": "m0",
    "CONVERSION": "1.1ms",
}


def parsed(text: str, environ: dict[str, str]) -> Settings:
    return parse(text, chips.options(), default_hostname="pi-4", environ=environ)


def problems(text: str, environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parsed(text, environ)
    return caught.value.problems


def test_any_string_may_name_a_variable_of_the_environment() -> None:
    settings = parsed(FILE, ENVIRON)
    gateway, (device,) = settings.pushgateway, settings.devices
    assert gateway is not None
    assert (settings.hostname, settings.interval_seconds, str(settings.state_dir)) == (
        "node-17",
        30.0,
        "/var/lib/state",
    )
    assert gateway.url == "https://push.example.org:9091/a$b"
    assert (gateway.username, gateway.password_file) == ("$user", "/run/credentials/wattpush.service/password")
    assert device.name == "node-17-cpu"
    assert device.place is not None
    assert device.place.mux is not None
    assert device.place.mux.name == "m0"
    assert device.averaging is not None


def test_an_unset_variable_is_an_error_that_names_the_key() -> None:
    """One line each, all at once, and nothing else is reported about these keys."""
    where = {
        "NODE_NAME": "hostname",
        "PERIOD": "interval",
        "GATEWAY_HOST": "pushgateway: url",
        "CONVERSION": 'device[1] "node-17-cpu": averaging: voltage',
    }
    for name, key in where.items():
        found = problems(FILE, {known: value for known, value in ENVIRON.items() if known != name})
        hint = "set it for this user or service, or write $$ for a $"
        assert f"{key}: the environment has no variable {name}; {hint}" in found
    assert len(problems(FILE, {"MUX": "m0"})) == 7


def test_the_value_of_a_variable_is_checked_like_any_other() -> None:
    assert 'hostname: "." cannot be' in problems(FILE, ENVIRON | {"NODE_NAME": "."})[0]
    assert "hostname: is empty" in problems(FILE, ENVIRON | {"NODE_NAME": ""})
    assert 'interval: expected a duration such as "15s" or a number of seconds, not "soon"' in problems(
        FILE, ENVIRON | {"PERIOD": "soon"}
    )


@pytest.mark.parametrize("text", ["${", "a${NODE_NAME", "${}", "${1A}", "${A-B}", "${ A }", "${A\u00e9}"])
def test_a_malformed_reference_is_refused(text: str) -> None:
    (problem,) = problems(FILE.replace('"${NODE_NAME}"', f'"{text}"'), ENVIRON | {"A": "a"})
    assert problem.startswith('hostname: "${" without the name of an environment variable and "}"')


@given(st.text())
def test_escaped_text_stands_for_itself(text: str) -> None:
    assert expand(escape(text), {}) == text


@given(st.text("$${}AB_ "), st.text("${}A"))
def test_a_value_is_never_expanded_again(text: str, value: str) -> None:
    try:
        expanded = expand(text, {"A": value})
    except InvalidError:
        return
    assert expanded.count(value) >= text.replace("$$", "").count("${A}")


def test_the_program_takes_the_environment_of_its_process(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'hostname = "${{NODE_NAME}}"\n{FILE[FILE.index("[pushgateway]") :]}')
    run = [sys.executable, "-m", "agent", "--config", str(file), "--once", "--dry-run", "--simulate"]
    set_ones = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **ENVIRON}
    shown = subprocess.run(run, env=set_ones, capture_output=True, text=True, timeout=60, check=False)
    assert shown.returncode == ExitCode.OK, shown.stderr
    assert "# PUT /a$b/metrics/job/power/device/node-17-cpu/hostname/node-17" in shown.stdout
    del set_ones["NODE_NAME"]
    refused = subprocess.run(run, env=set_ones, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == ExitCode.CONFIG
    assert "hostname: the environment has no variable NODE_NAME" in refused.stderr
