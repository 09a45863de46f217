"""Transaction statements for queries: read-only, with timeouts, without lasting effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from poller.model.query import NO_PARAMETERS, Parameters, QueryDefinition
from poller.postgres.charset import UTF8, Charset
from poller.postgres.pipeline import MAX_RESULT_BYTES, Statement
from poller.postgres.server_facts import SERVER
from poller.postgres.sql_text import literal, set_config
from poller.postgres.sqlcomment import Tags, commented, untagged

_ROLLBACK = "ROLLBACK TO SAVEPOINT tick"
_LAST_WORD_SECONDS = 0.5
_OTHER_SERVER = "the pooler connects to another server than the one that was checked"


@dataclass(frozen=True, slots=True)
class TransactionLimits:
    """Limits of every transaction and its results; all times are in seconds."""

    lock_timeout: float
    max_result_bytes: int = MAX_RESULT_BYTES
    """Size of a result above which its query is cancelled."""
    opening_timeout: float = 10.0
    """Time that each of the poller's own catalogue queries may take."""
    patience: float = 5.0
    """Time after the server's own timeout until the poller treats the server as dead."""
    longest_snapshot: float = 150.0
    """A long snapshot keeps rows from vacuum (hot_standby_feedback) or blocks replay."""
    idle_timeout: float = 10.0
    """Time after which the server ends a transaction that sends no statement."""
    connection_check: float = 2.0
    """Interval at which the server checks, during a query, whether the poller still lives."""

    def budget(self, queries: Iterable[QueryDefinition]) -> float:
        """Return the maximum duration, in seconds, of the transaction that `queries` share.

        It is half of the shortest interval, so that a snapshot is not held all the time, and at most
        `longest_snapshot`. But it is always longer than the longest timeout, so that a query can use its
        whole timeout and the server can report it.
        """
        queries = tuple(queries)
        half = min((query.interval for query in queries), default=0.0) / 2
        longest = min(half, self.longest_snapshot)
        return max([longest, *(query.timeout + _LAST_WORD_SECONDS for query in queries)])


class Opening(NamedTuple):
    """Statements that begin the shared transaction, in the order in which they are sent."""

    begin: Statement
    bounds: Statement
    """Sets the limits and formats of the transaction."""
    facts: Statement
    savepoint: Statement


