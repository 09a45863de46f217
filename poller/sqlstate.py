"""Say what an SQLSTATE means for a poll: its kind, and what to do about it."""

from __future__ import annotations

from poller.errors import ErrorKind, PollError

_EXACT: dict[str, ErrorKind] = {
    "40001": "conflict",  # serialization_failure: on a standby, a conflict with recovery
    "40P01": "conflict",  # deadlock_detected: on a standby, a buffer-pin deadlock with recovery
    "55P03": "timeout",  # lock_not_available: our lock_timeout
    "25P03": "timeout",  # idle_in_transaction_session_timeout
    "25P04": "timeout",  # transaction_timeout
    "57014": "cancelled",  # query_canceled: by statement_timeout or by someone, see `server_error`
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
    "42501": "GRANT SELECT on what the query reads to the poller's role",
    "42P01": "the relation does not exist here; if that is expected, name it under requires.columns",
    "42703": "the column does not exist here; if that is expected, name it under requires.columns",
    "42883": "no such function for these types; if an extension brings it, name it under requires.extensions",
    "25006": "a query may only read",
    "22012": "guard the division: x / nullif(y, 0)",
    "55P03": "another session held a lock for longer than POLLER_LOCK_TIMEOUT",
    "53300": "the server has no free connection; the role needs only one",
    "40001": "a standby cancels what stands in the way of replay: raise max_standby_streaming_delay, "
    "set hot_standby_feedback, or make the query shorter",
    "28P01": "check the password",
    "3D000": "check the database's name in POLLER_DATABASE_URL",
}


def kind_of(sqlstate: str | None) -> ErrorKind:
    """The kind of failure behind an SQLSTATE (PostgreSQL manual, Appendix A); None is a lost connection."""
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
    """Make the error of a poll from what the server said.

    57014 has two meanings and one code, and its text follows lc_messages: a statement that ran for (nearly)
    its whole `timeout` was ended by it, any other was cancelled by somebody. All times in seconds.
    """
    kind = kind_of(sqlstate)
    if sqlstate == "57014" and timeout is not None and elapsed >= 0.9 * timeout:
        kind = "timeout"
        hint = hint or "make the query cheaper or raise its timeout"
    return PollError(kind, message, sqlstate=sqlstate, hint=hint or _HINTS.get(sqlstate or ""))
