"""Read replica: the queries of one tick, retried after a recovery conflict."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from poller.model.query import QueryDefinition
from poller.model.result import Answer
from poller.postgres.admission import Admission
from poller.postgres.batch import Attempts
from poller.postgres.cancellation import Waker
from poller.postgres.connection import Session
from poller.postgres.pipeline import MAX_RESULT_BYTES
from poller.postgres.server_tracker import Sighting
from poller.postgres.sqlcomment import Tags, untagged
from poller.postgres.transaction import budget

logger = logging.getLogger(__name__)

KEEP_CONNECTION_SECONDS = 60.0
"""A connection is kept between two ticks at most this far apart, else closed after the tick.

Reopening costs some 4 ms a tick and buys what an idle connection cannot have: a changed password, a new
address after a failover, and no socket that a firewall has forgotten.
"""

TRIES_TOGETHER = 3
"""How often a tick is tried in one snapshot before its queries are tried one by one."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0


class Replica:
    """One PostgreSQL server (or the fit one of several), asked by one tick at a time.

    Reading only is enforced in layers: the extended protocol takes one statement a time,
    `default_transaction_read_only` is set for the session, every tick is a READ ONLY transaction, and every
    statement has a statement_timeout and a lock_timeout on the server (PostgreSQL manual, "Client Connection
    Defaults"). None of that stops a function with side effects outside the database: privileges do.
    """

    def __init__(
        self,
        conninfo: Callable[[], str],
        *,
        connect_timeout: float,
        lock_timeout: float,
        password: Callable[[], str] | None = None,
        admission: Admission | None = None,
        on_sighting: Callable[[Sighting], None] = lambda _: None,
        tags: Tags = untagged,
        application_name: str = "obscura-poller",
        max_result_bytes: int = MAX_RESULT_BYTES,
    ) -> None:
        """Remember how to connect; nothing is opened before the first tick.

        `conninfo` and `password` are called at every connect, so that a password may change under way.
        Without `admission` everything whose requirements hold is sent. `on_sighting` hears of the server
        that answers, once a tick. `tags` says what a comment on a query's SQL tells. Times in seconds. A
        result of more than `max_result_bytes` is cancelled.
        """
        self._waker = Waker()
        self._session = Session(
            conninfo,
            self._waker,
            connect_timeout=connect_timeout,
            password=password,
            application_name=application_name,
        )
        self._attempts = Attempts(
            self._session,
            self._waker,
            admission or Admission("false"),
            lock_timeout,
            on_sighting,
            tags,
            max_result_bytes,
        )

    def ask(
        self, queries: Sequence[QueryDefinition], on_answer: Callable[[str], None] = lambda _: None
    ) -> list[Answer]:
        """Run `queries` in one REPEATABLE READ, READ ONLY transaction; return an answer for each, in order.

        Two round trips, whatever the number of queries: one opens the transaction and takes the looks that
        admission needs, one carries every query behind its own timeout and a rollback to a savepoint, so that
        an error costs no other query its result. Queries with `snapshot: false` follow in a round trip of
        their own, each in a transaction of its own; estimates cost one or two more where there are any.

        A snapshot that has lived for its budget is let go, and what is left is asked in a new one. A standby
        that cancels queries for its recovery is asked again: what shares the snapshot twice, all in a new
        one, then what is still cancelled once more, one by one. No try begins after half of the shortest
        interval, and whatever has not been answered at its end is cancelled.
        `on_answer` hears the name of each query as it is answered. Raises nothing: a failure is an answer.
        """
        started = time.monotonic()
        shortest = min((query.interval for query in queries), default=0.0)
        ends = started + max([shortest, budget(queries)])
        pause = _FIRST_PAUSE
        answers: dict[str, Answer] = {}
        asked = list(queries)
        attempt = 1
        while True:
            tried = self._attempts.one(asked, on_answer, ends, together=attempt <= TRIES_TOGETHER)
            if not any(map(_good, tried.values())):
                # It has nothing that an earlier answer would have to share a snapshot with.
                tried = {name: answer for name, answer in tried.items() if not _good(answers.get(name))}
            answers |= tried
            unreached = [query for query in asked if _unreached(answers[query.name])]
            if unreached and time.monotonic() < started + shortest / 2:
                asked = unreached  # in a snapshot of their own, as that of the others has lived long enough
                continue
            cancelled = [query for query in queries if _conflicts(answers[query.name])]
            late = time.monotonic() + pause > started + shortest / 2
            if not cancelled or attempt > TRIES_TOGETHER or late or self._waker.pause(pause):
                break
            pause = min(2 * pause, _LONGEST_PAUSE)
            logger.debug("recovery conflict, trying again", extra={"attempt": attempt})
            attempt += 1
            asked = cancelled
            if attempt <= TRIES_TOGETHER and any(query.snapshot for query in cancelled):
                # What shares a snapshot is asked together again; only the last try, one by one, fills gaps.
                again = {query.name for query in cancelled}
                asked = [query for query in queries if query.snapshot or query.name in again]
        for answer in answers.values():
            if answer.error is not None:
                # As a value it needs no way that it came: that holds every object on it, and itself.
                answer.error.__traceback__ = None
        return [answers[query.name] for query in queries]

    def rest(self, seconds: float) -> None:
        """Close the connection unless the next tick is due within KEEP_CONNECTION_SECONDS."""
        if seconds > KEEP_CONNECTION_SECONDS:
            self._session.hang_up()

    def interrupt(self) -> None:
        """End the tick under way from another thread; whatever runs on the server is cancelled there."""
        self._waker.raise_()

    def close(self) -> None:
        """Hang up. The replica is of no use afterwards."""
        self._session.hang_up()
        self._waker.close()


def _good(answer: Answer | None) -> bool:
    return answer is not None and answer.rows is not None


def _unreached(answer: Answer) -> bool:
    return answer.skipped is not None and answer.skipped.reason == "budget"


def _conflicts(answer: Answer) -> bool:
    return answer.error is not None and answer.error.kind == "conflict"
