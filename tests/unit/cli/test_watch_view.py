"""`poller watch` shows every query, fits the terminal, and restores it at the end."""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from poller.cli.watch_view.board import Board, columns, span
from poller.cli.watch_view.source import PollerStatus
from poller.model.errors import PollError
from poller.model.redaction import learn
from poller.model.result import PollResult, Sample, Skip
from poller.polling.status import (
    MOST_READINGS,
    MOST_READINGS_OF_ALL,
    QueryStatus,
    QueryStatuses,
    Reading,
    from_json,
    query_statuses,
    to_json,
)
from poller.polling.store import ResultStore
from poller.terminal.sparkline import change, number
from tests.bed.definitions import a_query, a_result
from tests.bed.documentation import only
from tests.bed.messaging import MessagingServer
from tests.bed.process import Process, eventually
from tests.bed.queries import write_queries
from tests.bed.terminal import Terminal

NOW = 10_000.0


def a_status(query: str = "users", **fields: object) -> QueryStatus:
    values: dict[str, object] = {
        "query": query,
        "state": "ok",
        "detail": "",
        "last_success": NOW - 5,
        "next_run": NOW + 295,
        "stale": False,
        "series": 1,
        "readings": (Reading(f"{query}_total", "{user}", "", 1000),),
        **fields,
    }
    return QueryStatus(**values)  # type: ignore[arg-type] # the tests pass valid values


FAILED = a_status(
    "slow",
    state="failed(timeout)",
    detail="57014 canceling statement due to statement timeout (" + "make it cheaper " * 12 + ")",
    last_success=None,
    next_run=None,
    stale=True,
    series=0,
    readings=(),
)
GROUPED = a_status(
    "devices",
    state="estimated(cost)",
    series=25,
    readings=tuple(Reading("devices", "{device}", f"name=平板电脑{n}", n) for n in range(20)),
)
SOME = [a_status(), FAILED, GROUPED, a_status("old", state="stale", stale=True, series=0, readings=())]


def drawn(
    board: Board, of_queries: list[QueryStatus], width: int, height: int, **fields: object
) -> list[str]:
    values = {"state": "alive: process 7", "server": "standby db:5432", **fields}
    sight = PollerStatus(good=True, statuses=of_queries, **values)  # type: ignore[arg-type] # as above
    board.take(sight)
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(board.draw(sight, NOW, width, height))
    return captured.get().splitlines()


def line_of(lines: list[str], query: str) -> str:
    return next(line for line in lines if line.startswith(f"{query} "))


@pytest.mark.parametrize("width", [80, 100, 131, 132, 200, 300])
def test_the_columns_fill_the_line_exactly(width: int) -> None:
    layout = columns(width)
    assert sum(column.width for column in layout.values()) + len(layout) - 1 == width
    assert layout["history"].width > 8
    assert ("metric" in layout) == (width >= 132)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (132, 24), (60, 10), (20, 5)])
def test_a_drawing_is_never_larger_than_the_screen(width: int, height: int) -> None:
    """Wide characters count twice."""
    log_lines = [
        f"{n} what the log says, at length and beyond the edge of most terminals there are" for n in range(9)
    ]
    lines = drawn(Board(), SOME * 5, width, height, log_lines=log_lines)

    assert len(lines) <= max(height, 8)
    assert all(cell_len(line) <= width for line in lines)


def test_each_query_has_its_state_values_age_and_next_run() -> None:
    board = Board()
    for value in (1000, 1007):
        statuses = [
            a_status(last_success=NOW - value / 1000, readings=(Reading("u", "{user}", "", value),)),
            *SOME[1:],
        ]
        lines = drawn(board, statuses, 80, 60)

    assert re.fullmatch(r"users +ok +1,007 +\+7 ▁█ +1s +5m", line_of(lines, "users"))
    assert re.fullmatch(r"slow +failed\(timeout\) +- +-", line_of(lines, "slow"))
    assert re.fullmatch(r"devices +estimated\(cost\) +25 series +5s +5m", line_of(lines, "devices"))
    assert re.fullmatch(r"old +stale +withheld +5s +5m", line_of(lines, "old"))
    assert lines[lines.index(line_of(lines, "slow")) + 1].startswith("  └ 57014 canceling statement")
    assert any(re.match(r"  name=平板电脑3 +3 ", line) for line in lines)
    assert "  and 5 more" in [line.rstrip() for line in lines]
    assert lines[0].startswith("alive: process 7")
    assert lines[1].startswith("standby db:5432")
    assert lines[-1].startswith("4 queries: 1 ok, 1 estimated, 1 failed, 1 stale")


