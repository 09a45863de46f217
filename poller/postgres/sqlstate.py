"""SQLSTATE classification: the kind of failure, and its fix."""

from __future__ import annotations

import re

from poller.model.errors import ConflictKind, ErrorKind, PollError
from poller.model.redaction import redact_beginning

LONGEST_MESSAGE = 1000
"""Maximum characters of a server's message, because a quoted value may have millions."""

_EXACT: dict[str, ErrorKind] = {
    "40001": "conflict",  # serialization_failure: on a standby, a conflict with recovery
    "40P01": "conflict",  # deadlock_detected: on a standby, a buffer-pin deadlock with recovery
    "55P03": "timeout",  # lock_not_available: the poller's lock_timeout
    "25P03": "timeout",  # idle_in_transaction_session_timeout
    "25P04": "timeout",  # transaction_timeout
    "57014": "cancelled",  # query_canceled: by statement_timeout or by a user, see `server_error`
    "57P01": "unavailable",  # admin_shutdown, pg_terminate_backend
    "57P02": "unavailable",  # crash_shutdown
    "57P03": "unavailable",  # cannot_connect_now: starting up
    "57P04": "conflict",  # database_dropped, also by replay on a standby
    "57P05": "unavailable",  # idle_session_timeout
    "53300": "unavailable",  # too_many_connections
}
_CLASSES: dict[str, ErrorKind] = {
    "08": "unavailable",  # connection exception
    "28": "unavailable",  # invalid authorization
}
_HINTS = {
    "42501": "grant the poller's role what the query reads; `poller grants` prints the privileges",
    "42P01": "if that is expected here, name it under requires.columns",
    "42703": "if that is expected here, name it under requires.columns",
    "42P18": "write the type after the parameter, for example :name::int",
    "42883": "no such function for these types; if an extension brings it, name it under requires.extensions",
    "25006": "a query may only read",
    "22021": "fix the value, or exclude it in the query",
    "22P05": "fix the value, or exclude it in the query",
    "22012": "guard the division: x / nullif(y, 0)",
    "55P03": "another session held a lock for longer than POLLER_LOCK_TIMEOUT",
    "53300": "the server has no free connection; the role needs only one",
    "57P04": "the database is being dropped",
    "28P01": "check the password",
    "28000": "check the user's name, and the lines of pg_hba.conf for this host, user and database",
    "3D000": "check the database's name in POLLER_DATABASE_URL",
    "57P03": "the server is starting up or shutting down; polls continue when it is ready",
}
_CONFLICTS: tuple[tuple[str, ConflictKind], ...] = (
    # errdetail_recovery_conflict in PostgreSQL's postgres.c; the texts are the same from 9.1 to 18.
    ("row versions that must be removed", "snapshot"),
    ("relation lock for too long", "lock"),
    ("shared buffer pin", "buffer_pin"),
    ("tablespace that must be dropped", "tablespace"),
    ("database that must be dropped", "database"),
    ("slot", "slot"),
    ("deadlock", "deadlock"),
)
_STANDBY_WAITS = "raise max_standby_streaming_delay on the standby, or make the query shorter"
_CONFLICT_HINTS: dict[ConflictKind, str] = {
    "snapshot": "set hot_standby_feedback = on on the standby (the primary then keeps the rows), or "
    + _STANDBY_WAITS,
    "lock": "the primary locked the relation exclusively (DDL, VACUUM truncating it); " + _STANDBY_WAITS,
    "buffer_pin": _STANDBY_WAITS,
    # max_standby_streaming_delay does not apply: recovery and the query wait for each other.
    "deadlock": "the query waited for a relation that the primary had locked, and held a page that recovery "
    "needed; keep exclusive locks on the primary short",
    "tablespace": "a tablespace for temporary files was dropped; the next poll uses another",
    "database": "the database was dropped",
    "slot": _STANDBY_WAITS,
    "unknown": "set hot_standby_feedback = on on the standby, or " + _STANDBY_WAITS,
}
_NEXT_SENTENCE = re.compile(r"(?<=[^\s.:?!])\n\t(?=[A-Z])")
_GRANT_CONNECT = "GRANT CONNECT ON DATABASE ... TO the role"
_REFUSALS: tuple[tuple[re.Pattern[str], str, str | None], ...] = tuple(
    (re.compile(pattern), sqlstate, hint)
    for pattern, sqlstate, hint in (
        # The first match decides, so messages with a quoted name come after the more specific ones.
        (r"password authentication failed", "28P01", None),
        (r"authentication failed for user|pg_hba\.conf", "28000", None),
        (r"too many connections for role", "53300", "the role's CONNECTION LIMIT is reached; it needs 2"),
        (r"too many connections for database", "53300", "the CONNECTION LIMIT of the database is reached"),
        (r"too many clients|too many connections|connection slots are reserved", "53300", None),
        (r"permission denied for database", "42501", _GRANT_CONNECT),
        (
            r"cannot connect to invalid database",
            "55000",
            "DROP DATABASE runs or was interrupted: drop and create the database again, or name another",
        ),
        (
            r"is not currently accepting connections",
            "55000",
            "ALTER DATABASE ... ALLOW_CONNECTIONS true, or name another database",
        ),
        (r"the database system is", "57P03", None),
        (r'role ".*" ', "28000", None),
        (r'database ".*" ', "3D000", None),
    )
)

