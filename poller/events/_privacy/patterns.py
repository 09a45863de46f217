"""Patterns of addresses, user agents, query strings and secrets: their detection and removal.

Clients choose these texts, so the running time must grow at most linearly with their length. Texts are cut
first. A pattern is tried only if its marker occurs. Every quantifier is bounded and possessive, and consumes
the characters it has read even if the match then fails, so that no part of a text is read repeatedly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote

from poller.events._privacy.addresses import remove_emails, remove_ipv4, remove_ipv6
from poller.events._privacy.database_errors import remove_parameters, remove_rows
from poller.events._privacy.names import (
    LAST_LETTERS,
    LINE_ENDINGS,
    PHONE_ENDINGS,
    PROSE_ENDINGS,
    personal_ending,
)
from poller.events._privacy.texts import (
    ENCODINGS,
    LONGEST_PATH,
    MOST,
    REDACTED,
    decode,
    decodings,
    shorten,
    well_formed,
)

_LONGEST_CACHED = 500
"""Length up to which the scrubbed form of a text is cached, in characters."""
_RUN = re.compile(rf"[^\s\"'<>]{{1,{MOST}}}+")
# A client can write the marker too: only a marker that is the whole value means that the value is scrubbed.
_MARKED = rf"(?:\[redacted\]){{0,{MOST}}}+"
_END_OF_PATH = re.compile(r"[?#](?!\[redacted\]\Z)(?=.)")
_PRIVATE_KEY = re.compile(
    rf"-----BEGIN [A-Z ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-(?!----)){{0,{MOST}}}+"
    rf"(?:-----END [A-Z ]{{0,60}}+-----)?"
)
"""The headers of an encrypted key may contain hyphens (RFC 1421)."""
_SEPARATOR = re.compile(rf"(?:[=:](?<=[\w\s\"'\\)\]-].)|,(?<=[\"'].))\s{{0,{MOST}}}+")
_LONGEST_NAME = 48
_DIGITS = "0123456789_-"
# Within quotes a backslash escapes a quote.
_DOUBLE = rf"(?:[^\"\\]|\\[\s\S]){{1,{MOST}}}+"
_SINGLE = rf"(?:[^'\\]|\\[\s\S]){{1,{MOST}}}+"
_BEFORE = r"(?:(?<![\w.])[A-Za-z_][\w.]{0,63}+\(b?+|b)?+"
"""Prefix in Python's representation of bytes and objects: `b'...'`, `UUID('...')`."""


def _nested(least: int, most: int) -> str:
    """Return a pattern for quotes with `least` to `most` backslashes, as in nested JSON, and their text.

    Quotes with more backslashes belong to the text.
    """
    return "|".join(
        rf"\\{{{least},{most}}}+{quote}(?P<{name}{most}>"
        rf"(?:[^{quote}\\]|\\{{{most + 1},63}}+{quote}|\\{{1,63}}+(?!{quote})){{1,{MOST}}}+)"
        for name, quote in (("double", '"'), ("single", "'"))
    )


