"""The answers of a Pushgateway: accepted, worth another try, or refused, with a hint."""

from __future__ import annotations

import http
from typing import TYPE_CHECKING

from agent.errors import RejectedError
from agent.http.failures import (
    PROXY_CREDENTIALS_HINT,
    WANTS_TLS,
    AttemptFailedError,
    is_web_page,
    proxy_hint,
    quoted_body,
    redirect_text,
    retry_after_seconds,
    status_line,
    transient,
    web_page_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.http.connection import Answer
    from agent.http.endpoint import Route
    from agent.push.render import Request

DISCONNECT_HINT = (
    "Pushgateway 1.11.0 does so instead of answering 400 to a push that it will never accept, such as one of a metric "
    "that another group has with another type: check its metrics and its log"
)

_STATUS_HINTS = {
    401: "check pushgateway.username and password_file, or bearer_token_file",
    403: "check pushgateway.username and password_file, or bearer_token_file, and what this user may do",
    404: "check the path in pushgateway.url; is a Pushgateway behind it?",
    405: "does pushgateway.url lead to a Pushgateway? A proxy before it has to let PUT and DELETE pass",
    407: PROXY_CREDENTIALS_HINT,
    413: "raise the limit of the proxy before the gateway (nginx: client_max_body_size)",
    415: "Pushgateway 1.5.0 or newer is needed, as bodies are compressed",
}


def check_answer(answer: Answer, request: Request, route: Route, unix_time_seconds: Callable[[], float]) -> None:
    """Raise AttemptFailedError unless the answer accepts the request."""
    via_proxy = proxy_hint(route)
    what = f"{request.method} {request.path}"
    if 200 <= answer.status < 300:
        # A Pushgateway accepts with an empty body. A web page comes from a server that accepts everything.
        if is_web_page(answer):
            raise AttemptFailedError(RejectedError, web_page_text(route, what, "a Pushgateway"))
        return
    status = status_line(answer)
    if 300 <= answer.status < 400:
        raise AttemptFailedError(RejectedError, redirect_text(answer, route, what))
    words = quoted_body(answer)
    reply = f"{status}: {words}" if words else status
    if answer.status in (408, 429) or answer.status >= 500:
        wait_seconds = retry_after_seconds(answer, unix_time_seconds)
        asks = f"; it asks to wait {wait_seconds:.0f} s" if wait_seconds else ""
        raise transient(f"{route.hops} answered {what} with {reply}{asks}{via_proxy}", retry_after_seconds=wait_seconds)
    hint = _STATUS_HINTS.get(answer.status) or _bad_request_hint(answer.body.decode("utf-8", errors="replace"))
    if answer.status != http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        hint += via_proxy
    raise AttemptFailedError(RejectedError, f"{route.hops} rejected {what} with {reply}; {hint}")


def _bad_request_hint(words: str) -> str:
    if WANTS_TLS.search(words):
        return "this port speaks TLS: write https:// in pushgateway.url"
    if "parsing error" in words:
        return "is it older than Pushgateway 1.5.0, which cannot read compressed bodies?"
    if "was collected before with the same name and label values" in words:
        return (
            "another group holds these very series, as after a change of group_by: `wattpush delete` removes this "
            "node's groups of both shapes, and the next push is accepted"
        )
    if "inconsistent" in words:
        return "if another group has this metric with another type, delete that group"
    return "see the log of the gateway"