_FULL = "the server has no free connection: raise max_connections, or end some sessions"
_CONNECTION_ADVICE = (
    ("Connection refused", "start the server, or correct host and port (and its listen_addresses)"),
    (
        "could not translate host name|failed to resolve host",
        "correct the host's name, or add it to DNS",
    ),
    ("timeout expired", "no server answers there: check firewalls, or raise POLLER_CONNECT_TIMEOUT"),
    ("No such file or directory", "correct the socket's directory (host=) and port, or start the server"),
    ("no pg_hba.conf entry", "add a line for the role and this host to pg_hba.conf, then reload it"),
    ("no password supplied", "set one in POLLER_DATABASE_URL_FILE, PGPASSFILE or POLLER_PASSWORD_COMMAND"),
    ("authentication failed", "check role and password; to set a new one: \\password in psql on the primary"),
    ("too many connections for role", "end other sessions of this role, or raise CONNECTION LIMIT"),
    ("too many clients", _FULL),
    ("remaining connection slots", _FULL),
    ("is not permitted to log in", "ALTER ROLE ... LOGIN on the primary; deploy/role.sql does"),
    (r'role ".{0,200}" does not exist', "create the role on the primary: deploy/role.sql"),
    (r'database ".{0,200}" does not exist', "correct the database's name"),
    ("permission denied for database", "GRANT CONNECT ON DATABASE to the role; deploy/role.sql does"),
    ("does not support SSL", "set ssl = on on the server; another sslmode only inside a trusted network"),
    ("root certificate file", "set sslrootcert to the certificate authority's file, or to system"),
    ("does not match host name", "connect with a host name that is in the server's certificate"),
    ("certificate verify failed", "set sslrootcert to the file of the server's certificate authority"),
    ("certificate", "check sslcert, sslkey and sslrootcert, and the lines of the server's pg_hba.conf"),
    ("standby mode|session is (not )?read-only", "no server has the role that target_session_attrs requires"),
    ("starting up|not yet accepting", "wait: the server is starting"),
)
"""Messages of libpq or the server, in English only, and the fix for each."""


def one_line(message: str) -> str:
    """Return libpq's message on one line; lines without a full stop become separate sentences."""
    return " ".join(_NEXT_SENTENCE.sub(". ", message).split())


def refusal_of(message: str) -> tuple[str | None, str | None]:
    """Return the SQLSTATE of a refused connection, which libpq does not expose, and the fix.

    Both come from the server's English message; None if it is in another language. Quoted names are ignored.
    """
    _, fatal, refusal = message.rpartition("FATAL:")
    if fatal:
        refusal = re.sub(r'"[^"]*"', '""', refusal)
        for pattern, sqlstate, hint in _REFUSALS:
            if pattern.search(refusal):
                return sqlstate, hint or _HINTS.get(sqlstate)
    return None, None


def is_server_wide(sqlstate: str | None, message: str) -> bool:
    """Return whether a failed connection with `message` shows that the whole server is unavailable.

    Otherwise the server has refused the database or the role. Its connections for all of them may be in use
    as well (53300), except if only one database has reached its CONNECTION LIMIT.
    """
    if sqlstate == "53300":
        return "connections for database" not in message
    # libpq writes two spaces after the severity of a server's message, which is in the server's language.
    return sqlstate == "57P03" or ":  " not in message


def connection_advice(message: str) -> str | None:
    """Return the fix for a connection that failed with `message`; None for an unknown message."""
    return next((advice for pattern, advice in _CONNECTION_ADVICE if re.search(pattern, message)), None)


def conflict_of(sqlstate: str | None, message: str) -> ConflictKind:
    """Return the kind of recovery conflict from the SQLSTATE and the server's message with its detail."""
    for text, kind in _CONFLICTS:
        if text in message:
            return kind
    return "deadlock" if sqlstate == "40P01" else "database" if sqlstate == "57P04" else "unknown"


def kind_of(sqlstate: str | None) -> ErrorKind:
    """Return the kind of failure for an SQLSTATE (PostgreSQL manual, Appendix A); None: connection lost."""
    if sqlstate is None:
        return "unavailable"
    return _EXACT.get(sqlstate) or _CLASSES.get(sqlstate[:2], "rejected")


def server_error(
    sqlstate: str | None,
    message: str,
    *,
    hint: str | None = None,
    elapsed: float = 0.0,
    timeout: float | None = None,
) -> PollError:
    """Return the error of a poll for a server's error; `elapsed` and `timeout` are in seconds.

    57014 has two meanings, and the message depends on lc_messages. The English message names the statement
    timeout. In any language, a statement that ran for (nearly) its whole `timeout` was ended by it; otherwise
    a user cancelled it. The time alone is not enough, because a delayed reader measures less of it.
    """
    kind = kind_of(sqlstate)
    timed_out = timeout is not None and ("statement timeout" in message or elapsed >= 0.9 * timeout)
    if sqlstate == "57014" and timed_out:
        kind = "timeout"
        hint = hint or "make the query cheaper or raise its timeout"
    if "statement pooling mode" in message:  # PgBouncer's message
        hint = "set pool_mode = transaction (or session) for this database in PgBouncer"
    if sqlstate == "42883" and "pg_catalog.sum(" in message:
        hint = "sum() and histogram require a numeric type; convert the column in sql"
    # A server repeats its input, for example `options`.
    hint = _cut(hint) if hint else _HINTS.get(sqlstate or "")
    error = PollError(kind, _cut(message), sqlstate=sqlstate, hint=hint)
    if kind == "conflict":
        error.conflict = conflict_of(sqlstate, message)
        # The server's own hint ("you should be able to reconnect") describes what the poller does anyway.
        error.hint = _CONFLICT_HINTS[error.conflict]
    return error


def _cut(text: str) -> str:
    """Return the server's text without secrets and cut, because it may quote a very long value."""
    text = redact_beginning(text)
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}..."
