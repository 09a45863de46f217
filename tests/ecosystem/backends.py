"""A Collector, Prometheus and VictoriaMetrics on 127.0.0.1."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from poller.receiver.ports import free_ports
from tests.bed.documentation import only
from tests.bed.messaging import MessagingServer
from tests.bed.process import ROOT, Process
from tests.ecosystem.builds import need

RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
"""The generated alerting rules."""

T = TypeVar("T")
PATIENCE = 90.0
SHIPPED = {
    "users_total": 37,
    "pending_messages_total": 8,
    "attachments_total_count": 5,
    "attachments_total_bytes": 15120,
}
"""Values of the shipped gauges for the rows of the fixture `server`."""
_, RELABEL = only("relabel")
_, DOCUMENTED_COLLECTOR = only("collector")
IDENTITY = {"job": "obscura-poller", "instance": "eu-1"}


class Backend(ABC):
    """A server with Prometheus' HTTP API and an OTLP receiver; its data survive `restart`."""

    _READY: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = self._start()

    @property
    @abstractmethod
    def otlp(self) -> str:
        """The endpoint of OTLP over HTTP, without the path of a signal."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _start(self) -> Process:
        process = Process(self._command())
        try:
            _wait_for(f"{self.url}{self._READY}", process)
        except BaseException:
            process.close()
            raise
        return process

    def stop(self) -> None:
        self.process.close()

    def restart(self) -> None:
        """Start it again on the same port, with the same data."""
        self.process = self._start()

    def series(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels (without the name) and the value of each series of an instant query."""
        return [
            (_labels(series["metric"]), float(series["value"][1]))
            for series in self.api("query", query=expr)["result"]
        ]

    def wait_for_series(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Return the series of an instant query as soon as there are any."""
        return self.wait_for(lambda: self.series(expr))

    def samples(self, selector: str, seconds: int) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """Return the labels (without the name) and the stored (time, value) pairs of the last `seconds`."""
        return [
            (_labels(series["metric"]), [(float(at), float(value)) for at, value in series["values"]])
            for series in self.api("query", query=f"{selector}[{seconds}s]")["result"]
        ]

    def api(self, path: str, **parameters: str) -> Any:
        """Return `data` of an answer of the HTTP API; raises AssertionError with the text of an error."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def wait_for(self, read: Callable[[], T], timeout: float = PATIENCE) -> T:
        """Return the first true result of `read`; raises AssertionError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not (result := read()):
            assert self.process.running, self.process.stderr
            assert time.monotonic() < deadline, self.process.stderr[-5000:]
            time.sleep(0.2)
        return result


class Prometheus(Backend):
    """Prometheus 3 with its OTLP receiver."""

    _READY = "/-/ready"

    def __init__(
        self,
        folder: Path,
        *,
        out_of_order: str = "0s",
        strategy: str | None = None,
        rules: Path | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        """`options` are further options of the command line."""
        self._out_of_order = out_of_order
        self._strategy = strategy
        self._rules = [str(rules)] if rules else []
        self._options = options
        super().__init__(folder)

    @property
    def otlp(self) -> str:
        return f"{self.url}/api/v1/otlp"

    def _command(self) -> list[str]:
        configuration: dict[str, Any] = {
            "global": {"evaluation_interval": "1s"},
            "rule_files": self._rules,
            "storage": {"tsdb": {"out_of_order_time_window": self._out_of_order}},
        }
        if self._strategy:
            configuration["otlp"] = {"translation_strategy": self._strategy}
        file = self.folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        return [
            need("prometheus"),
            f"--config.file={file}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--web.enable-otlp-receiver",
            "--web.enable-remote-write-receiver",
            *self._options,
        ]


class VictoriaMetrics(Backend):
    """A single node of VictoriaMetrics with names and labels as in Prometheus, by the documented settings."""

    _READY = "/health"

    @property
    def otlp(self) -> str:
        return f"{self.url}/opentelemetry"

    def _command(self) -> list[str]:
        relabel = self.folder / "relabel.yml"
        relabel.write_text(RELABEL, encoding="utf-8")
        return [
            need("victoria-metrics"),
            f"-relabelConfig={relabel}",
            f"-storageDataPath={self.folder / 'data'}",
            f"-httpListenAddr=127.0.0.1:{self.port}",
            "-opentelemetry.usePrometheusNaming",
            "-search.latencyOffset=0s",  # otherwise a query omits the newest 30 seconds
            "-inmemoryDataFlushInterval=1s",
            "-loggerLevel=WARN",
        ]


class Collector:
    """An OpenTelemetry Collector that receives OTLP over both protocols."""

    def __init__(
        self,
        folder: Path,
        exporters: Mapping[str, Any],
        *,
        metrics_only: tuple[str, ...] = (),
        tls: Mapping[str, str] | None = None,
        grpc: Mapping[str, Any] | None = None,
        http: Mapping[str, Any] | None = None,
        receivers: Mapping[str, Any] | None = None,
    ) -> None:
        """`exporters` get all signals, those in `metrics_only` metrics. `tls`: `cert_file` and `key_file`.

        `grpc` and `http` are further settings of the OTLP receiver's protocols, `receivers` further
        receivers, of metrics.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.grpc_port, self.http_port = free_ports(2)
        self._exporters = exporters
        self._metrics_only = metrics_only
        self._tls = tls
        self._grpc, self._http = grpc or {}, http or {}
        self._receivers = dict(receivers or {})
        self.process = self._start({})

    @property
    def grpc_endpoint(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.grpc_port}"

    @property
    def http_endpoint(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.http_port}"

    def stop(self) -> None:
        """Kill it; its queue on disk stays."""
        self.process.close()

    def restart(self, processors: Mapping[str, Any] | None = None) -> None:
        """Start it again on the same ports, with the queue on disk and with `processors`."""
        self.process = self._start(processors or {})

    def _start(self, processors: Mapping[str, Any]) -> Process:
        file = self.folder / "collector.yaml"
        file.write_text(yaml.safe_dump(self._configuration(processors)), encoding="utf-8")
        process = Process([need("collector"), f"--config=file:{file}"])
        try:
            process.wait_for_line("Everything is ready", PATIENCE)
        except BaseException:
            process.close()
            raise
        return process

    def _configuration(self, processors: Mapping[str, Any]) -> dict[str, Any]:
        security = {"tls": dict(self._tls)} if self._tls else {}
        protocols = {
            "grpc": {"endpoint": f"127.0.0.1:{self.grpc_port}", **security, **self._grpc},
            "http": {"endpoint": f"127.0.0.1:{self.http_port}", **security, **self._http},
        }
        pipeline = {"receivers": ["otlp"], "processors": list(processors)}
        metrics = {"receivers": ["otlp", *self._receivers], "exporters": list(self._exporters)}
        pipelines: dict[str, Any] = {"metrics": {**pipeline, **metrics}}
        if rest := [name for name in self._exporters if name not in self._metrics_only]:
            pipelines |= {signal: {**pipeline, "exporters": rest} for signal in ("traces", "logs")}
        storage = {"directory": str(self.folder / "queue"), "create_directory": True}
        return {
            "extensions": {"file_storage": storage},
            "receivers": {"otlp": {"protocols": protocols}, **self._receivers},
            "processors": dict(processors),
            "exporters": dict(self._exporters),
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "extensions": ["file_storage"],
                "pipelines": pipelines,
            },
        }


