"""Read replica: the queries of one tick, retried after a recovery conflict."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from poller.model.query import QueryDefinition
from poller.model.result import Answer
from poller.model.retry import RetryConfig
from poller.postgres.admission import Admission
from poller.postgres.batch import Batch
from poller.postgres.cancellation import CancelToken
from poller.postgres.connection import Connection
from poller.postgres.server_tracker import ServerInfo
from poller.postgres.snapshot import SnapshotOpener
from poller.postgres.sqlcomment import Tags, untagged
from poller.postgres.transaction import TransactionLimits

logger = logging.getLogger(__name__)

KEEP_CONNECTION_SECONDS = 60.0
"""A connection is kept if the next tick is due within this time; otherwise it is closed after the tick.

Reopening costs about 4 ms per tick. In return, the poller picks up a changed password or a new address after
a failover, and does not depend on a socket that a firewall has dropped.
"""

TRIES_TOGETHER = 3
"""Number of attempts in one snapshot before the queries are tried one by one."""
CONFLICT_RETRY = RetryConfig(first_pause=0.5, longest_pause=5.0)
"""Pauses between two attempts after a recovery conflict."""


class Replica:
    """One PostgreSQL server (or the matching one of several), polled by one tick at a time.

    Several layers enforce read-only access: the extended protocol accepts one statement at a time,
    `default_transaction_read_only` is set for the session, every tick is a READ ONLY transaction, and every
    statement has a statement_timeout and a lock_timeout on the server (PostgreSQL manual, "Client Connection
    Defaults"). These layers do not stop a function with side effects outside the database; privileges do.
    """

    def __init__(
        self,
        conninfo: Callable[[], str],
        *,
        connect_timeout: float,
        limits: TransactionLimits,
        password: Callable[[], str] | None = None,
        admission: Admission | None = None,
        on_server_info: Sequence[Callable[[ServerInfo], None]] = (),
        tags: Tags = untagged,
        application_name: str = "obscura-poller",
        retry: RetryConfig = CONFLICT_RETRY,
        database: str | None = None,
        cancel_token: CancelToken | None = None,
    ) -> None:
        """Store the settings without connecting; the first tick connects.

        Every connect calls `conninfo` and `password`, so that a password may change at run time. Without
        `admission`, every query whose requirements hold is sent. The functions `on_server_info` are called
        once per snapshot with the server that answers. `tags` returns the content of the comment on a
        query's SQL. `connect_timeout` is in seconds. `retry` has the pauses after a recovery conflict.
        `database` overrides the database of the connection string. Replicas that share a `cancel_token` are
        interrupted together.
        """
        self._shares_token = cancel_token is not None
        self._cancel_token = cancel_token or CancelToken()
        self.connection = Connection(
            conninfo,
            self._cancel_token,
            connect_timeout=connect_timeout,
            password=password,
            application_name=application_name,
            database=database,
        )
        self.opener = SnapshotOpener(
            self.connection,
            self._cancel_token,
            limits,
            admission or Admission("false"),
            on_server_info=self._report,
            tags=tags,
        )
        self._batch = Batch(self.opener)
        self._retry = retry
        self._on_server_info = on_server_info

    def fetch(
        self, queries: Sequence[QueryDefinition], on_answer: Callable[[str], None] = lambda _: None
    ) -> list[Answer]:
        """Run `queries` in one REPEATABLE READ, READ ONLY transaction; return an answer for each, in order.

        This takes two round trips, whatever the number of queries. The first opens the transaction and reads
        what admission needs. The second carries every query, after its own timeout and a rollback to a
        savepoint, so that an error costs no other query its result. Queries with `snapshot: false` follow in
        another round trip, each in its own transaction. Estimates and limits of cost take one or two more
        round trips.

        A snapshot that has reached its budget is closed, and the remaining queries run in a new one. If a
        standby cancels queries because of a recovery conflict, they are retried: twice together with all
        queries of the shared snapshot, in a new snapshot, and then once more one by one. No attempt begins
        after half of the shortest interval. Queries without an answer at the end of the interval are
        cancelled.
        `on_answer` is called with the name of each query when it is answered. Raises nothing: a failure is an
        answer.
        """
        started = time.monotonic()
        shortest = min((query.interval for query in queries), default=0.0)
        ends = started + max([shortest, self.opener.limits.budget(queries)])
        last_start = started + shortest / 2
        answers: dict[str, Answer] = {}
        pending: Sequence[QueryDefinition] = queries
        attempt = 1
        while True:
            together = attempt <= TRIES_TOGETHER
            self._run_in_snapshots(pending, answers, on_answer, last_start, ends, together=together)
            cancelled = [query for query in queries if _conflicts(answers[query.name])]
            if not cancelled or not self._may_retry(attempt, last_start):
                break
            logger.debug("recovery conflict; retrying", extra={"attempt": attempt})
            attempt += 1
            pending = _to_retry(cancelled, queries, together=attempt <= TRIES_TOGETHER)
        for answer in answers.values():
            if answer.error is not None:
                answer.error.hint = answer.error.hint and self.opener.admission.wording(answer.error.hint)
                # The traceback would keep every object of its frames alive, and the error itself.
                answer.error.__traceback__ = None
        return [answers[query.name] for query in queries]

    def _run_in_snapshots(
        self,
        pending: Sequence[QueryDefinition],
        answers: dict[str, Answer],
        on_answer: Callable[[str], None],
        last_start: float,
        ends: float,
        *,
        together: bool,
    ) -> None:
        """Run `pending`, in further snapshots if the budget of the first one did not reach all of them.

        Store the result in `answers`. No further snapshot begins after `last_start` (monotonic seconds).
        """
        while True:
            tried = self._batch.run(pending, on_answer, ends, together=together)
            if not any(map(_good, tried.values())):
                # This attempt gave no result, so the earlier results still share one snapshot: keep them.
                tried = {name: answer for name, answer in tried.items() if not _good(answers.get(name))}
            answers |= tried
            pending = [query for query in pending if _unreached(answers[query.name])]
            if not pending or time.monotonic() >= last_start:
                return

    def _may_retry(self, attempt: int, last_start: float) -> bool:
        """Pause after a recovery conflict; return whether another attempt may begin."""
        pause = self._retry.pause(attempt - 1)
        if attempt > TRIES_TOGETHER or time.monotonic() + pause > last_start:
            return False
        return not self._cancel_token.wait(pause)

    def rest(self, seconds: float) -> None:
        """Close the connection unless the next tick is due within KEEP_CONNECTION_SECONDS."""
        if seconds > KEEP_CONNECTION_SECONDS:
            self.connection.close()

    def interrupt(self) -> None:
        """End the current tick, from another thread, and cancel its statements on the server."""
        self._cancel_token.cancel()

    def close(self) -> None:
        """Close the connection and, if it is not shared, the cancel token; no use is possible afterwards."""
        self.connection.close()
        if not self._shares_token:
            self._cancel_token.close()

    def _report(self, server_info: ServerInfo) -> None:
        for report in self._on_server_info:
            report(server_info)


def _to_retry(
    cancelled: Sequence[QueryDefinition], queries: Sequence[QueryDefinition], *, together: bool
) -> Sequence[QueryDefinition]:
    """Return the queries of the next attempt.

    If a query of the shared snapshot was cancelled, these are all queries that share it.
    """
    if not together or not any(query.snapshot for query in cancelled):
        return cancelled
    names = {query.name for query in cancelled}
    return [query for query in queries if query.snapshot or query.name in names]


def _good(answer: Answer | None) -> bool:
    return answer is not None and answer.rows is not None


def _unreached(answer: Answer) -> bool:
    return answer.skipped is not None and answer.skipped.reason == "budget"


def _conflicts(answer: Answer) -> bool:
    return answer.error is not None and answer.error.kind == "conflict"
