"""The details of the heartbeat have every target, are bounded, and encode only what has changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from poller.daemon.health import details_path, judge
from poller.daemon.heartbeat import Heartbeat
from poller.daemon.heartbeat_details import TargetStatuses
from poller.daemon.poll_cycle import PollCycle
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import Answer
from poller.model.rows import Column, Rows
from poller.polling.status import QueryStatus
from poller.polling.store import ResultStore
from poller.polling.target_status import target_from_json
from poller.postgres.circuit_breaker import CircuitBreaker
from poller.postgres.server_tracker import ServerInfo, ServerTracker
from poller.telemetry.poll_log import PollLog
from poller.telemetry.traces import Tracing
from tests.bed.definitions import Source, a_query
from tests.unit.daemon.test_health import WELL

QUERIES = [a_query("users"), a_query("messages")]
DOWN = PollError("unavailable", "connection refused")


class RecordingCycle(PollCycle):
    """A poll cycle that counts how often the queries are read for the details."""

    reads = 0

    def read_statuses(self, next_runs: Mapping[str, float]) -> Sequence[QueryStatus]:
        self.reads += 1
        return super().read_statuses(next_runs)


class PolledTarget:
    """A target as the details use it: its name and a real poll cycle."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: PollError | None = None
        self.tracker = ServerTracker(900.0, announce_first=False)
        self.cycle = RecordingCycle(
            Source(self._answer),
            ResultStore(QUERIES),
            tracker=self.tracker,
            tracing=Tracing(None),
            metrics=None,
            breaker=CircuitBreaker(1.0, None),
            log=PollLog(),
        )

    def poll(self, error: PollError | None = None) -> None:
        self.error = error
        self.cycle.run(QUERIES)

    def _answer(self, queries: Sequence[QueryDefinition]) -> list[Answer]:
        now = time.monotonic()
        rows = None if self.error else Rows((Column("n", 23),), [(b"7",)])
        return [Answer(query, time.time(), 0.1, rows, self.error, answered=now) for query in queries]


class Schedule:
    """A schedule without planned polls."""

    def next_runs(self, target: str) -> dict[str, float]:
        del target
        return {}


def statuses_of(
    *targets: PolledTarget, most_bytes: int = 1 << 20, bytes_per_second: float = 1e12
) -> TargetStatuses:
    parts: tuple[Any, Any] = list(targets), Schedule()  # it uses only these parts
    return TargetStatuses(*parts, most_bytes, bytes_per_second)


def written(statuses: TargetStatuses) -> dict[str, Any]:
    statuses.current()
    content = statuses.encode({"pid": 1})
    assert content is not None
    document: dict[str, Any] = json.loads(content)
    return document


def test_each_target_has_its_state_its_server_and_its_queries() -> None:
    good, bad, new = map(PolledTarget, ("good", "bad", "new"))
    now = time.monotonic()
    good.tracker.record(ServerInfo("db", 5432, True, 1, 2.5, 3.0, "replay", now))
    good.poll()
    bad.poll(DOWN)
    document = written(statuses_of(good, bad, new))
    first, second, third = map(target_from_json, document["targets"])

    assert (document["pid"], document["omitted"]) == (1, 0)
    assert (first.name, first.up, first.lag, first.states) == ("good", True, 2.5, {"ok": 2})
    assert first.server == "standby db:5432, 2.5s behind"
    assert [(status.query, status.state) for status in first.statuses] == [
        ("users", "ok"),
        ("messages", "ok"),
    ]
    assert first.statuses[0].readings[0].value == 7
    assert first.last_success is not None
    assert (second.up, second.states, second.last_success) == (False, {"failed": 2}, None)
    assert (third.up, third.states) == (None, {"stale": 2})
    assert [target.rank for target in (second, third, first)] == [0, 2, 3]


def test_the_server_of_a_target_that_is_down_is_the_last_one_and_its_lag_is_unknown() -> None:
    target = PolledTarget("eu-1")
    target.tracker.record(ServerInfo("db", 5432, True, 1, 2.5, 3.0, "replay", time.monotonic()))
    statuses = statuses_of(target)
    target.poll()
    (up,) = map(target_from_json, written(statuses)["targets"])
    target.poll(DOWN)
    (down,) = map(target_from_json, written(statuses)["targets"])
    assert (up.server, up.lag) == ("standby db:5432, 2.5s behind", 2.5)
    assert (down.server, down.lag) == ("last reached: standby db:5432", None)


