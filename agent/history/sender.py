"""Sends the backlog, oldest first: one request at a time, the same bytes until it is answered, gently.

A frame is in one of these states:

    in turn     it is sent, whole or in parts, until all of it is taken or refused (`InTurn`; search.py)
    unsettled   it is answered, but it or one before it was refused in part, and that is not certain yet (`Unsettled`)
    settled     the backlog forgets it and counts what was accepted and refused

What is refused waits while the frames after it are sent. Only a server that takes one of them, and then refuses the
part once more, has shown that the part is the cause. If it takes none, everything is kept.

answers.py says what each answer means, pace.py when the next request is due.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from agent.errors import RejectedError, UnreachableError
from agent.history.answers import Meaning
from agent.history.lasting_errors import LastingErrors
from agent.history.pace import Pace
from agent.history.search import Outcome, Search, ServerProfile
from agent.history.sender_log import SenderLog
from agent.history.sender_states import InTurn, Tried, Unsettled
from agent.history.write_request import write_request
from agent.log import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.clock import Clock
    from agent.errors import AgentError
    from agent.history.answers import Verdict
    from agent.history.backlog import Backlog
    from agent.history.refusal import Refusal
    from agent.history.samples import Frame

_log = logging.getLogger(__name__)

_ONCE_BACK_OFF_SECONDS = 4.0
"""The longest wait of `send_all`, which has not much time."""

_TRY_SECONDS = 1.0
"""The longest wait between the frame in turn and a later one, while it is found out whether 5xx mean the data."""

_ERRORS_OF_A_PART = 2
"""After how many 5xx a part counts as refused, of a frame whose errors mean the data."""

_ERRORS_OF_A_PART_AGAIN = 12
"""The same, for a part that was refused with a 4xx: a quarter of an hour."""

_MOST_TIMES_AGAIN = 3
"""How often frames are sent again because the server took what it had refused."""


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
        self._pace = Pace(interval_seconds, catch_up, random)
        self._due_at_seconds = clock.monotonic() + self._pace.wait_seconds
        self._log = SenderLog(clock.monotonic)
        self._profile = ServerProfile()
        self._errors = LastingErrors(clock.monotonic, self._frame_after)
        self._body: tuple[Frame, bytes] | None = None
        self._in_turn: InTurn | None = None
        self._unsettled = Unsettled()
        self._tried = Tried(backlog.tried_until, *backlog.overtaken)
        self._sent_again_from, self._times_again = -1, 0

    @property
    def failure(self) -> AgentError | None:
        """Why the last request failed; None if it did not, or there was none."""
        return self._log.failure

    def step(self) -> float:
        """Make at most one request, if one is due; return how long to wait before the next step, in seconds.

        Infinite if nothing is waiting: then the next `Backlog.add` is the reason for a step.
        """
        left_seconds = self._due_at_seconds - self._clock.monotonic()
        if left_seconds > 0:
            return left_seconds
        if self._attempt() is None and not self._unsettled.holds:
            return math.inf
        self._due_at_seconds = self._clock.monotonic() + self._pace.wait_seconds
        return self._pace.wait_seconds

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
            if self._pace.failures:
                wait_seconds = self._pace.wait_seconds
                if not verdict.retry_after_seconds:
                    wait_seconds = min(wait_seconds, _ONCE_BACK_OFF_SECONDS)
                if self._clock.monotonic() + wait_seconds >= ends_at_seconds:
                    return self.failure
                self._clock.sleep(wait_seconds)
        if self.failure is None:
            _log.warning(
                "remote write: out of time; the next run sends the rest of the backlog (%s)",
                counted(self._backlog.status.backlog_samples, "sample"),
            )
        return self.failure

    def _why_not_all(self) -> AgentError | None:
        """Why nothing can be sent any more; None if all was."""
        if self._unsettled.refusal is not None:
            return RejectedError(self._unsettled.refusal.words)
        if self._backlog.status.backlog_samples:
            return UnreachableError("remote write: their time is not known until the clock is synchronised")
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
        if self._in_turn is None:
            last = self._unsettled.last
            frame = oldest if last is None else self._backlog.next(last)
            if frame is None:
                self._hold()
                return None
            self._in_turn = self._begun(frame)
        elif (later := self._errors.frame_to_try(self._in_turn.frame)) is not None:
            return self._try_later_frame(later)
        return self._send(self._in_turn)

    def _leave_out_dropped(self, oldest: Frame) -> None:
        """Forget what the backlog has dropped since the last request."""
        if self._in_turn is not None and self._in_turn.frame.start < oldest.start:
            self._end_turn()
        if self._unsettled.frames:
            self._unsettled.remove_before(oldest.start)
            if not self._unsettled.frames:
                self._unsettled = Unsettled()

    def _request(self, part: Frame) -> Verdict:
        """Post a part; the body is made once."""
        if self._body is None or self._body[0] is not part:
            self._body = (part, write_request(part))
        self._backlog.note_sending(part)
        verdict = self._post(self._body[1])
        self._backlog.count_request(failed=verdict.meaning is not Meaning.TAKEN)
        self._log.note(verdict)
        return verdict

    def _start_over(self) -> None:
        """Begin with the oldest frame."""
        self._end_turn()
        self._unsettled = Unsettled()

    # The frame in turn.

    def _begun(self, frame: Frame) -> InTurn:
        self._backlog.about_to_send(frame)
        return InTurn(Search(frame, self._profile, is_perhaps_in_part=self._tried.may_be_stored(frame)))

    def _send(self, in_turn: InTurn) -> Verdict:
        """Send the part in turn."""
        part = in_turn.part
        verdict = self._request(part)
        outcome = self._outcome(verdict, in_turn)
        if outcome is None:
            in_turn.is_unanswered |= verdict.is_unanswered
            self._errors.note(verdict)
            self._pace.back_off(verdict)
            if self._errors.is_due:
                # At once: a server that recovers in between would take the later frame first, and this one never.
                self._pace.wait_seconds = 0.0
            return verdict
        if outcome is Outcome.REFUSED:
            in_turn.refuse(verdict)
        elif outcome is Outcome.TAKEN:
            in_turn.is_taken_since = True
            self._unsettled.is_confirm_due |= self._unsettled.refusal is not None
        elif outcome is Outcome.TOO_LARGE:
            in_turn.is_partly_stored |= in_turn.is_unanswered
        in_turn.begin_next_part()
        self._errors.forget()
        following = in_turn.search.proceed(outcome)
        is_search = in_turn.refusal is not None and following is not None
        self._pace.follow(part, in_turn.frame, is_search=is_search)
        if following is None:
            self._finish(in_turn)
        return verdict

    def _outcome(self, verdict: Verdict, in_turn: InTurn) -> Outcome | None:
        """What became of the part; None if the same bytes are to be sent again."""
        frame = in_turn.frame
        if verdict.meaning is Meaning.TAKEN:
            return Outcome.TAKEN
        if verdict.meaning is Meaning.TOO_LARGE and in_turn.part.samples > 1:
            return Outcome.TOO_LARGE
        if verdict.meaning is Meaning.REFUSED:
            may_be_stored = verdict.is_unanswered or in_turn.may_be_stored or self._tried.may_be_stored(frame)
            is_stored = verdict.is_stored_already and may_be_stored and not self._tried.is_overtaken(frame)
            return Outcome.STORED if is_stored else Outcome.REFUSED
        if verdict.is_server_error and (self._tried.do_errors_mean_data(frame) or in_turn.search.is_part_known_bad):
            in_turn.errors_of_part += 1
            if in_turn.errors_of_part >= _ERRORS_OF_A_PART:
                return Outcome.REFUSED
        return None

    def _finish(self, in_turn: InTurn) -> None:
        """The frame is answered: settle it, or keep it with those whose refusal is not certain."""
        unsettled = self._unsettled
        unsettled.add(in_turn)
        self._end_turn()
        if unsettled.refusal is not None and not in_turn.search.refused:
            self._backlog.note_taken(in_turn.frame)
        if unsettled.refusal is None:
            self._settle()
        elif unsettled.holds and not unsettled.is_confirm_due:
            self._hold()

    def _end_turn(self) -> None:
        self._in_turn = None
        self._errors.forget()

    # Frames that are answered.

    def _settle(self) -> None:
        """End the frames that are answered."""
        unsettled, self._unsettled = self._unsettled, Unsettled()
        last = unsettled.last
        if last is None:
            return
        self._tried.ahead = {start for start in self._tried.ahead if start > last.start}
        accepted = sum(frame.accepted for frame in unsettled.frames)
        refused = sum(frame.refused for frame in unsettled.frames)
        self._backlog.settle(last, accepted=accepted, refused=refused)
        if refused and unsettled.refusal is not None:
            self._log.give_up(unsettled.refusal, refused)

    def _ask_about_refused(self) -> Verdict | None:
        """Send what was refused once more, if it is its turn."""
        unsettled = self._unsettled
        if unsettled.again:
            return self._send_again(unsettled.again[0])
        if unsettled.refusal is None:
            return None
        if unsettled.is_confirm_due:
            return self._confirm(unsettled.refusal)
        if unsettled.holds and self._in_turn is None and not unsettled.is_oldest_retried:
            return self._retry(unsettled.refusal)
        return None

    def _confirm(self, refusal: Refusal) -> Verdict:
        """Send what was refused last once more, now that the server takes others."""
        unsettled, part = self._unsettled, refusal.last_part
        verdict = self._request(part)
        unsettled.errors_of_part = unsettled.errors_of_part + 1 if verdict.is_server_error else 0
        is_error = unsettled.errors_of_part >= _ERRORS_OF_A_PART
        if verdict.meaning is Meaning.REFUSED or (is_error and refusal.is_server_error):
            self._pace.follow(part, is_search=True)
            self._settle()
        elif is_error:
            # It was refused with a 4xx before. If another frame is taken after this, the errors mean the data, too.
            unsettled.errors_of_part = 0
            unsettled.is_confirm_due = False
            refusal.is_server_error = True
            self._pace.back_off(verdict)
        elif verdict.meaning is Meaning.TAKEN:
            self._pace.follow(part, is_search=True)
            if not self._send_all_refused_again(part):
                self._settle()
        else:
            self._pace.back_off(verdict)
        return verdict

    def _send_all_refused_again(self, taken: Frame) -> bool:
        """The server now takes what it refused before, and perhaps the rest: send all of that again.

        Returns:
            False after some times, because a server may go on like this for ever.
        """
        unsettled = self._unsettled
        self._profile = ServerProfile(most_samples=self._profile.most_samples)
        if unsettled.refusal is not None and unsettled.refusal.parts:
            unsettled.again = [part for part in unsettled.refusal.parts if part is not taken]
            unsettled.is_confirm_due = False
            unsettled.accept(taken)
            if not unsettled.again:
                self._settle()
            return True
        start = unsettled.frames[0].start
        if self._sent_again_from != start:
            self._sent_again_from, self._times_again = start, 0
        self._times_again += 1
        if self._times_again > _MOST_TIMES_AGAIN:
            unsettled.accept(taken)
            return False
        if unsettled.last is not None:
            self._tried.until = max(self._tried.until, unsettled.last.end)
        self._start_over()
        return True

    def _send_again(self, part: Frame) -> Verdict:
        """Send a part that was refused; what is refused again is given up, as others were taken in between."""
        unsettled = self._unsettled
        verdict = self._request(part)
        is_taken = verdict.meaning is Meaning.TAKEN
        if verdict.meaning is Meaning.REFUSED:
            is_taken = verdict.is_stored_already and (verdict.is_unanswered or unsettled.is_again_unanswered)
        elif not is_taken:
            unsettled.is_again_unanswered |= verdict.is_unanswered
            unsettled.errors_of_part = unsettled.errors_of_part + 1 if verdict.is_server_error else 0
            means_data = unsettled.refusal is not None and unsettled.refusal.is_server_error
            if unsettled.errors_of_part < (_ERRORS_OF_A_PART if means_data else _ERRORS_OF_A_PART_AGAIN):
                self._pace.back_off(verdict)
                return verdict
        self._pace.follow(part, is_search=True)
        unsettled.is_again_unanswered = False
        unsettled.errors_of_part = 0
        if is_taken:
            unsettled.accept(part)
        unsettled.again = unsettled.again[1:]
        if not unsettled.again:
            self._settle()
        return verdict

    # When all there is was refused.

    def _hold(self) -> None:
        """Wait, then try what was refused first, and then the next frame."""
        unsettled = self._unsettled
        if unsettled.refusal is None:
            return
        unsettled.is_oldest_retried = False
        self._pace.hold(unsettled.holds)
        unsettled.holds += 1
        if unsettled.holds > 1:
            self._log.hold(unsettled.refusal.words)

    def _retry(self, refusal: Refusal) -> Verdict:
        """Send what was refused first once more."""
        part = refusal.first_part
        verdict = self._request(part)
        if verdict.meaning is Meaning.TAKEN:
            self._pace.follow(part, is_search=True)
            self._unsettled.is_oldest_retried = not self._send_all_refused_again(part)
        elif verdict.meaning in (Meaning.REFUSED, Meaning.TOO_LARGE) or verdict.is_server_error:
            self._pace.follow(part, is_search=True)
            self._unsettled.is_oldest_retried = True
        else:
            self._pace.back_off(verdict)
        return verdict

    # While the frame in turn meets only 5xx.

    def _frame_after(self, frame: Frame) -> Frame | None:
        """The frame after another, which is perhaps sent out of turn; None if there is none."""
        following = self._backlog.next(frame)
        if following is not None:
            self._backlog.about_to_send(following)
        return following

    def _try_later_frame(self, frame: Frame) -> Verdict:
        """Try a frame out of turn: whether it is taken shows what the errors mean."""
        part = Search(frame, ServerProfile(most_samples=self._profile.most_samples)).part or frame
        verdict = self._request(part)
        self._tried.ahead.add(frame.start)
        if verdict.meaning is Meaning.TAKEN:
            self._tried.errors_mean_data_until = frame.start
            self._errors.forget()
            self._pace.follow(part, is_search=True)
        else:
            if verdict.meaning is Meaning.TOO_LARGE:
                self._profile.most_samples = max(1, part.samples // 2)
            elif not verdict.is_server_error and verdict.meaning is not Meaning.REFUSED:
                self._errors.forget()
            self._pace.back_off(verdict)
            self._pace.wait_seconds = min(self._pace.wait_seconds, max(_TRY_SECONDS, verdict.retry_after_seconds))
        return verdict
