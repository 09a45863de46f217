"""Gather what the heartbeat tells of a running daemon."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from poller.commands.pipe import Pipe
from poller.daemon import Daemon
from poller.definition import format_duration
from poller.glance import Glance, to_json
from poller.reload import Reload

if TYPE_CHECKING:
    from poller.export import Push


class Vitals:
    """What probes and people want to know; no part of it is a secret. Times in seconds since 1970."""

    def __init__(self, daemon: Daemon, pipe: Pipe, reload: Reload, push: Push | None) -> None:
        self._daemon = daemon
        self._pipe = pipe
        self._reload = reload
        self._push = push
        self._glances: Sequence[Glance] = ()
        self._encoded = b"{}"

    def told(self, stuck: str | None) -> dict[str, Any]:
        """How the poller is."""
        problems = self._reload.problems
        return {
            "stuck": stuck,
            "ready": self._daemon.ready,
            "ticks": {
                name: {"interval": interval, "last_run": ended}
                for name, (interval, ended) in self._daemon.last_runs().items()
            },
            "query_files": f"refused ({len(problems)} problems)" if problems else "ok",
            "export": _export(self._push),
            "server": self._pipe.server(),
        }

    def queries(self) -> bytes:
        """How its queries are, as a JSON object; encoded anew only where something is different."""
        glances = self._pipe.glances(self._daemon.next_runs())
        if glances is not self._glances:
            states = {one.query: one.state for one in glances}
            self._encoded = json.dumps({"queries": states, "glances": to_json(glances)}).encode()
            self._glances = glances
        return self._encoded


def _export(push: Push | None) -> str | None:
    if push is None:
        return None
    silent = push.silent(time.monotonic())
    if silent is not None:
        return f"failing (nothing delivered for {format_duration(round(silent))})"
    return {None: "not yet", True: "ok", False: "failing"}[push.last_export_ok]
