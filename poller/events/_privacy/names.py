"""Names of attributes, fields and parameters that identify a client or hold a secret.

The rule is design document 005, section 4.1. The names are those of OpenTelemetry's semantic conventions 1.44
and of earlier versions, and common names of log fields.
"""

from __future__ import annotations

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

_TO_END_OF_LINE = (
    *("authorization", "proxy_authorization", "cookie", "cookies", "set_cookie", "user_agent", "referer"),
    *("x_forwarded_for", "forwarded_for", "forwarded", "baggage", "full_name"),
)
_ONE_WORD = (
    *("ip_address", "client_ip", "client_addr", "remote_addr", "remote_ip", "remote_host", "peer_addr"),
    *("x_real_ip", "real_ip", "connecting_ip"),
    *("token", "ticket", "password", "passwd", "secret", "api_key", "x_api_key"),
    *("email", "e_mail", "username", "user_name", "first_name", "last_name", "query_string"),
    *("phone", "phone_number", "msisdn"),
)
_SHORT = ("ip", "jwt")

WORDS = frozenset(
    {*_TO_END_OF_LINE, *_ONE_WORD, *_SHORT, "access_token", "refresh_token", "id_token", "private_key"}
)
"""Last parts of attribute names that are personal with any prefix. `userAgent` and `user-agent` match too."""

OWN = frozenset(
    {
        *("server.address", "server.socket.address", "network.local.address", "host.ip", "host.name"),
        *("net.host.ip", "net.host.name", "net.sock.host.addr", "http.host", "http.server_name"),
    }
)
"""Attributes whose address is the server's own, or that of a service it calls."""

TEMPLATES = frozenset({"http.route"})
"""Attributes whose value is a route template, which is the server's own text and needs no scrubbing."""


def compact(name: str) -> str:
    """Return a name in lower case without underscores and hyphens."""
    return name.lower().replace("_", "").replace("-", "")


_COMPACT_WORDS = frozenset(map(compact, WORDS))

# In texts, the *end* of the word before a separator counts: `db_password=`, `userAgent:`, `"csrftoken": `.
LINE_ENDINGS = tuple(map(compact, _TO_END_OF_LINE))
"""Suffixes of names whose value may contain blanks and extends to the end of the line."""
WORD_ENDINGS = (
    *map(compact, _ONE_WORD),
    *("credential", "credentials", "signature", "passphrase", "passcode", "inputvalue"),
    *("privatekey", "secretkey", "accesskey", "accesskeyid", "signingkey", "encryptionkey", "authkey"),
    *("session", "sessionid", "sessid", "sessionkey"),
)
"""Suffixes of names whose value is one word or a quoted text."""
SHORT_ENDINGS = (*_SHORT, "pwd", "sig", "otp", "pin", "sid", "auth", "oauth")
"""Suffixes of names that count only if no letter precedes them."""
PROSE_ENDINGS = (
    *("token", "ticket", "signature", "credential", "credentials", "session", "apikey"),
    *("jwt", "sig", "otp", "pin", "sid", "auth"),
)
"""Suffixes of names after which a colon may introduce a sentence: `invalid token: signature mismatch`."""
PHONE_ENDINGS = ("phone", "phonenumber", "msisdn")
"""Suffixes of names whose value may be a number with blanks."""


@lru_cache(maxsize=4096)
def personal_name(name: str, *, outgoing: bool = False) -> bool:
    """Return whether an attribute of this name identifies or locates a client, or holds a secret.

    `outgoing`: the attribute belongs to a span of kind client or producer, whose peer is a called service.
    """
    plain = name.lower().replace("-", "_")
    if plain in PEER:
        return not outgoing
    if plain in OWN:
        return False
    last = compact(plain.rpartition(".")[2])
    return plain in NAMES or plain.startswith(PREFIXES) or last in _COMPACT_WORDS
