"""The work of a tick depends on its own queries, not on the number of other queries."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

from poller.config.load_settings import load
from poller.daemon.poll_cycle import PollCycle
from poller.daemon.target_factory import TargetFactory
from poller.model.query import QueryDefinition
from tests.bed.definitions import a_metric, a_query
from tests.bed.postgres import Database

FEW, MANY = 40, 1500
TICK = 4
"""Number of queries of the measured tick."""


class Work(NamedTuple):
    """Resources that a tick used."""

    steps: int
    """Executed lines of Python."""
    memory: int
    """Peak of allocated bytes."""
    written: int
    """Bytes written to files."""


@pytest.mark.timeout(300)
def test_the_work_of_a_tick_does_not_grow_with_the_number_of_queries(
    database: Database, tmp_path: Path
) -> None:
    few, many = [work(database.primary_dsn, tmp_path / str(count), count) for count in (FEW, MANY)]
    assert few.written > 0
    assert many.steps < 1.2 * few.steps
    assert many.written < 1.2 * few.written
    # A pointer for each query would be more.
    assert many.memory < few.memory + 8 * (MANY - FEW)


def work(dsn: str, state: Path, count: int) -> Work:
    """Return the work of a tick in a process that has a value of each of `count` queries."""
    settings = load({"POLLER_DATABASE_URL": dsn, "POLLER_STATE_DIR": str(state)})
    queries = [tenant(number) for number in range(count)]
    cycle = TargetFactory(settings, daemon=True, push=False).open(settings.only_target(), queries).cycle
    try:
        assert all(result.outcome == "ok" for result in cycle.run(queries))
        cycle.statuses({})
        cycle.run(queries[:TICK])
        return Work(
            steps(cycle, queries[:TICK]), allocated(cycle, queries[:TICK]), written(cycle, queries[:TICK])
        )
    finally:
        cycle.source.close()


def tenant(number: int) -> QueryDefinition:
    """Return a query that feeds a common metric with its own series.

    By their names, the rows of a tick are next to each other in the state file, whatever their number.
    """
    metric = a_metric("tenant_size", attributes={"tenant": f"tenant-{number}"})
    return a_query(f"tenant_{number:04}", f"SELECT {number} AS n", metrics=(metric,))


def steps(cycle: PollCycle, queries: list[QueryDefinition]) -> int:
    count = 0

    def note(_: FrameType, event: str, __: Any) -> Any:
        nonlocal count
        count += event == "line"
        return note

    before = sys.gettrace()
    sys.settrace(note)
    try:
        cycle.run(queries)
    finally:
        sys.settrace(before)
    return count


def allocated(cycle: PollCycle, queries: list[QueryDefinition]) -> int:
    tracemalloc.start()
    try:
        cycle.run(queries)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def written(cycle: PollCycle, queries: list[QueryDefinition]) -> int:
    before = _written()
    cycle.run(queries)
    return _written() - before


def _written() -> int:
    """Return the bytes that this thread has written to files (proc(5), `/proc/pid/io`)."""
    counters = dict(line.split(": ") for line in Path("/proc/thread-self/io").read_text().splitlines())
    return int(counters["wchar"])
