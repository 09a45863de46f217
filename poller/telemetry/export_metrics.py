"""Metrics `poller.export.*`: requests by outcome, lost data points and queue size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import CallbackOptions, Meter, Observation

if TYPE_CHECKING:
    from poller.otlp.retry_sender import Queue, RetrySender

SIGNAL = "poller.signal"
REASON = "poller.reason"


def register_exports(meter: Meter, deliveries: Sequence[RetrySender]) -> None:
    """Create the metrics `poller.export.*`, which read the counts of each signal's delivery.

    The conventions' `otel.sdk.exporter.*` are not used, because they have one metric per signal, and none
    for requests that are queued, retried or dropped from a queue.
    """

    def counter(
        name: str,
        unit: str,
        description: str,
        read: Callable[[RetrySender], Counter[Any]],
        attributes: Callable[[Any], Mapping[str, str | int]],
    ) -> None:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for sender in deliveries:
                for key, count in read(sender).copy().items():
                    yield Observation(count, {SIGNAL: sender.form.signal, **attributes(key)})

        meter.create_observable_counter(
            f"poller.export.{name}", [observe], unit=unit, description=description
        )

    def gauge(name: str, unit: str, description: str, read: Callable[[Queue], float]) -> None:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for sender in deliveries:
                yield Observation(read(sender.queue), {SIGNAL: sender.form.signal})

        meter.create_observable_gauge(
            f"poller.export.spool.{name}", [observe], unit=unit, description=description
        )

    counter(
        "requests",
        "{request}",
        "Requests sent by outcome: ok, failed (will be retried), refused (dropped); by error.type.",
        lambda sender: sender.stats.requests,
        dict,
    )
    counter(
        "rejected",
        "{item}",
        "Data points, spans and log records that the collector rejected, by reason.",
        lambda sender: sender.stats.rejected,
        lambda reason: {REASON: reason},
    )
    counter(
        "dropped",
        "{request}",
        "Requests that were dropped from the queue, by reason.",
        lambda sender: sender.queue.dropped,
        lambda reason: {REASON: reason},
    )
    gauge("requests", "{request}", "Requests that wait to be delivered.", lambda queue: queue.requests)
    gauge("size", "By", "Size of the requests that wait.", lambda queue: queue.size)
    gauge("age", "s", "Age of the oldest request that waits; 0 if none waits.", lambda queue: queue.age)
