"""Personal data of clients is detected, and data about the server itself is not."""

from __future__ import annotations

import pytest

from poller.events._privacy.names import NAMES, OWN, PEER, personal_name
from poller.events._privacy.patterns import personal_text


@pytest.mark.parametrize(
    "name",
    [
        *sorted(NAMES),
        *("user_agent.original", "User_Agent.Name", "geo.country.iso_code", "enduser.id"),
        *("http.request.header.cookie", "http.request.header.x-forwarded-for"),
        *("http.response.header.set-cookie", "x-forwarded-for", "Authorization"),
        *("remote_addr", "client-ip", "app.user.email", "messaging.push.token"),
    ],
)  # fmt: skip
def test_names_that_are_personal(name: str) -> None:
    assert personal_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *sorted(OWN),
        *("user.id", "device.id", "request.id", "http.request.method", "http.route", "url.path", "url.full"),
        *("http.response.status_code", "db.response.status_code", "error.type", "ws.session_id", "db.user"),
        *(
            "gen_ai.usage.input_tokens",
            "network.protocol.version",
            "server.port",
            "client.kind",
            "ip.version",
        ),
    ],
)
def test_names_that_are_not_personal(name: str) -> None:
    assert not personal_name(name)


@pytest.mark.parametrize("name", sorted(PEER))
def test_the_peer_is_personal_if_it_is_a_client(name: str) -> None:
    assert personal_name(name)
    assert not personal_name(name, outgoing=True)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('127.0.0.1:53424 - "GET /v1/users HTTP/1.1" 200', "an IP address"),
        ("peer 203.0.113.7 left", "an IP address"),
        ("from [2001:db8::1]:443", "an IP address"),
        ("::1", "an IP address"),
        ("::ffff:203.0.113.7", "an IP address"),
        ("no route to ada@example.org", "an e-mail address"),
        ("Authorization: x", "a secret or personal field"),
        ("bearer abcdefgh12345", "a token"),
        ("got eyJhbGciOiJI.eyJzdWIiOiIx.c2ln", "a token"),
        ("Cookie: session=1", "a secret or personal field"),
        ("GET /v1/gateway?ticket=9", "a query string"),
        ("/search?q=", "a query string"),
        ("postgresql://u:secret@db/app", "a password"),
        ("Mozilla/5.0 (X11; Linux x86_64)", "a user agent"),
    ],
)
def test_texts_with_personal_data(text: str, kind: str) -> None:
    assert personal_text(text) == kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Uvicorn running on http://127.0.0.1:8000 (Press CTRL+C to quit)",
        "listening on 0.0.0.0:3000 and [::]:9090",
        "postgresql://poller@replica.example:5432/app",
        "obscura_server::api::ws_gateway",
        "12:30:45.123 done in 1.5s",
        "PostgreSQL 18.6, libpq 18.6.0, build 1.2.3.4.5, part 300.1.2.3",
        "aa:bb:cc:dd:ee:ff",
        "SELECT * FROM users WHERE id = ? AND name = ?",
        "what? yes=no",
        "@decorated",
        "0190163d-8694-739b-aea5-966c26f8ad91",
        "token expired",
    ],
)
def test_texts_without_personal_data(text: str) -> None:
    assert personal_text(text) is None


def test_only_addresses_can_be_ignored() -> None:
    assert personal_text("10.0.0.5", addresses=False) is None
    assert personal_text("ada@example.org 10.0.0.5", addresses=False) == "an e-mail address"
