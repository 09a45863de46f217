"""Export many times, each time with other series, and print the anonymous memory of the process in bytes.

`python -m tests.bed.growth CHANGE EXPORTS` writes two numbers: after a third of the exports, and at the end.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Callable

from opentelemetry.trace import SpanContext, TraceFlags

from poller.encoding import encoded
from poller.instruments import Counter, Histogram
from poller.points import Points
from poller.preferences import Kind, Preferences
from poller.result import Sample
from poller.standing import Standing
from poller.state import OK
from poller.store import Freshness
from tests.bed.definitions import a_metric, a_query, a_result
from tests.benchmarks.figures import memory

SERIES = 1000
_DELTAS: frozenset[Kind] = frozenset({"counter", "histogram"})
_QUERY = a_query("q", metrics=(a_metric("things", attribute_columns=("kind",)),))
_SPAN = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

Export = Callable[[int], None]
"""Makes the export of a number."""


def other_order() -> Export:
    points, kinds = Points(), [f"kind-{number}" for number in range(SERIES)]

    def export(number: int) -> None:
        random.Random(number).shuffle(kinds)
        _encode(points, kinds, number)

    return export


def other_attributes() -> Export:
    points = Points()
    return lambda number: _encode(points, [f"kind-{number}-{one}" for one in range(SERIES)], number)


def other_queries() -> Export:
    standing = Standing()

    def export(number: int) -> None:
        queries = (a_query(f"q{number}_{one}") for one in range(SERIES // 20))
        known = [Freshness(query, 1.0, 1.0, False, 1, False, OK) for query in queries]
        for metric in standing.gauges(known, number + 1):
            encoded(metric)

    return export


def exemplars() -> Export:
    return _measure(Preferences(exemplars="always_on"))


def exponential_exemplars() -> Export:
    return _measure(Preferences(exponential=True, exemplars="always_on"))


def deltas() -> Export:
    return _measure(Preferences(deltas=_DELTAS, exemplars="always_off"))


CHANGES: dict[str, Callable[[], Export]] = {
    make.__name__: make
    for make in (other_order, other_attributes, other_queries, exemplars, exponential_exemplars, deltas)
}


def _encode(points: Points, kinds: list[str], number: int) -> None:
    samples = (Sample("things", number, {"kind": kind}) for kind in kinds)
    for metric in points.metrics([a_result(_QUERY, *samples)], number + 1):
        encoded(metric)


def _measure(preferences: Preferences) -> Export:
    counter = Counter("c", "1", "C.", preferences)
    histogram = Histogram("h", "s", "H.", (0.1, 0.5, 1.0), preferences)

    def export(number: int) -> None:
        for series in range(SERIES):
            attributes = {"query": str(series)}
            counter.add(1, attributes, _SPAN)
            histogram.record(random.Random(series + number).random(), attributes, _SPAN)
        counter.collect(number + 1)
        histogram.collect(number + 1)

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
