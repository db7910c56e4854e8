"""Checks whether history arrives: each step towards its server, an empty request, both clocks, and how it is set up."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.check import Finding, Status, failed, ok, warning
from agent.check.connection import check_credentials, check_files, check_hops, skew
from agent.config import parse_duration
from agent.config.values import InvalidError, spell_duration
from agent.errors import AgentError, one_line
from agent.history.answers import verdict_of
from agent.history.dating import Dating, system_timebase
from agent.history.post import endpoint_of
from agent.history.write_request import EMPTY_REQUEST, HEADERS
from agent.http.client import Client
from agent.http.credentials import masked
from agent.push.probe import Probe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.clock import Clock
    from agent.http.connection import Answer
    from agent.settings import RemoteWriteSettings, Settings

_PREFIX = "remote_write "

_WRITE_PATH = re.compile(r"(?P<tenant>/insert/[^/]+)?(?P<prefix>/prometheus)?/api/v1/write/*$")
"""How VictoriaMetrics and Prometheus end the path; `/prometheus` belongs to the former, or is --web.route-prefix."""

_FLAG = re.compile(r'-([\w.-]+)="(.*)"')
_WINDOW = re.compile(r"^\s*out_of_order_time_window: *(\S+) *$", re.MULTILINE)
_PROMETHEUS_DURATION = re.compile(r"(?:[0-9]+(?:ms|[ywdhms]))+")
_DAYS = {"w": 7, "y": 365}
_DAYS_OF_A_MONTH = 31
_DAY_SECONDS = 86400.0
_DEDUPLICATION_HINT = "start it with -dedup.minScrapeInterval=1ms"
_SETTINGS_HINT = "what each server needs: docs/history.md"


def check_remote_write(
    settings: Settings,
    remote_write: RemoteWriteSettings,
    clock: Clock,
    environ: Mapping[str, str],
    dating: Dating | None = None,
) -> Iterator[Finding]:
    """Follow the route of a request; a finding for each step. Nothing is stored.

    Args:
        settings: holds the interval of the samples.
        remote_write: where to send.
        clock: for timeouts, and to compare with the server's.
        environ: the environment, for proxies and $CREDENTIALS_DIRECTORY.
        dating: knows whether the clock is right; by default that of this machine.
    """
    dating = dating or Dating(system_timebase(), trusts_clock=remote_write.clock == "system")
    endpoint = endpoint_of(remote_write)
    try:
        probe = Probe(Client(endpoint, clock=clock, environ=environ), remote_write.timeout_seconds)
    except AgentError as error:
        yield failed(f"{_PREFIX}proxy", error)
        return
    credentials = list(check_credentials(endpoint, environ, _PREFIX))
    yield from credentials
    if any(finding.exit_code for finding in credentials):
        return  # a request does not begin without them
    try:
        yield from check_hops(probe, clock, _PREFIX)
        begun_seconds = clock.monotonic()
        answer = probe.exchange("POST", remote_write.url, {**dict(remote_write.headers), **HEADERS}, EMPTY_REQUEST)
        seconds = clock.monotonic() - begun_seconds
        verdict = verdict_of(answer, probe.route, clock.time)
        verdict = replace(verdict, words=masked(verdict.words, probe.secrets))
        refusal = verdict.as_error()
        if refusal is not None:
            yield failed(f"{_PREFIX}request", refusal)
        else:
            yield ok(f"{_PREFIX}request", f"an empty one is accepted ({1000 * seconds:.0f} ms)")
        yield _clock(answer, clock.time() - seconds / 2, dating)
        yield from _check_server(settings, remote_write, probe, answer, is_accepted=refusal is None)
    except AgentError as error:
        yield failed(f"{_PREFIX.strip()}", error)
    finally:
        probe.close()


def check_remote_write_files(remote_write: RemoteWriteSettings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """A warning for each file of a request that this user cannot use; see `check_files`."""
    yield from check_files(endpoint_of(remote_write), environ, _PREFIX)


def _clock(answer: Answer, unix_seconds: float, dating: Dating) -> Finding:
    """Whether samples get a date, and the right one."""
    why_unknown = dating.why_unknown()
    harm = "samples get wrong times, and one from the future makes Prometheus refuse those of all nodes"
    if why_unknown:
        harm = "samples wait until this machine's clock is synchronised"
    found = skew(answer, unix_seconds, "the server", harm, _PREFIX)
    if found.status is Status.OK and why_unknown:
        text, _, hint = why_unknown.partition("; ")
        return warning(found.what, f"samples wait: {text}", hint)
    return found


def _check_server(
    settings: Settings, remote_write: RemoteWriteSettings, probe: Probe, answer: Answer, *, is_accepted: bool
) -> Iterator[Finding]:
    """How the server is set up, as far as it shows that."""
    path = _WRITE_PATH.search(urlsplit(remote_write.url).path)
    # lib/httpserver of VictoriaMetrics names its host in every answer.
    is_victoria_metrics = "X-Server-Hostname" in answer.headers
    found: list[Finding] = []
    if path is not None and is_victoria_metrics:
        found = _victoria_metrics(settings, remote_write, probe, path)
    elif path is not None:
        found = _prometheus(remote_write, probe)
    if found or not is_accepted:
        yield from found
    else:
        yield _not_shown("how the server is set up cannot be seen from here")


def _not_shown(text: str) -> Finding:
    return Finding(Status.NOTE, f"{_PREFIX}server", text, _SETTINGS_HINT)


def _get(probe: Probe, remote_write: RemoteWriteSettings, url: str) -> str | None:
    """The body at a URL of the server; None if it does not show it."""
    answer = probe.exchange("GET", url, dict(remote_write.headers))
    return answer.body.decode("utf-8", errors="replace") if answer.status == 200 else None


def _victoria_metrics(
    settings: Settings, remote_write: RemoteWriteSettings, probe: Probe, path: re.Match[str]
) -> list[Finding]:
    """By `GET /flags`, which shows the flags that are set.

    Source: VictoriaMetrics 1.79.5 and its documentation, "Deduplication" and "Retention".
    """
    if path["tenant"] is not None:
        return [_not_shown("a VictoriaMetrics cluster, whose vmstorage and vmselect cannot be seen from here")]
    text = _get(probe, remote_write, f"{remote_write.url.removesuffix(path[0])}/flags")
    lines = [_FLAG.fullmatch(line) for line in (text or "").splitlines()]
    flags = {line[1]: line[2] for line in lines if line is not None}
    if text is None or None in lines or "remoteWrite.url" in flags:
        return []  # not shown, something else, or vmagent
    deduplication, retention = flags.get("dedup.minScrapeInterval", "0s"), flags.get("retentionPeriod", "1")
    shown = f"-dedup.minScrapeInterval={one_line(deduplication)} -retentionPeriod={one_line(retention)}"
    deduplication_seconds = _go_seconds(deduplication)
    is_sampled = remote_write.resolution == "sample"
    spacing_seconds = settings.sample_interval_seconds if is_sampled else settings.interval_seconds
    what = f"{_PREFIX}server"
    found = [ok(what, f"VictoriaMetrics, {shown}")]
    if deduplication_seconds == 0:
        loses = "VictoriaMetrics stores a request twice if its answer was lost"
        found = [warning(what, loses, _DEDUPLICATION_HINT)]
    elif deduplication_seconds is not None and deduplication_seconds >= spacing_seconds:
        loses = f"VictoriaMetrics keeps one sample in {spell_duration(deduplication_seconds)}"
        found = [
            warning(
                what,
                f"{loses}, and those of this node are {spell_duration(spacing_seconds)} apart",
                _DEDUPLICATION_HINT,
            )
        ]
    kept_seconds = _retention_seconds(retention)
    if kept_seconds is not None and kept_seconds < remote_write.max_age_seconds:
        found.append(
            _too_old(
                remote_write,
                f"VictoriaMetrics drops what is older than {spell_duration(kept_seconds)}",
                "a longer -retentionPeriod",
            )
        )
    return found


def _prometheus(remote_write: RemoteWriteSettings, probe: Probe) -> list[Finding]:
    """By its HTTP API, `status/flags` and `status/config`."""
    api = remote_write.url.rstrip("/").removesuffix("/write")
    flags = _data(_get(probe, remote_write, f"{api}/status/flags"))
    receiver = flags.get("web.enable-remote-write-receiver")
    if receiver is None:
        return []
    what = f"{_PREFIX}server"
    found = [ok(what, f"Prometheus, --web.enable-remote-write-receiver={one_line(str(receiver), limit=20)}")]
    written = _data(_get(probe, remote_write, f"{api}/status/config")).get("yaml")
    if not isinstance(written, str):
        return found
    shown = _WINDOW.search(written)
    window_seconds = 0.0 if shown is None else _prometheus_seconds(shown[1])
    longer = "storage: tsdb: out_of_order_time_window in prometheus.yml"
    if window_seconds == 0:
        refuses = "Prometheus without an out_of_order_time_window refuses most of what comes late"
        return [warning(what, refuses, f"set {longer} to max_age, {spell_duration(remote_write.max_age_seconds)}")]
    if window_seconds is not None and window_seconds < remote_write.max_age_seconds:
        refuses = f"Prometheus refuses what is older than {spell_duration(window_seconds)}"
        found.append(_too_old(remote_write, refuses, f"a longer {longer}"))
    return found


def _too_old(remote_write: RemoteWriteSettings, text: str, other_hint: str) -> Finding:
    return warning(
        f"{_PREFIX}max_age",
        f"{text}, and max_age is {spell_duration(remote_write.max_age_seconds)}",
        f"set a shorter remote_write.max_age, or {other_hint}",
    )


def _data(text: str | None) -> dict[str, object]:
    """The data of an answer of Prometheus' API; empty if it is none."""
    try:
        data = json.loads(text or "")["data"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _go_seconds(text: str) -> float | None:
    """A duration as Go writes it, such as 1m0s; None if it is none."""
    try:
        return parse_duration(text)
    except InvalidError:
        return None


def _retention_seconds(text: str) -> float | None:
    """A -retentionPeriod: a number of months, or of h, d, w, y; None if it is neither."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)([hdwy]?)", text)
    if found is None:
        return None
    days = {"": _DAYS_OF_A_MONTH, "h": 1 / 24, "d": 1, **_DAYS}[found[2]]
    return float(found[1]) * days * _DAY_SECONDS


def _prometheus_seconds(text: str) -> float | None:
    """A duration as Prometheus writes it, such as 1d6h; None if it is none."""
    if not _PROMETHEUS_DURATION.fullmatch(text):
        return None
    units = {"ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": _DAY_SECONDS} | {
        unit: days * _DAY_SECONDS for unit, days in _DAYS.items()
    }
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9]{1,15})(ms|[ywdhms])", text))
