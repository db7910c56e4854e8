"""The log lines about devices: few enough to be read, whatever the wires do.

A fault gets one line when it begins and one when it ends. Another cause for the same device is another line; one cause
that many devices share (a bus, a mux) is one line. Faults that come and go would fill the log, so lines are limited: at
first a few at once, then one every few minutes. Events without a line of their own are summed up twice an hour. A fault
that lasts a minute has its line in any case, unless that device had several within the hour.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.log import counted
from agent.measure import low_side
from agent.measure.readings import Failure, Reading, Settling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agent.i2c.place import BusName
    from agent.measure.readings import Outcome
    from agent.settings import Device

log = logging.getLogger(__name__)

_LINES_AT_ONCE = 6
_SECONDS_PER_LINE = 450.0
_LASTING_SECONDS = 60.0
_SECONDS_BETWEEN_LASTING = 600.0
_LARGEST_DEBT = 3
"""Lines for ends of faults that are written although none is left."""
_HOUR_SECONDS = 3600.0
_LINES_OF_A_NAME = 3
"""Within an hour: a device with this many lines is flapping."""
_SUMMARY_SECONDS = 1800.0
_LISTED_NAMES = 8

_READINGS_WITHOUT_VOLTS = 10
"""In a row: a rail that is switched on may look the same for a moment."""
_READINGS_WITH_VOLTS = 60
"""In a row, after which a current without volts is worth another line."""

_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+(?:\.\d+)?")


@dataclass(slots=True)
class _Fault:
    """Why a device fails now.

    Attributes:
        error: the message of the last failure.
        cause: that message without its numbers, which may change from one failure to the next.
        since_seconds: when this cause began.
        failures: in a row, whatever their causes.
        is_logged: whether a line has named this cause, for this device or for all that share it.
    """

    error: str
    cause: str
    since_seconds: float
    failures: int = 0
    is_logged: bool = False


class SensorLog:
    """Logs the faults, recoveries and mux conflicts of each sweep."""

    def __init__(self, now: Callable[[], float], devices: Iterable[Device] = ()) -> None:
        """Prepare. `now` is a monotonic clock, in seconds; the shunts of `devices` tell a current from an offset."""
        self._now = now
        self._least_amperes = {device.name: low_side.least_amperes(device) for device in devices}
        self._faults: dict[str, _Fault] = {}
        self._have_worked: set[str] = set()
        self._lines = float(_LINES_AT_ONCE)
        self._lines_since_seconds = now()
        self._lasting_logged_at_seconds = -_SECONDS_BETWEEN_LASTING
        self._times_of: dict[str, deque[float]] = {}
        self._conflicts: dict[BusName, int] = {}
        self._without_volts: Counter[str] = Counter()  # readings in a row
        self._with_volts_again: Counter[str] = Counter()  # the same, of devices that have had their line
        # Since the last summary.
        self._unlogged: Counter[str] = Counter()
        self._last_error = ""
        self._more: Counter[str] = Counter()
        self._unlogged_since_seconds: float | None = None

    def write(self, outcomes: Iterable[Outcome], conflicts: Mapping[BusName, tuple[int, str]]) -> None:
        """Log one sweep.

        Args:
            outcomes: of all devices that were read.
            conflicts: see `Sweep.last_mux_conflicts`.
        """
        now = self._now()
        recovered: dict[str, list[tuple[str, int]]] = {}
        begun: dict[str, list[str]] = {}
        without_power: list[str] = []
        for outcome in outcomes:
            match outcome:
                case Reading(device=device, volts=volts, amperes=amperes):
                    self._have_worked.add(device)
                    self._note_volts(device, volts, amperes)
                    if device in self._faults:
                        self._works(device, recovered, now)
                case Failure(device=device, error=error, tried=True):
                    self._fails(device, str(error), begun, now)
                case Settling(device=device, power_lost=True):
                    without_power.append(device)
        for devices in recovered.values():
            self._log_recovery(devices, now)
        self._log_faults(begun, now)
        self._log_power_losses(without_power, now)
        self._log_conflicts(conflicts, now)
        since_seconds = self._unlogged_since_seconds
        if since_seconds is not None and now - since_seconds >= _SUMMARY_SECONDS:
            self._log_summary(now - since_seconds)

    # Faults

    def _fails(self, device: str, error: str, begun: dict[str, list[str]], now: float) -> None:
        fault = self._faults.get(device)
        if fault is None:
            fault = self._faults[device] = _Fault(error, _NUMBERS.sub("#", error), now)
        elif error != fault.error:
            cause = _NUMBERS.sub("#", error)
            if cause != fault.cause:
                fault.cause, fault.since_seconds, fault.is_logged = cause, now, False
            fault.error = error
        fault.failures += 1
        if not fault.is_logged:
            begun.setdefault(error, []).append(device)

    def _works(self, device: str, recovered: dict[str, list[tuple[str, int]]], now: float) -> None:
        fault = self._faults.pop(device)
        self._last_error = f"{device}: {fault.error}"
        if fault.is_logged:
            recovered.setdefault(fault.cause, []).append((device, fault.failures))
        else:
            self._count(self._unlogged, device, fault.failures, now)

    def _log_faults(self, begun: Mapping[str, list[str]], now: float) -> None:
        """Log the causes that may have a line now; the others when they last, or in the next summary."""
        if not begun:
            return
        known = {fault.error for fault in self._faults.values() if fault.is_logged}
        waiting: list[tuple[str, list[str]]] = []
        for error, devices in begun.items():
            if error in known:  # another device behind the same bus or mux
                self._mark(devices)
            elif any(device not in self._have_worked for device in devices):  # at the start, each is worth its line
                self._log_fault(error, devices, now)
            elif not self._flaps(devices[0], now):
                waiting.append((error, devices))
        lines = self._lines_left(now)
        singly = len(waiting) if len(waiting) <= lines else max(0, lines - 1)
        for error, devices in waiting[:singly]:
            self._log_fault(error, devices, now)
        together = waiting[singly:]
        if lines < 1:
            together = [(error, devices) for error, devices in together if self._is_lasting(devices, now)]
            if now - self._lasting_logged_at_seconds < _SECONDS_BETWEEN_LASTING:
                return
            self._lasting_logged_at_seconds = now if together else self._lasting_logged_at_seconds
        if together:
            more = "; and other errors at others" if len(together) > 1 else ""
            devices = [device for _, names in together for device in names]
            self._log_fault(f"{together[0][0]}{more}", devices, now)

    def _is_lasting(self, devices: Sequence[str], now: float) -> bool:
        return any(now - self._faults[device].since_seconds >= _LASTING_SECONDS for device in devices)

    def _log_fault(self, error: str, devices: Sequence[str], now: float) -> None:
        if len(devices) == 1:
            log.error("%s: %s", devices[0], error)
        else:
            log.error("%s (%d devices: %s)", error, len(devices), _listed(devices))
        if any(device in self._have_worked for device in devices):
            self._lines -= 1
        self._times_of.setdefault(devices[0], deque(maxlen=_LINES_OF_A_NAME)).append(now)
        self._mark(devices)

    def _log_recovery(self, devices: Sequence[tuple[str, int]], now: float) -> None:
        self._lines_left(now)
        if self._lines <= -_LARGEST_DEBT:
            for device, count in devices:
                self._count(self._unlogged, device, count, now)
            return
        failures = sum(count for _, count in devices)
        what = f"after {counted(failures, 'failure')}"
        if len(devices) == 1:
            log.info("%s: works again %s", devices[0][0], what)
        else:
            log.info("%d devices work again %s: %s", len(devices), what, _listed([device for device, _ in devices]))
        self._lines -= 1

    def _mark(self, devices: Iterable[str]) -> None:
        for device in devices:
            self._faults[device].is_logged = True

    # Events

    def _log_power_losses(self, devices: Sequence[str], now: float) -> None:
        if not devices:
            return
        name = f"power of {devices[0]}"
        if self._flaps(name, now) or self._lines_left(now) < 1:
            for device in devices:
                self._count(self._more, f"{device}: its chip lost its power", 1, now)
            return
        if len(devices) == 1:
            log.warning("%s: its chip lost its power and was configured again", devices[0])
        else:
            log.warning(
                "the chips of %d devices lost their power and were configured again: %s", len(devices), _listed(devices)
            )
        self._lines -= 1
        self._times_of.setdefault(name, deque(maxlen=_LINES_OF_A_NAME)).append(now)

    def _log_conflicts(self, conflicts: Mapping[BusName, tuple[int, str]], now: float) -> None:
        """Name the first conflict on a bus, with what to do about it, and only count the others."""
        for bus, (count, text) in conflicts.items():
            earlier = self._conflicts.get(bus)
            self._conflicts[bus] = count
            if earlier is None:
                log.warning("%s", text)
                self._lines -= 1
            elif count > earlier:
                self._count(self._more, text, count - earlier, now)

    def _note_volts(self, device: str, volts: float, amperes: float) -> None:
        """Warn once of a current without a voltage: the watts and joules of the device are zero, or nearly so.

        It is worth another line after the device has had volts for a while; a rail that is off shows nothing.
        """
        if low_side.is_likely(volts, amperes, self._least_amperes.get(device, low_side.UNKNOWN_LEAST_AMPERES)):
            self._with_volts_again.pop(device, None)
            self._without_volts[device] += 1
            if self._without_volts[device] == _READINGS_WITHOUT_VOLTS:
                log.warning("%s: %s %s", device, low_side.describe(volts, amperes), low_side.HINT)
        elif device in self._without_volts:
            if self._without_volts[device] < _READINGS_WITHOUT_VOLTS:
                del self._without_volts[device]
            elif not low_side.has_no_volts(volts):
                self._with_volts_again[device] += 1
                if self._with_volts_again[device] >= _READINGS_WITH_VOLTS:
                    del self._without_volts[device], self._with_volts_again[device]

    # Limits

    def _flaps(self, name: str, now: float) -> bool:
        times = self._times_of.get(name)
        return times is not None and len(times) == _LINES_OF_A_NAME and now - times[0] < _HOUR_SECONDS

    def _lines_left(self, now: float) -> int:
        gained = (now - self._lines_since_seconds) / _SECONDS_PER_LINE
        self._lines = min(float(_LINES_AT_ONCE), self._lines + gained)
        self._lines_since_seconds = now
        return int(max(0.0, self._lines))

    # What has no line of its own

    def _count(self, counter: Counter[str], name: str, times: int, now: float) -> None:
        counter[name] += times
        if self._unlogged_since_seconds is None:
            self._unlogged_since_seconds = now

    def _log_summary(self, seconds: float) -> None:
        minutes = round(seconds / 60)
        if self._unlogged:
            names = ", ".join(f"{name} {count}" for name, count in self._unlogged.most_common(_LISTED_NAMES))
            more = ", ..." if len(self._unlogged) > _LISTED_NAMES else ""
            log.warning(
                "%s failed for moments in the last %d min, %s in all: %s%s; the last time: %s",
                counted(len(self._unlogged), "device"),
                minutes,
                counted(self._unlogged.total(), "time"),
                names,
                more,
                self._last_error,
            )
            self._lines -= 1
        if self._more:
            text = "; ".join(f"{count} x {name}" for name, count in self._more.most_common(_LISTED_NAMES))
            log.warning("also in the last %d min: %s", minutes, text)
            self._lines -= 1
        self._unlogged.clear()
        self._more.clear()
        self._unlogged_since_seconds = None


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _LISTED_NAMES else ""
    return ", ".join(names[:_LISTED_NAMES]) + more
