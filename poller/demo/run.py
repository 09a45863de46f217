"""Demo runner: start of all processes, live display, and removal of everything at the end."""

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
from random import Random
from typing import Any

import psycopg

from poller.config.endpoint import Endpoint
from poller.demo import cluster as role
from poller.demo.cluster import Cluster
from poller.demo.processes import Child
from poller.demo.screen import Board, EventBoard
from poller.demo.workload import Workload
from poller.events.metrics import SCOPE
from poller.model.errors import PollerError

_NEWS = 5
_DATABASE = "obscura"
_OURS = re.compile(r"PG|POLLER_|OBSCURA_|OTEL_")
_OF_USE = re.compile(r"POLLER_(QUERIES|LOG_LEVEL)$")
"""What of it the demo takes from its caller: no database, no state folder, no collector of somebody's."""
_OF_THE_TARGET = re.compile(
    r"POLLER_OTLP_(ENDPOINT|PROTOCOL)$|OBSCURA_(TELEMETRY_)?OTLP_ENDPOINT$|OTEL_EXPORTER_OTLP_"
)
"""What goes with a collector that the caller named."""
_OTHER_TARGET = re.compile(
    r"OBSCURA_(TELEMETRY_)?OTLP_ENDPOINT|OTEL_EXPORTER_OTLP(_\w+)?_(ENDPOINT|PROTOCOL)"
)
"""What would lead the server to another place than the daemon pushes to."""
_SERVER = {
    # So that something happens in a minute.
    "--pool-size": "8",
    "--inbox-size": "50",
    "--attachment-lifetime": "45",
    "--cleanup-interval": "5",
    "--channel-interval": "10",
    "--health-interval": "5",
}


class DemoError(PollerError):
    """The demo cannot go on; says why."""


