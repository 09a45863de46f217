"""Programs that run on a load and poll on request."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from psycopg.conninfo import conninfo_to_dict

from poller.receiver.ports import LOOPBACK, free_ports
from poller.receiver.receiver import Received, Receiver
from poller.receiver.signals import ExportRequest
from tests.benchmarks.loads import Load, Query

HOURLY = "1h"
"""Interval of a program that polls on request only."""
_BEGIN = "begin"
PATIENCE = 120.0
"""Longest wait in seconds for anything that should happen at once."""


class MeasuredProgram(Protocol):
    """A running program that polls the queries of a load."""

    pid: int
    cold_start: float
    """Seconds from the start of the process to the first exported value."""

    def poll(self) -> float | None:
        """Let it poll and export once; return the seconds of that if the caller had to wait for it."""

    @property
    def exported(self) -> int:
        """Return the bytes of one export."""

    def close(self) -> None: ...


Start = Callable[[Load, str], MeasuredProgram]
"""Starts a program on a load and the server at a DSN."""


class Process:
    """A child process in its own folder, killed at the end."""

    def __init__(
        self, command: Sequence[str | Path], folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self._log = (folder / "log").open("w")
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PG", "OTEL_", "POLLER_", "OBSCURA_", "QE_"))
        }
        self.process = subprocess.Popen(
            command,
            env={**inherited, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def check(self) -> None:
        """Raise RuntimeError with the end of its log if it has ended."""
        if (code := self.process.poll()) is not None:
            raise RuntimeError(f"ended with {code}: {Path(self._log.name).read_text()[-2000:]}")

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


class Pushed:
    """A program that polls by its own schedule, about every second, and pushes to a receiver.

    The caller does not wait for a poll, so that its duration is unknown.
    """

    def __init__(
        self,
        load: Load,
        command: Callable[[Path, Receiver], tuple[Sequence[str | Path], Mapping[str, str]]],
        *,
        begins: Callable[[ExportRequest], bool] = lambda _: True,
    ) -> None:
        """Start, and wait for the first value of the load.

        `command` returns the command line and the environment for a folder and the receiver. `begins` returns
        whether a request is the first of an export.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-")
        self._marker = load.queries[0].name
        self._begins = begins
        self._sizes: list[int] = []
        self._receiver = Receiver(keep=1, on_request=self._note)
        folder = Path(self._folder.name)
        line, env = command(folder, self._receiver)
        begun = time.time()
        self._process = Process(line, folder, env)
        self.pid = self._process.process.pid
        try:
            self._until(lambda: bool(self._sizes))
        except BaseException:
            self.close()
            raise
        self.cold_start = self._came - begun

    def poll(self) -> float | None:
        """Wait for the next export, and for a poll, because the intervals are equal."""
        count = len(self._sizes)
        self._until(lambda: len(self._sizes) > count)
        return None

    @property
    def exported(self) -> int:
        return self._sizes[-1]

    def close(self) -> None:
        self._process.close()
        self._receiver.stop()
        self._folder.cleanup()

    def _note(self, received: Received) -> None:
        if received.signal != "metrics":
            return
        if not self._sizes:
            if self._marker not in {point.metric for point in received.points()}:
                return
            self._came = received.at
        if self._sizes and not self._begins(received.request):
            self._sizes[-1] += received.request.ByteSize()
        else:
            self._sizes.append(received.request.ByteSize())

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self._process.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._process.process.args!r} exports nothing")
            time.sleep(0.005)


class Ours(Pushed):
    """The daemon; see `inprocess` for the duration of its polls."""

    def __init__(self, load: Load, dsn: str, *, protocol: str = "grpc", traces: bool = False) -> None:
        def command(folder: Path, receiver: Receiver) -> tuple[Sequence[str | Path], Mapping[str, str]]:
            queries = folder / "queries.yaml"
            queries.write_text(json.dumps(ours(load)))
            endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
            env = environment(queries, dsn, endpoint, protocol, traces, f"{load.pace}s")
            return [sys.executable, "-m", "poller", "run"], env

        super().__init__(load, command, begins=_begins)


