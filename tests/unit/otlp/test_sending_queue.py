"""The sending queue: ordered, bounded, on the disk before it sends, and robust against damaged files."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poller.model.errors import ConfigError, StateInUseError
from poller.model.text import counted
from poller.otlp.queue_database import StoredRequest, checksum_of
from poller.otlp.queue_recovery import salvage
from poller.otlp.queue_storage import QueueStorage
from poller.otlp.request import Request
from poller.otlp.sending_queue import MEMORY_BYTES, SendingQueue
from tests.bed.cleanup import closing_all
from tests.bed.process import Process

Start = Callable[..., Process]
Open = Callable[..., SendingQueue]


@pytest.fixture
def open_queue() -> Iterator[Open]:
    def start(folder: Path | None, **limits: object) -> SendingQueue:
        # passed on unchanged
        return SendingQueue(folder, **{"max_size": 2**28, "max_age": 3600.0, **limits})  # type: ignore[arg-type]

    with closing_all(start, SendingQueue.close) as open_queue:
        yield open_queue


def request(text: str, size: int = 0) -> Request:
    return Request(text.encode().ljust(size, b"."), items=1)


def drain(queue: SendingQueue) -> list[str]:
    """Take and remove everything, as a delivery does; return the beginning of each body."""
    bodies = []
    while stored := queue.take():
        bodies.append(stored.request.body.rstrip(b".").decode())
        queue.remove(stored.id)
    return bodies


def look_through(queue: SendingQueue) -> list[str]:
    """Return the beginning of each waiting body without removing it, which would sync each time."""
    bodies, number = [], 0
    while stored := queue.after(number):
        bodies.append(stored.request.body.rstrip(b".").decode())
        number = stored.id
    return bodies


@pytest.mark.parametrize("on_disk", [True, False])
def test_requests_are_sent_in_the_order_of_their_arrival(
    open_queue: Open, tmp_path: Path, on_disk: bool
) -> None:
    queue = open_queue(tmp_path if on_disk else None)
    queue.append([request("1"), request("2")])
    queue.append([])
    queue.append([request("3")])
    assert (queue.requests, queue.size, queue.empty, queue.outlives) == (3, 3, False, on_disk)
    assert drain(queue) == ["1", "2", "3"]
    assert (queue.requests, queue.size, queue.empty) == (0, 0, True)


def test_unsettled_requests_survive_a_restart_and_precede_new_ones(open_queue: Open, tmp_path: Path) -> None:
    first = open_queue(tmp_path / "made" / "for it", clock=lambda: 1000.5)
    first.append([request(str(number)) for number in range(5)])
    stored = first.take()
    assert stored is not None
    first.remove(stored.id)
    first.take()
    first.close()
    second = open_queue(tmp_path / "made" / "for it", clock=lambda: 1010.5)
    assert second.age == 10
    second.append([request("new")])
    again = second.take()
    assert again is not None
    assert (again.at, again.request.items) == (1000.5, 1)
    assert drain(second) == ["1", "2", "3", "4", "new"]


def test_requests_beyond_the_maximum_size_are_dropped_oldest_first_and_counted(
    open_queue: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue = open_queue(tmp_path, max_size=1000)
    for number in range(20):
        queue.append([request(str(number), 100)])
    assert (queue.requests, queue.size, queue.dropped) == (10, 1000, {"size": 10})
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert drain(queue) == [str(number) for number in range(10, 20)]


def test_requests_beyond_the_maximum_age_are_dropped_even_if_the_queue_is_otherwise_empty(
    open_queue: Open, tmp_path: Path
) -> None:
    now = [0.0]
    queue = open_queue(tmp_path, max_age=60.0, clock=lambda: now[0])
    for number in range(5):
        queue.append([request(str(number))])
        now[0] += 20
    assert drain(queue) == ["2", "3", "4"]
    assert queue.dropped == {"age": 2}
    queue.append([request("5")])
    now[0] += 61
    assert queue.take() is None
    assert queue.dropped == {"age": 3}


def test_a_clock_that_is_set_back_drops_nothing(open_queue: Open, tmp_path: Path) -> None:
    now = [10_000.0]
    queue = open_queue(tmp_path, max_age=60.0, clock=lambda: now[0])
    queue.append([request("1")])
    now[0] = 0.0
    queue.append([request("2")])
    assert queue.age == 0
    assert drain(queue) == ["1", "2"]


def test_a_request_that_is_being_sent_is_not_dropped(open_queue: Open, tmp_path: Path) -> None:
    now = [0.0]
    queue = open_queue(tmp_path, max_size=1000, max_age=60.0, clock=lambda: now[0])
    queue.append([request("1", 600)])
    assert queue.take() is not None
    now[0] = 100.0
    queue.append([request("2", 600)])
    queue.append([request("3", 600)])
    assert queue.dropped == {"size": 1}
    queue.give_back()
    assert drain(queue) == ["3"]
    assert queue.dropped == {"size": 1, "age": 1}


def test_the_newest_export_is_stored_with_any_size(open_queue: Open) -> None:
    """Otherwise an export that is larger than the queue would be lost although the collector works."""
    queue = open_queue(None, max_size=2**40)
    large = [request(str(number), MEMORY_BYTES // 4) for number in range(8)]
    queue.append([request("old", MEMORY_BYTES // 4)])
    queue.append(large)
    assert drain(queue) == [str(number) for number in range(8)]
    assert queue.dropped == {"size": 1}


@pytest.mark.slow
def test_disk_space_is_released_after_an_outage(open_queue: Open, tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    for _ in range(60):
        queue.append([request("x", 2**18)])

    def used_bytes() -> int:
        return sum(file.stat().st_size for file in tmp_path.iterdir())

    assert used_bytes() > 15 * 2**20
    drain(queue)
    assert used_bytes() < 2**20


def test_a_commit_waits_for_the_disk(open_queue: Open, tmp_path: Path) -> None:
    """FULL: SQLite syncs the database and its journal at each commit (its manual, "PRAGMA synchronous")."""
    queue = open_queue(tmp_path)
    database = queue._disk._open_storage._db  # noqa: SLF001 - otherwise only observable by a power failure
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert database.execute("PRAGMA journal_mode").fetchone() == (b"truncate",)


_HOLD = """
import sys, time
from pathlib import Path
from poller.otlp.request import Request
from poller.otlp.sending_queue import SendingQueue
queue = SendingQueue(Path(sys.argv[1]), max_size=2**28, max_age=3600.0)
for number in range(int(sys.argv[2])):
    queue.append([Request(str(number).encode().ljust(5000, b"."), 1)])
    print("kept", number, flush=True)
