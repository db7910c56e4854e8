"""Sends the backlog, oldest first: one request at a time, the same bytes until it is answered, gently.

A frame that the server refuses is searched for the part that it means (see search.py). What is refused then waits, with
the frames after it being sent: only a server that takes one of them, and then refuses the part once more, has shown
that the part is the cause. If it takes none, everything is kept.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import RejectedError, UnreachableError
from agent.history.answers import Meaning
from agent.history.complaints import Complaints, Refusal
from agent.history.lasting_errors import LastingErrors
from agent.history.search import Experience, Outcome, Search
from agent.history.write_request import write_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.clock import Clock
    from agent.errors import AgentError
    from agent.history.answers import Verdict
    from agent.history.backlog import Backlog
    from agent.history.samples import Frame

_log = logging.getLogger(__name__)

_FIRST_BACK_OFF_SECONDS = 0.5
_LONGEST_BACK_OFF_SECONDS = 300.0
_MOST_DOUBLINGS = 10
_LONGEST_RETRY_AFTER_SECONDS = 3600.0
_ONCE_BACK_OFF_SECONDS = 4.0
"""The longest wait of `send_all`, which has not much time."""

_FIRST_HOLD_SECONDS = 5.0
"""The shortest wait once all there is was refused; the next sample is a push interval away."""

_SEARCH_SECONDS = 0.25
"""The longest wait between two parts of a frame that was refused."""

_TRY_SECONDS = 1.0
"""The longest wait between the frame in turn and a later one, while it is found out whether 5xx mean the data."""

_ERRORS_OF_A_PART = 2
"""After how many 5xx a part of such a frame is refused."""

_ERRORS_OF_A_PART_AGAIN = 12
"""The same, for a part that was refused with a 4xx: a quarter of an hour."""

_MOST_TIMES_AGAIN = 3
"""How often frames are sent again because the server took what it had refused."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """A frame that is answered, and waits for those before it.

    Attributes:
        start: the place of the frame.
    """

    start: int
    accepted: int
    refused: int


class Sender:
    """Sends one backlog; for one thread.

    Args:
        backlog: to send.
        post: one attempt at a request with this body; never raises for a failure of the network or server.
        clock: for waits.
        interval_seconds: the time that a frame of one row stands for.
        catch_up: how many times faster than real time to send.
        random: as `random.random`, for jitter.
    """

    def __init__(  # noqa: PLR0913 - its parts, and by keyword how it waits
        self,
        backlog: Backlog,
        post: Callable[[bytes], Verdict],
        clock: Clock,
        *,
        interval_seconds: float,
        catch_up: float,
        random: Callable[[], float],
    ) -> None:
        self._backlog = backlog
        self._post = post
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._catch_up = catch_up
        self._random = random
        self._complaints = Complaints(clock.monotonic)
        self._experience = Experience()
        self._body: tuple[Frame, bytes] | None = None
        self._wait_seconds = 0.0
        # A site whose power returns starts all its nodes at once.
        self._not_before_seconds = clock.monotonic() + random() * min(interval_seconds, 5.0)
        self._failures = 0

        # Of the frame that is sent.
        self._search: Search | None = None
        self._refusal_in_search: Refusal | None = None
        self._is_taken_since = False  # a part was taken after the last refusal
        self._is_unanswered = False  # the part may be stored
        self._is_partly_stored = False  # Mimir and Thanos store what they do not refuse of a request
        self._errors = LastingErrors(clock.monotonic, self._noted_after)
        self._errors_of_part = 0

        # Of the frames before it that are answered and not settled, because of what was refused.
        self._ended: list[_Ended] = []
        self._last_ended: Frame | None = None
        self._refusal: Refusal | None = None
        self._is_confirm_due = False  # a request was taken after the last refusal
        self._is_held = False
        self._is_oldest_retried = False
        self._holds = 0
        self._again: list[Frame] = []  # parts that the server takes by now, perhaps
        self._is_again_unanswered = False
        self._sent_again_from = -1
        self._times_again = 0

        # Frames that may be stored: of a run that was killed, or because they are sent once more.
        self._inherited_until = 0
        self._noted_until = 0
        self._tried_ahead: set[int] = set()
        self._errors_mean_data_until = 0  # as a later frame was taken

    @property
    def failure(self) -> AgentError | None:
        """Why the last request failed; None if it did not, or there was none."""
        return self._complaints.failure

    def step(self) -> float:
        """Make at most one request, if one is due; return how long to wait before the next step, in seconds.

        Infinite if nothing is waiting: then the next `Backlog.add` is the reason for a step.
        """
        left_seconds = self._not_before_seconds - self._clock.monotonic()
        if left_seconds > 0:
            return left_seconds
        if self._attempt() is None:
            return self._wait_seconds if self._is_held else math.inf
        self._not_before_seconds = self._clock.monotonic() + self._wait_seconds
        return self._wait_seconds

    def send_all(self, ends_at_seconds: float) -> AgentError | None:
        """Send as much as possible without pacing, for `--once`; return why the newest frame was not accepted.

        None also if the time ended while the server was taking an older backlog, which is then logged.
        """
        while self._clock.monotonic() < ends_at_seconds:
            verdict = self._attempt()
            if verdict is None:
                return self._why_not_all()
            if verdict.meaning is Meaning.HOLD:
                return self.failure
            if self._failures:
                wait_seconds = self._wait_seconds
                if not verdict.retry_after_seconds:
                    wait_seconds = min(wait_seconds, _ONCE_BACK_OFF_SECONDS)
                if self._clock.monotonic() + wait_seconds >= ends_at_seconds:
                    return self.failure
                self._clock.sleep(wait_seconds)
        if self.failure is None:
            _log.warning(
                "remote write: %d samples of the backlog are left for the next run: no time was left",
                self._backlog.status.backlog_samples,
            )
        return self.failure

    def _why_not_all(self) -> AgentError | None:
        """Why nothing can be sent any more; None if all was."""
        if self._refusal is not None:
            return RejectedError(self._refusal.words)
        left = self._backlog.status.backlog_samples
        if left:
            return UnreachableError(
                f"remote write: {left} samples are kept, as their time is not known before the clock is synchronised"
            )
        return None

    def _attempt(self) -> Verdict | None:
        """Make one request and decide on the next; None if there is nothing to send."""
        oldest = self._backlog.next()
        if oldest is None:
            self._start_over()
            return None
        self._leave_out_dropped(oldest)
        if (verdict := self._ask_about_refused()) is not None:
            return verdict
        if self._search is None:
            frame = oldest if self._last_ended is None else self._backlog.next(self._last_ended)
            if frame is None:
                self._hold()
                return None
            self._begin(frame)
        elif (later := self._errors.frame_to_try(self._search.frame)) is not None:
            return self._try_later_frame(later)
        return self._send()

    def _leave_out_dropped(self, oldest: Frame) -> None:
        """Forget what the backlog has dropped meanwhile."""
        if self._search is not None and self._search.frame.start < oldest.start:
            self._end_search()
        if self._ended and self._ended[0].start < oldest.start:
            self._ended = [ended for ended in self._ended if ended.start >= oldest.start]
            self._again = [part for part in self._again if part.start >= oldest.start]
            if not self._ended:
                self._forget_ended()

    # The frame in turn.

    def _begin(self, frame: Frame) -> None:
        """Begin to send a frame."""
        self._note(frame)
        self._search = Search(frame, self._experience, is_perhaps_in_part=self._is_inherited(frame))

    def _is_inherited(self, frame: Frame) -> bool:
        return frame.start < self._inherited_until or frame.start in self._tried_ahead

    def _noted_after(self, frame: Frame) -> Frame | None:
        following = self._backlog.next(frame)
        if following is not None:
            self._note(following)
        return following

    def _note(self, frame: Frame) -> None:
        """Let the backlog know that the frame is sent from now on."""
        if frame.start >= self._noted_until:
            if self._backlog.may_be_stored(frame):
                self._inherited_until = frame.end
            self._backlog.about_to_send(frame)
            self._noted_until = frame.end

    def _send(self) -> Verdict:
        """Send the part in turn."""
        search = self._search
        if search is None or search.part is None:
            raise RuntimeError("no part to send")
        part = search.part
        verdict = self._request(part)
        outcome = self._outcome(verdict, search)
        if outcome is None:
            self._is_unanswered |= verdict.is_unanswered
            self._errors.note(verdict)
            self._back_off(verdict)
            if self._errors.is_due:
                # At once: a server that recovers in between would take the later frame first, and this one never.
                self._wait_seconds = 0.0
            return verdict
        if outcome is Outcome.REFUSED:
            self._is_partly_stored |= not verdict.is_stored_already
            self._is_taken_since = False
            if self._refusal_in_search is None:
                self._refusal_in_search = Refusal(verdict, part)
            self._refusal_in_search.note(verdict)
        elif outcome is Outcome.TAKEN:
            self._is_taken_since = True
            self._is_confirm_due |= self._refusal is not None
        elif outcome is Outcome.TOO_LARGE:
            self._is_partly_stored |= self._is_unanswered
        self._failures = 0
        self._errors_of_part = 0
        self._is_unanswered = False
        self._errors.forget()
        following = search.proceed(outcome)
        self._pace(part, search.frame, is_search=self._refusal_in_search is not None and following is not None)
        if following is None:
            self._finish(search)
        return verdict

    def _request(self, part: Frame) -> Verdict:
        """Post a part; the body is made once."""
        if self._body is None or self._body[0] is not part:
            self._body = (part, write_request(part))
        verdict = self._post(self._body[1])
        self._backlog.count_request(failed=verdict.meaning is not Meaning.TAKEN)
        self._complaints.note(verdict)
        return verdict

    def _outcome(self, verdict: Verdict, search: Search) -> Outcome | None:
        """What became of the part; None if the same bytes are to be sent again."""
        part = search.part
        if verdict.meaning is Meaning.TAKEN:
            return Outcome.TAKEN
        if verdict.meaning is Meaning.TOO_LARGE and part is not None and part.samples > 1:
            return Outcome.TOO_LARGE
        if verdict.meaning is Meaning.REFUSED:
            may_be_stored = (
                verdict.is_unanswered
                or self._is_unanswered
                or self._is_partly_stored
                or self._is_inherited(search.frame)
            )
            # Once a later frame was taken, an older one is out of order whether it is stored or not.
            is_overtaken = search.frame.start < self._errors_mean_data_until
            is_stored = verdict.is_stored_already and may_be_stored and not is_overtaken
            return Outcome.STORED if is_stored else Outcome.REFUSED
        if verdict.is_server_error and (search.frame.start < self._errors_mean_data_until or search.is_part_known_bad):
            self._errors_of_part += 1
            if self._errors_of_part >= _ERRORS_OF_A_PART:
                return Outcome.REFUSED
        return None

    def _finish(self, search: Search) -> None:
        """The frame is answered: settle it, or keep it with those whose refusal is not certain."""
        refusal = self._refusal_in_search
        if refusal is not None and search.refused:
            for part in search.refused_parts:
                refusal.add(part)
            self._is_confirm_due |= self._is_taken_since
            if self._refusal is None:
                self._refusal = refusal
            else:
                self._refusal.join(refusal)
        self._ended.append(_Ended(search.frame.start, search.accepted, search.refused))
        self._last_ended = search.frame
        self._end_search()
        if self._refusal is None:
            self._settle()
        elif self._is_held and not self._is_confirm_due:
            self._hold()

    def _end_search(self) -> None:
        self._search = None
        self._refusal_in_search = None
        self._is_taken_since = False
        self._is_unanswered = False
        self._is_partly_stored = False
        self._errors.forget()
        self._errors_of_part = 0

    # What was refused.

    def _ask_about_refused(self) -> Verdict | None:
        """Send what was refused once more, if it is its turn."""
        if self._again:
            return self._send_part_again(self._again[0])
        if self._refusal is not None and self._is_confirm_due:
            return self._confirm(self._refusal)
        if self._refusal is not None and self._is_held and self._search is None and not self._is_oldest_retried:
            return self._retry(self._refusal)
        return None

    def _settle(self) -> None:
        """End the frames that are answered."""
        if self._last_ended is None:
            return
        self._tried_ahead = {start for start in self._tried_ahead if start > self._last_ended.start}
        accepted = sum(ended.accepted for ended in self._ended)
        refused = sum(ended.refused for ended in self._ended)
        self._backlog.settle(self._last_ended, accepted=accepted, refused=refused)
        if refused and self._refusal is not None:
            self._complaints.give_up(self._refusal, refused)
        self._forget_ended()

    def _forget_ended(self) -> None:
        self._ended = []
        self._last_ended = None
        self._refusal = None
        self._again = []
        self._is_confirm_due = False
        self._is_held = False
        self._is_oldest_retried = False
        self._holds = 0

    def _start_over(self) -> None:
        """Begin with the oldest frame."""
        self._end_search()
        self._forget_ended()

    def _confirm(self, refusal: Refusal) -> Verdict:
        """Send what was refused last once more, now that the server takes others."""
        part = refusal.last_part
        verdict = self._request(part)
        self._errors_of_part = self._errors_of_part + 1 if verdict.is_server_error else 0
        is_error = self._errors_of_part >= _ERRORS_OF_A_PART
        if verdict.meaning is Meaning.REFUSED or (is_error and refusal.is_server_error):
            self._errors_of_part = 0
            self._pace(part, is_search=True)
            self._settle()
        elif is_error:
            # It was refused with a 4xx before. If another frame is taken after this, the errors mean the data, too.
            self._errors_of_part = 0
            self._back_off(verdict)
            self._is_confirm_due = False
            refusal.is_server_error = True
        elif verdict.meaning is Meaning.TAKEN:
            self._pace(part, is_search=True)
            if not self._change_of_mind(part):
                self._settle()
        else:
            self._back_off(verdict)
        return verdict

    def _change_of_mind(self, taken: Frame) -> bool:
        """The server takes by now what it refused before, and perhaps all the rest of that: send it again.

        Returns:
            False after some times, as a server may change its mind for ever.
        """
        self._experience = Experience(most_samples=self._experience.most_samples)
        if self._refusal is not None and self._refusal.parts:
            self._again = [part for part in self._refusal.parts if part is not taken]
            self._is_confirm_due = False
            self._accept(taken)
            if not self._again:
                self._settle()
            return True
        start = self._ended[0].start
        if self._sent_again_from != start:
            self._sent_again_from, self._times_again = start, 0
        self._times_again += 1
        if self._times_again > _MOST_TIMES_AGAIN:
            self._accept(taken)
            return False
        if self._last_ended is not None:
            self._inherited_until = max(self._inherited_until, self._last_ended.end)
        self._start_over()
        return True

    def _accept(self, part: Frame) -> None:
        """Count a part as accepted that was refused before."""
        self._ended = [
            _Ended(ended.start, ended.accepted + part.samples, ended.refused - part.samples)
            if ended.start == part.start
            else ended
            for ended in self._ended
        ]

    def _send_part_again(self, part: Frame) -> Verdict:
        """Send a part that was refused; what is refused again is given up, as others were taken in between."""
        verdict = self._request(part)
        is_taken = verdict.meaning is Meaning.TAKEN
        if verdict.meaning is Meaning.REFUSED:
            is_taken = verdict.is_stored_already and (verdict.is_unanswered or self._is_again_unanswered)
        elif not is_taken:
            self._is_again_unanswered |= verdict.is_unanswered
            self._errors_of_part = self._errors_of_part + 1 if verdict.is_server_error else 0
            means_data = self._refusal is not None and self._refusal.is_server_error
            if self._errors_of_part < (_ERRORS_OF_A_PART if means_data else _ERRORS_OF_A_PART_AGAIN):
                self._back_off(verdict)
                return verdict
        self._pace(part, is_search=True)
        self._is_again_unanswered = False
        self._errors_of_part = 0
        if is_taken:
            self._accept(part)
        self._again = self._again[1:]
        if not self._again:
            self._settle()
        return verdict

    # When all there is was refused.

    def _hold(self) -> None:
        """Wait, then try what was refused first, and then the next frame."""
        if self._refusal is None:
            return
        self._is_held = True
        self._is_oldest_retried = False
        base_seconds = max(_FIRST_HOLD_SECONDS, self._interval_seconds) * 2 ** min(self._holds, _MOST_DOUBLINGS)
        wait_seconds = min(base_seconds, _LONGEST_BACK_OFF_SECONDS) * (0.5 + 0.5 * self._random())
        self._wait_seconds = wait_seconds
        self._not_before_seconds = self._clock.monotonic() + wait_seconds
        self._holds += 1
        if self._holds > 1:
            self._complaints.hold(self._refusal.words)

    def _retry(self, refusal: Refusal) -> Verdict:
        """Send what was refused first once more."""
        part = refusal.first_part
        verdict = self._request(part)
        if verdict.meaning is Meaning.TAKEN:
            self._pace(part, is_search=True)
            self._is_oldest_retried = not self._change_of_mind(part)
        elif verdict.meaning in (Meaning.REFUSED, Meaning.TOO_LARGE) or verdict.is_server_error:
            self._pace(part, is_search=True)
            self._is_oldest_retried = True
        else:
            self._back_off(verdict)
        return verdict

    def _try_later_frame(self, frame: Frame) -> Verdict:
        """Try a frame out of turn, as the one in turn meets only 5xx."""
        part = Search(frame, Experience(most_samples=self._experience.most_samples)).part or frame
        verdict = self._request(part)
        self._tried_ahead.add(frame.start)
        if verdict.meaning is Meaning.TAKEN:
            self._errors_mean_data_until = frame.start
            self._errors.forget()
            self._pace(part, is_search=True)
        else:
            if verdict.meaning is Meaning.TOO_LARGE:
                self._experience.most_samples = max(1, part.samples // 2)
            elif not verdict.is_server_error and verdict.meaning is not Meaning.REFUSED:
                self._errors.forget()
            self._back_off(verdict)
            self._wait_seconds = min(self._wait_seconds, max(_TRY_SECONDS, verdict.retry_after_seconds))
        return verdict

    # Waits.

    def _pace(self, part: Frame, whole: Frame | None = None, *, is_search: bool) -> None:
        """Wait as long as the samples took, but for `catch_up`; the parts of a search follow each other quickly.

        Args:
            part: that was sent.
            whole: the frame that it is a part of: all parts together wait as long as the frame.
            is_search: whether it is part of a search.
        """
        whole = whole or part
        times = whole.times_milliseconds
        seconds = ((times[-1] - times[0]) / 1000 + self._interval_seconds) / self._catch_up
        seconds *= part.samples / whole.samples
        if is_search:
            seconds = min(seconds, _SEARCH_SECONDS)
        self._failures = 0
        self._wait_seconds = seconds * (0.5 + self._random())

    def _back_off(self, verdict: Verdict) -> None:
        """Wait longer after each failure, and as long as the server asks for."""
        base_seconds = _FIRST_BACK_OFF_SECONDS * 2 ** min(self._failures, _MOST_DOUBLINGS)
        self._failures += 1
        wait_seconds = min(base_seconds, _LONGEST_BACK_OFF_SECONDS) * (0.5 + 0.5 * self._random())
        asked_seconds = min(verdict.retry_after_seconds, _LONGEST_RETRY_AFTER_SECONDS)
        # All nodes may have been asked at once: they do not return at once.
        self._wait_seconds = max(wait_seconds, asked_seconds * (1 + 0.25 * self._random()))
