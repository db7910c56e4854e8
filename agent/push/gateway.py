"""Pushes groups of metrics to a Prometheus Pushgateway: within a budget of time, whatever the network does.

`push` renders the groups (../requests.py) and sends them over one kept-alive connection (connections.py, on sockets
with a deadline: bounded.py); where that is faster, threads with connections of their own help. What failed for the
moment (failures.py says what that is) is repeated until the budget is spent.
"""

from __future__ import annotations

import collections
import logging
import math
import socket
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import tenacity

from agent import __version__
from agent.errors import GatewayUnreachableError
from agent.http.credentials import authorization, masked
from agent.http.deadline import Countdown, Resolver, StoppedError
from agent.http.proxies import proxy_for
from agent.http.tls import TlsContexts
from agent.push.base import GatewayDestination
from agent.push.failures import AttemptFailedError, Parties, PushError, explain, judge, push_error
from agent.push.render import delete_requests, put_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.clock import Clock
    from agent.http.connection import Connection
    from agent.metrics.groups import Group
    from agent.push.render import Request
    from agent.settings import PushgatewaySettings

_log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 8
"""At 40 ms of round trip, 64 groups take 0.4 s over 8 connections and 2.7 s over one; more hardly gain anything."""

_MANY_REQUESTS = 16
"""From here on there are two connections at once: the next request arrives while we look at the last answer."""

_SLOW_SECONDS = 0.01
"""While no answer has come for this long, there is another connection. A gateway near by answers in 0.5 to 5 ms and
handles what it checks one after the other: there a second connection would only cost its handshake."""

_MOST_DISCONNECTS = 2
"""Attempts that may end without an answer. Pushgateway 1.11.0 gives none to a push that it will never accept."""

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 8.0

_JOIN_SECONDS = 1.0
"""How long workers may take to notice that they were stopped before they are left behind."""


@dataclass(frozen=True, slots=True)
class PushResult:
    """What became of one group.

    Attributes:
        name: of the group, for messages.
        grouping_key: of the group, without `job`.
        attempts: how often it was tried; 0 if the budget was spent before its turn came.
        error: why it failed; None if the gateway accepted it.
    """

    name: str
    grouping_key: Mapping[str, str]
    attempts: int
    error: PushError | None