def test_only_targets_that_were_polled_are_encoded_again() -> None:
    targets = [PolledTarget(f"t{n}") for n in range(5)]
    statuses = statuses_of(*targets)
    written(statuses)
    statuses.current()
    assert statuses.encode({}) is None, "nothing has changed"
    targets[3].poll()
    written(statuses)
    assert [target.cycle.reads for target in targets] == [1, 1, 1, 2, 1]


def test_a_target_that_was_removed_disappears() -> None:
    targets = [PolledTarget("a"), PolledTarget("b")]
    parts: tuple[Any, Any] = targets, Schedule()
    statuses = TargetStatuses(*parts, bytes_per_second=1e12)
    written(statuses)
    removed = targets.pop(0)
    assert [target["name"] for target in written(statuses)["targets"]] == ["b"]
    assert removed.cycle.reads == targets[0].cycle.reads == 1


def test_beyond_the_maximum_size_healthy_targets_lose_their_queries() -> None:
    targets = [PolledTarget(f"t{n}") for n in range(100)]
    for target in targets:
        target.poll(DOWN if target.name == "t99" else None)
    most = 25_000
    statuses = statuses_of(*targets, most_bytes=most)
    statuses.current()
    content = statuses.encode({}) or b""
    listed = list(map(target_from_json, json.loads(content)["targets"]))

    assert len(content) < most + 1000
    assert len(listed) == 100
    assert listed[99].statuses, "the target that is down keeps its queries"
    assert 0 < sum(bool(target.statuses) for target in listed) < 100
    assert {target.omitted for target in listed if not target.statuses} == {2}
    assert sum(target.cycle.reads for target in targets) < 100, "targets without room are not encoded"

    document = written(statuses_of(*targets, most_bytes=5000))
    assert document["omitted"] + len(document["targets"]) == 100
    assert document["targets"][-1]["name"] == "t99"


def test_many_bytes_are_not_written_at_every_beat() -> None:
    target = PolledTarget("a")
    statuses = statuses_of(target, bytes_per_second=1e-6)
    written(statuses)
    target.poll()
    statuses.current()
    assert statuses.encode({}) is None


def test_the_details_are_written_next_to_the_heartbeat_and_removed_with_it(tmp_path: Path) -> None:
    heartbeat = Heartbeat([tmp_path / "beat.json"])
    heartbeat.write_details(lambda _: b"{}")
    assert list(tmp_path.iterdir()) == [], "there is no heartbeat yet"
    heartbeat.write({})
    heartbeat.write_details(lambda identity: json.dumps(dict(identity)).encode())
    details = details_path(tmp_path / "beat.json")
    assert details.name == "beat-details.json"
    assert json.loads(details.read_bytes())["pid"] == json.loads((tmp_path / "beat.json").read_bytes())["pid"]
    heartbeat.write_details(lambda _: None)
    assert details.exists()
    heartbeat.remove()
    assert list(tmp_path.iterdir()) == []


def test_health_counts_targets_and_stays_alive_while_all_are_down() -> None:
    beat = {key: value for key, value in WELL.items() if key not in ("queries", "ticks")}
    result = judge(
        {**beat, "targets": {"all": 3, "up": 0, "down": 3}, "states": {"failed": 30}},
        ready=False,
        now=WELL["boottime"] + 2,  # type: ignore[operator] # it is a number
    )
    assert result.good
    assert "; targets: 0 of 3 up; queries: 30 failed; " in result.why


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda target: target.pop("name"),
        lambda target: target.update(up="yes"),
        lambda target: target.update(lag="1s"),
        lambda target: target.update(states=[]),
        lambda target: target.update(states={"ok": "x"}),
        lambda target: target.update(omitted=None),
        lambda target: target.update(glances=[{}]),
    ],
)
def test_details_of_another_version_are_rejected(change: Change) -> None:
    (target,) = written(statuses_of(PolledTarget("a")))["targets"]
    change(target)
    with pytest.raises(ValueError, match="is not a list of"):
        target_from_json(target)
