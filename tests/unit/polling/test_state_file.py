"""Values survive the process with their age; values that cannot be trusted are not exported."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from poller.config.load_settings import load
from poller.daemon.target_factory import TargetFactory
from poller.model.errors import ConfigError, PollError
from poller.model.result import GoodResult, PollResult, Sample
from poller.polling.state_file import MAX_BYTES, StateFile
from poller.polling.state_row import StateRow, checksum_of
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
NEWER = a_result(A, Sample("things", 7, {"kind": "y"}), at=1010.0)
OTHER = a_result(B, Sample("b", 8, {}), at=1020.0)


def good(*results: PollResult) -> list[GoodResult]:
    return [GoodResult(result, 0.0) for result in results]


def keep(folder: Path, *results: PollResult, target: str = "") -> None:
    """Store results in a process that then ends."""
    with contextlib.closing(StateFile(folder)) as file:
        file.of(target, "db").add(good(*results))


def load_results(folder: Path, wall: float, database: str = "db", target: str = "") -> list[GoodResult]:
    with contextlib.closing(StateFile(folder)) as file:
        return file.of(target, database).load([A, B], 50.0, wall)


def results(folder: Path, target: str = "") -> list[PollResult]:
    return [value.result for value in load_results(folder, 1030.0, target=target)]


def alter(folder: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / "values.db")) as db:
        db.executescript(sql)


def rows(folder: Path) -> list[StateRow]:
    """Return the stored rows without a lock on the file."""
    copy = folder / "copy.db"
    shutil.copyfile(folder / "values.db", copy)
    with contextlib.closing(sqlite3.connect(copy)) as db:
        return [StateRow(*row) for row in db.execute("SELECT * FROM value")]


def rewrite(folder: Path, change: Callable[[Any], Any]) -> None:
    """Replace the first row's result by a changed one with a correct checksum."""
    row = rows(folder)[0]
    row = row._replace(body=json.dumps(change(json.loads(row.body))).encode())
    with contextlib.closing(sqlite3.connect(folder / "values.db", isolation_level=None)) as db:
        new = row._replace(checksum=checksum_of(row))
        db.execute("INSERT OR REPLACE INTO value VALUES (?, ?, ?, ?, ?, ?)", new)


@pytest.fixture
def state_folder(tmp_path: Path) -> Path:
    keep(tmp_path / "state", RESULT)
    return tmp_path / "state"


def test_values_are_restored_exactly_with_their_current_age(state_folder: Path) -> None:
    (value,) = load_results(state_folder, wall=1030.0)
    assert value == GoodResult(RESULT, 20.0)
    assert type(value.result.samples[0].value) is int
    store = ResultStore([A, B], [value])
    assert [result.samples for result in store.current(50.0)] == [RESULT.samples]
    assert list(store.current(120.1)) == [], "restored values are subject to max_age as well"
    (a, b) = store.freshness(50.0)
    assert (a.last_success, a.age, str(a.state)) == (1000.0, 30.0, "ok")
    assert b.age is None


def test_a_failure_after_the_restart_leaves_the_restored_value(state_folder: Path) -> None:
    store = ResultStore([A], load_results(state_folder, wall=1000.0))
    store.put([a_result(A, outcome="failed", error=PollError("timeout", "x"))], 60.0)
    assert [result.at for result in store.current(60.0)] == [1000.0]


