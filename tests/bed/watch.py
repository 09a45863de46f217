"""Watch on the poller's sessions, by queries on the servers every few milliseconds."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

NAME = "obscura-poller"
_PAUSE_SECONDS = 0.004
_ACTIVITY = """\
SELECT pid, coalesce(state, ''), query, extract(epoch FROM clock_timestamp() - xact_start)::float8
FROM pg_stat_activity WHERE application_name = %s AND backend_type = 'client backend'"""


@dataclass(frozen=True, slots=True)
class Backend:
    """One connection of the poller, as the server sees it."""

    pid: int
    state: str
    query: str
    transaction_age: float | None
    """Seconds; None outside a transaction."""


class Watch(contextlib.AbstractContextManager["Watch"]):
    """Reads pg_stat_activity of every server on separate connections, and stores the maxima.

    A server may stop and return; while it is stopped, the poller has no session there. The short connection
    of a cancel request has no application name, and is not counted.
    """

    def __init__(self, *servers: str, name: str = NAME) -> None:
        """Begin to watch `servers`, DSNs of a superuser, for the application `name`."""
        self._name = name
        self._lock = threading.Lock()
        self._now: dict[str, tuple[Backend, ...]] = dict.fromkeys(servers, ())
        self._ended = threading.Event()
        self.checks = 0
        self.reset()
        self._threads = [
            threading.Thread(target=self._keep_watching, args=[server], name="watch", daemon=True)
            for server in servers
        ]
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self) -> None:
        """Discard all observations so far."""
        with self._lock:
            self.most = 0
            """Greatest number of connections at once, over all servers."""
            self.oldest = 0.0
            """Age of the oldest transaction, in seconds."""
            self.seen: set[tuple[str, str]] = set()
            """Every state and query."""

    def now(self) -> list[Backend]:
        """Return the connections of the last observation."""
        with self._lock:
            return [backend for backends in self._now.values() for backend in backends]

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _keep_watching(self, server: str) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(psycopg.Error):
                for backends in self._observe(server):
                    self._take(server, backends)
            self._take(server, ())
            self._ended.wait(0.02)

    def _observe(self, server: str) -> Iterator[tuple[Backend, ...]]:
        with psycopg.connect(
            server, autocommit=True, connect_timeout=2, application_name="watch"
        ) as connection:
            while not self._ended.wait(_PAUSE_SECONDS):
                rows = connection.execute(_ACTIVITY, (self._name,)).fetchall()
                yield tuple(Backend(*row) for row in rows)

    def _take(self, server: str, backends: tuple[Backend, ...]) -> None:
        with self._lock:
            # A backend outlives its client's connection by a moment: a backend counts from the second look
            # on.
            before = {backend.pid for backend in self._now[server]}
            stay = sum(backend.pid in before for backend in backends)
            others = sum(len(of_server) for name, of_server in self._now.items() if name != server)
            self._now[server] = backends
            self.checks += 1
            self.most = max(self.most, stay + others)
            for backend in backends:
                self.oldest = max(self.oldest, backend.transaction_age or 0.0)
                self.seen.add((backend.state, backend.query))
