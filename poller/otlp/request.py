"""OTLP requests: encoding of collected metrics, and splitting to a size that collectors accept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import Metric, MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from poller.otlp.signals import SignalFormat, format_of

SCOPE = "poller"
"""Name of the instrumentation scope of all exported metrics."""
MAX_SIZE = 1_000_000
"""Maximum size of one request in bytes, some 10,000 ordinary data points. By default nginx accepts 1 MiB, and
a gRPC server (such as the collector's receiver) 4 MiB."""


@dataclass(frozen=True, slots=True)
class Request:
    """One encoded request of a signal."""

    body: bytes
    items: int
    """Number of data points, spans or log records in it."""


MetricsOf = tuple[Resource, Sequence[Metric]]
"""The metrics of one resource. Of two elements with the same resource, a message would lose the first."""


def encode(groups: Sequence[MetricsOf], version: str, most_bytes: int = MAX_SIZE) -> list[Request]:
    """Encode metrics under the poller's scope in `version`; without data points return no request.

    A request has at most `most_bytes`, or one data point. Raises the errors of the SDK's encoder for a value
    that OTLP cannot carry.
    """
    return list(split(message(groups, version), format_of("metrics"), most_bytes))


def message(groups: Sequence[MetricsOf], version: str) -> ExportMetricsServiceRequest:
    """Encode metrics as one message of any size; raises the errors of the SDK's encoder."""
    scope = InstrumentationScope(SCOPE, version)
    return encode_metrics(
        MetricsData(
            [
                ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], "")
                for resource, metrics in groups
            ]
        )
    )


def is_encodable(metric: Metric) -> bool:
    """Return whether OTLP can carry all values of a metric."""
    try:
        message([(Resource({}), [metric])], "")
    except Exception:  # noqa: BLE001 - the encoder raises anything
        return False
    return True


def split(whole: Any, form: SignalFormat, most_bytes: int = MAX_SIZE) -> Iterator[Request]:
    """Yield a signal's request message as encoded requests; without items yield none.

    A request has at most `most_bytes`, or one item.
    """
    items = _count(whole, form.path)
    count = min(items, math.ceil(whole.ByteSize() / most_bytes))
    if count > 1:
        for part in _parts(whole, form, count):
            yield from split(part, form, most_bytes)
    elif items:
        yield Request(whole.SerializeToString(), items)


def halves(request: Request, form: SignalFormat) -> list[Request]:
    """Return the same items in two requests; a request with one item is not split."""
    parts = _parts(form.request.FromString(request.body), form, min(2, request.items))
    return [Request(part.SerializeToString(), _count(part, form.path)) for part in parts]


def _parts(whole: Any, form: SignalFormat, count: int) -> Iterator[Any]:
    """Yield the items of `whole` in order, in `count` messages with about equally many items."""
    items = _count(whole, form.path)
    each = math.ceil(items / count)
    for start in range(0, items, each):
        part = form.request()
        part.CopyFrom(whole)
        _keep(part, form.path, start, start + each)
        yield part


def _keep(message: Any, path: Sequence[str], first: int, last: int) -> int:
    """Keep the items from `first` up to `last` and remove empty parents; return how many items there were."""
    children, below = _children(message, path[0]), path[1:]
    if not below:
        count = len(children)
        del children[max(0, last) :]
        del children[: max(0, first)]
        return count
    count = 0
    for child in children:
        count += _keep(child, below, first - count, last - count)
    nonempty = [child for child in children if _count(child, below)]
    del children[:]
    children.extend(nonempty)
    return count


def _count(message: Any, path: Sequence[str]) -> int:
    children, below = _children(message, path[0]), path[1:]
    return sum(_count(child, below) for child in children) if below else len(children)


def _children(message: Any, field: str) -> Any:
    if field == "data_points":  # the only level whose location depends on the kind of the metric
        kind = message.WhichOneof("data")
        return getattr(message, kind).data_points if kind else []
    return getattr(message, field)
