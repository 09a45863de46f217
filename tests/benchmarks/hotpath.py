"""Count what the hot path does for one more row and one more query, and compare it with what it did.

    python -m tests.benchmarks.hotpath DSN [--write]

What is counted is calls of Python functions, ours and the libraries', and blocks of memory kept. Neither
knows how busy the machine is, so that they can be compared in a test where a duration cannot. A count is
taken at two sizes and the difference divided, so that what is done once does not show. Calls are told by
`sys.setprofile`, which sees one thread only: deliveries in the background do not count. Comprehensions are
left out, as they are calls up to Python 3.11 and none from 3.12 on. Instructions (valgrind) would take a
hundred times as long and differ between builds of Python. `--write` makes what is counted now the baseline.
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

from poller.cli.load_catalog import open_catalog
from poller.config.load_settings import load
from poller.config.queries.schema.query import DeclaredQuery
from poller.daemon.build import Telemetry, open_cycle, open_exporter
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.rows import Column, Rows
from poller.otlp.exporter import resource
from poller.otlp.request import encode
from poller.polling.instruments import CatalogInstruments, Frame
from poller.polling.mapping import to_samples
from poller.polling.store import ResultStore
from poller.receiver.receiver import Receiver
from tests.benchmarks.contestants import HOURLY, environment, ours
from tests.benchmarks.loads import trivial

BASELINE = Path(__file__).with_name("baseline.json")
MARGIN = 1.5
"""How many times the baseline a count may be; versions of Python and of the SDK differ by far less."""
_FEW, _MANY = 100, 300
_COMPREHENSIONS = {"<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"}
_TEXT, _BIGINT = 25, 20


def counted(dsn: str) -> dict[str, float]:
    """All counts, by what they are for; `dsn` is of a server that answers trivial queries."""
    return {
        "calls per row, mapped and encoded": _slope(lambda rows: _calls(lambda: _exported(_mapped(rows)))),
        "blocks per series kept": _slope(_blocks),
        "calls per query, polled and pushed": _per_query(dsn, traces=False),
        "calls per query, polled and pushed, with its span": _per_query(dsn, traces=True),
    }


def baseline() -> dict[str, float]:
    """The counts that are committed."""
    return dict(json.loads(BASELINE.read_text()))


def _slope(count: Callable[[int], int]) -> float:
    count(_FEW)  # whatever is made once is made by now
    return (count(_MANY) - count(_FEW)) / (_MANY - _FEW)


def _calls(action: Callable[[], object]) -> int:
    """How many Python functions `action` calls in this thread, comprehensions aside."""
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
    """How many blocks of memory the samples of so many rows take."""
    given = _rows(rows)
    gc.collect()
    before = sys.getallocatedblocks()
    kept = to_samples(_definition(rows), given)
    gc.collect()
    blocks = sys.getallocatedblocks() - before
    del kept
    return blocks


def _mapped(rows: int) -> PollResult:
    query = _definition(rows)
    return PollResult(query, 1.0, 0.1, "ok", to_samples(query, _rows(rows)).samples)


def _exported(result: PollResult) -> None:
    instruments = CatalogInstruments(lambda: Frame(result.query.metrics, [result]), _RESOURCE, "0")
    encode(instruments.collect(), _RESOURCE, "0")


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
            given = environment(file, dsn, receiver.grpc_endpoint, "grpc", traces, HOURLY)
            settings = load(given)
            catalog = open_catalog(settings)
            store = ResultStore(catalog.queries)
            push = open_exporter(settings, store, periodic=False)
            assert push is not None
            telemetry = Telemetry(settings, push)
            cycle = open_cycle(settings, catalog.queries, store, push, daemon=True, tracing=telemetry.tracing)

            def once() -> None:
                assert {result.outcome for result in cycle.run(catalog.queries)} == {"ok"}
                assert push.flush(60)

            try:
                once()
                return _calls(once)
            finally:
                cycle.replica.close()
                push.shutdown(60)
                telemetry.shutdown(60)

    return _slope(calls)


_RESOURCE = resource("benchmark", "1", "0")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.hotpath")
    parser.add_argument("dsn")
    parser.add_argument("--write", action="store_true", help="make what is counted the baseline")
    given = parser.parse_args()
    told = {name: round(count, 1) for name, count in counted(given.dsn).items()}
    print(json.dumps(told, indent=2))
    if given.write:
        BASELINE.write_text(json.dumps(told, indent=2) + "\n")