print("done", flush=True)
time.sleep(600)
"""


def test_an_appended_request_survives_a_kill(open_queue: Open, tmp_path: Path, start_process: Start) -> None:
    process = start_process([sys.executable, "-c", _HOLD, str(tmp_path), "1000000"])
    process.wait_for_line("kept 300$")
    process.send(signal.SIGKILL)
    process.wait()
    count = process.stdout.count("kept")
    survived = drain(open_queue(tmp_path))
    assert survived[:count] == [str(number) for number in range(count)]
    assert len(survived) - count in (0, 1)  # the last may have been stored but not printed


def test_a_second_process_is_refused_with_the_owner_of_the_queue(
    open_queue: Open, tmp_path: Path, start_process: Start
) -> None:
    process = start_process([sys.executable, "-c", _HOLD, str(tmp_path), "1"])
    process.wait_for_line("done")
    with pytest.raises(StateInUseError) as caught:
        open_queue(tmp_path)
    assert f"'{tmp_path}' is in use by another poller (process {process.pid} on" in str(caught.value)
    assert "give each a folder of its own" in str(caught.value)
    process.send(signal.SIGKILL)
    process.wait()
    assert drain(open_queue(tmp_path)) == ["0"]


def test_two_queues_of_a_process_cannot_share_a_folder_either(open_queue: Open, tmp_path: Path) -> None:
    open_queue(tmp_path)
    with pytest.raises(StateInUseError):
        open_queue(tmp_path)


def test_a_folder_that_cannot_be_used_is_a_configuration_error(open_queue: Open, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"POLLER_STATE_DIR: '.*/file/x' cannot be used: it is not a folder"
    ):
        open_queue(tmp_path / "file" / "x")


# --- damaged files


def live_copy(open_queue: Open, tmp_path: Path, count: int) -> Path:
    """Return a copy of the files of a queue in use, as kill -9 leaves them."""
    (tmp_path / "live").mkdir()
    queue = open_queue(tmp_path / "live")
    for number in range(count):
        queue.append([request(f"{number}:{'x' * random.Random(number).choice([10, 3000, 9000])}")])
    shutil.copytree(tmp_path / "live", tmp_path / "copy")
    return tmp_path / "copy"


def numbers(bodies: list[str]) -> list[int]:
    """Return the number in each body, which must be complete."""
    for body in bodies:
        number, _, rest = body.partition(":")
        assert len(rest) == random.Random(int(number)).choice([10, 3000, 9000])
    return [int(body.partition(":")[0]) for body in bodies]


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["truncated", "overwritten", "both"])
@pytest.mark.parametrize("count", [12, 100])
def test_a_damaged_file_loses_only_the_damaged_requests(
    open_queue: Open, tmp_path: Path, harm: str, count: int
) -> None:
    """After any truncation or overwrite: no exception, nothing altered, nothing out of order."""
    copy = live_copy(open_queue, tmp_path, count)
    assert numbers(look_through(open_queue(copy))) == list(range(count))
    for seed in range(15):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        shutil.copytree(tmp_path / "live", folder)
        size = (folder / "spool.db").stat().st_size
        with (folder / "spool.db").open("r+b") as file:
            if harm != "truncated":
                file.seek(chance.randrange(size))
                file.write(chance.randbytes(chance.choice([1, 100, 5000])))
            if harm != "overwritten":
                file.truncate(chance.randrange(size))
        queue = open_queue(folder)
        remaining = numbers(look_through(queue))
        assert remaining == sorted(set(remaining)), (seed, remaining)
        queue.append([request("new")])
        assert look_through(queue)[-1] == "new", seed
        queue.close()
        assert look_through(open_queue(folder))[-1] == "new", seed


def alter(file: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.executescript(sql)


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.write_bytes(b"this is no database, but it is longer than a hundred bytes" * 9),
        lambda file: alter(file, "DROP TABLE request; CREATE TABLE request (id)"),
    ],
)
def test_another_kind_of_file_is_set_aside_with_a_warning(
    open_queue: Open, tmp_path: Path, harm: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    queue = open_queue(tmp_path)
    queue.append([request("1")])
    queue.close()
    harm(tmp_path / "spool.db")
    (tmp_path / "spool.damaged.db").write_text("from before")
    fresh = open_queue(tmp_path)
    fresh.append([request("2")])
    assert fresh.outlives
    assert fresh.dropped == {"damaged": 1}
    (record,) = caplog.records
    assert f"the spool in {tmp_path} is damaged" in record.getMessage()
    assert "moved to spool.damaged.2.db" in record.getMessage()
    assert "0 requests saved, at least 1 lost" in record.getMessage()
    assert (tmp_path / "spool.damaged.2.db").stat().st_size > 100
    assert (tmp_path / "spool.damaged.db").read_text() == "from before"
    assert drain(fresh) == ["2"]


# --- a full disk

_FULL = """
import logging, resource, sys
from pathlib import Path
from poller.otlp.request import Request
from poller.otlp.sending_queue import SendingQueue
logging.basicConfig(format="%(levelname)s %(message)s")
queue = SendingQueue(Path(sys.argv[1]), max_size=2**28, max_age=3600.0)
def append(*numbers):
    for number in numbers:
        queue.append([Request(f"{number}".encode().ljust(9000, b"."), 1)])