def test_values_of_other_sql_another_metric_or_another_database_are_not_restored(
    state_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = StateFile(state_folder)
    values = file.of("", "db")
    for other in (
        replace(A, sql="SELECT 2 AS n"),
        replace(A, metrics=(a_metric("others"),)),
        replace(A, name="c"),
    ):
        assert values.load([other], 0.0, 1000.0) == []
    slower = replace(A, interval=3600.0, max_age=7200.0)
    other_metric = a_metric(
        "things", attribute_columns=("kind",), description="Others.", alert=[{"above": 5}]
    )
    alerted = replace(A, metrics=(other_metric,))
    for same in (slower, alerted):
        restored = values.load([same], 0.0, 1000.0)
        assert len(restored) == 1, "schedule and alerts do not change the value"
    assert file.of("", "another").load([A], 0.0, 1000.0) == []
    assert file.of("another", "db").load([A], 0.0, 1000.0) == []
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_value_from_the_future_is_not_restored(state_folder: Path) -> None:
    restored = load_results(state_folder, wall=999.0)
    assert [value.at for value in restored] == [50.0], "clocks may differ slightly"
    assert load_results(state_folder, wall=900.0) == []


def test_only_the_owner_can_read_the_state_file(tmp_path: Path) -> None:
    with contextlib.closing(StateFile(tmp_path / "state")) as file:
        file.of("", "db").add(good(RESULT))
        assert (tmp_path / "state").stat().st_mode & 0o077 == 0
        files = list((tmp_path / "state").iterdir())
        assert {path.name for path in files} == {"values.db", "values.db-journal"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in files)


def test_no_file_is_a_first_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_results(tmp_path / "nowhere", 0.0) == []
    StateFile(tmp_path / "nowhere").forget("x")
    StateFile(tmp_path / "nowhere").retain_targets(lambda _: False)
    assert caplog.records == []
    assert not (tmp_path / "nowhere").exists()


# --- damage


def test_an_empty_file_is_a_first_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "values.db").touch()
    assert load_results(tmp_path, 0.0) == []
    assert caplog.records == []


def replace_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "x").touch()


