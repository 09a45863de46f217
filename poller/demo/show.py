"""Start two servers, a workload, the daemon and a receiver; show what arrives; leave nothing behind."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import resources
from typing import Any

from poller.demo.board import Board
from poller.demo.child import Child
from poller.demo.cluster import Cluster
from poller.errors import PollerError
from poller.secrets import mask_url

_NEWS = 5
_LOGIN = "poller"
_ELSEWHERE = re.compile(r"PG|POLLER_(DATABASE_URL|PASSWORD_COMMAND)")
"""What would lead the daemon to a database that is not the demo\'s."""


class DemoError(PollerError):
    """The demo cannot go on; says why."""


class Show:
    """The running demo: five processes, and the board that the receiver's lines are drawn on."""

    def __init__(self, endpoint: str | None, interval: str, say: Callable[[str], None]) -> None:
        """Remember what to do; `endpoint` is where the daemon pushes instead of to a receiver of ours."""
        self._endpoint = endpoint
        self._interval = interval
        self._say = say
        self._stack = ExitStack()
        self._listening = threading.Event()
        self._target = ""
        self._lock = threading.Lock()
        self.board = Board(mask_url(endpoint) if endpoint else None)
        self.news: deque[str] = deque(maxlen=_NEWS)
        self.headline = ""

    def start(self) -> None:
        """Start everything, the daemon last. Raises DemoError, and PollerError of the cluster."""
        self._say("starting a PostgreSQL primary and a streaming standby on 127.0.0.1 ...")
        cluster = self._stack.enter_context(Cluster())
        cluster.primary.execute("CREATE DATABASE obscura")
        schema = resources.files("poller.demo").joinpath("schema.sql").read_text(encoding="utf-8")
        cluster.primary.execute(schema, dbname="obscura")
        cluster.primary.execute(
            f"CREATE ROLE {_LOGIN} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {_LOGIN}",
            dbname="obscura",
        )
        cluster.wait_replayed()
        env = {name: value for name, value in os.environ.items() if not _ELSEWHERE.match(name)}
        self._say("starting the workload on the primary ...")
        self._child("poller.demo.workload", [cluster.primary.dsn("obscura")], env, on_stderr=self._hear)
        if self._endpoint is None:
            self._say("starting the OTLP receiver ...")
            self._child(
                "poller.receiver", ["--until-eof"], env, on_stdout=self._receive, on_stderr=self._hear
            )
            if not self._listening.wait(20):
                raise DemoError("the OTLP receiver did not start")
        self._say("starting the daemon on the standby ...")
        daemon = self._child("poller", ["run"], {**env, **self._settings(cluster)}, on_stderr=self._hear)
        target = mask_url(self._endpoint) if self._endpoint else f"OTLP receiver at {self._target}"
        servers = f"primary :{cluster.primary.port} -> standby :{cluster.standby.port}"
        self.headline = f"{servers} -> poller (pid {daemon.pid}) -> {target}"
        self._daemon = daemon

    def failed(self) -> str | None:
        """Say that the daemon ended on its own, if it did."""
        code = self._daemon.ended
        return None if code is None else f"the daemon ended with exit code {code}: {'; '.join(self.news)}"

    def stop(self) -> None:
        """Stop everything in the reverse order and remove every file; may be called at any time."""
        self._stack.close()

    def draw(self, width: int) -> Any:
        """The board as it is now."""
        with self._lock:
            return self.board.draw(self.headline, list(self.news), width)

    def lines(self) -> list[str]:
        """The newest values as lines."""
        with self._lock:
            return self.board.lines()

    def _child(
        self, module: str, arguments: list[str], env: Mapping[str, str], **tell: Callable[[str], None]
    ) -> Child:
        return self._stack.enter_context(Child(module, arguments, env, **tell))

    def _settings(self, cluster: Cluster) -> dict[str, str]:
        """What the daemon is told; POLLER_QUERIES and the like are the caller's, where set."""
        return {
            "POLLER_DATABASE_URL": cluster.standby.dsn("obscura", _LOGIN),
            "POLLER_OTLP_ENDPOINT": self._endpoint or self._target,
            "POLLER_INTERVAL": self._interval,
            "POLLER_TIMEOUT": "1s",
            "POLLER_EXPORT_INTERVAL": "1s",
            "POLLER_INSTANCE": "demo",
            "POLLER_LOG_FORMAT": "text",
            "POLLER_HEALTH_FILE": str(cluster.directory / "heartbeat.json"),
        }

    def _hear(self, line: str) -> None:
        self.news.append(line)

    def _receive(self, line: str) -> None:
        told = json.loads(line)
        if "grpc" in told:
            self._target = told["grpc"]
            self._listening.set()
            return
        with self._lock:
            self.board.requests += 1
            for point in told["points"]:
                if isinstance(point["value"], int | float):
                    self.board.receive(
                        point["metric"],
                        point["unit"],
                        point["attributes"],
                        point["value"],
                    )


def perform(endpoint: str | None, interval: str, seconds: float | None, ended: threading.Event) -> int:
    """Run the demo until `ended` is set or `seconds` are over; returns the exit code.

    On a terminal the board is drawn live; anywhere else the newest values are printed every two seconds.
    0: values arrived; 1: none did, or the daemon ended.
    """
    from rich.console import Console

    console = Console(highlight=False)
    show = Show(endpoint, interval, lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201 - progress
    try:
        show.start()
        deadline = time.monotonic() + seconds if seconds is not None else None
        if console.is_terminal:
            _live(console, show, deadline, ended)
        else:
            _print(show, deadline, ended)
        failure = show.failed()
    finally:
        show.stop()
    if console.is_terminal:
        console.print(show.draw(console.width))
    print("stopped; every process and file of the demo is gone", file=sys.stderr)  # noqa: T201 - progress
    if failure:
        raise DemoError(failure)
    return 0 if show.board.points or endpoint else 1


def _live(console: Any, show: Show, deadline: float | None, ended: threading.Event) -> None:
    from poller.screen.live import keep_drawn

    keep_drawn(console, lambda: show.draw(console.width), lambda: _over(show, deadline, ended))


def _print(show: Show, deadline: float | None, ended: threading.Event) -> None:
    while not _over(show, deadline, ended):
        ended.wait(2.0)
        for line in show.lines():
            print(f"received {line}", flush=True)  # noqa: T201 - standard output is the product


def _over(show: Show, deadline: float | None, ended: threading.Event) -> bool:
    late = deadline is not None and time.monotonic() > deadline
    return late or ended.is_set() or show.failed() is not None
