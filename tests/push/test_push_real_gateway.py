"""Against a real Pushgateway."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from agent.errors import RejectedError
from agent.metrics.groups import Group
from tests.push.pushing import group, groups, message, push_one, pushgateway_for
from tests.run.running import until
from tests.servers import get, running_pushgateway


def stored(url: str, job: str) -> list[dict[str, Any]]:
    """The groups of a job as the gateway's API gives them (the labels, and each metric by name)."""
    return [entry for entry in json.loads(get(f"{url}/api/v1/metrics"))["data"] if entry["labels"]["job"] == job]


def value(entry: dict[str, Any], metric: str) -> float:
    return float(entry[metric]["metrics"][0]["value"])


def test_pushed_group_can_be_scraped_under_its_grouping_key(pushgateway_url: str) -> None:
    with pushgateway_for(pushgateway_url, job="scraped") as destination:
        device, node = destination.push([group("cpu", test_scraped_watts=7.25), group(None, test_scraped_info=1)], 10)
    assert (device.name, device.attempts, device.error) == ("device cpu", 1, None)
    assert (node.name, node.attempts, node.error) == ("node", 1, None)
    text = get(f"{pushgateway_url}/metrics")
    assert 'test_scraped_watts{device="cpu",hostname="node-17",instance="",job="scraped"} 7.25' in text
    assert 'test_scraped_info{hostname="node-17",instance="",job="scraped"} 1' in text


def test_a_clock_far_in_the_future_fails_no_push(pushgateway_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 2.0**32)
    with pushgateway_for(pushgateway_url, job="future") as destination:
        assert push_one(destination).error is None


def test_series_no_longer_pushed_disappears(pushgateway_url: str) -> None:
    with pushgateway_for(pushgateway_url, job="vanishing") as destination:
        destination.push([group(test_vanishing_a_watts=1, test_vanishing_b_watts=2)], 10)
        destination.push([group(test_vanishing_b_watts=3)], 10)
    (entry,) = stored(pushgateway_url, "vanishing")
    assert "test_vanishing_a_watts" not in entry
    assert value(entry, "test_vanishing_b_watts") == 3


def test_delete_removes_only_the_named_groups(pushgateway_url: str) -> None:
    with pushgateway_for(pushgateway_url, job="deleting") as destination:
        destination.push([group("a"), group("b")], 10)
        (result,) = destination.delete([{"hostname": "node-17", "device": "a"}], 10)
    assert (result.name, result.error) == ("device a", None)
    # A Pushgateway answers a DELETE before it has done it.
    until(lambda: [entry["labels"]["device"] for entry in stored(pushgateway_url, "deleting")] == ["b"], "a is gone")


def test_deleting_a_missing_group_succeeds(pushgateway_url: str) -> None:
    with pushgateway_for(pushgateway_url, job="absent") as destination:
        assert destination.delete([{"hostname": "node-17"}], 10)[0].error is None


@pytest.mark.parametrize("device", ["rack 1/left", "a b", "ä", "100%", "a+b?c#d"])
def test_odd_device_names_arrive_unchanged(pushgateway_url: str, device: str) -> None:
    with pushgateway_for(pushgateway_url, job="odd names") as destination:
        result = destination.push([group(device)], 10)[0]
        assert result.error is None
        assert [entry["labels"]["device"] for entry in stored(pushgateway_url, "odd names")] == [device]
        destination.delete([{"hostname": "node-17", "device": device}], 10)


def test_path_prefix_in_the_url_is_kept() -> None:
    with running_pushgateway("--web.route-prefix=/push") as url:
        with pushgateway_for(f"{url}/push/") as destination:
            assert push_one(destination).error is None
        assert "test_watts" in get(f"{url}/push/metrics")
        with pushgateway_for(url) as destination:
            result = push_one(destination)
    assert isinstance(result.error, RejectedError)
    assert "404" in message(result)
    assert "check the path in pushgateway.url" in message(result)


def test_sixty_four_groups_all_arrive(pushgateway_url: str) -> None:
    with pushgateway_for(pushgateway_url, job="many") as destination:
        results = destination.push(groups(64), 10)
    assert [result.name for result in results] == [f"device d{number}" for number in range(64)]
    assert all(result.error is None for result in results)
    assert {entry["labels"]["device"] for entry in stored(pushgateway_url, "many")} == {f"d{n}" for n in range(64)}


def test_rejected_group_quotes_the_gateway_and_spares_the_others(pushgateway_url: str) -> None:
    registry = CollectorRegistry()
    Counter("test_typed_total", "a counter here", registry=registry)
    with pushgateway_for(pushgateway_url, job="typed") as destination:
        destination.push([group("gauge", test_typed_total=1)], 10)
        rejected, accepted = destination.push([Group({"hostname": "n", "device": "c"}, registry), group("fine")], 10)
        assert accepted.error is None
        assert isinstance(rejected.error, RejectedError)
        assert rejected.attempts == 1
        text = message(rejected)
        assert text.startswith("device c: ")
        assert "PUT /metrics/job/typed/device/c/hostname/n with 400 Bad Request: pushed metrics are invalid" in text
        assert "another group has this metric with another type" in text
        assert "\n" not in text
        destination.delete([{"hostname": "n", "device": "c"}, {"hostname": "node-17", "device": "gauge"}], 10)