class Show:
    """The running demo: its processes, and the boards that the receiver's lines are drawn on."""

    def __init__(self, endpoint: Endpoint | None, interval: str, say: Callable[[str], None]) -> None:
        """Remember what to do; `endpoint` is where all is pushed instead of to a receiver of ours."""
        self._endpoint = endpoint
        self._interval = interval
        self._say = say
        self._stack = ExitStack()
        self._listening = threading.Event()
        self._target = ""
        self._lock = threading.Lock()
        self._url = ""
        self.board = Board(str(endpoint) if endpoint else None)
        self.events = EventBoard()
        self.news: deque[str] = deque(maxlen=_NEWS)
        self.headline = ""

    def start(self) -> None:
        """Start everything, the daemon last. Raises DemoError, and PollerError of the cluster."""
        self._say("starting a PostgreSQL primary and a streaming standby on 127.0.0.1 ...")
        cluster = self._stack.enter_context(Cluster())
        cluster.primary.execute(f"CREATE DATABASE {_DATABASE}")
        schema = resources.files("poller.demo").joinpath("schema.sql").read_text(encoding="utf-8")
        cluster.primary.execute(schema, _DATABASE)
        role.make(cluster.primary, _DATABASE)
        cluster.wait_replayed()
        _fill(cluster.primary.dsn(_DATABASE))
        env = {
            name: value
            for name, value in os.environ.items()
            if not _OURS.match(name)
            or _OF_USE.match(name)
            or (self._endpoint is not None and _OF_THE_TARGET.match(name))
        }
        if self._endpoint is None:
            self._say("starting the OTLP receiver ...")
            self._child(
                "poller.receiver", ["--until-eof"], env, on_stdout=self._receive, on_stderr=self._hear
            )
            if not self._listening.wait(20):
                raise DemoError("the OTLP receiver did not start")
        self._say("starting the messaging server on the primary, and its clients ...")
        server = self._serve(cluster, env)
        clients = self._child("poller.demo.messaging.clients", [self._url], env, on_stderr=self._hear)
        self._say("starting the daemon on the standby ...")
        daemon = self._child("poller", ["run"], {**env, **self._settings(cluster)}, on_stderr=self._hear)
        target = str(self._endpoint or f"receiver :{self._target.rpartition(':')[2]}")
        ports = cluster.primary.port, cluster.standby.port, self._url.rpartition(":")[2]
        self.headline = f"primary :{ports[0]} -> standby :{ports[1]} -> poller (pid {daemon.pid}) -> {target}"
        self.events.headline = f"clients -> messaging server :{ports[2]} (pid {server.pid}) -> {target}"
        self._watched = {
            "the daemon": daemon,
            "the messaging server": server,
            "the crowd of clients": clients,
        }
        self.board.invitation = f"export POLLER_DATABASE_URL={cluster.standby.dsn(_DATABASE, role.LOGIN)}"
        self._say("to ask the standby yourself, in another terminal (it may read all but the secrets):")
        self._say(self.board.invitation)
        self._say(f"the primary, to change something: {cluster.primary.dsn(_DATABASE)}")

    def failed(self) -> str | None:
        """Say what ended on its own, if anything did."""
        for name, child in self._watched.items():
            if (code := child.ended) is not None:
                return f"{name} ended with exit code {code}: {'; '.join(self.news)}"
        return None

    def stop(self) -> None:
        """Stop everything in the reverse order and remove every file; may be called at any time."""
        self._stack.close()

    def draw(self, width: int, height: int) -> Any:
        """The boards as they are now."""
        with self._lock:
            return self.board.draw(self.headline, list(self.news), width, height, self.events)

    def lines(self) -> list[str]:
        """The newest values as lines."""
        with self._lock:
            return [*self.board.lines(), *self.events.lines()]

    def _serve(self, cluster: Cluster, env: Mapping[str, str]) -> Child:
        objects = cluster.directory / "objects"
        objects.mkdir()
        arguments = [cluster.primary.dsn(_DATABASE), f"--folder={objects}"]
        arguments += [f"{option}={value}" for option, value in _SERVER.items()]
        listening = threading.Event()

        def hear(line: str) -> None:
            self._url = json.loads(line)["url"]
            listening.set()

        server = self._child(
            "poller.demo.messaging",
            arguments,
            self._event_settings(env),
            on_stdout=hear,
            on_stderr=self._hear_errors,
        )
        while not listening.wait(0.1):
            if server.ended is not None:
                raise DemoError(f"the messaging server did not start: {'; '.join(self.news)}")
        return server

    def _child(
        self, module: str, arguments: list[str], env: Mapping[str, str], **tell: Callable[[str], None]
    ) -> Child:
        return self._stack.enter_context(Child(module, arguments, env, **tell))

    def _settings(self, cluster: Cluster) -> dict[str, str]:
        """What the daemon is told; POLLER_QUERIES and the like are the caller's, where set."""
        return {
            "POLLER_DATABASE_URL": cluster.standby.dsn(_DATABASE, role.LOGIN),
            # Where the caller has set it, by whatever variable, the daemon reads it as well.
            **({} if self._endpoint else {"POLLER_OTLP_ENDPOINT": self._target}),
            "POLLER_INTERVAL": self._interval,
            "POLLER_TIMEOUT": "1s",
            "POLLER_EXPORT_INTERVAL": "1s",
            "POLLER_INSTANCE": "demo",
            "POLLER_LOG_FORMAT": "text",
            "POLLER_HEALTH_FILE": str(cluster.directory / "heartbeat.json"),
        }

    def _event_settings(self, env: Mapping[str, str]) -> dict[str, str]:
        """What the server is told: to push where the daemon does."""
        return {
            **{name: value for name, value in env.items() if not _OTHER_TARGET.match(name)},
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._endpoint.url if self._endpoint else self._target,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self._endpoint.protocol if self._endpoint else "grpc",
            "OBSCURA_METRICS_EXPORT_INTERVAL_SECS": "1",
            "OBSCURA_LOG_FORMAT": "text",
        }

    def _hear(self, line: str) -> None:
        self.news.append(line)

    def _hear_errors(self, line: str) -> None:
        # It logs every request, and beside the daemon's own lines there is no room for what went well.
        if " INFO " not in line and " WARNING " not in line:
            self.news.append(line)

    def _receive(self, line: str) -> None:
        told = json.loads(line)
        if "grpc" in told:
            self._target = told["grpc"]
            self._listening.set()
            return
        with self._lock:
            self.board.requests += 1
            events = [point for point in told["points"] if point["scope"] == SCOPE]
            self.events.receive(events)
            self.board.points += len(events)
            for point in told["points"]:
                if point["scope"] != SCOPE and isinstance(point["value"], int | float):
                    self.board.receive(
                        point["metric"],
                        point["unit"],
                        point["attributes"],
                        point["value"],
                    )


def _fill(dsn: str) -> None:
    """Write what is there when the curtain rises."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        Workload(connection, Random(0)).fill()  # noqa: S311 - a simulation, no secret
        # Their bytes are nowhere; those that clients upload are.
        connection.execute("DELETE FROM attachments")


def perform(endpoint: Endpoint | None, interval: str, seconds: float | None, ended: threading.Event) -> int:
    """Run the demo until `ended` is set or `seconds` are over; returns the exit code.

    On a terminal the board is drawn live; anywhere else the newest values are printed every two seconds.
    0: values arrived; 1: none did, or something ended that was to go on.
    """
    from poller.terminal.console import open_console

    console = open_console()
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
        console.print(show.draw(console.width, console.height))
    print("stopped; every process and file of the demo is gone", file=sys.stderr)  # noqa: T201 - progress
    if failure:
        raise DemoError(failure)
    return 0 if show.board.points or endpoint else 1


def _live(console: Any, show: Show, deadline: float | None, ended: threading.Event) -> None:
    from poller.terminal.live import keep_drawn

    keep_drawn(
        console, lambda: show.draw(console.width, console.height), lambda: _over(show, deadline, ended)
    )


def _print(show: Show, deadline: float | None, ended: threading.Event) -> None:
    while not _over(show, deadline, ended):
        ended.wait(2.0)
        for line in show.lines():
            print(f"received {line}", flush=True)  # noqa: T201 - standard output is the product


def _over(show: Show, deadline: float | None, ended: threading.Event) -> bool:
    late = deadline is not None and time.monotonic() > deadline
    return late or ended.is_set() or show.failed() is not None
