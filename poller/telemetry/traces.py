"""Spans of each tick, with a child span for each of its queries."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, NoOpTracer, Span, SpanContext, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from poller.model.redaction import redact_all
from poller.model.result import state_of
from poller.model.tick import tick_name

if TYPE_CHECKING:
    from poller.model.query import AttributeValue, QueryDefinition
    from poller.model.result import PollResult
    from poller.postgres.server_tracker import ServerInfo

SYSTEM = "postgresql"
_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """The spans of ticks and their queries, one tick after the other.

    A tick's span covers the whole tick and is the current span during it, so that log records and exemplars
    carry its ids. The queries of a tick are sent together, so their spans are made afterwards from their
    answers. A query's span ends when its answer arrived; its length is the time that the query used the
    connection.

    Attributes follow the semantic conventions 1.44 for database clients, and are `poller.*` as on the
    metrics. `db.query.summary`, and so the span's name, is the query's name, a summary by its author.
    `error.type` is the kind of failure, as on metrics and in the log; the conventions would repeat the
    SQLSTATE there. The SQL (`db.query.text`) is omitted, because its literals may be secret and the name
    identifies it. The server's messages are omitted because they may quote rows.
    """

    def __init__(self, tracer: Tracer | None = None, target: str = "") -> None:
        """Prepare; without a `tracer` no span is recorded or current. `target` is on the spans of ticks."""
        self._tracer = tracer or NoOpTracer()
        self._target: dict[str, AttributeValue] = {"poller.target.name": target} if target else {}
        self._span: Span = INVALID_SPAN
        self._started = Started()
        self._server_info: ServerInfo | None = None
        self._spans: dict[str, Span] = {}

    def note(self, server_info: ServerInfo) -> None:
        """Record the server that was reached as the server of the current tick."""
        self._server_info = server_info

    @contextmanager
    def tick(self, queries: Sequence[QueryDefinition]) -> Iterator[None]:
        """Make a span of the tick that polls `queries`, and make it the current span within the block."""
        self._server_info, self._spans, self._started = None, {}, Started()
        name = tick_name(queries[0]) if queries else "none"
        self._span = self._tracer.start_span(
            f"tick {name}",
            attributes=redact_all(
                {"poller.tick.name": name, "poller.tick.queries": len(queries), **self._target}
            ),
            start_time=self._started.at,
        )
        try:
            # The text of an exception may contain a secret; the log has it masked.
            with trace.use_span(self._span, record_exception=False, set_status_on_exception=False):
                yield
        except BaseException as error:
            _fail(self._span, type(error).__name__)
            raise
        finally:
            self._span.end(self._started.ns(time.monotonic()))

    def observe(self, results: Sequence[PollResult]) -> None:
        """Make a span for each result, in the order of their answers, and complete the tick's span.

        Does nothing if the tick's span is not recorded (no tracer, or not sampled), because the spans of
        queries would not be recorded either.
        """
        if not self._span.is_recording():
            return
        server = self._server()
        for result in sorted(results, key=lambda result: result.answered):
            self._spans[result.query.name] = self._query(result, server)
        self._span.set_attributes(redact_all(self._replica() | _counts(results)))
        errors = [result.error_type for result in results if result.error_type]
        if errors and len(errors) == len(results):
            _fail(self._span, errors[0])

    def of(self, name: str) -> AbstractContextManager[object]:
        """Make the span of the query `name` the current span within the block, although it has ended.

        Without such a span the tick's span stays current.
        """
        span = self._spans.get(name)
        if span is None:
            return nullcontext()
        return trace.use_span(span, record_exception=False, set_status_on_exception=False)

    def context(self, name: str) -> SpanContext | None:
        """Return the context of the span of the query `name`, else of the tick's span; None if unrecorded."""
        span = self._spans.get(name)
        if span is not None:
            return span.get_span_context()
        return self._span.get_span_context() if self._span.is_recording() else None

    def _query(self, result: PollResult, server: Mapping[str, AttributeValue]) -> Span:
        sent = result.skipped is None
        attributes = _attributes(result)
        if sent:
            attributes |= server
        if result.error_type is not None:
            attributes["error.type"] = result.error_type
        span = self._tracer.start_span(
            result.query.name,
            # A skipped query made no call; its span shows that it was due, and why it was skipped.
            kind=SpanKind.CLIENT if sent else SpanKind.INTERNAL,
            start_time=self._started.ns(result.answered - result.duration),
            attributes=redact_all(attributes),
        )
        if result.error_type is not None:
            span.set_status(StatusCode.ERROR)
        span.end(self._started.ns(result.answered))
        return span

    def _server(self) -> dict[str, AttributeValue]:
        """Return the attributes of the server; without its address if none was reached."""
        attrs: dict[str, AttributeValue] = {"db.system.name": SYSTEM}
        if (current_server := self._server_info) is not None:
            attrs |= {"server.address": current_server.address, "server.port": current_server.port}
            if current_server.database:
                attrs["db.namespace"] = current_server.database
        return attrs

    def _replica(self) -> dict[str, AttributeValue]:
        current_server = self._server_info
        if current_server is None:
            return {}
        attrs: dict[str, AttributeValue] = {
            "server.address": current_server.address,
            "server.port": current_server.port,
            "poller.replica.standby": current_server.standby,
        }
        return attrs if current_server.lag is None else attrs | {"poller.replica.lag": current_server.lag}


class Started:
    """The start of a tick, which relates the wall clock to the monotonic clock.

    Every time in a tick's spans is counted from its start by the monotonic clock. So no child lies outside
    its parent, even if the wall clock is set.
    """

    def __init__(self) -> None:
        self.at = time.time_ns()
        self._monotonic = time.monotonic()

    def ns(self, monotonic: float) -> int:
        """Convert monotonic seconds to nanoseconds since 1970; the result is never before the start."""
        return self.at + max(0, round((monotonic - self._monotonic) * 1e9))


def traceparent() -> dict[str, str]:
    """Return the current span as the headers of W3C Trace Context; empty outside a span."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier


def tag_name_and_span(name: str) -> dict[str, str]:
    """Return the tags of a query's SQL comment: its name and the current span."""
    return {"query": name, **traceparent()}


def _attributes(result: PollResult) -> dict[str, AttributeValue]:
    name, state = result.query.name, state_of(result)
    attrs: dict[str, AttributeValue] = {"poller.query.name": name, "poller.state": state.name}
    if state.reason is not None and result.error is None:
        attrs["poller.reason"] = state.reason
    if result.skipped is not None:
        return attrs
    attrs["db.query.summary"] = name
    if result.returned is not None:
        attrs["db.response.returned_rows"] = result.returned
    if result.error is None:
        attrs["poller.query.series"] = len(result.samples)
        attrs["poller.query.quarantined"] = sum(result.rejected.values())
        return attrs
    if result.error.sqlstate is not None:
        attrs["db.response.status_code"] = result.error.sqlstate
    if result.error.conflict is not None:
        attrs["poller.conflict"] = result.error.conflict
    return attrs


def _counts(results: Sequence[PollResult]) -> dict[str, AttributeValue]:
    words = Counter(state_of(result).name for result in results)
    return {f"poller.tick.{word}": words[word] for word in ("ok", "estimated", "failed", "skipped")}


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)
