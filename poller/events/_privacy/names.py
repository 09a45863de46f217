"""Names of attributes, fields and parameters that identify a client or hold a secret.

The rule is design document 005, section 4.1. The names are those of OpenTelemetry's semantic conventions 1.44
and of earlier versions, and common names of log fields.
"""

from __future__ import annotations

import re
from functools import lru_cache

NAMES = frozenset(
    {
        *("client.address", "client.port", "client.socket.address", "client.socket.port"),
        *("source.address", "source.port", "source.ip"),
        *("http.client_ip", "http.user_agent", "url.query", "url.fragment"),
        *("user.name", "user.full_name", "user.hash"),
    }
)
"""Attributes that are never exported."""

PEER = frozenset(
    {
        *("network.peer.address", "network.peer.port", "net.peer.ip", "net.peer.name", "net.peer.port"),
        *("net.sock.peer.addr", "net.sock.peer.name", "net.sock.peer.port"),
    }
)
"""The remote end: a client, and thus personal, on a server span; a called service on a client span."""

PREFIXES = ("user_agent.", "geo.", "enduser.", "http.request.header.", "http.response.header.", "client.geo.")
"""Prefixes of attributes that are never exported."""

# One table for names and for texts: the *end* of a name decides, in any spelling (`dbPassword`, `db-pwd1`).
LINE_ENDINGS = (
    *("authorization", "cookie", "cookies", "useragent", "referer", "forwardedfor", "forwarded"),
    *("baggage", "fullname"),
)
"""Endings of names whose value may contain blanks and, in a text, extends to the end of the line."""
_WORD_ENDINGS = (
    *("ipaddress", "clientip", "clientaddr", "remoteaddr", "remoteip", "remotehost", "peeraddr", "realip"),
    *("connectingip", "token", "ticket", "password", "passwd", "passphrase", "passcode", "secret"),
    *("credential", "credentials", "signature", "apikey", "privatekey", "secretkey", "accesskey"),
    *("accesskeyid", "accountkey", "signingkey", "encryptionkey", "authkey", "email", "emailaddress"),
    *("username", "firstname", "lastname", "querystring", "phone", "phonenumber", "mobilenumber", "msisdn"),
    *("session", "sessionid", "sessid", "sessionkey", "inputvalue"),
)
"""Endings of names whose value is one word or a quoted text."""
_SHORT_ENDINGS = (
    *("ip", "ip_addr", "ipaddr", "jwt", "pass", "pwd", "sig", "otp", "pin", "sid", "auth", "oauth"),
)
"""Endings of such names that count only as a word of their own: `db_pass`, not `bypass`."""
_TAILS = ("confirmation", "confirm", "repeat", "again", "hash", "digest", "value", "old", "new")
"""Words that may follow an ending: `password_confirmation`, `emailHash`."""
PROSE_ENDINGS = frozenset(
    {
        *("token", "ticket", "signature", "credential", "credentials", "session", "apikey"),
        *("jwt", "pass", "sig", "otp", "pin", "sid", "auth", "oauth"),
    }
)
"""Endings of names after which a colon may introduce a sentence: `invalid token: signature mismatch`."""
PHONE_ENDINGS = frozenset({"phone", "phonenumber", "mobilenumber", "msisdn"})
"""Endings of names whose value may be a number with blanks."""
_ENDINGS = (*LINE_ENDINGS, *_WORD_ENDINGS)
LAST_LETTERS = frozenset(ending[-2:] for ending in (*_ENDINGS, *_SHORT_ENDINGS, *_TAILS))
"""Last two letters of all these names, which rule out most words quickly."""
_LOGGED = frozenset({"client", "client_host", "client_port", "peer", "peername", "remote_port"})
"""Common names of log fields that are personal only as the whole name."""
_NOT_PERSONAL = frozenset({"ws.session_id"})
"""Attributes that name no client: the server numbers its connections."""

OWN = frozenset(
    {
        *("server.address", "server.socket.address", "network.local.address", "host.ip", "host.name"),
        *(
            "net.host.ip",
            "net.host.name",
            "net.sock.host.addr",
            "http.host",
            "http.server_name",
            "k8s.pod.ip",
        ),
    }
)
"""Attributes whose address is the server's own, or that of a service it calls."""

TEMPLATES = frozenset({"http.route"})
"""Attributes whose value is a route template, which is the server's own text and needs no scrubbing."""


_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_EDGE = "0123456789_-[](){}<>\"'`:=*? "


def _spell(name: str) -> str:
    """Return a name in lower case with underscores between its words: `userAgent` and `user-agent` alike."""
    return _CAMEL.sub("_", name).lower().replace("-", "_")


def personal_ending(name: str) -> str | None:
    """Return the ending in the table that makes a name, or the words before a separator, personal."""
    word = name.rstrip(_EDGE)
    if (ending := _ending(word)) is None and (lower := word.lower()).endswith(_TAILS):
        tail = next(tail for tail in _TAILS if lower.endswith(tail))
        return _ending(word[: -len(tail)].rstrip("_-"))
    return ending


def _ending(word: str) -> str | None:
    lower = word.lower()
    together = lower.replace("_", "").replace("-", "")
    if together.endswith(_ENDINGS):
        return next(ending for ending in _ENDINGS if together.endswith(ending))
    if lower.endswith(_SHORT_ENDINGS):
        spelled = _spell(word)
        for short in _SHORT_ENDINGS:
            if spelled.endswith(short) and not spelled.removesuffix(short)[-1:].isalpha():
                return short
    return None


@lru_cache(maxsize=4096)
def personal_name(name: str, *, outgoing: bool = False) -> bool:
    """Return whether an attribute of this name identifies or locates a client, or holds a secret.

    `outgoing`: the attribute belongs to a span of kind client or producer, whose peer is a called service.
    """
    plain = _spell(name)
    if plain in PEER:
        return not outgoing
    if plain in OWN or plain in _NOT_PERSONAL:
        return False
    if plain in NAMES or plain in _LOGGED or plain.startswith(PREFIXES):
        return True
    return personal_ending(name.rpartition(".")[2]) is not None
