"""Transaction statements for queries: read-only, with timeouts, without lasting effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from poller.model.query import QueryDefinition
from poller.postgres.charset import UTF8, Charset
from poller.postgres.pipeline import Statement
from poller.postgres.server_facts import SERVER
from poller.postgres.sql_text import literal
from poller.postgres.sqlcomment import Tags, commented, untagged

OPENING_TIMEOUT = 10.0
"""Seconds that each of our own looks at the server's catalogue may take."""
PATIENCE_SECONDS = 5.0
"""How much longer than the server's own timeout we wait before taking the server for dead."""
LONGEST_SNAPSHOT = 150.0
"""Seconds. A snapshot that lives long keeps rows from vacuum (hot_standby_feedback) or is in replay's way."""
_ROLLBACK = "ROLLBACK TO SAVEPOINT tick"
_LAST_WORD_SECONDS = 0.5
_OTHER_SERVER = "the pooler leads to another server than the one that was looked at"
_IDLE_TIMEOUT = 10.0
_CONNECTION_CHECK = 2.0


@dataclass(frozen=True, slots=True)
class Guards:
    """What bounds every transaction; all in seconds.

    Everything is set by SET LOCAL or its function form and so ends with the transaction: a pooler may hand
    the session to somebody else (PostgreSQL manual, "Client Connection Defaults").
    """

    lock_timeout: float
    budget: float
    """Longest life of the transaction that queries share."""
    tags: Tags = untagged
    """What a comment on its SQL says of each query."""
    timeout: float | None = None
    """The statement_timeout that holds behind the savepoint: a query that has this one needs not set it."""
    charset: Charset = UTF8
    """What the pipeline encodes the statements in, once the bounds are set."""
    server: str | None = None
    """The server process (`gates.SERVER`) that a later transaction must be on; None: any."""

    def opening(self, looks: Sequence[str]) -> list[Statement]:
        """Begin the shared transaction, take the looks it starts with, and set the savepoint `tick`.

        The first look must succeed. The others stand behind the savepoint, so that an error costs nothing.
        """
        first, *others = looks
        # The role's own limits may be so tight that they would end what sets ours.
        begin = _look(
            f"SET LOCAL idle_in_transaction_session_timeout = {_ms(_IDLE_TIMEOUT)}",
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            _set_timeout(OPENING_TIMEOUT),
        )
        bounds = self._bounds(OPENING_TIMEOUT, self.budget + PATIENCE_SECONDS)
        common = [] if self.timeout is None else [_set_timeout(self.timeout)]
        savepoint = _look("SAVEPOINT tick", *common)
        return [begin, _look(bounds), _look(first), savepoint, *map(self.look, others)]

    def look(self, sql: str) -> Statement:
        """One more look of ours, in the shared transaction."""
        return _look(sql, _ROLLBACK, _set_timeout(OPENING_TIMEOUT))

    def shared(self, query: QueryDefinition, sql: str) -> tuple[Statement]:
        """`sql` for `query`, in the shared transaction.

        The rollback before it undoes what the query before left, be it an error; and where the transaction
        is gone, the rollback fails and the query is not run, rather than run without its guards.
        """
        timeout = () if query.timeout == self.timeout else (_set_timeout(query.timeout),)
        return (_query(query, self.tagged(query, sql), _ROLLBACK, *timeout),)

    def alone(self, query: QueryDefinition, sql: str) -> tuple[Statement, Statement]:
        """`sql` for `query` in a short transaction of its own, and that transaction's end."""
        bounds = self._bounds(query.timeout, query.timeout + PATIENCE_SECONDS)
        if self.server is not None:
            # A pooler may lead to another server than the one that was judged; the statement fails then.
            is_same = f"{SERVER} OPERATOR(pg_catalog.=) {literal(self.server)}"
            checked = f"CASE WHEN {is_same} THEN '{_ms(self.lock_timeout)}' ELSE '{_OTHER_SERVER}' END"
            bounds += f", pg_catalog.set_config('lock_timeout', {checked}, true)"
        begin = "BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY"
        return _query(query, self.tagged(query, sql), begin, bounds), rollback()

    def tagged(self, query: QueryDefinition, sql: str) -> str:
        """`sql` with the comment that says that it runs for `query`."""
        return commented(sql, self.tags(query.name))

    def _bounds(self, statement_timeout: float, transaction_timeout: float) -> str:
        """client_connection_check_interval (14 and later, not on Windows) ends a query whose poller has died.

        transaction_timeout (17 and later) does the same for what is left of a burst when the network is gone.
        """
        fixed = {
            "statement_timeout": statement_timeout,
            "lock_timeout": self.lock_timeout,
            "idle_in_transaction_session_timeout": _IDLE_TIMEOUT,
        }
        calls = [_set_config(name, _ms(value)) for name, value in fixed.items()]
        for name, seconds, also in (
            ("transaction_timeout", transaction_timeout, ""),
            ("client_connection_check_interval", _CONNECTION_CHECK, _NOT_WINDOWS),
        ):
            exists = f"pg_catalog.current_setting('{name}', true) IS NOT NULL"
            calls.append(f"CASE WHEN {exists}{also} THEN {_set_config(name, _ms(seconds))} END")
        return f"SELECT {', '.join(calls)}, {_formats(self.charset)}"