def test_a_wide_screen_shows_metric_and_unit() -> None:
    assert re.search(
        r"^users +ok +users_total +1,000 \{user\}", line_of(drawn(Board(), SOME, 200, 50), "users")
    )


def test_a_value_counts_once_for_each_poll_that_brought_it() -> None:
    board = Board()
    for at, value in ((1, 5), (1, 5), (2, 5), (3, 9), (3, 9)):
        lines = drawn(board, [a_status(last_success=at, readings=(Reading("u", "", "", value),))], 80, 24)

    assert re.search(r"9 +\+4 ▁▁█ ", line_of(lines, "users"))


def test_scrolling_reaches_all_lines() -> None:
    board = Board()
    many = [a_status(f"query_{n:02}") for n in range(40)]
    names: list[str] = []
    for _ in range(10):
        lines = drawn(board, many, 80, 24)
        names += re.findall(r"query_\d\d", "\n".join(lines))
        board.press("page down")
    assert set(names) == {status.query for status in many}
    assert "query_39" in "\n".join(drawn(board, many, 80, 24)), "it stops at the end"
    for key, first in (("home", "00"), ("down", "01"), ("down", "02"), ("up", "01"), ("end", "22")):
        board.press(key)
        assert re.findall(r"query_(\d\d)", "\n".join(drawn(board, many, 80, 24)))[0] == first, key
    assert "of 40" in drawn(board, many, 80, 24)[-1]
    assert drawn(board, many[:3], 80, 24)[-1].endswith("q quits")


def test_texts_of_a_server_do_not_control_the_terminal() -> None:
    nasty = a_status(state="failed(rejected)", detail="22012 \x1b[2J\x07 gone")
    text = "\n".join(drawn(Board(), [nasty], 80, 24))

    assert "\x1b[2J" not in text
    assert r"22012 \u001b[2J\u0007 gone" in text


@pytest.mark.parametrize(
    "text",
    ["x" * 5000, "日本語" * 200, "e\u0301\u0302" * 300, "\u200d" * 500, "a\nb " * 90, "👨\u200d👩" * 90],
)
def test_no_line_is_wider_than_the_screen(text: str) -> None:
    reading = Reading(text, text, f"a={text}", 1.5)
    wide = a_status(state=text, detail=f"22012 {text}")._replace(
        query=text, series=2, readings=(reading, reading)
    )
    lines = drawn(Board(), [wide], 80, 24, server=text)
    assert max(map(cell_len, lines)) <= 80
    # Each query has its line, at most two lines of its message, and one line for each series.
    assert len(lines) <= 2 + 1 + 1 + 3 + 2 + 1 + 1


def test_a_message_of_wide_letters_continues_on_its_second_line() -> None:
    lines = drawn(Board(), [a_status(state="failed(rejected)", detail="日本語" * 20)], 80, 24)
    assert sum(line.count("日") for line in lines) == 20


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-9, "now"), (0, "0s"), (59.6, "60s"), (99, "99s"), (100, "2m"), (3600, "60m"), (6000, "2h"),
     (90 * 3600, "90h"), (400_000, "5d"), (1e12, "999d")],
)  # fmt: skip
def test_a_time_has_four_characters(seconds: float, text: str) -> None:
    assert span(seconds) == text
    assert len(text) <= 4


@pytest.mark.parametrize(
    ("value", "width", "text", "step"),
    [
        (1234.5, 0, "1,234.5", "+1,234.5"),
        (173_628_399_123, 13, "173.6G", "+173.6G"),
        (-1_500_000, 8, "-1.5M", "-1.5M"),
        (1e21, 9, "1e+21", "+1e+21"),
        (0, 9, "0", ""),
    ],
)
def test_a_number_fits_its_column(value: float, width: int, text: str, step: str) -> None:
    assert (number(value, width), change(value, width)) == (text, step)


