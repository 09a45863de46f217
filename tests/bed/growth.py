"""Anonymous memory of a process in bytes after many exports, each with other series.

`python -m tests.bed.growth CHANGE EXPORTS` writes two numbers: after a third of the exports, and at the end.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Callable, Mapping

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from poller.model.result import OK, Freshness, Sample
from poller.otlp.metric_reader import OnDemandReader
from poller.otlp.preferences import read_preferences
from poller.otlp.request import encode
from poller.polling.instruments import CatalogInstruments, Frame
from poller.telemetry.status_metrics import QueryMetrics
from tests.bed.definitions import a_metric, a_query, a_result
from tests.benchmarks.figures import memory

RESOURCE = Resource({})
SERIES = 1000
MEASURED = 300
"""Series of a counter and of a histogram; the SDK needs more time for each than for a value of a query."""
_QUERY = a_query("q", metrics=(a_metric("things", attribute_columns=("kind",)),))
_SPAN = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

Export = Callable[[int], None]
"""Performs the export with this number."""


def other_order() -> Export:
    export_kinds, kinds = _catalog(), [f"kind-{number}" for number in range(SERIES)]

    def export(number: int) -> None:
        random.Random(number).shuffle(kinds)
        export_kinds(kinds, number)

    return export


def other_attributes() -> Export:
    export_kinds = _catalog()
    return lambda number: export_kinds([f"kind-{number}-{index}" for index in range(SERIES)], number)


def other_queries() -> Export:
    metrics, instruments = QueryMetrics(), CatalogInstruments("0")

    def export(number: int) -> None:
        queries = [a_query(f"q{number}_{index}") for index in range(SERIES // 20)]
        statuses = [Freshness(query, 1.0, 1.0, False, 1, OK, 0.5) for query in queries]
        frame = Frame([metric for query in queries for metric in query.metrics], (), statuses, [metrics])
        encode([(RESOURCE, instruments.collect(frame))], "0")

    return export


def exemplars() -> Export:
    return _measure({"OTEL_METRICS_EXEMPLAR_FILTER": "always_on"})


def exponential_exemplars() -> Export:
    aggregation = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    return _measure(
        {aggregation: "base2_exponential_bucket_histogram", "OTEL_METRICS_EXEMPLAR_FILTER": "always_on"}
    )


def deltas() -> Export:
    temporality = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    return _measure({temporality: "delta", "OTEL_METRICS_EXEMPLAR_FILTER": "always_off"})


CHANGES: dict[str, Callable[[], Export]] = {
    make.__name__: make
    for make in (other_order, other_attributes, other_queries, exemplars, exponential_exemplars, deltas)
}


def _catalog() -> Callable[[list[str], int], None]:
    instruments = CatalogInstruments("0")

    def export(kinds: list[str], number: int) -> None:
        results = [a_result(_QUERY, *(Sample("things", number, {"kind": kind}) for kind in kinds))]
        encode([(RESOURCE, instruments.collect(Frame(_QUERY.metrics, results)))], "0")

    return export


def _measure(environ: Mapping[str, str]) -> Export:
    preferences = read_preferences(environ)
    reader = OnDemandReader(preferences.temporality, preferences.aggregation)
    provider = MeterProvider([reader], RESOURCE, preferences.exemplar_filter, shutdown_on_exit=False)
    meter = provider.get_meter("poller")
    counter = meter.create_counter("c", "1", "C.")
    histogram = meter.create_histogram("h", "s", "H.", explicit_bucket_boundaries_advisory=(0.1, 0.5, 1.0))
    context = set_span_in_context(NonRecordingSpan(_SPAN))

    def export(number: int) -> None:
        for series in range(MEASURED):
            attributes = {"query": str(series)}
            counter.add(1, attributes, context)
            histogram.record(random.Random(series + number).random(), attributes, context)
        encode([(RESOURCE, reader.read())], "0")

    return export


def main(change: str, exports: int) -> None:
    export = CHANGES[change]()
    for number in range(exports):
        export(number)
        if number + 1 in (exports // 3, exports):
            gc.collect()
            print(int(memory(os.getpid()).own * 1e6), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
