"""A target of a scheduler whose polls are a function of the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from poller.daemon.scheduler import PollScheduler
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.tick import Tick

Poll = Callable[[Sequence[QueryDefinition]], Sequence[PollResult]]


class FunctionTarget:
    """A target on a server of any name; it records what the scheduler does with it."""

    def __init__(self, poll: Poll, name: str = "", server: str = "server", connections: int = 1) -> None:
        self.name = name
        self.connections = connections
        self.on = server
        self.poll = poll
        self.failed: list[tuple[str, ...]] = []
        self.overruns: list[str] = []
        self.rested: list[float] = []

    def server(self) -> str:
        return self.on

    def run(self, queries: Sequence[QueryDefinition], on_server: Callable[[], None]) -> Sequence[PollResult]:
        results = self.poll(queries)
        if not any(result.error_type == "unavailable" for result in results):
            on_server()
        return results

    def fail(self, queries: Sequence[QueryDefinition], error: PollError) -> None:
        del error
        self.failed.append(tuple(query.name for query in queries))

    def overran(self, tick: str) -> None:
        self.overruns.append(tick)

    def rest(self, seconds: float) -> None:
        self.rested.append(seconds)

    def put_in(self, scheduler: PollScheduler, *ticks: Tick) -> None:
        """Schedule `ticks`, and poll all their queries at once."""
        scheduler.replace(self, ticks, {query.name for tick in ticks for query in tick.queries})
