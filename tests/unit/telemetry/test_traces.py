"""A tick is a trace: its own span and a child for each query, with the times of the answers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.redaction import learn
from poller.model.result import Answer, PollResult, Skip
from poller.model.rows import Column, Rows
from poller.polling.poll import poll
from poller.postgres.admission import Admission
from poller.postgres.replica import Replica
from poller.postgres.server_tracker import ServerInfo
from poller.postgres.transaction import TransactionLimits
from poller.telemetry import logging as logs
from poller.telemetry.poll_log import PollLog
from poller.telemetry.traces import Tracing, traceparent
from tests.bed.definitions import Source, a_query, a_result
from tests.bed.postgres import Database

SERVER = ServerInfo(
    "db.example", 5432, standby=True, timeline=1, lag=0.5, data_age=0.5, why="", at=0.0, database="app"
)


class Recorded:
    """The spans of a tracer of the SDK, by name."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider.get_tracer("poller"))

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}

    def times(self, name: str) -> tuple[int, int]:
        """Start and end of a span, in nanoseconds since 1970."""
        span = self.spans()[name]
        assert span.start_time is not None
        assert span.end_time is not None
        return span.start_time, span.end_time

    def attributes(self, name: str) -> dict[str, Any]:
        return dict(self.spans()[name].attributes or {})


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def answered(query: QueryDefinition, *, duration: float = 0.0, **fields: Any) -> Answer:
    return Answer(query, time.time(), duration, answered=time.monotonic(), **fields)


def record_tick(
    recorded: Recorded, *answers: Answer, server_info: ServerInfo | None = SERVER
) -> list[PollResult]:
    """Record a tick with `answers` and return its results."""

    def answer(queries: Sequence[QueryDefinition]) -> Sequence[Answer]:
        del queries
        if server_info is not None:
            recorded.tracing.note(server_info)
        return answers

    with recorded.tracing.tick([answer.query for answer in answers]):
        results = poll([answer.query for answer in answers], Source(answer))
        recorded.tracing.observe(results)
    return results


NUMBER = Column("n", 20)
GOOD = Rows((NUMBER,), [(b"7",), (None,)], beyond=3)


def test_a_successful_query_is_a_client_span_with_conventional_attributes(recorded: Recorded) -> None:
    record_tick(recorded, answered(a_query("users"), rows=GOOD))
    span = recorded.spans()["users"]
    assert (span.kind, span.status.status_code) == (SpanKind.CLIENT, StatusCode.UNSET)
    assert recorded.attributes("users") == {
        "db.system.name": "postgresql",
        "db.namespace": "app",
        "db.query.summary": "users",
        "db.response.returned_rows": 5,
        "server.address": "db.example",
        "server.port": 5432,
        "poller.query.name": "users",
        "poller.state": "ok",
        "poller.query.series": 1,
        "poller.query.quarantined": 4,
    }


def test_a_failed_query_has_kind_and_sqlstate_without_the_servers_message(recorded: Recorded) -> None:
    error = PollError("conflict", "row (alice@example.org) is gone", sqlstate="40001", hint="wait")
    error.conflict = "snapshot"
    record_tick(recorded, answered(a_query("bad"), error=error), answered(a_query("good"), rows=GOOD))
    span = recorded.spans()["bad"]
    assert (span.kind, span.status.status_code, span.status.description) == (
        SpanKind.CLIENT, StatusCode.ERROR, None,
    )  # fmt: skip
    assert recorded.attributes("bad") == {
        "db.system.name": "postgresql",
        "db.namespace": "app",
        "db.query.summary": "bad",
        "db.response.status_code": "40001",
        "error.type": "conflict",
        "server.address": "db.example",
        "server.port": 5432,
        "poller.query.name": "bad",
        "poller.state": "failed",
        "poller.conflict": "snapshot",
    }
    assert recorded.spans()["tick default/5m"].status.status_code is StatusCode.UNSET
    assert "alice" not in str([span.to_json() for span in recorded.spans().values()])


def test_invalid_rows_fail_the_query_although_the_server_succeeded(recorded: Recorded) -> None:
    record_tick(recorded, answered(a_query("text"), rows=Rows((Column("n", 25),), [(b"x",)])))
    assert recorded.attributes("text").items() >= {
        ("error.type", "mismatch"), ("poller.state", "failed"), ("db.response.returned_rows", 1),
    }  # fmt: skip
    assert recorded.spans()["text"].status.status_code is StatusCode.ERROR


