"""Status of one target at one moment, for `poller watch`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from poller.polling.status import QueryStatus, from_json, is_number, to_json

MAX_DETAIL_BYTES = 1 << 20
"""Approximate maximum size in bytes of the details of the queries of one target."""


class TargetStatus(NamedTuple):
    """Status of one target and its queries."""

    name: str
    up: bool | None
    """Whether the last poll reached the database; None before the first poll."""
    last_success: float | None
    """Seconds since 1970, UTC, of the last successful poll of any query."""
    lag: float | None
    """Replay lag in seconds at the last poll; None if it is unknown, on a primary, and if it is down."""
    server: str
    """The polled server in one line, or the last one if it is down; empty if it is unknown."""
    statuses: Sequence[QueryStatus]
    states: Mapping[str, int]
    """Number of queries in each state."""
    omitted: int = 0
    """Number of queries that are not in `statuses`."""

    @property
    def rank(self) -> int:
        """Order by urgency: 0 unreachable, 1 with failed queries, 2 not polled or stale, 3 no problem."""
        if self.up is False:
            return 0
        if self.states.get("failed"):
            return 1
        return 2 if self.up is None or self.states.get("stale") else 3


def encode_target(status: TargetStatus, most: int = MAX_DETAIL_BYTES) -> bytes:
    """Encode a target as a JSON object; above about `most` bytes, queries in state `ok` are omitted first."""
    head = {
        "name": status.name,
        "up": status.up,
        "last_success": status.last_success,
        "lag": status.lag,
        "server": status.server,
    }
    if not status.statuses:
        return json.dumps(
            {**head, "states": status.states, "omitted": status.omitted, "glances": []}
        ).encode()
    return json.dumps(head).encode()[:-1] + b", " + encode(status.statuses, most)[1:]


def target_from_json(document: Any) -> TargetStatus:
    """Read the output of `encode_target`; raises ValueError for anything else."""
    document = document if isinstance(document, dict) else {}
    name, up, server = document.get("name"), document.get("up"), document.get("server")
    last_success, lag = document.get("last_success"), document.get("lag")
    states, omitted = document.get("states"), document.get("omitted")
    if (
        not isinstance(name, str)
        or not isinstance(server, str)
        or not (up is None or isinstance(up, bool))
        or not all(number is None or is_number(number) for number in (last_success, lag))
        or not isinstance(states, dict)
        or not all(is_number(count) for count in [omitted, *states.values()])
    ):
        raise ValueError("is not a list of targets")
    statuses = from_json(document.get("glances"))
    counts = {str(state): int(count) for state, count in states.items()}
    return TargetStatus(name, up, last_success, lag, server, statuses, counts, int(omitted or 0))


def encode(statuses: Sequence[QueryStatus], most: int = MAX_DETAIL_BYTES) -> bytes:
    """Encode all queries as a JSON object of bounded size: the number in each state, and each query.

    Above about `most` bytes, queries in state `ok` are omitted first; the object has the number omitted.
    """
    texts = [json.dumps(item) for item in to_json(statuses)]
    room, listed = most, set()
    for number in sorted(range(len(texts)), key=lambda number: statuses[number].state == "ok"):
        size = len(texts[number]) + len(statuses[number].query)
        if size <= room:
            room -= size
            listed.add(number)
    head = {
        "states": Counter(item.state_name for item in statuses),
        "omitted": len(texts) - len(listed),
        "queries": {item.query: item.state for number, item in enumerate(statuses) if number in listed},
    }
    details = ", ".join(text for number, text in enumerate(texts) if number in listed)
    # Scripts of users may read this file, so the key stays.
    return f'{json.dumps(head)[:-1]}, "glances": [{details}]}}'.encode()