def test_a_status_contains_the_state_and_the_values_of_a_query() -> None:
    """The status comes from a store and the last results, and survives JSON, the format of the heartbeat."""
    good, bad, omitted, never = (a_query(name) for name in ("good", "bad", "left", "never"))
    store = ResultStore([good, bad, omitted, never])
    error = PollError("rejected", "no such\ncolumn", sqlstate="42703", hint="name it")
    results = [
        a_result(good, Sample("good", 3, {"state": "queued"}), at=1000.0),
        a_result(bad, outcome="failed", error=error),
        a_result(omitted, outcome="skipped", skipped=Skip("lag", "2m behind")),
    ]
    store.put(results, 50.0)
    last = {result.query.name: result for result in results}
    statuses = list(query_statuses(store.freshness(60.0), store.good(60.0), last, {"good": 1300.0}))

    assert from_json(json.loads(json.dumps(to_json(statuses)))) == statuses
    assert statuses[0] == QueryStatus(
        "good", "ok", "", 1000.0, 1300.0, False, 1, (Reading("good", "{thing}", "state=queued", 3),)
    )
    assert [(status.state, status.detail) for status in statuses[1:]] == [
        ("failed(rejected)", "42703 no such column (name it)"),
        ("skipped(lag)", "2m behind"),
        ("stale", ""),
    ]


def test_statuses_are_computed_again_after_any_change() -> None:
    """Values and states also become stale by time alone; the heartbeat must not report outdated statuses."""
    query = a_query(interval=10, max_age=100)
    store = ResultStore([query])
    last: dict[str, PollResult] = {}
    tracker = QueryStatuses()

    def look(now: float, next_run: float = 1.0) -> Sequence[QueryStatus]:
        statuses = tracker.current(store.freshness(now), store.good(now), {query.name: next_run})
        arguments = (last, {query.name: next_run})
        assert list(statuses) == list(query_statuses(store.freshness(now), store.good(now), *arguments))
        return statuses

    assert look(0.0)[0].state == "stale"
    result = a_result(query, Sample(query.name, 3, {}), at=1000.0)
    store.put([result], 10.0)
    before = look(10.0)
    assert (before[0].state, before[0].stale, len(before[0].readings)) == ("ok", False, 1)
    last = {query.name: result._replace(advice="write `sum`")}
    tracker.observe(last.values())
    assert look(10.0)[0].detail == "write `sum`"
    assert look(10.0, 2.0)[0].next_run == 2.0
    same = look(10.0, 2.0)
    assert look(60.0, 2.0) is same, "nothing has changed"
    failed = a_result(query, outcome="failed", error=PollError("timeout", "too slow"))
    store.put([failed], 70.0)
    assert look(70.0, 2.0)[0].state == "failed(timeout)"
    status = look(111.0, 2.0)[0]
    assert (status.state, status.stale, status.series, status.readings) == ("failed(timeout)", True, 0, ())
    assert look(171.0, 2.0)[0].state == "stale"


def test_a_status_contains_no_secret() -> None:
    """A server may quote the text that it received."""
    learn("hunter2secret")
    query = a_query()
    error = PollError("unavailable", "no password hunter2secret for you", hint="not hunter2secret")
    result = a_result(query, outcome="failed", error=error)
    store = ResultStore([query])
    store.put([result], 1.0)
    (status,) = query_statuses(store.freshness(1.0), store.good(1.0), {query.name: result}, {})

    assert "hunter2secret" not in json.dumps(to_json([status]))
    assert status.detail.startswith("no password ")


