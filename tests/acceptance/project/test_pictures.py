"""The pictures of the documentation show the real screens. `pytest --update` draws them again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from poller.receiver.receiver import Receiver
from tests.bed.documentation import all_blocks
from tests.bed.messaging import MessagingServer
from tests.bed.pictures import draw, normal, words
from tests.bed.process import ROOT, Process
from tests.bed.role import Role
from tests.bed.terminal import Terminal

IMAGES = ROOT / "docs" / "images"
WIDTH = 100
"""Columns of a picture."""
POLLER = [sys.executable, "-m", "poller"]
Picture = Callable[[str, str, Sequence[str]], None]


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Picture:
    """Compare a screen with its picture, or draw the picture with `--update`."""

    def compare(name: str, title: str, screen: Sequence[str]) -> None:
        file, drawn = IMAGES / f"{name}.svg", draw(name, title, screen, WIDTH)
        if request.config.getoption("update"):
            file.write_text(drawn, encoding="utf-8")
        assert words(drawn) == words(file.read_text(encoding="utf-8"))

    return compare


@pytest.fixture
def on_terminal(
    on_terminal: Callable[..., Terminal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Terminal]:
    monkeypatch.chdir(tmp_path)
    return partial(on_terminal, width=WIDTH)


def printed(terminal: Terminal) -> list[str]:
    """Return the lines of a command that has ended."""
    terminal.wait(120)
    # On a terminal, a command may have drawn and erased a progress display before its output.
    output = terminal.text.rstrip().rpartition("\x1b[2K")[2]
    lines = output.splitlines()
    first = next(number for number, line in enumerate(lines) if normal(line))
    return lines[first:]


def test_poll(server: MessagingServer, on_terminal: Callable[..., Terminal], picture: Picture) -> None:
    lines = printed(on_terminal("poll", POLLER_DATABASE_URL=server.standby_dsn))
    picture("poll", "poller poll", lines)


def test_check_with_mistakes(on_terminal: Callable[..., Terminal], picture: Picture, tmp_path: Path) -> None:
    (block,) = all_blocks("check")
    (tmp_path / block.argument).write_text(block.text, encoding="utf-8")
    picture("check", f"poller check {block.argument}", printed(on_terminal("check", block.argument)))


@pytest.mark.usefixtures("server")
def test_try(role: Role, on_terminal: Callable[..., Terminal], picture: Picture) -> None:
    role.made(access="all")
    sql = "SELECT name, count(*) AS devices FROM devices GROUP BY name"
    lines = printed(on_terminal("try", sql, POLLER_DATABASE_URL=role.standby_dsn))
    picture("try", f'poller try "{sql}"', lines)


@pytest.mark.usefixtures("server")
def test_doctor(
    role: Role,
    receiver: Receiver,
    on_terminal: Callable[..., Terminal],
    picture: Picture,
) -> None:
    role.made(monitor="on")
    lines = printed(
        on_terminal(
            "doctor", POLLER_DATABASE_URL=role.standby_dsn, POLLER_OTLP_ENDPOINT=receiver.grpc_endpoint
        )
    )
    picture("doctor", "poller doctor", [line.replace(role.name, "poller") for line in lines])


QUERIES = """
queries:
  - name: devices_by_name
    sql: SELECT name, count(*) * 1000 + extract(epoch FROM now())::int % 50 AS n FROM devices GROUP BY name
    interval: 1s
    metrics:
      - {name: devices_by_name, description: D., unit: "{device}", value_column: n, attribute_columns: [name]}
  - name: oldest_message
    sql: SELECT pg_sleep(9) IS NULL AS age
    interval: 1m
    timeout: 200ms
    metrics: [{name: oldest_message_seconds, description: D., unit: s, value_column: age}]
  - name: pending_messages
    sql: SELECT 1000 + (random() * 500)::int AS n
    interval: 1s
    metrics: [{name: pending_messages, description: D., unit: "{message}", value_column: n}]
  - name: users
    sql: SELECT (extract(epoch FROM now()) * 12)::bigint % 1000000 AS n
    interval: 1s
    metrics: [{name: users, description: D., unit: "{user}", value_column: n}]
  - name: attachments_bytes
    sql: SELECT sum(size_bytes) AS n FROM attachments
    interval: 1m
    requires: {columns: {attachments: [size_bytes_of_a_later_release]}}
    metrics: [{name: attachments_bytes, description: D., unit: By, value_column: n}]
"""
"""Queries in every state, with values that move within seconds."""


def test_watch(
    server: MessagingServer,
    on_terminal: Callable[..., Terminal],
    poller_process: Callable[..., Process],
    picture: Picture,
    tmp_path: Path,
) -> None:
    queries = tmp_path / "queries.yaml"
    queries.write_text(QUERIES, encoding="utf-8")
    heartbeat = str(tmp_path / "heartbeat.json")
    poller_process(
        "run",
        env={
            "POLLER_DATABASE_URL": server.standby_dsn,
            "POLLER_QUERIES": str(queries),
            "POLLER_HEALTH_FILE": heartbeat,
            "POLLER_INSTANCE": "eu-1",
        },
    )
    terminal = on_terminal("watch", height=16, POLLER_HEALTH_FILE=heartbeat)
    terminal.shows(r"users +ok .*[▁▂▃▄▅▆▇█]{8}", 120)
    terminal.shows(r"failed\(timeout\)")
    terminal.shows(r"skipped\(column\)")
    picture("watch", "poller watch", terminal.colored_screen)


EVENTS = (
    *("messages_sent_total", "http_requests_total", "http_request_duration_seconds"),
    *("websocket_active_connections", "users_registered_total", "messaging_fetch_batch_size"),
    *("websocket_ack_batch_size", "notification_sends_total", "attachments_uploaded_bytes"),
    *("rate_limit_decisions_total", "health_status"),
)
"""The events in the picture. Some happen seconds after the start; until then, their rows are absent."""


@pytest.mark.postgres
@pytest.mark.timeout(400)
def test_demo(on_terminal: Callable[..., Terminal], picture: Picture) -> None:
    terminal = on_terminal("demo", height=30, POLLER_INSTANCE="demo")
    terminal.shows(r"users_total .*[▁▂▃▄▅▆▇█]{4}", 200)
    terminal.shows(r"messages_sent_total .*[▁▂▃▄▅▆▇█]{12}", 200)
    for event in EVENTS:
        terminal.shows(rf"^{event} .*\d", 200)
    picture("demo", "poller demo", terminal.colored_screen[:20])
    terminal.type("q")
    terminal.wait(120)
