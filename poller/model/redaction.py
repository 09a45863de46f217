"""Redaction of every known secret in output."""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from poller.model.printable import text_of
from poller.model.secrets import CONFIDENTIAL, MASK, PAIR, URL, userinfo

SHORTEST = 4
"""Minimum characters of a secret. A shorter text occurs in too many words, and is too short for a secret."""
_SHORTEST_IN_WORDS = 8
"""Minimum characters of a secret that is also masked inside words."""
_MOST = 1000
"""Maximum number of stored texts, the newest: a token that rotates every few minutes must not fill memory."""
LONGEST_BEGINNING = 16_384
"""Characters of a longer text that are searched for secrets; the rest is cut."""
_LONGEST_SECRET = 8_192
"""Maximum characters of a password in a URL that is masked by its position."""
_MOST_MASKED, _LONGEST_MASKED = 10_000, 100
"""Maximum number of values whose masked text is cached, and their maximum characters."""

# Servers and collectors choose the texts, so a pattern must not read a part of them repeatedly: every
# quantifier is bounded, and possessive if another match could begin inside the text that it has read.
_URL_RUN = re.compile(r"://[^\s\"']{1,8192}+")
_USER = re.compile(r"://[^\s/:@]{0,1024}+:(?!password@)")
_PASSWORD = re.compile(
    r"\bpassword\s{0,64}+=\s{0,64}+(.{0,4096}?)(?:\s{1,64}+\w{1,64}+\s{0,64}+=|$)", re.IGNORECASE | re.DOTALL
)
_CUSTOM_PARAMETER = re.compile(r"\w\.\w{1,128}+=((?:[^\s\\]|\\.){1,4096}+)")
_QUERY_VALUE = re.compile(r"[?&][^=&?]{0,256}+=([^&]{0,8192}+)")
_UNFORMATTED = logging.Formatter()
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "grpc_proxy"})
_HEADERS = tuple(f"OTEL_EXPORTER_OTLP_{signal}HEADERS" for signal in ("", "METRICS_", "TRACES_", "LOGS_"))


class _Memory:
    """The known secrets, and the pattern that matches them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: dict[str, None] = {}
        self._pattern: re.Pattern[str] | None = None
        self._longest = _LONGEST_SECRET
        self._masked: dict[str, str] = {}

    def clear(self) -> None:
        with self._lock:
            self._texts, self._pattern, self._longest, self._masked = {}, None, _LONGEST_SECRET, {}

    def add(self, texts: Iterable[str]) -> None:
        with self._lock:
            fresh = [text for text in texts if text not in self._texts]
            if not fresh:
                return
            self._texts.update(dict.fromkeys(fresh))
            for old in list(self._texts)[:-_MOST]:
                del self._texts[old]
            # The longest first: otherwise the rest of a secret that begins with another would stay.
            ordered = sorted(self._texts, key=len, reverse=True)
            self._longest = max(self._longest, len(ordered[0]))
            self._pattern = re.compile("|".join(map(_worded, ordered)), re.IGNORECASE)
            # Last, as a new object: a concurrent call may store results of the old pattern in the old one.
            self._masked = {}

    def mask(self, text: str) -> str:
        pattern = self._pattern
        masked = pattern.sub(MASK, text) if pattern else text
        return _URL_RUN.sub(_without_password, masked) if "://" in masked and "@" in masked else masked

    def mask_beginning(self, text: str) -> str:
        """Mask a text; if it is longer than `LONGEST_BEGINNING`, mask and return only its beginning."""
        if len(text) <= LONGEST_BEGINNING:
            return self.mask(text)
        masked = self.mask(text[:LONGEST_BEGINNING])
        return f"{masked[: max(0, len(masked) - self._longest)]}... ({len(text)} characters)"

    def mask_value(self, text: str) -> str:
        """Mask the beginning of a text that probably occurs again, such as a name."""
        if len(text) > _LONGEST_MASKED:
            return self.mask_beginning(text)
        cache = self._masked
        masked = cache.get(text)
        if masked is None:
            masked = self.mask(text)
            if len(cache) >= _MOST_MASKED:
                cache.clear()
            cache[text] = masked
        return masked


_memory = _Memory()


def learn(*secrets: str) -> None:
    """Store texts as secrets for the life of the process; skip texts that are blank or too short."""
    _memory.add(form for secret in secrets for form in forms(secret))


def forget() -> None:
    """Discard all secrets, as at the start of a process."""
    _memory.clear()


def learn_conninfo(conninfo: str) -> None:
    """Store the secrets of a connection string, even if libpq cannot parse it.

    A password that equals a visible part of the same string (for example the user) is not a secret.
    """
    user, passwords, public = "", [], {""}
    if scheme := URL.match(conninfo):
        user, _, password = userinfo(conninfo).partition(":")
        # An unescaped password is split where libpq and others expect the parts of a URI.
        passwords = [password, *re.split(r"[@/?#,:\[\]]", password)]
        rest = conninfo[scheme.end() :].rpartition("@")[2]
        hosts, _, query = rest.partition("?")
        public |= {user, *re.split(r"[/:,]", hosts)}
        if not userinfo(conninfo) and (port := hosts.partition("/")[0].partition(":")[2]):
            passwords += [part for part in port.split(",") if not part.isdigit()]
        pairs = [pair.partition("=")[::2] for pair in query.split("&")]
    else:
        pairs = [(pair["name"], _unquoted(pair["value"])) for pair in PAIR.finditer(conninfo)]
        public |= {value for name, value in pairs if name in ("user", "dbname", "host")}
        user = dict(pairs).get("user", "")
        # A blank or a quote ends an unquoted password for libpq, and for PAIR.
        for after in _PASSWORD.findall(conninfo):
            passwords += [after, after.strip("'")]
    for name, value in pairs:
        if name.lower() == "options":
            learn_options(unquote_plus(value) if URL.match(conninfo) else value)
        elif name.lower() in CONFIDENTIAL:
            passwords.append(value)
    learn_credentials(unquote(user), [password for password in passwords if unquote(password) not in public])


def learn_options(options: str) -> None:
    """Store the values of custom parameters (`-c app.token=...`) in libpq's `options`."""
    learn(*_CUSTOM_PARAMETER.findall(options))


