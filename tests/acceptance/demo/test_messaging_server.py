"""A real server under a known load exports exactly the expected events, and no data about clients."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from poller.demo.messaging.client import Client
from poller.events.catalog import GenerationName
from poller.events.health import PATHS
from poller.model.otlp_endpoint import SIGNALS
from poller.receiver.decode import Distribution, Span
from poller.receiver.ports import LOOPBACK, free_ports
from poller.receiver.receiver import Receiver
from poller.receiver.signals import ExportRequest
from tests.bed import expected, nonconforming_server
from tests.bed.eventmetrics import EventMetricsSeen
from tests.bed.load import LIMITS, Load
from tests.bed.messaging import SCHEMA
from tests.bed.postgres import Database
from tests.bed.process import Process
from tests.bed.pushes import Provider
from tests.bed.s3 import CREDENTIALS, Bucket
from tests.unit.tools.test_conform import Stream, poller, recorded

Start = Callable[..., Process]

PSYCOPG_IS_TRACED = find_spec("opentelemetry.instrumentation.psycopg") is not None
OF_LIBRARIES = ("--ignore", "unknown_metric:db.client.*") if PSYCOPG_IS_TRACED else ()
"""Metrics that OpenTelemetry's package for psycopg exports in addition to its spans."""


def start_server(
    start: Start, module: str, database: Database, endpoint: str, *arguments: str
) -> tuple[Process, str]:
    """Start the server on an empty database with short export intervals; return the process and its URL."""
    database.execute(SCHEMA.read_text())
    process = start(
        [sys.executable, "-m", module, database.primary_dsn, *arguments],
        env={
            "OBSCURA_OTLP_ENDPOINT": endpoint,
            "OBSCURA_LOG_FORMAT": "json",
            "OBSCURA_METRICS_EXPORT_INTERVAL_SECS": "0.2",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            **CREDENTIALS,
        },
    )
    return process, process.wait_for_line(r'"url": "([^"]+)"', stream="stdout").group(1)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "generation", [pytest.param("document", marks=pytest.mark.psycopg_instrumentation), "v0.9.4"]
)
def test_every_event_is_counted_as_often_as_the_load_causes_it(
    generation: GenerationName,
    database: Database,
    receiver: Receiver,
    bucket: Bucket,
    push_provider: Provider,
    start_process: Start,
    tmp_path: Path,
) -> None:
    limits = [f"--{name}={value}" for name, value in LIMITS.items()]
    where = ["--bucket", bucket.name, "--s3-endpoint", bucket.endpoint, "--push-url", push_provider.url]
    process, url = start_server(
        start_process,
        "poller.demo.messaging",
        database,
        receiver.grpc_endpoint,
        *where,
        *limits,
        f"--generation={generation}",
    )
    metrics = EventMetricsSeen(receiver, generation)
    load = Load(url, database, bucket, push_provider, metrics)
    asyncio.run(load.run())
    process.send(signal.SIGTERM)
    process.wait()

    counts_are_exact(load, metrics)
    each_request_is_a_tree(load, receiver)
    each_line_belongs_to_a_span(process, receiver)
    no_client_data_is_exported(load, process, receiver)
    it_conforms(receiver, generation, tmp_path)


def counts_are_exact(load: Load, metrics: EventMetricsSeen) -> None:
    counts: dict[tuple[str, ...], Any] = {}
    added: dict[tuple[str, ...], Any] = {}
    for series, point in metrics.newest().items():
        if isinstance(point.value, Distribution):
            counts[series], added[series] = point.value.count, point.value.sum
        else:
            counts[series] = point.value

    assert counts == expected.counts(load, metrics)
    for series, value in expected.sums(load).items():
        assert added.get(series, value) == value


def each_request_is_a_tree(load: Load, receiver: Receiver) -> None:
    traces: Mapping[str, list[Span]] = defaultdict(list)
    for span in receiver.spans():
        traces[span.trace_id].append(span)
    assert len(load.sent.traces) == sum(load.responses.values())
    probes = sum(count for (_, route, _), count in load.responses.items() if route in PATHS)
    assert probes > 0
    assert len(load.sent.traces.keys() - traces.keys()) == probes
    for trace, spans in traces.items():
        sent_from, request = load.sent.traces.get(trace, ("", ""))
        ids = {span.span_id for span in spans}
        (root,) = [span for span in spans if span.parent_span_id not in ids]
        assert root.parent_span_id == sent_from
        assert (root.kind == "server") == bool(sent_from)
        assert root.attributes.get("request.id", "") == request

    trees = {frozenset(tree(spans)) for spans in traces.values()}
    uploading = {
        ("", "POST /v1/attachments", "server"),
        ("POST /v1/attachments", "upload_attachment", "internal"),
        ("upload_attachment", "S3.PutObject", "client"),
    }
    if PSYCOPG_IS_TRACED:
        uploading.add(("upload_attachment", "INSERT", "client"))
    assert uploading in trees
    (failed,) = [span for span in receiver.spans("POST /v1/attachments") if span.status == "error"]
    assert failed.attributes["error.type"] == "botocore.errorfactory.NoSuchBucket"
    assert failed.attributes["http.response.status_code"] == 500
    sessions = [span for span in receiver.spans("websocket_session") if span.status == "unset"]
    users = [span.attributes["user.id"] for span in sessions if "websocket.close_code" in span.attributes]
    assert len(users) == load.counted["websocket_session",]