_QUOTED = re.compile(
    rf"(?!{_BEFORE}\\{{0,7}}+[\"']\[redacted\]\\{{0,7}}+[\"'])"
    rf"(?:{_BEFORE}(?:\"(?P<double>{_DOUBLE})|'(?P<single>{_SINGLE}))"
    rf"|{_BEFORE}(?:{_nested(1, 1)}|{_nested(2, 3)}|{_nested(4, 7)})"
    rf"|\[(?!redacted\])(?P<list>{_MARKED}(?:\"{_DOUBLE}\"?|'{_SINGLE}'?|[^\[\]\"']){{1,{MOST}}}+)"
    rf"|\((?P<tuple>(?:\"{_DOUBLE}\"?|'{_SINGLE}'?|\[redacted\]|[^\[\]()\"']){{1,{MOST}}}+)"
    rf"|(?P<number>\d[\w.+-]{{0,{MOST}}}+))"
)
# Cookies and parameters contain quotes (`a="b"; c=d`): a quote ends the value only at the end of a field.
_LINE = re.compile(
    rf"(?P<value>(?:[^\r\n\"']|\"[^\"]{{0,{MOST}}}+\"?|'[^']{{0,{MOST}}}+'?)"
    rf"(?:[^\r\n\"'=]|=\\{{0,7}}+(?:\"[^\"\r\n]{{0,{MOST}}}+\"|'[^'\r\n]{{0,{MOST}}}+')?+"
    rf"|[\"'](?![\s,)}}\]:]|\Z)){{0,{MOST}}}+)"
)
_WORD = re.compile(
    rf"(?P<value>{_BEFORE}\\{{0,7}}+(?:\"(?:{_DOUBLE})?+\"?|'(?:{_SINGLE})?+'?)[^\s,;&\"'}}\])]{{0,{MOST}}}+"
    rf"|(?:\[redacted\]|[^\s,;&\"'}}\])]){{1,{MOST}}}+)"
)
_PLACEHOLDER = re.compile(
    r"(?:%s|\?|\$[1-9]\d?|%\(\w{1,63}\)s)(?:::(?:BIGINT|DATE|INTEGER|UUID|VARCHAR))?(?![^\s,;&\"'}\])])"
)
"""Placeholder of a value in SQL, as in `WHERE username = %s`; SQLAlchemy casts it, `%(name)s::VARCHAR`."""
_PHONE = re.compile(r"(?P<value>\+?\(?\d(?:[\d/.()-]|[ ](?=[\d(])){4,30}+)")
_CLIENT = re.compile(rf"(client[\"']:\s{{0,{MOST}}}+[(\[][\"'])(?!\[redacted\][\"'])[^\"']{{1,{MOST}}}+")
"""`'client': ('host', 1234)`, as in an ASGI scope."""
_CREDENTIALS = re.compile(
    rf"((?:bearer|basic|digest)\s{{1,{MOST}}}+)({_MARKED}[\w.~+/-]{{8,{MOST}}}+[^\s,;\"']{{0,{MOST}}}+)",
    re.IGNORECASE,
)
_JWT = re.compile(rf"eyJ[\w-]{{5,{MOST}}}+((?:\.[\w-]{{0,{MOST}}}+){{2,4}}+)?")
"""Two to four dots (RFC 7519, RFC 7516); without the group it is an ordinary word with this prefix."""
_ISSUED = re.compile(
    rf"(?:gh[opsur]_|github_pat_|glpat-|xox[a-z]-|xapp-|[rs]k_(?:live|test)_|npm_|AIza|ya29\.|dop_v1_|pypi-)"
    rf"[\w-]{{16,{MOST}}}+"
    rf"|(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))(?:sk-|hf_|SG\.)[\w.-]{{16,{MOST}}}+"
    rf"|A[KS]IA[0-9A-Z]{{16,{MOST}}}+"
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
"""Substrings that these tokens contain, for a fast check."""
_RANDOM = re.compile(r"\d|[a-z][A-Z]|[A-Za-z]{25}|=\Z|\[redacted\]")
"""Occurs in random texts but not in words of a sentence."""
_PROSE = re.compile(r"[A-Za-z]?[a-z]{1,23}[.:!?]{0,1}")
_AGENT = re.compile(
    rf"(?:Mozilla|Opera)/\d[^\"'\r\n]{{0,{MOST}}}+"
    r"|(?:curl|Wget|Dalvik|okhttp|Dart|CFNetwork|PostmanRuntime|[Pp]ython(?:-httpx|-requests)?|Java|"
    rf"a(?:iohttp|xios)|node-fetch|undici|grpc-python|Go-http-client|Signal-\w{{1,{MOST}}}+)"
    rf"/\d[^\s\"',;)]{{0,{MOST}}}+"
)

_PASSWORD = re.compile(r"://[^\s/?#:@\"']{0,256}+:[^\s/?#@\"']{1,1024}+@")
_QUERY = re.compile(r"\?[&\w.%~\[\]-]{1,1024}+=")


def scrub(text: str) -> str:
    """Return `text` without addresses, user agents, cookies, queries and secrets; other words stay.

    It removes IP addresses with their ports (but neither the host of a URL, which is a server, nor a number
    such as `1.2.3.4` after `version`), e-mail addresses (and similar texts, `git@github.com`), user agents
    such as `Mozilla/5.0 ...`, headers and parameters after their names, bearer and basic credentials, JWTs,
    tokens with their issuer's prefix, private keys, the row in an error of PostgreSQL, the user part, the
    query and the fragment of URLs, and the query of paths. It also finds them percent-encoded, escaped as
    JSON within JSON, and with look-alike characters. It cannot recognise a password in a sentence.
    `personal_text` finds nothing in the result.

    Text after `LONGEST` characters is dropped. Never raises.
    """
    try:
        return _cached_scrub(text) if len(text) <= _LONGEST_CACHED else _scrub(shorten(text))
    except Exception:  # noqa: BLE001 - a text that cannot be scrubbed must not leave; callers must not fail
        return REDACTED


def scrub_path(path: str) -> str:
    """Return a request's path, scrubbed and shortened to about `LONGEST_PATH` characters."""
    return scrub(shorten(path, LONGEST_PATH))


def cut(url: str) -> str:
    """Remove the user part, the query and the fragment of a URL or a path."""
    if end := _END_OF_PATH.search(url):
        url = url[: end.end()] + REDACTED
    first, *rest = url.split("://")
    # A URL may contain another URL.
    return "://".join([first, *map(_without_user, rest)])


def _without_user(rest: str) -> str:
    host, slash, path = rest.partition("/")
    return host.rpartition("@")[2] + slash + path


@lru_cache(4096)
def _cached_scrub(text: str) -> str:
    return _scrub(text)


def _scrub(text: str) -> str:
    text = _scrub_plain(well_formed(text))
    one_line = text.isprintable()
    plain = text
    level = text
    for _ in range(ENCODINGS):
        if (decoded := decode(level)) == level:
            break
        # Keep removed parts removed: without its encoding, a value may no longer be recognised.
        level = _scrub_plain(decoded)
        # Decode only a text with something to remove, and escape line breaks that decoding creates.
        if level != decoded:
            text = _escape(level) if one_line else level
    # The result may contain parts that had more than three levels of encoding before.
    if text is not plain and any(_scrub_plain(decoded) != decoded for decoded in decodings(text)):
        return REDACTED
    return text


def _escape(text: str) -> str:
    return "".join(
        character if character.isprintable() else quote(character, errors="replace") for character in text
    )


def _scrub_plain(text: str) -> str:
    text = _cut_urls(text)
    for _, remove in _SHAPES:
        text = remove(text)
    return text


def _cut_urls(text: str) -> str:
    """Remove user parts, queries and fragments of all URLs in a text, and queries of paths."""
    if "://" in text or "?" in text:
        return _RUN.sub(_cut_run, text)
    return text


def _cut_run(match: re.Match[str]) -> str:
    run = match[0]
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


def personal_text(text: str, *, addresses: bool = True, named: bool = True) -> str | None:
    """Return the kind of personal data in a text, for example `an IP address`; None if there is none.

    The host of a URL is a server, not a client. `addresses=False` ignores IP addresses: see `OWN`.
    `named=False` ignores values after a name such as `token=`, because scrubbing removes more of them than
    necessary.
    """
    for decoded in decodings(shorten(text)):
        if _PASSWORD.search(decoded):
            return "a password"
        if _QUERY.search(decoded):
            return "a query string"
        rest = _cut_urls(decoded)
        for shape, remove in _SHAPES:
            if (shape == "an IP address" and not addresses) or (shape == _NAMED and not named):
                continue
            if remove(rest) != rest:
                return shape
    return None


def _remove_private_keys(text: str) -> str:
    return _PRIVATE_KEY.sub(REDACTED, text) if "-----BEGIN" in text else text


def _remove_named(text: str) -> str:
    """Remove values after names: `token=...`, `Cookie: a=1; b=2`, `"phone": "..."`, `(b'cookie', b'a=1')`."""
    parts: list[str] = []
    end = 0
    for separator in _SEPARATOR.finditer(text):
        at = separator.start()
        if at < end:
            continue
        before = text[max(end, at - _LONGEST_NAME) : at].rstrip()
        name = before.rstrip("\\\"')]")
        bare = name.rstrip(_DIGITS)
        if bare[-1:] == "[" and before[-1:] == "]":
            bare = bare[:-1]  # `password[]`, `token[0]`
        if bare[-2:].lower() not in LAST_LETTERS:
            continue
        quoted = before[-1:] in ("'", '"')
        value = _value(text, separator.end(), bare, separator[0], quoted=quoted)
        if value is not None:
            parts += text[end : value[0]], REDACTED
            end = value[1]
    return "".join(parts) + text[end:] if parts else text


def _value(text: str, at: int, name: str, separator: str, *, quoted: bool) -> tuple[int, int] | None:
    """Return the start and the end of the value if the word before its separator is the name of a secret."""
    ending = personal_ending(name)
    if ending is None:
        return None
    line = ending in LINE_ENDINGS
    if quoted:
        match = _QUOTED.match(text, at)
    elif separator[0] == ",":
        return None
    elif line:
        match = _LINE.match(text, at)
    else:
        match = (ending in PHONE_ENDINGS and _PHONE.match(text, at)) or _WORD.match(text, at)
        introduces = separator[0] == ":" and len(separator) > 1 and ending in PROSE_ENDINGS
        if introduces and match and _PROSE.fullmatch(match[0]):
            return None
    if not match or _PLACEHOLDER.match(text, at):
        return None
    if not match[str(match.lastgroup)].replace(REDACTED, "").strip(" \t'\"\\,;:.()[]{}"):
        return None  # Markers and punctuation contain nothing to remove.
    return match.span(str(match.lastgroup))


def _remove_hosts(text: str) -> str:
    return _CLIENT.sub(rf"\1{REDACTED}", text) if "client" in text else text


def _remove_credentials(text: str) -> str:
    small = text.lower()
    if "bearer" in small or "basic" in small or "digest" in small:
        return _CREDENTIALS.sub(
            lambda match: match[1] + REDACTED if _RANDOM.search(match[2]) else match[0], text
        )
    return text


def _remove_tokens(text: str) -> str:
    if "eyJ" in text:
        text = _JWT.sub(lambda match: REDACTED if match[1] else match[0], text)
    if any(marker in text for marker in _ISSUERS):
        text = _ISSUED.sub(lambda match: REDACTED if _RANDOM.search(match[0], 3) else match[0], text)
    return text


def _remove_agents(text: str) -> str:
    return _AGENT.sub(REDACTED, text) if "/" in text else text


_NAMED = "a secret or personal field"
_SHAPES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("a row of the database", remove_rows),
    ("a parameter of a statement", remove_parameters),
    ("a private key", _remove_private_keys),
    (_NAMED, _remove_named),
    ("a host name of a client", _remove_hosts),
    ("a token", _remove_credentials),
    ("a token", _remove_tokens),
    ("a user agent", _remove_agents),
    ("an e-mail address", remove_emails),
    ("an IP address", remove_ipv4),
    ("an IP address", remove_ipv6),
)
"""Description of each shape, and the function that replaces it with `[redacted]`."""
