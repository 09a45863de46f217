"""The spool: in order, bounded, on the disk before anything is sent, and not to be shaken by a bad file."""

from __future__ import annotations

import contextlib
import logging
import random
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poller.encoding import Request
from poller.errors import ConfigError, StateInUseError
from poller.spool import MEMORY_BYTES, Spool
from tests.bed.process import Process

Start = Callable[..., Process]
Open = Callable[..., Spool]


@pytest.fixture
def open_spool() -> Iterator[Open]:
    opened: list[Spool] = []

    def start(folder: Path | None, **limits: object) -> Spool:
        opened.append(Spool(folder, **{"max_size": 2**28, "max_age": 3600.0, **limits}))  # type: ignore[arg-type]  # passed on as they came
        return opened[-1]

    yield start
    for spool in opened:
        spool.close()


def request(text: str, size: int = 0) -> Request:
    return Request(text.encode().ljust(size, b"."), points=1)


def drain(spool: Spool) -> list[str]:
    """Take everything out, as a delivery does; what each body begins with."""
    found = []
    while kept := spool.take():
        found.append(kept.request.body.rstrip(b".").decode())
        spool.settle(kept.id)
    return found


def look_through(spool: Spool) -> list[str]:
    """What waits, without taking it out, which would sync at each."""
    found, number = [], 0
    while kept := spool.behind(number):
        found.append(kept.request.body.rstrip(b".").decode())
        number = kept.id
    return found


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_waits_goes_out_in_the_order_in_which_it_came(
    open_spool: Open, tmp_path: Path, on_disk: bool
) -> None:
    spool = open_spool(tmp_path if on_disk else None)
    spool.append([request("1"), request("2")])
    spool.append([])
    spool.append([request("3")])
    assert (spool.requests, spool.size, spool.empty, spool.outlives) == (3, 3, False, on_disk)
    assert drain(spool) == ["1", "2", "3"]
    assert (spool.requests, spool.size, spool.empty) == (0, 0, True)


def test_what_was_not_settled_is_there_for_the_next_process_and_stays_before_what_it_adds(
    open_spool: Open, tmp_path: Path
) -> None:
    first = open_spool(tmp_path / "made" / "for it", clock=lambda: 1000.5)
    first.append([request(str(number)) for number in range(5)])
    taken = first.take()
    assert taken is not None
    first.settle(taken.id)
    first.take()
    first.close()
    second = open_spool(tmp_path / "made" / "for it", clock=lambda: 1010.5)
    assert second.age == 10
    second.append([request("new")])
    again = second.take()
    assert again is not None
    assert (again.at, again.request.points) == (1000.5, 1)
    assert drain(second) == ["1", "2", "3", "4", "new"]


