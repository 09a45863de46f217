"""The least that an export by the SDK costs: 28 observable gauges, one export a minute, nothing else.

    python -m tests.benchmarks.sdk_export PROTOCOL ENDPOINT

It uses the SDK's own reader and exporter (`grpc` or `http`), without a query, a queue on disk, a heartbeat or
metrics about itself. `idle` compares the daemon with it.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
from collections.abc import Iterable

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader

_INTERVAL_MILLIS = 60_000
_GAUGES, _SERIES = 14, 2
"""As many data points as the shipped queries and the daemon's own metrics have together."""


def main(protocol: str, endpoint: str) -> None:
    reader = PeriodicExportingMetricReader(_exporter(protocol, endpoint), _INTERVAL_MILLIS)
    provider = MeterProvider([reader])
    meter = provider.get_meter("benchmark")
    for number in range(_GAUGES):
        meter.create_observable_gauge(f"gauge.{number}", [functools.partial(_observe, number)])
    provider.force_flush()
    gc.collect()
    gc.freeze()  # as the daemon does after its start
    threading.Event().wait()


def _observe(number: int, _: CallbackOptions) -> Iterable[Observation]:
    return [Observation(number, {"state": str(series)}) for series in range(_SERIES)]


def _exporter(protocol: str, endpoint: str) -> MetricExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc

        return Grpc(endpoint=endpoint, insecure=True)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http

    return Http(endpoint=f"{endpoint}/v1/metrics")


if __name__ == "__main__":
    main(*sys.argv[1:])