class Pushgateway(GatewayDestination):
    """A Pushgateway and the connections that are kept to it; for one caller at a time, but for `stop`."""

    def __init__(
        self,
        settings: PushgatewaySettings,
        *,
        clock: Clock,
        sleep: Callable[[float], None],
        environ: Mapping[str, str],
        getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo,
    ) -> None:
        """Nothing is opened or read yet.

        Args:
            settings: where and how to push.
            clock: for the budget, and for the date in a Retry-After.
            sleep: waits between attempts, called from several threads at once; what it raises ends the push.
            environ: the environment, for proxies and $CREDENTIALS_DIRECTORY.
            getaddrinfo: looks names up.

        Raises:
            ConfigError: the environment names a proxy that cannot be used.
        """
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._environ = environ
        self._parties = Parties(settings.url, proxy_for(settings.url, environ))
        self._resolver = Resolver(getaddrinfo)
        self._tls_contexts = TlsContexts(settings, environ)
        # Lists that are only appended to and popped from: safe between threads, and no lock that a signal handler
        # which calls `stop` could find held by the very thread it interrupted.
        self._idle: list[Connection] = []
        self._running: list[_Run] = []

    def push(self, groups: Sequence[Group], budget_seconds: float) -> tuple[PushResult, ...]:
        """Replace these groups on the gateway, all within one budget; a result for each, in order.

        Trouble with the gateway is in the results, never raised. What fails for the moment is tried again until
        the budget is spent; what fails for good does not keep the others.

        Raises:
            Exception: what a collector of the metrics raised, before anything was sent, or what `sleep` raised.
        """
        return self._deliver_all(put_requests(groups, self._settings), budget_seconds)

    def delete(self, grouping_keys: Sequence[Mapping[str, str]], budget_seconds: float) -> tuple[PushResult, ...]:
        """Remove these groups from the gateway, as `push` replaces them; one that is not there counts as removed."""
        return self._deliver_all(delete_requests(grouping_keys, self._settings), budget_seconds)

    def stop(self) -> None:
        """End everything that is under way now; for other threads and signal handlers.

        `push` and `delete` return within moments, with errors for what was not done; what waits between attempts
        waits in the `sleep` that was handed in, which has to end by itself. Calls made after this work again.
        """
        for run in tuple(self._running):
            run.stop()

    def close(self) -> None:
        """Close the connections that are kept; the next push opens new ones."""
        while self._idle:
            self._idle.pop().close()

    def _deliver_all(self, requests: Sequence[Request], budget_seconds: float) -> tuple[PushResult, ...]:
        run = _Run(requests, self._clock.monotonic(), budget_seconds)
        self._running.append(run)
        try:
            if len(requests) >= _MANY_REQUESTS:
                self._call_help(run)
            self._work(run)
            self._join(run, _JOIN_SECONDS if run.errors else math.inf)
        except BaseException:
            # A signal handler raised: nothing may go on behind the caller's back.
            run.stop()
            self._join(run, _JOIN_SECONDS)
            raise
        finally:
            self._running.remove(run)
        if run.errors:
            raise run.errors[0]
        return tuple(result for result in run.results if result is not None)

    def _work(self, run: _Run) -> None:
        """Deliver requests until none is left; in the caller's thread, and in those of helpers."""
        try:
            self._deliver_from(run)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            run.errors.append(error)
            run.stop()

    def _call_help(self, run: _Run) -> bool:
        """Start one more thread that delivers; False if there is nothing for it to do, or enough of them.

        It lives for one push: while nothing is pushed it would only hold memory.
        """
        with run.help_lock:
            if not run.waiting or len(run.helpers) >= _MOST_CONNECTIONS - 1 or run.is_stopped():
                return False
            helper = threading.Thread(target=self._work, args=(run,), name="push-helper", daemon=True)
            helper.start()
            run.helpers.append(helper)
            return True

    def _call_help_if_slow(self, run: _Run) -> bool:
        """False if no more help can be had, now or later."""
        is_slow = self._clock.monotonic() - run.answered_at_seconds >= _SLOW_SECONDS
        return self._call_help(run) if is_slow else bool(run.waiting)

    def _join(self, run: _Run, limit_seconds: float = math.inf) -> None:
        """Wait for the helpers, those included that are called meanwhile."""
        ends_at_seconds = self._clock.monotonic() + limit_seconds
        for helper in run.helpers:  # grows while it is walked along
            left_seconds = ends_at_seconds - self._clock.monotonic()
            helper.join(None if math.isinf(left_seconds) else max(0.0, left_seconds))

    def _deliver_from(self, run: _Run) -> None:
        connection: Connection | None = None
        try:
            while (numbered := run.take()) is not None:
                if connection is None:
                    connection = self._take_connection(run)
                number, request = numbered
                run.results[number] = self._deliver(request, connection, run)
        finally:
            if connection is not None:
                run.connections.remove(connection)
                self._idle.append(connection)

    def _take_connection(self, run: _Run) -> Connection:
        if self._idle:
            connection = self._idle.pop()
        else:
            from agent.http.connection import Connection, Route

            route = Route(self._parties.url, self._parties.proxy, self._resolver, self._tls_contexts.context)
            connection = Connection(route, Countdown(self._clock.monotonic))
        run.connections.append(connection)
        return connection

    def _deliver(self, request: Request, connection: Connection, run: _Run) -> PushResult:
        """One request, as often as it takes and the budget allows."""
        started_seconds = self._clock.monotonic()
        if run.is_stopped() or started_seconds >= run.ends_at_seconds:
            return PushResult(request.name, request.grouping_key, 0, run.error_for_untried(request.name))
        failure = self._attempt(request, connection, run)
        if failure is None:
            return PushResult(request.name, request.grouping_key, 1, None)
        attempts, last = self._try_again(failure, request, connection, run)
        if last is None:
            return PushResult(request.name, request.grouping_key, attempts, None)
        if last.is_transient:
            run.last_failure = last.text
        seconds = self._clock.monotonic() - started_seconds
        tries = f" ({attempts} attempts in {seconds:.1f} s)" if attempts > 1 else ""
        return PushResult(
            request.name, request.grouping_key, attempts, push_error(last.kind, f"{request.name}: {last.text}{tries}")
        )

    def _try_again(
        self, failure: AttemptFailedError, request: Request, connection: Connection, run: _Run
    ) -> tuple[int, AttemptFailedError | None]:
        """After a first attempt that failed, all others; how many it were with the first, and how the last one failed.

        tenacity's machinery takes 40 us, which the most requests do without: it is entered with a failure, as if it
        had seen that first attempt itself.
        """
        attempts = 0
        disconnects = 0

        def attempt() -> None:
            nonlocal attempts, disconnects
            attempts += 1
            failed = failure if attempts == 1 else self._attempt(request, connection, run)
            if failed is not None:
                disconnects += failed.is_disconnect
                raise failed

        def is_worth_another(error: BaseException) -> bool:
            if not isinstance(error, AttemptFailedError) or run.is_stopped():
                return False
            return error.is_transient and disconnects < _MOST_DISCONNECTS

        def before_sleep(state: tenacity.RetryCallState) -> None:
            _log.debug("%s: %s; trying again", request.name, _failure_of(state).text)
            self._call_help(run)  # no other request need wait for this one

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_worth_another),
            wait=_wait_seconds,
            # tenacity's own stops time nothing but what is between attempts, on their own clock.
            stop=lambda state: self._clock.monotonic() + state.upcoming_sleep >= run.ends_at_seconds,
            sleep=self._sleep,
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            retrying(attempt)
        except AttemptFailedError as last:
            return attempts, last
        return attempts, None

    def _attempt(self, request: Request, connection: Connection, run: _Run) -> AttemptFailedError | None:
        """Send the request once; why it was not accepted, or None if it was."""
        started_seconds = self._clock.monotonic()
        # The time-out is for all of the attempt, and the budget for all attempts: the last one gets what is left.
        ends_at_seconds = min(started_seconds + self._settings.timeout_seconds, run.ends_at_seconds)
        connection.countdown.start(ends_at_seconds, run.is_stopped)
        proxy = self._parties.proxy
        secrets = [] if proxy is None else [*proxy.secrets]
        failure: AttemptFailedError | None
        try:
            headers = {**dict(request.headers), "User-Agent": f"wattpush/{__version__}"}
            credentials = authorization(self._settings, self._environ)
            if credentials is not None:
                headers["Authorization"] = credentials.header
                secrets += credentials.secrets
            answer = connection.exchange(
                request.method, request.url, headers, request.body, partial(self._call_help_if_slow, run)
            )
            run.answered_at_seconds = self._clock.monotonic()
            failure = judge(answer, request, self._parties, self._clock.time)
        except Exception as error:  # noqa: BLE001 - what is none of the network's is raised again
            seconds = self._clock.monotonic() - started_seconds
            told = StoppedError("stopped") if run.is_stopped() else error
            failure = explain(told, self._parties, connection.countdown.phase, seconds)
            failure.__cause__ = error
        if failure is not None:
            failure.text = masked(failure.text, secrets)
        return failure


