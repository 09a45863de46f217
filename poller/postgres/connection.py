"""Connection to the replica: connect, host, fitness of the session and close."""

from __future__ import annotations

import logging
import os
import re
import select
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, TransactionStatus

from poller.model.errors import PollError
from poller.model.redaction import (
    Redaction,
    learn,
    learn_conninfo,
    learn_credentials,
    learn_options,
    redact_beginning,
)
from poller.model.secrets import show_path
from poller.model.text import host_port
from poller.postgres.cancellation import CancelToken
from poller.postgres.conninfo import is_conninfo, misunderstood
from poller.postgres.sqlstate import connection_advice, is_server_wide, one_line, refusal_of, server_error

logger = logging.getLogger(__name__)

_REDACTION = Redaction()
_READ_ONLY = " -c default_transaction_read_only=on"
_CONSOLE = "name the application's database in the connection string, not pgbouncer"
_UNREADABLE = "create the file, or correct its path; the poller's user must be able to read it"
_CONNECT_TIMEOUTS = 4
"""Number of addresses of one host name that may each take the whole connect_timeout."""
_STUCK = (
    "the server may require a huge number of SCRAM iterations: check which server it is, restart the poller"
)
_POOLER_REFUSES = re.compile(r"unsupported startup parameter|parameter .{1,200} in options", re.IGNORECASE)
"""PgBouncer's messages that reject `options` (its manual, ignore_startup_parameters); not translated."""


@dataclass(frozen=True, slots=True)
class Host:
    """The connected server, if the connection string names several."""

    address: str
    """Host name, address or socket directory, as chosen from the connection string."""
    port: int
    database: str = ""

    def __str__(self) -> str:
        return host_port(self.address, self.port)