def _begins(request: ExportRequest) -> bool:
    """Return whether this is the first request of an export; only that contains these counts."""
    return isinstance(request, ExportMetricsServiceRequest) and any(
        metric.name == "poller.replica.standby"
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


def environment(
    queries: Path, dsn: str, endpoint: str, protocol: str, traces: bool, interval: str
) -> dict[str, str]:
    """Return the settings of every run of the poller."""
    return {
        "POLLER_DATABASE_URL": dsn,
        "POLLER_QUERIES": str(queries),
        "POLLER_OTLP_ENDPOINT": endpoint,
        "POLLER_OTLP_PROTOCOL": "grpc" if protocol == "grpc" else "http/protobuf",
        "POLLER_EXPORT_INTERVAL": interval,
        "POLLER_TRACES": str(traces).lower(),
        "POLLER_HEALTH_FILE": str(queries.parent / "heartbeat.json"),
        # It polls a hundred times as often as in production; otherwise the duty cycle would delay the
        # queries.
        "POLLER_MAX_DUTY_CYCLE": "100%",
        "POLLER_LOG_LEVEL": "error",
    }


def ours(load: Load, interval: str = "") -> dict[str, object]:
    """Return the load as a query file."""
    return {"queries": [_ours(query, interval or f"{load.pace}s") for query in load.queries]}


def _ours(query: Query, interval: str) -> dict[str, object]:
    metric = {
        "name": query.name,
        "description": "Benchmark.",
        "unit": "{thing}",
        "value_column": query.value,
        "attribute_columns": [query.label] if query.label else [],
    }
    limit = {"max_series": 10_000} if query.label else {}
    timeout = "30s" if interval == HOURLY else interval
    bounds = {"interval": interval, "timeout": timeout, "max_age": "1h"}
    return {"name": query.name, "sql": query.sql, **bounds, **limit, "metrics": [metric]}


class Scraped:
    """A program that polls at a request of its /metrics, or by itself, and responds with the values."""

    def __init__(
        self, marker: str, command: Callable[[Path, int], Sequence[str | Path]], *, wait: float = 0.0
    ) -> None:
        """Start, and wait for the first value of the metric `marker`.

        `command` returns the command line for a folder and a port; `wait` is the number of seconds between
        two polls of a program that polls by itself.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-")
        folder = Path(self._folder.name)
        (port,) = free_ports(1)
        self._url = f"http://{LOOPBACK}:{port}/metrics"
        self._wait = wait
        self.exported = 0
        line = command(folder, port)
        begun = time.monotonic()
        self._process = Process(line, folder, self._environment(folder))
        self.pid = self._process.process.pid
        try:
            self._wait_for_metric(marker)
        except BaseException:
            self.close()
            raise
        self.cold_start = time.monotonic() - begun

    def poll(self) -> float | None:
        if self._wait:
            time.sleep(self._wait)
        begun = time.monotonic()
        self._scrape()
        return None if self._wait else time.monotonic() - begun

    def close(self) -> None:
        self._process.close()
        self._folder.cleanup()

    def _environment(self, folder: Path) -> dict[str, str]:
        file = folder / "environment.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def _scrape(self) -> str:
        with urllib.request.urlopen(self._url, timeout=PATIENCE) as response:
            text = response.read()
        self.exported = len(text)
        return str(text, "utf-8")

    def _wait_for_metric(self, marker: str) -> None:
        deadline = time.monotonic() + PATIENCE
        sample = re.compile(rf"^{re.escape(marker)}[ {{]", re.MULTILINE)
        while True:
            self._process.check()
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if sample.search(self._scrape()):
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._url} has no {marker}")
            time.sleep(0.005)


def query_exporter(program: Path) -> Start:
    """Return query-exporter, whose queries without an interval run at each scrape."""

    def start(load: Load, dsn: str) -> MeasuredProgram:
        def command(folder: Path, port: int) -> Sequence[str | Path]:
            config = {
                "databases": {"db": {"dsn": dsn.replace("postgresql://", "postgresql+psycopg2://", 1)}},
                "metrics": {
                    query.value: {"type": "gauge", **({"labels": [query.label]} if query.label else {})}
                    for query in load.queries
                },
                "queries": {
                    query.name: {"databases": ["db"], "metrics": [query.value], "sql": query.sql}
                    for query in load.queries
                },
            }
            (folder / "config.yaml").write_text(json.dumps(config))
            return [
                program, "--config", folder / "config.yaml", "--host", LOOPBACK, "--port", str(port),
                "--log-level", "error",
            ]  # fmt: skip

        return Scraped(load.queries[-1].value, command)

    return start


def postgres_exporter(program: Path) -> Start:
    """Return postgres_exporter without its built-in metrics, and with the load as custom queries."""

    def start(load: Load, dsn: str) -> MeasuredProgram:
        def command(folder: Path, port: int) -> Sequence[str | Path]:
            entries = {}
            for query in load.queries:
                columns = [{query.value: {"usage": "GAUGE", "description": "Benchmark."}}]
                if query.label:
                    columns.append({query.label: {"usage": "LABEL", "description": "Benchmark."}})
                entries[query.name] = {"query": query.sql, "metrics": columns}
            (folder / "queries.yaml").write_text(json.dumps(entries))
            (folder / "environment.json").write_text(json.dumps({"DATA_SOURCE_NAME": _with_sslmode(dsn)}))
            return [
                program, "--disable-default-metrics", "--disable-settings-metrics", "--no-collector.database",
                "--no-collector.bgwriter", f"--extend.query-path={folder}/queries.yaml",
                f"--web.listen-address={LOOPBACK}:{port}",
            ]  # fmt: skip

        last = load.queries[-1]
        return Scraped(f"{last.name}_{last.value}", command)

    return start


def sql_exporter(program: Path) -> Start:
    """Return sql_exporter (justwatch), which polls by itself, as often as the poller."""

    def start(load: Load, dsn: str) -> MeasuredProgram:
        def command(folder: Path, port: int) -> Sequence[str | Path]:
            queries = [
                {
                    "name": query.name,
                    "help": "Benchmark.",
                    "values": [query.value],
                    "query": query.sql,
                    "labels": [query.label] if query.label else [],
                }
                for query in load.queries
            ]
            url = _with_sslmode(dsn).replace("postgresql", "postgres", 1)
            job = {"name": "all", "interval": f"{load.pace}s", "connections": [url], "queries": queries}
            (folder / "config.yaml").write_text(json.dumps({"jobs": [job]}))
            # Debian's defaults.
            (folder / "environment.json").write_text(json.dumps({"GOGC": "40", "GOMAXPROCS": "4"}))
            return [program, f"-config.file={folder}/config.yaml", f"-web.listen-address={LOOPBACK}:{port}"]

        return Scraped(f"sql_{load.queries[-1].name}", command, wait=load.pace)

    return start


class Sqlquery(Pushed):
    """A Collector with the sqlqueryreceiver, which exports over gRPC after each poll."""

    def __init__(self, load: Load, dsn: str, *, program: Path, timed: bool = False) -> None:
        """With `timed`, an extra first query marks the start of each poll."""
        self._timed = timed
        self._wall = 0.0

        def command(folder: Path, receiver: Receiver) -> tuple[Sequence[str | Path], Mapping[str, str]]:
            queries = [Query(_BEGIN, "SELECT 0 AS n", "n")] * timed + list(load.queries)
            config = {
                "receivers": {"sqlquery": sqlquery(queries, _with_sslmode(dsn), f"{load.pace}s")},
                "exporters": {
                    "otlp_grpc": {
                        "endpoint": receiver.grpc_endpoint.removeprefix("http://"),
                        "tls": {"insecure": True},
                        "compression": "none",  # as ours
                    }
                },
                "service": {
                    "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "error"}},
                    "pipelines": {"metrics": {"receivers": ["sqlquery"], "exporters": ["otlp_grpc"]}},
                },
            }
            (folder / "config.yaml").write_text(json.dumps(config))
            return [program, f"--config=file:{folder}/config.yaml"], {}

        super().__init__(load, command)

    def poll(self) -> float | None:
        super().poll()
        return self._wall if self._timed else None

    def _note(self, received: Received) -> None:
        if self._timed:
            begun = next(point.time_unix_nano for point in received.points() if point.metric == _BEGIN)
            self._wall = received.at - begun / 1e9
        super()._note(received)


def sqlquery_receiver(program: Path) -> Start:
    """Return a Collector with the sqlqueryreceiver."""
    return partial(Sqlquery, program=program)


def sqlquery(queries: Sequence[Query], dsn: str, interval: str) -> dict[str, object]:
    """Return a configuration of the sqlqueryreceiver."""
    entries = []
    for query in queries:
        metric = {"metric_name": query.name, "value_column": query.value, "description": "Benchmark."}
        attributes = {"attribute_columns": [query.label]} if query.label else {}
        entries.append({"sql": query.sql, "metrics": [{**metric, "unit": "{thing}", **attributes}]})
    return {"driver": "postgres", "datasource": dsn, "collection_interval": interval, "queries": entries}


def _with_sslmode(dsn: str) -> str:
    assert "password" not in conninfo_to_dict(dsn)
    return f"{dsn}?sslmode=disable"