def test_what_is_too_much_is_dropped_oldest_first_and_counted(
    open_spool: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = open_spool(tmp_path, max_size=1000)
    for number in range(20):
        spool.append([request(str(number), 100)])
    assert (spool.requests, spool.size, spool.dropped) == (10, 1000, {"size": 10})
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert drain(spool) == [str(number) for number in range(10, 20)]


def test_what_is_too_old_is_dropped_even_if_nothing_else_is_there(open_spool: Open, tmp_path: Path) -> None:
    now = [0.0]
    spool = open_spool(tmp_path, max_age=60.0, clock=lambda: now[0])
    for number in range(5):
        spool.append([request(str(number))])
        now[0] += 20
    assert drain(spool) == ["2", "3", "4"]
    assert spool.dropped == {"age": 2}
    spool.append([request("5")])
    now[0] += 61
    assert spool.take() is None
    assert spool.dropped == {"age": 3}


def test_a_clock_that_is_set_back_drops_nothing(open_spool: Open, tmp_path: Path) -> None:
    now = [10_000.0]
    spool = open_spool(tmp_path, max_age=60.0, clock=lambda: now[0])
    spool.append([request("1")])
    now[0] = 0.0
    spool.append([request("2")])
    assert spool.age == 0
    assert drain(spool) == ["1", "2"]


def test_what_is_in_hand_is_not_dropped(open_spool: Open, tmp_path: Path) -> None:
    now = [0.0]
    spool = open_spool(tmp_path, max_size=1000, max_age=60.0, clock=lambda: now[0])
    spool.append([request("1", 600)])
    assert spool.take() is not None
    now[0] = 100.0
    spool.append([request("2", 600)])
    spool.append([request("3", 600)])
    assert spool.dropped == {"size": 1}
    spool.give_back()
    assert drain(spool) == ["3"]
    assert spool.dropped == {"size": 1, "age": 1}


def test_the_newest_export_is_kept_however_large_it_is(open_spool: Open) -> None:
    """Or one that is larger than the spool would be lost while the collector is well."""
    spool = open_spool(None, max_size=2**40)
    large = [request(str(number), MEMORY_BYTES // 4) for number in range(8)]
    spool.append([request("old", MEMORY_BYTES // 4)])
    spool.append(large)
    assert drain(spool) == [str(number) for number in range(8)]
    assert spool.dropped == {"size": 1}


def test_the_disk_is_given_back_after_an_outage(open_spool: Open, tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for _ in range(60):
        spool.append([request("x", 2**18)])

    def taken() -> int:
        return sum(file.stat().st_size for file in tmp_path.iterdir())

    assert taken() > 15 * 2**20
    drain(spool)
    assert taken() < 2**20


def test_a_commit_waits_for_the_disk(open_spool: Open, tmp_path: Path) -> None:
    """FULL: SQLite syncs the log at each commit (its manual, "PRAGMA synchronous")."""
    spool = open_spool(tmp_path)
    assert spool._disk is not None  # noqa: SLF001 - nothing else tells without cutting the power
    database = spool._disk._db  # noqa: SLF001 - the same
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


_HOLD = """
import sys, time
from pathlib import Path
from poller.encoding import Request
from poller.spool import Spool
spool = Spool(Path(sys.argv[1]), max_size=2**28, max_age=3600.0)
for number in range(int(sys.argv[2])):
    spool.append([Request(str(number).encode().ljust(5000, b"."), 1)])
    print("kept", number, flush=True)
print("done", flush=True)
time.sleep(600)
"""


def test_what_append_has_returned_for_survives_a_kill(
    open_spool: Open, tmp_path: Path, start_process: Start
) -> None:
    process = start_process([sys.executable, "-c", _HOLD, str(tmp_path), "1000000"])
    process.wait_for_line("kept 300$")
    process.send(signal.SIGKILL)
    process.wait()
    count = process.stdout.count("kept")
    survived = drain(open_spool(tmp_path))
    assert survived[:count] == [str(number) for number in range(count)]
    assert len(survived) - count in (0, 1)  # the last may have been kept and not told


def test_a_second_process_is_told_who_has_the_spool(
    open_spool: Open, tmp_path: Path, start_process: Start
) -> None:
    process = start_process([sys.executable, "-c", _HOLD, str(tmp_path), "1"])
    process.wait_for_line("done")
    with pytest.raises(StateInUseError) as caught:
        open_spool(tmp_path)
    assert f"'{tmp_path}' is in use by another poller (process {process.pid} on" in str(caught.value)
    assert "give each a folder of its own" in str(caught.value)
    process.send(signal.SIGKILL)
    process.wait()
    assert drain(open_spool(tmp_path)) == ["0"]


def test_two_spools_of_one_process_do_not_share_either(open_spool: Open, tmp_path: Path) -> None:
    open_spool(tmp_path)
    with pytest.raises(StateInUseError):
        open_spool(tmp_path)


def test_a_folder_that_cannot_be_used_is_a_configuration_error(open_spool: Open, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"POLLER_STATE_DIR: '.*/file/x' cannot be used: Not a directory"):
        open_spool(tmp_path / "file" / "x")


# --- files that are not what they were


def live_copy(open_spool: Open, tmp_path: Path, count: int) -> Path:
    """The files of a spool in use, as a crash of the machine could leave them; most is in the log still."""
    (tmp_path / "live").mkdir()
    spool = open_spool(tmp_path / "live")
    for number in range(count):
        spool.append([request(f"{number}:{'x' * random.Random(number).choice([10, 3000, 9000])}")])
    shutil.copytree(tmp_path / "live", tmp_path / "copy")
    return tmp_path / "copy"


def numbers(bodies: list[str]) -> list[int]:
    """What each body is the number of; it must be whole."""
    for body in bodies:
        number, _, rest = body.partition(":")
        assert len(rest) == random.Random(int(number)).choice([10, 3000, 9000])
    return [int(body.partition(":")[0]) for body in bodies]


@pytest.mark.parametrize("harm", ["truncated", "overwritten", "both"])
@pytest.mark.parametrize("count", [12, 400])
def test_a_damaged_file_costs_what_is_damaged_and_nothing_else(
    open_spool: Open, tmp_path: Path, harm: str, count: int
) -> None:
    """Whatever is cut off or overwritten: no exception, nothing altered, nothing out of order."""
    copy = live_copy(open_spool, tmp_path, count)
    assert numbers(look_through(open_spool(copy))) == list(range(count))
    for seed in range(15):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        shutil.copytree(tmp_path / "live", folder)
        for name in chance.sample(["spool.db", "spool.db-wal"], chance.choice([1, 2])):
            size = (folder / name).stat().st_size
            with (folder / name).open("r+b") as file:
                if harm != "truncated":
                    file.seek(chance.randrange(size))
                    file.write(chance.randbytes(chance.choice([1, 100, 5000])))
                if harm != "overwritten":
                    file.truncate(chance.randrange(size))
        spool = open_spool(folder)
        left = numbers(look_through(spool))
        assert left == sorted(set(left)), (seed, left)
        spool.append([request("new")])
        assert look_through(spool)[-1] == "new", seed
        spool.close()
        assert look_through(open_spool(folder))[-1] == "new", seed


def alter(file: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.executescript(sql)


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.write_bytes(b"this is no database, but it is longer than a hundred bytes" * 9),
        lambda file: alter(file, "PRAGMA user_version = 7"),
        lambda file: alter(file, "DROP TABLE request; CREATE TABLE request (id)"),
    ],
)
def test_a_file_that_is_no_spool_is_set_aside_with_a_warning(
    open_spool: Open, tmp_path: Path, harm: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    spool = open_spool(tmp_path)
    spool.append([request("1")])
    spool.close()
    harm(tmp_path / "spool.db")
    (tmp_path / "spool.damaged.db").write_text("from before")
    fresh = open_spool(tmp_path)
    fresh.append([request("2")])
    assert fresh.outlives
    assert fresh.dropped == {"damaged": 1}
    (record,) = caplog.records
    assert f"the spool in {tmp_path} is damaged" in record.getMessage()
    assert "set aside as spool.damaged.db" in record.getMessage()
    assert (tmp_path / "spool.damaged.db").stat().st_size > 100
    assert drain(fresh) == ["2"]


# --- a disk that takes nothing

_FULL = """
import logging, resource, sys
from pathlib import Path
from poller.encoding import Request
from poller.spool import Spool
logging.basicConfig(format="%(levelname)s %(message)s")
spool = Spool(Path(sys.argv[1]), max_size=2**28, max_age=3600.0)
def append(*numbers):
    for number in numbers:
        spool.append([Request(f"{number}".encode().ljust(9000, b"."), 1)])
append(*range(10))
def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
limit(4096 if "at once" in sys.argv else 200_000)
append(*range(10, 60))
print("outlives", spool.outlives)
taken = spool.take(); spool.settle(taken.id)
limit(resource.RLIM_INFINITY)
append(60, 61)
found = [taken.request.body.rstrip(b".").decode()]
while kept := spool.take():
    found.append(kept.request.body.rstrip(b".").decode())
    spool.settle(kept.id)
print(*found)
print("left", spool.requests, spool.size, spool.outlives)
"""


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_full_disk_is_told_once_and_nothing_is_lost_nor_out_of_order(
    tmp_path: Path, start_process: Start, when: str
) -> None:
    process = start_process([sys.executable, "-c", _FULL, str(tmp_path), when])
    assert process.wait() == 0, process
    told = process.stdout.splitlines()
    assert told[0] == "outlives False"
    assert told[1].split() == [str(number) for number in range(62)]
    assert told[2] == "left 0 0 True"
    (warning,) = process.stderr.splitlines()
    assert warning.startswith(f"WARNING nothing can be kept in {tmp_path}, so it is in memory for now: ")


def test_a_file_that_others_hold_is_waited_for_in_memory(
    open_spool: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody looks at it with sqlite3 while we start: what is on the disk still goes first."""
    spool = open_spool(tmp_path)
    spool.append([request("1"), request("2")])
    spool.close()
    other = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    again = open_spool(tmp_path)
    again.append([request("3")])
    assert not again.outlives
    other.close()
    again.append([request("4")])
    assert drain(again) == ["1", "2", "3", "4"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