@dataclass(frozen=True, slots=True)
class TransactionStatements:
    """Statements of one transaction, with its limits.

    Everything is set by SET LOCAL or set_config and ends with the transaction, because a pooler may give the
    session to another client (PostgreSQL manual, "Client Connection Defaults").
    """

    limits: TransactionLimits
    budget: float
    """Maximum duration of the transaction that queries share, in seconds."""
    tags: Tags = untagged
    """Returns the content of the comment on each query's SQL."""
    timeout: float | None = None
    """The statement_timeout set after the savepoint: a query with this timeout does not set its own."""
    charset: Charset = UTF8
    """Encoding of the statements, once the limits are set."""
    server: str | None = None
    """The server process (`server_facts.SERVER`) that a later transaction requires; None: any."""

    def opening(self, sql: str) -> Opening:
        """Return the statements that begin the shared transaction, run `sql` and set savepoint `tick`.

        All of them must succeed. Further statements run after the savepoint, so that an error has no effect.
        """
        # The role's own limits may be too short for the statements that set the poller's limits.
        begin = self._make_statement(
            f"SET LOCAL idle_in_transaction_session_timeout = {_ms(self.limits.idle_timeout)}",
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            _set_timeout(self.limits.opening_timeout),
        )
        bounds = self._bounds(self.limits.opening_timeout, self.budget + self.limits.patience)
        common = [] if self.timeout is None else [_set_timeout(self.timeout)]
        savepoint = self._make_statement("SAVEPOINT tick", *common)
        return Opening(begin, self._make_statement(bounds), self._make_statement(sql), savepoint)

    def own_statement(
        self,
        sql: str,
        *,
        parameters: Parameters = NO_PARAMETERS,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> Statement:
        """Return another of the poller's own statements, for the shared transaction.

        `parameters` and `settings` are those of the query that it plans.
        """
        statement = self._make_statement(sql, _ROLLBACK, _set_timeout(self.limits.opening_timeout))
        return statement._replace(parameters=parameters, settings=settings)

    def shared(self, query: QueryDefinition, sql: str) -> tuple[Statement]:
        """Return the statement that runs `sql` for `query` in the shared transaction.

        The rollback before it undoes the effects of the previous query, including an error. If the
        transaction is gone, the rollback fails and the query is not run, so it never runs without guards.
        """
        timeout = () if query.timeout == self.timeout else (_set_timeout(query.timeout),)
        return (self._query(query, self.tagged(query, sql), _ROLLBACK, *timeout),)

    def alone(self, query: QueryDefinition, sql: str) -> tuple[Statement, Statement]:
        """Return the statements that run `sql` for `query` in its own short transaction and end it."""
        # All runs of a statement with parameters are in one transaction.
        longest = min(query.timeout * len(query.parameters), max(query.timeout, query.interval))
        bounds = self._bounds(query.timeout, longest + self.limits.patience)
        if self.server is not None:
            # A pooler may switch to another server than the checked one; the statement then fails.
            is_same = f"{SERVER} OPERATOR(pg_catalog.=) {literal(self.server)}"
            checked = f"CASE WHEN {is_same} THEN '{_ms(self.limits.lock_timeout)}' ELSE '{_OTHER_SERVER}' END"
            bounds += f", pg_catalog.set_config('lock_timeout', {checked}, true)"
        begin = "BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY"
        return self._query(query, self.tagged(query, sql), begin, bounds), self.rollback()

    def rollback(self) -> Statement:
        """Return the statement that ends a transaction in any state and undoes its effects.

        A READ ONLY transaction can also set parameters for the session and notify listeners. COMMIT would
        make both effective.
        """
        return Statement("ROLLBACK", self.limits.patience)

    def tagged(self, query: QueryDefinition, sql: str) -> str:
        """Return `sql` with a comment that names `query`."""
        return commented(sql, self.tags(query.name))

    def _query(self, query: QueryDefinition, sql: str, *preceding: str) -> Statement:
        return Statement(
            sql,
            query.timeout + self.limits.patience,
            query.limit,
            query.timeout,
            preceding,
            query.parameters,
            query.settings,
        )

    def _make_statement(self, sql: str, *preceding: str) -> Statement:
        timeout = self.limits.opening_timeout
        return Statement(sql, timeout + self.limits.patience, timeout=timeout, preceding=preceding)

    def _bounds(self, statement_timeout: float, transaction_timeout: float) -> str:
        """Return the statement that sets the limits, where the server has the parameter.

        client_connection_check_interval (14 and later, not on Windows) ends a query whose poller has died.
        transaction_timeout (17 and later) ends the remaining statements if the network fails.
        """
        fixed = {
            "statement_timeout": statement_timeout,
            "lock_timeout": self.limits.lock_timeout,
            "idle_in_transaction_session_timeout": self.limits.idle_timeout,
        }
        calls = [set_config(name, _ms(value)) for name, value in fixed.items()]
        for name, seconds, also in (
            ("transaction_timeout", transaction_timeout, ""),
            ("client_connection_check_interval", self.limits.connection_check, _NOT_WINDOWS),
        ):
            exists = f"pg_catalog.current_setting('{name}', true) IS NOT NULL"
            calls.append(f"CASE WHEN {exists}{also} THEN {set_config(name, _ms(seconds))} END")
        return f"SELECT {', '.join(calls)}, {_formats(self.charset)}"


def formats_query(charset: Charset) -> str:
    """Return the statement that sets, for the transaction, how the server reads SQL and writes values."""
    return f"SELECT {_formats(charset)}"


def _formats(charset: Charset) -> str:
    if charset == UTF8:  # the encoding of the session
        return _FORMATS
    # A pooler may switch to a database with another encoding than the session reported. No encoding has this
    # name, so the statement fails, and no value is decoded in the wrong encoding.
    encoding = charset.encoding
    is_same = f"pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) '{encoding}'"
    other = f"'the database is not in {encoding} any more'"
    checked = f"CASE WHEN {is_same} THEN '{encoding}' ELSE {other} END"
    return f"{_FORMATS}, pg_catalog.set_config('client_encoding', {checked}, true)"


_NOT_WINDOWS = " AND pg_catalog.version() OPERATOR(pg_catalog.!~*) '(mingw|visual c)'"
_FORMATS = ", ".join(
    [
        # The checked statement must be the one that runs: the end of a string depends on this setting.
        set_config("standard_conforming_strings", "on"),
        # 0 is exact; otherwise a search in a GIN index returns a random part of the rows.
        set_config("gin_fuzzy_search_limit", 0),
        # The documented meaning of `x = NULL`, of NULL in the text of an array, and of well-formed XML.
        set_config("transform_null_equals", "off"),
        set_config("array_nulls", "on"),
        set_config("xmloption", "content"),
        # All digits of floats, whatever the role, the database or the server sets.
        set_config("extra_float_digits", 1),
        # The same text of attributes on every server. The order of day and month, TimeZone and lc_monetary
        # also change the meaning of SQL, so they keep the operator's setting.
        set_config("DateStyle", "ISO"),
        set_config("IntervalStyle", "postgres"),
        set_config("bytea_output", "hex"),
        set_config("xmlbinary", "base64"),
        set_config("quote_all_identifiers", "off"),
    ]
)


def commonest_timeout(queries: Iterable[QueryDefinition]) -> float | None:
    """Return the most frequent timeout of `queries`, in seconds; None without queries."""
    counted = Counter(query.timeout for query in queries).most_common(1)
    return counted[0][0] if counted else None


def _set_timeout(seconds: float) -> str:
    return f"SET LOCAL statement_timeout = {_ms(seconds)}"


def _ms(seconds: float) -> int:
    # The server reads 0 as "no timeout".
    return max(1, round(seconds * 1000))
