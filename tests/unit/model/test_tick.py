"""Every query has one tick, and every tick has a fixed offset in the interval."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.model.tick import Tick, ticks
from tests.bed.definitions import a_query
from tests.bed.process import ROOT


def test_queries_of_equal_group_and_interval_share_a_tick_in_their_order() -> None:
    a, b, c = (a_query(name, interval=60, timeout=1) for name in "abc")
    slow = a_query("slow", interval=300)
    other = a_query("other", interval=60, timeout=1, group="extra")
    all_ticks = ticks([b, slow, a, other, c], "host")
    assert [(tick.name, tick.queries, tick.interval) for tick in all_ticks] == [
        ("default/1m", (b, a, c), 60.0),
        ("default/5m", (slow,), 300.0),
        ("extra/1m", (other,), 60.0),
    ]


def test_every_query_is_in_a_single_tick_and_names_of_ticks_are_unique() -> None:
    intervals = [1, 1.0000001, 60, 60.0004, 60.1, 300, 86400]
    queries = [a_query(f"q{i}", interval=interval, timeout=1) for i, interval in enumerate(intervals)]
    all_ticks = ticks(queries, "host")
    assert sorted(query.name for tick in all_ticks for query in tick.queries) == [
        query.name for query in queries
    ]
    assert len({tick.name for tick in all_ticks}) == len(all_ticks)


def test_the_offset_is_the_same_in_every_process() -> None:
    program = (
        "from poller.model.tick import ticks; from tests.bed.definitions import a_query; "
        "print([tick.offset for tick in ticks([a_query()], 'host-7')])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{[tick.offset for tick in ticks([a_query()], 'host-7')]}\n".encode()}


def test_many_pollers_of_the_same_replica_spread_over_the_interval() -> None:
    offsets = sorted(ticks([a_query()], f"host-{n}")[0].offset for n in range(200))
    assert len(set(offsets)) == 200
    assert 0 <= offsets[0] < 30
    assert 270 < offsets[-1] < 300
    assert max(b - a for a, b in pairwise(offsets)) < 30, "200 pollers leave no gap of a tenth"


def test_ticks_of_a_poller_have_different_offsets() -> None:
    all_ticks = ticks([a_query(f"q{n}", group=f"g{n}") for n in range(20)], "host")
    assert len({tick.offset for tick in all_ticks}) == 20


@given(st.floats(1, 86400), st.floats(0, 1, exclude_max=True), st.floats(1.7e9, 2e9))
def test_the_first_due_time_is_at_the_offset_and_at_least_half_an_interval_away(
    interval: float, fraction: float, now: float
) -> None:
    tick = Tick("t", (), interval, fraction * interval)
    due = tick.first_due(now)
    assert interval / 2 - 1e-3 <= due - now <= interval * 1.5 + 1e-3
    missed = (due - tick.offset) % interval
    assert min(missed, interval - missed) == pytest.approx(0, abs=1e-3)


def test_a_restart_does_not_change_the_offset() -> None:
    tick = Tick("t", (), 300.0, 120.0)
    assert tick.first_due(3000.0) == 3420.0
    assert tick.first_due(3200.0) == 3420.0, "3120 is over"
    assert tick.first_due(3271.0) == 3720.0, "3420 would be too soon after the poll at 3271"
