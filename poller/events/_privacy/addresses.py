"""Patterns of e-mail and IP addresses, and their removal from texts."""

from __future__ import annotations

import re
from socket import AF_INET, AF_INET6, inet_pton

from poller.events._privacy.texts import MOST, REDACTED

_DOMAIN = re.compile(r"@[\w-]{1,63}+(?:\.[\w-]{1,63}+){1,9}+")
_UNITS = frozenset({"service", "socket", "timer", "mount", "slice", "scope", "target", "path"})
"""Types of systemd units (`getty@tty1.service`); none is a top-level domain."""
_LOCAL_BACKWARDS = re.compile(r"\"[^\"\r\n]{1,64}+\"|[\w.%+-]{1,320}+")
# The host of a URL is a server, so it stays.
_IPV4 = re.compile(r"\d(?<![\w.].)(?<!://.)\d{0,2}(?:\.\d{1,3}){3}(?::\d{1,5})?(?!\w|\.\d)")
_VERSION = re.compile(r"(?<![A-Za-z])(?:versions?|ver|v|release)[\"' :=]{1,4}\Z", re.IGNORECASE)
_LONGEST_VERSION = 16
_IPV6 = re.compile(rf"://\[[0-9A-Fa-f:.]{{1,{MOST}}}+|[0-9A-Fa-f:](?<![\w.].)[0-9A-Fa-f:.]{{1,{MOST}}}+")
_LONGEST_IPV6 = 45
_TRANSLATED = bytes.fromhex("0064ff9b0000000000000000")
"""First bytes of IPv4 addresses translated by NAT64 (RFC 6052); reserved otherwise."""
_MAPPED = bytes(10) + b"\xff\xff"
"""First bytes of IPv4 addresses written as IPv6."""
_COLONS = 7
"""Colons in an IPv6 address that is written in full; a port may follow even without brackets."""


def remove_emails(text: str) -> str:
    """Replace e-mail addresses and similar texts."""
    if "@" not in text:
        return text
    parts: list[str] = []
    end = 0
    for match in _DOMAIN.finditer(text):
        # `lodash@4.17.21` is a version.
        labels = match[0].split(".")[1:]
        if not any(len(label) > 1 and label[0].isalpha() for label in labels) or labels[-1] in _UNITS:
            continue
        local = _LOCAL_BACKWARDS.match(text[max(end, match.start() - 320) : match.start()][::-1])
        if local:
            parts += text[end : match.start() - local.end()], REDACTED
            end = match.end()
    return "".join(parts) + text[end:]


def remove_ipv4(text: str) -> str:
    """Replace IPv4 addresses with their ports, except the host of a URL and version numbers."""
    if text.count(".") > 2:
        return _IPV4.sub(_without_ipv4, text)
    return text


def _without_ipv4(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - _LONGEST_VERSION) : match.start()]
    return REDACTED if _is_ipv4(match[0].partition(":")[0]) and not _VERSION.search(before) else match[0]


def remove_ipv6(text: str) -> str:
    """Replace IPv6 addresses with their ports, except the host of a URL."""
    return _IPV6.sub(_without_ipv6, text) if text.count(":") > 1 else text


def _without_ipv6(match: re.Match[str]) -> str:
    run = match[0]
    if run.startswith("://") or run.count(":") < 2 or match.string[match.end() : match.end() + 1].isalnum():
        return run
    bare = run.strip(".:")
    if not bare:
        return run
    # The address may end a sentence, or a name may precede it.
    for text in dict.fromkeys((run, run.rstrip("."), run.rstrip(".:"), run.lstrip(":"), bare)):
        if len(text) <= _LONGEST_IPV6 and _is_ipv6(text):
            before, _, after = run.partition(text)
            return before + REDACTED + after
    address, _, port = bare.rpartition(":")
    if address.count(":") == _COLONS and port.isdigit() and _is_ipv6(address):
        return run.replace(bare, REDACTED)
    return run


def _is_ipv4(text: str) -> bool:
    try:
        return any(inet_pton(AF_INET, text))
    except OSError:
        return False


def _is_ipv6(text: str) -> bool:
    """Return whether a text is an IPv6 address that a machine can have; a time of day is not.

    `a::b` and `x[1::2]` look like IPv6, but they are in reserved blocks that no machine uses. The C library
    parses them, because a client may send thousands of them.
    """
    try:
        address = inet_pton(AF_INET6, text)
    except OSError:
        return False
    if 0x20 <= address[0] < 0x40 or (address[0] >= 0xFC and not (address[0] == 0xFE and address[1] < 0x80)):
        return True
    loopback = not any(address[:15]) and address[15] == 1
    return loopback or "." in text or address[:12] in (_TRANSLATED, _MAPPED)
