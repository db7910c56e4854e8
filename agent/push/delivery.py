"""Delivers the requests of one push within its budget, whatever the network does.

The caller's thread sends one request after the other. Helper threads with their own connections join it if that is
faster. A request that fails for a transient reason is retried until the budget is spent.
"""

from __future__ import annotations

import collections
import logging
import math
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tenacity

from agent.errors import UnreachableError
from agent.http.deadline import WAITING_FOR_THE_ANSWER, watchdog
from agent.http.failures import AttemptFailedError
from agent.metrics.groups import name_of
from agent.push.failures import check_answer
from agent.threads import NoThreadError, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.errors import AgentError
    from agent.http.client import Client
    from agent.http.connection import Connection
    from agent.http.deadline import Deadline
    from agent.push.render import Request

_log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 8
"""At 40 ms of round trip, 64 groups take 0.4 s over 8 connections and 2.7 s over one; more gain hardly anything."""

_MANY_REQUESTS = 16
"""From this number on, two connections start at once: the next request arrives while the last answer is handled."""

_SLOW_SECONDS = 0.015
"""If no answer has come for this long, there are more connections. A nearby gateway answers in 0.5 to 5 ms and checks
one request after the other: there a second connection would only cost its handshake."""

_MOST_DISCONNECTS = 2
"""Attempts that may end without an answer. Pushgateway 1.11.0 sends none for a push that it will never accept."""

_JOIN_SECONDS = 1.0
"""How long stopped helpers may take to end before they are left behind."""


@dataclass(frozen=True, slots=True)
class PushResult:
    """The outcome for one group.

    Attributes:
        grouping_key: of the group, as it was handed in.
        attempts: how often it was tried; 0 if the budget was spent before its turn.
        error: why it failed; None if the gateway accepted it.
    """

    grouping_key: Mapping[str, str]
    attempts: int
    error: AgentError | None

    @property
    def name(self) -> str:
        """The group's name in messages."""
        return name_of(self.grouping_key)


