"""The daemon's own spans and log records, end to end: real standby, real receiver, real signals."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from psycopg.conninfo import make_conninfo

from poller.receiver.answers import CannedAnswer
from poller.receiver.decode import Point, Span
from poller.receiver.receiver import HANG, Receiver
from tests.bed.candidate import election_url
from tests.bed.documentation import table_below
from tests.bed.messaging import MessagingServer
from tests.bed.postgres import Database
from tests.bed.process import ROOT, Process, eventually
from tests.bed.queries import write_queries
from tests.bed.watch import NAME

Start = Callable[..., Process]
TICK = "tick default/1s"
PATIENCE = 90.0
"""Seconds; no test depends on speed."""


def environment(dsn: str, receiver: Receiver, protocol: str = "grpc", **more: str) -> dict[str, str]:
    """Return the variables that an operator sets, with short intervals for the SDK as well."""
    return {
        "POLLER_DATABASE_URL": dsn,
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint,
        "POLLER_OTLP_PROTOCOL": "grpc" if protocol == "grpc" else "http/protobuf",
        "POLLER_INSTANCE": "test",
        "POLLER_INTERVAL": "1s",
        "POLLER_EXPORT_INTERVAL": "300ms",
        "POLLER_LOG_FORMAT": "json",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_BLRP_SCHEDULE_DELAY": "100",
        **more,
    }


def spans_of(receiver: Receiver, name: str, count: int = 1) -> list[Span]:
    """Wait for `count` spans of a name."""
    return receiver.wait_until(lambda: spans if len(spans := receiver.spans(name)) >= count else [], PATIENCE)


def lines(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.stderr.splitlines(keepends=True)]


def exemplars(receiver: Receiver) -> set[tuple[str, str]]:
    """Return the trace and span ids of the exemplars of histograms."""
    return {
        (exemplar.trace_id.hex(), exemplar.span_id.hex())
        for received in receiver.requests()
        if isinstance(received.request, ExportMetricsServiceRequest)
        for resource in received.request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.histogram.data_points
        for exemplar in point.exemplars
    }


def documented(*parts: str) -> dict[str, str]:
    """Return the kind and unit of each metric that these parts of the reference list."""
    page = ROOT / "docs" / "reference" / "metrics.md"
    return {
        name.strip("`"): kind.replace("`", "")
        for part in parts
        for name, kind, _ in table_below(f"## Metrics of the {part}", page)
    }


def kinds(points: Iterable[Point]) -> dict[str, str]:
    """Return the kind and unit of each metric of the poller itself."""
    return {
        point.metric: f"{'counter' if point.monotonic else point.kind}, {point.unit}"
        for point in points
        if point.metric.startswith("poller.")
    }


def test_the_reference_lists_the_metrics_of_a_daemon_with_kind_and_unit(
    database: Database, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    """Without POLLER_TARGETS none of the metrics about targets is exported."""
    listed = documented("poller", "exports", "server")
    queries = write_queries(
        tmp_path, ("failed", "SELECT 1/0 AS n"), ("rejected", "SELECT n FROM (VALUES (1), (2)) AS rows (n)")
    )
    poller_process("run", env=environment(database.standby_dsn, receiver, POLLER_QUERIES=queries))

    assert receiver.wait_until(lambda: receiver.points("poller.query.quarantined"), PATIENCE)
    assert receiver.wait_until(lambda: len(kinds(receiver.points())) > len(listed) / 2, PATIENCE)
    assert kinds(receiver.points()).items() <= listed.items()


def test_the_reference_lists_the_metrics_of_targets_with_kind_and_unit(
    database: Database, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    """The spans of ticks and the log records name the target."""
    (tmp_path / "url").write_text(database.standby_dsn, encoding="utf-8")
    targets = tmp_path / "targets.yaml"
    targets.write_text("targets: [{name: eu-1, url_file: url}]", encoding="utf-8")
    queries = write_queries(tmp_path, ("good", "SELECT 1 AS n"), ("divided", "SELECT 1/0 AS n"))
    more = {"POLLER_TARGETS": str(targets), "POLLER_QUERIES": queries, "POLLER_SHARD": "0/1"}
    variables = environment("", receiver, **more)
    del variables["POLLER_DATABASE_URL"]
    process = poller_process("run", env=variables)

    of_targets = documented("targets")
    assert receiver.wait_until(lambda: kinds(receiver.points()).keys() >= of_targets.keys(), PATIENCE)
    received = kinds(receiver.points())
    assert received.items() <= (of_targets | documented("poller", "exports", "server")).items()
    assert received.keys().isdisjoint({"poller.query.series", "poller.query.duration"})
    instances = {
        point.metric: point.resource["service.instance.id"]
        for point in receiver.points()
        if point.metric in of_targets
    }
    of_process = (".queue.", ".shard.")
    assert instances == {
        name: "test-0" if any(part in name for part in of_process) else "eu-1" for name in of_targets
    }
    assert spans_of(receiver, TICK)[0].attributes["poller.target.name"] == "eu-1"
    line = json.loads(process.wait_for_line(".*query divided failed.*", PATIENCE).group())
    assert line["target"] == "eu-1"


def test_the_reference_lists_the_metrics_of_a_leader_election_with_kind_and_unit(
    database: Database, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    """The leader and the follower export them, as metrics of their own processes."""
    (tmp_path / "url").write_text(database.standby_dsn, encoding="utf-8")
    targets = tmp_path / "targets.yaml"
    targets.write_text("targets: [{name: eu-1, url_file: url}]", encoding="utf-8")
    election = {
        "POLLER_TARGETS": str(targets),
        "POLLER_QUERIES": write_queries(tmp_path, ("good", "SELECT 1 AS n")),
        "POLLER_LEADER_ELECTION": election_url(database.standby_dsn),
    }
    for instance in ("a", "b"):
        variables = environment("", receiver, POLLER_INSTANCE=instance, **election)
        del variables["POLLER_DATABASE_URL"]
        poller_process("run", env=variables).wait_for_line("leads|follows", PATIENCE)

    def latest(metric: str) -> dict[str, object]:
        return {str(p.resource["service.instance.id"]): p.value for p in receiver.points(metric)}

    receiver.wait_until(lambda: latest("poller.leader") == {"a": 1, "b": 0}, PATIENCE)
    assert latest("poller.leader.changes") == {"a": 1, "b": 0}
    listed = documented("leader election")
    points = [point for point in receiver.points() if point.metric in listed]
    assert kinds(points) == listed
    assert {str(point.attributes) for point in points} == {
        str({"poller.leader.election": "postgresql:obscura-poller"})
    }
    others = documented("poller", "targets", "exports", "server")
    assert kinds(receiver.points()).items() <= (listed | others).items()


# --- spans --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_tick_arrives_as_a_single_trace_and_its_log_records_refer_to_it(
    database: Database, receiver: Receiver, poller_process: Start, tmp_path: Path, protocol: str
) -> None:
    """Parents, kinds, status, SQLSTATE, server and times are correct, and log records have the spans' ids."""
    queries = write_queries(
        tmp_path, ("good", "SELECT 1 AS n"), ("divided", "SELECT 1/0 AS n"), ("better", "SELECT 2 AS n")
    )
    env = environment(database.standby_dsn, receiver, protocol, POLLER_QUERIES=queries)
    process = poller_process("run", env=env)
    line = json.loads(process.wait_for_line(".*query divided failed.*", PATIENCE).group())
    tick = receiver.wait_until(
        lambda: next((span for span in receiver.spans(TICK) if span.trace_id == line["trace_id"]), None),
        PATIENCE,
    )
    assert tick is not None
    children = {
        span.name: span for span in receiver.spans() if span.trace_id == tick.trace_id and span != tick
    }

    assert set(children) == {"good", "divided", "better"}
    assert (tick.parent_span_id, tick.kind, tick.status) == ("", "internal", "unset")
    assert {span.parent_span_id for span in children.values()} == {tick.span_id}
    assert {span.kind for span in children.values()} == {"client"}
    assert {name: span.status for name, span in children.items()} == {
        "good": "unset", "divided": "error", "better": "unset",
    }  # fmt: skip
    for span in children.values():
        assert tick.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= tick.end_time_unix_nano
        assert span.attributes["db.system.name"] == "postgresql"
        assert span.attributes["db.namespace"] == database.name
        assert span.attributes["server.address"] == "127.0.0.1"
        assert "db.query.text" not in span.attributes
    failed = children["divided"].attributes
    assert (failed["error.type"], failed["db.response.status_code"]) == ("rejected", "22012")
    assert children["good"].attributes["db.response.returned_rows"] == 1
    assert tick.resource["service.name"] == "obscura-poller"
    assert tick.resource["service.instance.id"] == "test"
    assert line["span_id"] == children["divided"].span_id
    server_line = next(
        entry for entry in lines(process) if entry["message"].startswith("polling the standby")
    )
    assert server_line["span_id"] in {span.span_id for span in receiver.spans(TICK)}
    assert {received.protocol for received in receiver.requests("traces")} == {protocol}
    # The SDK keeps the last duration in each bucket, which is the one of the last good query.
    assert receiver.wait_until(
        lambda: exemplars(receiver) & {(span.trace_id, span.span_id) for span in receiver.spans("better")},
        PATIENCE,
    ), "the histogram of durations refers to the spans"


