"""Reading the chips that the kernel reads, of which some may hang: the bus behind their files may time out.

Nothing shows which of them share a bus, and each time-out takes seconds from all other devices. So those that failed
slowly are set aside and back off as a group: the next attempts read one of them, another one each time, and go on with
all once that one does not hang.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import AgentError, SensorError
from agent.measure.back_off import NO_BACK_OFF
from agent.measure.readings import Failure

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from agent.clock import Clock
    from agent.measure.readings import Outcome
    from agent.measure.session import KernelSession

_TIME_OUT_SECONDS = 0.5
"""A failed reading that took longer waited for a time-out: a NACK takes less than a millisecond."""

_FAILING_SECONDS = 1.5
"""How long such readings may take in a sweep; the chips after them are read in the next one."""

_OTHERS_HANG = SensorError("not read yet: the kernel took seconds for other chips")


class KernelSweep:
    """The chips that the kernel reads."""

    def __init__(self, sessions: Sequence[KernelSession], clock: Clock, sample_interval_seconds: float) -> None:
        self._sessions = sessions
        self._clock = clock
        self._sample_interval_seconds = sample_interval_seconds
        self._hung: dict[KernelSession, AgentError] = {}  # in the order of their turns
        self._back_off = NO_BACK_OFF

    def run(self, only: Container[str] | None) -> list[Outcome]:
        """One outcome for every device, or for those of the chips that `only` names."""
        sessions = [session for session in self._sessions if session.is_one_of(only)]
        is_due = self._back_off.reason(self._clock.monotonic()) is None
        probed = next((session for session in self._hung if is_due and session in sessions), None)
        outcomes: dict[KernelSession, list[Outcome]] = {}
        lost_seconds = 0.0
        # Those that hung come last, and of them the one whose turn it is.
        for session in sorted(sessions, key=lambda session: (session in self._hung, session is probed)):
            error = self._hung.get(session)
            if error is not None and (session is not probed or lost_seconds):
                outcomes[session] = session.interrupted(error, tried=False)
            elif lost_seconds >= _FAILING_SECONDS:
                outcomes[session] = session.interrupted(_OTHERS_HANG, tried=False)
            else:
                began_seconds = self._clock.monotonic()
                found = session.backing_off() or session.step()
                took_seconds = self._clock.monotonic() - began_seconds
                outcomes[session] = found
                if isinstance(found[0], Failure) and took_seconds >= _TIME_OUT_SECONDS:
                    lost_seconds += took_seconds
                    self._set_aside(session, found[0].error, lost_seconds)
                elif session is probed:
                    self._hung.clear()
                    self._back_off = NO_BACK_OFF
        return [outcome for session in sessions for outcome in outcomes[session]]

    def _set_aside(self, session: KernelSession, error: AgentError, lost_seconds: float) -> None:
        self._hung.pop(session, None)
        self._hung[session] = error
        # A short interval counts as long as what was lost: all other devices have to wait for it.
        interval_seconds = max(self._sample_interval_seconds, lost_seconds)
        self._back_off = self._back_off.after(error, self._clock.monotonic(), interval_seconds)
