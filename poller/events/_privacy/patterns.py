"""Patterns of addresses, user agents, query strings and secrets, and their removal from texts.

Clients choose these texts, so the running time must grow at most linearly with their length. Texts are cut
first. A pattern is tried only if its marker occurs. Every quantifier is bounded and possessive, and consumes
the characters it has read even if the match then fails, so that no part of a text is read repeatedly.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from urllib.parse import quote, unquote

from poller.events._privacy.names import (
    LINE_ENDINGS,
    PHONE_ENDINGS,
    PROSE_ENDINGS,
    SHORT_ENDINGS,
    WORD_ENDINGS,
    compact,
)

REDACTED = "[redacted]"
LONGEST = 32_768
"""Characters of a text that are kept."""
LONGEST_PATH = 2_048
"""Characters of a request's path that are kept."""
_LONGEST_WORD = 512
"""Characters before a cut that are dropped if they are one word: half of an address has no shape."""
_LONGEST_REMEMBERED = 500
"""Characters of a text whose scrubbed form is cached."""
_ENCODINGS = 3
"""Times that a text may be encoded and is still recognised."""
_LOOK_ALIKES = {
    code: plain
    for code in (*range(0x2000, 0x2500), *range(0xFE50, 0xFF66), *range(0x1D400, 0x1D800))
    if len(plain := unicodedata.normalize("NFKC", chr(code))) == 1 and plain.isascii()
} | dict.fromkeys((0x3002, 0xFF61), ".")
"""Characters that are ASCII after NFKC, and the full stops of IDNA: an input method writes them for `@.:=`.

One replaces one, so that a text keeps its length.
"""

# `{m,n}+` with the longest text for n: bounded, and one run is one step for the caller. A text that was cut
# is longer by what says so.
_N = LONGEST + 100