def test_the_size_of_all_statuses_is_bounded() -> None:
    """The heartbeat is written every few seconds, with any number of series."""
    queries = [a_query(f"q{n}") for n in range(300)]
    store = ResultStore(queries)
    store.put(
        [a_result(item, *[Sample(item.name, n, {"n": n}) for n in range(500)]) for item in queries], 1.0
    )
    statuses = list(query_statuses(store.freshness(1.0), store.good(1.0), {}, {}))

    assert max(len(item.readings) for item in statuses) == MOST_READINGS
    assert sum(len(item.readings) for item in statuses) == MOST_READINGS_OF_ALL
    assert {item.series for item in statuses} == {500}
    assert len(json.dumps(to_json(statuses))) < 400_000


READING = {"metric": "m", "unit": "", "attributes": "", "value": 1.0}
STATUS = a_status()._asdict() | {"readings": [READING]}


def test_a_heartbeat_that_can_be_read_is_read() -> None:
    assert from_json([STATUS])[0].readings[0].value == 1.0


@pytest.mark.parametrize(
    "strange",
    [
        *(None, 3, "text", [3], [{}], [{"query": "q"}], [{"readings": [{}]}]),
        *([{**STATUS, name: 5}] for name in ("query", "state", "detail")),
        *([{**STATUS, name: math.nan}] for name in ("last_success", "next_run", "series")),
        *([{**STATUS, "readings": [{**READING, "value": value}]}] for value in ("1", math.inf, 10**400)),
    ],
)
def test_a_heartbeat_of_another_version_is_rejected(strange: object) -> None:
    with pytest.raises(ValueError, match="is not a list of query states"):
        from_json(strange)


@pytest.fixture
def terminal(on_terminal: Callable[..., Terminal]) -> Callable[..., Terminal]:
    return partial(on_terminal, "watch")


def assert_restored(terminal: Terminal) -> None:
    """Check the keyboard's mode, the ordinary screen, the cursor and the wrapping of long lines."""
    assert terminal.now == terminal.before
    for on, off in (
        ("\x1b[?1049h", "\x1b[?1049l"),
        ("\x1b[?25l", "\x1b[?25h"),
        ("\x1b[?7l", "\x1b[?7h"),
    ):
        assert terminal.text.rindex(off) > terminal.text.rindex(on)
    assert "Traceback" not in terminal.text


def test_it_follows_a_running_daemon(
    server: MessagingServer,
    poller_process: Callable[..., Process],
    terminal: Callable[..., Terminal],
    tmp_path: Path,
) -> None:
    """It shows values, a change on the primary, an error message of the server, and the daemon's end."""
    queries = write_queries(tmp_path, ("divided", "SELECT 1/0 AS n"), interval="1h")
    daemon = poller_process(
        "run",
        env={
            "POLLER_DATABASE_URL": server.standby_dsn,
            "POLLER_QUERIES": f"shipped:{queries}",
            "POLLER_INTERVAL": "1s",
            "POLLER_TIMEOUT": "1s",
        },
    )
    daemon.wait_for_line("users_total = 37")
    variables = {"POLLER_HEALTH_FILE": str(daemon.health_file)}
    narrow, wide = terminal(**variables), terminal(width=200, height=50, **variables)
    narrow.shows(r"^users +ok +37 ")
    narrow.shows(r"^  └ 22012 division by zero")
    narrow.shows(rf"^alive: process {daemon.pid}")
    wide.shows(r"^users +ok +users_total +37 \{user\}")
    server.execute("INSERT INTO users (id, username, password_hash) VALUES (gen_random_uuid(), 'late', 'x')")
    narrow.shows(r"^users +ok +38 +\+1 ▁+█+ ")
    daemon.send(signal.SIGKILL)
    daemon.wait()
    wide.shows(rf"^not alive: process {daemon.pid} is gone")
    for view in (narrow, wide):
        view.shows("^not alive: ")
        assert all(cell_len(line) <= (80 if view is narrow else 200) for line in view.screen)
        view.type("q")
        assert view.wait() == 1
        assert_restored(view)


@pytest.mark.parametrize("how", ["q", "jjq", "\x03", "SIGTERM"])
def test_it_quits_and_restores_the_terminal(
    terminal: Callable[..., Terminal], tmp_path: Path, how: str
) -> None:
    started = terminal(POLLER_HEALTH_FILE=str(tmp_path / "none"))
    started.shows("^not alive: no heartbeat at ")
    assert started.now != started.before, "the terminal must be in raw mode"
    if how == "SIGTERM":
        started.send(signal.SIGTERM)
    else:
        started.type(how)

    assert started.wait() == 1
    assert_restored(started)


