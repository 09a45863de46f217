"""Content of the heartbeat: the state of a running daemon and of its queries."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from poller.daemon.poll_cycle import PollCycle
from poller.daemon.reload import Reload
from poller.daemon.scheduler import PollScheduler
from poller.model.duration import format_duration
from poller.model.text import counted
from poller.polling.status import QueryStatus, to_json

if TYPE_CHECKING:
    from poller.otlp.exporter import MetricExporter

MAX_DETAIL_BYTES = 1 << 20
"""Approximate maximum size in bytes of the details of single queries in the heartbeat."""
MAX_TICKS = 500


class HeartbeatContent:
    """The state of the poller for probes and people, without secrets. Times are in seconds since 1970."""

    def __init__(
        self, scheduler: PollScheduler, cycle: PollCycle, reload: Reload, exporter: MetricExporter | None
    ) -> None:
        self._scheduler = scheduler
        self._cycle = cycle
        self._reload = reload
        self._exporter = exporter
        self._statuses: Sequence[QueryStatus] = ()
        self._encoded = b"{}"

    def read(self, stuck: str | None) -> dict[str, Any]:
        """Return the poller's state; `stuck` is the reason why it counts as hung, if it does."""
        problems = self._reload.problems
        # Ticks that have not run come first, because `poller health --ready` names them.
        runs = sorted(self._scheduler.last_runs().items(), key=lambda run: run[1][1] is not None)
        return {
            "stuck": stuck,
            "ready": self._scheduler.ready,
            "ticks": {
                name: {"interval": interval, "last_run": ended}
                for name, (interval, ended) in runs[:MAX_TICKS]
            },
            "waiting": sum(ended is None for _, (_, ended) in runs),
            "query_files": f"refused ({counted(len(problems), 'problem')})" if problems else "ok",
            "export": _export(self._exporter),
            "server": self._cycle.server(),
        }

    def queries(self) -> bytes:
        """Return the status of all queries as a JSON object; it is encoded only after a change."""
        statuses = self._cycle.statuses(self._scheduler.next_runs())
        if statuses is not self._statuses:
            self._encoded = encode(statuses)
            self._statuses = statuses
        return self._encoded


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


def _export(exporter: MetricExporter | None) -> str | None:
    if exporter is None:
        return None
    silent = exporter.silent(time.monotonic())
    if silent is not None:
        return f"failing (nothing delivered for {format_duration(round(silent))})"
    return {None: "not yet", True: "ok", False: "failing"}[exporter.last_export_ok]
