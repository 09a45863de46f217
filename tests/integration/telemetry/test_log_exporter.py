"""Log records are exported as on stderr, with any contents, except records about their own export."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from poller.model.otlp_endpoint import Endpoint
from poller.model.redaction import LONGEST_BEGINNING, learn
from poller.otlp.exporter import resource
from poller.receiver.decode import LogRecord
from poller.receiver.receiver import ACCEPT, INVALID, UNAVAILABLE, Receiver
from poller.telemetry import logging as logs
from poller.telemetry.log_exporter import Handler, LogRecords
from tests.bed.cleanup import closing_all
from tests.bed.process import eventually

Open = Callable[[], LogRecords]
logger = logging.getLogger("poller.test")


@pytest.fixture
def stderr() -> Iterator[io.StringIO]:
    """The log of the program at every level, written to a string."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    logs.configure("json", "debug", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture
def open_log(receiver: Receiver, stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Start an export to the receiver, soon after each record; stop it after the test."""
    del stderr
    monkeypatch.setenv("OTEL_BLRP_SCHEDULE_DELAY", "50")

    def start() -> LogRecords:
        endpoint = Endpoint(receiver.grpc_endpoint, "grpc")
        return LogRecords(endpoint, resource("tested", "test", "1"), 60.0)

    with closing_all(start, lambda exported: exported.shutdown(1.0)) as open_log:
        yield open_log


def arrived(receiver: Receiver, exported: LogRecords) -> list[LogRecord]:
    """Return everything that has been logged."""
    exported.shutdown(60.0)
    return receiver.records()


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        (logging.DEBUG, 5),
        (logging.INFO, 9),
        (logging.WARNING, 13),
        (35, 13),
        (logging.ERROR, 17),
        (logging.CRITICAL, 21),
    ],
)
def test_severities_are_those_of_the_data_model(
    receiver: Receiver, open_log: Open, level: int, severity: int
) -> None:
    exported = open_log()
    logger.log(level, "it is %s", "so")
    (record,) = arrived(receiver, exported)
    assert (record.body, record.severity, record.scope) == ("it is so", severity, "poller.test")
    assert record.time_unix_nano > 0


def test_fields_have_their_types_and_unsupported_types_become_text(
    receiver: Receiver, open_log: Open
) -> None:
    extra: dict[str, Any] = {
        "n": 3,
        "share": 0.5,
        "yes": True,
        "nothing": None,
        "huge": 2**63,
        "half": "\ud800",
        "attributes": {"state": "queued", 5: [1, 2**70]},
        "error": ValueError("no"),
    }
    exported = open_log()
    (handler,) = [handler for handler in logging.getLogger().handlers if isinstance(handler, Handler)]
    # Not through the logger, because pytest-xdist could not transfer the captured record.
    handler.handle(logger.makeRecord(logger.name, logging.INFO, "", 0, "half \ud800", (), None, extra=extra))
    logger.info("and the next")
    first, second = arrived(receiver, exported)
    assert first.body == "half ?"
    assert first.attributes == {
        "n": 3,
        "share": 0.5,
        "yes": True,
        "huge": str(2**63),
        "half": "?",
        "attributes": {"state": "queued", "5": [1, str(2**70)]},
        "error": "no",
    }
    assert second.body == "and the next"


def test_an_exception_has_its_attributes(receiver: Receiver, open_log: Open) -> None:
    exported = open_log()
    try:
        int("gone")
    except ValueError:
        logger.exception("it broke")
    (record,) = arrived(receiver, exported)
    assert record.attributes["exception.type"] == "ValueError"
    assert record.attributes["exception.message"] == "invalid literal for int() with base 10: 'gone'"
    assert "Traceback" in str(record.attributes["exception.stacktrace"])


def test_secrets_are_masked_in_every_part_of_a_record(
    receiver: Receiver, open_log: Open, stderr: io.StringIO
) -> None:
    learn("hunter2secret")
    exported = open_log()
    try:
        int("hunter2secret")
    except ValueError:
        logger.exception("a hunter2secret in %s", "hunter2secret", extra={"hint": "hunter2secret"})
    (record,) = arrived(receiver, exported)
    assert record.body == "a *** in ***" == json.loads(stderr.getvalue().splitlines()[0])["message"]
    assert record.attributes["hint"] == "***"
    assert "hunter2secret" not in str(receiver.attempts("logs")[0].request)


def test_a_record_within_a_span_has_the_ids_of_the_span(receiver: Receiver, open_log: Open) -> None:
    exported = open_log()
    context = SpanContext(0xAB, 0xCD, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        logger.info("inside")
    logger.info("outside")
    inside, outside = arrived(receiver, exported)
    assert (inside.trace_id, inside.span_id) == ("ab".zfill(32), "cd".zfill(16))
    assert (outside.trace_id, outside.span_id) == ("", "")


def test_records_about_the_export_stay_on_stderr(
    receiver: Receiver, open_log: Open, stderr: io.StringIO
) -> None:
    """A collector that refuses log records must not get records about the refusal."""
    receiver.answer = INVALID
    exported = open_log()
    logger.info("first")
    assert eventually(lambda: "its log records are lost" in stderr.getvalue())
    logging.getLogger("opentelemetry.sdk").warning("the queue is full")
    receiver.answer = ACCEPT
    logger.info("second")
    receiver.wait_until(receiver.records, 60.0)
    assert eventually(lambda: "export of log records recovered after" in stderr.getvalue())
    logger.info("third")

    assert [record.body for record in arrived(receiver, exported)] == ["second", "third"]
    assert "the queue is full" in stderr.getvalue()


def test_only_records_about_the_export_of_metrics_and_spans_are_exported(
    receiver: Receiver, open_log: Open
) -> None:
    """The logging thread does not matter."""
    exported = open_log()
    for signal in ("metrics", "traces", "logs"):
        logging.getLogger(f"poller.delivery.{signal}").warning("export of %s failed", signal)
    assert [record.body for record in arrived(receiver, exported)] == [
        "export of metrics failed",
        "export of traces failed",
    ]


@pytest.mark.slow
def test_a_failing_export_of_log_records_makes_no_further_requests(
    receiver: Receiver, open_log: Open, stderr: io.StringIO
) -> None:
    """At debug level each attempt is logged, and exporting these records would cause further attempts."""
    receiver.answer = UNAVAILABLE
    exported = open_log()
    logger.info("first")
    receiver.wait_for_attempts(3, 60.0, signal="logs")
    assert eventually(lambda: "export of log records failed; next attempt in" in stderr.getvalue())
    assert {len(attempt.records()) for attempt in receiver.attempts("logs")} == {1}
    receiver.answer = ACCEPT
    assert [record.body for record in arrived(receiver, exported)] == ["first"]


def test_records_after_shutdown_are_only_on_stderr(
    receiver: Receiver, open_log: Open, stderr: io.StringIO
) -> None:
    exported = open_log()
    logger.info("before")
    exported.shutdown(60.0)
    logger.info("after")
    assert [record.body for record in receiver.records()] == ["before"]
    assert "after" in stderr.getvalue()


def stderr_records(stderr: io.StringIO) -> list[dict[str, Any]]:
    """The records on stderr, without those that the export of log records writes about itself."""
    lines = map(json.loads, stderr.getvalue().splitlines())
    return [line for line in lines if line["logger"] != "poller.delivery.logs"]


def test_a_record_with_wrong_arguments_is_exported_as_on_stderr(
    receiver: Receiver, open_log: Open, stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    exported = open_log()
    logger.info("%d of them", "many")
    logger.info("the next")
    bodies = [record.body for record in arrived(receiver, exported)]
    assert bodies == ["%d of them (its arguments do not fit: TypeError)", "the next"]
    assert bodies == [line["message"] for line in stderr_records(stderr)]


def test_a_long_text_is_exported_as_on_stderr(
    receiver: Receiver, open_log: Open, stderr: io.StringIO
) -> None:
    exported = open_log()
    fields = {"hint": "h" * 1_000_000, "rows": ["r" * 1_000_000]}
    logger.error("x" * 1_000_000, extra=fields, exc_info=ValueError("m" * 1_000_000))
    (record,) = arrived(receiver, exported)
    (line,) = stderr_records(stderr)
    on_stderr = [line["message"], line["exception"], line["hint"], line["rows"]]
    texts = [record.attributes[name] for name in ("exception.stacktrace", "hint", "rows")]
    assert [record.body, *texts] == on_stderr
    assert all(len(text) < LONGEST_BEGINNING for text in map(str, on_stderr))
    assert receiver.attempts("logs")[0].request.ByteSize() < 6 * LONGEST_BEGINNING
