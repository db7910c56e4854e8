"""Answers of the scrape server itself, before any page is asked."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from http import HTTPStatus


def refusal(head: bytes, status: HTTPStatus, text: str, *headers: str) -> bytes:
    """The whole answer to a request, in plain text and with further headers."""
    body = f"{text}\n".encode()
    lines = (
        f"HTTP/1.0 {status.value} {status.phrase}",
        "Server: wattpush",
        f"Date: {formatdate(usegmt=True)}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        *headers,
    )
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if head.startswith(b"HEAD ") else body)
