"""The question for the gateway, and the test of the answer: a test group is pushed, and deleted again."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.check import Status
from agent.check.gateway import check_gateway
from agent.config.values import InvalidError, gateway_url, username
from agent.errors import AgentError
from agent.http.client import Client
from agent.push.gateway import endpoint_of
from agent.push.probe import Probe
from agent.settings import PushgatewaySettings, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agent.check import Finding
    from agent.clock import Clock
    from agent.init.terminal import Terminal

_DEFAULT_URL = "http://127.0.0.1:9091"
_USUAL_PORT = 9091
_NONE = "-"


@dataclass(frozen=True, slots=True)
class Login:
    """The credentials that a person has typed."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway that a person wants."""

    url: str
    login: Login | None = None


class GatewayQuestions:
    """Asks for a gateway until it takes a push, or until the person keeps it as it is.

    Args:
        hostname: to push under.
        terminal: where to ask.
        show: prints a finding of a test.
        clock: for timeouts.
        environ: for proxies.
    """

    def __init__(
        self,
        hostname: str,
        terminal: Terminal,
        show: Callable[[Finding], None],
        clock: Clock,
        environ: Mapping[str, str],
    ) -> None:
        self._settings = Settings(hostname, ())
        self._terminal = terminal
        self._show = show
        self._clock = clock
        self._environ = environ

    def ask(self) -> Gateway | None:
        """The gateway; None if there is to be none."""
        self._terminal.say()
        self._terminal.say('Where do the measurements go? "-" without a Pushgateway: to be scraped instead.')
        gateway = self._ask_url("Pushgateway", _DEFAULT_URL)
        while gateway is not None:
            self._terminal.say(f"Trying {gateway.url}")
            wants_login = self._wants_login(gateway)
            if wants_login and gateway.login is None:
                self._terminal.say("It wants a user name and a password.")
                gateway = Gateway(gateway.url, self._ask_login(""))
                wants_login = self._wants_login(gateway)
            if self._passes(gateway):
                return gateway
            question = 'Enter tries again; or type another URL, "login", "keep", or "-" for none'
            if wants_login:
                question = 'Enter asks for the password again; or type another URL, "keep", or "-"'
            answer = self._terminal.ask(question) or ("login" if wants_login else "")
            if answer == _NONE:
                return None
            if answer.lower() == "keep":
                return gateway
            if answer.lower() == "login":
                before = "" if gateway.login is None else gateway.login.username
                gateway = Gateway(gateway.url, self._ask_login(before))
            elif answer:
                gateway = self._parsed(answer) or gateway
        return None

    def _ask_url(self, question: str, default: str) -> Gateway | None:
        while True:
            answer = self._terminal.ask(question, default)
            if answer == _NONE:
                return None
            gateway = self._parsed(answer)
            if gateway is not None:
                return gateway

    def _parsed(self, answer: str) -> Gateway | None:
        if "@" in answer:
            self._terminal.say("Type the URL without user and password; they are asked for if the gateway wants them.")
            return None
        try:
            return Gateway(gateway_url(complete_url(answer)))
        except InvalidError as error:
            self._terminal.say(f"{error}; type it like {_DEFAULT_URL}")
            return None

    def _ask_login(self, default: str) -> Login:
        while True:
            try:
                user = username(self._terminal.ask("user name", default))
            except InvalidError:
                self._terminal.say('A user name has no ":"; the password is the next question.')
                continue
            if user is None:
                self._terminal.say("Type the user name, as the gateway knows it.")
                continue
            while not (password := self._terminal.ask_secretly("password (not shown)")):
                self._terminal.say("The password is empty; type it, then Enter.")
            return Login(user, password)

    def _wants_login(self, gateway: Gateway) -> bool:
        """Whether it answers 401 as things are."""
        with settings_of(gateway) as settings:
            try:
                client = Client(endpoint_of(settings), clock=self._clock, environ=self._environ)
                probe = Probe(client, settings.timeout_seconds)
            except AgentError:
                return False  # the test says why
            try:
                return probe.get("/api/v1/status").status == HTTPStatus.UNAUTHORIZED
            except AgentError:
                return False
            finally:
                probe.close()

    def _passes(self, gateway: Gateway) -> bool:
        """Push and delete a test group; show what a person should know of it."""
        is_passed = True
        with settings_of(gateway) as settings:
            for finding in check_gateway(self._settings, settings, self._clock, self._environ):
                is_passed = is_passed and not finding.exit_code
                if finding.status in (Status.WARNING, Status.FAILED) or (
                    is_passed and finding.what in ("push", "scrape")
                ):
                    self._show(finding)
        return is_passed


def complete_url(text: str) -> str:
    """A URL from what a person types: `host:port` gets a scheme, and a bare host the usual port too."""
    if "://" in text:
        return text
    url = f"http://{text}"
    try:
        parts = urlsplit(url)
        is_bare = parts.port is None and parts.path in ("", "/")
    except ValueError:
        return url  # refused by the rules for URLs
    return f"{url.rstrip('/')}:{_USUAL_PORT}" if is_bare and parts.hostname else url


@contextmanager
def settings_of(gateway: Gateway) -> Iterator[PushgatewaySettings]:
    """The settings of a gateway whose password is in memory: an interrupted test leaves no file with it."""
    if gateway.login is None:
        yield PushgatewaySettings(gateway.url)
        return
    file = os.memfd_create("password", os.MFD_CLOEXEC)
    try:
        os.fchmod(file, 0o600)
        os.write(file, gateway.login.password.encode())
        path = f"/proc/self/fd/{file}"
        yield PushgatewaySettings(gateway.url, username=gateway.login.username, password_file=path)
    finally:
        os.close(file)
