"""Demo runner: starts all processes, draws the live screen, and removes everything at the end."""

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

from poller.demo.cluster import LOGIN, Cluster, create_role
from poller.demo.processes import Child
from poller.demo.screen import DemoBoard, EventBoard
from poller.events.metrics import SCOPE
from poller.model.errors import PollerError
from poller.model.otlp_endpoint import Endpoint

_LOG_LINES = 5
_DATABASE = "obscura"
_VARIABLES = re.compile(r"PG|POLLER_|OBSCURA_|OTEL_")
"""Environment variables that configure the programs of the demo; they are not inherited."""
_INHERITED = re.compile(r"POLLER_(QUERIES|LOG_LEVEL)$")
"""Exceptions; the demo must not use the caller's database, state folder or collector."""
_INHERITED_WITH_COLLECTOR = re.compile(
    r"POLLER_OTLP_(ENDPOINT|PROTOCOL)$|OBSCURA_(TELEMETRY_)?OTLP_ENDPOINT$|OTEL_EXPORTER_OTLP_"
)
"""More exceptions if the caller named a collector."""
_SERVER_ENDPOINTS = re.compile(
    r"OBSCURA_(TELEMETRY_)?OTLP_ENDPOINT|OTEL_EXPORTER_OTLP(_\w+)?_(ENDPOINT|PROTOCOL)"
)
"""Variables that would make the messaging server export to another collector than the daemon."""
_SERVER = {
    # Low limits, so that overflows, expiry and cleanups occur within a minute.
    "--pool-size": "8",
    "--inbox-size": "50",
    "--attachment-lifetime": "45",
    "--cleanup-interval": "5",
    "--channel-interval": "10",
    "--health-interval": "5",
}


class DemoError(PollerError):
    """The demo cannot continue; the message gives the reason."""


