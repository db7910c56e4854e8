"""Through the proxy that the environment names."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from agent.errors import ConfigError, RejectedError, UnreachableError
from agent.http.proxies import proxy_for
from tests.push.pushing import TurnedClock, message, push_one, push_until_error_matches, pushgateway_for
from tests.servers import Server, answering, free_port, hanging, proxying, write_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import Client

AUTHORIZATION = "Basic dXNlcjpwQHNz"  # user:p@ss


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_plain_push_goes_through_the_proxy(name: str) -> None:
    with (
        Server(answering("200 OK")) as gateway,
        Server(proxying()) as proxy,
        pushgateway_for(gateway.url, environ={name: proxy.url}) as destination,
    ):
        assert push_one(destination).error is None
    assert proxy.requests[0].target == f"{gateway.url}/metrics/job/power/device/cpu/hostname/node-17"
    assert gateway.requests[0].headers["host"] == f"127.0.0.1:{gateway.port}"


@pytest.mark.parametrize(
    "environ",
    [
        {"no_proxy": "127.0.0.1"},
        {"NO_PROXY": "*"},
        {"no_proxy": "example.org, 127.0.0.1"},
        {"no_proxy": "127.0.0.0/8"},
        {"no_proxy": "localhost 10.0.0.0/8,127.0.0.1"},
        {"http_proxy": ""},
        {"REQUEST_METHOD": "GET"},
    ],
)
def test_environment_may_exempt_the_gateway_from_the_proxy(environ: dict[str, str]) -> None:
    with (
        Server(answering("200 OK")) as gateway,
        Server(proxying()) as proxy,
        pushgateway_for(gateway.url, environ={"HTTP_PROXY": proxy.url, **environ}) as destination,
    ):
        assert push_one(destination).error is None
    assert (len(gateway.requests), proxy.connections) == (1, 0)


@pytest.mark.reliability(
    9.31,
    "`no_proxy` with networks, IPv6 addresses, `*.suffix` and ports",
    "the gateway is reached directly; what is not listed goes through the proxy",
)
@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        ("http://gateway.example.org:9091", "*.example.org"),
        ("http://gateway.example.org:9091", ".example.org"),
        ("http://gateway.example.org:9091", "example.org"),
        ("http://gateway.example.org.:9091", "EXAMPLE.ORG"),
        ("http://example.org:9091", "*.example.org"),
        ("http://gateway.example.org:9091", "10.0.0.0/8, gateway.example.org:9091"),
        ("http://gateway.example.org", "gateway.example.org:80"),
        ("http://10.1.2.3:9091", "10.0.0.0/8"),
        ("http://10.1.2.3:9091", "10.1.2.3:9091"),
        ("http://[::1]:9091", "::1"),
        ("http://[::1]:9091", "0:0:0:0:0:0:0:1"),
        ("http://[::1]:9091", "[::1]"),
        ("http://[::1]:9091", "[::1]:9091"),
        ("http://[fd00::2]:9091", "fd00::/8"),
        ("http://[fe80::1%25eth0]:9091", "fe80::/10"),
        ("http://gateway.example.org", "other,*"),
    ],
)
def test_no_proxy_covers_names_addresses_networks_and_ports(
    url: str, no_proxy: str, measured: Callable[[str], None]
) -> None:
    assert proxy_for(url, {"http_proxy": "proxy.test:3128", "no_proxy": no_proxy}) is None
    measured("16 forms match")


@pytest.mark.reliability(
    9.31,
    "`no_proxy` with networks, IPv6 addresses, `*.suffix` and ports",
    "the gateway is reached directly; what is not listed goes through the proxy",
)
@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        ("http://gateway.example.org:9091", "notexample.org, ample.org, *.example.com"),
        ("http://gateway.example.org:9091", "gateway.example.org:9092"),
        ("http://gateway.example.org", "gateway.example.org:9091"),
        ("http://10.1.2.3:9091", "11.0.0.0/8, 10.1.2.3:80, 2.3, *.2.3"),
        ("http://[::1]:9091", "::2, [::1]:80, 127.0.0.0/8"),
        ("http://gateway:9091", ",, ., /8, [, :9091, *x"),
    ],
)
def test_no_proxy_covers_nothing_else(url: str, no_proxy: str, measured: Callable[[str], None]) -> None:
    assert proxy_for(url, {"http_proxy": "proxy.test:3128", "no_proxy": no_proxy}) is not None
    measured("no other address does")


@pytest.mark.reliability(
    9.3,
    "a proxy that answers in place of the gateway",
    "the error says that it may be the proxy's, and how to go around it",
)
@pytest.mark.parametrize(
    "answer",
    [
        answering("403 Forbidden", b"policy"),
        answering("302 Found", b"", "Location: http://login.test/"),
        answering("200 OK", b"<html>", "Content-Type: text/html"),
        answering("503 Service Unavailable"),
    ],
    ids=["403", "302", "200 web page", "503"],
)
def test_an_answer_through_a_proxy_may_be_the_proxys(
    answer: Callable[[Client], None], measured: Callable[[str], None]
) -> None:
    with (
        Server(answer) as proxy,
        pushgateway_for("http://gateway.test", clock=TurnedClock(), environ={"http_proxy": proxy.url}) as destination,
    ):
        text = message(push_one(destination))
    assert f"the proxy 127.0.0.1:{proxy.port} may have refused it: no_proxy=gateway.test goes around it" in text
    measured("a refusal, a redirect, a web page, a 503")


def test_an_answer_within_a_tunnel_is_the_gateways(tmp_path: Path) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = write_file(tmp_path / "ca.pem", ca.cert_pem.bytes())
    with Server(answering("403 Forbidden"), context) as gateway, Server(proxying()) as proxy:
        with pushgateway_for(gateway.url, environ={"https_proxy": proxy.url}, ca_file=ca_file) as destination:
            assert "may have refused it" not in message(push_one(destination))


def test_only_the_proxy_gets_its_credentials(tmp_path: Path) -> None:
    token = write_file(tmp_path / "token", "for-the-gateway")
    with Server(answering("200 OK")) as gateway, Server(proxying(AUTHORIZATION)) as proxy:
        environ = {"http_proxy": f"user:p%40ss@127.0.0.1:{proxy.port}"}
        with pushgateway_for(gateway.url, environ=environ, bearer_token_file=token) as destination:
            assert push_one(destination).error is None
    assert gateway.requests[0].headers["authorization"] == "Bearer for-the-gateway"
    assert "proxy-authorization" not in gateway.requests[0].headers


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["plain proxy", "proxy over TLS"])
def test_tls_push_is_tunnelled_and_the_connection_kept(tmp_path: Path, *, proxy_tls: bool) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = write_file(tmp_path / "ca.pem", ca.cert_pem.bytes())
    token = write_file(tmp_path / "token", "for-the-gateway")
    with (
        Server(answering("200 OK"), context) as gateway,
        Server(proxying(AUTHORIZATION), context if proxy_tls else None) as proxy,
    ):
        environ = {"https_proxy": proxy.url.replace("://", "://user:p%40ss@")}
        with pushgateway_for(gateway.url, environ=environ, ca_file=ca_file, bearer_token_file=token) as destination:
            for _ in range(3):
                assert push_one(destination).error is None
    (connect,) = proxy.requests
    assert (connect.method, connect.target) == ("CONNECT", f"127.0.0.1:{gateway.port}")
    assert "authorization" not in connect.headers
    assert len(gateway.requests) == 3


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_requires_credentials_is_named_without_secrets(scheme: str) -> None:
    clock = TurnedClock()
    with Server(proxying(AUTHORIZATION)) as proxy:
        environ = {"all_proxy": f"http://user:wr0ng@127.0.0.1:{proxy.port}"}
        with pushgateway_for(f"{scheme}://gateway.test", clock=clock, environ=environ) as destination:
            result = push_one(destination)
    assert isinstance(result.error, RejectedError)
    assert result.attempts == 1
    assert f"the proxy 127.0.0.1:{proxy.port}" in message(result)
    assert "407 Proxy Authentication Required" in message(result)
    assert "the proxy's user and password" in message(result)
    assert "wr0ng" not in message(result) + repr(destination._client.route)


def test_echoed_proxy_password_is_masked() -> None:
    with (
        Server(answering("403 Forbidden", b"user dXNlcjpzM2NyZXQ= with s3cret may not")) as proxy,
        pushgateway_for(
            "http://gateway.test", environ={"http_proxy": f"user:s3cret@127.0.0.1:{proxy.port}"}
        ) as destination,
    ):
        result = push_one(destination)
    assert "403 Forbidden: user *** with *** may not" in message(result)


def test_proxy_that_refuses_connections_is_named() -> None:
    port = free_port()
    with pushgateway_for(
        "http://gateway.test", clock=TurnedClock(), environ={"http_proxy": f"127.0.0.1:{port}"}
    ) as destination:
        result = push_one(destination)
    assert isinstance(result.error, UnreachableError)
    assert f"the proxy 127.0.0.1:{port} refused the connection" in message(result)


def test_transient_tunnel_failure_is_tried_again() -> None:
    clock = TurnedClock()
    with (
        Server(answering("503 Service Unavailable", b"", "Connection: close")) as proxy,
        pushgateway_for("https://gateway.test", clock=clock, environ={"https_proxy": proxy.url}) as destination,
    ):
        result = push_one(destination)
    assert isinstance(result.error, UnreachableError)
    assert result.attempts > 1
    assert "answered CONNECT gateway.test:443 with 503 Service Unavailable" in message(result)


def test_hanging_proxy_ends_at_the_timeout() -> None:
    with (
        Server(hanging) as proxy,
        pushgateway_for("https://gateway.test", timeout_seconds=0.2, environ={"https_proxy": proxy.url}) as destination,
    ):
        output = re.escape(f"gateway.test:443 through the proxy 127.0.0.1:{proxy.port} timed out after ")
        push_until_error_matches(rf"{output}\d+\.\d s, while waiting for the proxy", destination, 0.3)


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["plain proxy", "proxy over TLS"])
def test_hanging_handshake_behind_a_proxy_ends_at_the_timeout(tmp_path: Path, *, proxy_tls: bool) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = write_file(tmp_path / "ca.pem", ca.cert_pem.bytes())
    with (
        Server(proxying(), context if proxy_tls else None) as proxy,
        Server(hanging) as gateway,
        pushgateway_for(
            gateway.url.replace("http:", "https:"),
            ca_file=ca_file,
            timeout_seconds=0.5,
            environ={"https_proxy": proxy.url},
        ) as destination,
    ):
        push_until_error_matches(r"timed out after \d+\.\d s, while agreeing on TLS", destination, 0.5)


@pytest.mark.parametrize(
    "value",
    [
        "socks5://secret:1080",
        "http://:secret@",
        "http://host:secret",
        "http://[secret",
        "http://secret secret:3128",
        "http://secret\x01:3128",
        "http://secret%00:3128",
    ],
)
def test_invalid_proxy_is_a_configuration_error_and_not_shown(value: str) -> None:
    with pytest.raises(ConfigError, match="all_proxy is not the URL of an HTTP proxy") as caught:
        with pushgateway_for("http://gateway.test", environ={"all_proxy": value}):
            pass
    assert "secret" not in str(caught.value)
