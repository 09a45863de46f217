"""The demo shows the received values, exports to another collector if configured, and removes everything."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rich.console import Console

from poller.demo.screen import DemoBoard, EventBoard
from poller.receiver.ports import LOOPBACK, free_ports
from poller.receiver.receiver import Receiver
from poller.terminal.sparkline import sparkline
from tests.bed.postgres import Database
from tests.bed.process import ROOT, Process, eventually, gone
from tests.bed.terminal import Terminal

DATA = re.compile(r"-D\0([^\0]+)/(?:primary|standby)\0")


def descendants(pid: int) -> set[int]:
    """Return all descendants of `pid`, in any session."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    children: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in {pid, *children}} - children:
        children |= more
    return children


def directories(pids: set[int]) -> set[Path]:
    """Return the directories of the PostgreSQL servers among `pids`."""
    lines = []
    for pid in pids:
        try:
            lines.append(Path(f"/proc/{pid}/cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return {Path(match.group(1)) for line in lines if (match := DATA.search(line))}


def ends_without_a_trace(process: Process) -> bool:
    """Send Ctrl-C, wait for the end, and check that no process and no file remains."""
    pids = descendants(process.pid)
    places = directories(pids)
    assert len(places) == 1, "primary and standby share one directory"
    assert all(place.is_dir() for place in places)
    process.send(signal.SIGINT)
    assert process.wait(120) == 0, process
    return eventually(lambda: all(gone(pid) for pid in pids)) and not any(place.exists() for place in places)


def test_it_starts_with_rows_in_every_table_except_attachments(database: Database) -> None:
    for script in ("schema.sql", "rows.sql"):
        database.execute((ROOT / "poller/demo" / script).read_text())
    tables = [name for (name,) in database.execute("SELECT relname FROM pg_stat_user_tables ORDER BY 1")]
    counts = {table: database.execute(f"SELECT count(*) FROM {table}")[0][0] for table in tables}
    assert [table for table, count in counts.items() if count == 0] == ["attachments"]
    assert (counts["users"], counts["messages"], counts["refresh_tokens"], counts["backups"]) == (
        1000, 600, 200, 100
    )  # fmt: skip


def test_it_exports_to_the_named_collector_and_removes_everything(
    receiver: Receiver, poller_process: Callable[..., Process]
) -> None:
    process = poller_process("demo", env={"POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint})
    for metric in ("users_total", "http_requests_total"):  # of the daemon and of the messaging server
        receiver.wait_for(lambda points, of=metric: len({p.value for p in points if p.metric == of}) > 1, 120)  # type: ignore[misc]
    receiver.wait_until(lambda: receiver.spans("send_messages") and receiver.records(), 120)
    assert ends_without_a_trace(process)


def test_it_ignores_the_state_and_the_collector_of_a_real_poller(
    poller_process: Callable[..., Process], tmp_path: Path, receiver: Receiver
) -> None:
    """The environment names a state folder and an endpoint for traces; the demo uses none of them.

    It prints the URL of its own database, whose role cannot read secrets.
    """
    state = tmp_path / "state"
    state.mkdir()
    env = {
        "POLLER_STATE_DIR": str(state),
        "POLLER_TRACES_ENDPOINT": receiver.grpc_endpoint,
        "POLLER_OTLP_LOGS": "true",
        "OBSCURA_LOG_FORMAT": "json",
    }
    process = poller_process("demo", env=env)
    process.wait_for_line("users_total = ", 120, stream="stdout")
    url = process.wait_for_line(r"^export POLLER_DATABASE_URL=(\S+)$").group(1)
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT pg_is_in_recovery(), count(name) >= 0 FROM devices").fetchall() == [
            (True, True)
        ]
        for secret in ("password_hash FROM users", "content FROM messages", "token FROM push_tokens"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT {secret}".encode())
    assert ends_without_a_trace(process)
    assert list(state.iterdir()) == []
    assert receiver.attempts("traces") == []


def test_it_works_as_an_ordinary_user(start_process: Callable[..., Process], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("all the other tests run as one")
    # Not through the link in the virtual environment, which may lead through a private directory of root.
    pythons = [
        os.path.realpath(sys.executable),
        f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}",
    ]
    env = {
        "HOME": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")]),
    }
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    probe = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import poller.cli.app'], check=True)"
    )
    usable = [
        python
        for python in filter(os.path.exists, pythons)
        if subprocess.run([*become, python, "-c", probe], env={**os.environ, **env}).returncode == 0
    ]
    if not usable:
        pytest.skip("an ordinary user cannot read this checkout or a Python of its version")
    process = start_process([*become, usable[0], "-m", "poller", "demo"], env=env)
    process.wait_for_line(r"received users_total = \d+", 120)
    assert ends_without_a_trace(process)


def test_a_terminal_shows_values_and_their_history(on_terminal: Callable[..., Terminal]) -> None:
    terminal = on_terminal("demo", "--every", "1s", width=100, height=30, TERM="xterm")
    assert eventually(lambda: re.search(r"users_total\b[^\n]*▁[▁-█]*█", terminal.text) is not None, 170)
    terminal.send(signal.SIGINT)
    assert terminal.wait(120) == 0
    assert "every process and file of the demo is gone" in terminal.text


def test_clients_without_a_server_print_a_single_line(start_process: Callable[..., Process]) -> None:
    (port,) = free_ports(1)
    clients = start_process(
        [sys.executable, "-m", "poller.demo.messaging.clients", f"http://{LOOPBACK}:{port}", "--people", "2"]
    )
    assert clients.wait() == 1
    assert re.fullmatch(r"clients: stopped: \S.*\n", clients.stderr), clients


def drawn(board: DemoBoard, *, events: EventBoard | None = None, width: int = 100, height: int = 50) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(board.draw("headline", ["the daemon's line"] * 5, width, height, events))
    return console.export_text()


def test_the_board_shows_value_change_and_history_of_each_series_and_each_query() -> None:
    board = DemoBoard()
    for value in (1000, 1000, 1500):
        board.receive("users_total", "{user}", {}, value)
        board.receive("poller.query.series", "{series}", {"poller.query.name": "users"}, 1)
        board.receive(
            "poller.query.state", "{query}", {"poller.query.name": "users", "poller.state": "estimated"}, 1
        )
    text = drawn(board)
    assert re.search(r"users_total +1,500 +\{user\} +\+500 +▁▁█", text)
    assert re.search(r"^users +- +1 +estimated", text, re.MULTILINE)
    assert "9 data points" in text


def test_the_board_shows_how_to_query_the_database_and_fits_the_screen() -> None:
    board = DemoBoard()
    board.hint = "export POLLER_DATABASE_URL=postgresql://poller@127.0.0.1:15099/obscura"
    text = drawn(board, events=event_board(), width=80, height=13)
    assert board.hint in text
    assert len(text.splitlines()) == 13


def exported(seconds: int, *series: tuple[str, str, str, dict[str, str], Any]) -> list[dict[str, Any]]:
    return [
        {
            "metric": metric,
            "unit": unit,
            "kind": kind,
            "monotonic": kind == "sum" and "connections" not in metric,
            "attributes": attributes,
            "value": value,
            "time_unix_nano": seconds * 10**9,
        }
        for metric, unit, kind, attributes, value in series
    ]


def event_board() -> EventBoard:
    """Two exports of a server."""
    board = EventBoard()
    for seconds, count, total in ((1, 10, 0.5), (3, 30, 0.7)):
        series: list[tuple[str, str, str, dict[str, str], Any]] = [
            ("messages_sent_total", "{message}", "sum", {"status": "success"}, count),
            ("messages_sent_total", "{message}", "sum", {"status": "failure"}, 1),
            ("http_requests_total", "{request}", "sum", {"route": "/a", "status": "200"}, count),
            ("http_requests_total", "{request}", "sum", {"route": "/b", "status": "204"}, 1),
            ("http_request_duration_seconds", "s", "histogram", {}, {"count": count, "sum": total}),
            ("websocket_active_connections", "{connection}", "sum", {}, 3),
            ("keys_takeovers_total", "{takeover}", "sum", {}, 0),
            ("health_status", "", "gauge", {"component": "database"}, 1),
            ("health_status", "", "gauge", {"component": "storage"}, 0),
        ]
        board.receive(exported(seconds, *series))
    return board


def test_the_board_shows_each_event_with_its_rate_and_breakdown() -> None:
    text = drawn(DemoBoard(), events=event_board(), width=120)
    for line in (
        r"messages_sent_total +31 +10\.0 +▁ +failure 1, success 30",
        r"http_requests_total +31 +10\.0 +▁ +2xx 31",
        r"http_request_duration_seconds +mean 23\.3 ms +10\.0 +▁ +30 times",
        r"websocket_active_connections +3 +▁▁$",
        r"health_status +0 +▁▁ +database 1, storage 0",
        r"keys_takeovers_total +0 +0\.0 +▁$",
    ):
        assert re.search(rf"^{line}", "\n".join(map(str.rstrip, text.splitlines())), re.MULTILINE), line
    assert "keys_takeovers_total" not in "".join(event_board().lines())


def test_metrics_without_events_are_omitted_first_on_a_small_screen() -> None:
    text = drawn(DemoBoard(), events=event_board(), width=80, height=13)
    assert len(text.splitlines()) == 13
    assert "keys_takeovers_total" not in text
    for metric in ("http_requests_total", "websocket_active_connections", "health_status"):
        assert metric in text


def test_the_board_of_another_collector_shows_no_received_values() -> None:
    text = drawn(DemoBoard("http://collector:4317"))
    assert "exported to http://collector:4317" in text
    assert "data points" not in text


@pytest.mark.parametrize(("values", "line"), [([], ""), ([5, 5], "▁▁"), ([1, 2, 3], "▁▅█"), ([3, 1], "█▁")])
def test_a_history_is_drawn_between_its_own_extremes(values: list[float], line: str) -> None:
    assert sparkline(values) == line