def learn_credentials(user: str, passwords: Iterable[str]) -> None:
    """Store passwords, and their HTTP encoding with `user` (RFC 7617)."""
    for password in passwords:
        learn(password)
        if len(password) >= SHORTEST:
            learn(*(_base64(f"{user}:{unquote(password)}")))


def learn_url(url: str) -> None:
    """Store the user part of an endpoint's URL and the values of its query."""
    if credentials := userinfo(url):
        user, colon, password = credentials.partition(":")
        learn(credentials, *([] if colon else [user]))
        learn_credentials(unquote(user), [password, *re.split(r"[@/?#,:\[\]]", password)])
    learn(*_QUERY_VALUE.findall(url.rpartition("@")[2]))


def learn_headers(headers: str) -> None:
    """Store the values of OTLP headers in the variable's format: `name=value,name=value`, %-escaped."""
    for pair in headers.split(","):
        value = pair.partition("=")[2].strip()
        words = unquote(value).split()
        learn(value, *words)
        for word in words:
            if word and (decoded := _decoded(word)):
                learn(decoded, decoded.partition(":")[2])
        if "=" not in pair:
            learn(pair.strip())  # a comma in a value, or a missing name
    learn(headers)


def learn_environment(environ: Mapping[str, str]) -> None:
    """Store the secrets of an environment: the poller's own variables and those of its libraries."""
    for name, value in environ.items():
        if name in ("PGPASSWORD", "POLLER_PASSWORD_COMMAND"):
            learn(value)
        elif name == "PGOPTIONS":
            learn_options(value)
        elif name in ("POLLER_DATABASE_URL", "PGHOST", "PGDATABASE"):
            learn_conninfo(value)
        elif name in _HEADERS:
            learn_headers(value)
        elif name.endswith("_ENDPOINT") or name.lower() in _PROXIES:
            learn_url(value)


def _without_password(match: re.Match[str]) -> str:
    """Return a run of text that contains a URL, with the password masked up to the last @."""
    run = match[0]
    if user := _USER.search(run):
        password, at, host = run[user.end() :].rpartition("@")
        if password:
            return run[: user.end()] + MASK + at + host
    return run


def redact(text: str) -> str:
    """Return the text with every known secret replaced by `***`, in all its `forms`."""
    return _memory.mask(text)


def redact_beginning(text: str) -> str:
    """Redact a text that may have millions of characters: return only its beginning, and its length.

    The text is cut before it is masked, because masking with many secrets is slow. As many characters as the
    longest secret has are also dropped at the end, because a cut secret is not found.
    """
    return _memory.mask_beginning(text)


class Redaction(logging.Filter):
    """Masks the message and the exception of each record, for any handler of a library's logger.

    Long messages and tracebacks are cut, as in `redact_beginning`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001 - arguments that do not match, or cannot be formatted
            # Python would print the raw arguments and drop the record.
            form = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
            message = f"{form} (its arguments do not fit: {type(error).__name__})"
            record.msg, record.args = redact_beginning(message), None
        if (masked := redact_beginning(message)) != message:
            record.msg, record.args = masked, None
        if record.exc_info:
            traceback = _UNFORMATTED.formatException(record.exc_info)
            if (masked := redact_beginning(traceback)) != traceback:
                # A formatter uses exc_text if there is no exception.
                record.exc_info, record.exc_text = None, masked
        return True


def forms(secret: str) -> set[str]:
    """Return a secret in its forms: plain, URL, Python, JSON, Base64 and on one line."""
    variants: set[str] = set()
    for text in {secret, unquote(secret), unquote_plus(secret)}:
        if len(text.strip()) < SHORTEST:
            continue
        variants |= {text, text.strip(), " ".join(text.split())}
        variants |= {encode(text, errors="replace") for encode in (quote, quote_plus)}
        variants.add(quote(text, safe="", errors="replace"))
        variants |= {repr(text)[1:-1], repr(text.encode(errors="replace"))[2:-1]}
        variants |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
        variants |= _base64(text)
    return variants


def _base64(text: str) -> set[str]:
    raw = text.encode(errors="replace")
    return {encode(raw).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)}


def _decoded(word: str) -> str:
    """Return decoded HTTP Basic credentials; empty for any other text."""
    try:
        text = base64.b64decode(word, validate=True).decode()
    except ValueError:
        return ""
    return text if ":" in text else ""


def _unquoted(value: str) -> str:
    inner = value[1:-1] if len(value) > 1 and value[0] == value[-1] == "'" else value
    return re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL)


def _worded(text: str) -> str:
    alone = len(text) < _SHORTEST_IN_WORDS and text.isalnum()
    # A word also begins after `%20` or `\\n`.
    begins = r"(?:(?<![^\W_])|(?<=%[0-9A-F]{2})|(?<=\\[nrt]))"
    return rf"{begins}{re.escape(text)}(?![^\W_])" if alone else re.escape(text)


def redact_all(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping with its values masked, and cut as in `redact_beginning`; numbers stay numbers."""
    return {name: _redacted(value) for name, value in values.items()}


def _redacted(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = text_of(value)
    masked = _memory.mask_value(text)
    return value if masked == text else masked
