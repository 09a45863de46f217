"""Detection of personal data and credentials at every place of an OTLP request.

The names and most patterns are those that `poller.events` itself never exports. Other servers send more:
other spellings, percent-encoding, credentials of well-known services. The processing time of each text is
bounded, because a client may have chosen the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from urllib.parse import unquote

from poller.events._privacy.attributes import is_denied
from poller.events._privacy.names import OWN, PEER
from poller.events._privacy.patterns import personal_text
from poller.model.text import quote
from poller.receiver.decode import ReceivedValue
from poller.tools.conform.notes import Differences

LONGEST = 16_384
"""Number of characters of a text that are examined; the rest is ignored."""
_WINDOW, _OVERLAP = 1024, 128
"""Length and overlap of the searched parts; the time of some patterns grows with the square of the length."""
_LONGEST_CACHED = 256

_EMPTY = r"(?!\[redacted\](?![^\s\"',;&)\]}])|\*{3}|(?:null|none|nil|undefined)\b|[$?:%{<-])"
_QUOTE = r"\\?[\"']?"
_ANY = rf"{_QUOTE}(?:=|\s{{0,2}}:\s{{0,2}}){_QUOTE}{_EMPTY}[^\s\"',;&)\]}}]"
# `invalid token: signature mismatch` is a sentence; `token: abc` and `token: 5eb, user` are values.
_WORD = (
    rf"(?:{_QUOTE}={_QUOTE}{_EMPTY}[^\s\"',;&]"
    rf"|\\?[\"']?\s{{0,2}}:\s{{0,2}}\\?[\"']{_EMPTY}[^\"']"
    rf"|\s{{0,2}}:\s{{0,2}}{_EMPTY}(?=[^\s,;]{{0,200}}\d|[^\s,;]{{1,200}}(?:[,;]|$))\S)"
)
_TEXTS = (
    ("a user agent", rf"(?<![a-z])user[_-]?agent{_ANY}"),
    ("a user name", rf"(?<![a-z])(?:user[_-]?name|full[_-]?name){_ANY}"),
    ("a phone number", rf"(?<![a-z])phone(?:[_-]?number)?{_ANY}"),
    ("a session id", rf"(?<![a-z])(?:j|php|asp\.net_)?sess(?:ion)?id{_ANY}"),
    ("a private key", rf"private[_-]?key{_ANY}|-----begin [a-z ]{{0,20}}private key-----"),
    ("a token", rf"(?<![a-z])(?:authorization|cookie){_ANY}"),
    ("an e-mail address", rf"(?<![a-z])e[_-]?mail(?:[_-]?address)?{_WORD}"),
    ("a password", rf"(?:password|passwd|passphrase|(?<![a-z])pwd){_WORD}"),
    (
        "a token",
        rf"(?:token|secret|credentials?|(?:api|access|secret)[_-]?key|(?<![a-z])(?:jwt|ticket|otp)){_WORD}",
    ),
)
_NAMED = [(kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _TEXTS]
_KEYS = re.compile(
    r"\bgh[pousr]_[A-Za-z0-9]{16}|\bgithub_pat_[A-Za-z0-9_]{16}|\bglpat-[\w-]{16}"  # GitHub, GitLab
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30}"  # AWS, Google
    r"|\bxox[abeoprs]-[A-Za-z0-9-]{10}|\b[srp]k_(?:live|test)_[A-Za-z0-9]{10}"  # Slack, Stripe
)


def personal_data(text: str, *, addresses: bool = True) -> str | None:
    """Kind of personal data in a text, for example `an IP address`, also percent-encoded; None if none.

    Only the first LONGEST characters are examined. `addresses=False` skips IP addresses.
    """
    return _cached(text, addresses) if len(text) <= _LONGEST_CACHED else _detect(text, addresses)


@lru_cache(4096)
def _cached(text: str, addresses: bool) -> str | None:
    return _detect(text, addresses)


def _detect(text: str, addresses: bool) -> str | None:
    for window in windows(text):
        for form in _forms(window):
            if kind := personal_text(form, addresses=addresses, named=False) or _named(form):
                return kind
    return None


def _named(text: str) -> str | None:
    if _KEYS.search(text):
        return "a token"
    if ":" in text or "=" in text or "-----" in text:
        return next((kind for kind, pattern in _NAMED if pattern.search(text)), None)
    return None


def _forms(text: str) -> Iterator[str]:
    """The text, and the results of decoding its percent-encoding once and twice."""
    yield text
    for _ in range(2):
        decoded = unquote(text) if "%" in text else text
        if decoded == text:
            return
        text = decoded
        yield text


def windows(text: str) -> Iterator[str]:
    """Overlapping parts of a text, which begin and end at blanks if possible."""
    text, start = text[:LONGEST], 0
    while len(text) - start > _WINDOW:
        end = start + _WINDOW
        blank = text.rfind(" ", end - _OVERLAP, end)
        yield text[start : blank if blank > 0 else end]
        following = end - 2 * _OVERLAP
        blank = text.find(" ", following, end - _OVERLAP - 64)
        start = blank if blank > 0 else following
    yield text[start:]


ADVICE = "do not export it (design document 005, section 4.1)"


class PersonalDataCheck:
    """Check for personal data; records the place of each difference, not its value."""

    def __init__(self, differences: Differences) -> None:
        self._differences = differences
        self._resource: Mapping[str, ReceivedValue] | None = None
        self._scope: Mapping[str, ReceivedValue] | None = None

    def origin(
        self, resource: Mapping[str, ReceivedValue], scope: str, scope_attributes: Mapping[str, ReceivedValue]
    ) -> None:
        """Examine the resource and the scope once per request; a resource may have the server's address."""
        if resource is not self._resource:
            self._resource = resource
            self.attributes(resource, "the resource", addresses=False)
        if scope_attributes is not self._scope:
            self._scope = scope_attributes
            self.text("scope name", scope, "a scope", addresses=False)
            self.attributes(scope_attributes, f"scope {safe(scope)}")

    def attributes(
        self,
        attributes: Mapping[str, ReceivedValue],
        where: str,
        *,
        outgoing: bool = False,
        addresses: bool = True,
    ) -> None:
        """Examine names and values; for `outgoing` see `is_denied`."""
        for name, value in attributes.items():
            if is_denied(name, outgoing):
                detail = "identifies or locates a client, on $"
                self._differences.add("personal_attribute", safe_name(name), detail, where, advice=ADVICE)
                continue
            own = name in OWN or (outgoing and name in PEER)
            for text in texts(value):
                if kind := personal_data(text, addresses=addresses and not own):
                    self._personal_text(safe_name(name), kind, where)
                    break

    def text(self, subject: str, text: str, where: str, *, addresses: bool = True) -> None:
        """Examine one text."""
        if kind := personal_data(text, addresses=addresses):
            self._personal_text(subject, kind, where)

    def trace_state(self, header: str, where: str) -> None:
        """Examine the entries of a `tracestate`, which a client may have sent."""
        for entry in header[:_LONGEST_STATE].split(","):
            if kind := personal_data(entry) or personal_data(entry.partition("=")[2]):
                self._personal_text("tracestate", kind, where)
                return

    def _personal_text(self, subject: str, kind: str, where: str) -> None:
        self._differences.add("personal_text", subject, f"contains {kind}, on $", where, advice=ADVICE)


_LONGEST_STATE = 4096
"""Number of examined characters of a `tracestate`; W3C Trace Context recommends 512 to senders."""


def texts(value: ReceivedValue) -> Iterator[str]:
    """Every text in a value; the items of a mapping as `name: value`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            # Joined, because patterns such as `authorization: ...` need both name and value.
            yield from (f"{name}: {text}" for text in texts(item))


def safe(text: str) -> str:
    """A quoted text for the report, or the kind of personal data that it contains."""
    kind = personal_data(text)
    return f"({kind})" if kind else quote(text)


def safe_name(name: str) -> str:
    """The name of an attribute for the report, or the kind of personal data that it contains."""
    kind = personal_data(name)
    return f"({kind})" if kind else name
