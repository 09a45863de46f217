"""Leader lock on PostgreSQL: a session's advisory lock with `idle_session_timeout` as its lease."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError, PollError
from poller.model.leader import LockError
from poller.model.printable import one_line
from poller.postgres.cancellation import CancelToken
from poller.postgres.connection import Connection
from poller.postgres.conninfo import server_of
from poller.postgres.pipeline import Pipeline, Statement

_NAME_BYTES = 63
_PREFIX = "obscura-poller leader "
_LONGEST_ATTEMPT = 2.0
"""Seconds that one attempt to take the lock may take, after the connection is open."""
_SETTING = "POLLER_LEADER_ELECTION"
_POOLER = (
    "a connection pooler is in between, which may give the lock to another process; "
    "write the address of the server itself"
)
_OLD = "needs PostgreSQL 14 or later, which can end idle sessions (idle_session_timeout)"


class AdvisoryLock:
    """A session-level advisory lock; the server itself frees it when its holder is silent for the lease.

    Every statement of the holder is a confirmation: `idle_session_timeout` (PostgreSQL manual, "Client
    Connection Defaults") ends a session without one, and the end of a session frees its locks. So no clocks
    are compared and nothing is written. Advisory locks also work on a standby, but are not replicated: all
    processes must use the same server. Implements `model.leader.LeaderLock`.
    """

    def __init__(self, conninfo: Callable[[], str], name: str, identity: str, lease: float) -> None:
        """Prepare the lock `name` of the database that `conninfo` returns, for the process `identity`.

        `lease` is in seconds. Each connect calls `conninfo`.
        """
        self.name = f"postgresql:{name}"
        self.holder = ""
        self._lease = round(lease * 1000)
        self._patience = min(_LONGEST_ATTEMPT, lease / 6)
        # The server shows at most 63 bytes of an application's name.
        application_name = (_PREFIX + identity).encode()[:_NAME_BYTES].decode(errors="ignore")
        self.identity = one_line(application_name).removeprefix(_PREFIX)
        self._token = CancelToken()
        self._connection = Connection(
            lambda: with_single_server(conninfo()),
            self._token,
            connect_timeout=_LONGEST_ATTEMPT,
            application_name=application_name,
            # The server must not give up the connection before the lease ends.
            session={
                "idle_session_timeout": str(self._lease),
                "tcp_keepalives_idle": str(math.ceil(lease) + 1),
                "tcp_user_timeout": str(self._lease + 1000),
            },
        )
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)
        self._attempt = _ATTEMPT.format(take=f"pg_catalog.pg_try_advisory_lock({key})", lock=_lock(key))
        self._look = _ATTEMPT.format(take="false", lock=_lock(key))
        self._confirm = _CONFIRM.format(lock=_lock(key))

    def acquire(self) -> bool:
        """Try to take the lock; return whether this session has it.

        Raises LockError without an answer, ConfigError if a pooler or an old server makes the lock unsafe.
        """
        return self._attempt_with(self._attempt)

    def check(self) -> None:
        """Check that the lock can work, and read its holder; raises what `acquire` raises."""
        self._attempt_with(self._look)

    def renew(self, within: float) -> None:
        """Send a statement, which begins the lease again; wait `within` seconds for the answer.

        Raises LockError, always with `lost`: without its session, the lock is gone.
        """
        if not self._connection.is_open:
            raise LockError("the session has ended", lost=True)
        answer = self._ask(self._confirm, within)
        if not answer["held"] or answer["pid"] != self._backend():
            self._connection.close()
            raise LockError("the session has lost the lock", lost=True, hint=_POOLER)

    def may_be_lost(self) -> bool:
        """Return whether the session may have ended: the server has sent something, or closed it."""
        return self._connection.has_input()

    def release(self) -> None:
        """End the session, which frees the lock."""
        self._connection.close()

    def _attempt_with(self, attempt: str) -> bool:
        """Check a new session, run one of the two statements, return whether this session has the lock."""
        if self._connection.is_open and self._connection.has_input():
            # The server has ended the session, for example because this process was suspended.
            self._connection.close()
        if not self._connection.is_open:
            self._check(self._ask(_SESSION, self._patience))
        answer = self._ask(attempt, self._patience)
        # A genuine server sends at most 63 printable bytes.
        self.holder = one_line(str(answer["holder"] or "")[:_NAME_BYTES]).removeprefix(_PREFIX)
        return bool(answer["locked"])

    def _ask(self, sql: str, patience: float) -> dict[str, Any]:
        """Return the JSON object that `sql` selects; raises LockError, and closes the connection then."""
        try:
            connection = self._connection.connection()
            (reply,) = Pipeline(connection, self._token).send([Statement(sql, patience)])
            answer: dict[str, Any] = json.loads(reply.value())
        except PollError as error:
            self._connection.close()
            if "idle_session_timeout" in error.message:
                raise ConfigError([invalid(_SETTING, _OLD)]) from None
            raise LockError(error.message, lost=True, hint=_own_hint(error.hint)) from None
        except ValueError:
            self._connection.close()
            hint = "check which server it is"
            raise LockError("the server sends no valid answer", lost=True, hint=hint) from None
        return answer

    def _check(self, session: dict[str, Any]) -> None:
        """Raise ConfigError unless this session is one session of the server, with the lease."""
        if session["lease"] == str(self._lease) and session["pid"] == self._backend():
            return
        self._connection.close()
        raise ConfigError([invalid(_SETTING, _OLD if session["version"] < 140000 else _POOLER)])

    def _backend(self) -> int:
        """Return the process id that the server reported when the connection was opened."""
        return self._connection.connection().info.backend_pid


def with_single_server(conninfo: str) -> str:
    """Return `conninfo`; raises ConfigError if it names several servers, each of which has its own locks."""
    if "," in server_of(conninfo).partition(" (")[0]:
        raise ConfigError(
            [invalid(_SETTING, "names several servers, each with its own locks; name one host")]
        )
    return conninfo


def _own_hint(hint: str | None) -> str | None:
    """Return a hint about a connection with the names that apply to this one."""
    for name, own in (
        (" or POLLER_PASSWORD_COMMAND", ""),
        ("POLLER_DATABASE_URL", _SETTING),
        ("POLLER_CONNECT_TIMEOUT", f"connect_timeout in {_SETTING}"),
    ):
        hint = hint and hint.replace(name, own)
    return hint


def _lock(key: int) -> str:
    """Return the condition that selects the advisory lock `key` in pg_locks."""
    high, low = key >> 32 & 0xFFFFFFFF, key & 0xFFFFFFFF
    return (
        "locktype OPERATOR(pg_catalog.=) 'advisory' AND granted AND objsubid OPERATOR(pg_catalog.=) 1"
        f" AND classid OPERATOR(pg_catalog.=) {high}::pg_catalog.oid"
        f" AND objid OPERATOR(pg_catalog.=) {low}::pg_catalog.oid"
        " AND database OPERATOR(pg_catalog.=) (SELECT oid FROM pg_catalog.pg_database"
        " WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())"
    )


_SESSION = """\
SELECT pg_catalog.json_build_object(
  'lease', (SELECT setting FROM pg_catalog.pg_settings
    WHERE name OPERATOR(pg_catalog.=) 'idle_session_timeout'),
  'version', pg_catalog.current_setting('server_version_num')::int,
  'pid', pg_catalog.pg_backend_pid())"""
_ATTEMPT = """\
SELECT pg_catalog.json_build_object(
  'locked', {take},
  'holder', (SELECT application_name FROM pg_catalog.pg_stat_activity JOIN pg_catalog.pg_locks
    ON pg_locks.pid OPERATOR(pg_catalog.=) pg_stat_activity.pid WHERE {lock} LIMIT 1))"""
_CONFIRM = """\
SELECT pg_catalog.json_build_object(
  'pid', pg_catalog.pg_backend_pid(),
  'held', EXISTS (SELECT FROM pg_catalog.pg_locks
    WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND {lock}))"""
