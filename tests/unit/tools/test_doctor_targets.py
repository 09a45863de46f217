"""`poller doctor` compares the connections and the schedule of targets with the limits of their servers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from poller.config.load_settings import load
from poller.tools.doctor.schedule import Load, examine
from poller.tools.doctor.server import check_connections, free_for_all

TARGET = load({"POLLER_DATABASE_URL": "host=x"}).only_target()


def loads(*busy: float, connections: int = 1) -> list[Load]:
    return [Load(replace(TARGET, connections=connections), share) for share in busy]


@pytest.mark.parametrize(
    ("limit", "available", "connections", "severity", "advice"),
    [
        (3, 97, 2, "ok", None),
        (2, 97, 2, "warning", "CONNECTION LIMIT 3: during a reconnect"),
        (
            1,
            97,
            2,
            "error",
            "CONNECTION LIMIT 3: 2 for the poller, one for a reconnect; or write connections: 1",
        ),
        (-1, 97, 2, "warning", "CONNECTION LIMIT 3: 2 for the poller"),
        (-1, 7, 8, "error", "write connections: 3 or less"),
        (2, 97, 1, "ok", None),
        (1, 97, 1, "warning", "CONNECTION LIMIT 2: during a reconnect"),
    ],
)
def test_connections_are_compared_with_the_limits_of_role_and_server(
    limit: int, available: int, connections: int, severity: str, advice: str | None
) -> None:
    diagnostic = check_connections(limit, 0, available, connections, superuser=False)
    assert diagnostic.severity == severity
    assert (advice or "") in (diagnostic.advice or "")
    assert (diagnostic.advice is None) == (advice is None)


def test_reserved_connections_are_not_available() -> None:
    settings = {"max_connections": "100", "superuser_reserved_connections": "3"}
    assert free_for_all(settings) == 97
    assert free_for_all({**settings, "reserved_connections": "10"}) == 87


def test_a_schedule_that_fits_is_one_finding() -> None:
    (diagnostic,) = examine({"a": loads(0.25, 0.25), "b": loads(0.5)}, 8)
    assert diagnostic.severity == "ok"
    assert diagnostic.message == ("the polls of 3 targets on 2 servers keep 1 connections busy, of at most 8")


def test_a_server_whose_polls_need_more_connections_than_it_has_is_a_warning() -> None:
    server, whole = examine({"a": loads(0.9, 0.9), "b": loads(0.9, 0.9, connections=2)}, 8)
    assert (server.severity, server.rule, server.subject) == ("warning", "schedule", "a")
    assert "2 targets keep 1.8 connections busy, but connections is 1" in server.message
    assert (server.advice or "").startswith("write connections: 2, ")
    assert whole.severity == "ok"


def test_more_polls_than_the_process_has_connections_are_a_warning() -> None:
    (whole,) = examine({name: loads(0.9) for name in "abc"}, 2)
    assert whole.severity == "warning"
    assert (whole.advice or "").startswith("set POLLER_MAX_CONNECTIONS=3, ")


def test_targets_of_a_server_that_declare_different_connections_are_a_warning() -> None:
    first, _ = examine({"a": [*loads(0.1), *loads(0.1, connections=4)]}, 8)
    assert (first.rule, first.severity) == ("connections", "warning")
    assert first.message == "its targets declare connections 1 and 4; the smallest is used"