def _wait_for(url: str, process: Process) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except OSError:
            assert process.running, process.stderr
            assert time.monotonic() < deadline, process.stderr
            time.sleep(0.05)
        else:
            return


def environment(server: MessagingServer, endpoint: str, folder: Path, **more: str) -> dict[str, str]:
    """Return the variables of a daemon that polls and exports each second, with its state in `folder`."""
    return {
        "POLLER_DATABASE_URL": server.standby_dsn,
        "POLLER_OTLP_ENDPOINT": endpoint,
        "POLLER_INSTANCE": IDENTITY["instance"],
        "POLLER_INTERVAL": "1s",
        "POLLER_EXPORT_INTERVAL": "1s",
        "POLLER_STATE_DIR": str(folder / "state"),
        **more,
    }


def complete_exports(backend: Backend) -> list[float]:
    """Return the number of waiting requests at each export, as soon as the backend has every export.

    Each export contains the number of delivered ones. Returns an empty list before that.
    """
    waiting = backend.samples('poller_export_spool_requests{poller_signal="metrics"}', 3600)
    delivered = 'poller_export_requests_total{poller_signal="metrics",poller_outcome="ok"}'
    counts = backend.samples(delivered, 3600)
    if not waiting or not counts:
        return []
    ((_, exports),), ((_, counted),) = waiting, counts
    return [value for _, value in exports] if len(exports) - 1 == counted[-1][1] else []


def _labels(metric: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in metric.items() if name != "__name__"}