def formats_query(charset: Charset) -> str:
    """The statement that pins, for the transaction, how the server reads SQL and writes values."""
    return f"SELECT {_formats(charset)}"


def _formats(charset: Charset) -> str:
    if charset == UTF8:  # as the session's own
        return _FORMATS
    # A pooler may lead to another database than the one that the session was told of. No encoding has this
    # name, so the statement fails, and nothing is read in an encoding that it is not written in.
    encoding = charset.encoding
    is_same = f"pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) '{encoding}'"
    other = f"'the database is not in {encoding} any more'"
    checked = f"CASE WHEN {is_same} THEN '{encoding}' ELSE {other} END"
    return f"{_FORMATS}, pg_catalog.set_config('client_encoding', {checked}, true)"


def _set_config(name: str, value: object) -> str:
    return f"pg_catalog.set_config('{name}', '{value}', true)"


_NOT_WINDOWS = " AND pg_catalog.version() OPERATOR(pg_catalog.!~*) '(mingw|visual c)'"
_FORMATS = ", ".join(
    [
        # The statement that was checked is the one that runs: where a text ends depends on this.
        _set_config("standard_conforming_strings", "on"),
        # 0 is exact; otherwise the result of a search in a GIN index is a random part of the rows.
        _set_config("gin_fuzzy_search_limit", 0),
        # Floats with all their digits, whatever the role, the database or the server sets.
        _set_config("extra_float_digits", 1),
        # Attributes with the same text on every server. The order of day and month, TimeZone and lc_monetary
        # also change what SQL means, so they stay as the operator has set them.
        _set_config("DateStyle", "ISO"),
        _set_config("IntervalStyle", "postgres"),
        _set_config("bytea_output", "hex"),
        _set_config("xmlbinary", "base64"),
        _set_config("quote_all_identifiers", "off"),
    ]
)


def commonest_timeout(queries: Iterable[QueryDefinition]) -> float | None:
    """The timeout that most of `queries` have, in seconds."""
    counted = Counter(query.timeout for query in queries).most_common(1)
    return counted[0][0] if counted else None


def budget(queries: Iterable[QueryDefinition]) -> float:
    """Longest life, in seconds, of the transaction that `queries` share.

    Half of the shortest interval, so that no snapshot is held all the time, and LONGEST_SNAPSHOT at most; but
    always more than the longest of their timeouts: one query must be able to use its own, and the server to
    say that it did.
    """
    queries = tuple(queries)
    half = min((query.interval for query in queries), default=0.0) / 2
    return max([min(half, LONGEST_SNAPSHOT), *(query.timeout + _LAST_WORD_SECONDS for query in queries)])


def rollback() -> Statement:
    """End a transaction, whatever state it is in, and undo what it left.

    A READ ONLY one, too, may set parameters for the whole session and notify listeners, and COMMIT would let
    both out.
    """
    return Statement("ROLLBACK", PATIENCE_SECONDS)


def _query(query: QueryDefinition, sql: str, *after: str) -> Statement:
    return Statement(sql, query.timeout + PATIENCE_SECONDS, query.limit, query.timeout, after)


def _look(sql: str, *after: str) -> Statement:
    return Statement(sql, OPENING_TIMEOUT + PATIENCE_SECONDS, timeout=OPENING_TIMEOUT, after=after)


def _set_timeout(seconds: float) -> str:
    return f"SET LOCAL statement_timeout = {_ms(seconds)}"


def _ms(seconds: float) -> int:
    # 0 would mean "no timeout" to the server.
    return max(1, round(seconds * 1000))
