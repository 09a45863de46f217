"""Values survive the process with their age; values that cannot be trusted are not exported."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from poller.config.load_settings import load
from poller.daemon.build import open_store
from poller.model.errors import ConfigError, PollError
from poller.model.result import GoodResult, PollResult, Sample
from poller.polling.state_file import StateFile
from poller.polling.store import ResultStore
from poller.receiver.receiver import Receiver
from tests.bed.definitions import a_metric, a_query, a_result
from tests.bed.messaging import MessagingServer
from tests.bed.process import Process
from tests.bed.proxy import Proxy

Start = Callable[..., Process]

A = a_query(
    "a", metrics=(a_metric("things", attribute_columns=("kind",)),), interval=60, max_age=100, timeout=1
)
B = a_query("b", interval=300)
RESULT = a_result(
    A,
    Sample("things", 2**62 + 1, {"kind": "ä"}),
    Sample("things", 0.1, {"kind": "y", "live": True}),
    at=1000.0,
)


def recalled(folder: Path, wall: float, database: str = "db") -> list[GoodResult]:
    return StateFile(folder, database).load([A, B], 50.0, wall)


@pytest.fixture
def state_folder(tmp_path: Path) -> Path:
    StateFile(tmp_path / "state", "db").save([GoodResult(RESULT, 7.0)])
    return tmp_path / "state"


def test_values_are_restored_exactly_with_their_current_age(state_folder: Path) -> None:
    (good,) = recalled(state_folder, wall=1030.0)
    assert good == GoodResult(RESULT, 20.0)
    assert type(good.result.samples[0].value) is int
    store = ResultStore([A, B], [good])
    assert [result.samples for result in store.current(50.0)] == [RESULT.samples]
    assert list(store.current(120.1)) == [], "restored values are subject to max_age as well"
    (a, b) = store.freshness(50.0)
    assert (a.last_success, a.age, str(a.state)) == (1000.0, 30.0, "ok")
    assert b.age is None


def test_a_failure_after_the_restart_leaves_the_restored_value(state_folder: Path) -> None:
    store = ResultStore([A], recalled(state_folder, wall=1000.0))
    store.put([a_result(A, outcome="failed", error=PollError("timeout", "x"))], 60.0)
    assert [result.at for result in store.current(60.0)] == [1000.0]


def test_values_of_other_sql_another_metric_or_another_database_are_not_restored(
    state_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = StateFile(state_folder, "db")
    for other in (
        replace(A, sql="SELECT 2 AS n"),
        replace(A, metrics=(a_metric("others"),)),
        replace(A, name="c"),
    ):
        assert memory.load([other], 0.0, 1000.0) == []
    slower = replace(A, interval=3600.0, max_age=7200.0)
    other_metric = a_metric(
        "things", attribute_columns=("kind",), description="Others.", alert=[{"above": 5}]
    )
    alerted = replace(A, metrics=(other_metric,))
    for same in (slower, alerted):
        restored = memory.load([same], 0.0, 1000.0)
        assert len(restored) == 1, "schedule and alerts do not change the value"
    assert recalled(state_folder, 1000.0, database="another") == []
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_value_from_the_future_is_not_restored(state_folder: Path) -> None:
    assert [good.at for good in recalled(state_folder, wall=999.0)] == [50.0], "clocks may differ slightly"
    assert recalled(state_folder, wall=900.0) == []


def test_the_state_file_is_private(state_folder: Path) -> None:
    assert (state_folder / "values.json").stat().st_mode & 0o077 == 0


def test_no_file_is_a_first_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert recalled(tmp_path / "nowhere", 0.0) == []
    assert caplog.records == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 2}',
        '{"version": 1}',
        "\x00",
        '{"version": 1, "database": 3}',
        "[" * 200_000,
        '{"version":' * 200_000,
    ],
)
def test_an_unreadable_file_causes_a_warning_and_is_set_aside(
    state_folder: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (state_folder / "values.json").write_text(content)
    if '"database"' not in content:
        assert recalled(state_folder, 1000.0) == []
        assert "and are discarded" in caplog.text
        assert (state_folder / "values.json.unreadable").read_text() == content
    StateFile(state_folder, "db").save([GoodResult(RESULT, 0.0)])
    assert len(recalled(state_folder, 1000.0)) == 1


@pytest.mark.parametrize("value", ["1", None, True, [1], math.nan, math.inf, 10**400, 2**63, -(2**63) - 1])
def test_a_value_that_is_not_a_number_is_never_restored(state_folder: Path, value: object) -> None:
    content = json.loads((state_folder / "values.json").read_text())
    content["results"][0]["samples"][0][1] = value
    (state_folder / "values.json").write_text(json.dumps(content))
    assert recalled(state_folder, 1000.0) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *(("attribute", value) for value in (None, [1], {"a": 1}, "\ud800", 2**63, math.nan)),
        *(("estimated", value) for value in ([1], "word", 1)),
        *(("at", value) for value in (None, [1], math.nan, math.inf)),
        ("key", "\ud800"),
    ],
)
def test_a_value_that_cannot_be_exported_is_never_restored(
    state_folder: Path, place: str, value: object
) -> None:
    content = json.loads((state_folder / "values.json").read_text())
    (result,) = content["results"]
    if place in ("attribute", "key"):
        result["samples"][0][2] = {"kind": value} if place == "attribute" else {value: "x"}
    else:
        result[place] = value
    (state_folder / "values.json").write_text(json.dumps(content))
    assert recalled(state_folder, 1000.0) == []


def test_a_truncated_file_is_never_restored_in_part(state_folder: Path) -> None:
    whole = (state_folder / "values.json").read_bytes()
    for length in range(len(whole)):
        (state_folder / "values.json").write_bytes(whole[:length])
        assert recalled(state_folder, 1000.0) == []


def test_a_read_only_folder_is_logged_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="poller.polling.state_file")
    blocked = tmp_path / "state"
    blocked.write_text("a file where a folder should be")
    memory = StateFile(blocked, "db")
    for _ in range(3):
        memory.save([GoodResult(RESULT, 0.0)])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    blocked.unlink()
    memory.save([GoodResult(RESULT, 0.0)])
    assert caplog.messages[-1] == "the values are stored again"


@pytest.mark.slow
def test_the_written_bytes_are_proportional_to_the_new_values(tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    many = [
        GoodResult(a_result(a_query(f"q{number}"), Sample("things", 1, {})), 0.0) for number in range(1000)
    ]
    memory, written, before = StateFile(tmp_path, "db"), 0, (0, 0)
    for _ in range(2000):
        memory.add(many[:1], lambda: many)
        now = file.stat().st_ino, file.stat().st_size
        written += now[1] - (before[1] if now[0] == before[0] else 0)
        before = now
    memory.save(many[:1])
    size_of_tick = file.stat().st_size
    memory.save(many)
    whole = file.stat().st_size
    assert written < 2 * 2000 * (size_of_tick + 1) + 2 * whole
    assert before[1] <= 2 * whole


def test_the_newest_value_of_each_query_is_restored(tmp_path: Path) -> None:
    memory = StateFile(tmp_path, "db")
    newer = a_result(A, Sample("things", 7, {"kind": "y"}), at=1010.0)
    other = a_result(B, Sample("b", 8, {}), at=1020.0)
    memory.add([GoodResult(RESULT, 0.0)], lambda: [GoodResult(RESULT, 0.0)])
    memory.add([GoodResult(newer, 0.0)], list)
    memory.add([GoodResult(other, 0.0)], list)
    assert [good.result for good in recalled(tmp_path, 1030.0)] == [newer, other]


def test_a_truncated_last_tick_loses_only_that_tick(tmp_path: Path) -> None:
    newer = GoodResult(a_result(A, Sample("things", 7, {"kind": "y"}), at=1010.0), 0.0)
    memory, file = StateFile(tmp_path, "db"), tmp_path / "values.json"
    memory.add([GoodResult(RESULT, 0.0)], lambda: [GoodResult(RESULT, 0.0)])
    first = file.stat().st_size
    memory.add([newer], list)
    whole = file.read_bytes()
    for length in range(first, len(whole)):
        file.write_bytes(whole[:length])
        assert [good.result for good in recalled(tmp_path, 1030.0)] == [RESULT]
    after = StateFile(tmp_path, "db")
    after.add([newer], lambda: [newer])
    assert [good.result for good in recalled(tmp_path, 1030.0)] == [newer.result]


@pytest.mark.parametrize("by", ["nothing", "a pipe", "a folder"])
def test_a_removed_or_replaced_file_is_written_completely(tmp_path: Path, by: str) -> None:
    memory, file = StateFile(tmp_path, "db"), tmp_path / "values.json"
    memory.add([GoodResult(RESULT, 0.0)], lambda: [GoodResult(RESULT, 0.0)])
    file.unlink()
    if by == "a pipe":
        os.mkfifo(file)
    elif by == "a folder":
        file.mkdir()
    memory.add([GoodResult(RESULT, 0.0)], lambda: [GoodResult(RESULT, 0.0)])
    if by == "a folder":
        file.rmdir()
        memory.add([GoodResult(RESULT, 0.0)], lambda: [GoodResult(RESULT, 0.0)])
    assert [good.result for good in recalled(tmp_path, 1030.0)] == [RESULT]


def test_removed_queries_are_removed_from_the_file_with_the_next_tick(tmp_path: Path) -> None:
    memory = StateFile(tmp_path, "db")
    memory.add([GoodResult(RESULT, 0.0)], lambda: [GoodResult(RESULT, 0.0)])
    other = GoodResult(a_result(B, Sample("b", 8, {}), at=1020.0), 0.0)
    memory.invalidate()
    memory.add([other], lambda: [other])
    assert [good.result for good in recalled(tmp_path, 1030.0)] == [other.result]


values = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))
attributes = st.dictionaries(st.text(), st.one_of(st.text(), st.booleans(), st.integers(-9, 9)), max_size=3)


@pytest.mark.slow
@given(st.lists(st.tuples(values, attributes), max_size=5), st.floats(0, 2e9))
def test_any_stored_value_is_restored_unchanged(
    tmp_path_factory: pytest.TempPathFactory, samples: list[tuple[int | float, dict[str, str]]], at: float
) -> None:
    folder = tmp_path_factory.mktemp("memory")
    result = a_result(A, *(Sample("things", value, labels) for value, labels in samples), at=at)
    StateFile(folder, "db").save([GoodResult(result, 0.0)])
    (good,) = StateFile(folder, "db").load([A], 0.0, at)
    assert good.result == result
    assert [type(sample.value) for sample in good.result.samples] == [type(value) for value, _ in samples]
    assert all(math.isfinite(sample.value) for sample in good.result.samples)


def test_the_state_file_contains_no_sql(state_folder: Path) -> None:
    result = PollResult(replace(A, sql="SELECT 'secret' AS n"), 1.0, 0.0, "ok")
    StateFile(state_folder, "postgresql://me:***@host/db").save([GoodResult(result, 0.0)])
    assert "secret" not in (state_folder / "values.json").read_text()


def test_the_folder_is_created_or_rejected_with_and_without_an_endpoint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for endpoint in ("", "http://127.0.0.1:4317"):
        env = {"POLLER_STATE_DIR": str(tmp_path / "file"), "POLLER_OTLP_ENDPOINT": endpoint}
        with pytest.raises(
            ConfigError, match=r"POLLER_STATE_DIR: '.*/file' cannot be used: it is not a folder"
        ):
            open_store(load(env), [])
    open_store(load({"POLLER_STATE_DIR": str(tmp_path / "a" / "b")}), [])
    assert (tmp_path / "a" / "b").is_dir()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.postgres
def test_after_a_kill_a_daemon_exports_its_values_without_the_database(
    server: MessagingServer,
    receiver: Receiver,
    poller_process: Start,
    make_proxy: Callable[[int], Proxy],
    tmp_path: Path,
) -> None:
    proxy = make_proxy(int(conninfo_to_dict(server.standby_dsn)["port"] or 0))
    env = {
        "POLLER_DATABASE_URL": proxy.dsn(server.standby_dsn),
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        "POLLER_EXPORT_INTERVAL": "300ms",
        "POLLER_STATE_DIR": str(tmp_path / "state"),
    }
    first = poller_process("run", env=env)
    receiver.wait_for(lambda points: any(point.metric == "users_total" for point in points))
    first.send(signal.SIGKILL)
    first.wait()
    proxy.refuse()
    receiver.clear()

    restarted = time.time()
    second = poller_process("run", env=env)
    receiver.wait_for(lambda points: any(point.metric == "users_total" for point in points))
    second.wait_for_line("replica unavailable")
    assert receiver.points("users_total")[-1].value == 37
    successes = {
        p.attributes["poller.query.name"]: p.value for p in receiver.points("poller.query.last_success")
    }
    assert isinstance(successes["users"], float)
    assert 0 < successes["users"] < restarted