class Delivery:
    """One push or delete of several groups."""

    def __init__(
        self,
        requests: Sequence[Request],
        budget_seconds: float,
        *,
        client: Client,
        idle: list[Connection],
        sleep: Callable[[float], None],
    ) -> None:
        """Sends nothing yet.

        Args:
            requests: to send.
            budget_seconds: for all attempts together, from now on.
            client: makes connections and attempts.
            idle: open connections; taken from here first, and returned to here.
            sleep: waits between attempts.
        """
        self._client = client
        self._idle = idle
        self._clock = client.clock
        self._sleep = sleep
        self._budget_seconds = budget_seconds
        self._answered_at_seconds = self._clock.monotonic()
        self._ends_at_seconds = self._answered_at_seconds + budget_seconds
        # All of these change only in single steps, which are safe between threads.
        self._waiting = collections.deque(enumerate(requests))
        self._results: list[PushResult | None] = [None] * len(requests)
        self._deadlines: list[Deadline] = []
        self._helpers: list[threading.Thread] = []
        self._help_lock = threading.Lock()
        self._helper_errors: list[BaseException] = []
        self._last_failure = ""
        self._is_stopped = False

    def run(self) -> tuple[PushResult, ...]:
        """Deliver all requests; a result for each, in order.

        Raises:
            Exception: as raised by `sleep`.
        """
        try:
            with watchdog(self._deadlines, self._call_help_if_slow):
                self._run()
        except NoThreadError as error:  # nothing was sent: without a watchdog an attempt might never end
            return tuple(
                PushResult(request.grouping_key, 0, UnreachableError(f"{request.name}: not pushed: {error}"))
                for _, request in self._waiting
            )
        if self._helper_errors:
            raise self._helper_errors[0]
        results = tuple(result for result in self._results if result is not None)
        if len(results) < len(self._results):
            raise RuntimeError("a request has no result")
        return results

    def _run(self) -> None:
        try:
            if len(self._waiting) >= _MANY_REQUESTS:
                self._call_help()
            self._work()
            self._join(_JOIN_SECONDS if self._helper_errors else math.inf)
        except BaseException:
            # `sleep` or a signal handler raised: no thread may continue behind the caller's back.
            self.stop()
            self._join(_JOIN_SECONDS)
            raise

    def stop(self) -> None:
        """End `run` within moments; takes no lock, so that a signal handler may call it."""
        self._is_stopped = True

    def _work(self) -> None:
        """Deliver requests until none is left; in the caller's thread and in those of helpers."""
        connection: Connection | None = None
        try:
            while (numbered := self._next()) is not None:
                if connection is None:
                    connection = self._idle.pop() if self._idle else self._client.new_connection()
                    self._deadlines.append(connection.deadline)
                number, request = numbered
                self._results[number] = self._deliver(request, connection)
        finally:
            if connection is not None:
                self._deadlines.remove(connection.deadline)
                self._idle.append(connection)

    def _next(self) -> tuple[int, Request] | None:
        """The next request and the place of its result."""
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _help(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - `run` raises it in the caller's thread
            self._helper_errors.append(error)
            self.stop()

    def _call_help(self) -> None:
        """Start one more helper, if there is work for it. It lives for one push, as an idle thread costs memory."""
        with self._help_lock:
            if not self._waiting or len(self._helpers) >= _MOST_CONNECTIONS - 1 or self._is_stopped:
                return
            with suppress(NoThreadError):  # continue without a helper
                self._helpers.append(start_thread("push-helper", self._help))

    def _call_help_if_slow(self) -> None:
        """Add one connection for each that waits for a slow answer, unless another one gets answers."""
        began_before_seconds = self._clock.monotonic() - _SLOW_SECONDS
        if self._answered_at_seconds > began_before_seconds:
            return
        for deadline in tuple(self._deadlines):
            if deadline.phase == WAITING_FOR_THE_ANSWER and deadline.phase_began_at_seconds <= began_before_seconds:
                self._call_help()

    def _join(self, limit_seconds: float) -> None:
        """Wait for the helpers, including those that start meanwhile."""
        ends_at_seconds = self._clock.monotonic() + limit_seconds
        with self._help_lock:
            pass  # a helper that the watchdog's thread is starting is in the list once the lock is free
        for helper in self._helpers:  # grows during the loop
            left_seconds = ends_at_seconds - self._clock.monotonic()
            helper.join(None if math.isinf(left_seconds) else max(0.0, left_seconds))

    def _deliver(self, request: Request, connection: Connection) -> PushResult:
        """Try one request until it succeeds, fails permanently, or the budget is spent."""
        started_seconds = self._clock.monotonic()
        if self._is_stopped or started_seconds >= self._ends_at_seconds:
            return PushResult(request.grouping_key, 0, self._error_of_untried(request))
        disconnects = 0

        def is_worth_a_retry(failure: BaseException) -> bool:
            nonlocal disconnects
            if not isinstance(failure, AttemptFailedError) or self._is_stopped:
                return False
            disconnects += failure.is_disconnect
            return failure.is_transient and disconnects < _MOST_DISCONNECTS

        def before_sleep(state: tenacity.RetryCallState) -> None:
            _log.debug("%s: %s; trying again", request.name, _failure_of(state))
            self._call_help()  # the other requests do not wait for this one

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_worth_a_retry),
            wait=_wait_seconds,
            # tenacity's time limits do not use our clock.
            stop=lambda state: self._clock.monotonic() + state.upcoming_sleep >= self._ends_at_seconds,
            sleep=self._sleep,
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            retrying(self._attempt, request, connection)
        except AttemptFailedError as failure:
            error: AgentError | None = self._error_of(failure, request, retrying, started_seconds)
        else:
            error = None
        return PushResult(request.grouping_key, retrying.statistics["attempt_number"], error)

    def _attempt(self, request: Request, connection: Connection) -> None:
        """Send the request once; raises AttemptFailedError unless the gateway accepts it."""
        # The timeout is for one attempt and the budget for all: the last attempt gets what is left.
        timeout_seconds = self._client.route.endpoint.timeout_seconds
        ends_at_seconds = min(self._clock.monotonic() + timeout_seconds, self._ends_at_seconds)
        with self._client.attempt(connection, ends_at_seconds, lambda: self._is_stopped) as attempt:
            answer = attempt.exchange(request.method, request.url, dict(request.headers), request.body)
            self._answered_at_seconds = self._clock.monotonic()
            check_answer(answer, request, self._client.route, self._clock.time)

    def _error_of(
        self, failure: AttemptFailedError, request: Request, retrying: tenacity.Retrying, started_seconds: float
    ) -> AgentError:
        if failure.is_transient:
            self._last_failure = failure.text
        attempts = retrying.statistics["attempt_number"]
        seconds = self._clock.monotonic() - started_seconds
        tries = f" ({attempts} attempts in {seconds:.1f} s)" if attempts > 1 else ""
        return failure.final_error(f"{request.name}: {failure.text}{tries}")

    def _error_of_untried(self, request: Request) -> AgentError:
        if self._is_stopped:
            return UnreachableError(f"{request.name}: not pushed: stopped")
        because = f"; the last failure: {self._last_failure}" if self._last_failure else ""
        text = f"{request.name}: not pushed: the budget of {self._budget_seconds:.1f} s was spent before{because}"
        return UnreachableError(text)


_backoff = tenacity.wait_exponential_jitter(multiplier=0.5, max=8.0, jitter=0.5)


def _wait_seconds(state: tenacity.RetryCallState) -> float:
    """Double each time, with jitter so that nodes do not return all at once; longer if the server asks for it."""
    return max(_backoff(state), _failure_of(state).retry_after_seconds)


def _failure_of(state: tenacity.RetryCallState) -> AttemptFailedError:
    failure = state.outcome.exception() if state.outcome is not None else None
    if not isinstance(failure, AttemptFailedError):
        raise TypeError("only failed attempts are tried again")
    return failure
