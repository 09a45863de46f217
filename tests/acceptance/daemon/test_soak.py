"""A long run of polls uses no additional memory, files or threads when series and servers change."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.receiver.receiver import UNAVAILABLE, Receiver
from tests.bed.postgres import Database
from tests.bed.process import Process
from tests.bed.soak import EXPORT_EVERY, KILL_EVERY, SETS

POLLS = 10_000
MEGABYTE = 2**20


@pytest.mark.timeout(600)
def test_ten_thousand_polls_and_two_hundred_thousand_series_leave_nothing_behind(
    database: Database, start_process: Callable[..., Process], tmp_path: Path
) -> None:
    """The run has failures, rejected rows, reloads, killed backends and outages of the collector."""
    with Receiver(keep=10) as receiver:
        number = itertools.count(1)
        receiver.answer_by(lambda _: UNAVAILABLE if next(number) % 40 == 0 else None)
        arguments = [database.standby_dsn, receiver.grpc_endpoint, str(tmp_path), str(POLLS)]
        process = start_process([sys.executable, "-m", "tests.bed.soak", *arguments])
        assert process.wait(580) == 0, str(process)[-2000:]
        (last,) = receiver.requests()[-1:]
    measurements = [json.loads(line) for line in process.stdout.splitlines()]
    early, late = measurements[len(measurements) // 4], measurements[-1]
    assert late["polls"] == POLLS
    assert late["good"] >= POLLS - 2 * POLLS // KILL_EVERY
    # About 50,000 attribute sets precede the first sample; 150,000 more add only the allocator's rounding.
    assert late["rss"] - early["rss"] < 6 * MEGABYTE, measurements
    assert (late["files"], late["threads"]) == (early["files"], early["threads"])
    points = {point.metric: point for point in last.points()}
    assert POLLS * SETS >= 200_000
    assert POLLS // EXPORT_EVERY >= 400
    assert points["poller.query.series"].value is not None
    assert not any("overflow" in key for point in last.points() for key in point.attributes)
