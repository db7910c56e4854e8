"""What an answer of a remote write server means for the frame that was sent.

    answer                              meaning      what the sender does
    2xx, but no web page                TAKEN        counts the samples as accepted
    none, 408, 425, 429, 5xx            LATER        sends the same bytes again, ever less often; obeys Retry-After
    413, and 400 that names a limit     TOO_LARGE    sends smaller parts
    400, 409, 422                       REFUSED      finds the part that is refused; gives that up once the server
                                                     takes another request and refuses the part again
    400 that names the path, a web      HOLD         keeps everything, and logs what to change
    page, 3xx, any other 4xx

A 5xx other than 502 to 504 may mean the data, too (`is_server_error`): see lasting_errors.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.errors import ConfigError, RejectedError, UnreachableError
from agent.http.failures import (
    PROXY_CREDENTIALS_HINT,
    is_web_page,
    proxy_hint,
    quoted_body,
    redirect_text,
    retry_after_seconds,
    status_line,
    web_page_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.errors import AgentError
    from agent.http.connection import Answer
    from agent.http.endpoint import Route
    from agent.http.failures import AttemptFailedError

_NOT_NOW = frozenset({408, 425, 429})
_AWAY = frozenset({502, 503, 504})
"""A server that is overloaded or starts, or a proxy whose server is away: these never mean the data."""

_PERHAPS_THE_DATA = frozenset({400, 409, 422})

_CREDENTIALS_HINT = (
    "check remote_write.username and password_file, or bearer_token_file, and the tenant in remote_write.headers"
)
_PATH_HINT = (
    "remote_write.url needs the whole path: /api/v1/write for VictoriaMetrics and Prometheus, /api/v1/push for Mimir; "
    "docs/history.md has others"
)
_TLS_HINT = "this port speaks TLS: write https:// in remote_write.url"
_RECEIVER_HINT = "start Prometheus with --web.enable-remote-write-receiver"
_SIZE_HINT = (
    "requests get smaller until one passes; to send more at once raise the limit of the server, or of the proxy before "
    "it (nginx: client_max_body_size; VictoriaMetrics: -maxInsertRequestSize)"
)
_STATUS_HINTS = {
    401: _CREDENTIALS_HINT,
    403: f"{_CREDENTIALS_HINT}; may this user write?",
    404: f"{_PATH_HINT}; {_RECEIVER_HINT}",
    405: f"a proxy before the server has to let POST pass; {_PATH_HINT}",
    407: PROXY_CREDENTIALS_HINT,
    415: "the server has to take remote write 1.0: protobuf, compressed with snappy",
}

_WRONG_PATH = re.compile(r"unsupported path requested|missing route for|cannot parse path|auth error", re.IGNORECASE)
"""VictoriaMetrics (single, vmauth, cluster) answers 400, not 404, to a path that it does not know.

Source: VictoriaMetrics 1.79.5 with a wrong path; app/vmauth/main.go and app/vminsert/main.go for the others.
"""

_WANTS_TLS = re.compile(r"HTTP request (?:was sent )?to (?:an )?HTTPS|plain HTTP to an SSL", re.IGNORECASE)
"""A port that speaks TLS answers 400 to a request without it, in plain text where the server is written in Go.

Source: Go, net/http/server.go; nginx, src/http/ngx_http_special_response.c; Apache, modules/ssl/ssl_engine_kernel.c.
"""

_TOO_LARGE = re.compile(r"too big packed request|max-write-message-size|message larger than max", re.IGNORECASE)
"""VictoriaMetrics and Mimir answer 400 to a body beyond their limit; see -maxInsertRequestSize."""

_STORED_ALREADY = re.compile(r"out.of.order|duplicate.(sample|timestamp)", re.IGNORECASE)
"""The series has this sample or a newer one. `out of bounds` and `too old sample` do not mean that: they compare with
the newest sample of the whole server, not of this series.

Source: Prometheus, tsdb/head_append.go, appendable; Mimir, pkg/util/globalerror/user.go.
"""


class Meaning(Enum):
    """What to do with the frame; the table above says when."""

    TAKEN = "it is stored"
    LATER = "send the same bytes again later"
    HOLD = "the request is wrong, not the data: keep everything"
    TOO_LARGE = "send it in smaller parts"
    REFUSED = "the data may be wrong: find the part that the server refuses"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of an attempt.

    Attributes:
        words: what happened, where, and what to do; empty if it was taken.
        retry_after_seconds: how long the server asks to wait.
        error: the kind of error for `--once`; None if it was taken.
        is_stored_already: whether the server says that it has such samples, or newer ones of the series, already.
        is_unanswered: whether the server may have stored it although it did not accept it: there was no whole answer,
            or a 5xx, or the request was sent twice because its connection had been dropped.
        is_server_error: whether it is a 5xx that may mean the data, which the server will then never take.
    """

    meaning: Meaning
    words: str = ""
    retry_after_seconds: float = 0.0
    error: type[AgentError] | None = None
    is_stored_already: bool = False
    is_unanswered: bool = False
    is_server_error: bool = False

    def as_error(self) -> AgentError | None:
        """The error for `--once`; None if it was taken."""
        if self.error is None:
            return None
        return ConfigError((self.words,)) if issubclass(self.error, ConfigError) else self.error(self.words)


