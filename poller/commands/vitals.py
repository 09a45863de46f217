"""Gather what the heartbeat tells of a running daemon."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from poller.commands.wiring import Pipe
from poller.daemon import Daemon
from poller.glance import to_json
from poller.reload import Reload

if TYPE_CHECKING:
    from poller.export import Push


def vitals(
    stuck: str | None, daemon: Daemon, pipe: Pipe, reload: Reload, push: Push | None
) -> dict[str, Any]:
    """What probes and people want to know; no part of it is a secret. Times in seconds since 1970."""
    return {
        "stuck": stuck,
        "ready": daemon.ready,
        "ticks": {
            name: {"interval": interval, "last_run": ended}
            for name, (interval, ended) in daemon.last_runs().items()
        },
        "queries": {one.query.name: str(one.state) for one in pipe.store.freshness(time.monotonic())},
        "query_files": f"refused ({len(reload.problems)} problems)" if reload.problems else "ok",
        "export": _export(push),
        "server": pipe.server(),
        "glances": to_json(pipe.glances(daemon.next_runs())),
    }


def _export(push: Push | None) -> str | None:
    if push is None:
        return None
    return {None: "not yet", True: "ok", False: "failing"}[push.last_export_ok]
