"""Details of the heartbeat with POLLER_TARGETS: the status of every target, encoded only after a change."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poller.polling.target_status import TargetStatus, encode_target

if TYPE_CHECKING:
    from poller.daemon.scheduler import PollScheduler
    from poller.daemon.target_poller import TargetPoller
    from poller.daemon.target_pollers import TargetPollers

MAX_BYTES = 8 << 20
"""Maximum size in bytes of the details; targets without problems lose their queries first."""
BYTES_PER_SECOND = 256 << 10
"""Maximum average number of bytes that are written to the details file, so that many targets write seldom."""
_RECHECK_SECONDS = 60.0
"""Time after which a target without a new poll is read again, because values become stale by age alone."""


@dataclass(slots=True)
class _Entry:
    poller: TargetPoller
    changes: int
    read_at: float
    status: TargetStatus
    """Without the queries, which need much memory."""
    brief: bytes = b""
    """The encoded status without the queries."""
    whole: bytes = b""
    """The encoded status with the queries; empty until it is needed, and if it does not fit."""


class TargetStatuses:
    """The status of all targets; only targets that were polled since the last call are read again."""

    def __init__(
        self,
        pollers: TargetPollers,
        scheduler: PollScheduler,
        most_bytes: int = MAX_BYTES,
        bytes_per_second: float = BYTES_PER_SECOND,
    ) -> None:
        """Read nothing yet; the encoded statuses have at most `most_bytes`."""
        self._most_bytes = most_bytes
        self._bytes_per_second = bytes_per_second
        self._pollers = pollers
        self._scheduler = scheduler
        self._entries: dict[str, _Entry] = {}
        self._changed = False
        self._next_write = 0.0

    def current(self) -> list[TargetStatus]:
        """Return the status of each target without its queries, in the order of the targets."""
        now = time.monotonic()
        before, self._entries = self._entries, {}
        for poller in self._pollers:
            entry = before.get(poller.name)
            if entry is None or entry.poller is not poller or _is_old(entry, now):
                changes = poller.cycle.changes
                status = summarize(poller, now)
                if entry is None or entry.status != status or entry.changes != changes:
                    entry = _Entry(poller, changes, now, status)
                    self._changed = True
                entry.read_at = now
            self._entries[poller.name] = entry
        self._changed |= before.keys() != self._entries.keys()
        return [entry.status for entry in self._entries.values()]

    def encode(self, identity: Mapping[str, object]) -> bytes | None:
        """Return the targets as of the last call of `current` as JSON, after `identity`.

        Return None if nothing has changed since the last result, or if it is too early for so many bytes.
        """
        now = time.monotonic()
        if not self._changed or now < self._next_write:
            return None
        content = self._encode(identity)
        self._changed = False
        self._next_write = now + len(content) / self._bytes_per_second
        return content

    def _encode(self, identity: Mapping[str, object]) -> bytes:
        room = self._most_bytes
        listed: dict[str, bytes] = {}
        by_rank = sorted(self._entries.items(), key=lambda item: item[1].status.rank)
        for name, entry in by_rank:
            entry.brief = entry.brief or encode_target(entry.status)
            if len(entry.brief) <= room:
                room -= len(entry.brief)
                listed[name] = entry.brief
        for name, entry in by_rank:
            whole = (entry.whole or self._encode_whole(entry)) if room > 0 else b""
            room -= max(0, len(whole) - len(entry.brief))
            entry.whole = whole if room > 0 and name in listed else b""
            listed.update({name: entry.whole} if entry.whole else {})
        head = json.dumps({**identity, "omitted": len(self._entries) - len(listed)}).encode()
        targets = b", ".join(listed[name] for name in self._entries if name in listed)
        return head[:-1] + b', "targets": [' + targets + b"]}"

    def _encode_whole(self, entry: _Entry) -> bytes:
        statuses = entry.poller.cycle.read_statuses(self._scheduler.next_runs(entry.poller.name))
        return encode_target(entry.status._replace(statuses=statuses, omitted=0))


def _is_old(entry: _Entry, now: float) -> bool:
    return entry.changes != entry.poller.cycle.changes or now - entry.read_at > _RECHECK_SECONDS


def summarize(poller: TargetPoller, now: float) -> TargetStatus:
    """Return the status of a target without its queries; `now` is in monotonic seconds."""
    freshness = list(poller.cycle.store.freshness(now))
    server = poller.cycle.server_info(now)
    down = poller.cycle.up is False
    place = f"last reached: {server.role} {server.place}" if server and down else str(server or "")
    ends = [item.last_success for item in freshness if item.last_success is not None]
    return TargetStatus(
        name=poller.name,
        up=poller.cycle.up,
        last_success=max(ends, default=None),
        lag=server.lag if server and server.standby and not down else None,
        server=place,
        statuses=(),
        states=Counter(item.state.name for item in freshness),
        omitted=len(freshness),
    )
