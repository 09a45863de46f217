"""OTLP receiver over gRPC and HTTP that keeps every request exactly as sent."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from poller.model.otlp_endpoint import Signal
from poller.receiver.answers import ACCEPT, CUT, HANG, INVALID, UNAVAILABLE, CannedAnswer, partial, throttle
from poller.receiver.decode import Distribution, LogRecord, Point, Span, points_of, records_of, spans_of
from poller.receiver.grpc import GrpcListener
from poller.receiver.http import HttpListener
from poller.receiver.listener import Tls, Transport
from poller.receiver.ports import LOOPBACK, free_ports
from poller.receiver.signals import KINDS, ExportRequest, signal_of

__all__ = [
    "ACCEPT",
    "CUT",
    "HANG",
    "INVALID",
    "UNAVAILABLE",
    "CannedAnswer",
    "Distribution",
    "Point",
    "Received",
    "Receiver",
    "Tls",
    "partial",
    "throttle",
]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Received:
    """One request as received, and its answer."""

    at: float
    """Time of arrival: seconds since 1970, UTC."""
    protocol: Transport
    headers: Mapping[str, str]
    """HTTP headers or gRPC metadata, with names in lower case."""
    request: ExportRequest
    answer: CannedAnswer

    @property
    def signal(self) -> Signal:
        return signal_of(self.request)

    def points(self) -> list[Point]:
        """Return its data points; empty for another signal."""
        return list(points_of(self.request)) if isinstance(self.request, ExportMetricsServiceRequest) else []

    def spans(self) -> list[Span]:
        """Return its spans; empty for another signal."""
        return list(spans_of(self.request)) if isinstance(self.request, ExportTraceServiceRequest) else []

    def records(self) -> list[LogRecord]:
        """Return its log records; empty for another signal."""
        return list(records_of(self.request)) if isinstance(self.request, ExportLogsServiceRequest) else []


class Receiver(AbstractContextManager["Receiver"]):
    """Both protocols of OTLP with all three signals, on the same ports across stop and start.

    It may be used from any thread. `answer` is the default answer. `answer_next` sets the answers to the next
    metrics requests, and `answers` those to other signals. The default signal of the methods is metrics.
    """

    def __init__(
        self,
        *,
        grpc_port: int = 0,
        http_port: int = 0,
        host: str = LOOPBACK,
        tls: Tls | None = None,
        keep: int | None = None,
        on_request: Callable[[Received], None] | None = None,
    ) -> None:
        """Start listening; port 0 selects a free port.

        `keep` limits the number of stored requests of each signal. `on_request` runs in the receiving thread
        after the request is stored and before it is answered. Raises OSError if a port is in use.
        """
        ports = iter(free_ports(2))
        self.grpc_port = grpc_port or next(ports)
        self.http_port = http_port or next(ports)
        self._host = host
        self._tls = tls
        self._on_request = on_request
        self._changed = threading.Condition()
        self._attempts: dict[Signal, deque[Received]] = {kind.signal: deque(maxlen=keep) for kind in KINDS}
        self._answer = ACCEPT
        self._decide: Callable[[ExportMetricsServiceRequest], CannedAnswer | None] = lambda _: None
        self._next: deque[CannedAnswer] = deque()
        self._answers: Mapping[Signal, CannedAnswer] = {}
        self._stops = 0
        self._stopping = False
        self._listeners: tuple[GrpcListener, HttpListener] | None = None
        self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def grpc_endpoint(self) -> str:
        """gRPC endpoint for an exporter."""
        return f"{self._scheme}://{self._host}:{self.grpc_port}"

    @property
    def http_endpoint(self) -> str:
        """HTTP endpoint for OTEL_EXPORTER_OTLP_ENDPOINT, without a path."""
        return f"{self._scheme}://{self._host}:{self.http_port}"

    @property
    def answer(self) -> CannedAnswer:
        return self._answer

    @answer.setter
    def answer(self, answer: CannedAnswer) -> None:
        with self._changed:
            self._answer = answer
            self._changed.notify_all()

    def answer_next(self, *answers: CannedAnswer) -> None:
        """Use each of these answers for one of the next metrics requests, and `answer` after that."""
        with self._changed:
            self._next.extend(answers)

    def answer_by(self, decide: Callable[[ExportMetricsServiceRequest], CannedAnswer | None]) -> None:
        """Answer metrics requests with the result of `decide`, or with `answer` if the result is None."""
        with self._changed:
            self._decide = decide

    @property
    def answers(self) -> Mapping[Signal, CannedAnswer]:
        return self._answers

    @answers.setter
    def answers(self, answers: Mapping[Signal, CannedAnswer]) -> None:
        with self._changed:
            self._answers = dict(answers)
            self._changed.notify_all()

    def start(self) -> None:
        """Listen (again) on both ports; raises OSError if another process uses one of them."""
        if self._listeners is not None:
            return
        self._stopping = False
        grpc_listener = GrpcListener(self._host, self.grpc_port, self._tls, self._take)
        try:
            self._listeners = grpc_listener, HttpListener(self._host, self.http_port, self._tls, self._take)
        except BaseException:
            grpc_listener.stop()
            raise

    def stop(self) -> None:
        """Stop listening, cut every connection and release hanging requests; stored requests stay."""
        with self._changed:
            listeners, self._listeners = self._listeners, None
            self._stops += 1
            self._stopping = True
            self._changed.notify_all()
        for listener in listeners or ():
            listener.stop()

    def attempts(self, signal: Signal = "metrics") -> list[Received]:
        """Return every request of a signal that arrived, accepted or not, oldest first."""
        with self._changed:
            return list(self._attempts[signal])

    def requests(self, signal: Signal = "metrics") -> list[Received]:
        """Return the accepted requests of a signal, oldest first, including partial successes."""
        return [received for received in self.attempts(signal) if received.answer.accepts]

    def points(self, metric: str | None = None) -> list[Point]:
        """Return the data points of all accepted requests, or those of one metric, oldest first."""
        return [
            point
            for received in self.requests()
            for point in received.points()
            if metric is None or point.metric == metric
        ]

    def spans(self, name: str | None = None) -> list[Span]:
        """Return the spans of all accepted requests, or those of one name, in order of arrival."""
        return [
            span
            for received in self.requests("traces")
            for span in received.spans()
            if name is None or span.name == name
        ]

    def records(self) -> list[LogRecord]:
        """Return the log records of all accepted requests, in order of arrival."""
        return [record for received in self.requests("logs") for record in received.records()]

    def clear(self) -> None:
        with self._changed:
            for attempts in self._attempts.values():
                attempts.clear()

    def wait_for(self, predicate: Callable[[list[Point]], Result], timeout: float = 60.0) -> Result:
        """Return the first truthy result of `predicate`, which is called now and after every request.

        Raises TimeoutError, with a summary of the received requests, after `timeout` seconds.
        """
        return self.wait_until(lambda: predicate(self.points()), timeout)

    def wait_until(self, answer: Callable[[], Result], timeout: float = 60.0) -> Result:
        """Return the first truthy result of `answer`, which is called now and after every request.

        Raises TimeoutError, with a summary of the received requests, after `timeout` seconds.
        """
        with self._changed:
            result = self._changed.wait_for(answer, timeout)
            if not result:
                attempts = self.attempts()
                metrics = sorted({point.metric for received in attempts for point in received.points()})
                spans = sorted({span.name for span in self.spans()})
                raise TimeoutError(
                    f"{len(attempts)} requests in {timeout:g} s, {len(self.requests())} accepted, "
                    f"of the metrics {', '.join(metrics) or 'none'}"
                    + (f"; the spans {', '.join(spans)}" if spans else "")
                )
            return result

    def wait_for_attempts(self, count: int, timeout: float = 60.0, *, signal: Signal = "metrics") -> None:
        """Wait until `count` requests of a signal are stored, whatever their answers.

        Raises TimeoutError after `timeout` seconds.
        """
        attempts = self._attempts[signal]
        with self._changed:
            if not self._changed.wait_for(lambda: len(attempts) >= count, timeout):
                raise TimeoutError(f"{len(attempts)} of {count} requests in {timeout:g} s")

    def _choose(self, signal: Signal, request: ExportRequest) -> CannedAnswer:
        if not isinstance(request, ExportMetricsServiceRequest):
            return self._answers.get(signal, self._answer)
        return self._next.popleft() if self._next else self._decide(request) or self._answer

    def _take(self, protocol: Transport, headers: Mapping[str, str], request: ExportRequest) -> CannedAnswer:
        with self._changed:
            signal = signal_of(request)
            answer = self._choose(signal, request)
            stops = self._stops
            received = Received(time.time(), protocol, headers, request, answer)
            self._attempts[signal].append(received)
            self._changed.notify_all()
        if self._on_request is not None:
            self._on_request(received)
        if not answer.hang:
            return answer
        with self._changed:
            # A request that hung is not accepted later, because its sender may have disconnected.
            self._changed.wait_for(
                lambda: (
                    self._stops != stops or self._stopping or not self._answers.get(signal, self._answer).hang
                )
            )
            return UNAVAILABLE

    @property
    def _scheme(self) -> str:
        return "http" if self._tls is None else "https"
