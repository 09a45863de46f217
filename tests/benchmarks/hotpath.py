"""Work of the hot path for one more row and one more query, compared with a baseline.

    python -m tests.benchmarks.hotpath DSN [--write]

It counts calls of Python functions, including those of libraries, and blocks of memory in use. Neither
depends on the load of the machine, so that a test can compare them, unlike durations. A count is the
difference of the counts at two sizes, divided by the difference of the sizes, so that work done once cancels
out. `sys.setprofile` reports calls of one thread only: deliveries in the background do not count.
Comprehensions are ignored, because they are calls only up to Python 3.11. Counting instructions (valgrind)
would take a hundred times as long and differ between builds of Python. `--write` stores the current counts as
the baseline.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from poller.config.load_settings import load
from poller.config.queries.load import open_catalog
from poller.config.queries.schema.query import DeclaredQuery
from poller.daemon.target_factory import TargetFactory
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.rows import Column, Rows
from poller.otlp.exporter import resource
from poller.otlp.request import encode
from poller.polling.instruments import CatalogInstruments, Frame
from poller.polling.mapping import to_samples
from poller.receiver.receiver import Receiver
from tests.benchmarks.loads import trivial
from tests.benchmarks.measured_programs import HOURLY, environment, ours

BASELINE = Path(__file__).with_name("baseline.json")
MARGIN = 1.5
"""Largest ratio of a count to the baseline; versions of Python and of the SDK differ by far less."""
_FEW, _MANY = 100, 300
_COMPREHENSIONS = {"<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"}
_TEXT, _BIGINT = 25, 20


def counted(dsn: str) -> dict[str, float]:
    """Return all counts by name; `dsn` belongs to a server that can run trivial queries."""
    return {
        "calls per row, mapped and encoded": _slope(lambda rows: _calls(lambda: _exported(_mapped(rows)))),
        "blocks per series kept": _slope(_blocks),
        "calls per query, polled and pushed": _per_query(dsn, traces=False),
        "calls per query, polled and pushed, with its span": _per_query(dsn, traces=True),
    }


def baseline() -> dict[str, float]:
    """Return the committed counts."""
    return dict(json.loads(BASELINE.read_text()))


def _slope(count: Callable[[int], int]) -> float:
    count(_FEW)  # creates everything that is created once
    return (count(_MANY) - count(_FEW)) / (_MANY - _FEW)


def _calls(action: Callable[[], object]) -> int:
    """Return the number of Python functions that `action` calls in this thread, without comprehensions."""
    calls = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_name not in _COMPREHENSIONS

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
    return calls


def _blocks(rows: int) -> int:
    """Return the number of memory blocks in the samples of so many rows."""
    source_rows = _rows(rows)
    gc.collect()
    before = sys.getallocatedblocks()
    samples = to_samples(_definition(rows), source_rows, at=0.0)
    gc.collect()
    blocks = sys.getallocatedblocks() - before
    del samples
    return blocks


def _mapped(rows: int) -> PollResult:
    query = _definition(rows)
    return PollResult(query, 1.0, 0.1, "ok", to_samples(query, _rows(rows), at=0.0).samples)


def _exported(result: PollResult) -> None:
    instruments = CatalogInstruments("0")
    encode([(_RESOURCE, instruments.collect(Frame(result.query.metrics, [result])))], "0")


def _rows(count: int) -> Rows:
    columns = (Column("device", _TEXT), Column("n", _BIGINT))
    return Rows(columns, [(b"device-%d" % number, b"%d" % number) for number in range(count)])


def _definition(rows: int) -> QueryDefinition:
    metric = {
        "name": "wide",
        "description": "Benchmark.",
        "unit": "{thing}",
        "value_column": "n",
        "attribute_columns": ["device"],
    }
    bounds = {"interval": 60, "timeout": 1, "max_age": 180, "max_series": rows}
    written = {"name": "wide", "sql": "SELECT 1", **bounds, "metrics": [metric]}
    return DeclaredQuery.model_validate(written).definition()


def _per_query(dsn: str, *, traces: bool) -> float:
    def calls(queries: int) -> int:
        with tempfile.TemporaryDirectory() as folder, Receiver(keep=1) as receiver:
            file = Path(folder, "queries.yaml")
            file.write_text(json.dumps(ours(trivial(queries), HOURLY)))
            variables = environment(file, dsn, receiver.grpc_endpoint, "grpc", traces, HOURLY)
            settings = load(variables)
            catalog = open_catalog(settings)
            factory = TargetFactory(settings)
            push = factory.exporter
            assert push is not None
            cycle = factory.open(settings.only_target(), catalog.queries).cycle

            def once() -> None:
                assert {result.outcome for result in cycle.run(catalog.queries)} == {"ok"}
                assert push.flush(60)

            try:
                once()
                return _calls(once)
            finally:
                cycle.source.close()
                push.shutdown(60)
                factory.telemetry.shutdown(60)

    return _slope(calls)


_RESOURCE = resource("benchmark", "1", "0")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.hotpath")
    parser.add_argument("dsn")
    parser.add_argument("--write", action="store_true", help="make what is counted the baseline")
    options = parser.parse_args()
    counts = {name: round(count, 1) for name, count in counted(options.dsn).items()}
    print(json.dumps(counts, indent=2))
    if options.write:
        BASELINE.write_text(json.dumps(counts, indent=2) + "\n")