class Demo:
    """The running demo: its processes, and the screen with the received values."""

    def __init__(self, endpoint: Endpoint | None, interval: str, report: Callable[[str], None]) -> None:
        """`endpoint` is a collector to use instead of the demo's receiver; `report` prints progress."""
        self._endpoint = endpoint
        self._interval = interval
        self._report = report
        self._stack = ExitStack()
        self._listening = threading.Event()
        self._target = ""
        self._lock = threading.Lock()
        self._url = ""
        self.board = DemoBoard(str(endpoint) if endpoint else None)
        self.events = EventBoard()
        self.log: deque[str] = deque(maxlen=_LOG_LINES)
        self.headline = ""

    def start(self) -> None:
        """Start all processes, the daemon last. Raises DemoError, and PollerError if the cluster fails."""
        self._report("starting a PostgreSQL primary and a streaming standby on 127.0.0.1 ...")
        cluster = self._stack.enter_context(Cluster())
        cluster.primary.execute(f"CREATE DATABASE {_DATABASE}")
        for script in ("schema.sql", "rows.sql"):
            statements = resources.files("poller.demo").joinpath(script).read_text(encoding="utf-8")
            cluster.primary.execute(statements, _DATABASE)
        create_role(cluster.primary, _DATABASE)
        cluster.wait_replayed()
        env = {
            name: value
            for name, value in os.environ.items()
            if not _VARIABLES.match(name)
            or _INHERITED.match(name)
            or (self._endpoint is not None and _INHERITED_WITH_COLLECTOR.match(name))
        }
        if self._endpoint is None:
            self._report("starting the OTLP receiver ...")
            self._child(
                "poller.receiver", ["--until-eof"], env, on_stdout=self._receive, on_stderr=self.log.append
            )
            if not self._listening.wait(20):
                raise DemoError("the OTLP receiver did not start")
        self._report("starting the messaging server on the primary, and its clients ...")
        server = self._serve(cluster, env)
        clients = self._child("poller.demo.messaging.clients", [self._url], env, on_stderr=self.log.append)
        self._report("starting the daemon on the standby ...")
        daemon = self._child("poller", ["run"], {**env, **self._settings(cluster)}, on_stderr=self.log.append)
        target = str(self._endpoint or f"receiver :{self._target.rpartition(':')[2]}")
        ports = cluster.primary.port, cluster.standby.port, self._url.rpartition(":")[2]
        self.headline = f"primary :{ports[0]} -> standby :{ports[1]} -> poller (pid {daemon.pid}) -> {target}"
        self.events.headline = f"clients -> messaging server :{ports[2]} (pid {server.pid}) -> {target}"
        self._watched = {
            "the daemon": daemon,
            "the messaging server": server,
            "the client process": clients,
        }
        self.board.hint = f"export POLLER_DATABASE_URL={cluster.standby.dsn(_DATABASE, LOGIN)}"
        self._report(
            "to query the standby in another terminal (its role can read everything except secrets):"
        )
        self._report(self.board.hint)
        self._report(f"to change data on the primary: {cluster.primary.dsn(_DATABASE)}")

    def failure(self) -> str | None:
        """Return a message about a process that ended by itself, else None."""
        for name, child in self._watched.items():
            if (code := child.ended) is not None:
                return f"{name} ended with exit code {code}: {'; '.join(self.log)}"
        return None

    def stop(self) -> None:
        """Stop all processes in reverse order and remove every file; may be called at any time."""
        self._stack.close()

    def draw(self, width: int, height: int) -> Any:
        """Return the current screen."""
        with self._lock:
            return self.board.draw(self.headline, list(self.log), width, height, self.events)

    def lines(self) -> list[str]:
        """Return the newest values as lines of text."""
        with self._lock:
            return [*self.board.lines(), *self.events.lines()]

    def _serve(self, cluster: Cluster, env: Mapping[str, str]) -> Child:
        objects = cluster.directory / "objects"
        objects.mkdir()
        arguments = [cluster.primary.dsn(_DATABASE), f"--folder={objects}"]
        arguments += [f"{option}={value}" for option, value in _SERVER.items()]
        listening = threading.Event()

        def read_url(line: str) -> None:
            self._url = json.loads(line)["url"]
            listening.set()

        server = self._child(
            "poller.demo.messaging",
            arguments,
            self._event_settings(env),
            on_stdout=read_url,
            on_stderr=self._log_errors,
        )
        while not listening.wait(0.1):
            if server.ended is not None:
                raise DemoError(f"the messaging server did not start: {'; '.join(self.log)}")
        return server

    def _child(
        self, module: str, arguments: list[str], env: Mapping[str, str], **readers: Callable[[str], None]
    ) -> Child:
        return self._stack.enter_context(Child(module, arguments, env, **readers))

    def _settings(self, cluster: Cluster) -> dict[str, str]:
        """Return the daemon's settings; inherited variables such as POLLER_QUERIES are added to them."""
        return {
            "POLLER_DATABASE_URL": cluster.standby.dsn(_DATABASE, LOGIN),
            # The daemon reads a collector that the caller set from the inherited variables.
            **({} if self._endpoint else {"POLLER_OTLP_ENDPOINT": self._target}),
            "POLLER_INTERVAL": self._interval,
            "POLLER_TIMEOUT": "1s",
            "POLLER_EXPORT_INTERVAL": "1s",
            "POLLER_INSTANCE": "demo",
            "POLLER_LOG_FORMAT": "text",
            "POLLER_HEALTH_FILE": str(cluster.directory / "heartbeat.json"),
        }

    def _event_settings(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return the messaging server's environment; it exports to the daemon's collector."""
        return {
            **{name: value for name, value in env.items() if not _SERVER_ENDPOINTS.match(name)},
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._endpoint.url if self._endpoint else self._target,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self._endpoint.protocol if self._endpoint else "grpc",
            "OBSCURA_METRICS_EXPORT_INTERVAL_SECS": "1",
            "OBSCURA_LOG_FORMAT": "text",
        }

    def _log_errors(self, line: str) -> None:
        # The server logs every request, which would push the daemon's lines off the screen.
        if " INFO " not in line and " WARNING " not in line:
            self.log.append(line)

    def _receive(self, line: str) -> None:
        export = json.loads(line)
        if "grpc" in export:
            self._target = export["grpc"]
            self._listening.set()
            return
        with self._lock:
            self.board.requests += 1
            events = [point for point in export["points"] if point["scope"] == SCOPE]
            self.events.receive(events)
            self.board.points += len(events)
            for point in export["points"]:
                if point["scope"] != SCOPE and isinstance(point["value"], int | float):
                    self.board.receive(
                        point["metric"],
                        point["unit"],
                        point["attributes"],
                        point["value"],
                    )


def perform(endpoint: Endpoint | None, interval: str, seconds: float | None, ended: threading.Event) -> int:
    """Run the demo until `ended` is set or `seconds` have passed; returns the exit code.

    On a terminal the screen is drawn live; otherwise the newest values are printed every two seconds.
    The exit code is 0 if values arrived, and 1 if none did. Raises DemoError if a process ended by itself.
    """
    from poller.terminal.console import open_console

    console = open_console()
    demo = Demo(endpoint, interval, lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201 - progress
    try:
        demo.start()
        deadline = time.monotonic() + seconds if seconds is not None else None
        if console.is_terminal:
            _live(console, demo, deadline, ended)
        else:
            _print(demo, deadline, ended)
        failure = demo.failure()
    finally:
        demo.stop()
    if console.is_terminal:
        console.print(demo.draw(console.width, console.height))
    print("stopped; every process and file of the demo is gone", file=sys.stderr)  # noqa: T201 - progress
    if failure:
        raise DemoError(failure)
    return 0 if demo.board.points or endpoint else 1


def _live(console: Any, demo: Demo, deadline: float | None, ended: threading.Event) -> None:
    from poller.terminal.live import keep_drawn

    keep_drawn(
        console, lambda: demo.draw(console.width, console.height), lambda: _over(demo, deadline, ended)
    )


def _print(demo: Demo, deadline: float | None, ended: threading.Event) -> None:
    while not _over(demo, deadline, ended):
        ended.wait(2.0)
        for line in demo.lines():
            print(f"received {line}", flush=True)  # noqa: T201 - standard output is the product


def _over(demo: Demo, deadline: float | None, ended: threading.Event) -> bool:
    expired = deadline is not None and time.monotonic() > deadline
    return expired or ended.is_set() or demo.failure() is not None