def test_an_estimate_has_its_reason(recorded: Recorded) -> None:
    record_tick(recorded, answered(a_query("expensive"), rows=GOOD, estimated="cost"))
    assert recorded.attributes("expensive").items() >= {
        ("poller.state", "estimated"),
        ("poller.reason", "cost"),
    }


def test_no_attribute_contains_a_secret_even_if_it_is_learned_later(recorded: Recorded) -> None:
    query = a_query("once_a_name")
    record_tick(recorded, answered(query, rows=GOOD))
    assert recorded.attributes("once_a_name")["poller.query.name"] == "once_a_name"
    learn("once_a_name")
    record_tick(recorded, answered(query, rows=GOOD))
    assert recorded.attributes("once_a_name")["poller.query.name"] == "***"


def test_a_skipped_query_is_not_a_database_call(recorded: Recorded) -> None:
    record_tick(recorded, answered(a_query("held"), skipped=Skip("breaker", "failed too often")))
    span = recorded.spans()["held"]
    assert (span.kind, span.status.status_code) == (SpanKind.INTERNAL, StatusCode.UNSET)
    assert recorded.attributes("held") == {
        "poller.query.name": "held", "poller.state": "skipped", "poller.reason": "breaker",
    }  # fmt: skip
    start, end = recorded.times("held")
    assert start == end


def test_the_tick_has_the_number_of_its_queries_and_the_server(recorded: Recorded) -> None:
    gone = PollError("timeout", "too slow", sqlstate="57014")
    record_tick(
        recorded,
        answered(a_query("a"), rows=GOOD),
        answered(a_query("b"), error=gone),
        answered(a_query("c"), skipped=Skip("column", "")),
        answered(a_query("d"), rows=GOOD, estimated="cost"),
    )
    assert recorded.spans()["tick default/5m"].kind is SpanKind.INTERNAL
    assert recorded.attributes("tick default/5m") == {
        "poller.tick.name": "default/5m",
        "poller.tick.queries": 4,
        "poller.tick.ok": 1,
        "poller.tick.estimated": 1,
        "poller.tick.failed": 1,
        "poller.tick.skipped": 1,
        "poller.replica.standby": True,
        "poller.replica.lag": 0.5,
        "server.address": "db.example",
        "server.port": 5432,
    }


def test_a_tick_without_any_result_is_an_error(recorded: Recorded) -> None:
    gone = PollError("unavailable", "refused")
    record_tick(
        recorded, answered(a_query("a"), error=gone), answered(a_query("b"), error=gone), server_info=None
    )
    tick = recorded.spans()["tick default/5m"]
    assert tick.status.status_code is StatusCode.ERROR
    assert recorded.attributes("tick default/5m")["error.type"] == "unavailable"
    assert "server.address" not in recorded.attributes("a") | recorded.attributes("tick default/5m")


def test_a_tick_does_not_inherit_the_server_of_the_previous_tick(recorded: Recorded) -> None:
    record_tick(recorded, answered(a_query("first"), rows=GOOD))
    record_tick(recorded, answered(a_query("second"), error=PollError("unavailable", "")), server_info=None)
    assert "server.address" in recorded.attributes("first")
    assert "server.address" not in recorded.attributes("second")


def test_a_defect_fails_the_tick_and_only_the_log_has_its_message(recorded: Recorded) -> None:
    with pytest.raises(ZeroDivisionError), recorded.tracing.tick([a_query("a")]):
        raise ZeroDivisionError("hunter2secret")
    span = recorded.spans()["tick default/5m"]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert recorded.attributes("tick default/5m")["error.type"] == "ZeroDivisionError"
    assert list(span.events) == []


