"""Masking of URLs and connection strings, and secrets that no message shows."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from poller.model.files import NotRegularError, read_regular

MASK = "***"
MAX_SECRET_BYTES = 1 << 20
"""Maximum size of a file that contains a secret."""

CONFIDENTIAL = frozenset(
    {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key", "options"}
)
"""libpq's parameters whose value is a secret, or may contain one, as in `-c app.token=...`."""

_HARMLESS = frozenset(
    """application_name channel_binding client_encoding connect_timeout dbname fallback_application_name
    gssdelegation gssencmode gsslib host hostaddr keepalives keepalives_count keepalives_idle
    keepalives_interval krbsrvname load_balance_hosts max_protocol_version min_protocol_version
    oauth_client_id oauth_issuer oauth_scope passfile port replication require_auth requirepeer requiressl
    service ssl ssl_max_protocol_version ssl_min_protocol_version sslcert sslcertmode sslcompression sslcrl
    sslcrldir sslkey sslkeylogfile sslmode sslnegotiation sslrootcert sslsni target_session_attrs
    tcp_user_timeout user""".split()  # noqa: SIM905 - a list of fifty quoted names is no easier to read
)
"""All other parameters (PostgreSQL 18 manual, 34.1.2). An unknown name may be a part of a password."""

PAIR = re.compile(
    r"\s*(?P<name>\w+)(?P<is>\s*=\s*)(?P<value>'(?:[^'\\]|\\.)*(?:'|$)|(?:[^\s\\]|\\.)*)(?=\s|$)", re.DOTALL
)
"""One parameter of a keyword string; an unclosed quote extends to the end."""
URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
_QUERY = re.compile(r"\?(?=[A-Za-z_][A-Za-z_0-9.-]*=)")
_END_OF_PATH = re.compile(r"[?#]")
_SECRET_PARAMETER = re.compile(rf"[?&](?:{'|'.join(sorted(CONFIDENTIAL))})=", re.IGNORECASE)
_BETWEEN_PARAMETERS = re.compile(r"[&=]")
_PARAMETER = re.compile(r"([?&#](?:[\w.-]+=)?)[^&#]+")
_HOSTS = re.compile(r"(\[[^\]]*\]|[^\[\]:/?@,]*)(:\d*)?(,(\[[^\]]*\]|[^\[\]:/?@,]*)(:\d*)?)*(/[^?@]*)?")


def mask_conninfo(conninfo: str) -> str:
    """Mask the secrets of a libpq URI or keyword string; host, database and user stay readable.

    Any other text is masked completely, because it may be a password in the wrong variable. Parts that libpq
    does not understand are masked as well: an unescaped @, a blank or a quote leaves a part of a password
    there.
    """
    if scheme := URL.match(conninfo):
        return scheme.group() + _mask_uri(conninfo[scheme.end() :])
    if "=" in conninfo:
        return _mask_pairs(conninfo)
    return MASK


def is_ambiguous(conninfo: str) -> bool:
    """Return whether libpq would read a part of the password as a host or a database.

    libpq ends the password of a URI at the first @, and finds none after a slash. So if @ or / is not written
    as %40 or %2F, libpq's messages quote the rest. The same happens with a URI in the wrong parameter.
    """
    if scheme := URL.match(conninfo):
        rest = conninfo[scheme.end() :]
        # An @ may be part of a parameter's value.
        return "@" in _QUERY.split(rest[rest.find("@") + 1 if _has_user(rest) else 0 :])[0]
    places = [pair["value"] for pair in PAIR.finditer(conninfo) if pair["name"] in ("dbname", "host")]
    return any("://" in value for value in places)


def foreign_parameters(conninfo: str) -> list[str]:
    """Return the parameters of a libpq URI that libpq does not know, such as `pool_max_conns`.

    The list is empty unless the parameters follow a valid host, and none of them is a secret: otherwise a
    name could be a part of a password.
    """
    scheme = URL.match(conninfo)
    if scheme is None or scheme[0].strip() not in ("postgresql://", "postgres://") or is_ambiguous(conninfo):
        return []
    if _SECRET_PARAMETER.search(conninfo):
        return []
    base, query = _split_query(conninfo[scheme.end() :].rpartition("@")[2])
    if not _HOSTS.fullmatch(base):
        return []
    names = [parameter.partition("=")[0] for parameter in query[1:].split("&") if parameter]
    return [
        name
        for name in names
        if re.fullmatch(r"\w[\w.-]{0,40}", name) and name not in _HARMLESS | CONFIDENTIAL
    ]


