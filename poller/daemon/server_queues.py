"""Queues of targets with due ticks, one per server: first in, first out, with cap and quarantine."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from poller.model.errors import PollError
from poller.model.result import PollResult
from poller.model.retry import RETRY, RetryConfig

TurnOutcome = Literal["none", "reached", "refused", "unavailable", "full"]
"""How the turn of a target ended.

none         nothing was sent to the server, or not by this target any more
reached      the server answered
refused      the server refused this target: its database, role or password
unavailable  the server did not answer
full         the server has no connection left (SQLSTATE 53300)
"""


def outcome_of(results: Sequence[PollResult]) -> tuple[TurnOutcome, PollError | None]:
    """Return how the server answered, and the error if no query was sent to it.

    If a query was sent, the tick is not tried again before its time: a query that kills its backend must not
    run every second.
    """
    errors = (result.error for result in results if result.error and result.error.kind == "unavailable")
    error = next((error for error in errors if error.unsent), None)
    if error is None:
        return "reached", None
    if not error.server_wide:
        return "refused", error
    return ("full" if error.sqlstate == "53300" else "unavailable"), error


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """Limits of all queues together; durations in seconds."""

    workers: int = 1
    """Maximum number of turns at the same time."""
    unanswered_after: float = 0.5
    """Time after which a turn without an answer of its server does not count among `workers`."""
    most_unanswered: int = 32
    """Maximum number of turns in addition to `workers`."""
    retry: RetryConfig = RETRY
    """Pauses between two tries of an unavailable server."""
    full_for: float = 600.0
    """Time for which a server that had no connection left gets half as many; each time, half again."""


@dataclass(slots=True)
class _Server:
    connections: dict[str, int] = field(default_factory=dict)
    """Declared maximum number of connections, by target; the smallest holds."""
    most: int = 1
    reduced: int = 0
    """Number of connections until `reduced_until`, because the server had none left."""
    reduced_until: float = 0.0
    retry_at: float | None = None
    """Time of the next try; set while the server is in quarantine."""
    error: PollError | None = None
    """Why the server is in quarantine."""
    since: float = 0.0
    """When its quarantine began."""
    failures: int = 0
    running: int = 0
    waiting: deque[str] = field(default_factory=deque)

    def has_room(self, now: float) -> bool:
        if self.retry_at is not None:
            return self.running == 0 and now >= self.retry_at
        return self.running < self.cap(now)

    def cap(self, now: float) -> int:
        return self.reduced if now < self.reduced_until else self.most

    def declare(self, target: str, connections: int | None) -> None:
        """Note the maximum number of connections of a target; None: it is gone."""
        if connections != self.connections.get(target):
            if connections is None:
                del self.connections[target]
            else:
                self.connections[target] = connections
            self.most = min(self.connections.values(), default=1)

    @property
    def unused(self) -> bool:
        return not (self.waiting or self.running or self.connections)


@dataclass(slots=True)
class _Turn:
    server: str
    started: float
    answered: bool = False


class _Wait(NamedTuple):
    server: str
    since: float


class Finished(NamedTuple):
    """The end of a turn."""

    server: str
    """Server on which the target had its turn."""
    retry_at: float | None
    """When the server is tried again; None unless it is in quarantine."""
    quarantine_began: bool
    """Whether the quarantine of the server begins with this turn."""
    quarantine_lasted: float | None
    """Seconds of the quarantine that this turn ends; None if it ends none."""


class Waiting(NamedTuple):
    """Targets that wait for a connection at one moment."""

    targets: int
    delay: float
    """Seconds that the first of them has waited; 0 if none waits."""


class ServerQueues:
    """Decides which target runs its due ticks next. Times are in monotonic seconds; not thread-safe.

    The targets of one server take turns in the order in which they were offered, at most `connections` at the
    same time; the servers take turns as well. All servers together have `workers` turns at the same time, but
    a turn whose server does not answer stops counting after a moment, so that servers that hang do not delay
    the others.

    An unavailable server is in quarantine: its targets wait, and one at a time tries it after pauses that
    double. When one of them reaches the server, the others follow in their order. The work for one turn does
    not depend on the number of servers and targets.
    """

    def __init__(self, config: QueueConfig) -> None:
        self._config = config
        self._servers: dict[str, _Server] = {}
        self._order: OrderedDict[str, None] = OrderedDict()
        """Servers that may have room and a waiting target."""
        self._home: dict[str, str] = {}
        """The server of each target."""
        self._waiting: dict[str, _Wait] = {}
        """The targets that wait, each in the queue of its server."""
        self._turns: dict[str, _Turn] = {}
        """The turns in progress, by target."""

    def offer(self, target: str, server: str, connections: int, now: float) -> None:
        """Let a target wait for its turn on its server, unless it waits there or has its turn already."""
        self.place(target, server, connections)
        self._order[server] = None  # also if it waits already: no lost call of `wake` may be for ever
        if target not in self._turns and target not in self._waiting:
            self._wait(target, server, self._servers[server], now)

    def place(self, target: str, server: str, connections: int) -> bool:
        """Note the server of a target; return whether the target is new on this server.

        If targets of one server declare different numbers of `connections`, the smallest is used.
        """
        before = self._home.get(target)
        if before not in (None, server):
            self.remove(target)  # its connection string names another server by now
        self._servers.setdefault(server, _Server()).declare(target, connections)
        self._home[target] = server
        return before != server

    def others_on_server(self, target: str) -> list[str]:
        """Return the other targets on the server of a target."""
        queue = self._queue_of(target)
        return [other for other in queue.connections if other != target] if queue else []

    def is_alone(self, target: str) -> bool:
        """Return whether no other target is on the server of a target."""
        queue = self._queue_of(target)
        return queue is None or len(queue.connections) == 1

    def error(self, target: str) -> PollError | None:
        """Return why the server of a target is in quarantine; None if it is not."""
        queue = self._queue_of(target)
        return queue.error if queue else None

    def take(self, now: float) -> str | None:
        """Begin a turn: return its target; None if no turn may begin now."""
        limit = self._config.unanswered_after
        counted = sum(turn.answered or now - turn.started < limit for turn in self._turns.values())
        if counted >= self._config.workers:
            return None
        if len(self._turns) >= self._config.workers + self._config.most_unanswered:
            return None
        while self._order:
            server, _ = self._order.popitem(last=False)
            queue = self._servers.get(server)
            if queue is not None and queue.waiting and queue.has_room(now):
                target = queue.waiting.popleft()
                del self._waiting[target]
                queue.running += 1
                self._turns[target] = _Turn(server, now)
                self._order[server] = None
                return target
        return None

    def note_answer(self, target: str) -> None:
        """Count a turn until its end, because its server has answered."""
        if turn := self._turns.get(target):
            turn.answered = True

    def finish(
        self, target: str, outcome: TurnOutcome, now: float, error: PollError | None = None
    ) -> Finished:
        """End a turn; a target whose server is unavailable, because of `error`, waits for another turn."""
        server = self._turns.pop(target).server
        queue = self._servers[server]
        queue.running -= 1
        was_available, lasted = queue.retry_at is None, None
        if outcome in ("reached", "refused"):
            lasted = None if was_available else now - queue.since
            queue.retry_at, queue.error, queue.failures = None, None, 0
        elif outcome != "none":
            queue.error = error
            if was_available:
                queue.since = now
            if outcome == "full":
                queue.reduced = max(1, queue.cap(now) // 2)
                queue.reduced_until = now + self._config.full_for
            # A turn that began before the quarantine says nothing about a later try.
            if queue.retry_at is None or now >= queue.retry_at:
                queue.retry_at = now + self._config.retry.pause(queue.failures)
                queue.failures += 1
            if self._home.get(target) == server:
                self._wait(target, server, queue, now)
        self._order[server] = None
        if queue.unused:
            self._forget(server)
        return Finished(server, queue.retry_at, was_available and queue.retry_at is not None, lasted)

    def wake(self, server: str, *, early: bool = False) -> float | None:
        """Consider a server again, because its pause is over; if `early`, end the pause.

        Return when it is tried again, if it is in quarantine.
        """
        queue = self._servers.get(server)
        if queue is None:
            return None
        queue.retry_at = 0.0 if early and queue.retry_at is not None else queue.retry_at
        self._order[server] = None
        return queue.retry_at

    def retry_at(self, target: str) -> float | None:
        """Return when the server of a waiting target is tried again; None if it is not in quarantine."""
        wait = self._waiting.get(target)
        return self._servers[wait.server].retry_at if wait else None

    def waiting(self, server: str) -> list[str]:
        """Return the targets that wait for a server, in their order."""
        queue = self._servers.get(server)
        return list(queue.waiting) if queue else []

    def all_waiting(self, now: float) -> Waiting:
        """Return the number and the delay of the targets that wait, except those of unavailable servers."""
        queues = [queue for queue in self._servers.values() if queue.waiting and queue.retry_at is None]
        first = min((self._waiting[queue.waiting[0]].since for queue in queues), default=now)
        return Waiting(sum(len(queue.waiting) for queue in queues), now - first)

    def remove(self, target: str) -> None:
        """Forget a target; a turn in progress ends as usual."""
        server = self._home.pop(target, "")
        if (queue := self._servers.get(server)) is not None:
            queue.declare(target, None)
            if self._waiting.pop(target, None) is not None:
                queue.waiting.remove(target)
            self._order[server] = None  # the others may have more connections now
            if queue.unused:
                self._forget(server)

    def next_check(self, now: float) -> float | None:
        """Return when a turn without an answer stops counting, if a target may wait for that; else None."""
        limit = self._config.unanswered_after
        ends = (turn.started + limit for turn in self._turns.values() if not turn.answered)
        return min((end for end in ends if end > now), default=None) if self._waiting else None

    def _queue_of(self, target: str) -> _Server | None:
        return self._servers.get(self._home.get(target, ""))

    def _wait(self, target: str, server: str, queue: _Server, now: float) -> None:
        queue.waiting.append(target)
        self._waiting[target] = _Wait(server, now)
        self._order[server] = None

    def _forget(self, server: str) -> None:
        del self._servers[server]
        self._order.pop(server, None)