def test_times_follow_the_monotonic_clock_from_the_tick_s_start(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wall clock that is set back during a tick does not move a child out of its parent."""
    query = a_query("users")
    answer = answered(query, rows=GOOD)
    with recorded.tracing.tick([query]):
        monkeypatch.setattr("time.time_ns", lambda: 1)
        monkeypatch.setattr("time.time", lambda: 0.0)
        answer = replace(answer, duration=1e-6, answered=time.monotonic())
        recorded.tracing.observe(poll([query], Source(lambda _: [answer])))
    first, last = recorded.times("tick default/5m")
    start, end = recorded.times("users")
    assert first <= start <= end <= last


def test_no_query_begins_before_its_tick(recorded: Recorded) -> None:
    record_tick(recorded, answered(a_query("users"), rows=GOOD, duration=1e6))
    assert recorded.times("users")[0] == recorded.times("tick default/5m")[0]


# --- current spans ------------------------------------------------------------------------------------


def ids(span: ReadableSpan) -> tuple[str, str]:
    context = span.context
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


@pytest.fixture
def log() -> Iterator[StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = StringIO()
    logs.configure("json", "info", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def test_log_lines_of_a_tick_and_of_a_query_have_their_ids(recorded: Recorded, log: StringIO) -> None:
    polls_log = PollLog(within=recorded.tracing.of)
    good, bad = a_query("good"), a_query("bad")
    results = [a_result(good), a_result(bad, outcome="failed", error=PollError("rejected", "no"))]
    with recorded.tracing.tick([good, bad]):
        logging.getLogger("poller.postgres.replica").warning("in the tick")
        recorded.tracing.observe(results)
        polls_log.observe(results)
        logging.getLogger("poller.postgres.replica").warning("in the tick again")
    logging.getLogger("poller.daemon.scheduler").warning("behind it")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    ids_by_message = {line["message"]: (line["trace_id"], line["span_id"]) for line in lines}

    spans = recorded.spans()
    assert ids_by_message == {
        "in the tick": ids(spans["tick default/5m"]),
        "query bad failed: no": ids(spans["bad"]),
        "in the tick again": ids(spans["tick default/5m"]),
        "behind it": ("", ""),
    }
    assert ids(spans["bad"])[0] == ids(spans["tick default/5m"])[0]


def test_text_lines_have_the_ids_too(recorded: Recorded, log: StringIO) -> None:
    logs.configure("text", "info", log)
    with recorded.tracing.tick([a_query("a")]):
        logging.getLogger("poller.x").warning("in the tick")
    trace_id, span_id = ids(recorded.spans()["tick default/5m"])
    assert f"in the tick trace_id={trace_id} span_id={span_id}" in log.getvalue()


def test_the_traceparent_is_that_of_the_tick(recorded: Recorded) -> None:
    assert traceparent() == {}
    with recorded.tracing.tick([a_query("a")]):
        keys = traceparent()
    span = recorded.spans()["tick default/5m"]
    assert span.context is not None
    assert keys == {"traceparent": "-".join(["00", *ids(span), f"{span.context.trace_flags:02x}"])}


def test_without_a_tracer_there_are_no_spans() -> None:
    answer = answered(a_query("a"), rows=GOOD)
    tracing = Tracing()
    with tracing.tick([answer.query]):
        assert not trace.get_current_span().get_span_context().is_valid
        results = poll([answer.query], Source(lambda _: [answer]))
        tracing.observe(results)
        with tracing.of("a"):
            assert not trace.get_current_span().get_span_context().is_valid
    assert [result.outcome for result in results] == ["ok"]


# --- on a server --------------------------------------------------------------------------------------


def test_spans_of_a_real_tick_are_consecutive_and_within_it(recorded: Recorded, database: Database) -> None:
    """In the order of the server's answers, each as long as the server worked on it."""
    queries = [
        a_query("first", "SELECT 1 AS n"),
        a_query("nap", "SELECT count(*) AS n FROM pg_sleep(0.3)"),
        a_query("divided", "SELECT 1/0 AS n"),
        a_query("alone", "SELECT 4 AS n", snapshot=False),
        a_query("absent", requires={"columns": {"nowhere": []}}),
    ]
    replica = Replica(
        lambda: database.standby_dsn,
        connect_timeout=30.0,
        limits=TransactionLimits(1.0),
        admission=Admission("false"),
        on_server_info=[recorded.tracing.note],
    )
    try:
        with recorded.tracing.tick(queries):
            results = poll(queries, replica)
            recorded.tracing.observe(results)
    finally:
        replica.close()

    spans = recorded.spans()
    tick_span = spans.pop("tick default/5m")
    assert set(spans) == {query.name for query in queries}
    first, last = recorded.times("tick default/5m")
    ends = []
    for result in results:
        start, end = recorded.times(result.query.name)
        assert first <= start <= end <= last
        assert abs((end - start) - result.duration * 1e9) < 1000  # rounded to nanoseconds
        ends.append(end)
    *sent, absent = ends
    assert sent == sorted(sent)
    assert absent <= sent[0], "queries that are not sent come before the pipeline"
    for span in spans.values():
        assert span.parent is not None
        assert tick_span.context is not None
        assert span.parent.span_id == tick_span.context.span_id
    assert recorded.attributes("divided")["db.response.status_code"] == "22012"
    assert recorded.attributes("first")["db.namespace"] == database.name
    assert recorded.attributes("absent")["poller.reason"] == "relation"
    assert recorded.attributes("tick default/5m")["poller.replica.standby"] is True
