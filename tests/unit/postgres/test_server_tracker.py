"""The tracker stores the current server, and logs a change in a single line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from poller.postgres.server_tracker import ServerInfo, ServerTracker

FIRST = ServerInfo("10.0.0.1", 5432, standby=True, timeline=1, lag=0.0, data_age=0.5, why="in sync", at=100.0)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
    caplog.clear()
    return messages


@pytest.fixture
def tracker(caplog: pytest.LogCaptureFixture) -> ServerTracker:
    caplog.set_level("INFO")
    return ServerTracker(30.0)


def test_a_server_is_logged_at_the_first_connection_and_not_again(
    tracker: ServerTracker, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.record(FIRST)
    assert lines(caplog) == ["INFO polling the standby 10.0.0.1:5432"]
    tracker.record(replace(FIRST, lag=3.0, at=200.0))
    assert lines(caplog) == []


def test_a_single_poll_does_not_log_the_first_connection(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    ServerTracker(30.0, announce_first=False).record(FIRST)
    assert lines(caplog) == []


@pytest.mark.parametrize(
    ("second", "line"),
    [
        (
            replace(FIRST, address="10.0.0.2", standby=False),
            "WARNING polling another server: the primary 10.0.0.2:5432 instead of 10.0.0.1:5432",
        ),
        (
            replace(FIRST, port=5433),
            "WARNING polling another server: the standby 10.0.0.1:5433 instead of 10.0.0.1:5432",
        ),
        (replace(FIRST, standby=False, timeline=2), "WARNING 10.0.0.1:5432 is a primary now, was a standby"),
        (replace(FIRST, timeline=2), "WARNING 10.0.0.1:5432 follows timeline 2 now"),
    ],
)  # fmt: skip
def test_another_server_role_or_timeline_is_a_single_line(
    second: ServerInfo, line: str, tracker: ServerTracker, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.record(FIRST)
    lines(caplog)
    tracker.record(second)
    assert lines(caplog) == [line]
    tracker.record(second)
    assert lines(caplog) == []


def test_an_unknown_timeline_is_not_a_change(
    tracker: ServerTracker, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.record(FIRST)
    lines(caplog)
    tracker.record(replace(FIRST, timeline=None))
    tracker.record(FIRST)
    assert lines(caplog) == []


def test_the_server_is_exported_until_the_information_is_too_old(tracker: ServerTracker) -> None:
    assert tracker.current(100.0) is None
    tracker.record(FIRST)
    assert tracker.current(130.0) == FIRST
    assert tracker.current(130.1) is None