def mask_url(url: str) -> str:
    """Mask the user part of an endpoint, the values of its query and its fragment: each may be a token."""
    scheme = URL.match(url)
    start = scheme.end() if scheme else 0
    # A question mark in a password does not begin the query. If the last @ is in the query, the rest of the
    # query follows it.
    at = max(start, url.rfind("@") + 1)
    query = _END_OF_PATH.search(url, at) or _BETWEEN_PARAMETERS.search(url, at)
    base, tail = (url[: query.start()], url[query.start() :]) if query else (url, "")
    if tail[:1] == "=":
        tail = f"={MASK}"
    before, sign, host = base[start:].rpartition("@")
    masked = MASK if before else ""
    return base[:start] + masked + sign + host + _PARAMETER.sub(rf"\1{MASK}", tail)


def show_path(text: str) -> str:
    """Return the path of a file in quotes, if it is a path: a secret may be in its place."""
    path = Path(text)
    try:
        is_path = path.is_absolute() and len(path.parts) > 2 and Path(*path.parts[:2]).is_dir()
    except (OSError, ValueError):
        is_path = False
    return repr(text) if is_path and text.isprintable() else "the file (a relative path is not repeated)"


def userinfo(url: str) -> str:
    """Return the text before the host of a URL or of a bare `user:password@host`, up to the last @."""
    scheme = URL.match(url)
    return url[scheme.end() if scheme else 0 :].rpartition("@")[0]


def _has_user(rest: str) -> bool:
    return re.match(r"[^@/]*@", rest) is not None


def _mask_uri(rest: str) -> str:
    if _has_user(rest):
        user, _, tail = rest.partition("@")
        base, query = _split_query(tail)
        if "@" in base or ("@" in query and (":" in user or not _is_libpq_query(query))):
            # The base may contain a part of the password.
            base, query = _split_query(rest.rpartition("@")[2])
    elif "@" in _split_query(rest)[0]:
        user, _, tail = rest.rpartition("@")
        base, query = _split_query(tail)
    else:
        user = ""
        base, query = _split_query(rest)
    name, colon, _ = user.partition(":")
    masked = f"{name}:{MASK}@" if colon else f"{name}@" if user else ""
    if not _HOSTS.fullmatch(base):
        # The port is not a number: `user:password/database`, without a host.
        base = f"{base.partition(':')[0]}:{MASK}" if ":" in base and not user else MASK
    parameters = [
        parameter if name.lower() in _HARMLESS else f"{name}={MASK}" if name.lower() in CONFIDENTIAL else MASK
        for parameter in query[1:].split("&")
        for name in [parameter.partition("=")[0]]
    ]
    return masked + base + (f"?{'&'.join(parameters)}" if query else "")


def _is_libpq_query(query: str) -> bool:
    return all(
        parameter.partition("=")[0].lower() in _HARMLESS | CONFIDENTIAL
        for parameter in query.lstrip("?").split("&")
    )


def _split_query(tail: str) -> tuple[str, str]:
    base, mark, query = tail.partition("?")
    return base, mark + query


def _mask_pairs(conninfo: str) -> str:
    masked, at = "", 0
    while at < len(conninfo.rstrip()):
        pair = PAIR.match(conninfo, at)
        name = pair["name"].lower() if pair else ""
        if pair is None or name not in _HARMLESS | CONFIDENTIAL:
            return f"{masked} {MASK}".lstrip()
        value = pair["value"]
        odd = "://" in value or ("@" in value[1:] and name != "user") or (name == "port" and _no_port(value))
        masked += conninfo[at : pair.start("value")]
        masked += MASK if name in CONFIDENTIAL or odd else value
        at = pair.end()
    return masked


def _no_port(value: str) -> bool:
    return re.fullmatch(r"'?[0-9, ]*'?", value) is None


class Secret:
    """A text that does not appear in a message by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK


def read_secret(file: Path) -> str:
    """Return the content of a secret's file, without the final line break.

    Raises OSError if it is not a regular file, cannot be read, is empty or larger than MAX_SECRET_BYTES, and
    UnicodeDecodeError if it is not UTF-8.
    """
    try:
        secret = read_regular(file, MAX_SECRET_BYTES).decode().rstrip("\r\n")
    except NotRegularError as error:
        # A pipe, for example from `<(command)`, can be read only once.
        advice = "write the secret to a file (not <(command): it may be read again at every connect)"
        raise NotRegularError(error.errno, f"{error.strerror}; {advice}", str(file)) from None
    if secret.strip() == "":
        raise OSError(errno.ENODATA, "it is empty; write the secret into it", str(file))
    return secret
