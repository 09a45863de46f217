"""State of a poller as `watch` displays it, and its reader from the heartbeat file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from poller.daemon.health import clock, details_path, is_own_folder, judge, read
from poller.daemon.heartbeat_details import MAX_BYTES
from poller.model.files import read_json
from poller.polling.status import QueryStatus, from_json
from poller.polling.target_status import TargetStatus, target_from_json


@dataclass(frozen=True, slots=True)
class PollerStatus:
    """State of a poller at one moment."""

    good: bool
    """Whether it is alive."""
    state: str
    """Summary of the poller in one line."""
    server: str
    """The polled server in one line; empty if it is unknown."""
    statuses: Sequence[QueryStatus]
    log_lines: Sequence[str] = ()
    """Latest log lines."""
    omitted: int = 0
    """Number of queries that the heartbeat omits."""
    states: Mapping[str, int] = field(default_factory=dict)
    """Number of queries per state; empty if only the statuses of single queries are known."""
    targets: Sequence[TargetStatus] | None = None
    """The targets; None without POLLER_TARGETS."""

    def of(self, target: TargetStatus) -> PollerStatus:
        """Return the state of the poller with the queries of one target."""
        reached = {True: "up", False: "down", None: "not polled yet"}[target.up]
        return replace(
            self,
            server=f"{target.name}: {reached}{f', {target.server}' if target.server else ''}",
            statuses=target.statuses,
            omitted=target.omitted,
            states=target.states,
            targets=None,
        )


ReadStatus = Callable[[], PollerStatus]


def running_poller(places: Sequence[Path]) -> ReadStatus:
    """Return a reader of the heartbeat at the first usable path of `places` (see `daemon.health.places`)."""
    details = _DetailsReader(places)

    def read_status() -> PollerStatus:
        heartbeat = read(list(places))
        alive, reason = judge(heartbeat, ready=False, now=clock())
        if isinstance(heartbeat, str):
            return PollerStatus(alive, reason, "", ())
        try:
            statuses = from_json(heartbeat.get("glances", ()))
            omitted = int(heartbeat.get("omitted", 0))
            states = {
                str(state_name): int(count) for state_name, count in heartbeat.get("states", {}).items()
            }
            targets = details.read(heartbeat) if "targets" in heartbeat else None
        except (ValueError, TypeError, AttributeError) as error:
            return PollerStatus(False, f"the heartbeat is of another version: it {error}", "", ())
        # The screen lists the states of queries below the table.
        state = re.sub(r"; queries: [^;]*", "", reason)
        server = str(heartbeat.get("server") or "")
        return PollerStatus(alive, state, server, statuses, omitted=omitted, states=states, targets=targets)

    return read_status


class _DetailsReader:
    """Reader of the file with the status of every target, which parses it only after a change."""

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = places
        self._file: tuple[object, ...] = ()
        self._targets: list[TargetStatus] = []

    def read(self, heartbeat: Mapping[str, Any]) -> list[TargetStatus]:
        """Return the targets of the poller that wrote `heartbeat`; empty without a file.

        Raises ValueError for a file of another version.
        """
        for path in map(details_path, self._places):
            if len(self._places) > 1 and not is_own_folder(path.parent):
                continue
            try:
                state = path.stat()
                file = (path, state.st_ino, state.st_mtime_ns, heartbeat["pid"])
                if file == self._file:
                    return self._targets
                document = read_json(path, MAX_BYTES + (1 << 20))
            except OSError:
                continue
            if all(document.get(key) == heartbeat.get(key) for key in ("pid", "process_namespace")):
                self._file, self._targets = file, list(map(target_from_json, document.get("targets", ())))
                return self._targets
        return []