def test_it_polls_by_itself_and_leaves_nothing_on_the_server(
    server: MessagingServer, terminal: Callable[..., Terminal]
) -> None:
    started = terminal(
        "--poll", POLLER_DATABASE_URL=server.standby_dsn, POLLER_INTERVAL="1s", POLLER_TIMEOUT="1s"
    )
    started.shows(r"^users +ok +37 ")
    started.shows(r"^polling in this process, pushing nothing")
    started.shows(r"^standby ")
    server.execute("INSERT INTO users (id, username, password_hash) VALUES (gen_random_uuid(), 'late', 'x')")
    started.shows(r"^users +ok +38 +\+1 ")
    started.type("q")
    assert started.wait() == 0
    assert_restored(started)
    sessions = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{server.name}' AND pid <> pg_backend_pid()"
    )
    assert eventually(lambda: server.ask_standby(sessions) == [(0,)])


def test_without_a_terminal_it_prints_once(poller_process: Callable[..., Process], tmp_path: Path) -> None:
    heartbeat = tmp_path / "heartbeat.json"
    beat = {
        "boottime": 0,
        "pid": os.getpid(),
        "glances": to_json(SOME),
        "server": "standby db:5432, 0s behind",
    }
    heartbeat.write_text(json.dumps(beat))
    once = poller_process("watch", env={"POLLER_HEALTH_FILE": str(heartbeat)})
    own = poller_process("watch", "--poll")

    assert once.wait() == 1, "the heartbeat is old"
    lines = once.stdout.splitlines()
    assert lines[0].startswith(f"not alive: process {os.getpid()} hangs")
    assert re.match(
        r"users +ok +users_total +1,000", next(line for line in lines if line.startswith("users "))
    )
    assert "\x1b" not in once.stdout
    assert own.wait() == 2
    assert "--poll: needs a terminal; run `poller poll` to print one poll" in own.stderr


README_STATE = "alive: process 7 (instance eu-1), heartbeat 2s ago; export ok; query files ok"


def test_the_documentation_shows_the_screen() -> None:
    _, documented = only("watch")
    board = Board()
    for poll in range(1, 8):
        at = NOW - 60 * (7 - poll) - 12
        lines = drawn(
            board,
            readme_statuses(poll, at),
            80,
            24,
            state=README_STATE,
            server="standby replica:5432, 0s behind",
        )

    assert [line.rstrip() for line in lines] == documented.splitlines()


def readme_statuses(poll: int, at: float) -> list[QueryStatus]:
    def entry(query: str, *values: tuple[str, str, float], **fields: object) -> QueryStatus:
        readings = tuple(Reading(query, unit, attributes, value) for unit, attributes, value in values)
        defaults = {"last_success": at, "next_run": at + 60, "series": len(readings), "readings": readings}
        return a_status(query, **{**defaults, **fields})

    nothing = {"last_success": None, "stale": True}
    return [
        entry("attachments", ("{attachment}", "", 101 + [0, 7, 9, 14, 21, 20, 26][poll - 1])),
        entry(
            "attachments_bytes",
            state="skipped(column)",
            detail="column attachments.size_bytes does not exist",
            **nothing,
        ),
        entry("pending_messages", ("{message}", "", [640, 752, 811, 702, 655, 903, 1471][poll - 1])),
        entry("users", ("{user}", "", 1_031_200 + 12 * poll)),
        entry(
            "devices_by_name",
            *[
                ("{device}", f"name={name}", n + poll * grows)
                for name, n, grows in (
                    ("phone", 1_811_040, 9),
                    ("tablet", 203_551, 1),
                    ('"tv set"', 12_904, 0),
                )
            ],
            state="estimated(cost)",
        ),
        entry(
            "oldest_message",
            state="failed(timeout)",
            detail="57014 canceling statement due to statement timeout (make it cheaper)",
            **nothing,
        ),
    ]
