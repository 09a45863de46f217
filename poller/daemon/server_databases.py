"""Databases of one server: those of its last list, and those that are missing from it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from poller.daemon.target_poller import TargetPoller
from poller.model.target import Databases


class MissingDatabase(NamedTuple):
    """A database that is missing from the list of its server; its values are exported until their max_age."""

    poller: TargetPoller
    oid: int
    since: float
    """Monotonic seconds."""


class ServerDatabases:
    """The databases of one server, by its last list."""

    def __init__(self, polled: Mapping[str, int]) -> None:
        """`polled` has OIDs by name."""
        self.polled = dict(polled)
        self.missing: dict[str, MissingDatabase] = {}
        """By name, the oldest first."""

    def gone(self, listed: Collection[str]) -> list[str]:
        """Return the polled databases that are not in `listed`."""
        return [name for name in self.polled if name not in listed]

    def new(self, listed: Mapping[str, int]) -> list[str]:
        """Return the databases of `listed` that are not polled yet; another OID is another database."""
        return [name for name, oid in listed.items() if self.polled.get(name) != oid]

    def take_expired(self, databases: Databases, now: float) -> Iterator[MissingDatabase]:
        """Remove and yield the databases that are missing for too long, and the oldest above the limit."""
        for name, missing in list(self.missing.items()):
            if now - missing.since >= databases.forget or len(self.missing) > databases.limit:
                yield self.missing.pop(name)
