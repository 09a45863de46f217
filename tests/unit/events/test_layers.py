"""Services, database pools and instrumented libraries record spans and metrics, and each error once."""

from __future__ import annotations

import asyncio
import inspect
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import psycopg
import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span, get_tracer
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from starlette.exceptions import HTTPException

from poller.events._asgi import errors
from poller.events._export.settings import TelemetryError
from poller.events._privacy.processors import ScrubbedTracerProvider
from poller.events.libraries import instrument
from poller.events.pools import watch_pool
from poller.events.service import traced
from poller.events.testing import Recorder
from poller.model.text import install
from tests.bed.messaging import MessagingServer
from tests.bed.process import ROOT, eventually

pytestmark = pytest.mark.psycopg_instrumentation
pytest_plugins = ["poller.events.fixtures"]


class Spans:
    """The spans of one test, oldest first."""

    def __init__(self, provider: TracerProvider) -> None:
        self._exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")

    def __call__(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def only(self) -> ReadableSpan:
        (span,) = self()
        return span


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    provider = TracerProvider(shutdown_on_exit=False)
    recorded_spans = Spans(provider)
    # The API sets the global provider only once in a process.
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    return recorded_spans


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return {name: value for name, value in (span.attributes or {}).items() if name != "code.function.name"}


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def current() -> int:
    return get_current_span().get_span_context().span_id


# --- services


class MessageService:
    """Service with a method of each kind."""

    @traced
    def send_message(self, text: str) -> tuple[str, int]:
        """Keep its docstring."""
        return text, current()

    @traced
    async def fetch_messages(self) -> int:
        await asyncio.sleep(0)
        return current()

    @staticmethod
    @traced("delete_messages")
    def purge() -> int:
        return current()

    @classmethod
    @traced
    def count_messages(cls) -> str:
        return cls.__name__


def test_methods_of_every_kind_have_a_span_named_verb_noun(spans: Spans) -> None:
    messages = MessageService()
    sent, fetched = messages.send_message("hi"), asyncio.run(messages.fetch_messages())
    deleted = messages.purge()

    assert sent[0] == "hi"
    assert MessageService.count_messages() == "MessageService"
    names = ["send_message", "fetch_messages", "delete_messages", "count_messages"]
    assert [span.name for span in spans()] == names
    assert [span.context.span_id for span in spans()[:3] if span.context] == [sent[1], fetched, deleted]
    assert (spans()[0].attributes or {})["code.function.name"] == f"{__name__}.MessageService.send_message"
    assert messages.send_message.__doc__ == "Keep its docstring."
    assert inspect.iscoroutinefunction(messages.fetch_messages)
    assert current() == 0


def test_a_decorator_around_a_static_method_says_where_it_belongs() -> None:
    with pytest.raises(TypeError, match="put @traced below @staticmethod"):
        traced(staticmethod(lambda: None))


def test_only_named_arguments_are_captured_in_any_form_of_call(spans: Spans) -> None:
    @traced(capture={"device": "device.id", "limit": "batch.limit", "flag": "flag"})
    def fetch_batch(device: object, secret: str, limit: int = 50, *, flag: bool | None = None) -> None:
        del device, secret, limit, flag

    fetch_batch("d" * 300, "s")
    fetch_batch(device=7, secret="s", limit=3, flag=True)
    fetch_batch(None, "s", 2)

    assert [attributes(span) for span in spans()] == [
        {"device.id": "d" * 256, "batch.limit": 50},
        {"device.id": 7, "batch.limit": 3, "flag": True},
        {"batch.limit": 2},
    ]


def test_invalid_arguments_to_capture_are_an_immediate_error() -> None:
    def send(text: str, peer: str) -> None:
        del text, peer

    with pytest.raises(TypeError, match="has no parameter 'body'; it has text, peer"):
        traced(capture=["body"])(send)
    with pytest.raises(ValueError, match="'peer' identifies a client"):
        traced(capture=["peer"])(send)
    traced(capture={"peer": "service.peer.name"})(send)


def test_an_error_is_recorded_once_in_the_innermost_span_and_fails_all(
    spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    @traced
    def read_row() -> None:
        raise KeyError("row")

    @traced
    async def load_user() -> None:
        read_row()

    @traced
    async def answer_request() -> None:
        await load_user()

    with pytest.raises(KeyError):
        asyncio.run(answer_request())

    outer, middle, inner = spans()
    assert [span.status.status_code for span in spans()] == [StatusCode.ERROR] * 3
    assert [attributes(span)["error.type"] for span in spans()] == ["KeyError"] * 3
    assert [len(span.events) for span in (outer, middle, inner)] == [0, 0, 1]
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("ERROR", __name__)
    assert record.getMessage() == "read_row: 'row'"
    assert record.exc_info is None


def test_the_record_of_an_error_belongs_to_the_span_of_its_call(
    spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    from poller.events._logging import records

    @traced
    def read_row() -> None:
        raise KeyError("row")

    @traced
    async def load_user() -> None:
        raise KeyError("user")

    @traced
    def list_rows() -> Generator[int, None, None]:
        yield 1
        raise KeyError("rows")

    @traced
    async def stream_rows() -> AsyncIterator[int]:
        yield 1
        raise KeyError("stream")

    async def consume() -> list[int]:
        return [item async for item in stream_rows()]

    calls = (
        read_row,
        lambda: asyncio.run(load_user()),
        lambda: list(list_rows()),
        lambda: asyncio.run(consume()),
    )
    before = logging.getLogRecordFactory()
    records.install()
    try:
        for call in calls:
            with get_tracer("caller").start_as_current_span("caller"), pytest.raises(KeyError):
                call()
    finally:
        logging.setLogRecordFactory(before)
    own = [span.get_span_context() for span in spans() if span.name != "caller"]
    assert [records.span_of(record) for record in caplog.records] == own
    assert len(own) == len(calls)


class MissingUserError(Exception):
    """The user does not exist."""


@pytest.mark.parametrize(
    "error", [MissingUserError("nothing there"), HTTPException(404, "nothing there"), HTTPException(429)]
)
def test_an_expected_response_is_not_a_failure(
    spans: Spans, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    @traced(expected=(MissingUserError,))
    def find_user() -> None:
        raise error

    with pytest.raises(type(error)):
        find_user()

    span = spans.only()
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()
    assert attributes(span)["error.type"] == errors.error_type(error)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_5xx_is_a_failure_and_a_cancellation_is_not(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    @traced
    async def wait_for_message() -> None:
        await asyncio.sleep(1000)

    @traced
    def fail_service() -> None:
        raise HTTPException(503)

    async def cancel() -> None:
        task = asyncio.create_task(wait_for_message())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    with pytest.raises(HTTPException):
        fail_service()

    cancelled, failed = spans()
    assert cancelled.status.status_code is StatusCode.UNSET
    assert attributes(cancelled) == {}
    assert failed.status.status_code is StatusCode.ERROR
    assert len(caplog.records) == 1


def test_a_generators_span_lasts_to_its_end_and_is_current_only_inside(spans: Spans) -> None:
    inside: list[int] = []

    @traced
    def list_messages(count: int) -> Generator[int, int | None, str]:
        for number in range(count):
            inside.append(current())
            got = yield number
            if got:
                inside.append(got)
        return "done"

    def consume() -> Iterator[int]:
        result = yield from list_messages(2)
        assert result == "done"

    outside = []
    for _ in consume():
        outside.append(current())
        assert spans() == []

    assert inspect.isgeneratorfunction(list_messages)
    span = spans.only()
    assert span.context is not None
    assert inside == [span.context.span_id] * 2
    assert outside == [0, 0]
    generator = list_messages(1)
    assert next(generator) == 0
    with pytest.raises(StopIteration):
        generator.send(5)
    assert inside[-1] == 5


def test_a_generator_that_is_closed_or_fails(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    steps: list[str] = []

    @traced
    def list_messages() -> Generator[int, None, None]:
        try:
            yield 1
            yield 2
        except ValueError:
            steps.append("caught")
            yield 3
            raise KeyError("x") from None
        finally:
            steps.append(f"ended in {current()}")

    closed = list_messages()
    next(closed)
    closed.close()
    thrown = list_messages()
    next(thrown)
    assert thrown.throw(ValueError("y")) == 3
    with pytest.raises(KeyError):
        next(thrown)

    first, second = spans()
    assert first.context is not None
    assert second.context is not None
    assert steps == [f"ended in {first.context.span_id}", "caught", f"ended in {second.context.span_id}"]
    assert first.status.status_code is StatusCode.UNSET
    assert second.status.status_code is StatusCode.ERROR
    assert [event.name for event in second.events] == ["exception"]
    assert len(caplog.records) == 1


def test_asynchronous_generators_behave_the_same(spans: Spans) -> None:
    steps: list[object] = []

    @traced
    async def stream_messages() -> AsyncIterator[int]:
        try:
            await asyncio.sleep(0)
            steps.append(current())
            got = yield 1
            steps.append(got)
            yield 2
        except ValueError:
            yield 3
        finally:
            steps.append(current())

    async def consume() -> None:
        first = [item async for item in stream_messages()]
        assert first == [1, 2]
        second: Any = stream_messages()
        assert await second.asend(None) == 1
        assert await second.asend("sent") == 2
        assert await second.athrow(ValueError()) == 3
        await second.aclose()
        assert current() == 0

    asyncio.run(consume())
    assert inspect.isasyncgenfunction(stream_messages)
    first_id, second_id = (span.context.span_id for span in spans() if span.context)
    assert steps == [first_id, None, first_id, second_id, "sent", second_id]
    assert {span.status.status_code for span in spans()} == {StatusCode.UNSET}


def test_spans_inside_are_children(spans: Spans) -> None:
    @traced
    def call_inner() -> None:
        spans.tracer.start_span("inner").end()

    @traced
    def list_outer() -> Iterator[int]:
        call_inner()
        yield 1
        spans.tracer.start_span("last").end()

    list(list_outer())
    outer, middle, inner, last = spans()
    assert [span.name for span in spans()] == ["list_outer", "call_inner", "inner", "last"]
    assert outer.context is not None
    assert middle.context is not None
    assert [parent(outer), parent(middle), parent(inner), parent(last)] == [
        None,
        outer.context.span_id,
        middle.context.span_id,
        outer.context.span_id,
    ]


# --- errors


def engine_of(server: MessagingServer) -> Engine:
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(server.primary_dsn))


def test_the_sqlstate_is_recorded_as_well_as_the_type(server: MessagingServer, spans: Spans) -> None:
    @traced
    def insert_user(connection: psycopg.Connection) -> None:
        connection.execute("INSERT INTO users (id, username, password_hash) VALUES (NULL, 'x', 'x')")

    engine = engine_of(server)

    @traced
    def select_nothing() -> None:
        with engine.connect() as connection:
            connection.execute(text("SELECT nothing_here"))

    with psycopg.connect(server.primary_dsn) as connection, pytest.raises(psycopg.IntegrityError):
        insert_user(connection)
    with pytest.raises(DBAPIError):
        select_nothing()
    engine.dispose()

    first, second = (attributes(span) for span in spans())
    assert first == {"error.type": "psycopg.errors.NotNullViolation", "db.response.status_code": "23502"}
    assert second["error.type"].startswith("sqlalchemy.exc.")
    assert second["db.response.status_code"] == "42703"


def test_the_sqlstate_is_read_through_wrapping_exceptions() -> None:
    span = TracerProvider(shutdown_on_exit=False).get_tracer("x").start_span("x")
    where = errors.ErrorOrigin(span.get_span_context(), "a-request")
    error = ValueError("x")
    assert errors.first_place(error) is None
    assert errors.mark(error, where.span, "a-request")
    assert not errors.mark(error, where.span)
    assert errors.first_place(ExceptionGroup("g", [error])) == where
    other = KeyError("y")
    other.__cause__ = error
    assert errors.first_place(other) == where
    error.__context__ = other  # a circle
    assert errors.first_place(other) == where
    assert errors.first_place(None) is None
    assert errors.error_type(error) == "ValueError"
    assert errors.error_type(HTTPException(404)) == "starlette.exceptions.HTTPException"


# --- pools


def pool_gauges(recorder: Recorder) -> dict[str, float | None]:
    names = ("active_connections", "idle_connections", "waiting_requests")
    return {name: recorder.value(f"db_pool_{name}") for name in names}


def test_a_pool_of_psycopg_reports_its_connections(server: MessagingServer, event_recorder: Recorder) -> None:
    with ConnectionPool(server.primary_dsn, min_size=2, max_size=2, timeout=60, open=True) as pool:
        pool.wait(60)
        end = watch_pool(event_recorder.metrics, pool)
        assert list(pool_gauges(event_recorder).values()) == [0, 2, 0]
        with ThreadPoolExecutor() as threads:
            with pool.connection(), pool.connection():
                waiting = threads.submit(lambda: pool.getconn(timeout=60))
                _until(lambda: pool_gauges(event_recorder)["waiting_requests"] == 1)
                assert list(pool_gauges(event_recorder).values()) == [2, 0, 1]
                assert not waiting.done()
            pool.putconn(waiting.result(60))
        _until(lambda: list(pool_gauges(event_recorder).values()) == [0, 2, 0])
    assert list(pool_gauges(event_recorder).values()) == [0, 0, 0]
    end()
    assert list(pool_gauges(event_recorder).values()) == [None, None, None]


def test_several_pools_are_summed_and_unknown_values_are_omitted(
    server: MessagingServer, event_recorder: Recorder
) -> None:
    async def use() -> None:
        async with AsyncConnectionPool(server.primary_dsn, min_size=1, open=False) as pool:
            await pool.wait(60)
            end = watch_pool(event_recorder.metrics, pool)
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
                async with pool.connection():
                    assert list(pool_gauges(event_recorder).values()) == [2, 0, 0]
            end()

    engine = engine_of(server)
    watch_pool(event_recorder.metrics, engine)
    with engine.connect() as first, engine.connect() as second:
        first.execute(text("SELECT 1"))
        second.execute(text("SELECT 1"))
        assert list(pool_gauges(event_recorder).values()) == [2, 0, None]
    engine.dispose()  # creates another pool
    asyncio.run(use())
    assert list(pool_gauges(event_recorder).values()) == [0, 1, None]
    engine.dispose()


def test_unsupported_pools_are_rejected(event_recorder: Recorder) -> None:
    with pytest.raises(TypeError, match=r"sqlalchemy.*Engine does not expose its connection counts"):
        watch_pool(event_recorder.metrics, create_engine("postgresql+psycopg://h/d", poolclass=NullPool))
    with pytest.raises(TypeError, match="object does not expose its connection counts"):
        watch_pool(event_recorder.metrics, object())


def _until(condition: Callable[[], bool]) -> None:
    assert eventually(condition, 60)


# --- libraries


class Storage(BaseHTTPRequestHandler):
    """The part of S3 that a PUT and a refusal need."""

    def do_PUT(self) -> None:
        """Store an object, or refuse the object `refused`."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(403 if "refused" in self.path else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


@pytest.mark.slow
def test_calls_of_botocore_have_spans_without_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.session
    from botocore.exceptions import ClientError
    from opentelemetry.instrumentation.botocore import BotocoreInstrumentor

    provider = ScrubbedTracerProvider(shutdown_on_exit=False)
    recorded_spans = Spans(provider)
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    server = HTTPServer(("127.0.0.1", 0), Storage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    instrument(["botocore"])
    instrument(["botocore"])  # once is enough
    try:
        client = botocore.session.get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=f"http://127.0.0.1:{server.server_port}",
            aws_access_key_id="AKIAMARKER",
            aws_secret_access_key="markersecret",
        )
        client.put_object(Bucket="b", Key="attachments/1", Body=b"x")
        with pytest.raises(ClientError):
            client.put_object(Bucket="b", Key="refused", Body=b"x")
    finally:
        BotocoreInstrumentor().uninstrument()  # type: ignore[no-untyped-call]  # it has no types
        server.shutdown()
        server.server_close()

    stored, refused = recorded_spans()
    assert (stored.name, stored.kind) == ("S3.PutObject", SpanKind.CLIENT)
    assert stored.status.status_code is StatusCode.UNSET
    assert refused.status.status_code is StatusCode.ERROR
    assert "MARKER" not in f"{stored.to_json()}{refused.to_json()}".upper()


def test_queries_of_psycopg_have_spans_with_their_sqlstate(
    server: MessagingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only runs with the package, whose releases pin the SDK and follow it late."""
    module = pytest.importorskip("opentelemetry.instrumentation.psycopg")
    provider = ScrubbedTracerProvider(shutdown_on_exit=False)
    recorded_spans = Spans(provider)
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)

    async def use_pool() -> None:
        async with (
            AsyncConnectionPool(server.primary_dsn, min_size=1, open=False) as pool,
            pool.connection() as connection,
        ):
            await connection.execute("SELECT count(*) FROM users WHERE username = %s", ("markeruser",))

    instrument(["psycopg"])
    try:
        with psycopg.connect(server.primary_dsn) as connection, pytest.raises(psycopg.Error):
            connection.execute("SELECT nothing_here")
        asyncio.run(use_pool())
    finally:
        module.PsycopgInstrumentor().uninstrument()

    by_status = {span.status.status_code: span for span in recorded_spans() if span.name.startswith("SELECT")}
    failed, counted = by_status[StatusCode.ERROR], by_status[StatusCode.UNSET]
    assert (failed.attributes or {})["db.response.status_code"] == "42703"
    assert (failed.attributes or {})["error.type"] == "42703"
    assert (counted.attributes or {})["db.query.text"] == "SELECT count(*) FROM users WHERE username = %s"
    assert "markeruser" not in counted.to_json()


def test_a_missing_package_of_a_library_is_reported_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("psycopg", "botocore"):
        monkeypatch.setitem(sys.modules, f"opentelemetry.instrumentation.{name}", None)
    with pytest.raises(TelemetryError) as raised:
        instrument(["psycopg", "redis", "botocore"])  # type: ignore[list-item]  # under test
    assert [problem.partition(" ")[0] for problem in raised.value.problems] == ["spans", "'redis'", "spans"]
    assert install("psycopg") in raised.value.problems[0]


def test_a_record_of_another_thread_belongs_to_its_own_span(caplog: pytest.LogCaptureFixture) -> None:
    """A new thread has no context; its log records belong to no span."""
    from poller.events._logging import records

    before = logging.getLogRecordFactory()
    records.install()
    try:
        tracer = TracerProvider(shutdown_on_exit=False).get_tracer("x")
        with tracer.start_as_current_span("x", context=Context()) as span:
            logging.getLogger("x").warning("inside")
            thread = threading.Thread(target=lambda: logging.getLogger("x").warning("outside"))
            thread.start()
            thread.join()
    finally:
        logging.setLogRecordFactory(before)
    inside, outside = caplog.records
    assert records.span_of(inside) == span.get_span_context()
    assert records.span_of(outside) is None


def test_metrics_without_configuration_do_nothing() -> None:
    """In a separate process, because other tests may have set the global provider."""
    program = (
        "from opentelemetry import metrics\n"
        "from poller.events import EventMetrics\n"
        "before = type(metrics.get_meter_provider()).__name__\n"
        "events = EventMetrics()\n"
        "print(events.user_registered(), events.health_checked('database', ok=True))\n"
        "import sys, threading\n"
        "print(before, threading.active_count(), 'opentelemetry.sdk.metrics' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["None None", "_ProxyMeterProvider 1 False"]
