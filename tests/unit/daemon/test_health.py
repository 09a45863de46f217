"""The heartbeat alone determines whether the poller is alive and ready."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poller.daemon.health import MAX_AGE_SECONDS, MAX_BYTES, clock, judge, places, process_namespace, read
from poller.daemon.heartbeat import Heartbeat
from poller.daemon.watchdog import BEAT_SECONDS, Watchdog
from poller.model.files import replace_file
from poller.polling.status import QueryStatus
from poller.polling.target_status import encode
from tests.bed.process import ROOT, eventually

NOW = 5000.0
WELL = {
    "pid": os.getpid(),
    "process_namespace": process_namespace(),
    "boottime": NOW - 2,
    "stuck": None,
    "ready": True,
    "ticks": {"default/5m": {"interval": 300.0, "last_run": 1.7e9}},
    "queries": {"a": "ok", "b": "failed(timeout)", "c": "ok", "d": "skipped(column t.x does not exist)"},
    "query_files": "ok",
    "export": "ok",
}


SUMMARY = "queries: 1 failed, 2 ok, 1 skipped; export ok; query files ok"
OVERDUE = "process {} hangs or cannot write its heartbeat: the last one was 61s ago, the limit is 60s"
OTHER = """
import sys
from pathlib import Path
from poller.daemon.heartbeat import Heartbeat
Heartbeat([Path(sys.argv[1])], "b").write({})
print(flush=True)
sys.stdin.read()
"""


def health_of(*, ready: bool = False, max_age: float = 60.0, **changed: Any) -> tuple[bool, str]:
    return judge({**WELL, **changed}, ready=ready, now=NOW, max_age=max_age)


def ended_process() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_a_single_line_reports_that_it_is_alive_and_its_state() -> None:
    assert health_of() == (True, f"alive: process {os.getpid()}, heartbeat 2s ago; {SUMMARY}")
    assert health_of(ready=True)[1].startswith("ready: process")


def test_the_line_has_the_state_in_the_election_and_a_follower_has_no_targets() -> None:
    election = {"name": "postgresql:obscura-poller", "holder": "a", "why": "a holds the lock"}
    more: dict[str, Any] = {"queries": {}, "targets": {"all": 2, "up": 2}, "states": {"ok": 4}}
    leader = health_of(ready=True, leader={"state": "leader", **election}, **more)[1]
    assert "; leader of postgresql:obscura-poller; targets: 2 of 2 up; queries: 4 ok; export ok;" in leader
    follower = health_of(ready=True, leader={"state": "follower", **election}, **more)
    assert follower[0]
    assert "; follower of postgresql:obscura-poller (a holds the lock); export ok; query" in follower[1]


@pytest.mark.parametrize(
    "problem",
    [
        {"queries": {"a": "failed(unavailable)", "b": "failed(unavailable)"}},
        {"queries": {}, "export": "not yet"},
        {"export": "failing"},
        {"query_files": "refused (3 problems)"},
    ],
    ids=str,
)
@pytest.mark.parametrize("ready", [False, True])
def test_failures_outside_the_process_do_not_make_it_unhealthy(problem: dict[str, Any], ready: bool) -> None:
    assert health_of(ready=ready, **problem)[0]


def test_the_targets_are_named_next_to_the_query_files_if_there_are_targets() -> None:
    targets = {"all": 2, "up": 2, "down": 0}
    line = health_of(targets=targets, query_files="refused (1 problem)")[1]
    assert line.endswith("; query files and targets refused (1 problem)")


@pytest.mark.parametrize("ready", [False, True])
def test_a_stuck_part_makes_it_neither_alive_nor_ready(ready: bool) -> None:
    word = "ready" if ready else "alive"
    pid = os.getpid()
    assert health_of(ready=ready, stuck="tick default/5m runs for 21m") == (
        False,
        f"not {word}: process {pid} hangs: tick default/5m runs for 21m",
    )
    assert health_of(ready=ready, boottime=NOW - 61) == (
        False,
        f"not {word}: {OVERDUE.format(pid)}",
    )
    assert health_of(ready=ready, boottime=NOW - 61, max_age=90.0)[0]


def test_an_ended_process_is_dead_even_with_a_fresh_heartbeat() -> None:
    pid = ended_process()
    assert health_of(pid=pid) == (
        False,
        f"not alive: process {pid} is gone, its last heartbeat was 2s ago",
    )


def test_a_process_id_of_another_container_is_ignored() -> None:
    elsewhere: dict[str, Any] = {"pid": ended_process(), "process_namespace": "pid:[1]"}
    assert health_of(**elsewhere)[0]
    assert not health_of(**elsewhere, boottime=NOW - 61)[0]


def test_a_process_of_another_user_is_alive() -> None:
    assert health_of(pid=1)[0]


def test_a_heartbeat_from_before_a_reboot_is_ignored() -> None:
    assert health_of(boottime=NOW + 100) == (
        False,
        "not alive: the heartbeat is from before the system was started",
    )


def test_before_every_tick_has_run_it_is_alive_but_not_ready() -> None:
    ticks = {
        "default/5m": {"interval": 300.0, "last_run": 1.7e9},
        "slow/1h": {"interval": 3600.0, "last_run": None},
        "default/0 3 * * * UTC": {"interval": 86400.0, "schedule": "0 3 * * * UTC", "last_run": None},
    }
    assert health_of(ready=True, ticks=ticks)[0], "a tick added by a reload does not count"
    result = judge({**WELL, "ready": False, "ticks": ticks}, ready=True, now=NOW)
    assert result == (False, "not ready: the first polls are not over; still to come: slow/1h")
    assert judge({**WELL, "ready": False, "ticks": ticks}, ready=False, now=NOW).good


def test_the_path_is_the_setting_or_in_the_state_folder_or_private_to_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = f"obscura-poller-{os.getuid()}/heartbeat.json"
    monkeypatch.delenv("TMPDIR", raising=False)
    assert places(None, None) == [Path("/tmp") / own, Path("/dev/shm") / own]
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    assert places(None, None)[0] == Path("/var/tmp") / own
    assert places(None, "/state") == [Path("/state/heartbeat.json")]
    assert places("/run/h", Path("/state")) == [Path("/run/h")]


def test_a_heartbeat_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "h"
    heartbeat = Heartbeat([file])
    before = clock()
    heartbeat.write({"ready": True, "queries": {"ä": "ok"}})
    content = read([file])
    assert isinstance(content, dict)
    assert (content["pid"], content["ready"], content["queries"]) == (os.getpid(), True, {"ä": "ok"})
    assert before <= content["boottime"] <= clock()
    assert judge(content, ready=True, now=clock()).good
    assert list(tmp_path.iterdir()) == [file]
    heartbeat.write({"ready": True}, b'{"queries": {"b": "ok"}, "glances": []}')
    content = read([file])
    assert isinstance(content, dict)
    assert (content["ready"], content["queries"], content["glances"]) == (True, {"b": "ok"}, [])
    heartbeat.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_reader_finds_a_complete_heartbeat_at_any_moment(tmp_path: Path) -> None:
    file = tmp_path / "h"
    heartbeat = Heartbeat([file])
    heartbeat.write({})
    looks, over = 0, threading.Event()

    def write() -> None:
        written = 0
        while written < 150 or looks < 150:
            heartbeat.write({"queries": {f"q{n}": "ok" for n in range(written % 200)}})
            written += 1
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not over.is_set():
            assert isinstance(read([file]), dict)
            looks += 1
    finally:
        looks = 150
        writer.join()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"pid": 1}', '{"pid": "x", "boottime": 1}', "[" * 100_000]
)
def test_an_invalid_heartbeat_is_reported(tmp_path: Path, text: str) -> None:
    file = tmp_path / "h"
    file.write_text(text)
    assert read([file]) == f"{file} is not a heartbeat"


def test_a_missing_heartbeat_is_reported_with_the_paths(tmp_path: Path) -> None:
    file = tmp_path / "h"
    good, why = judge(read([file]), ready=False, now=NOW)
    assert not good
    assert why.startswith(f"not alive: no heartbeat at {file}: is a poller running")
    folder = read([tmp_path])
    assert folder == f"{tmp_path} cannot be read: Is a directory"


class Bases:
    """Two folders such as /tmp and /dev/shm, and the private folders in them."""

    def __init__(self, root: Path) -> None:
        self.folders = [root / "tmp", root / "shm"]
        for folder in self.folders:
            folder.mkdir()
        self.places = [folder / "own" / "heartbeat.json" for folder in self.folders]


@pytest.fixture
def bases(tmp_path: Path) -> Bases:
    return Bases(tmp_path)


def test_the_first_writable_folder_is_used_and_private(bases: Bases) -> None:
    heartbeat = Heartbeat(bases.places)
    heartbeat.write({})
    assert heartbeat.path == bases.places[0]
    assert bases.places[0].parent.stat().st_mode & 0o777 == 0o700
    assert isinstance(read(bases.places), dict)
    heartbeat.remove()
    assert list(bases.folders[0].iterdir()) == []


def test_the_second_folder_is_used_if_the_first_is_not_writable(
    bases: Bases, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bases.folders[0].rmdir()
    bases.folders[0].write_text("in the way, as a file system that is read-only would be")
    heartbeat = Heartbeat(bases.places)
    heartbeat.write({"n": 1})
    assert heartbeat.path == bases.places[1]
    assert caplog.records == []
    content = read(bases.places)
    assert isinstance(content, dict)
    assert content["n"] == 1


def test_a_link_or_a_folder_of_another_user_is_neither_written_nor_read(bases: Bases, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "heartbeat.json").write_text(json.dumps({**WELL, "boottime": clock()}))
    bases.places[0].parent.symlink_to(trap)
    assert isinstance(read(bases.places), str)
    heartbeat = Heartbeat(bases.places)
    heartbeat.write({})
    assert str(heartbeat.path) == str(bases.places[1])
    if os.getuid() == 0:
        bases.places[1].unlink()
        os.chown(bases.places[1].parent, 12345, 12345)
        heartbeat.write({})
        assert str(heartbeat.path) == "None"
        assert isinstance(read(bases.places), str)


def test_the_newest_of_several_heartbeats_is_used(bases: Bases) -> None:
    for number, place in enumerate(bases.places):
        Heartbeat([place]).write({"n": number})
        place.parent.chmod(0o700)
    heartbeat = read(bases.places)
    assert isinstance(heartbeat, dict)
    assert heartbeat["n"] == 1


def test_a_heartbeat_that_cannot_be_written_is_logged_once_and_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "file").write_text("")
    heartbeat = Heartbeat([tmp_path / "file" / "h"])
    for _ in range(3):
        heartbeat.write({})
    (record,) = caplog.records
    assert "Not a directory" in record.getMessage()
    assert "set POLLER_HEALTH_FILE" in record.getMessage()
    assert record.levelname == "WARNING"
    (tmp_path / "file").unlink()
    heartbeat.write({})
    assert heartbeat.path == tmp_path / "file" / "h"
    assert len(caplog.records) == 1


_FULL_DISK = """
import sys
from pathlib import Path
from poller.daemon.health import clock, judge, read
from poller.daemon.heartbeat import Heartbeat
folder = Path(sys.argv[1])
file = folder / "h"
heartbeat = Heartbeat([file], "a")
heartbeat.write({"stuck": None}, b'{"queries": {"a": "ok"}, "glances": ["' + b"x" * 10_000 + b'"]}')
first = read([file])["boottime"]
def fill(path):
    try:
        with path.open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
    except OSError:
        pass
