"""Poller of a server that also reads which databases the server has."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from poller.daemon.target_poller import AnswerListener, TargetPoller
from poller.model.result import PollResult
from poller.model.tick import Tick, ticks
from poller.polling.poll import to_result
from poller.postgres.database_list import DatabaseList, list_query, read_list
from poller.telemetry.logging import about

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter

    from poller.daemon.poll_cycle import PollCycle
    from poller.model.errors import PollError
    from poller.model.query import QueryDefinition
    from poller.model.rows import Rows
    from poller.model.target import Databases, Target
    from poller.telemetry.status_metrics import DiscoveryMetrics

logger = logging.getLogger(__name__)


class DatabasePollers(Protocol):
    """The pollers of the databases of servers."""

    def apply_list(self, server: DiscoveryPoller, databases: DatabaseList, /) -> int:
        """Poll only the selected databases of the server's list; return the number of missing ones."""


class DiscoveryPoller(TargetPoller):
    """The poller of a server: it runs `once_per_server` queries and reads the list of databases.

    The list is read in a tick of its own, so that the scheduler treats it as every other tick.
    """

    def __init__(
        self,
        target: Target,
        databases: Databases,
        queries: Sequence[QueryDefinition],
        cycle: PollCycle,
        instance: str,
        listener: AnswerListener,
        pollers: DatabasePollers | None,
        discoveries: Counter,
        metrics: DiscoveryMetrics,
    ) -> None:
        """Prepare; `pollers` get each list, `discoveries` counts the reads, `metrics` are of the last one."""
        super().__init__(target, queries, cycle, instance, listener)
        self._pollers = pollers
        self._metrics = metrics
        self._list = list_query(databases.refresh)
        self._databases = databases
        self._discoveries = discoveries
        self._failed = False
        self._over_limit = 0
        self._none_logged = False

    @property
    def ticks(self) -> list[Tick]:
        """The ticks of the target's queries, and the one that reads the list."""
        return ticks((*self.queries, self._list), self._instance)

    @property
    def fresh(self) -> set[str]:
        """Names of the queries that a new poller runs at once."""
        return super().fresh | {self._list.name}

    def fail(self, queries: Sequence[QueryDefinition], error: PollError) -> None:
        """Record that `queries` failed without a try."""
        if self._list not in queries:
            super().fail(queries, error)
        else:
            with about(self.name):
                self.cycle.note(PollResult(self._list, time.time(), 0.0, "failed", error=error))
                self._fail(str(error))

    def _poll(self, queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
        if self._list not in queries:
            return super()._poll(queries)
        (answer,) = self.cycle.source.fetch(queries, lambda _: None)
        result = to_result(answer)
        self.cycle.note(result)
        if answer.rows is not None:
            self._read(answer.rows)
        elif answer.error is None or answer.error.kind != "cancelled":
            self._fail(str(answer.error or answer.skipped))
        return [result]

    def _read(self, rows: Rows) -> None:
        """Poll the databases of the list `rows`."""
        listed = read_list(rows, self._databases)
        counts = listed.counts
        if not listed.polled and not self._none_logged:
            logger.warning(
                "no database of the server is polled: check include and exclude of `databases`",
                extra={"excluded": counts["excluded"], "no_privilege": counts["no_privilege"]},
            )
        self._none_logged = not listed.polled
        missing = self._pollers.apply_list(self, listed) if self._pollers is not None else 0
        self._log_over_limit(counts["over_limit"])
        self._metrics.last_success = time.time()
        self._metrics.counts = {**counts, "missing": missing}
        self._discoveries.add(1, {"poller.outcome": "ok"})
        if self._failed:
            self._failed = False
            logger.info("the list of databases was read again")

    def _fail(self, reason: str) -> None:
        self._discoveries.add(1, {"poller.outcome": "failed"})
        if not self._failed:
            self._failed = True
            logger.warning(
                "the list of databases cannot be read, the known databases are still polled: %s", reason
            )

    def _log_over_limit(self, number: int) -> None:
        if number and not self._over_limit:
            logger.warning(
                "%s above the limit of %d not polled; raise `databases.limit`, or exclude some",
                "1 database is" if number == 1 else f"{number} databases are",
                self._databases.limit,
            )
        self._over_limit = number
