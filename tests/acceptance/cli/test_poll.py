"""`poller poll`: table, formats, exit codes and diagnostics."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from poller.receiver.decode import Point
from poller.receiver.ports import free_ports
from poller.receiver.receiver import HANG, INVALID, Receiver, partial
from tests.bed.messaging import MessagingServer
from tests.bed.postgres import Database
from tests.bed.process import Process
from tests.bed.queries import write_queries
from tests.bed.terminal import Terminal

Start = Callable[..., Process]


def test_table_has_a_line_per_series(server: MessagingServer, poller_process: Start) -> None:
    """In a pipe the table has no colour and no box, a series is a line, and stdout has only the result."""
    process = poller_process("poll", env={"POLLER_DATABASE_URL": server.standby_dsn})
    code = process.wait()
    lines = [line.split() for line in process.stdout.splitlines()]

    assert code == 0, process
    assert lines[0] == ["QUERY", "METRIC", "ATTRIBUTES", "VALUE", "UNIT", "DURATION", "STATE"]
    assert [(line[0], line[1], line[3], line[4], line[-1]) for line in lines[1:]] == [
        ("attachments", "attachments_total_count", "5", "{attachment}", "ok"),
        ("attachments_bytes", "attachments_total_bytes", "15120", "By", "ok"),
        ("pending_messages", "pending_messages_total", "8", "{message}", "ok"),
        ("users", "users_total", "37", "{user}", "ok"),
    ]
    assert "\x1b" not in process.stdout
    assert process.stderr == ""


def test_skipped_queries_show_the_reason_and_fail_nothing(
    server: MessagingServer, poller_process: Start
) -> None:
    server.execute("ALTER TABLE attachments DROP COLUMN size_bytes")
    server.replayed()
    process = poller_process("poll", env={"POLLER_DATABASE_URL": server.standby_dsn})

    assert process.wait() == 0, process
    assert "skipped(column)" in process.stdout
    assert "column attachments.size_bytes does not exist" in process.stderr


def test_a_failed_query_is_exit_code_1_and_the_other_results_are_printed(
    server: MessagingServer, poller_process: Start, tmp_path: Path
) -> None:
    queries = write_queries(
        tmp_path, ("good", "SELECT count(*) AS n FROM users"), ("bad", "SELECT nothing AS n FROM users")
    )
    process = poller_process(
        "poll", "--queries", queries, "--format", "json", env={"POLLER_DATABASE_URL": server.standby_dsn}
    )
    code = process.wait()
    good, bad = json.loads(process.stdout)["queries"]

    assert code == 1
    assert (good["query"], good["state"], good["samples"][0]["value"]) == ("good", "ok", 37)
    assert (bad["query"], bad["state"], bad["error"]["type"], bad["error"]["sqlstate"]) == (
        "bad",
        "failed",
        "rejected",
        "42703",
    )
    assert 'query bad failed: column "nothing" does not exist' in process.stderr


@pytest.mark.parametrize(
    ("sql", "code", "state"),
    [
        ("SELECT 1 AS n FROM generate_series(1, 3)", 1, "ok, 3 duplicate"),
        ("SELECT min(1) AS n FROM users WHERE false", 0, "ok, 1 null"),
        ("SELECT 1 AS n FROM users WHERE false", 0, "ok"),
    ],
)
def test_a_result_without_a_valid_row_is_exit_code_1(
    server: MessagingServer, poller_process: Start, tmp_path: Path, sql: str, code: int, state: str
) -> None:
    """An empty result, and a NULL that the query declares as omitted, are not failures."""
    queries = write_queries(tmp_path, ("q", sql))
    process = poller_process("poll", "--queries", queries, env={"POLLER_DATABASE_URL": server.standby_dsn})

    assert process.wait() == code, process
    assert process.stdout.splitlines()[1].rstrip().split("  ")[-1] == state


def test_an_unreachable_database_is_exit_code_1(poller_process: Start) -> None:
    (closed_port,) = free_ports(1)
    process = poller_process(
        "poll", env={"POLLER_DATABASE_URL": f"postgresql://someone:sekret@127.0.0.1:{closed_port}/none"}
    )
    code = process.wait()

    assert code == 1, process
    assert "failed(unavailable)" in process.stdout
    assert process.stderr.count("replica unavailable") == 1
    assert "refused. Is the server running" in process.stderr, "libpq's message has two lines"
    assert "sekret" not in process.stdout + process.stderr


def test_a_missing_database_url_is_exit_code_2(poller_process: Start) -> None:
    process = poller_process("poll")
    code = process.wait()

    assert code == 2
    assert process.stderr.startswith("POLLER_DATABASE_URL: is not set")
    assert process.stdout == ""


@pytest.mark.parametrize(
    ("patterns", "polled"),
    [
        (["users"], ["users"]),
        (["attach*"], ["attachments", "attachments_bytes"]),
        (["users", "pending_*"], ["pending_messages", "users"]),
    ],
)
def test_queries_are_chosen_by_name_and_glob(
    server: MessagingServer, poller_process: Start, patterns: list[str], polled: list[str]
) -> None:
    options = [word for pattern in patterns for word in ("--query", pattern)]
    process = poller_process("poll", *options, env={"POLLER_DATABASE_URL": server.standby_dsn})

    assert process.wait() == 0, process
    assert [line.split()[0] for line in process.stdout.splitlines()[1:]] == polled


def test_an_unknown_query_is_exit_code_2_with_a_suggestion(poller_process: Start) -> None:
    process = poller_process("poll", "--query", "user", env={"POLLER_DATABASE_URL": "dbname=x"})
    code = process.wait()

    assert code == 2
    assert "'users'" in process.stderr


def test_the_prometheus_format_equals_the_stored_series(
    server: MessagingServer, poller_process: Start
) -> None:
    process = poller_process(
        "poll", "--format", "prometheus", env={"POLLER_DATABASE_URL": server.standby_dsn}
    )

    assert process.wait() == 0, process
    assert (
        "# HELP users_total Total registered users.\n# TYPE users_total gauge\nusers_total 37\n"
    ) in process.stdout


def test_otlp_json_is_a_valid_export_request(server: MessagingServer, poller_process: Start) -> None:
    from google.protobuf.json_format import Parse
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    from poller.receiver.decode import points_of

    process = poller_process("poll", "--format", "otlp-json", env={"POLLER_DATABASE_URL": server.standby_dsn})
    assert process.wait() == 0, process
    request = Parse(process.stdout, ExportMetricsServiceRequest())
    by_metric = {point.metric: point for point in points_of(request)}

    assert by_metric["users_total"].value == 37
    assert by_metric["users_total"].unit == "{user}"
    assert by_metric["attachments_total_bytes"].value == 15120


def test_push_delivers_each_value_once(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    process = poller_process(
        "poll",
        "--push",
        env={"POLLER_DATABASE_URL": server.standby_dsn, "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint},
    )

    assert process.wait() == 0, process
    assert [point.value for point in receiver.points("users_total")] == [37]


def test_a_refused_push_is_exit_code_1(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    """The values are printed nevertheless."""
    receiver.answer = INVALID
    process = poller_process(
        "poll",
        "--push",
        env={"POLLER_DATABASE_URL": server.standby_dsn, "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint},
    )

    assert process.wait() == 1, process
    assert "users_total" in process.stdout
    assert "export refused" in process.stderr


def test_push_delivers_even_if_stdout_fails(server: MessagingServer, receiver: Receiver) -> None:
    command = shlex.join([sys.executable, "-m", "poller", "poll", "--push", "--format", "json"])
    done = subprocess.run(
        ["sh", "-c", f"{command} >/dev/full"],
        env={
            **os.environ,
            "POLLER_DATABASE_URL": server.standby_dsn,
            "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        },
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (1, "the output cannot be written: No space left on device\n")
    assert [point.value for point in receiver.points("users_total")] == [37]


def test_a_partly_rejected_push_is_exit_code_1(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    receiver.answer = partial(1, "too old")
    process = poller_process(
        "poll",
        "--push",
        env={"POLLER_DATABASE_URL": server.standby_dsn, "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint},
    )

    assert process.wait() == 1, process
    assert re.search(r"the collector rejects 1 of \d+ data points: too old", process.stderr)


def test_an_undelivered_push_is_exit_code_1_and_the_next_push_delivers_it(
    server: MessagingServer, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    env = {
        "POLLER_DATABASE_URL": server.standby_dsn,
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        "POLLER_STATE_DIR": str(tmp_path / "state"),
        "POLLER_EXPORT_TIMEOUT": "1s",
    }
    receiver.stop()
    process = poller_process("poll", "--push", env=env)
    assert process.wait() == 1, process
    assert "1 request not delivered; kept in" in process.stderr

    receiver.start()
    server.execute("INSERT INTO users (id, username, password_hash) VALUES (gen_random_uuid(), 'late', 'x')")
    server.replayed()
    process = poller_process("poll", "--push", env={**env, "POLLER_EXPORT_TIMEOUT": "60s"})
    assert process.wait() == 0, process
    assert [point.value for point in receiver.points("users_total")] == [37, 38]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_first_signal_ends_the_wait_for_a_collector_that_hangs(
    server: MessagingServer,
    receiver: Receiver,
    poller_process: Start,
    tmp_path: Path,
    protocol: str,
    number: signal.Signals,
) -> None:
    """The length of the timeout does not matter, and the polled values are stored."""
    receiver.answer = HANG
    env = {
        "POLLER_DATABASE_URL": f"{server.standby_dsn}\n",
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint,
        "POLLER_OTLP_PROTOCOL": protocol,
        "POLLER_STATE_DIR": str(tmp_path / "state"),
        "POLLER_EXPORT_TIMEOUT": "1h",
    }
    process = poller_process("poll", "--push", env=env)
    receiver.wait_for_attempts(1, 60)
    process.send(number)
    assert process.wait() == 128 + number, process
    assert "1 request not delivered; kept in" in process.stderr


def test_an_invalid_header_is_exit_code_2(poller_process: Start) -> None:
    """Otherwise the push would be sent without its credentials."""
    env = {
        "POLLER_DATABASE_URL": "dbname=x",
        "POLLER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_HEADERS": "Bearer sesame",
    }
    for command in (["poll", "--push"], ["run"]):
        process = poller_process(*command, env=env)
        assert process.wait() == 2, process
        assert process.stderr == (
            "OTEL_EXPORTER_OTLP_HEADERS: header 1 is not name=value; "
            "write one like authorization=Bearer%20TOKEN, and a comma in a value as %2C\n"
        )


def test_a_push_next_to_a_daemon_warns_that_it_stores_nothing_and_delivers(
    server: MessagingServer, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    """A second daemon is refused."""
    env = {
        "POLLER_DATABASE_URL": server.standby_dsn,
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        "POLLER_STATE_DIR": str(tmp_path / "state"),
    }
    daemon = poller_process("run", env=env)
    daemon.wait_for_line("polling 4 queries")
    process = poller_process("poll", "--push", env={**env, "POLLER_INSTANCE": "by hand"})
    assert process.wait() == 0, process
    assert f"is in use by another poller (process {daemon.pid} on" in process.stderr
    assert "requests that the collector does not accept now are lost" in process.stderr
    assert "by hand" in {point.resource["service.instance.id"] for point in receiver.points("users_total")}

    without_endpoint = {name: value for name, value in env.items() if name != "POLLER_OTLP_ENDPOINT"}
    for variables in (env, without_endpoint):
        second = poller_process("run", env=variables)
        assert second.wait() == 2, second
        assert "is in use by another poller" in second.stderr
    daemon.send(signal.SIGTERM)
    daemon.wait()
    poller_process("run", env=without_endpoint).wait_for_line("polling 4 queries")
    second = poller_process("run", env=without_endpoint)
    assert second.wait() == 2, second
    assert second.stderr.startswith("POLLER_STATE_DIR: ")
    assert "give each a folder of its own" in second.stderr


def test_push_without_an_endpoint_is_exit_code_2(poller_process: Start) -> None:
    process = poller_process("poll", "--push", env={"POLLER_DATABASE_URL": "dbname=x"})

    assert process.wait() == 2
    assert "--push: needs an endpoint; set POLLER_OTLP_ENDPOINT" in process.stderr


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_colour_unless_it_is_disabled(
    server: MessagingServer, on_terminal: Callable[..., Terminal], no_color: bool
) -> None:
    env = {"NO_COLOR": "1"} if no_color else {}
    terminal = on_terminal(
        "poll", "--query", "users", width=120, POLLER_DATABASE_URL=server.standby_dsn, **env
    )
    terminal.wait()
    output = terminal.text

    assert "users_total" in output
    assert ("\x1b[32m" in output) is not no_color


def test_a_terminal_shows_the_running_query(
    server: MessagingServer, on_terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    queries = write_queries(
        tmp_path,
        ("first", "SELECT 1 AS n FROM pg_sleep(3)"),
        ("second", "SELECT 2 AS n"),
        interval="30s",
        timeout="30s",
    )
    terminal = on_terminal("poll", "--queries", queries, width=120, POLLER_DATABASE_URL=server.standby_dsn)
    terminal.wait()
    output = terminal.text

    assert re.search(r"0/2 done; running first for [0-2]\.", output)
    assert "then second" in output


def test_a_series_fed_by_two_queries_is_omitted_from_both_as_in_the_daemon(
    database: Database, poller_process: Start, receiver: Receiver, tmp_path: Path
) -> None:
    """The queries are in a single tick and in two ticks: their order must not matter."""
    metric = {"name": "shared", "unit": "{row}", "description": "Shared.", "value_column": "n"}
    definitions = [
        {
            "name": name,
            "group": group,
            "interval": "1s",
            "timeout": "1s",
            "sql": f"SELECT * FROM (VALUES (1, 'same'), (2, '{name}')) v (n, kind)",
            "metrics": [{**metric, "attribute_columns": ["kind"]}],
        }
        for name, group in (("a", "x"), ("b", "y"), ("c", "y"))
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(json.dumps({"queries": definitions}))
    env = {
        "POLLER_DATABASE_URL": database.primary_dsn,
        "POLLER_QUERIES": str(file),
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        "POLLER_EXPORT_INTERVAL": "300ms",
    }
    poll = poller_process("poll", "--push", "--format", "json", env=env)
    assert poll.wait() == 0, poll
    queries = json.loads(poll.stdout)["queries"]
    assert {
        query["query"]: ([sample["attributes"]["kind"] for sample in query["samples"]], query["quarantined"])
        for query in queries
    } == {name: ([name], {"duplicate": 1}) for name in "abc"}
    assert {point.attributes["kind"] for point in receiver.points("shared")} == set("abc")
    receiver.clear()

    poller_process("run", env=env)
    receiver.wait_for(lambda points: _counted_duplicates(points) >= set("abc"))
    newest = receiver.requests()[-1].points()
    assert {point.attributes["kind"] for point in newest if point.metric == "shared"} == set("abc")


def _counted_duplicates(points: Iterable[Point]) -> set[str]:
    """Return the queries whose data points were rejected as duplicates."""
    return {
        str(point.attributes["poller.query.name"])
        for point in points
        if point.metric == "poller.query.quarantined" and point.attributes["poller.reason"] == "duplicate"
    }
