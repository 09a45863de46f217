"""Content of the heartbeat: the state of a running daemon and of its queries."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from poller.daemon.heartbeat_details import TargetStatuses
from poller.daemon.reload import Reload
from poller.daemon.scheduler import PollScheduler
from poller.daemon.target_pollers import TargetPollers
from poller.model.duration import format_duration
from poller.model.text import counted
from poller.polling.status import QueryStatus
from poller.polling.target_status import encode

if TYPE_CHECKING:
    from poller.daemon.leader_election import LeaderElection
    from poller.otlp.exporter import MetricExporter

MAX_TICKS = 500
_MAX_AWAITED = 10
"""Maximum number of ticks that are listed with POLLER_TARGETS, as `poller health --ready` does."""


class HeartbeatContent:
    """The state of the poller for probes and people, without secrets. Times are in seconds since 1970."""

    def __init__(
        self,
        scheduler: PollScheduler,
        pollers: TargetPollers,
        reload: Reload,
        exporter: MetricExporter | None,
        election: LeaderElection | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._pollers = pollers
        self._reload = reload
        self._exporter = exporter
        self._election = election
        self._statuses: Sequence[QueryStatus] = ()
        self._targets = TargetStatuses(pollers, scheduler)
        self._encoded = b"{}"

    def read(self, stuck: str | None) -> dict[str, Any]:
        """Return the poller's state; `stuck` is the reason why it counts as hung, if it does."""
        problems = self._reload.problems
        return {
            "stuck": stuck,
            **({"leader": self._election.status._asdict()} if self._election else {}),
            "ready": self._scheduler.ready,
            **(self._ticks() if self._pollers.only else self._awaited()),
            "query_files": f"refused ({counted(len(problems), 'problem')})" if problems else "ok",
            "export": _export(self._exporter),
            **({"server": only.cycle.server()} if (only := self._pollers.only) else {}),
        }

    def _ticks(self) -> dict[str, Any]:
        # Ticks for which readiness waits come first, because `poller health --ready` names them.
        awaited = set(self._scheduler.awaited)
        runs = sorted(self._scheduler.last_runs().items(), key=lambda run: run[0] not in awaited)
        ticks = {
            entry.tick: {
                "interval": tick.interval,
                **({"schedule": str(tick.schedule)} if tick.schedule else {}),
                "last_run": ended,
            }
            for entry, (tick, ended) in runs[:MAX_TICKS]
        }
        return {"ticks": ticks, "waiting": len(awaited)}

    def _awaited(self) -> dict[str, Any]:
        """Return only ticks for which readiness waits, because many targets have many ticks."""
        awaited = self._scheduler.awaited
        ticks = {f"{entry.target}: {entry.tick}": {"last_run": None} for entry in awaited[:_MAX_AWAITED]}
        return {"ticks": ticks, "waiting": len(awaited)}

    def queries(self) -> bytes:
        """Return the status of all queries as a JSON object; it is encoded only after a change.

        With POLLER_TARGETS, it has only the number of queries in each state and of targets that have a query.
        """
        if (only := self._pollers.only) is None:
            return self._summary()
        statuses = only.cycle.statuses(self._scheduler.next_runs())
        if statuses is not self._statuses:
            self._encoded = encode(statuses)
            self._statuses = statuses
        return self._encoded

    def details(self, identity: Mapping[str, object]) -> bytes | None:
        """Return the status of every target as JSON, after `identity`; None without POLLER_TARGETS.

        Also return None if nothing has changed since the last call, and if the last one was too recent.
        """
        return None if self._pollers.only else self._targets.encode(identity)

    def _summary(self) -> bytes:
        # A target without queries only reads the list of a server's databases.
        statuses = [status for status in self._targets.current() if status.states]
        states: Counter[str] = Counter()
        for status in statuses:
            states.update(status.states)
        up = Counter(status.up for status in statuses)
        return json.dumps(
            {"states": states, "targets": {"all": len(statuses), "up": up[True], "down": up[False]}}
        ).encode()


def _export(exporter: MetricExporter | None) -> str | None:
    if exporter is None:
        return None
    silent = exporter.silent(time.monotonic())
    if silent is not None:
        return f"failing (nothing delivered for {format_duration(round(silent))})"
    return {None: "not yet", True: "ok", False: "failing"}[exporter.last_export_ok]
