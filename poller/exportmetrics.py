"""Show what becomes of the exports: requests by outcome, what was lost, what waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Meter, Observation

if TYPE_CHECKING:
    from poller.spool import Spool
    from poller.tally import Tally

REASON = "poller.reason"


def register(meter: Meter, tally: Tally, spool: Spool) -> None:
    """Create the metrics under `poller.export.*`, which read what delivery and spool have counted."""

    def counter(name: str, unit: str, description: str, read: Callable[[], Iterator[Observation]]) -> None:
        meter.create_observable_counter(
            f"poller.export.{name}", [lambda _: read()], unit=unit, description=description
        )

    def gauge(name: str, unit: str, description: str, read: Callable[[], float]) -> None:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            yield Observation(read())

        meter.create_observable_gauge(
            f"poller.export.spool.{name}", [observe], unit=unit, description=description
        )

    counter(
        "requests",
        "{request}",
        "Requests sent by outcome: ok, failed (kept and tried again), refused (dropped); by error.type.",
        lambda: (Observation(count, dict(key)) for key, count in tally.requests.copy().items()),
    )
    counter(
        "rejected",
        "{data_point}",
        "Data points that the collector did not want, by reason.",
        lambda: (Observation(count, {REASON: reason}) for reason, count in tally.rejected.copy().items()),
    )
    counter(
        "dropped",
        "{request}",
        "Requests that waited and will never be delivered, by reason.",
        lambda: (Observation(count, {REASON: reason}) for reason, count in spool.dropped.copy().items()),
    )
    gauge("requests", "{request}", "Requests that wait to be delivered.", lambda: spool.requests)
    gauge("size", "By", "Size of the requests that wait.", lambda: spool.size)
    gauge("age", "s", "Age of the oldest request that waits; 0 where none does.", lambda: spool.age)
