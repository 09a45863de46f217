"""Metric view and filter that remove attributes identifying a client.

It imports the SDK, so no module imports it before telemetry is configured.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.metrics import (
    AlignedHistogramBucketExemplarReservoir,
    ExemplarReservoir,
    SimpleFixedSizeExemplarReservoir,
)
from opentelemetry.sdk.metrics.export import Metric, MetricsData, ScopeMetrics
from opentelemetry.sdk.metrics.view import View

from poller.events._privacy.attributes import is_denied, is_harmless, scrub_attributes
from poller.events.metrics import SCOPE
from poller.model.series import starting_in_time, with_points

logger = logging.getLogger(__name__)


class _Permitted(set[str]):
    """Set of all attribute names except denied ones; the SDK uses it for membership tests only."""

    def __contains__(self, name: object) -> bool:
        return not is_denied(str(name))


def permitting() -> View:
    """Return a view that omits denied attributes from every instrument and sums up the merged series.

    An exemplar would keep omitted attributes, so the reservoir receives scrubbed ones.
    """
    return View(
        instrument_name="*", attribute_keys=_Permitted({"*"}), exemplar_reservoir_factory=_reservoir_of
    )


def _reservoir_of(aggregation: type[Any]) -> Any:
    """Return a factory for the SDK's default reservoir that scrubs attributes first."""
    aligned = "ExplicitBucketHistogram" in aggregation.__name__

    def build(**kwargs: Any) -> ExemplarReservoir:
        inner = (AlignedHistogramBucketExemplarReservoir if aligned else SimpleFixedSizeExemplarReservoir)(
            **kwargs
        )
        return _ScrubbedReservoir(inner)

    return build


class _ScrubbedReservoir(ExemplarReservoir):
    def __init__(self, inner: ExemplarReservoir) -> None:
        self._inner = inner

    def offer(self, value: float, time_unix_nano: int, attributes: Any, context: Context) -> None:
        try:
            if attributes and not is_harmless(attributes):
                attributes = scrub_attributes(attributes)
        except Exception:  # noqa: BLE001 - drop the exemplar instead of failing the measurement
            return
        self._inner.offer(value, time_unix_nano, attributes, context)

    def collect(self, point_attributes: Any) -> Any:
        return self._inner.collect(point_attributes)


_BEYOND = 2**63
_logged: set[tuple[str, str]] = set()


def scrub_metrics(data: MetricsData) -> MetricsData:
    """Return the metrics without data points whose attribute values identify a client.

    Masking a value instead would merge several series into one with a number that was never measured. The
    first omitted data point of each metric is logged. Start times are corrected (`starting_in_time`).
    """
    return MetricsData(
        [
            replace(
                resource,
                scope_metrics=[
                    replace(
                        scope,
                        metrics=[_scrub_metric(metric, scope) for metric in scope.metrics],
                    )
                    for scope in resource.scope_metrics
                ],
            )
            for resource in data.resource_metrics
        ]
    )


def _scrub_metric(metric: Metric, scope: ScopeMetrics) -> Metric:
    metric = starting_in_time(metric)
    points: list[Any] = list(metric.data.data_points)
    routed = scope.scope.name == SCOPE
    encodable = [point for point in points if _is_encodable(point)]
    if len(encodable) < len(points) and (metric.name, "number") not in _logged:
        _logged.add((metric.name, "number"))
        logger.warning(
            "%s has numbers that do not fit 64 bits; data points with them are not exported", metric.name
        )
    clean: Any = [point for point in encodable if _is_harmless(point.attributes or {}, routed=routed)]
    if len(clean) == len(points):
        return metric
    if len(clean) < len(encodable) and (metric.name, "attributes") not in _logged:
        _logged.add((metric.name, "attributes"))
        logger.warning(
            "%s has attributes that identify a client; data points with them are not exported", metric.name
        )
    return with_points(metric, clean)


def _is_encodable(point: Any) -> bool:
    """Return whether the point's integers fit OTLP's 64 bits; others would fail the export of the interval.

    Values are not changed to fit.
    """
    numbers = [getattr(point, name, None) for name in ("value", "sum", "min", "max")]
    numbers += [exemplar.value for exemplar in point.exemplars]
    return all(-_BEYOND <= number < _BEYOND for number in numbers if isinstance(number, int))


def _is_harmless(attributes: Mapping[str, Any], *, routed: bool) -> bool:
    """Return whether the attributes may leave the process; `routed`: `route` is a template of the server."""
    if routed:
        attributes = {name: value for name, value in attributes.items() if name != "route"}
    return is_harmless(attributes)
