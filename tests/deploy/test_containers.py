"""The container files, as far as they can be tested without a container engine: copies, mounts, references."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.history.engines import VictoriaMetrics
from tests.prometheus_server import binary
from tests.run.running import groups_of, run
from tests.servers import running_pushgateway

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
PROVISIONING = DEPLOY / "grafana" / "provisioning"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


COMPOSE = load(DEPLOY / "compose.yml")


def mounts(service: str) -> dict[str, str]:
    """The mounts of a service, by path in the container."""
    return {mount.split(":")[1]: mount.split(":")[0] for mount in COMPOSE["services"][service]["volumes"]}


def test_every_mounted_volume_and_folder_exists() -> None:
    for service in COMPOSE["services"].values():
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).is_dir(), source
                assert mount.endswith(":ro")
            elif not source.startswith(("/", "$")):
                assert source in COMPOSE["volumes"], source


def test_a_service_depends_only_on_services_that_exist() -> None:
    for service in COMPOSE["services"].values():
        for needed in service.get("depends_on", []):
            assert "profiles" not in COMPOSE["services"][needed]


def flags(service: str) -> dict[str, str]:
    """The flags of a service with their values."""
    return dict(flag.removeprefix("--").partition("=")[::2] for flag in COMPOSE["services"][service]["command"])


def test_the_profile_history_adds_a_database_and_its_rules() -> None:
    names = {name for name, service in COMPOSE["services"].items() if service.get("profiles") == ["history"]}
    assert names == {"victoriametrics", "vmalert"}
    # A lost answer stores a sample twice without the first, and the default of the second is a month.
    database = flags("victoriametrics")
    assert (database["dedup.minScrapeInterval"], database["retentionPeriod"]) == ("1ms", "1y")
    assert database["storageDataPath"] in mounts("victoriametrics")
    rules = flags("vmalert")
    assert {rules[name] for name in ("datasource.url", "remoteWrite.url", "remoteRead.url")} == {
        "http://victoriametrics:8428"
    }
    folder, _, pattern = rules["rule"].rpartition("/")
    parent, _, inside = folder.rpartition("/")
    assert list((DEPLOY / mounts("vmalert")[parent] / inside).glob(pattern))
    # The two are released together.
    assert len({COMPOSE["services"][name]["image"].rpartition(":")[2] for name in names}) == 1


@pytest.mark.parametrize(("service", "program"), [("victoriametrics", "victoria-metrics"), ("vmalert", "vmalert")])
def test_every_flag_of_the_profile_history_exists(service: str, program: str) -> None:
    done = subprocess.run(
        [binary(program, "victoria-metrics"), "-help"], capture_output=True, text=True, timeout=60, check=False
    )
    known = set(re.findall(r"^  -(\S+)", done.stdout + done.stderr, re.MULTILINE))
    assert "httpListenAddr" in known
    assert set(flags(service)) <= known


def test_the_documented_address_is_the_one_that_takes_remote_write() -> None:
    text = (DEPLOY / "compose.yml").read_text(encoding="utf-8")
    (url,) = re.findall(r"http://victoriametrics:\S+/write", text)
    assert urlsplit(url).path == VictoriaMetrics(Path()).write_path
    assert COMPOSE["services"]["victoriametrics"]["ports"] == [f"{urlsplit(url).port}:8428"]


def test_every_image_is_pinned_to_a_version() -> None:
    images = [service["image"] for service in COMPOSE["services"].values() if "image" in service]
    assert len(images) == 6
    assert [image for image in images if not re.search(r":v?\d+\.\d+\.\d+$", image)] == []


def test_the_gateway_is_new_enough_to_give_reasons_for_rejections() -> None:
    version = COMPOSE["services"]["pushgateway"]["image"].rpartition(":v")[2]
    assert tuple(map(int, version.split("."))) > (1, 11, 0)


def test_prometheus_scrapes_the_gateway_by_its_service_name() -> None:
    config = load(DEPLOY / "prometheus" / "prometheus.yml")
    (gateway,) = [job for job in config["scrape_configs"] if job.get("honor_labels")]
    assert gateway["static_configs"][0]["targets"] == ["pushgateway:9091"]
    assert "pushgateway" in COMPOSE["services"]


def test_grafana_finds_prometheus_and_the_mounted_dashboards() -> None:
    sources = load(PROVISIONING / "datasources" / "prometheus.yml")["datasources"]
    assert [source["url"] for source in sources] == [
        "http://prometheus:9090",
        "http://victoriametrics:8428",
        "http://alertmanager:9093",
    ]
    assert {urlsplit(source["url"]).hostname for source in sources} <= COMPOSE["services"].keys()
    assert [source["uid"] for source in sources if source.get("isDefault")] == ["prometheus"]
    (provider,) = load(PROVISIONING / "dashboards" / "wattpush.yml")["providers"]
    assert mounts("grafana")[provider["options"]["path"]] == "./grafana/dashboards"
    assert mounts("grafana")["/etc/grafana/provisioning"] == "./grafana/provisioning"
    home = Path(COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (DEPLOY / mounts("grafana")[str(home.parent)] / home.name).is_file()


@pytest.mark.parametrize(("service", "devices"), [("wattpush", ["/dev/i2c-1"]), ("demo", [])])
def test_the_agent_gets_the_bus_and_nothing_else(service: str, devices: list[str]) -> None:
    agent = COMPOSE["services"][service]
    assert agent.get("devices", []) == devices
    assert (agent["cap_drop"], agent["read_only"], agent["security_opt"]) == (["ALL"], True, ["no-new-privileges"])
    assert "privileged" not in agent
    assert (DEPLOY / agent["build"]["context"] / agent["build"]["dockerfile"]).is_file()


def test_the_profile_demo_pushes_simulated_devices_to_the_gateway(tmp_path: Path) -> None:
    demo = COMPOSE["services"]["demo"]
    assert demo["profiles"] == ["demo"]
    text = (DEPLOY / mounts("demo")["/etc/wattpush"] / "config.toml").read_text(encoding="utf-8")
    gateway = load(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"][0]
    assert text.count(f'"http://{gateway}"') == 1
    with running_pushgateway() as url:
        config = tmp_path / "config.toml"
        config.write_text(text.replace(f"http://{gateway}", url))
        environ = {**os.environ, "STATE_DIRECTORY": str(tmp_path / "state")}
        once = run("--config", config, *demo["command"], "--once", environ=environ)
        assert once.returncode == 0, once.stderr
        devices = {name for name in groups_of(url, "power", "demo-simulated") if name}
    assert devices == {"cpu", "accelerator", "radio"}


def test_alertmanager_takes_the_alerts_of_both_databases() -> None:
    alertmanager = COMPOSE["services"]["alertmanager"]
    assert "profiles" not in alertmanager  # Prometheus would log an error for each alert without it
    config = load(DEPLOY / "prometheus" / "prometheus.yml")
    (targets,) = [group["targets"] for group in config["alerting"]["alertmanagers"][0]["static_configs"]]
    assert targets == ["alertmanager:9093"]
    assert flags("vmalert")["notifier.url"] == f"http://{targets[0]}"
    folder, _, name = flags("alertmanager")["config.file"].rpartition("/")
    assert (DEPLOY / mounts("alertmanager")[folder] / name).is_file()
    assert flags("alertmanager")["storage.path"] in mounts("alertmanager")


INSTRUCTIONS = {
    "ARG", "FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "STOPSIGNAL", "ENTRYPOINT", "CMD", "LABEL",
}  # fmt: skip


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Containerfile. Source: Dockerfile reference, "Format": comments, continued lines."""
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ").splitlines()
    return [(line.split(" ", 1)[0], " ".join(line.split(" ", 1)[1].split())) for line in lines if line.strip()]


def test_the_image_runs_unprivileged_and_keeps_counters_in_a_volume() -> None:
    assert {name for name, _ in instructions()} <= INSTRUCTIONS
    last = dict(instructions())
    user, group = last["USER"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    state = dict([last["ENV"].split("=")])["STATE_DIRECTORY"]
    assert state in last["VOLUME"]
    assert mounts("wattpush")[state] == "wattpush"


@pytest.mark.parametrize(
    "name",
    [
        "requirements.txt",
        "requirements-build.txt",
        "deploy/pure.awk",
        "agent",
        "README.md",
        "scripts/package_readme.py",
    ],
)
def test_the_build_context_includes_all_that_the_image_copies(name: str) -> None:
    assert f"!{name}" in (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert (PROJECT / name).exists()