fill(folder / "filler")
for stuck in (None, "tick t"):
    heartbeat.write({"stuck": stuck}, b'{"queries": {"a": "ok"}}')
    print(judge(read([file]), ready=False, now=clock()).why)
print(read([file])["boottime"] > first)
"""


def test_on_a_full_disk_a_poller_is_still_alive_or_stuck_as_it_is(tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=64k none {tmp_path} && exec "$@"'
    isolate = ["unshare", "-m", *([] if os.getuid() == 0 else ["-r"]), "sh", "-c", mount, "sh"]
    program = [sys.executable, "-c", _FULL_DISK, str(tmp_path)]
    done = subprocess.run([*isolate, *program], capture_output=True, text=True, timeout=60, check=True)
    alive, hangs, newer = done.stdout.splitlines()
    assert re.fullmatch(r"alive: process \d+ \(instance a\), heartbeat \d+s ago; its disk full", alive)
    assert re.fullmatch(r"not alive: process \d+ hangs: tick t", hangs)
    assert newer == "True"
    assert done.stderr == ""


def test_two_pollers_with_the_same_heartbeat_cause_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "h"
    other = subprocess.Popen(
        [
            sys.executable,
            "-c",
            OTHER,
            str(file),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout is not None
        other.stdout.readline()
        heartbeat = Heartbeat([file], "a")
        heartbeat.write({})
        heartbeat.write({})
        shared = read([file])
        assert isinstance(shared, dict)
        other.communicate()
    (record,) = caplog.records
    message = record.getMessage()
    assert (
        f"another poller, process {other.pid} (instance b), writes its heartbeat to {file} as well" in message
    )
    assert "set POLLER_HEALTH_FILE to a path of its own for each" in message
    assert shared["shared_with"] == f"process {other.pid} (instance b)"
    good, why = judge(shared, ready=False, now=clock())
    assert good
    assert f"process {os.getpid()} (instance a), heartbeat" in why
    assert f"process {other.pid} (instance b) writes the same file; set POLLER_HEALTH_FILE" in why
    caplog.clear()
    Heartbeat([file]).write({})
    assert caplog.records == [], "its own earlier heartbeat is not another poller"


def test_the_first_poller_also_warns_and_does_not_remove_the_file_of_the_second(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "h"
    first = Heartbeat([file], "a")
    first.write({})
    other = {**WELL, "boottime": clock(), "pid": os.getpid(), "process_namespace": "pid:[1]", "instance": "b"}
    for _ in range(3):  # like a container that shares the folder and also has process id 1
        replace_file(file, json.dumps(other).encode())
        first.write({})
    (record,) = caplog.records
    assert f"process {os.getpid()} (instance b)" in record.getMessage()
    replace_file(file, json.dumps(other).encode())
    first.remove()
    assert json.loads(file.read_bytes())["instance"] == "b"


def test_the_heartbeat_of_a_previous_container_is_not_another_poller(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "h"
    file.write_text(json.dumps({**WELL, "boottime": clock(), "pid": 1, "process_namespace": "pid:[1]"}))
    Heartbeat([file]).write({})
    assert caplog.records == []


def test_a_heartbeat_is_private_and_leaves_nothing_next_to_it(tmp_path: Path) -> None:
    (tmp_path / ".h.new").write_text("left by a poller that was killed")
    heartbeat = Heartbeat([tmp_path / "h"])
    heartbeat.write({})
    assert (tmp_path / "h").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["h"]
    heartbeat.remove()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "h").mkdir()
    heartbeat.write({})
    assert str(heartbeat.path) == "None"
    assert [path.name for path in tmp_path.iterdir()] == ["h"]


def test_a_process_that_must_not_be_signalled_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError(pid, number)

    monkeypatch.setattr(os, "kill", refuse)
    assert health_of()[0]


def query_status(number: int, state: str, size: int) -> QueryStatus:
    return QueryStatus(f"q{number}", state, "ü" * size, None, 1.7e9, stale=False, series=0, readings=())


@pytest.mark.slow
def test_the_size_of_a_heartbeat_is_bounded_and_queries_in_state_ok_are_omitted_first(tmp_path: Path) -> None:
    statuses = [query_status(n, "failed(timeout)" if n % 100 == 0 else "ok", 300) for n in range(20_000)]
    more = encode(statuses)
    assert len(more) < MAX_BYTES / 3
    Heartbeat([tmp_path / "h"]).write({"ready": True}, more)
    heartbeat = read([tmp_path / "h"])
    assert isinstance(heartbeat, dict)
    good, why = judge(heartbeat, ready=True, now=clock())
    assert good
    assert "queries: 200 failed, 19800 ok" in why
    listed = [status["query"] for status in heartbeat["glances"]]
    assert listed == list(heartbeat["queries"])
    assert heartbeat["omitted"] == 20_000 - len(listed)
    assert {f"q{n}" for n in range(0, 20_000, 100)} < set(listed)
    assert listed == sorted(listed, key=lambda name: int(name[1:]))


def test_a_small_heartbeat_omits_nothing() -> None:
    heartbeat = json.loads(encode([query_status(0, "ok", 1), query_status(1, "skipped(lag)", 1)]))
    assert heartbeat["states"] == {"ok": 1, "skipped": 1}
    assert heartbeat["queries"] == {"q0": "ok", "q1": "skipped(lag)"}
    assert (len(heartbeat["glances"]), heartbeat["omitted"]) == (2, 0)


def test_of_many_pending_first_polls_some_are_named_and_the_rest_are_counted() -> None:
    ticks = {f"t{n}": {"interval": 1.0, "last_run": None} for n in range(30)}
    result = judge({**WELL, "ready": False, "ticks": ticks, "waiting": 700}, ready=True, now=NOW)
    assert result.why.endswith("t8, t9 and 690 more")


@pytest.mark.parametrize(
    "text", ['{"boottime": NaN, "pid": 1}', '{"boottime": 1, "pid": 1e999}', "[" * 200_000]
)
def test_invalid_numbers_and_deep_nesting_are_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "h").write_text(text)
    assert read([tmp_path / "h"]) == f"{tmp_path / 'h'} is not a heartbeat"


class _Healthy:
    def stuck(self, _: float) -> None:
        return None


class Beats:
    """Recorder of the reports of a watchdog."""

    def __init__(self) -> None:
        self.reports: list[str | None] = []
        self.why: str | None = None
        self.fail = False
        self.watchdog_thread: Watchdog | None = None

    def start(self, every: float) -> Watchdog:
        self.watchdog_thread = Watchdog([_Healthy(), self], [self.beat], self.end, every=every)
        self.watchdog_thread.start()
        return self.watchdog_thread

    def stuck(self, now: float) -> str | None:
        assert now > 0
        if self.fail:
            raise RuntimeError("a defect")
        return self.why

    def end(self) -> None:
        self.reports.append("end")

    def beat(self, stuck: str | None) -> None:
        self.reports.append(stuck)

    def more(self, count: int = 2) -> bool:
        expected = len(self.reports) + count
        return eventually(lambda: len(self.reports) >= expected)


@pytest.fixture
def beats() -> Iterator[Beats]:
    beats = Beats()
    before = set(threading.enumerate())
    yield beats
    if beats.watchdog_thread is not None:
        beats.watchdog_thread.stop()
        assert beats.reports[-1] == "end"
    assert eventually(lambda: set(threading.enumerate()) <= before)


def test_the_watchdog_beats_and_logs_a_stuck_part_once(
    beats: Beats, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    beats.start(every=0.01)
    assert beats.more()
    assert set(beats.reports) == {None}
    beats.why = "tick t runs for 16m"
    assert beats.more(3)
    assert beats.reports[-1:] == ["tick t runs for 16m"]
    beats.why = None
    assert beats.more(3)
    assert beats.reports[-1:] == [None]
    assert [record.getMessage() for record in caplog.records] == [
        "the poller hangs: tick t runs for 16m",
        "the poller works again",
    ]


def test_the_watchdog_survives_a_defect(beats: Beats, caplog: pytest.LogCaptureFixture) -> None:
    beats.fail = True
    beats.start(every=0.01)
    assert eventually(lambda: bool(caplog.records))
    beats.fail = False
    assert beats.more()


@pytest.mark.parametrize("within", [0.0, 0.2])
def test_a_change_is_written_before_the_next_beat(beats: Beats, within: float) -> None:
    watchdog_thread = beats.start(every=3600.0)
    assert eventually(lambda: len(beats.reports) == 1)
    watchdog_thread.soon(within)
    assert eventually(lambda: len(beats.reports) == 2)


def test_changes_of_many_ticks_cause_a_single_beat(beats: Beats) -> None:
    watchdog_thread = beats.start(every=3600.0)
    assert eventually(lambda: len(beats.reports) == 1)
    for _ in range(100):
        watchdog_thread.soon(3600.0)
    watchdog_thread.soon(0.2)
    assert eventually(lambda: len(beats.reports) >= 2)
    watchdog_thread.stop()
    assert beats.reports == [None, None, "end"]


def test_a_heartbeat_is_written_three_times_within_its_maximum_age() -> None:
    assert 3 * BEAT_SECONDS <= MAX_AGE_SECONDS
