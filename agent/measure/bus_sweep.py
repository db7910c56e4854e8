"""Reading the chips on one bus, in which a failure of the bus is kept apart from those of its chips.

A bus that another process holds is tried again in every sweep. One whose transfers time out (a stuck line, an adapter
that hangs) backs off as a whole, since each of its time-outs takes seconds from the other buses: the next attempts read
one chip, another one each time, and go on with the rest if that one answers.

A bus that answers slowly, or now and then only after a time-out, would take their samples from the others just the
same. So a sweep has a limit: the chips after it are read first in the next sweep. A bus on which a single reading takes
longer than that rests after it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from agent.errors import AgentError, BusyError
from agent.i2c.attempts import is_stuck_error, stuck_error
from agent.measure.back_off import NO_BACK_OFF
from agent.measure.pace import Pace, SweepTime
from agent.measure.readings import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from agent.clock import Clock
    from agent.i2c.bus import Bus
    from agent.i2c.place import Place
    from agent.measure.observer import ObserverSession
    from agent.measure.readings import Outcome
    from agent.measure.run_session import RunSession

    ChipSession = RunSession | ObserverSession

_AT_ONCE_SECONDS = 0.005
"""The longest that a reading takes that fails because the bus has timed out before."""


class BusSweep:
    """The chips on one bus, in an order that switches each mux channel once.

    Attributes:
        pace: whether it is slow.
        has_to_end: whether its sweep has to end now, because a stop waits for it.
        ran_at_seconds: when its last sweep began, on the monotonic clock.
        was_cut_short: whether the last sweep had no time for some chips, or for the bus.
    """

    def __init__(self, bus: Bus, sessions: Sequence[ChipSession], clock: Clock, sample_interval_seconds: float) -> None:
        self.bus = bus
        self._sessions = sorted(sessions, key=lambda session: _visiting_order(session.place))
        self._clock = clock
        self._sample_interval_seconds = sample_interval_seconds
        self._back_off = NO_BACK_OFF
        self._probes = 0
        self._turns: dict[ChipSession, int] = {}  # of those that the last sweep had no time for
        # Failing ones that another chip's time-outs have kept from being tried, with the time since when.
        self._cut_off_at_seconds: dict[ChipSession, float] = {}
        self.pace = Pace(bus.name, sample_interval_seconds)
        self.ran_at_seconds = -math.inf
        self.has_to_end: Callable[[], bool] = lambda: False
        self.was_cut_short = False

    @property
    def is_hung(self) -> bool:
        """Whether its transfers timed out when it was read last."""
        return self._back_off.error is not None

    @property
    def is_resting(self) -> bool:
        """Whether it hung or was slow, and is not due yet."""
        now = self._clock.monotonic()
        return now < self.pace.rests_until_seconds or self._back_off.reason(now) is not None

    def run(self, only: Container[str] | None, wait_seconds: float, limit_seconds: float = math.inf) -> list[Outcome]:
        """One outcome for every device, or for those of the chips that `only` names. The bus is not held afterwards.

        Args:
            only: see above.
            wait_seconds: how long to wait for another process that holds the bus.
            limit_seconds: after this, no further chip is read.

        Raises:
            BusyError: another process held the bus for longer than `wait_seconds`.
        """
        self.was_cut_short = False
        if self._back_off.reason(self._clock.monotonic()) is not None:
            return self.postponed(only)
        sessions = self._of(only)
        backing_off = [session.backing_off() for session in sessions]
        if None not in backing_off:  # not one chip is due, also because the bus itself could not be opened
            return [outcome for known in backing_off for outcome in known or ()]
        self.ran_at_seconds = self._clock.monotonic()  # also if it cannot be opened: then others have their turn
        try:
            with self.bus.session(wait_seconds):
                began_seconds = self._clock.monotonic()
                if self._back_off.error is None:
                    stepped = self._step(sessions, backing_off, limit_seconds)
                else:
                    stepped = self._probe(self._back_off.error, sessions, backing_off, limit_seconds)
                now = self._clock.monotonic()
                self.pace.note(now - began_seconds, now, is_cut_short=self.was_cut_short, is_hung=self.is_hung)
        except BusyError:
            raise
        except AgentError as error:  # the bus cannot be opened or locked
            self._back_off = NO_BACK_OFF
            stepped = [known or session.fail(error) for session, known in zip(sessions, backing_off, strict=True)]
        return [outcome for outcomes in stepped for outcome in outcomes]

    def postponed(self, only: Container[str] | None) -> list[Outcome]:
        """The outcomes of a sweep in which a bus that hung or is slow is not tried."""
        self.was_cut_short = not self.is_hung
        if (error := self._back_off.error) is not None:
            return [outcome for session in self._of(only) for outcome in session.interrupted(error, tried=False)]
        return [
            outcome
            for session in self._of(only)
            for outcome in session.backing_off() or session.skipped(self.pace.error)
        ]

    def held(self, error: BusyError, only: Container[str] | None) -> list[Outcome]:
        """The outcomes of a sweep in which another process holds the bus."""
        sessions = self._of(only)
        return [outcome for session in sessions for outcome in session.backing_off() or session.interrupted(error)]

    def _of(self, only: Container[str] | None) -> list[ChipSession]:
        return [session for session in self._sessions if session.is_one_of(only)]

    def _step(
        self, sessions: list[ChipSession], backing_off: Sequence[list[Outcome] | None], limit_seconds: float
    ) -> list[list[Outcome]]:
        """Read the chips that are due, and find out whether the bus hangs."""
        due = [number for number, known in enumerate(backing_off) if known is None]
        due.sort(key=lambda number: self._turn(sessions[number]))
        self._turns.clear()
        stepped = [known or [] for known in backing_off]
        error: AgentError | None = None
        is_answered = any(map(_is_answer, stepped))
        time = SweepTime(limit_seconds, is_slow=self.pace.is_slow)
        for number in due:
            # Until a chip answers, the next one may show that the bus hangs; `Attempts` bounds the time for that.
            if is_answered and (self.has_to_end() or not time.is_left(self.bus.held_seconds)):
                self._turns[sessions[number]] = len(self._turns)
                self.was_cut_short = True
                stepped[number] = sessions[number].skipped(self.pace.error)
                continue
            was_failing, started_seconds = sessions[number].is_failing, self._clock.monotonic()
            outcomes = stepped[number] = sessions[number].step()
            took_seconds = self._clock.monotonic() - started_seconds
            time_out = _time_out(outcomes)
            error = time_out or error
            if time_out is not None and took_seconds < _AT_ONCE_SECONDS:  # the time-outs are another chip's
                if was_failing:
                    self._cut_off_at_seconds.setdefault(sessions[number], started_seconds)
                else:
                    stepped[number] = sessions[number].interrupted(time_out)
                continue
            self._cut_off_at_seconds.pop(sessions[number], None)
            if _is_answer(outcomes):
                is_answered = True
                time.note_reading(took_seconds)
            else:
                time.note_failure(took_seconds)
        if not is_answered and (error is not None or self.bus.has_timed_out):
            return self._hangs(error or stuck_error(self.bus.name), sessions, backing_off)
        self._back_off = NO_BACK_OFF
        return stepped

    def _turn(self, session: ChipSession) -> tuple[int, bool, float]:
        """Sorts chips by when to read them: first those that the last sweep had no time for.

        Those that failed come last: if one of them holds the bus until a time-out, the others have been read. Among
        them, those that were cut off by that come first: otherwise they would never be read again.
        """
        cut_off_at_seconds = self._cut_off_at_seconds.get(session, math.inf)
        return self._turns.get(session, len(self._sessions)), session.is_failing, cut_off_at_seconds

    def _probe(
        self,
        error: AgentError,
        sessions: list[ChipSession],
        backing_off: Sequence[list[Outcome] | None],
        limit_seconds: float,
    ) -> list[list[Outcome]]:
        """Read one chip of a bus that hung, another one each time; if that one answers or is only absent, all."""
        due = [number for number, known in enumerate(backing_off) if known is None]
        first = due[self._probes % len(due)]
        self._probes += 1
        outcomes = sessions[first].step()
        if not _is_answer(outcomes) and (_time_out(outcomes) is not None or self.bus.has_timed_out):
            return self._hangs(error, sessions, backing_off)
        return self._step(sessions, [*backing_off[:first], outcomes, *backing_off[first + 1 :]], limit_seconds)

    def _hangs(
        self, error: AgentError, sessions: list[ChipSession], backing_off: Sequence[list[Outcome] | None]
    ) -> list[list[Outcome]]:
        """Back off as a whole: the chips are not the cause."""
        # A short interval counts as long as the time-outs: the other buses have to wait for them.
        interval_seconds = max(self._sample_interval_seconds, self.bus.held_seconds)
        self._back_off = self._back_off.after(error, self._clock.monotonic(), interval_seconds)
        pairs = zip(sessions, backing_off, strict=True)
        return [session.interrupted(error) if known is None else known for session, known in pairs]


def _is_answer(outcomes: Sequence[Outcome]) -> bool:
    """Whether a chip answered."""
    return any(not isinstance(outcome, Failure) for outcome in outcomes)


def _time_out(outcomes: Sequence[Outcome]) -> AgentError | None:
    """The error of a bus that timed out, if that is why a chip could not be read."""
    error = next((outcome.error for outcome in outcomes if isinstance(outcome, Failure)), None)
    return error if is_stuck_error(error) else None


def _visiting_order(place: Place) -> tuple[tuple[int, int], ...]:
    """Sorts chips by the addresses and channels on their paths, so that a sweep opens each channel once.

    0x80 is above every address: chips on a segment come after those behind its muxes, which are closed by then anyway.
    """
    return (*((hop.mux.address, hop.channel) for hop in place.path), (0x80, place.address))
