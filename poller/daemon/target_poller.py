"""Poller of one target: its poll cycle, its ticks and the use of its connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from poller.daemon.cron_trigger import is_missed
from poller.daemon.poll_cycle import PollCycle
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.target import Target
from poller.model.tick import Tick, ticks
from poller.postgres.conninfo import server_of_target
from poller.telemetry.logging import about

if TYPE_CHECKING:
    from poller.postgres.server_tracker import ServerInfo


class AnswerListener:
    """Listener that calls the function of the tick in progress when the server has answered."""

    def __init__(self) -> None:
        self.on_server: Callable[[], None] = lambda: None

    def note_server(self, _: ServerInfo) -> None:
        """Report that the server has answered."""
        self.on_server()


class TargetPoller:
    """One target with everything that belongs to it alone, so that its defects concern no other target."""

    def __init__(
        self,
        target: Target,
        queries: Sequence[QueryDefinition],
        cycle: PollCycle,
        instance: str,
        listener: AnswerListener,
    ) -> None:
        """Prepare the polls of `queries` on `target`; `instance` spreads the offsets of the ticks.

        The source of `cycle` reports its server to `listener`.
        """
        self.target = target
        self.cycle = cycle
        self.queries = tuple(queries)
        self._instance = instance
        self._listener = listener
        self._in_use = threading.Lock()
        self._retired = False

    @property
    def name(self) -> str:
        """Name of the target; empty if it is the only one."""
        return self.target.name

    @property
    def connections(self) -> int:
        """Maximum number of connections to its server at the same time."""
        return self.target.connections

    @property
    def ticks(self) -> list[Tick]:
        """The ticks of the target's queries."""
        return ticks(self.queries, self._instance)

    @property
    def fresh(self) -> set[str]:
        """Names of the queries that a new poller runs at once: those with an interval or a missed run."""
        ends = {item.query.name: item.last_success for item in self.cycle.store.freshness(time.monotonic())}
        now = time.time()
        return {
            query.name
            for query in self.queries
            if query.schedule is None or is_missed(query.schedule, ends.get(query.name), now)
        }

    def server(self) -> str:
        """Return the hosts and ports of the target; its own name if they are unknown."""
        return server_of_target(self.target) or f"target {self.name}"

    def run(self, queries: Sequence[QueryDefinition], on_server: Callable[[], None]) -> Sequence[PollResult]:
        """Poll the queries of one tick; call `on_server` when the server has answered."""
        self._listener.on_server = on_server
        try:
            with self._in_use, about(self.name):
                return self._poll(queries)
        finally:
            if self._retired:
                self.retire()

    def _poll(self, queries: Sequence[QueryDefinition]) -> Sequence[PollResult]:
        return self.cycle.run(queries)

    def fail(self, queries: Sequence[QueryDefinition], error: PollError) -> None:
        """Record that `queries` failed without a try."""
        with about(self.name):
            self.cycle.fail(queries, error)

    def overran(self, tick: str) -> None:
        """Count one tick that was skipped."""
        self.cycle.overran(tick)

    def retire(self) -> None:
        """Close the connection, now or at the end of the tick in progress."""
        self._retired = True
        if self._in_use.acquire(blocking=False):
            self.cycle.source.close()
            self._in_use.release()

    def rest(self, seconds: float) -> None:
        """Release what only polls need, because the next one is due in `seconds`; not during a poll."""
        if self._in_use.acquire(blocking=False):
            try:
                self.cycle.source.rest(seconds)
            finally:
                self._in_use.release()

    def swap(self, queries: Sequence[QueryDefinition], dropped: Collection[str]) -> None:
        """Replace the queries, and discard all data of those in `dropped`."""
        self.queries = tuple(queries)
        self.cycle.swap(self.queries, dropped)