class Connection:
    """One connection at a time, opened when it is needed.

    Every connect reads again everything that may change at run time: the connection string, libpq's passfile
    and service file, the addresses of a host name, and which of several hosts matches
    `target_session_attrs` (PostgreSQL manual, "Connection Strings").
    """

    def __init__(
        self,
        conninfo: Callable[[], str],
        cancel_token: CancelToken,
        *,
        connect_timeout: float,
        password: Callable[[], str] | None = None,
        application_name: str = "obscura-poller",
        database: str | None = None,
        session: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Store the settings without connecting; `connect_timeout` is in seconds, for each host.

        `database` overrides the database of the connection string. `session` has server parameters of the
        whole session, which a pooler may refuse.

        Every connect calls `conninfo` and `password` (which overrides the password of the connection string).
        Both may raise PollError.
        """
        # psycopg logs every attempt at DEBUG, with the server's message.
        logging.getLogger("psycopg").addFilter(_REDACTION)
        self._conninfo = conninfo
        self._cancel_token = cancel_token
        self._password = password
        self._connect_timeout = connect_timeout
        self._application_name = application_name
        self._database = database
        self._session = "".join(f" -c {name}={value}" for name, value in session.items())
        self._connection: psycopg.Connection | None = None
        self._through_pooler = False
        self._stuck: threading.Thread | None = None
        self._session_attrs = ""

    @property
    def is_open(self) -> bool:
        """Whether a connection is open, as far as libpq knows."""
        return self._connection is not None and not self._connection.closed

    @property
    def host(self) -> Host | None:
        """The connected server; None without a connection."""
        if self._connection is None or self._connection.closed:
            return None
        info = self._connection.info
        return Host(info.host, info.port, info.dbname)

    def fits(self, *, standby: bool) -> bool:
        """Return whether a server in this role matches `target_session_attrs`."""
        if self._session_attrs in ("standby", "prefer-standby"):
            return standby
        return not standby if self._session_attrs in ("primary", "read-write") else True

    def has_input(self) -> bool:
        """Return, without waiting, whether the server has sent something unasked or closed the connection."""
        if self._connection is None or self._connection.closed:
            return True
        ready = select.poll()
        ready.register(self._connection.fileno(), select.POLLIN)
        return bool(ready.poll(0))

    def connection(self) -> psycopg.Connection:
        """Return the open connection, or a new one.

        Raises PollError: `cancelled` after the token was cancelled, `unavailable` if no host accepts the
        connection. The error never contains a password.
        """
        if self._cancel_token.raised:
            raise PollError("cancelled", "stop requested")
        if (
            self._connection is not None
            and self._connection.info.transaction_status != TransactionStatus.IDLE
        ):
            # A caller stopped in the middle of the last tick, so the snapshot is an old one.
            self.close()
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
            if self._cancel_token.wait(0):  # cancelled during the connect
                self.close()
                raise PollError("cancelled", "stop requested")
        return self._connection

    def close(self) -> None:
        """Close the connection; the next use opens a new one."""
        connection, self._connection = self._connection, None
        if self._session:  # the next connect may reach the server itself instead of a pooler
            self._through_pooler = False
        if connection is not None:
            connection.close()

    def _connect(self) -> psycopg.Connection:
        conninfo = self._described()
        try:
            connection = self._attempt(conninfo)
            if not (connection.info.parameter_status("server_version") or "").endswith("/bouncer"):
                return connection
            connection.close()
            failure = PollError(
                "unavailable", "this is PgBouncer's admin console, not a database", hint=_CONSOLE
            )
        except ValueError:
            # The host name or the password cannot be encoded.
            failure = _not_understood()
        except psycopg.Error as error:
            if not self._through_pooler and _POOLER_REFUSES.search(str(error)):
                # Every transaction stays READ ONLY; only the default of the session is omitted.
                logger.info("the pooler refuses startup options; connecting without them")
                self._through_pooler = True
                return self._connect()
            sqlstate, hint = refusal_of(str(error))
            sqlstate = error.sqlstate or sqlstate
            if error.pgconn is not None:
                # The server may repeat a password from the passfile or the service file.
                learn(error.pgconn.password.decode(errors="replace"))
            message = one_line(redact_beginning(str(error)))
            # PgBouncer's messages have their own hints.
            hint = hint or server_error(sqlstate, message).hint or connection_advice(message)
            failure = PollError("unavailable", message, sqlstate=sqlstate, hint=hint)
            failure.server_wide = is_server_wide(sqlstate, str(error))
            error.__traceback__ = None  # it refers to psycopg's local variables, which hold the password
        # Raised outside `except` and without `from`, because psycopg's error contains the password.
        raise failure

    def _attempt(self, conninfo: str) -> psycopg.Connection:
        # Parameters passed here override those of the service file and of libpq's environment variables.
        effective = _effective(conninfo)
        learn(effective.get("password", ""))
        options = effective.get("options", "")
        learn_options(options)
        self._session_attrs = effective.get("target_session_attrs", "")
        # With default_transaction_read_only on, libpq would classify every server as read-only. So it is
        # omitted if the user selects by that property; every transaction stays READ ONLY.
        distinguishes = self._session_attrs in ("read-only", "read-write")
        if not self._through_pooler:
            options = f"{options}{'' if distinguishes else _READ_ONLY}{self._session}".strip()
        more: dict[str, Any] = {"options": options} if options else {}
        if self._database is not None:
            more["dbname"] = self._database
        if self._password is not None:
            more["password"] = self._password()
            learn_credentials(effective.get("user", ""), [more["password"]])
        timeout = effective.get("connect_timeout") or str(max(2, round(self._connect_timeout)))
        more |= {
            "connect_timeout": timeout,
            "application_name": effective.get("application_name") or self._application_name,
        }
        hosts = effective.get("host", "").count(",") + 1
        # libpq checks 0 and values that are not a number.
        seconds = int(timeout) if timeout.isdecimal() else 0
        longest = seconds * hosts * _CONNECT_TIMEOUTS or None
        return self._connect_within(longest, conninfo, more)

    def _connect_within(
        self, seconds: float | None, conninfo: str, more: dict[str, Any]
    ) -> psycopg.Connection:
        """Connect in a thread, which is abandoned after `seconds`; raise PollError `unavailable` then.

        libpq computes as many rounds of SCRAM as the server requests, in one call that no timeout ends:
        2^31 rounds take an hour. At most one such thread keeps running.
        """
        if self._stuck is not None and self._stuck.is_alive():
            raise PollError("unavailable", "an earlier attempt to connect still computes", hint=_STUCK)
        attempt = _ConnectAttempt(conninfo, more)
        thread = threading.Thread(target=attempt.run, name="connect", daemon=True)
        thread.start()
        thread.join(seconds)
        if attempt.abandon():
            self._stuck = thread
            failure = PollError("unavailable", f"connecting took longer than {seconds:.0f}s", hint=_STUCK)
            failure.server_wide = True
            raise failure
        if attempt.error is not None:
            raise attempt.error
        assert attempt.connection is not None  # noqa: S101  # one of the two is set
        return attempt.connection

    def _described(self) -> str:
        """Return the connection string if it is valid; raise PollError without quoting it otherwise.

        libpq's own message about an invalid string may quote a password.
        """
        try:
            conninfo = self._conninfo()
            learn_conninfo(conninfo)
            learn(os.environ.get("PGPASSWORD") or "")
            learn_options(os.environ.get("PGOPTIONS") or "")
        except OSError as error:
            file = show_path(str(error.filename)) if error.filename else "a file"
            message = f"cannot read how to connect: {file}: {error.strerror}"
            raise PollError("unavailable", message, hint=_UNREADABLE) from error
        except UnicodeError:
            raise _not_understood() from None
        if not is_conninfo(conninfo):
            raise _not_understood(conninfo)
        return conninfo


class _ConnectAttempt:
    """One call of psycopg.connect; its connection is either returned to the caller or closed."""

    def __init__(self, conninfo: str, more: dict[str, Any]) -> None:
        self.connection: psycopg.Connection | None = None
        self.error: Exception | None = None
        self._arguments = conninfo, more
        self._lock = threading.Lock()
        self._over = False

    def run(self) -> None:
        conninfo, more = self._arguments
        connection, error = None, None
        try:
            connection = psycopg.connect(conninfo, autocommit=True, client_encoding="UTF8", **more)
        except Exception as failure:  # noqa: BLE001  # it is raised where the outcome is awaited
            error = failure
        with self._lock:
            abandoned, self._over = self._over, True
            self.connection, self.error = connection, error
        if abandoned and connection is not None:
            connection.close()

    def abandon(self) -> bool:
        """End the wait; return whether the call has not finished yet."""
        with self._lock:
            waiting, self._over = not self._over, True
            return waiting


def ssl_mode(connection: psycopg.Connection) -> str:
    """Return the `sslmode` of an open connection, from any source that libpq reads."""
    mode = next((option.val for option in connection.pgconn.info if option.keyword == b"sslmode"), None)
    return (mode or b"prefer").decode()


def _effective(conninfo: str) -> dict[str, str]:
    """Return the parameters that libpq uses: connection string, service file and environment variables.

    libpq reports them only for a connection (PQconninfo). So this function starts a connection to an address
    that cannot have a server.
    """
    pgconn = PGconn.connect_start(make_conninfo(conninfo, host="/", hostaddr="", port="1").encode())
    try:
        return {
            option.keyword.decode(): option.val.decode(errors="replace")
            for option in pgconn.info
            if option.val
        }
    finally:
        pgconn.finish()


def _not_understood(conninfo: str = "") -> PollError:
    message, hint = misunderstood(conninfo)
    return PollError("unavailable", message, hint=hint)