_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|([\"\\/]))")
_RUN = re.compile(rf"[^\s\"'<>]{{1,{_N}}}+")
# A client can write the marker as well: only one that is the whole value says that a value is scrubbed.
_MARKED = rf"(?:\[redacted\]){{0,{_N}}}+"
_END_OF_PATH = re.compile(r"[?#](?!\[redacted\]\Z)(?=.)")
_ROW = re.compile(rf"DETAIL:[ \t]{{0,{_N}}}+|ailing row contains \(|\)=\(")
"""PostgreSQL quotes the row there, with its line breaks: `Key (username)=(ada) already exists.`"""
_END_OF_ROW = re.compile(
    rf"\)(?:\.[ \t]{{0,8}}+(?=[\r\n]|\Z)"
    rf"|(?:\x20(?:already|is\x20|conflicts)|[\x20\xa0]?[»«])[^\r\n]{{0,{_N}}}+)"
)
"""The row itself may contain it as well: the last one counts."""
_LONGEST_KEY = 512
"""Characters from `Key (` to the value: names of columns."""
_END_OF_LINE = re.compile(rf"[^\r\n]{{0,{_N}}}+")
_PRIVATE_KEY = re.compile(
    rf"-----BEGIN [A-Z ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-(?!----)){{0,{_N}}}+"
    rf"(?:-----END [A-Z ]{{0,60}}+-----)?"
)
"""Headers of an encrypted key have hyphens (RFC 1421)."""
_SEPARATOR = re.compile(rf"(?:[=:](?<=[\w\s\"'\\)\]-].)|,(?<=[\"'].))\s{{0,{_N}}}+")
_LONGEST_NAME = 48
_LAST_LETTERS = frozenset(one[-2:] for one in (*LINE_ENDINGS, *WORD_ENDINGS, *SHORT_ENDINGS))
"""Of all names, so that most words are known to be none."""
# Within quotes a backslash escapes a quote.
_DOUBLE = rf"(?:[^\"\\]|\\[\s\S]){{1,{_N}}}+"
_SINGLE = rf"(?:[^'\\]|\\[\s\S]){{1,{_N}}}+"
_BEFORE = r"(?:(?<![\w.])[A-Za-z_][\w.]{0,63}+\(b?+|b)?+"
"""As Python shows bytes and objects: `b'...'`, `UUID('...')`."""


def _nested(least: int, most: int) -> str:
    """A text within quotes with so many escapes, as JSON within JSON has; quotes with more belong to it."""
    return "|".join(
        rf"\\{{{least},{most}}}+{quote}(?P<{name}{most}>"
        rf"(?:[^{quote}\\]|\\{{{most + 1},63}}+{quote}|\\{{1,63}}+(?!{quote})){{1,{_N}}}+)"
        for name, quote in (("double", '"'), ("single", "'"))
    )


_QUOTED = re.compile(
    rf"(?!{_BEFORE}\\{{0,7}}+[\"']\[redacted\]\\{{0,7}}+[\"'])"
    rf"(?:{_BEFORE}(?:\"(?P<double>{_DOUBLE})|'(?P<single>{_SINGLE}))"
    rf"|{_BEFORE}(?:{_nested(1, 1)}|{_nested(2, 3)}|{_nested(4, 7)})"
    rf"|\[(?!redacted\])(?P<list>{_MARKED}(?:\"{_DOUBLE}\"?|'{_SINGLE}'?|[^\[\]\"']){{1,{_N}}}+)"
    rf"|\((?P<tuple>(?:\"{_DOUBLE}\"?|'{_SINGLE}'?|\[redacted\]|[^\[\]()\"']){{1,{_N}}}+)"
    rf"|(?P<number>\d[\w.+-]{{0,{_N}}}+))"
)
# Cookies and parameters have quotes (`a="b"; c=d`): one ends the value only if nothing of a header follows.
_LINE = re.compile(
    rf"(?P<value>(?:[^\r\n\"']|\"[^\"]{{0,{_N}}}+\"?|'[^']{{0,{_N}}}+'?)"
    rf"(?:[^\r\n\"'=]|=\\{{0,7}}+(?:\"[^\"\r\n]{{0,{_N}}}+\"|'[^'\r\n]{{0,{_N}}}+')?+"
    rf"|[\"'](?![\s,)}}\]:]|\Z)){{0,{_N}}}+)"
)
_WORD = re.compile(
    rf"(?P<value>{_BEFORE}\\{{0,7}}+(?:\"(?:{_DOUBLE})?+\"?|'(?:{_SINGLE})?+'?)[^\s,;&\"'}}\])]{{0,{_N}}}+"
    rf"|(?:\[redacted\]|[^\s,;&\"'}}\])]){{1,{_N}}}+)"
)
_PLACEHOLDER = re.compile(
    r"(?:%s|\?|\$[1-9]\d?|%\(\w{1,63}\)s)(?:::(?:BIGINT|DATE|INTEGER|UUID|VARCHAR))?(?![^\s,;&\"'}\])])"
)
"""What stands for a value in a statement: `WHERE username = %s`; SQLAlchemy casts it, `%(name)s::VARCHAR`."""
_PHONE = re.compile(r"(?P<value>\+?\(?\d(?:[\d/.()-]|[ ](?=[\d(])){4,30}+)")
_CLIENT = re.compile(rf"(client[\"']:\s{{0,{_N}}}+[(\[][\"'])(?!\[redacted\][\"'])[^\"']{{1,{_N}}}+")
"""`'client': ('host', 1234)`, as an ASGI scope has it."""
_CREDENTIALS = re.compile(
    rf"((?:bearer|basic|digest)\s{{1,{_N}}}+)({_MARKED}[\w.~+/-]{{8,{_N}}}+[^\s,;\"']{{0,{_N}}}+)",
    re.IGNORECASE,
)
_JWT = re.compile(rf"eyJ[\w-]{{5,{_N}}}+((?:\.[\w-]{{0,{_N}}}+){{2,4}}+)?")
"""Two to four dots (RFC 7519, RFC 7516); without the group it is another word that begins so."""
_ISSUED = re.compile(
    rf"(?:gh[opsur]_|github_pat_|glpat-|xox[a-z]-|xapp-|[rs]k_(?:live|test)_|npm_|AIza|ya29\.|dop_v1_|pypi-)"
    rf"[\w-]{{16,{_N}}}+"
    rf"|(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))(?:sk-|hf_|SG\.)[\w.-]{{16,{_N}}}+"
    rf"|A[KS]IA[0-9A-Z]{{16,{_N}}}+"
)
"""Tokens with their issuer's prefix.

GitHub, GitLab, Slack, Stripe, npm, Google, DigitalOcean, PyPI, OpenAI, Hugging Face, SendGrid, AWS.
"""
_ISSUERS = (
    *(
        "gh",
        "github_pat_",
        "glpat-",
        "xox",
        "xapp-",
        "k_live_",
        "k_test_",
        "npm_",
        "AIza",
        "ya29.",
        "dop_v1_",
        "pypi-",
    ),
    *("sk-", "hf_", "SG.", "AKIA", "ASIA"),
)
"""Markers of these tokens."""
_RANDOM = re.compile(r"\d|[a-z][A-Z]|[A-Za-z]{25}|=\Z|\[redacted\]")
"""What a random text has, and a word of a sentence has not."""
_PROSE = re.compile(r"[A-Za-z]?[a-z]{1,23}[.:!?]{0,1}")
_AGENT = re.compile(
    rf"Mozilla/\d[^\"'\r\n]{{0,{_N}}}+|(?:curl|Dalvik|okhttp|Dart|CFNetwork|PostmanRuntime|python-httpx|"
    rf"python-requests|Python|Go-http-client|axios|Signal-\w{{1,{_N}}}+)/\d[^\s\"',;)]{{0,{_N}}}+"
)
_DOMAIN = re.compile(r"@[\w-]{1,63}+(?:\.[\w-]{1,63}+){1,9}+")
_UNITS = frozenset({"service", "socket", "timer", "mount", "slice", "scope", "target", "path"})
"""Types of systemd's units (`getty@tty1.service`); none is a top-level domain."""
_LOCAL_BACKWARDS = re.compile(r"[\w.%+-]{1,320}+")
# The host of a URL is a server's, and stays.
_IPV4 = re.compile(r"\d(?<![\w.].)(?<!://.)\d{0,2}(?:\.\d{1,3}){3}(?::\d{1,5})?(?!\w|\.\d)")
_VERSION = re.compile(r"(?<![A-Za-z])(?:versions?|ver|v|release)[\"' :=]{1,4}\Z", re.IGNORECASE)
_LONGEST_VERSION = 16
_IPV6 = re.compile(rf"://\[[0-9A-Fa-f:.]{{1,{_N}}}+|[0-9A-Fa-f:](?<![\w.].)[0-9A-Fa-f:.]{{1,{_N}}}+")
_LONGEST_IPV6 = 45
_TRANSLATED = IPv6Network("64:ff9b::/96")
"""IPv4 addresses behind NAT64 (RFC 6052); reserved otherwise."""
_COLONS = 7
"""Of an IPv6 address that is written in full; a port may follow even without brackets."""


def scrub(text: str) -> str:
    """Return `text` without addresses, user agents, cookies, queries and secrets; other words stay.

    Known are IP addresses with their ports (but neither the host of a URL, which is a server, nor a number
    such as `1.2.3.4` after `version`), e-mail addresses (and what looks like one, `git@github.com`),
    `Mozilla/5.0 ...` and the like, headers and parameters after their names, bearer and basic credentials,
    JWTs, tokens with their issuer's prefix, private keys, the row in an error of PostgreSQL, the user part,
    the query and the fragment of URLs, and the query of paths; each also percent-encoded, escaped as JSON
    within JSON, and with look-alike characters. A password in a sentence has no shape.
    `poller.events._privacy.identity.personal_text` finds nothing in the result.

    Of a text longer than `LONGEST` characters the rest is dropped. Raises nothing.
    """
    try:
        return _remembered(text) if len(text) <= _LONGEST_REMEMBERED else _scrub(shorten(text))
    except Exception:  # noqa: BLE001 - a text that cannot be judged must not leave, and no caller may fail
        return REDACTED


def scrub_path(path: str) -> str:
    """Return a request's path, scrubbed and at most about `LONGEST_PATH` characters."""
    return scrub(shorten(path, LONGEST_PATH))


def shorten(text: str, longest: int = LONGEST) -> str:
    """Cut a text; the word that the cut would divide is dropped, as half of a secret has no shape."""
    if len(text) <= longest:
        return text
    kept = text[: longest - _LONGEST_WORD]
    tail = text[len(kept) : longest]
    blank = max(tail.rfind(" "), tail.rfind("\n"))
    return f"{kept}{tail[: max(blank + 1, 0)]}{REDACTED} ({len(text)} characters)"


def well_formed(text: str) -> str:
    """The text with U+FFFD for each lone surrogate: UTF-8 has none, and one would fail a whole export."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def text_of(value: object) -> str:
    """`str(value)`, or the name of its type if that raises."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - other people's __str__, or recursion without an end
        return f"<{type(value).__name__}>"


def cut(url: str) -> str:
    """Remove the user part, the query and the fragment of a URL or a path."""
    if end := _END_OF_PATH.search(url):
        url = url[: end.end()] + REDACTED
    first, *rest = url.split("://")
    # A URL may hold another one.
    return "://".join([first, *map(_without_user, rest)])


def _without_user(rest: str) -> str:
    host, slash, path = rest.partition("/")
    return host.rpartition("@")[2] + slash + path


def decodings(text: str) -> list[str]:
    """The text as it is, and as it reads without its encodings, up to three times.

    Encodings are percent-encoding, the escapes of JSON, and look-alikes of ASCII characters.
    """
    found = [text]
    for _ in range(_ENCODINGS):
        if (decoded := _decode(found[-1])) == found[-1]:
            break
        found.append(decoded)
    return found


def _decode(text: str) -> str:
    if "%" in text:
        text = unquote(text)
    if "\\" in text:
        text = well_formed(_ESCAPE.sub(lambda found: found[2] or chr(int(found[1], 16)), text))
    return text if text.isascii() else text.translate(_LOOK_ALIKES)


@lru_cache(4096)
def _remembered(text: str) -> str:
    return _scrub(text)


def _scrub(text: str) -> str:
    text = _scrub_plain(well_formed(text))
    one_line = text.isprintable()
    plain = text
    level = text
    for _ in range(_ENCODINGS):
        if (decoded := _decode(level)) == level:
            break
        # What was found stays removed: without its encoding, a value may lose its shape.
        level = _scrub_plain(decoded)
        # Only a text that gives something away loses its encoding, and no new line begins by that.
        if level != decoded:
            text = _escape(level) if one_line else level
    # What was encoded more often than three times may have come within reach by that.
    if text is not plain and any(_scrub_plain(decoded) != decoded for decoded in decodings(text)):
        return REDACTED
    return text


def _escape(text: str) -> str:
    return "".join(one if one.isprintable() else quote(one, errors="replace") for one in text)


def _scrub_plain(text: str) -> str:
    text = cut_urls(text)
    for _, remove in SHAPES:
        text = remove(text)
    return text


def cut_urls(text: str) -> str:
    """Remove user parts, queries and fragments of all URLs in a text, and queries of paths."""
    if "://" in text or "?" in text:
        return _RUN.sub(_cut_run, text)
    return text


def _cut_run(found: re.Match[str]) -> str:
    run = found[0]
    start, slashes, url = run.partition("://")
    if slashes:
        run = start + cut(slashes + url)
    slash, at = run.find("/"), run.find("?")
    while at >= 0:
        after = run.find("?", at + 1)
        named = run.find("=", at + 2, None if after < 0 else after) > 0
        if at + 1 < len(run) and (named or 0 <= slash < at):
            return run[: at + 1] + REDACTED
        at = after
    return run


def _remove_rows(text: str) -> str:
    if "DETAIL:" not in text and "ailing row" not in text and ")=(" not in text:
        return text
    parts: list[str] = []
    end = 0
    for found in _ROW.finditer(text):
        start = found.end()
        if found.start() < end or _is_scrubbed(text, start):
            continue
        if found[0] == ")=(" and "Key (" not in text[max(end, found.start() - _LONGEST_KEY) : found.start()]:
            continue
        parts += text[end:start], REDACTED
        end = start if found[0].startswith("DETAIL:") else _end_of_row(text, start)
        if end == start:
            line = _END_OF_LINE.match(text, start)
            end = line.end() if line else start
            if "ailing row contains (" in text[start:end] or ")=(" in text[start:end]:
                # Never less than the line, or it would be read again for each row in it.
                end = max(end, _end_of_row(text, start))
    return "".join(parts) + text[end:] if parts else text


def _is_scrubbed(text: str, at: int) -> bool:
    """Whether nothing is left on a line, or the marker only."""
    end = at + len(REDACTED) if text.startswith(REDACTED, at) else at
    return text[end : end + 1] in ("", "\r", "\n")


def _end_of_row(text: str, at: int) -> int:
    """Where the sentence about a row ends: before the next error, or without a known end at that of the text.

    A `DETAIL:` before any end belongs to the row: a client wrote it.
    """
    following = at
    while following >= 0:
        following = text.find("DETAIL:", at)
        most = len(text) if following < 0 else following
        ends = [
            found.end()
            for found in _END_OF_ROW.finditer(text, at, most)
            # A sentence, maybe within quotes: `server (primary) is down` in a later line does not end a row.
            if found[0][1] in ".»«" or found[0].endswith((".", '"', "'", "}", "]")) or "»" in found[0][:3]
        ]
        if ends:
            return ends[-1]
        at = following + 1
    return len(text)


def _remove_private_keys(text: str) -> str:
    return _PRIVATE_KEY.sub(REDACTED, text) if "-----BEGIN" in text else text


def _remove_named(text: str) -> str:
    """Values after their names: `token=...`, `Cookie: a=1; b=2`, `"phone": "..."`, `(b'cookie', b'a=1')`."""
    parts: list[str] = []
    end = 0
    for separator in _SEPARATOR.finditer(text):
        at = separator.start()
        if at < end:
            continue
        before = text[max(end, at - _LONGEST_NAME) : at].rstrip()
        name = before.rstrip("\\\"')]").lower()
        if name[-2:] not in _LAST_LETTERS:
            continue
        quoted = before[-1:] in ("'", '"')
        value = _value(text, separator.end(), name, separator[0], quoted=quoted)
        if value is not None:
            parts += text[end : value[0]], REDACTED
            end = value[1]
    return "".join(parts) + text[end:] if parts else text


def _value(text: str, at: int, name: str, separator: str, *, quoted: bool) -> tuple[int, int] | None:
    """Where the value begins and ends, if the word before its separator is a name of a secret."""
    whole = compact(name)
    line = whole.endswith(LINE_ENDINGS)
    if not (line or whole.endswith(WORD_ENDINGS) or _is_short_name(name)):
        return None
    if quoted:
        found = _QUOTED.match(text, at)
    elif separator[0] == ",":
        return None
    elif line:
        found = _LINE.match(text, at)
    else:
        found = (whole.endswith(PHONE_ENDINGS) and _PHONE.match(text, at)) or _WORD.match(text, at)
        introduces = separator[0] == ":" and len(separator) > 1 and whole.endswith(PROSE_ENDINGS)
        if introduces and found and _PROSE.fullmatch(found[0]):
            return None
    if not found or _PLACEHOLDER.match(text, at):
        return None
    if not found[str(found.lastgroup)].replace(REDACTED, "").strip(" \t'\"\\,;:.()[]{}"):
        return None  # Markers and punctuation hold nothing to remove.
    return found.span(str(found.lastgroup))


def _is_short_name(name: str) -> bool:
    return any(
        name.endswith(short) and not name.removesuffix(short)[-1:].isalpha() for short in SHORT_ENDINGS
    )


def _remove_hosts(text: str) -> str:
    return _CLIENT.sub(rf"\1{REDACTED}", text) if "client" in text else text


def _remove_credentials(text: str) -> str:
    small = text.lower()
    if "bearer" in small or "basic" in small or "digest" in small:
        return _CREDENTIALS.sub(
            lambda found: found[1] + REDACTED if _RANDOM.search(found[2]) else found[0], text
        )
    return text


def _remove_tokens(text: str) -> str:
    if "eyJ" in text:
        text = _JWT.sub(lambda found: REDACTED if found[1] else found[0], text)
    if any(marker in text for marker in _ISSUERS):
        text = _ISSUED.sub(lambda found: REDACTED if _RANDOM.search(found[0], 3) else found[0], text)
    return text


def _remove_agents(text: str) -> str:
    return _AGENT.sub(REDACTED, text) if "/" in text else text


def _remove_emails(text: str) -> str:
    if "@" not in text:
        return text
    parts: list[str] = []
    end = 0
    for found in _DOMAIN.finditer(text):
        # `lodash@4.17.21` is a version.
        labels = found[0].split(".")[1:]
        if not any(len(label) > 1 and label[0].isalpha() for label in labels) or labels[-1] in _UNITS:
            continue
        local = _LOCAL_BACKWARDS.match(text[max(end, found.start() - 320) : found.start()][::-1])
        if local:
            parts += text[end : found.start() - local.end()], REDACTED
            end = found.end()
    return "".join(parts) + text[end:]


def _remove_ipv4(text: str) -> str:
    if text.count(".") > 2:
        return _IPV4.sub(_without_ipv4, text)
    return text


def _without_ipv4(found: re.Match[str]) -> str:
    before = found.string[max(0, found.start() - _LONGEST_VERSION) : found.start()]
    return REDACTED if _is_someones(found[0], IPv4Address) and not _VERSION.search(before) else found[0]


def _remove_ipv6(text: str) -> str:
    return _IPV6.sub(_without_ipv6, text) if text.count(":") > 1 else text


def _without_ipv6(found: re.Match[str]) -> str:
    run = found[0]
    if run.startswith("://") or run.count(":") < 2 or found.string[found.end() : found.end() + 1].isalnum():
        return run
    bare = run.strip(".:")
    # It may end a sentence, or a name may precede it.
    for text in (run, run.rstrip("."), run.rstrip(".:"), run.lstrip(":"), bare):
        if len(text) <= _LONGEST_IPV6 and _is_someones(text, IPv6Address):
            before, _, after = run.partition(text)
            return before + REDACTED + after
    address, _, port = bare.rpartition(":")
    if address.count(":") == _COLONS and port.isdigit() and _is_someones(address, IPv6Address):
        return run.replace(bare, REDACTED)
    return run


def _is_someones(text: str, kind: type[IPv4Address | IPv6Address]) -> bool:
    """Whether a text is an address of that kind, and not that of no machine; a time of day is none.

    `a::b` and `x[1::2]` look like IPv6, but no machine has an address in these reserved blocks.
    """
    try:
        address = kind(text.partition(":")[0] if kind is IPv4Address else text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.is_reserved:
        return address.is_loopback or "." in text or address.ipv4_mapped is not None or address in _TRANSLATED
    return not address.is_unspecified


Remove = Callable[[str], str]

NAMED = "a secret or personal field"
SHAPES: tuple[tuple[str, Remove], ...] = (
    ("a row of the database", _remove_rows),
    ("a private key", _remove_private_keys),
    (NAMED, _remove_named),
    ("a host name of a client", _remove_hosts),
    ("a token", _remove_credentials),
    ("a token", _remove_tokens),
    ("a user agent", _remove_agents),
    ("an e-mail address", _remove_emails),
    ("an IP address", _remove_ipv4),
    ("an IP address", _remove_ipv6),
)
"""What each shape is, and the function that replaces it by `[redacted]`."""
