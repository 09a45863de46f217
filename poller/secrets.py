"""Show a URL or a connection string without its secrets."""

from __future__ import annotations

import re

MASK = "***"

_CONFIDENTIAL = "password|sslpassword|oauth_client_secret|scram_client_key|scram_server_key"
"""libpq's parameters whose value is a secret (PostgreSQL manual, 34.1.2); files and certificates are not."""

_KEYWORD = re.compile(
    rf"\b({_CONFIDENTIAL})(\s*=\s*)(?:'(?:[^'\\]|\\.)*(?:'|$)|(?:[^\s\\]|\\.)*)", re.IGNORECASE | re.DOTALL
)
_PARAMETER = re.compile(rf"([?&](?:{_CONFIDENTIAL})=)[^&]*", re.IGNORECASE)
_QUERY = re.compile(r"\?(?=[A-Za-z_][A-Za-z_0-9.-]*=)")
_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")


def mask_conninfo(conninfo: str) -> str:
    """Mask the password of a libpq URI or keyword string; host, database and user stay readable.

    What is neither, is masked whole: it may be a password that went into the wrong variable.
    """
    if scheme := _URL.match(conninfo):
        base, query = _split_query(conninfo)
        before, at, host = base[scheme.end() :].rpartition("@")
        user, colon, _ = before.partition(":")
        shown = f"{user}:{MASK}" if colon else user
        return scheme.group() + shown + at + host + _PARAMETER.sub(rf"\g<1>{MASK}", query)
    if "=" in conninfo:
        return _KEYWORD.sub(rf"\g<1>\g<2>{MASK}", conninfo)
    return MASK


def mask_url(url: str) -> str:
    """Mask the whole user part of an endpoint and the values of its query: either may be a token."""
    base, query = _split_query(url)
    scheme = _URL.match(base)
    start = scheme.end() if scheme else 0
    before, at, host = base[start:].rpartition("@")
    shown = MASK if before else ""
    return base[:start] + shown + at + host + re.sub(r"=[^&]*", f"={MASK}", query)


def _split_query(url: str) -> tuple[str, str]:
    # A password may hold a question mark, which libpq allows: only what reads like `?name=` begins a query.
    if found := list(_QUERY.finditer(url)):
        return url[: found[-1].start()], url[found[-1].start() :]
    return url, ""
