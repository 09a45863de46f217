"""Ticks: groups of queries with one schedule, or with one interval and a fixed offset in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from poller.model.duration import format_duration
from poller.model.query import QueryDefinition
from poller.model.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Tick:
    """Queries with the same group and the same interval or schedule, polled together."""

    name: str
    """`group/interval` or `group/schedule`, unique in a catalogue."""
    queries: tuple[QueryDefinition, ...]
    interval: float
    """Seconds."""
    offset: float
    """Seconds after every multiple of the interval (counted from 1970) at which the tick is due."""
    schedule: Schedule | None = None
    """Times at which the tick is due, instead of interval and offset."""

    def first_due(self, now: float) -> float:
        """Return the first regular due time after the poll at start-up; both times in seconds since 1970.

        It is at least half an interval after `now`, so that a start shortly before the regular time does not
        poll twice in a row.
        """
        earliest = now + self.interval / 2
        return earliest + (self.offset - earliest) % self.interval


def tick_name(query: QueryDefinition) -> str:
    """Return the name of the tick that polls `query`: its group, and its schedule or interval."""
    return f"{query.group}/{query.schedule or format_duration(query.interval)}"


def ticks(queries: Iterable[QueryDefinition], instance: str) -> list[Tick]:
    """Group `queries` into ticks, in the order of their first query.

    The offset comes from a hash of instance and tick. Therefore many pollers of one replica spread over the
    interval, and each keeps its offset after a restart. A schedule has no offset.
    """
    groups: dict[str, list[QueryDefinition]] = {}
    for query in queries:
        # By name, because the name identifies a tick: intervals with the same text are the same.
        groups.setdefault(tick_name(query), []).append(query)
    result = []
    for name, members in groups.items():
        interval, schedule = members[0].interval, members[0].schedule
        offset = _fraction(instance, name) * interval if schedule is None else 0.0
        result.append(Tick(name, tuple(members), interval, offset, schedule))
    return result


def _fraction(instance: str, tick: str) -> float:
    """Return a number in [0, 1) that looks random and never changes; Python's own hash() changes."""
    digest = hashlib.blake2b(f"{instance}\0{tick}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48