append(*range(10))
def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
limit(4096 if "at once" in sys.argv else 200_000)
append(*range(10, 60))
print("outlives", queue.outlives)
taken = queue.take(); queue.remove(taken.id)
limit(resource.RLIM_INFINITY)
append(60, 61)
bodies = [taken.request.body.rstrip(b".").decode()]
while stored := queue.take():
    bodies.append(stored.request.body.rstrip(b".").decode())
    queue.remove(stored.id)
print(*bodies)
print("left", queue.requests, queue.size, queue.outlives)
"""


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_full_disk_is_logged_once_and_nothing_is_lost_or_out_of_order(
    tmp_path: Path, start_process: Start, when: str
) -> None:
    process = start_process([sys.executable, "-c", _FULL, str(tmp_path), when])
    assert process.wait() == 0, process
    output = process.stdout.splitlines()
    assert output[0] == "outlives False"
    assert output[1].split() == [str(number) for number in range(62)]
    assert output[2] == "left 0 0 True"
    (warning,) = process.stderr.splitlines()
    assert warning.startswith(f"WARNING requests cannot be stored in {tmp_path} and stay in memory: ")


def test_while_another_process_locks_the_file_requests_wait_in_memory(
    open_queue: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process reads it with sqlite3 during the start: requests on the disk are still sent first."""
    queue = open_queue(tmp_path)
    queue.append([request("1"), request("2")])
    queue.close()
    other = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    again = open_queue(tmp_path)
    again.append([request("3")])
    assert not again.outlives
    other.close()
    again.append([request("4")])
    assert drain(again) == ["1", "2", "3", "4"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


# --- one damaged request


def test_a_failed_insert_leaves_nothing_and_the_next_insert_succeeds(tmp_path: Path) -> None:
    storage = QueueStorage(tmp_path / "s.db")
    storage.add([StoredRequest(1, 5.0, request("1"))])
    with pytest.raises(sqlite3.IntegrityError):
        storage.add([StoredRequest(2, 5.0, request("2")), StoredRequest(1, 5.0, request("1 again"))])
    assert (storage.requests, storage.last) == (1, 1)
    storage.add([StoredRequest(3, 5.0, request("3"))])
    assert [stored and stored.id for stored in storage.rescue()] == [1, 3]
    storage.close()
    assert [stored and stored.id for stored in salvage(tmp_path / "s.db")] == [1, 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE request SET points = 99 WHERE id = 5",
        "UPDATE request SET at = 1.5 WHERE id = 5",
        "UPDATE request SET at = 'soon' WHERE id = 5",
        "UPDATE request SET id = 500 WHERE id = 5",
        "UPDATE request SET body = x'00' WHERE id = 5",
        "UPDATE request SET body = 'text' WHERE id = 5",
        "UPDATE request SET checksum = 7 WHERE id = 5",
    ],
)
def test_a_damaged_request_loses_only_itself(
    open_queue: Open, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = open_queue(tmp_path)
    queue.append([request(str(number)) for number in range(1, 201)])
    queue.close()
    alter(tmp_path / "spool.db", harm)
    again = open_queue(tmp_path)
    assert drain(again) == [str(number) for number in range(1, 201) if number != 5]
    assert again.dropped == {"damaged": 1}
    assert "is damaged and lost: request 5" in caplog.text
    assert not list(tmp_path.glob("spool.damaged*"))


def test_a_damaged_page_loses_only_its_requests_and_they_are_counted(
    open_queue: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count = 200
    queue = open_queue(tmp_path)
    queue.append([request(str(number), 3000) for number in range(count)])
    queue.close()
    with (tmp_path / "spool.db").open("r+b") as file:
        content = file.read()
        page = content.index(b"99.....") // 4096  # a leaf of the table, in the middle
        file.seek(page * 4096)
        file.write(b"\xff" * 100)
    again = open_queue(tmp_path)
    remaining = look_through(again)
    assert again.dropped["damaged"] == count - len(remaining) in range(1, 5)
    assert remaining == sorted(remaining, key=int)
    assert (
        f"{counted(len(remaining), 'request')} saved, at least {count - len(remaining)} lost" in caplog.text
    )
    again.append([request("new")])
    again.close()
    assert look_through(open_queue(tmp_path)) == [*remaining, "new"]


def test_rows_of_a_database_of_another_version_are_saved_if_their_checksums_match(
    open_queue: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue = open_queue(tmp_path)
    queue.append([request("1")])
    queue.close()
    alter(tmp_path / "spool.db", "PRAGMA user_version = 7")
    again = open_queue(tmp_path)
    assert drain(again) == ["1"]
    assert "(its version is 7, and this program knows 2): moved to " in caplog.text


PAGE = 4096


def repeated(number: int) -> Request:
    """Return a body that contains the name of its request on every page that stores a part of it."""
    size = random.Random(number).choice([30, 900, 3000, 9000])
    return Request(f"{number:05d}.".encode() * (size // 6), items=1)


def flips(content: bytes, chance: random.Random) -> Iterator[int]:
    """Yield offsets of bits: many in the first page, on which everything depends, and some elsewhere."""
    schema = content.index(b"table" + b"request" * 2)
    for start, end, count in [
        (0, 100, 20),  # the header
        (100, schema - 20, 3),
        (schema - 20, PAGE, 20),  # the row of the schema
        (PAGE, PAGE + 5 * (len(content) // PAGE), 6),  # the pointer map
        (2 * PAGE, 2 * PAGE + 100, 8),  # the root of the tree
        (PAGE, len(content), 40),
    ]:
        for _ in range(count):
            yield chance.randrange(8 * start, 8 * end)


@pytest.mark.slow
@pytest.mark.parametrize("count", [6, 60])
def test_a_flipped_bit_loses_at_most_the_requests_on_its_page(
    open_queue: Open, tmp_path: Path, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    """At any position; losses are counted, and delivered requests do not return."""
    queue = open_queue(tmp_path / "good")
    queue.append([repeated(number) for number in range(count)])
    for _ in range(count // 10):
        queue.remove(getattr(queue.take(), "id"))  # noqa: B009 - there is one
    queue.close()
    content = (tmp_path / "good" / "spool.db").read_bytes()
    whole = [repeated(number).body.decode() for number in range(count // 10, count)]
    for bit in flips(content, random.Random(count)):
        folder = tmp_path / str(bit)
        shutil.copytree(tmp_path / "good", folder, dirs_exist_ok=True)
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        (folder / "spool.db").write_bytes(damaged)
        again = open_queue(folder)
        remaining = look_through(again)
        heads = {body[:6] for body in remaining}
        lost = [body for body in whole if body[:6] not in heads]
        place = f"byte {bit // 8}, bit {bit % 8}: {caplog.text}"
        assert [body.rstrip(".") for body in whole if body not in lost] == remaining, place
        start = bit // 8 // PAGE * PAGE
        page = content[start : start + PAGE]
        assert [body[:5] for body in lost if body[:6].encode() not in page] == [], place
        assert again.dropped["damaged"] == len(lost), place
        again.append([request("new")])
        assert again.outlives, place
        again.close()
        assert look_through(open_queue(folder)) == [*remaining, "new"], place
        assert not list(folder.glob("spool.salvage*"))
        caplog.clear()
        shutil.rmtree(folder)


# --- files as kill -9 leaves them


def killed(open_queue: Open, folder: Path, count: int, during: str) -> tuple[list[str], list[str]]:
    """Make the files that a kill leaves; return the committed and the possibly committed requests.

    `during` is the interrupted change: half of its pages are in the database, and their journal is hot.
    """
    live = folder.with_name(f"{folder.name}.live")
    queue = open_queue(live)
    for number in range(count):
        queue.append([repeated(number)])
    settled = count // 10
    for _ in range(settled):
        queue.remove(getattr(queue.take(), "id"))  # noqa: B009 - there is one
    bodies = [repeated(number).body.decode().rstrip(".") for number in range(count + 20)]
    committed, unsure = bodies[settled:count], bodies[count:]
    database = queue._disk._open_storage._db  # noqa: SLF001 - no interface interrupts a commit
    if during != "nothing":
        database.execute("PRAGMA cache_size = 4")  # so that pages are written before the end
        database.execute("BEGIN IMMEDIATE")
    if during == "add":
        for number in range(count, count + 20):
            stored = StoredRequest(number + 1, 1.0, repeated(number))
            row = (stored.id, stored.at, 1, checksum_of(stored), stored.request.body)
            database.execute("INSERT INTO request VALUES (?, ?, ?, ?, ?)", row)
    elif during == "remove":
        database.execute("DELETE FROM request WHERE id <= ?", (settled + count // 2,))
        committed, unsure = committed[count // 2 :], committed[: count // 2]
    shutil.copytree(live, folder)
    queue.close()
    assert during == "nothing" or (folder / "spool.db-journal").stat().st_size > 512
    return committed, unsure


@pytest.mark.parametrize("during", ["nothing", "add", "remove"])
def test_after_a_kill_exactly_the_committed_requests_remain(
    open_queue: Open, tmp_path: Path, during: str
) -> None:
    committed, unsure = killed(open_queue, tmp_path / "killed", 60, during)
    queue = open_queue(tmp_path / "killed")
    assert look_through(queue) == [*(unsure if during == "remove" else []), *committed]
    assert queue.dropped == {}


def harms(folder: Path, during: str, chance: random.Random) -> Iterator[tuple[str, int, bytes]]:
    """Yield flipped bits all over the files, mostly at the beginning of a page, and cuts of a hot journal."""
    for file in sorted(folder.glob("*" if during == "nothing" else "*-journal")):
        name, content = file.name, file.read_bytes()
        if not content:
            continue
        heads = [start + 8 * 16 * chance.random() for start in range(0, 8 * len(content), 8 * PAGE)]
        anywhere = [chance.randrange(8 * len(content)) for _ in range(20)]
        header = range(3, 8 * 28, 5) if name.endswith("journal") else []
        for bit in {*header, *anywhere, *(int(head) for head in heads if head < 8 * len(content))}:
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            yield name, bit, bytes(damaged)
        for _ in range(15 if name.endswith("journal") else 0):
            size = chance.randrange(len(content))
            yield name, 8 * size, content[:size]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "during"), [(6, "nothing"), (30, "nothing"), (30, "add"), (30, "remove")])
def test_a_flipped_bit_in_any_file_after_a_kill_loses_nothing_uncounted(
    open_queue: Open, tmp_path: Path, count: int, during: str, caplog: pytest.LogCaptureFixture
) -> None:
    committed, unsure = killed(open_queue, tmp_path / "killed", count, during)
    for name, bit, content in harms(tmp_path / "killed", during, random.Random(count)):
        folder = tmp_path / "damaged"
        shutil.copytree(tmp_path / "killed", folder)
        (folder / name).write_bytes(content)
        queue = open_queue(folder)
        remaining = look_through(queue)
        place = f"{name}, byte {bit // 8}, bit {bit % 8}: {caplog.text}"
        assert remaining == sorted(set(remaining)), place
        assert set(remaining) <= {*committed, *unsure}, place
        lost = len(set(committed) - set(remaining))
        assert queue.dropped["damaged"] >= lost, place
        assert during != "nothing" or queue.dropped["damaged"] == lost, place
        assert sum(file.stat().st_size for file in folder.iterdir()) < 2**22, place
        queue.append([request("new")])
        assert queue.outlives, place
        queue.close()
        caplog.clear()
        shutil.rmtree(folder)


def test_an_orphaned_or_invalid_journal_loses_nothing(open_queue: Open, tmp_path: Path) -> None:
    killed(open_queue, tmp_path / "killed", 60, "add")
    (tmp_path / "killed" / "spool.db").unlink()
    queue = open_queue(tmp_path / "killed")
    queue.append([request("1")])
    queue.close()
    (tmp_path / "killed" / "spool.db-journal").write_bytes(random.Random(1).randbytes(20_000))
    queue = open_queue(tmp_path / "killed")
    assert drain(queue) == ["1"]
    assert queue.dropped == {}


def version_1(folder: Path, count: int) -> sqlite3.Connection:
    """Make a queue of version 1 whose write-ahead log contains most of it."""
    folder.mkdir()
    database = sqlite3.connect(folder / "spool.db", isolation_level=None)
    for pragma in ("page_size = 4096", "auto_vacuum = INCREMENTAL", "journal_mode = WAL", "user_version = 1"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("PRAGMA application_id = 12345")
    database.execute(
        "CREATE TABLE request (id INTEGER PRIMARY KEY, at REAL NOT NULL, points INTEGER NOT NULL,"
        " checksum INTEGER NOT NULL, body BLOB NOT NULL)"
    )
    for number in range(count):
        if number == count // 2:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")
        stored = StoredRequest(number + 1, 1e9, repeated(number))
        row = (stored.id, stored.at, 1, checksum_of(stored), stored.request.body)
        database.execute("INSERT INTO request VALUES (?, ?, ?, ?, ?)", row)
    return database


@pytest.mark.parametrize("end", ["closed", "killed", "killed and damaged"])
def test_a_queue_of_version_1_keeps_its_requests(open_queue: Open, tmp_path: Path, end: str) -> None:
    database = version_1(tmp_path / "old", 60)
    if end == "closed":
        database.close()
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    database.close()
    assert (tmp_path / "new" / "spool.db-wal").exists() == (end != "closed")
    if end == "killed and damaged":
        with (tmp_path / "new" / "spool.db").open("r+b") as file:
            file.seek(20)
            file.write(b"\xff")
    bodies = [repeated(number).body.decode().rstrip(".") for number in range(60)]
    queue = open_queue(tmp_path / "new", max_age=1e12)
    assert look_through(queue) == bodies
    assert queue.dropped["damaged"] == 0
    queue.append([request("new")])
    queue.close()
    assert not (tmp_path / "new" / "spool.db-wal").exists()
    assert look_through(open_queue(tmp_path / "new", max_age=1e12)) == [*bodies, "new"]


def test_files_set_aside_after_earlier_damage_are_never_overwritten(open_queue: Open, tmp_path: Path) -> None:
    for number in range(11):
        (tmp_path / "spool.db").write_bytes(
            b"damage %d, and long enough for the header of a database. " % number * 9
        )
        open_queue(tmp_path).close()
    names = ["spool.damaged.db", *(f"spool.damaged.{number}.db" for number in range(2, 10))]
    assert {file.name for file in tmp_path.glob("spool.damaged*.db")} == set(names)
    for number, name in enumerate(names[:-1]):
        assert (tmp_path / name).read_text().startswith(f"damage {number},")


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_a_database_that_is_not_a_regular_file_is_set_aside(
    open_queue: Open, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "spool.db"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    queue = open_queue(tmp_path)
    queue.append([request("1")])
    assert queue.outlives
    assert drain(queue) == ["1"]


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_a_journal_that_is_not_a_regular_file_loses_nothing(
    open_queue: Open, tmp_path: Path, kind: str
) -> None:
    queue = open_queue(tmp_path)
    queue.append([request("1")])
    queue.close()
    path = tmp_path / "spool.db-journal"
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    again = open_queue(tmp_path)
    assert again.outlives
    assert drain(again) == ["1"]
    assert again.dropped["damaged"] == 0


# --- a removed folder


@pytest.mark.parametrize("harm", ["folder", "files", "database", "journal", "lock"])
def test_files_removed_from_a_running_poller_are_created_again_and_nothing_is_lost(
    open_queue: Open, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    queue = open_queue(folder)
    queue.append([request("1"), request("2")])
    stored = queue.take()
    assert stored is not None
    if harm == "folder":
        shutil.rmtree(folder)
    for file in list(
        folder.glob({"database": "spool.db", "journal": "*-journal", "lock": "*.lock"}.get(harm, "*"))
    ):
        file.unlink()
    assert [queue.outlives] == [harm == "lock"]
    queue.append([request("3")])
    assert queue.in_memory == 0
    (record,) = caplog.records
    assert record.getMessage() == f"the files in {folder} were removed while in use; they are created again"
    with pytest.raises(StateInUseError):
        open_queue(folder)
    queue.remove(stored.id)
    queue.close()
    assert drain(open_queue(folder)) == ["2", "3"]


def test_a_folder_that_another_poller_has_locked_meanwhile_stays_with_it(
    open_queue: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    first = open_queue(folder)
    first.append([request("1")])
    shutil.rmtree(folder)
    second = open_queue(folder)
    for number in range(2, 5):
        first.append([request(str(number))])
    assert first.in_memory == 4
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "is in use by another poller" in caplog.records[-1].getMessage()
    second.close()
    first.append([request("5")])
    assert first.outlives
    assert drain(first) == ["1", "2", "3", "4", "5"]


def test_a_missing_folder_raises_nothing_and_loses_nothing(open_queue: Open, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    queue = open_queue(folder)
    queue.append([request("1")])
    shutil.rmtree(folder)
    folder.write_text("in the way")
    for number in range(2, 5):
        queue.append([request(str(number))])
    assert queue.take() is not None
    assert queue.in_memory == 4
    folder.unlink()
    queue.append([request("5")])
    assert queue.in_memory == 0
    assert drain(queue) == ["1", "2", "3", "4", "5"]


def test_older_requests_on_the_disk_survive_the_delivery_of_newer_ones_from_memory(
    open_queue: Open, tmp_path: Path
) -> None:
    queue = open_queue(tmp_path)
    queue.append([request("1"), request("2")])
    queue.close()
    other = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    again = open_queue(tmp_path)
    again.append([request("3"), request("4")])
    stored = again.take()
    assert stored is not None
    other.close()
    again.append([request("5")])
    again.remove(stored.id)
    assert drain(again) == ["1", "2", "4", "5"]


# --- a disk that remains full

_STAYS_FULL = """
import logging, resource, sys
from pathlib import Path
from poller.otlp.request import Request
from poller.otlp.sending_queue import SendingQueue
logging.basicConfig(format="%(levelname)s %(message)s")
queue = SendingQueue(Path(sys.argv[1]), max_size=2**28, max_age=3600.0)
for number in range(10):
    queue.append([Request(f"{number}".encode().ljust(9000, b"."), 1)])
# No file may grow, and none be written beyond its first sector, as where the journal has no room.
resource.setrlimit(resource.RLIMIT_FSIZE, (512, resource.RLIM_INFINITY))
for _ in range(4):
    queue.remove(queue.take().id)
print(queue.requests, queue.size, queue.outlives, flush=True)
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_requests_delivered_while_the_disk_is_full_are_not_sent_again(
    open_queue: Open, tmp_path: Path, start_process: Start
) -> None:
    process = start_process([sys.executable, "-c", _STAYS_FULL, str(tmp_path)])
    assert process.wait() == -signal.SIGKILL, process
    assert process.stdout.split() == ["6", str(6 * 9000), "True"]
    queue = open_queue(tmp_path)
    assert queue.requests == 6
    queue.append([request("10")])
    assert drain(queue) == [str(number) for number in range(4, 11)]


def test_a_marker_of_another_database_hides_nothing(
    open_queue: Open, tmp_path: Path, start_process: Start
) -> None:
    process = start_process([sys.executable, "-c", _STAYS_FULL, str(tmp_path)])
    process.wait()
    for file in tmp_path.glob("spool.db*"):
        file.unlink()
    queue = open_queue(tmp_path)
    queue.append([request("1")])
    queue.close()
    assert drain(open_queue(tmp_path)) == ["1"]


_ON_FULL_DISK = """
import contextlib, os, signal, sys
from pathlib import Path
from poller.otlp.request import Request
from poller.otlp.sending_queue import SendingQueue
folder = Path(sys.argv[1])
queue = SendingQueue(folder, max_size=2**28, max_age=3600.0)
if sys.argv[2] == "fill":
    for number in range(20):
        queue.append([Request(f"{number}".encode().ljust(9000, b"."), 1)])
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(512))
    for _ in range(4):
        queue.remove(queue.take().id)
else:
    for _ in range(int(sys.argv[2])):
        stored = queue.take()
        print(stored.request.body.rstrip(b".").decode())
        queue.remove(stored.id)
print("left", queue.requests, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_on_a_full_disk_stored_requests_are_delivered_once_across_restarts(
    tmp_path: Path, start_process: Start
) -> None:
    run = " ; ".join(f'"$@" {step}' for step in ("fill", "6", "10", "0"))
    mount = f"mount -t tmpfs -o size=1m none {tmp_path} && {{ {run} ; }}"
    isolate = ["unshare", "-m", *([] if os.getuid() == 0 else ["-r"]), "sh", "-c", mount, "sh"]
    process = start_process([*isolate, sys.executable, "-c", _ON_FULL_DISK, str(tmp_path)])
    process.wait()
    delivered = [str(number) for number in range(4, 20)]
    assert process.stdout.split("\n") == [
        "left 16",
        *delivered[:6],
        "left 10",
        *delivered[6:],
        "left 0",
        "left 0",
        "",
    ], process


_NO_INODE = """
import logging, sys
from pathlib import Path
from poller.otlp.request import Request
from poller.otlp.sending_queue import SendingQueue
logging.basicConfig(format="%(levelname)s %(message)s")
folder = Path(sys.argv[1])
fillers = []
try:
    for number in range(10_000):
        fillers.append(folder / f"filler{number}")
        fillers[-1].touch()
except OSError:
    fillers.pop()
for _ in range(int(sys.argv[2])):
    fillers.pop().unlink()
queue = SendingQueue(folder, max_size=2**28, max_age=3600.0)
queue.append([Request(b"1", 1)])
print(queue.outlives)
for filler in fillers:
    filler.unlink()
queue.append([Request(b"2", 1)])
print(queue.outlives)
while stored := queue.take():
    print(stored.request.body.decode())
    queue.remove(stored.id)
"""


@pytest.mark.parametrize("free", range(5))
def test_it_starts_on_a_disk_without_free_inodes(tmp_path: Path, start_process: Start, free: int) -> None:
    mount = f'mount -t tmpfs -o nr_inodes=50 none {tmp_path} && exec "$@"'
    isolate = ["unshare", "-m", *([] if os.getuid() == 0 else ["-r"]), "sh", "-c", mount, "sh"]
    process = start_process([*isolate, sys.executable, "-c", _NO_INODE, str(tmp_path), str(free)])
    assert process.wait() == 0, process
    assert process.stdout.split() == [str(free >= 3), "True", "1", "2"]
    assert process.stderr.count("WARNING requests cannot be stored in") == (free < 3)
