"""The daemon end to end: real standby, real receiver, real signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from poller.demo.cluster import Cluster
from poller.receiver.decode import Point
from poller.receiver.receiver import HANG, UNAVAILABLE, Receiver
from tests.bed.messaging import ROWS, SCHEMA, MessagingServer
from tests.bed.postgres import Database
from tests.bed.process import ROOT, Process
from tests.bed.queries import write_queries

Start = Callable[..., Process]
MIGRATION = ROOT / "deploy" / "migrations" / "attachments_size_bytes.sql"
FOUR = {
    "users_total": ("{user}", "Total registered users."),
    "pending_messages_total": ("{message}", "Messages waiting for delivery."),
    "attachments_total_count": ("{attachment}", "Total non-expired attachments."),
    "attachments_total_bytes": ("By", "Total size of stored data."),
}
COUNTED = {
    "users_total": "SELECT count(*) FROM users",
    "pending_messages_total": "SELECT count(*) FROM messages WHERE expires_at > now()",
    "attachments_total_count": "SELECT count(*) FROM attachments WHERE expires_at >= now()",
    "attachments_total_bytes": "SELECT sum(size_bytes)::bigint FROM attachments WHERE expires_at >= now()",
}


def environment(dsn: str, endpoint: str, **more: str) -> Mapping[str, str]:
    """Return the variables that an operator sets, with short intervals."""
    return {
        "POLLER_DATABASE_URL": dsn,
        "POLLER_OTLP_ENDPOINT": endpoint,
        "POLLER_INSTANCE": "test",
        "POLLER_INTERVAL": "1s",
        "POLLER_TIMEOUT": "1s",
        "POLLER_EXPORT_INTERVAL": "300ms",
        **more,
    }


def latest(points: list[Point]) -> dict[str, Point]:
    return {point.metric: point for point in points}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_four_gauges_arrive_exactly(
    server: MessagingServer, receiver: Receiver, poller_process: Start, protocol: str
) -> None:
    """Name, unit and description are correct, and each value equals a count on the standby."""
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    more = {} if protocol == "grpc" else {"POLLER_OTLP_PROTOCOL": "http/protobuf"}
    poller_process("run", env=environment(server.standby_dsn, endpoint, **more))
    receiver.wait_for(lambda points: FOUR.keys() <= latest(points).keys())

    arrived = latest(receiver.points())
    for name, (unit, description) in FOUR.items():
        ((counted,),) = server.ask_standby(COUNTED[name])
        point = arrived[name]
        exported = (
            point.kind,
            point.unit,
            point.description,
            point.value,
            type(point.value),
            point.attributes,
        )
        assert exported == ("gauge", unit, description, counted, int, {})
    assert {received.protocol for received in receiver.requests()} == {protocol}
    assert arrived["users_total"].value == 37
    assert arrived["users_total"].resource["service.name"] == "obscura-poller"
    assert arrived["users_total"].resource["service.instance.id"] == "test"


def test_values_follow_the_database(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    """The next poll of the standby counts a row that was added on the primary."""
    poller_process("run", env=environment(server.standby_dsn, receiver.grpc_endpoint))
    receiver.wait_for(lambda points: latest(points).get("users_total"))
    server.execute("INSERT INTO users (id, username, password_hash) VALUES (gen_random_uuid(), 'late', 'x')")

    receiver.wait_for(lambda points: latest(points)["users_total"].value == 38)


def test_a_query_with_a_missing_size_column_is_skipped_and_logged(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    """The real schema has no size column: three gauges arrive, and the log has the reason for the fourth."""
    server.execute("ALTER TABLE attachments DROP COLUMN size_bytes")
    server.replayed()
    process = poller_process("run", env=environment(server.standby_dsn, receiver.grpc_endpoint))
    reason = "query attachments_bytes skipped: column attachments.size_bytes does not exist"
    process.wait_for_line(reason)
    receiver.wait_for(lambda points: "attachments_total_count" in latest(points))
    receiver.wait_for(
        lambda points: [
            point
            for point in points
            if point.metric == "poller.polls"
            and point.attributes
            == {
                "poller.query.name": "attachments_bytes",
                "poller.state": "skipped",
                "poller.reason": "column",
            }
        ]
    )

    assert "attachments_total_bytes" not in latest(receiver.points())
    assert process.stderr.count(reason) == 1


def test_a_migration_adds_the_fourth_gauge_without_a_restart(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    server.execute("ALTER TABLE attachments DROP COLUMN size_bytes")
    server.replayed()
    process = poller_process("run", env=environment(server.standby_dsn, receiver.grpc_endpoint))
    process.wait_for_line("attachments_bytes skipped")
    server.execute(MIGRATION.read_text())
    server.execute("UPDATE attachments SET size_bytes = 7")

    receiver.wait_for(lambda points: latest(points).get("attachments_total_bytes"))
    process.wait_for_line("query attachments_bytes recovered")


def test_sigterm_during_a_long_query_ends_in_order(
    server: MessagingServer, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    """The exit code is 0, the server cancels the running query, and the last values are exported again."""
    queries = write_queries(
        tmp_path,
        ("quick", "SELECT count(*) AS n FROM users"),
        ("slow", "SELECT 1 AS n FROM pg_sleep(600)"),
        interval="10m",
        timeout="10m",
        # The quick query has its own tick, so that its value is stored before the slow query runs.
        groups={"quick": "quick"},
    )
    process = poller_process(
        "run",
        env=environment(
            server.standby_dsn, receiver.grpc_endpoint, POLLER_QUERIES=queries, POLLER_EXPORT_INTERVAL="1h"
        ),
    )
    receiver.wait_for(lambda points: latest(points).get("quick_count"))
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND state = 'active' "
    mine = f"AND datname = '{server.name}' AND pid <> pg_backend_pid()"
    _until(lambda: server.ask_standby(running + mine) == [(1,)])
    before = len(receiver.points("quick_count"))
    process.send(signal.SIGTERM)

    assert process.wait() == 0
    assert len(receiver.points("quick_count")) == before + 1
    backends = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{server.name}' AND pid <> pg_backend_pid()"
    )
    _until(lambda: server.ask_standby(backends) == [(0,)])
    assert "Traceback" not in process.stderr


def test_a_second_signal_ends_at_once(server: MessagingServer, poller_process: Start) -> None:
    """The last export is waiting for a collector that hangs."""
    with Receiver() as receiver:
        receiver.answer = HANG
        process = poller_process(
            "run",
            env=environment(
                server.standby_dsn,
                receiver.grpc_endpoint,
                POLLER_GRACE_PERIOD="60s",
                POLLER_EXPORT_TIMEOUT="60s",
            ),
        )
        process.wait_for_line("polling 4 queries")
        process.send(signal.SIGINT)
        process.wait_for_line("stopping")
        process.send(signal.SIGINT)
        code = process.wait()

    assert code == 128 + signal.SIGINT


def test_a_blocked_log_does_not_delay_the_shutdown(database: Database) -> None:
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "poller", "run"],
        env={**os.environ, "POLLER_DATABASE_URL": database.standby_dsn, "POLLER_GRACE_PERIOD": "2s"},
        stderr=write,
    )
    try:
        with os.fdopen(read, "rb") as log:
            while b"polling the standby" not in log.readline():
                pass  # its signal handlers are set now
            os.set_blocking(write, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(write, b"x" * 512)
            os.set_blocking(write, True)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    finally:
        os.close(write)
        process.kill()
        process.wait()


def test_a_collector_that_hangs_does_not_delay_the_shutdown(
    server: MessagingServer, poller_process: Start
) -> None:
    """The daemon ends within the grace period, with exit code 0."""
    with Receiver() as receiver:
        receiver.answer = HANG
        process = poller_process(
            "run", env=environment(server.standby_dsn, receiver.grpc_endpoint, POLLER_GRACE_PERIOD="3s")
        )
        process.wait_for_line("polling 4 queries")
        process.send(signal.SIGTERM)
        code = process.wait()

    assert code == 0


def test_the_daemon_recovers_when_the_database_returns(
    own_cluster: Cluster, receiver: Receiver, poller_process: Start
) -> None:
    """It starts without a database, logs that once, and recovers; it does the same after an outage."""
    own_cluster.primary.execute(SCHEMA.read_text())
    own_cluster.primary.execute(ROWS)
    own_cluster.wait_replayed()
    own_cluster.standby.stop()
    process = poller_process(
        "run",
        env=environment(
            own_cluster.standby.dsn(),
            receiver.grpc_endpoint,
            POLLER_LOG_FORMAT="json",
            POLLER_LOG_LEVEL="debug",
        ),
    )
    process.wait_for_line("replica unavailable")
    own_cluster.standby.start()
    process.wait_for_line("replica available again")
    receiver.wait_for(lambda points: latest(points).get("users_total"))
    after = process.line_count()
    own_cluster.standby.stop("immediate")
    process.wait_for_line("replica unavailable", after=after)
    own_cluster.standby.start()
    process.wait_for_line("replica available again", after=after)
    records = [json.loads(line) for line in process.stderr.splitlines()]
    warnings = [line for line in records if line["severity"] == "WARNING"]

    assert len([line for line in warnings if "replica unavailable" in line["message"]]) == 2


def test_the_daemon_recovers_when_the_collector_returns(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    """A warning is logged when exports fail and a line when they succeed again, followed by newer values."""
    receiver.stop()
    process = poller_process(
        "run", env=environment(server.standby_dsn, receiver.grpc_endpoint, POLLER_EXPORT_TIMEOUT="1s")
    )
    process.wait_for_line("export failed")
    receiver.start()
    process.wait_for_line("export recovered after")
    receiver.wait_for(lambda points: latest(points).get("users_total"))
    receiver.answer = UNAVAILABLE
    process.wait_for_line("export failed", after=process.line_count())

    assert process.stderr.count("export failed") == 2


def test_a_value_older_than_max_age_is_not_exported(
    own_cluster: Cluster, receiver: Receiver, poller_process: Start
) -> None:
    """After three intervals without the database the series is absent, and a metric reports its staleness."""
    own_cluster.primary.execute(SCHEMA.read_text())
    own_cluster.primary.execute(ROWS)
    own_cluster.wait_replayed()
    poller_process("run", env=environment(own_cluster.standby.dsn(), receiver.grpc_endpoint))
    receiver.wait_for(lambda points: latest(points).get("users_total"))
    receiver.clear()  # every query is stale until its first poll
    own_cluster.standby.stop("immediate")
    receiver.wait_for(
        lambda points: [
            point
            for point in points
            if point.metric == "poller.query.state"
            and point.attributes["poller.query.name"] == "users"
            and point.attributes["poller.state"] == "stale"
            and point.value == 1
        ],
        30,
    )
    newest = receiver.requests()[-1].points()

    assert "users_total" not in {point.metric for point in newest}
    assert "poller.query.last_success" in {point.metric for point in newest}


def test_a_healthy_query_has_four_data_points_of_the_pollers_own_in_an_export(
    database: Database, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    """The number of all other data points, with the histogram of the tick, does not depend on the queries."""
    newest = run_healthy(6, database, receiver, poller_process, tmp_path)
    of_queries = [point for point in newest if "poller.query.name" in point.attributes]
    assert {
        name: sorted(p.metric for p in of_queries if p.attributes["poller.query.name"] == name)
        for name in {point.attributes["poller.query.name"] for point in of_queries}
    } == {
        f"q{number}": [
            "poller.polls",
            "poller.query.duration",
            "poller.query.last_success",
            "poller.query.series",
        ]
        for number in range(6)
    }
    assert [p.attributes for p in newest if p.metric == "poller.poll.duration"] == [
        {"poller.tick.name": "default/1h"}
    ]


def test_without_metrics_of_its_own_the_poller_exports_only_values(
    database: Database, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    newest = run_healthy(2, database, receiver, poller_process, tmp_path, POLLER_SELF_METRICS="off")
    assert {point.metric for point in newest} == {"q0_count", "q1_count"}
    assert {p.metric for p in receiver.points() if p.metric.startswith("poller.")} == set()


def run_healthy(
    queries: int, database: Database, receiver: Receiver, start: Start, folder: Path, **more: str
) -> list[Point]:
    """Return the newest export after the first polls of `count` queries, which do not run again."""
    named = [(f"q{number}", "SELECT 1 AS n") for number in range(queries)]
    file = write_queries(folder, *named, interval="1h", timeout="60s")
    start("run", env=environment(database.standby_dsn, receiver.grpc_endpoint, POLLER_QUERIES=file, **more))
    receiver.wait_for(lambda points: {f"{name}_count" for name, _ in named} <= latest(points).keys(), 60)
    count = len(receiver.requests())  # the next export still reports that they are no longer stale
    receiver.wait_until(lambda: len(receiver.requests()) >= count + 3)
    return receiver.requests()[-1].points()


def test_after_a_kill_and_a_restart_the_same_series_continue(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    """After SIGKILL no session remains on the server, and the next start uses the same identity."""
    first = poller_process("run", env=environment(server.standby_dsn, receiver.grpc_endpoint))
    receiver.wait_for(lambda points: latest(points).get("users_total"))
    before = latest(receiver.points())["users_total"]
    first.send(signal.SIGKILL)
    first.wait()
    backends = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{server.name}' AND pid <> pg_backend_pid()"
    )
    _until(lambda: server.ask_standby(backends) == [(0,)])
    receiver.clear()
    poller_process("run", env=environment(server.standby_dsn, receiver.grpc_endpoint))
    receiver.wait_for(lambda points: latest(points).get("users_total"))
    after = latest(receiver.points())["users_total"]

    assert (after.resource, after.attributes) == (before.resource, before.attributes)


def test_without_an_endpoint_results_are_logged(server: MessagingServer, poller_process: Start) -> None:
    """The design document calls this the logs-only mode."""
    process = poller_process(
        "run", env={"POLLER_DATABASE_URL": server.standby_dsn, "OBSCURA_LOG_FORMAT": "json"}
    )
    record = json.loads(process.wait_for_line(".*users_total = 37.*").group())

    assert record["severity"] == "INFO"
    assert record["query"] == "users"
    assert {"timestamp", "logger", "trace_id", "span_id"} <= record.keys()


def test_the_variables_of_the_design_document_are_accepted(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    """The endpoint is in OBSCURA_OTLP_ENDPOINT; the protocol variable selects HTTP, not the port."""
    poller_process(
        "run",
        env={
            "POLLER_DATABASE_URL": server.standby_dsn,
            "OBSCURA_OTLP_ENDPOINT": receiver.http_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        },
    )
    receiver.wait_for(lambda points: latest(points).get("users_total"))
    point = latest(receiver.points())["users_total"]

    assert point.resource["deployment.environment.name"] == "test"


def test_a_namespace_prefixes_every_metric(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    poller_process(
        "run", env=environment(server.standby_dsn, receiver.grpc_endpoint, POLLER_NAMESPACE="obscura")
    )

    receiver.wait_for(lambda points: latest(points).get("obscura_users_total"))


def test_a_failing_query_does_not_affect_the_other_results(
    server: MessagingServer, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    """The failure is counted by kind and SQLSTATE, and logged once."""
    queries = write_queries(
        tmp_path,
        ("good", "SELECT count(*) AS n FROM users"),
        ("divided", "SELECT 1/0 AS n"),
        ("late", "SELECT 1 AS n FROM pg_sleep(5)"),
        ("text", "SELECT 'many' AS n"),
        ("better", "SELECT count(*) + 1 AS n FROM users"),
        interval="2s",
        timeout="500ms",
    )
    process = poller_process(
        "run",
        env=environment(
            server.standby_dsn,
            receiver.grpc_endpoint,
            POLLER_QUERIES=queries,
            POLLER_MAX_DUTY_CYCLE="100%",  # half a second of every two seconds exceeds the default
        ),
    )

    def twice(points: list[Point]) -> bool:
        return any(point.metric == "poller.polls" and point.value == 2 for point in points)

    receiver.wait_for(twice)
    arrived = latest(receiver.points())
    polls = {
        (point.attributes["poller.query.name"], point.attributes.get("error.type")): point.attributes.get(
            "db.response.status_code"
        )
        for point in receiver.points("poller.polls")
    }

    assert (arrived["good_count"].value, arrived["better_count"].value) == (37, 38)
    assert not {"divided_count", "late_count", "text_count"} & arrived.keys()
    assert polls == {
        ("good", None): None,
        ("better", None): None,
        ("divided", "rejected"): "22012",
        ("late", "timeout"): "57014",
        ("text", "mismatch"): None,
    }
    assert [process.stderr.count(f"query {name} failed") for name in ("divided", "late", "text")] == [1, 1, 1]


def test_the_password_appears_nowhere(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    """No log record of a start or of a failure contains it, at any level."""
    dsn = server.standby_dsn.replace("user=postgres", "user=nobody_such password=hunter2secret")
    process = poller_process("run", env=environment(dsn, receiver.grpc_endpoint, POLLER_LOG_LEVEL="debug"))
    process.wait_for_line("replica unavailable")
    process.send(signal.SIGTERM)
    process.wait()

    assert "hunter2secret" not in process.stderr + process.stdout


def _until(holds: Callable[[], bool], timeout: float = 60.0) -> None:
    """Wait until the condition holds; fail after `timeout` seconds."""
    import time

    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.05)


def test_the_first_values_of_many_groups_arrive_soon_in_few_requests(
    database: Database, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    """The values arrive at the start and after a reload, long before the export interval."""
    names = [f"q{number}" for number in range(40)]

    def write(value: int) -> str:
        queries = [(name, f"SELECT {value} AS n") for name in names]
        return write_queries(tmp_path, *queries, interval="1h", groups={name: name for name in names})

    def arrived(value: int) -> Callable[[list[Point]], bool]:
        expected = {f"{name}_count" for name in names}
        return lambda points: expected <= {point.metric for point in points if point.value == value}

    more = {"POLLER_QUERIES": write(1), "POLLER_EXPORT_INTERVAL": "1h", "POLLER_INTERVAL": "1h"}
    poller_process("run", env=environment(database.primary_dsn, receiver.grpc_endpoint, **more))
    receiver.wait_for(arrived(1))
    # A request after the first group, after the last group, and every ten seconds in between.
    assert len(receiver.requests()) < len(names) / 4
    receiver.clear()
    write(2)
    receiver.wait_for(arrived(2))
    assert len(receiver.requests()) < len(names) / 4