def test_the_server_shows_the_trace_of_a_query(
    database: Database, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    """POLLER_SQL_COMMENTS=traceparent: pg_stat_activity names the query and the tick's span."""
    queries = write_queries(tmp_path, ("nap", "SELECT count(*) AS n FROM pg_sleep(0.7)"))
    more = {"POLLER_QUERIES": queries, "POLLER_SQL_COMMENTS": "traceparent", "POLLER_MAX_DUTY_CYCLE": "100%"}
    poller_process("run", env=environment(database.standby_dsn, receiver, **more))
    texts: list[str] = []

    def look() -> bool:
        rows = database.ask_standby(
            "SELECT query FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
            f"AND datname = current_database() AND application_name = '{NAME}'"
        )
        texts[:] = [query for (query,) in rows]
        return bool(texts)

    assert eventually(look, PATIENCE)
    match = re.search(r"/\*query='nap',traceparent='00-(\w{32})-(\w{16})-\w\w'\*/$", texts[0])
    assert match, texts
    assert receiver.wait_until(
        lambda: match.groups() in {(span.trace_id, span.span_id) for span in receiver.spans(TICK)}, PATIENCE
    )


def test_a_sampler_may_drop_all_spans(
    database: Database, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    """OTEL_TRACES_SAMPLER selects the sampler; log lines still have ids."""
    queries = write_queries(tmp_path, ("divided", "SELECT 1/0 AS n"), ("good", "SELECT 1 AS n"))
    env = environment(
        database.standby_dsn, receiver, POLLER_QUERIES=queries, OTEL_TRACES_SAMPLER="always_off"
    )
    process = poller_process("run", env=env)
    line = json.loads(process.wait_for_line(".*query divided failed.*", PATIENCE).group())
    receiver.wait_for(lambda points: [point for point in points if point.metric == "good_count"], PATIENCE)
    process.send(signal.SIGTERM)

    assert process.wait(PATIENCE) == 0
    assert receiver.attempts("traces") == []
    assert re.fullmatch(r"\w{32}", line["trace_id"])


def test_a_single_poll_exports_its_spans(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    process = poller_process("poll", "--push", env=environment(server.standby_dsn, receiver))

    assert process.wait(PATIENCE) == 0, process
    (tick,) = receiver.spans(TICK)
    names = {span.name for span in receiver.spans() if span.parent_span_id == tick.span_id}
    assert names == {"users", "pending_messages", "attachments", "attachments_bytes"}


def test_a_collector_without_spans_is_reported_once_and_still_gets_the_metrics(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    """The recovery is logged as well."""
    receiver.answers = {"traces": CannedAnswer("UNIMPLEMENTED", 404, "no such pipeline")}
    process = poller_process("run", env=environment(server.standby_dsn, receiver))
    record = json.loads(process.wait_for_line(".*export of spans failed.*", PATIENCE).group())
    receiver.wait_for_attempts(4, PATIENCE, signal="traces")
    receiver.wait_for(lambda points: [point for point in points if point.metric == "users_total"], PATIENCE)
    receiver.answers = {}
    process.wait_for_line("export of spans recovered after", PATIENCE)

    assert record["severity"] == "INFO", "spans are only on by default"
    assert record["hint"] == "the collector accepts no spans; POLLER_TRACES=false turns them off"
    assert process.stderr.count("export of spans failed") == 1
    assert "export failed" not in process.stderr


# --- shutdown -----------------------------------------------------------------------------------------


def test_the_last_spans_and_log_records_are_sent_at_shutdown(
    server: MessagingServer, receiver: Receiver, poller_process: Start
) -> None:
    """Shutdown sends them long before the next export is due."""
    late = {"OTEL_BSP_SCHEDULE_DELAY": "3600000", "OTEL_BLRP_SCHEDULE_DELAY": "3600000"}
    env = environment(
        server.standby_dsn,
        receiver,
        POLLER_INTERVAL="1h",
        POLLER_GRACE_PERIOD="60s",
        POLLER_OTLP_LOGS="true",
        **late,
    )
    process = poller_process("run", env=env)
    receiver.wait_for(lambda points: [point for point in points if point.metric == "users_total"], PATIENCE)
    assert receiver.spans() == []
    process.send(signal.SIGTERM)

    assert process.wait(PATIENCE) == 0
    assert [span.name for span in receiver.spans() if not span.parent_span_id] == ["tick default/1h"]
    assert {"polling 4 queries", "stopped"} <= {record.body for record in receiver.records()}


@pytest.mark.parametrize(
    ("protocol", "collector"), [("grpc", "gone"), ("grpc", "hanging"), ("http", "hanging")]
)
def test_an_unreachable_collector_does_not_delay_the_shutdown(
    server: MessagingServer, poller_process: Start, protocol: str, collector: str
) -> None:
    """A collector that accepts metrics and hangs for the other signals does not delay it either."""
    with Receiver() as receiver:
        env = environment(
            server.standby_dsn,
            receiver,
            protocol,
            POLLER_GRACE_PERIOD="2s",
            POLLER_EXPORT_TIMEOUT="1h",
            POLLER_OTLP_LOGS="true",
        )
        if collector == "gone":
            receiver.stop()
        else:
            receiver.answers = {"traces": HANG, "logs": HANG}
        process = poller_process("run", env=env)
        process.wait_for_line("polling the standby", PATIENCE)
        if collector == "hanging":
            receiver.wait_for_attempts(1, PATIENCE, signal="traces")
            receiver.wait_for_attempts(1, PATIENCE, signal="logs")
        process.send(signal.SIGTERM)
        # The limit is far below the hour of the export timeout, and long enough for a stalled machine.
        code = process.wait(PATIENCE)

    assert code == 0
    assert "Traceback" not in process.stderr


# --- telemetry switched off ---------------------------------------------------------------------------


def modules_of(*arguments: str, env: Mapping[str, str]) -> set[str]:
    """Return every module that a command of the poller has imported."""
    code = (
        "import sys\n"
        "from poller.cli.app import main\n"
        f"sys.argv = ['poller', *{list(arguments)!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "print('\\n' + ' '.join(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_without_an_endpoint_no_sdk_is_imported(server: MessagingServer) -> None:
    loaded = modules_of("poll", env={"POLLER_DATABASE_URL": server.standby_dsn, "POLLER_OTLP_LOGS": "true"})
    assert "poller.telemetry.traces" in loaded
    assert not {name for name in loaded if re.match(r"opentelemetry\.(sdk|exporter|proto)|grpc", name)}


def test_no_sdk_is_imported_if_telemetry_is_off(server: MessagingServer, receiver: Receiver) -> None:
    env = environment(server.standby_dsn, receiver, POLLER_TRACES="false")
    loaded = modules_of("poll", "--push", env=env)
    assert "poller.otlp.exporter" in loaded
    assert not loaded & {
        "poller.telemetry.span_exporter",
        "poller.telemetry.log_exporter",
        "poller.otlp.signal_exporter",
        "opentelemetry.exporter.otlp.proto.common.trace_encoder",
        "opentelemetry.exporter.otlp.proto.common._log_encoder",
    }
    assert receiver.requests()
    assert receiver.attempts("traces") == receiver.attempts("logs") == []


# --- log records --------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_exported_log_records_equal_those_on_stderr(
    database: Database, receiver: Receiver, poller_process: Start, tmp_path: Path, protocol: str
) -> None:
    """Severity, body, fields and ids of the query's span are equal, and secrets are masked as on stderr."""
    queries = write_queries(tmp_path, ("telling", "SELECT 'hunter2secret'::int AS n"))
    dsn = make_conninfo(database.standby_dsn, password="hunter2secret")
    env = environment(dsn, receiver, protocol, POLLER_QUERIES=queries, POLLER_OTLP_LOGS="true")
    process = poller_process("run", env=env)
    record = receiver.wait_until(
        lambda: next((record for record in receiver.records() if "telling failed" in str(record.body)), None),
        PATIENCE,
    )
    assert record is not None
    line = json.loads(process.wait_for_line(".*query telling failed.*", PATIENCE).group())
    (span,) = receiver.wait_until(
        lambda: [span for span in receiver.spans("telling") if span.span_id == record.span_id], PATIENCE
    )

    assert record.body == line["message"]
    assert "***" in str(record.body)
    assert (record.severity, record.severity_text) == (13, "WARNING")
    assert record.scope == "poller.telemetry.poll_log"
    assert record.attributes["query"] == "telling"
    assert record.attributes["error.type"] == "rejected"
    assert record.attributes["db.response.status_code"] == "22P02"
    assert (record.trace_id, record.span_id) == (line["trace_id"], line["span_id"])
    assert record.trace_id == span.trace_id
    assert record.resource["service.instance.id"] == "test"
    everything = [str(record.request) for kind in ("traces", "logs") for record in receiver.attempts(kind)]
    assert "hunter2secret" not in "".join(everything) + process.stderr
    assert {received.protocol for received in receiver.requests("logs")} == {protocol}


def test_exporting_log_records_without_an_endpoint_is_reported(
    server: MessagingServer, poller_process: Start
) -> None:
    env = {"POLLER_DATABASE_URL": server.standby_dsn, "POLLER_OTLP_LOGS": "true"}
    process = poller_process("poll", env=env)
    assert process.wait(PATIENCE) == 0
    assert process.stderr.count("POLLER_OTLP_LOGS: has no effect without an endpoint") == 1