class _Run:
    """One call of `push` or `delete`."""

    def __init__(self, requests: Sequence[Request], started_seconds: float, budget_seconds: float) -> None:
        self.budget_seconds = budget_seconds
        self.ends_at_seconds = started_seconds + budget_seconds
        self.answered_at_seconds = started_seconds
        # Each is changed in single steps only, which are safe between threads: see Pushgateway.__init__.
        self.waiting = collections.deque(enumerate(requests))
        self.results: list[PushResult | None] = [None] * len(requests)
        self.connections: list[Connection] = []
        self.helpers: list[threading.Thread] = []
        self.help_lock = threading.Lock()
        self.errors: list[BaseException] = []
        self.last_failure = ""
        self._is_stopped = False

    def take(self) -> tuple[int, Request] | None:
        """The next request and its place in the results; None once all have been taken."""
        try:
            return self.waiting.popleft()
        except IndexError:
            return None

    def is_stopped(self) -> bool:
        return self._is_stopped

    def stop(self) -> None:
        """First the word, then the sockets: whoever opens one in between sees the word before it waits."""
        self._is_stopped = True
        for connection in tuple(self.connections):
            connection.abort()

    def error_for_untried(self, name: str) -> PushError:
        """Why a group was not even tried."""
        if self._is_stopped:
            return GatewayUnreachableError(f"{name}: not pushed: stopped")
        because = f"; the last failure: {self.last_failure}" if self.last_failure else ""
        text = f"{name}: not pushed: the budget of {self.budget_seconds:.1f} s was spent before{because}"
        return GatewayUnreachableError(text)


_backoff = tenacity.wait_exponential_jitter(
    multiplier=_FIRST_WAIT_SECONDS, max=_LONGEST_WAIT_SECONDS, jitter=_FIRST_WAIT_SECONDS
)


def _wait_seconds(state: tenacity.RetryCallState) -> float:
    """Twice as long each time, spread so that many nodes do not come back at once; longer if the server asks for it."""
    return max(_backoff(state), _failure_of(state).retry_after_seconds)


def _failure_of(state: tenacity.RetryCallState) -> AttemptFailedError:
    error = state.outcome.exception() if state.outcome is not None else None
    if not isinstance(error, AttemptFailedError):
        raise TypeError("only failed attempts are tried again")
    return error