def tree(spans: list[Span]) -> set[tuple[str, str, str]]:
    """Return the name of the parent, the name and the kind of each span."""
    names = {span.span_id: span.name for span in spans}
    return {(names.get(span.parent_span_id, ""), span.name, span.kind) for span in spans}


def each_line_belongs_to_a_span(process: Process, receiver: Receiver) -> None:
    span_ids = {(span.trace_id, span.span_id) for span in receiver.spans()}
    lines = [json.loads(line) for line in process.stderr.splitlines()]
    assert len(lines) > 20
    outside = [line["message"] for line in lines if (line["trace_id"], line["span_id"]) not in span_ids]
    assert [text for text in outside if not re.search(r" /(livez|readyz)[ ?]", text)] == []
    assert all(line["trace_id"] for line in lines)
    # uvicorn logs the exception after the request has ended.
    (failed,) = [span for span in receiver.spans("POST /v1/attachments") if span.status == "error"]
    (traceback,) = [line for line in lines if "Traceback" in line.get("exception", "")]
    assert (traceback["logger"], traceback["trace_id"]) == ("uvicorn.error", failed.trace_id)
    records = receiver.records()
    unknown = [str(record.body) for record in records if (record.trace_id, record.span_id) not in span_ids]
    assert sorted(unknown) == sorted(outside)
    assert sorted(str(record.body) for record in records) == sorted(line["message"] for line in lines)


def no_client_data_is_exported(load: Load, process: Process, receiver: Receiver) -> None:
    sent = b"\n".join(request.SerializeToString() for request in received(receiver))
    everything = sent + (process.stdout + process.stderr).encode()
    secrets = load.sent.secrets | {CREDENTIALS["AWS_SECRET_ACCESS_KEY"], CREDENTIALS["AWS_ACCESS_KEY_ID"]}
    assert len(secrets) > 50
    assert b"upload_attachment" in sent
    assert [secret for secret in secrets if secret.encode() in everything] == []
    assert not re.search(rb"203\.0\.113\.|[Mm]ozilla|Bearer|python-httpx", everything)


def received(receiver: Receiver) -> list[ExportRequest]:
    """The requests of all signals."""
    return [request.request for signal in SIGNALS for request in receiver.requests(signal)]


def it_conforms(receiver: Receiver, generation: GenerationName, folder: Path) -> None:
    file = folder / "exported.json"
    file.write_text("".join(recorded(Stream(received(receiver)))), encoding="utf-8")
    # The package for botocore still uses the old name of this attribute.
    former = ("--ignore", "old_convention:http.status_code")
    done = poller(str(file), "--require", "all", "--generation", generation, *OF_LIBRARIES, *former)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed, 0 warnings, 3 ok, " in done.stdout


def test_conform_reports_each_violation_of_a_server(
    database: Database, start_process: Start, poller_process: Start, tmp_path: Path
) -> None:
    ports = free_ports(2)
    listening = [f"--grpc-port={ports[0]}", f"--http-port={ports[1]}"]
    conform = poller_process("conform", *listening, "--format", "json", *OF_LIBRARIES)
    conform.wait_for_line("listening")
    process, url = start_server(
        start_process,
        "tests.bed.nonconforming_server",
        database,
        f"http://{LOOPBACK}:{ports[0]}",
        f"--folder={tmp_path}",
        "--ack-interval=0.1",
    )
    asyncio.run(say_hello(url))
    process.send(signal.SIGTERM)
    process.wait()
    conform.send(signal.SIGINT)

    assert conform.wait() == 1
    failed = [check for check in json.loads(conform.stdout)["checks"] if check["state"] == "fail"]
    assert {
        f"{check['check']} {check['subject']}" for check in failed if "subject" in check
    } == nonconforming_server.NAMED


async def say_hello(url: str) -> None:
    """Do everything once that creates a metric."""
    alice, bob = Client(url), Client(url)
    for client, name in ((alice, "alice"), (bob, "bob")):
        assert (await client.sign_up(name)).is_success
        assert (await client.set_up_device(1)).is_success
    async with bob.connected() as session:
        assert (await alice.send([bob.device], b"hello")).is_success
        while not (ids := (await session.receive())[0]):
            pass
        await session.acknowledge(ids)
    assert (await alice.upload(b"a picture")).is_success
    for client in (alice, bob):
        await client.close()