HARMS: dict[str, Callable[[Path], object]] = {
    "one byte": lambda file: file.write_bytes(b"{"),
    "zeros": lambda file: file.write_bytes(b"\0" * 8192),
    "text": lambda file: file.write_bytes(b"this is no database, but it is longer than a hundred bytes" * 9),
    "JSON": lambda file: file.write_text('{"version": 1, "database": "x", "results": []}' * 9),
    "half of the file": lambda file: os.truncate(file, file.stat().st_size // 2),
    "a damaged header": lambda file: file.write_bytes(b"\xff" * 100 + file.read_bytes()[100:]),
    "too large": lambda file: os.truncate(file, MAX_BYTES + 1),
    "a pipe": replace_by_pipe,
    "a folder": replace_by_folder,
    "another version": lambda file: alter(file.parent, "PRAGMA user_version = 2"),
    "no table": lambda file: alter(file.parent, "DROP TABLE value"),
    "other columns": lambda file: alter(file.parent, "ALTER TABLE value ADD COLUMN x"),
    "another table": lambda file: alter(file.parent, "CREATE TABLE x (y)"),
    "a trigger": lambda file: alter(
        file.parent, "CREATE TRIGGER t AFTER INSERT ON value BEGIN DELETE FROM value; END"
    ),
    "another database": lambda file: alter(
        file.parent, "DROP TABLE value; PRAGMA user_version = 0; CREATE TABLE x (y)"
    ),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("first", ["load", "add"])
def test_a_damaged_or_foreign_file_causes_a_warning_and_is_set_aside(
    state_folder: Path, caplog: pytest.LogCaptureFixture, harm: str, first: str
) -> None:
    HARMS[harm](state_folder / "values.db")
    (state_folder / "values.db.unreadable").write_text("set aside before")
    before = (state_folder / "values.db").lstat().st_ino
    if first == "load":
        assert load_results(state_folder, 1000.0) == []
    else:
        keep(state_folder, NEWER)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("the stored values cannot be read and are discarded: ")
    assert (state_folder / "values.db.unreadable").lstat().st_ino == before
    keep(state_folder, NEWER)
    assert results(state_folder) == [NEWER]
    assert len(caplog.records) == 1


def test_a_journal_of_another_database_does_not_change_a_new_one(state_folder: Path) -> None:
    (state_folder / "values.db").unlink()
    (state_folder / "values.db-journal").write_bytes(bytes.fromhex("d9d505f920a163d7") + b"\xff" * 4096)
    assert results(state_folder) == []
    keep(state_folder, NEWER)
    assert results(state_folder) == [NEWER]


@pytest.mark.parametrize("value", ["1", None, True, [1], math.nan, math.inf, 10**400, 2**63, -(2**63) - 1])
def test_a_value_that_is_not_a_number_is_never_restored(
    state_folder: Path, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    def change(entry: dict[str, Any]) -> dict[str, Any]:
        entry["samples"][0][1] = value
        return entry

    rewrite(state_folder, change)
    assert load_results(state_folder, 1000.0) == []
    assert "the stored values of 1 query cannot be read and are discarded: " in caplog.text


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *(("attribute", value) for value in (None, [1], {"a": 1}, "\ud800", 2**63, math.nan)),
        *(("estimated", value) for value in ([1], "word", 1)),
        *(("at", value) for value in (None, [1], "1", math.nan, math.inf, -math.inf)),
        *(("duration", value) for value in (None, "1", math.nan)),
        *(("server", value) for value in (None, 1, "\ud800")),
        *(("database", value) for value in (None, 1, "\ud800")),
        *(("samples", value) for value in (None, "x", ["things"], [["things", 1]], [["other", 1, {}]])),
        ("key", "\ud800"),
    ],
)
def test_a_value_that_cannot_be_exported_is_never_restored(
    state_folder: Path, place: str, value: object
) -> None:
    def change(entry: dict[str, Any]) -> dict[str, Any]:
        if place in ("attribute", "key"):
            entry["samples"][0][2] = {"kind": value} if place == "attribute" else {value: "x"}
        else:
            entry[place] = value
        return entry

    rewrite(state_folder, change)
    assert load_results(state_folder, 1000.0) == []


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(entry: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container and key of nested JSON."""
    for key in entry if isinstance(entry, dict) else range(len(entry)) if isinstance(entry, list) else ():
        yield entry, key
        yield from places(entry[key])


@pytest.mark.slow
@given(st.data())
def test_a_row_with_any_content_restores_nothing_that_breaks_an_export(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("state")
    keep(folder, RESULT, OTHER)

    def change(entry: Any) -> Any:
        if data.draw(st.booleans()):
            return data.draw(json_values)
        container, key = data.draw(st.sampled_from(list(places(entry))))
        container[key] = data.draw(json_values)
        return entry

    rewrite(folder, change)
    restored = results(folder)
    assert restored[-1] == OTHER, "the other row is intact"
    for result in restored[:-1]:
        json.dumps([result.at, result.duration], allow_nan=False)
        result.server.encode()
        result.database.encode()
        for sample in result.samples:
            assert math.isfinite(sample.value)
            assert sample.metric == "things"
            for text in (*sample.attributes, *sample.attributes.values()):
                str(text).encode()


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE value SET body = CAST(replace(CAST(body AS TEXT), '0.1', '0.7') AS BLOB) WHERE query = 'a'",
        "UPDATE value SET body = x'00' WHERE query = 'a'",
        "UPDATE value SET body = 'text' WHERE query = 'a'",
        "UPDATE value SET body = 5 WHERE query = 'a'",
        "UPDATE value SET body = zeroblob(67108865) WHERE query = 'a'",
        "UPDATE value SET checksum = 7 WHERE query = 'a'",
        "UPDATE value SET checksum = 'x' WHERE query = 'a'",
        f"DELETE FROM value WHERE query = 'b'; UPDATE value SET query = 'b', definition = x'{B.digest}'",
    ],
)
def test_a_damaged_row_loses_only_itself(
    state_folder: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    keep(state_folder, OTHER)
    alter(state_folder, harm)
    assert results(state_folder) == ([] if "definition" in harm else [OTHER])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert not list(state_folder.glob("*.unreadable"))
    keep(state_folder, NEWER, OTHER)
    assert results(state_folder) == [NEWER, OTHER]


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["truncated", "overwritten", "flipped"])
def test_a_damaged_file_restores_only_values_that_were_stored(tmp_path: Path, harm: str) -> None:
    queries = [replace(A, name=f"q{number}") for number in range(40)]
    stored = {
        query.name: a_result(query, *(Sample("things", n * n, {"kind": "x" * n}) for n in range(number + 3)))
        for number, query in enumerate(queries)
    }
    with contextlib.closing(StateFile(tmp_path / "live")) as file:
        for result in stored.values():
            file.of("", "db").add(good(result))
    size = (tmp_path / "live" / "values.db").stat().st_size
    for seed in range(40):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        shutil.copytree(tmp_path / "live", folder)
        with (folder / "values.db").open("r+b") as damaged:
            place = chance.choice(
                [chance.randrange(size), chance.randrange(0, size, 4096), chance.randrange(100)]
            )
            if harm == "truncated":
                damaged.truncate(place)
            else:
                damaged.seek(place)
                byte = damaged.read(1)[0] ^ 1 << chance.randrange(8)
                damaged.seek(place)
                damaged.write(bytes([byte]) if harm == "flipped" else chance.randbytes(5000))
        for _ in range(2):
            with contextlib.closing(StateFile(folder)) as file:
                values = file.of("", "db")
                for value in values.load(queries, 0.0, 1000.0):
                    assert value.result == stored[value.result.query.name], seed
                values.add(good(stored["q0"]))
        with contextlib.closing(StateFile(folder)) as file:
            assert len(file.of("", "db").load(queries[:1], 0.0, 1000.0)) == 1, seed


# --- kills


def test_after_a_kill_during_a_commit_the_values_before_it_are_restored(tmp_path: Path) -> None:
    queries = [replace(A, name=f"q{number}") for number in range(300)]
    before = [a_result(query, Sample("things", 1, {"kind": "x" * 900})) for query in queries]
    keep(tmp_path / "live", *before)
    with contextlib.closing(sqlite3.connect(tmp_path / "live" / "values.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = TRUNCATE")
        db.execute("PRAGMA cache_size = 5")  # changed pages are written before the commit
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE value SET checksum = 1")
        shutil.copytree(tmp_path / "live", tmp_path / "killed")
    assert (tmp_path / "killed" / "values.db-journal").stat().st_size > 512
    with contextlib.closing(StateFile(tmp_path / "killed")) as file:
        restored = file.of("", "db").load(queries, 0.0, 1000.0)
        assert [value.result for value in restored] == before


_TICKS = """
import sys, threading
from pathlib import Path
from poller.model.result import GoodResult, Sample
from poller.polling.state_file import StateFile
from tests.bed.definitions import a_metric, a_query, a_result
file = StateFile(Path(sys.argv[1]))
query = a_query("a", metrics=(a_metric("things"),))
def tick(name):
    for number in range(10_000_000):
        file.of(name, "db").add([GoodResult(a_result(query, Sample("things", number, {})), 0.0)])
        sys.stdout.write(f"{name} {number}\\n")
        sys.stdout.flush()
for name in ("x", "y", "z"):
    threading.Thread(target=tick, args=[name]).start()
"""


def test_a_kill_at_any_moment_loses_at_most_the_running_tick(tmp_path: Path, start_process: Start) -> None:
    query = a_query("a", metrics=(a_metric("things"),))
    for attempt in range(5):
        process = start_process([sys.executable, "-c", _TICKS, str(tmp_path)])
        process.wait_for_line(f"^z {20 + 7 * attempt}$", stream="stdout")
        process.send(signal.SIGKILL)
        process.wait()
        ended = dict(line.split() for line in process.stdout.splitlines(keepends=True) if line.endswith("\n"))
        with contextlib.closing(StateFile(tmp_path)) as file:
            for name, number in ended.items():
                (value,) = file.of(name, "db").load([query], 0.0, 1000.0)
                (sample,) = value.result.samples
                assert sample.value in (int(number), int(number) + 1)
    assert not list(tmp_path.glob("*.unreadable"))


# --- a disk that cannot store


def test_an_unusable_folder_is_logged_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="poller.polling.state_file")
    blocked = tmp_path / "state"
    blocked.write_text("a file where a folder should be")
    with contextlib.closing(StateFile(blocked)) as file:
        values = file.of("", "db")
        assert values.load([A], 0.0, 1000.0) == []
        for _ in range(3):
            values.add(good(RESULT))
            values.retain([])
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert record.getMessage().startswith("the values cannot be stored for a restart: values.db: ")
        blocked.unlink()
        for _ in range(3):
            values.add(good(RESULT))
    assert caplog.messages[1:] == ["the values are stored again"]
    assert results(blocked) == [RESULT]


_FULL = """
import logging, resource, sys
from pathlib import Path
from poller.model.result import GoodResult, Sample
from poller.polling.state_file import StateFile
from tests.bed.definitions import a_metric, a_query, a_result
logging.basicConfig(format="%(levelname)s %(message)s", level="INFO")
file = StateFile(Path(sys.argv[1]))
query = a_query("a", metrics=(a_metric("things"),))
def add(*numbers, size=9000):
    for number in numbers:
        result = a_result(query, Sample("things", number, {"kind": "x" * size}))
        file.of(f"t{number}", "db").add([GoodResult(result, 0.0)])
def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
add(*range(5))
limit(512 if "at once" in sys.argv else 100_000)
add(*range(5, 20))
file.forget("t0")
limit(resource.RLIM_INFINITY)
add(*range(20, 25))
print(*(len(file.of(f"t{number}", "db").load([query], 0.0, 1000.0)) for number in range(25)))
"""


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_full_disk_is_logged_once_and_so_is_its_end(
    tmp_path: Path, start_process: Start, when: str
) -> None:
    process = start_process([sys.executable, "-c", _FULL, str(tmp_path), when])
    assert process.wait() == 0, process
    restored = [int(number) for number in process.stdout.split()]
    assert restored[1:5] == [1] * 4
    assert restored[20:] == [1] * 5
    assert sum(restored[5:20]) == 0 if when == "at once" else 0 < sum(restored[5:20]) < 15
    warning, recovery = process.stderr.splitlines()
    assert warning.startswith("WARNING the values cannot be stored for a restart: values.db: ")
    assert recovery == "INFO the values are stored again"
    assert not list(tmp_path.glob("*.unreadable"))


def test_values_beyond_the_maximum_size_of_the_file_are_not_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(StateFile(tmp_path, max_bytes=2**20)) as file:
        for number in range(400):
            file.of(f"t{number}", "db").add(good(a_result(A, Sample("things", 1, {"kind": "x" * 9000}))))
        assert 2**19 < (tmp_path / "values.db").stat().st_size <= 2**20
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        file.retain_targets(lambda name: name == "t0")
        caplog.set_level("INFO", logger="poller.polling.state_file")
        file.of("", "db").add(good(RESULT))
    assert caplog.messages[-1] == "the values are stored again"
    assert results(tmp_path) == [RESULT]


def test_while_another_process_uses_the_file_it_stays_unchanged(
    state_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="poller.polling.state_file")
    other = sqlite3.connect(state_folder / "values.db", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    with contextlib.closing(StateFile(state_folder)) as file:
        values = file.of("", "db")
        values.retain([])
        assert values.load([A], 0.0, 1000.0) == []
        assert caplog.records == [], "a second daemon is refused because of the folder's lock"
        values.add(good(OTHER))
        values.add(good(OTHER))
        assert caplog.messages == ["the values cannot be stored for a restart: values.db: database is locked"]
        other.close()
        values.add(good(OTHER))
        assert caplog.messages[1:] == ["the values are stored again"]
    assert results(state_folder) == [RESULT, OTHER]


@pytest.mark.parametrize("by", ["nothing", "a pipe", "a folder", "text", "another state file"])
def test_a_removed_or_replaced_file_is_written_completely(tmp_path: Path, by: str) -> None:
    folder, path = tmp_path / "state", tmp_path / "state" / "values.db"
    keep(tmp_path / "other", a_result(A, at=1.0))
    with contextlib.closing(StateFile(folder)) as file:
        values = file.of("", "db")
        values.add(good(RESULT))
        path.unlink()
        if by == "a pipe":
            os.mkfifo(path)
        elif by == "a folder":
            path.mkdir()
        elif by == "text":
            path.write_text("text" * 99)
        elif by == "another state file":
            shutil.copyfile(tmp_path / "other" / "values.db", path)
        values.add(good(OTHER))
        values.add(good(OTHER))
    assert results(folder) == [RESULT, OTHER]


@pytest.mark.parametrize("removed", ["values.db-journal", "."])
def test_values_survive_the_removal_of_other_files(tmp_path: Path, removed: str) -> None:
    folder = tmp_path / "state"
    with contextlib.closing(StateFile(folder)) as file:
        file.of("", "db").add(good(RESULT))
        shutil.rmtree(folder) if removed == "." else (folder / removed).unlink()
        file.of("", "db").add(good(OTHER))
        assert (folder / "values.db-journal").exists()
    assert results(folder) == [RESULT, OTHER]


# --- rows


def test_the_newest_value_of_each_query_is_restored(tmp_path: Path) -> None:
    for result in (RESULT, NEWER, OTHER):
        keep(tmp_path, result)
    assert results(tmp_path) == [NEWER, OTHER]


def test_a_reload_deletes_the_values_of_removed_and_changed_queries(tmp_path: Path) -> None:
    with contextlib.closing(StateFile(tmp_path)) as file:
        store = ResultStore([A, B], (), file.of("", "db"))
        store.put([RESULT, OTHER], 0.0)
        file.of("other", "db").add(good(RESULT))
        store.swap([B], {"a"})
        assert [(row.target, row.query) for row in rows(tmp_path)] == [("", "b"), ("other", "a")]
        store.swap([B], {"b"})
    assert [(row.target, row.query) for row in rows(tmp_path)] == [("other", "a")]


def test_the_stored_values_of_the_previous_database_are_deleted(tmp_path: Path) -> None:
    with contextlib.closing(StateFile(tmp_path)) as file:
        store = ResultStore([A, B], (), file.of("", "db"))
        store.put([result._replace(database="x") for result in (RESULT, OTHER)], 0.0)
        assert [row.query for row in rows(tmp_path)] == ["a", "b"]
        store.put([NEWER._replace(database="y")], 1.0)
    assert results(tmp_path) == [NEWER._replace(database="y")]


def test_values_that_an_earlier_version_stored_are_of_an_unknown_database(state_folder: Path) -> None:
    rewrite(state_folder, lambda entry: {key: entry[key] for key in entry if key != "database"})
    assert results(state_folder) == [RESULT]


def test_a_start_deletes_the_values_of_queries_that_no_longer_exist(tmp_path: Path) -> None:
    keep(tmp_path, RESULT, OTHER)
    settings = load({"POLLER_STATE_DIR": str(tmp_path), "POLLER_DATABASE_URL": "host=x"})
    TargetFactory(settings, daemon=True, push=False).open(settings.only_target(), [B])
    assert [row.query for row in rows(tmp_path)] == ["b"]


def test_values_of_a_target_are_deleted_with_the_target_alone(tmp_path: Path) -> None:
    for target in ("", "x", "y", "tenants/ä"):
        keep(tmp_path, RESULT, OTHER, target=target)
    with contextlib.closing(StateFile(tmp_path)) as file:
        file.forget("x")
        assert [row.target for row in rows(tmp_path)] == ["", "", "tenants/ä", "tenants/ä", "y", "y"]
        file.retain_targets(lambda name: name in {"", "tenants/ä"})
        assert [row.target for row in rows(tmp_path)] == ["", "", "tenants/ä", "tenants/ä"]
    assert results(tmp_path, target="tenants/ä") == [RESULT, OTHER]
    assert results(tmp_path, target="y") == []


def many(count: int) -> list[PollResult]:
    """Return the results of a tick of `count` queries."""
    return [
        a_result(replace(A, name=f"q{number}"), Sample("things", number, {"kind": "x"}))
        for number in range(count)
    ]


def test_a_tick_of_one_target_writes_only_its_rows(tmp_path: Path) -> None:
    """The number of other targets does not change the number of pages that a tick writes."""
    tick = many(10)
    with contextlib.closing(StateFile(tmp_path)) as file:
        for number in range(500):
            file.of(f"t{number:03d}", "db").add(good(*tick))
        before, pages = rows(tmp_path), (tmp_path / "values.db").read_bytes()
        file.of("t250", "db").add(good(*(result._replace(at=1001.0) for result in tick)))
        after, pages_after = rows(tmp_path), (tmp_path / "values.db").read_bytes()
    assert len(before) == len(after) == 5000
    changed = [new.target for old, new in zip(before, after, strict=True) if old != new]
    assert changed == ["t250"] * 10
    assert len(pages) == len(pages_after)
    places = range(0, len(pages), 4096)
    written = [start for start in places if pages[start : start + 4096] != pages_after[start : start + 4096]]
    assert len(written) <= 4 < len(places) // 50


def test_many_threads_store_their_values_at_once(tmp_path: Path) -> None:
    def poll(thread: int) -> None:
        for number in range(thread, 96, 8):
            values = file.of(f"t{number}", "db")
            values.add(good(*many(3)))
            assert len(values.load([result.query for result in many(5)], 0.0, 1000.0)) == 3

    with contextlib.closing(StateFile(tmp_path)) as file:
        failures: list[threading.ExceptHookArgs] = []
        threads = [threading.Thread(target=poll, args=[thread]) for thread in range(8)]
        before, threading.excepthook = threading.excepthook, failures.append
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            threading.excepthook = before
        assert not failures
        assert len(rows(tmp_path)) == 3 * 96


def test_values_that_wait_for_a_commit_are_stored_together(tmp_path: Path) -> None:
    with contextlib.closing(StateFile(tmp_path)) as file:
        file.of("x", "db").add(good(*many(1)))
        tick = good(*many(1))
        threads = [
            threading.Thread(target=file.of(f"t{number}", "db").add, args=[tick]) for number in range(20)
        ]
        statements: list[str] = []

        def hold(db: sqlite3.Connection) -> None:
            db.set_trace_callback(statements.append)
            for thread in threads:
                thread.start()
            while len(file.waiting) < len(threads):
                time.sleep(0.001)

        file.run(hold)
        for thread in threads:
            thread.join()
        assert len(rows(tmp_path)) == 21
        assert statements.count("COMMIT") == 1


def test_targets_that_come_and_go_do_not_grow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "values.db"
    with contextlib.closing(StateFile(tmp_path)) as file:
        sizes = []
        for number in range(300):
            file.of(f"t{number}", "db").add(good(*many(20)))
            if number >= 10:
                file.forget(f"t{number - 10}")
            sizes.append(path.stat().st_size)
        assert sizes[-1] <= 1.5 * sizes[20]
        assert len(rows(tmp_path)) == 200


values = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))
attributes = st.dictionaries(st.text(), st.one_of(st.text(), st.booleans(), st.integers(-9, 9)), max_size=3)


@pytest.mark.slow
@given(st.lists(st.tuples(values, attributes), max_size=5), st.floats(0, 2e9))
def test_any_stored_value_is_restored_unchanged(
    tmp_path_factory: pytest.TempPathFactory, samples: Sequence[tuple[int | float, dict[str, str]]], at: float
) -> None:
    folder = tmp_path_factory.mktemp("memory")
    result = a_result(A, *(Sample("things", value, labels) for value, labels in samples), at=at)
    keep(folder, result)
    (restored,) = load_results(folder, at)
    assert restored.result == result
    assert [type(sample.value) for sample in restored.result.samples] == [type(value) for value, _ in samples]
    assert all(math.isfinite(sample.value) for sample in restored.result.samples)


def test_the_state_file_contains_no_sql_and_no_identity(tmp_path: Path) -> None:
    result = PollResult(replace(A, sql="SELECT 'secret' AS n"), 1.0, 0.0, "ok")
    with contextlib.closing(StateFile(tmp_path)) as file:
        file.of("", "postgresql://me:***@host/db").add(good(result))
    content = (tmp_path / "values.db").read_bytes()
    assert b"secret" not in content
    assert b"postgresql" not in content


def test_the_folder_is_created_or_rejected_with_and_without_an_endpoint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for endpoint in ("", "http://127.0.0.1:4317"):
        env = {"POLLER_STATE_DIR": str(tmp_path / "file"), "POLLER_OTLP_ENDPOINT": endpoint}
        with pytest.raises(
            ConfigError, match=r"POLLER_STATE_DIR: '.*/file' cannot be used: it is not a folder"
        ):
            TargetFactory(load(env), daemon=True, push=False)
    TargetFactory(load({"POLLER_STATE_DIR": str(tmp_path / "a" / "b")}), daemon=True, push=False)
    assert (tmp_path / "a" / "b").is_dir()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


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
