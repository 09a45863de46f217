"""Know addresses, user agents, queries and tokens in a text by their shapes, and take them out."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

REDACTED = "[redacted]"

# Every pattern that is searched for in any text begins with fixed characters: such a search is ten times as
# quick as one that begins with a boundary or with any of several groups, and a request has to wait for it.
_HEADERS = (
    "authorization|cookie|user-agent|forwarded-for|forwarded|real-ip|referer|connecting-ip|client-ip|baggage"
)
_TOKENS = "token|secret|password|passwd|api_key|api-key|apikey|signature|credentials|credential|ticket"
_SHORT = "pwd|jwt|sig|otp"
_NAMES = re.compile(f"{_HEADERS}|{_TOKENS}|{_SHORT}|bearer|basic|digest|client")
"""Where something personal may stand behind; for texts in small letters, as is what follows."""
_NAME = rf"(?:{_HEADERS}|{_TOKENS}|(?<![a-z])(?:{_SHORT}))"
_NAMED = re.compile(
    # Cookie: a=1; b=2 - to the end of the line.
    rf"(?:{_HEADERS})\s*+[=:]\s*+(?!\[redacted\])(?P<line>[^\r\n\"']+|\"[^\"]*\"?|'[^']*'?)"
    # 'cookie': 'a=1', (b'cookie', b'a=1'), "token":"...", also with the quotes escaped.
    rf"|{_NAME}\\?[\"']\s*+[,:=]\s*+b?+"
    r"(?:\\?\"(?!\[redacted\])(?P<double>[^\"\\]*)|\\?'(?!\[redacted\])(?P<single>[^'\\]*))"
    # token=..., password: ...
    rf"|{_NAME}\s*+[=:]\s*+(?!\[redacted\])(?P<value>\"[^\"]*\"?|'[^']*'?|[^\s,;&\"'}}\])]+)"
    # 'client': ('host', 1234), as an ASGI scope has it.
    r"|client[\"']:\s*+[(\[][\"'](?!\[redacted\])(?P<client>[^\"']+)"
    # Bearer ..., as RFC 9110 has credentials.
    r"|(?:bearer|basic|digest)\s++(?P<credentials>[\w.~+/-]{8,}[^\s,;\"']*)"
)
_JWT = re.compile(r"eyJ[\w-]{5,}\.[\w-]+\.[\w-]*")
_URL = re.compile(r"://[^\s\"'<>]+")
_END_OF_PATH = re.compile(r"[?#](?!\[redacted\])(?=.)")
_QUERY = re.compile(r"(/[^\s?\"'<>]*\?)(?!\[redacted\])[^\s\"'<>]+")
_PARAMETER = re.compile(r"\?(?!\[redacted\])[^\s\"'<>=?]+=[^\s\"'<>]*")
_AGENT = re.compile(
    r"Mozilla/\d[^\"'\r\n]*|(?:curl|Dalvik|okhttp|Dart|CFNetwork|PostmanRuntime|python-httpx|"
    r"python-requests|Python|Go-http-client|axios|Signal-\w+)/\d[^\s\"',;)]*"
)
_DETAIL = re.compile(r"(DETAIL:[ \t]*)(?!\[redacted\])\S[^\r\n]*")
"""Where PostgreSQL quotes the row: `Key (username)=(ada) already exists.`"""
_EMAIL = re.compile(r"[\w.%+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b")
# The host of a URL is a server's, and stays.
_IPV4 = re.compile(r"\d(?<![\w.].)(?<!://.)\d{0,2}(?:\.\d{1,3}){3}(?::\d{1,5})?(?!\w|\.\d)")
_IPV6 = re.compile(
    r"[0-9A-Fa-f:](?<![\w:.].)(?<!://\[.)[0-9A-Fa-f]{0,3}:?[0-9A-Fa-f:]*:[0-9A-Fa-f.]*(?![\w:])"
)
_LONGEST_KEPT = 500
"""Characters of a text whose scrubbed form is remembered."""


def scrub(text: str) -> str:
    """Return `text` without addresses, user agents, cookies, queries and tokens; what is harmless stays.

    Known are IP addresses with their ports (but not the host of a URL, which is a server), e-mail addresses,
    `Mozilla/5.0 ...` and the like, headers and parameters behind their names, bearer and basic credentials,
    JWTs, the row in an error of PostgreSQL, the user part, the query and the fragment of URLs, and the query
    of paths. A password that stands in a sentence has no shape. `poller.events.pii.personal_text` finds
    nothing in what is returned.
    """
    return _remembered(text) if len(text) <= _LONGEST_KEPT else _scrub(text)


def cut(url: str) -> str:
    """Take off a URL or a path what stands before the host's @ and behind the path."""
    if end := _END_OF_PATH.search(url):
        url = url[: end.end()] + REDACTED
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return url
    if "://" in rest:
        rest = cut(rest)
    host, slash, path = rest.partition("/")
    return scheme + slashes + host.rpartition("@")[2] + slash + path


@lru_cache(4096)
def _remembered(text: str) -> str:
    return _scrub(text)


def _scrub(text: str) -> str:
    if "://" in text:
        text = _URL.sub(lambda found: cut(found[0]), text)
    if "?" in text:
        text = _PARAMETER.sub(f"?{REDACTED}", _QUERY.sub(rf"\1{REDACTED}", text))
    if "DETAIL:" in text:
        text = _DETAIL.sub(rf"\1{REDACTED}", text)
    text = _without_the_named(text)
    if "eyJ" in text:
        text = _JWT.sub(REDACTED, text)
    if "/" in text:
        text = _AGENT.sub(REDACTED, text)
    if "@" in text:
        text = _EMAIL.sub(REDACTED, text)
    if text.count(".") > 2:
        text = _IPV4.sub(lambda found: _REPLACED[_is_someones(found[0], IPv4Address)] or found[0], text)
    if text.count(":") > 1:
        text = _IPV6.sub(lambda found: _REPLACED[_is_someones(found[0], IPv6Address)] or found[0], text)
    return text


_REPLACED = {True: REDACTED, False: ""}


def _without_the_named(text: str) -> str:
    small = _in_small_letters(text)
    parts: list[str] = []
    end = 0
    for name in _NAMES.finditer(small):
        if name.start() >= end and (found := _NAMED.match(small, name.start())):
            start, stop = found.span(str(found.lastgroup))
            parts += text[end:start], REDACTED
            end = stop
    return "".join(parts) + text[end:]


def _in_small_letters(text: str) -> str:
    small = text.lower()
    # A few letters become two.
    if len(small) == len(text):
        return small
    return "".join(one if len(one) == 1 else " " for one in map(str.lower, text))


def _is_someones(text: str, kind: type[IPv4Address | IPv6Address]) -> bool:
    """Whether a text is an address of that kind, and not that of no machine; a time of day is none."""
    address = text.partition(":")[0] if kind is IPv4Address else text
    try:
        return not kind(address).is_unspecified
    except ValueError:
        return False
