"""Know what tells who a client is, or where it is: names of attributes, and texts that give it away.

The rule is design document 005, section 4.1. The names are those of OpenTelemetry's semantic conventions 1.44
and the ones before them, and what people call such fields in logs.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

NAMES = frozenset(
    {
        *("client.address", "client.port", "client.socket.address", "client.socket.port"),
        *("source.address", "source.port", "source.ip"),
        *("http.client_ip", "http.user_agent", "url.query", "url.fragment"),
        *("user.name", "user.full_name", "user.hash"),
    }
)
"""Attributes that are told of nobody."""

PEER = frozenset(
    {
        *("network.peer.address", "network.peer.port", "net.peer.ip", "net.peer.name", "net.peer.port"),
        *("net.sock.peer.addr", "net.sock.peer.name", "net.sock.peer.port"),
    }
)
"""The other end: a client on a span of kind server, and then personal; a database on one of kind client."""

PREFIXES = ("user_agent.", "geo.", "enduser.", "http.request.header.", "http.response.header.", "client.geo.")
"""Attributes that begin so are told of nobody."""

WORDS = frozenset(
    {
        *(
            "ip",
            "ip_address",
            "client_ip",
            "client_addr",
            "remote_addr",
            "remote_ip",
            "remote_host",
            "peer_addr",
        ),
        *("x_forwarded_for", "x_real_ip", "forwarded", "user_agent", "referer"),
        *("cookie", "cookies", "set_cookie", "authorization", "proxy_authorization", "x_api_key", "api_key"),
        *(
            "token",
            "access_token",
            "refresh_token",
            "id_token",
            "jwt",
            "ticket",
            "password",
            "passwd",
            "secret",
        ),
        *("email", "e_mail", "username", "user_name", "phone", "phone_number", "query_string", "full_name"),
    }
)
"""The last part of an attribute's name, with _ for -, that makes it personal whatever stands before."""

OWN = frozenset(
    {
        *("server.address", "server.socket.address", "network.local.address", "host.ip", "host.name"),
        *("net.host.ip", "net.host.name", "net.sock.host.addr", "http.host", "http.server_name"),
    }
)
"""Where an address is the server's own, or that of what it calls."""

_AUTHORITY = re.compile(r"://[^\s/?#\"']*")
_PASSWORD = re.compile(r"://[^\s/?#:@\"']*:[^\s/?#@\"']+@")
_TOKEN = re.compile(
    r"\b(?:bearer|basic)\s+[\w.~+/-]{8,}"  # RFC 9110, credentials
    r"|\beyJ[\w-]{5,}\.[\w-]+\.[\w-]*"  # RFC 7519, three parts of which the first is JSON
    r"|\b(?:set-cookie|cookie|authorization)\s*[:=]\s*(?!\[redacted\])\S",
    re.IGNORECASE,
)
_QUERY = re.compile(r"\?[\w.%~\[\]-]+=")
_EMAIL = re.compile(r"[\w.%+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b")
_USER_AGENT = re.compile(r"\bMozilla/\d")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]*:[0-9A-Fa-f.]*(?![\w:])")


@lru_cache(maxsize=4096)
def personal_name(name: str, *, outgoing: bool = False) -> bool:
    """Whether an attribute of this name tells who or where a client is.

    `outgoing`: of a span of kind client or producer, whose peer is what the server calls.
    """
    plain = name.lower().replace("-", "_")
    if plain in PEER:
        return not outgoing
    if plain in OWN:
        return False
    return plain in NAMES or plain.startswith(PREFIXES) or plain.rpartition(".")[2] in WORDS


def personal_text(text: str, *, addresses: bool = True) -> str | None:
    """Say what a text gives away, `an IP address` for example; None where it gives nothing away.

    The host of a URL is a server's, not a client's. `addresses=False` passes over IP addresses: see `OWN`.
    """
    if _PASSWORD.search(text):
        return "a password"
    if _TOKEN.search(text):
        return "a token"
    if _QUERY.search(text):
        return "a query string"
    if _USER_AGENT.search(text):
        return "a user agent"
    rest = _AUTHORITY.sub("://", text) if "://" in text else text
    if "@" in rest and _EMAIL.search(rest):
        return "an e-mail address"
    if addresses and _has_address(rest):
        return "an IP address"
    return None


def _has_address(text: str) -> bool:
    for found in _IPV4.findall(text):
        try:
            if not IPv4Address(found).is_unspecified:
                return True
        except AddressValueError:
            continue
    for found in _IPV6.findall(text) if text.count(":") > 1 else ():
        try:
            if not IPv6Address(found).is_unspecified:
                return True
        except AddressValueError:
            continue
    return False
