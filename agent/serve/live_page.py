"""The live page: one HTML page without outside assets, which is a plain table where no script runs.

Its script fetches the page again every 2 s and takes over what has changed, so that a reader keeps the focus, the
selection and the place. The Content-Security-Policy allows this style and this script by their hashes, no others.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import quote

from agent.log import counted
from agent.measure.readings import Failure, Reading, Settling
from agent.quantities import format_duration, format_energy
from agent.serve.plot import plot, quantity

if TYPE_CHECKING:
    from agent.serve.live_view import DeviceView, GatewayView, RemoteView, View
    from agent.serve.recent_power import Recent

_STYLE = files("agent.serve").joinpath("page.css").read_text(encoding="utf-8")
_SCRIPT = files("agent.serve").joinpath("page.js").read_text(encoding="utf-8")
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="4" fill="#0b62d6"/>'
    '<path d="M9 2 4 9h3.5L7 14l5-7H8.5z" fill="#fff"/></svg>'
)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash(_STYLE)}",
            f"script-src {_hash(_SCRIPT)}",
            "connect-src 'self'",
            "img-src data:",  # the icon
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_NOTHING = '<span aria-hidden="true">\u2013</span><span class="unseen">none</span>'
"""In place of a number that is not known."""


class LivePage:
    """Makes the page, at most once for each second, sweep and push: more clients cost next to nothing."""

    def __init__(self) -> None:
        self._made_for: tuple[int, int] | None = None
        self._page = b""
        self._plotted: Recent | None = None
        self._plots: dict[str, str] = {}

    def page(self, view: View) -> bytes:
        """The page that shows this view."""
        made_for = view.changes, int(view.now_seconds)
        if made_for != self._made_for:
            self._page = self._make(view).encode("utf-8", "replace")
            self._made_for = made_for
        return self._page

    def _make(self, view: View) -> str:
        if view.recent is not self._plotted:  # every few seconds
            self._plots = {
                name: plot(f"Power of {name} in the {_span(view.recent)}", number, trace)
                for number, (name, trace) in enumerate(view.recent.traces.items())
            }
            self._plotted = view.recent
        rows = "\n".join(_row(device, view, self._plots[device.name]) for device in view.devices)
        power, share = _total(view)
        title = f"{view.hostname} \u00b7 wattpush" if power is None else f"{power} \u00b7 {view.hostname}"
        return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:image/svg+xml,{quote(_ICON)}">
<style>{_STYLE}</style>
<noscript><meta http-equiv="refresh" content="5"></noscript>
</head>
<body>
<p id="lost" role="status"></p>
<main>
{_SIMULATED if view.is_simulated else ""}
<header>
<h1><bdi>{escape(view.hostname)}</bdi></h1>
{_health(view)}
<nav aria-label="Other pages">
<a id="metrics" href="metrics">Metrics</a>
<a id="health" href="-/healthy">Health</a>
</nav>
</header>
<dl>
{_fact("Power now", power or _NOTHING, share, "total")}
{_gateway(view.gateway, view.now_seconds)}
{_remote(view.remote, view.unix_seconds)}
</dl>
<table role="table">
<caption>Devices</caption>
<thead role="rowgroup">
<tr role="row">{_titles(view.recent)}</tr>
</thead>
<tbody role="rowgroup">
{rows}
</tbody>
</table>
<p class="foot">Read every {format_duration(view.sample_interval_seconds)}. Energy is counted over all runs and updated
every {format_duration(view.interval_seconds)}, as in the metrics. Plots show the mean power in a band from the lowest
to the highest reading. wattpush\u00a0{escape(view.version)}</p>
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


_SIMULATED = '<p class="simulated"><strong>SIMULATED</strong> These numbers come from simulated chips.</p>'


def _span(recent: Recent) -> str:
    return f"last {recent.span_seconds / 60:.0f} minutes"


def _titles(recent: Recent) -> str:
    titles = {
        "name": "Device",
        "watts": "Power",
        "volts": "Voltage",
        "amperes": "Current",
        "energy": "Energy",
        "power": _span(recent).capitalize(),
    }
    return "".join(f'<th role="columnheader" scope="col" class="{kind}">{title}</th>' for kind, title in titles.items())


def _fact(title: str, words: str, more: str, kind: str = "") -> str:
    return f'<div class="{kind}"><dt>{title}</dt><dd>{words}<span class="more">{more}</span></dd></div>'


def _health(view: View) -> str:
    kind, words = ("good", "healthy") if view.problem is None else ("bad", view.problem)
    return f'<p class="health {kind}"><span class="unseen">Agent: </span>{escape(words)}</p>'


def _is_current(device: DeviceView, view: View) -> bool:
    """Whether the device has a reading that may be shown as that of now: none may while the loop hangs."""
    return isinstance(device.outcome, Reading) and view.problem is None


def _total(view: View) -> tuple[str | None, str]:
    """The power of all devices that could be read now, and how many those are. What is in a sum counts once."""
    current = [device for device in view.devices if _is_current(device, view)]
    powers = [
        device.outcome.power_watts for device in current if isinstance(device.outcome, Reading) and not device.is_in_sum
    ]
    if len(current) == len(view.devices):
        share = f"of {counted(len(current), 'device')}"
    else:
        share = f"of {len(current)} of {counted(len(view.devices), 'device')}"
    return quantity(sum(powers), "W") if powers else None, share


def _gateway(gateway: GatewayView | None, now_seconds: float) -> str:
    if gateway is None:
        return ""
    name = f"<bdi>{escape(gateway.name)}</bdi>"
    if gateway.since_seconds is None:
        return _fact("Pushgateway", "not pushed yet", name)
    ago = _age(now_seconds - gateway.since_seconds)
    if not gateway.errors:
        return _fact("Pushgateway", "last push accepted", f"{ago} ago, {name}", "good")
    more = f" (and {counted(len(gateway.errors) - 1, 'more group')})" if len(gateway.errors) > 1 else ""
    return _fact("Pushgateway", f"failing for {ago}", f"<bdi>{escape(gateway.errors[0])}</bdi>{more}", "bad")


def _remote(remote: RemoteView | None, unix_seconds: float) -> str:
    if remote is None:
        return ""
    waiting = ""
    if remote.status is not None:
        samples, size = remote.status.backlog_samples, remote.status.backlog_bytes
        words = "1 sample ({}) waits" if samples == 1 else f"{samples:,} samples ({{}}) wait"
        waiting = words.format(quantity(size, "B"))
        if remote.status.oldest_seconds is not None:
            waiting += f", the oldest for {_age(unix_seconds - remote.status.oldest_seconds)}"
        waiting = waiting if samples else "nothing waits"
    kind = "bad" if remote.is_kept else "good"
    return _fact("Remote write", f"<bdi>{escape(remote.words)}</bdi>", waiting, kind)


def _row(device: DeviceView, view: View, picture: str) -> str:
    kind, state, values = _values(device, view)
    return (
        f'<tr role="row" class="{kind}"><th role="rowheader" scope="row" class="name">'
        f'<bdi>{escape(device.name)}</bdi><span class="state">{state}</span></th>'
        f'{values}<td role="cell" class="energy">{_energy(device)}</td>'
        f'<td role="cell" class="power">{picture}</td></tr>'
    )


def _values(device: DeviceView, view: View) -> tuple[str, str, str]:
    """The kind of state, its name, and the cells of power, voltage and current, or a message in their place."""
    match device.outcome:
        case Reading(volts=volts, amperes=amperes, power_watts=watts, at_seconds=at_seconds):
            if not _is_current(device, view):
                return "bad", "stale", _message(f"last read {_age(view.now_seconds - at_seconds)} ago")
            kinds = (("watts", watts, "W"), ("volts", volts, "V"), ("amperes", amperes, "A"))
            cells = (f'<td role="cell" class="{kind}">{quantity(value, unit)}</td>' for kind, value, unit in kinds)
            return "good", "ok", "".join(cells)
        case Failure(error=error, tried=tried):
            is_waiting = device.is_up and not tried
            return ("soon", "waiting", _message(str(error))) if is_waiting else ("bad", "failed", _message(str(error)))
        case Settling(power_lost=True):
            return "soon", "settling", _message("its chip lost its power and was configured again")
        case Settling(ready_at_seconds=ready_at_seconds):
            seconds = max(0.0, ready_at_seconds - view.now_seconds)
            return "soon", "settling", _message(f"first result in {seconds:.1f} s")
        case _:
            return "soon", "not read yet", _message("")


def _message(text: str) -> str:
    return f'<td role="cell" colspan="3" class="message"><bdi>{escape(text) or _NOTHING}</bdi></td>'


def _energy(device: DeviceView) -> str:
    if device.counters is None:
        return _NOTHING
    returned = device.counters.returned_joules
    text = _energy_words(device.counters.joules)
    return text + (f'<span class="more">{_energy_words(returned)} returned</span>' if returned else "")


def _energy_words(joules: float) -> str:
    return format_energy(joules).strip().replace(" ", "\u00a0")


def _age(seconds: float) -> str:
    """How long ago something was: `42 s`, `12 min`, `30 h`, `4 d`."""
    for unit, unit_seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * unit_seconds:
            return f"{seconds // unit_seconds:.0f}\u00a0{unit}"
    return f"{max(0.0, seconds):.0f}\u00a0s"