TAKEN = Verdict(Meaning.TAKEN)


def verdict_of(answer: Answer, route: Route, unix_time_seconds: Callable[[], float]) -> Verdict:
    """What an answer means."""
    what = f"POST {urlsplit(route.endpoint.url).path or '/'}"
    via_proxy = proxy_hint(route)
    if 200 <= answer.status < 300:
        # Servers accept with an empty body. A web page comes from one that accepts everything.
        if not is_web_page(answer):
            return TAKEN
        return Verdict(Meaning.HOLD, web_page_text(route, what, "a remote write server"), error=RejectedError)
    if 300 <= answer.status < 400:
        return Verdict(Meaning.HOLD, redirect_text(answer, route, what), error=RejectedError)
    quoted = quoted_body(answer)
    answered = f"{route.hops} answered {what} with {status_line(answer)}{': ' if quoted else ''}{quoted}"
    if answer.status in _NOT_NOW or answer.status >= 500:
        wait_seconds = retry_after_seconds(answer, unix_time_seconds)
        asks = f"; it asks to wait {wait_seconds:.0f} s" if wait_seconds else ""
        is_server_error = answer.status >= 500 and answer.status not in _AWAY
        return Verdict(
            Meaning.LATER,
            f"{answered}{asks}{via_proxy}",
            wait_seconds,
            UnreachableError,
            is_unanswered=answer.status >= 500,
            is_server_error=is_server_error,
        )
    return _rejection(answer, answered, via_proxy)


def verdict_of_failure(failure: AttemptFailedError, *, is_unanswered: bool) -> Verdict:
    """What an attempt without an answer means.

    Args:
        failure: explained.
        is_unanswered: whether the server may have stored what was sent.
    """
    meaning = Meaning.LATER if failure.is_transient else Meaning.HOLD
    return Verdict(meaning, failure.text, failure.retry_after_seconds, failure.kind, is_unanswered=is_unanswered)


def _rejection(answer: Answer, answered: str, via_proxy: str) -> Verdict:
    """What a 4xx means."""
    said = answer.body.decode("utf-8", errors="replace")
    is_perhaps_the_data = answer.status in _PERHAPS_THE_DATA
    if answer.status == 413 or (is_perhaps_the_data and _TOO_LARGE.search(said)):
        return Verdict(Meaning.TOO_LARGE, f"{answered}; {_SIZE_HINT}{via_proxy}", error=RejectedError)
    if is_perhaps_the_data and not (_WRONG_PATH.search(said) or _WANTS_TLS.search(said) or is_web_page(answer)):
        # Thanos says only `conflict`, with 409, for samples out of order.
        is_stored_already = answer.status == 409 or _STORED_ALREADY.search(said) is not None
        hint = _data_hint(said)
        words = f"{answered}; {hint}" if hint else answered
        return Verdict(Meaning.REFUSED, words, error=RejectedError, is_stored_already=is_stored_already)
    if is_perhaps_the_data:
        hint = _TLS_HINT if _WANTS_TLS.search(said) else _PATH_HINT
    elif "remote write receiver" in said:
        hint = _RECEIVER_HINT
    else:
        hint = _STATUS_HINTS.get(answer.status, "see the log of the server")
    if answer.status != 407:
        hint += via_proxy
    return Verdict(Meaning.HOLD, f"{answered}; {hint}", error=RejectedError)


def _data_hint(said: str) -> str:
    """What to do about samples that a server refuses for their time; empty if that is not known."""
    if "too old" in said or "too-old" in said or "out of bounds" in said:
        return (
            "older than the server takes: a longer out_of_order_time_window (Prometheus, Mimir) takes a backlog in; "
            "a sample from the future, of any node, has this effect too"
        )
    if _STORED_ALREADY.search(said):
        return (
            "the server has newer or other samples of these series: do two nodes have one hostname? "
            "An out_of_order_time_window (Prometheus, Mimir) takes older ones"
        )
    return ""
