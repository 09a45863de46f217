"""Delivery: every export arrives in order after every kind of failure, and each loss has a reason."""

from __future__ import annotations

import http.server
import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import Metric

from poller.model.duration import parse_duration
from poller.model.otlp_endpoint import Endpoint, resolve
from poller.model.retry import RetryConfig
from poller.otlp.exporter import SILENT_INTERVALS, MetricExporter, resource
from poller.otlp.request import Request
from poller.otlp.response import ExportResult
from poller.otlp.retry_sender import REFUSALS_BEFORE_DOUBT, RetrySender
from poller.otlp.sender import build_sender
from poller.otlp.sending_queue import SendingQueue
from poller.otlp.signals import format_of
from poller.receiver.decode import points_of
from poller.receiver.receiver import (
    ACCEPT,
    CUT,
    HANG,
    INVALID,
    UNAVAILABLE,
    CannedAnswer,
    Receiver,
    partial,
    throttle,
)
from poller.telemetry.export_metrics import register_exports
from tests.bed.cleanup import closing_all
from tests.bed.otlp import endpoint_of
from tests.bed.process import eventually

PROTOCOLS = ["grpc", "http/protobuf"]
SICK = CannedAnswer("INTERNAL", 500, "the receiver is configured to fail")
STRANGER = CannedAnswer("UNAUTHENTICATED", 401, "the receiver is configured to reject every client")
TOO_LARGE = CannedAnswer("RESOURCE_EXHAUSTED", 413, "Received message larger than max (5 vs. 4)")


FIRST_PAUSE = 0.05
"""A collector needs pauses of seconds; these tests are about the order of requests."""


class Counting:
    """An exporter whose gauge `number` is the number of collections: 1, 2, 3, ..."""

    def __init__(self, endpoint: Endpoint, folder: Path | None, first: int = 1, **arguments: Any) -> None:
        self.queue = SendingQueue(folder, max_size=2**28, max_age=3600.0)
        described = resource("obscura-poller", f"from-{first}", "1")
        # On a machine that stalls no answer may be late.
        arguments = {"timeout": 60.0, "retry": RetryConfig(FIRST_PAUSE, 60.0), **arguments}
        self.push = MetricExporter(endpoint, described, self.queue, **arguments)
        self.next = first
        self.series = 1
        self.push.meter.create_observable_gauge("number", [self._observe])

    def _observe(self, _: CallbackOptions) -> Iterator[Observation]:
        for number in range(self.series):
            yield Observation(self.next, {"series": number} if self.series > 1 else {})
        self.next += 1

    def collect(self, times: int = 1) -> None:
        """Collect several times without waiting for the delivery."""
        for _ in range(times):
            self.push.flush(0)


Open = Callable[..., Counting]


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Open]:
    def start(
        receiver: Receiver, protocol: str, folder: Path | None = tmp_path, **arguments: Any
    ) -> Counting:
        return Counting(endpoint_of(receiver, protocol), folder, **arguments)

    with closing_all(start, lambda counter: counter.push.shutdown(0.1)) as counting:
        yield counting


def numbers(receiver: Receiver) -> list[int]:
    """Return the accepted numbers in the order of their arrival."""
    return [point.value for point in receiver.points("number") if isinstance(point.value, int)]


def values(request: ExportMetricsServiceRequest) -> list[object]:
    return [point.value for point in points_of(request) if point.metric == "number"]


def without_repetitions(received: list[int]) -> list[int]:
    """Return the numbers without immediate repetitions, which follow the loss of an answer."""
    return [
        number for position, number in enumerate(received) if received[position - 1 : position] != [number]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "answers",
    [
        [UNAVAILABLE] * 3,
        [throttle(0.2), UNAVAILABLE],
        [CUT, CUT],
        [SICK, STRANGER],
        [UNAVAILABLE, CUT, SICK, ACCEPT, CUT, UNAVAILABLE],
    ],
    ids=["unavailable", "busy", "cut", "refused", "all"],
)
def test_after_every_answer_of_the_collector_all_exports_arrive_in_order(
    receiver: Receiver, counting: Open, protocol: str, answers: list[CannedAnswer]
) -> None:
    counter = counting(receiver, protocol, interval=0.05)
    receiver.wait_for(lambda _: len(numbers(receiver)) >= 2)
    receiver.answer_next(*answers)
    receiver.wait_for_attempts(len(receiver.attempts()) + len(answers) + 2)
    assert counter.push.shutdown(60)
    assert without_repetitions(numbers(receiver)) == list(range(1, counter.next))
    times = [point.time_unix_nano for point in receiver.points("number")]
    assert times == sorted(times)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_unreachable_or_hanging_collector_delays_no_collection(
    receiver: Receiver, counting: Open, protocol: str
) -> None:
    """It returns without having answered; queued requests have their own times and are sent first."""
    counter = counting(receiver, protocol, interval=0.05)
    receiver.answer = HANG
    receiver.wait_for_attempts(1)
    assert eventually(lambda: counter.queue.requests >= 5, 60)
    receiver.stop()
    waiting = counter.queue.requests
    assert eventually(lambda: counter.queue.requests >= waiting + 5, 60)
    receiver.answer = ACCEPT
    receiver.start()
    receiver.wait_for(lambda _: len(numbers(receiver)) >= waiting + 8)
    assert counter.push.shutdown(60)
    assert without_repetitions(numbers(receiver)) == list(range(1, counter.next))
    times = [point.time_unix_nano for point in receiver.points("number")]
    assert times == sorted(times)
    assert len(set(times)) == counter.next - 1
    assert counter.queue.empty


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_undelivered_requests_of_the_previous_process_are_sent_first_and_unchanged(
    receiver: Receiver, counting: Open, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.stop()
    before = counting(receiver, protocol)
    before.collect(3)
    assert before.push.shutdown(0.5, patient=False) is False
    assert re.search(r"4 requests not delivered; kept in /", caplog.text)
    receiver.start()
    after = counting(receiver, protocol, first=100)
    assert after.push.flush(60)
    assert numbers(receiver) == [1, 2, 3, 4, 100]
    instances = [point.resource["service.instance.id"] for point in receiver.points("number")]
    assert instances == ["from-1"] * 4 + ["from-100"]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dated", [False, True])
def test_the_collector_decides_the_time_of_the_next_attempt(
    receiver: Receiver, counting: Open, protocol: str, dated: bool
) -> None:
    """It requests a delay with RetryInfo, or with Retry-After as a number or as a date."""
    counter = counting(receiver, protocol)
    receiver.answer_next(CannedAnswer("RESOURCE_EXHAUSTED", 429, "not now", retry_after=1, dated=dated))
    assert counter.push.flush(60)
    first, second = (received.at for received in receiver.attempts())
    assert second - first >= 0.9


def test_a_change_between_accepted_and_failed_exports_is_reported_once(
    receiver: Receiver, counting: Open
) -> None:
    counter = counting(receiver, "grpc")
    seen: list[bool | None] = []
    counter.push.delivery.on_change = lambda: seen.append(counter.push.last_export_ok)
    assert counter.push.flush(60)
    assert counter.push.flush(60)
    receiver.answer_next(UNAVAILABLE, UNAVAILABLE)
    assert counter.push.flush(60)
    assert seen == [True, False, True]


def test_a_flush_ends_if_the_collector_requests_a_longer_pause(receiver: Receiver, counting: Open) -> None:
    counter = counting(receiver, "grpc")
    receiver.answer_next(throttle(3000))
    assert counter.push.flush(600) is False
    assert counter.push.shutdown(600) is False
    assert len(receiver.attempts()) == 1
    assert counter.next == 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refused_data_are_dropped_and_delay_nothing(
    receiver: Receiver, counting: Open, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver.stop()
    counter = counting(receiver, protocol)
    counter.collect(4)
    assert eventually(lambda: "export failed" in caplog.text, 60)  # the outage begins here
    receiver.answer_next(ACCEPT, INVALID, INVALID)
    receiver.start()
    assert counter.push.flush(60) is True  # this export itself was delivered
    assert numbers(receiver) == [1, 4, 5]
    assert counter.push.delivery.stats.rejected == {"invalid": 2}
    lost = [record for record in caplog.records if "its data points are lost" in record.getMessage()]
    assert [record.levelno for record in lost] == [logging.WARNING]
    (well,) = [record for record in caplog.records if "recovered after" in record.getMessage()]
    assert (vars(well)["refused"], vars(well)["delivered"]) == (2, 3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rejected_points_are_counted_and_logged_and_the_flush_returns_false(
    receiver: Receiver, counting: Open, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    counter = counting(receiver, protocol)
    counter.series = 5
    receiver.answer = partial(3, "too old by far")
    assert counter.push.flush(60) is False
    assert counter.push.flush(60) is False
    receiver.answer = ACCEPT
    assert counter.push.flush(60) is True
    assert counter.push.delivery.stats.rejected == {"partial_success": 6}
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "the collector rejects 3 of 5 data points: too old by far"
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_warning_without_rejections_is_logged_and_the_flush_succeeds(
    receiver: Receiver, counting: Open, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    counter = counting(receiver, protocol)
    receiver.answer = partial(0, "this endpoint goes away soon")
    assert counter.push.flush(60) is True
    assert "message of the collector: this endpoint goes away soon" in caplog.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_errors_that_an_operator_must_fix_lose_no_data_and_delay_no_flush(
    receiver: Receiver, counting: Open, protocol: str
) -> None:
    counter = counting(receiver, protocol, interval=3600.0)
    receiver.answer = STRANGER
    assert counter.push.flush(600) is False  # at once, otherwise the test would time out
    assert counter.push.flush(600) is False
    receiver.answer = ACCEPT
    assert counter.push.flush(60) is True
    assert numbers(receiver) == [1, 2, 3]
    assert not counter.push.delivery.stats.rejected


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_that_is_too_large_arrives_in_parts(
    receiver: Receiver, counting: Open, protocol: str
) -> None:
    counter = counting(receiver, protocol)
    counter.series = 10
    receiver.answer_next(TOO_LARGE, TOO_LARGE)  # the whole request, then its first half
    assert counter.push.flush(60) is True
    assert [len(received.points()) for received in receiver.requests()] == [3, 2, 3, 2]
    assert [point.attributes["series"] for point in receiver.points()] == list(range(10))
    assert {point.value for point in receiver.points()} == {1}
    assert counter.push.flush(60) is True  # the limit is known now
    assert len(receiver.attempts()) == 10


@pytest.mark.slow
def test_a_request_above_the_limit_of_a_real_server_arrives_in_parts(
    receiver: Receiver, counting: Open
) -> None:
    """gRPC accepts 4 MiB."""
    counter = counting(receiver, "grpc", request_size=2**30)

    def observe(_: CallbackOptions) -> Iterator[Observation]:
        for number in range(1200):
            yield Observation(number, {"name": f"{number:05000}"})

    counter.push.meter.create_observable_gauge("long", [observe])
    assert counter.push.flush(60) is True
    assert [point.value for point in receiver.points("long")] == list(range(1200))
    assert len(receiver.requests()) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_single_data_point_that_is_too_large_is_dropped_alone(
    receiver: Receiver, counting: Open, protocol: str
) -> None:
    counter = counting(receiver, protocol)
    counter.series = 2
    receiver.answer_next(TOO_LARGE, ACCEPT, TOO_LARGE)
    assert counter.push.flush(60) is False
    assert [point.attributes["series"] for point in receiver.points()] == [0]
    assert counter.push.delivery.stats.rejected == {"too_large": 1}
    assert counter.queue.empty


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_that_makes_the_collector_fail_is_dropped_after_a_time(
    receiver: Receiver, counting: Open, protocol: str
) -> None:
    """The collector accepts an earlier request again, so the request is the cause, not the collector."""
    receiver.answer_by(lambda request: SICK if 3 in values(request) else None)
    counter = counting(receiver, protocol, interval=0.05)
    receiver.wait_for(lambda _: max(numbers(receiver), default=0) >= 8)
    assert counter.push.shutdown(60)
    assert without_repetitions(numbers(receiver)) == [1, 2, *range(4, counter.next)]
    assert counter.push.delivery.stats.rejected == {"poison": 1}


@pytest.mark.slow
def test_the_first_request_of_a_process_that_makes_the_collector_fail_is_dropped(
    receiver: Receiver, counting: Open
) -> None:
    receiver.answer_by(lambda request: SICK if 1 in values(request) else None)
    counter = counting(receiver, "grpc", interval=0.05)
    receiver.wait_for(lambda _: max(numbers(receiver), default=0) >= 8)
    assert counter.push.shutdown(60)
    assert without_repetitions(numbers(receiver)) == list(range(2, counter.next))
    assert counter.push.delivery.stats.rejected == {"poison": 1}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_request_is_dropped_if_the_collector_fails_for_every_request(
    receiver: Receiver, counting: Open, protocol: str
) -> None:
    counter = counting(receiver, protocol, interval=0.05)
    receiver.wait_for(lambda _: numbers(receiver))
    receiver.answer = SICK
    # The last attempt may be the earlier request that tests the collector.
    receiver.wait_for_attempts(len(receiver.attempts()) + 22)
    receiver.answer = ACCEPT
    receiver.wait_for(lambda _: len(numbers(receiver)) >= 5)
    assert counter.push.shutdown(60)
    assert without_repetitions(numbers(receiver)) == list(range(1, counter.next))
    assert not counter.push.delivery.stats.rejected


@pytest.mark.parametrize(
    ("kind", "content", "accepted"),
    [
        ("text/html; charset=utf-8", b"hi", False),
        ("text/html", b"", False),
        ("application/xhtml+xml", b"<html>login</html>", False),
        ("", b"<html>login</html>", False),
        ("text/plain", b"ok", False),
        ("application/json", b'{"error": "not found"}', False),
        ("application/json", b"[1]", False),
        ("application/json", b"{}", True),
        ("application/json", b'{"partialSuccess": {}}', True),
        ("text/plain", b"{}", True),
        ("text/plain", b"", True),
        ("", b"", True),
        ("application/x-protobuf", b"<html>", True),
    ],
)
def test_only_an_otlp_response_says_that_the_data_were_accepted(
    tmp_path: Path, kind: str, content: bytes, accepted: bool
) -> None:
    """Otherwise the 200 of another server would discard everything."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            if kind:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Write no access log."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        counter = Counting(resolve(url, "POLLER_OTLP_ENDPOINT", "http/protobuf"), tmp_path / "page")
        assert counter.push.flush(60) is accepted
        assert counter.queue.requests == (0 if accepted else 1)
        counter.push.shutdown(0.1)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metrics_report_the_outcome_of_exports(receiver: Receiver, counting: Open, protocol: str) -> None:
    counter = counting(receiver, protocol)
    register_exports(counter.push.meter, [counter.push.delivery])
    receiver.answer_next(UNAVAILABLE, INVALID, partial(2, "no"))
    assert counter.push.flush(60) is False
    assert counter.push.flush(60) is False
    assert counter.push.flush(60) is True
    receiver.stop()
    counter.collect(3)  # the third reports the others, because none is delivered meanwhile
    third = counter.next - 1
    receiver.start()
    assert counter.push.flush(60) is True
    every = [request.points() for request in receiver.requests()]
    export = next(points for points in every if any((p.metric, p.value) == ("number", third) for p in points))
    values: dict[tuple[object, ...], Any] = {
        (point.metric, *sorted(point.attributes.items())): point.value for point in export
    }
    of_metrics = ("poller.signal", "metrics")
    grpc = protocol == "grpc"
    status = "rpc.response.status_code" if grpc else "http.response.status_code"
    unavailable, invalid = ("UNAVAILABLE", "INVALID_ARGUMENT") if grpc else ("503", "400")

    def requests(outcome: str, error: str | None = None) -> Any:
        code = {} if error is None else {"error.type": error, status: error if grpc else int(error)}
        attributes = dict([of_metrics], **{"poller.outcome": outcome}, **code)
        return values.get(("poller.export.requests", *sorted(attributes.items())))

    assert requests("refused", invalid) == 1
    assert requests("ok") == 2
    assert requests("failed", unavailable) >= 1
    assert values["poller.export.rejected", ("poller.reason", "partial_success"), of_metrics] == 2
    assert values["poller.export.rejected", ("poller.reason", "invalid"), of_metrics] > 3
    assert values["poller.export.spool.requests", of_metrics] == 2
    assert values["poller.export.spool.size", of_metrics] > 200
    assert values["poller.export.spool.age", of_metrics] > 0


def test_shutdown_reports_requests_that_could_not_be_stored(
    receiver: Receiver, counting: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = CannedAnswer("UNAUTHENTICATED", 401, "configured to reject every client")
    folder = tmp_path / "state"
    counter = counting(receiver, "grpc", folder)
    counter.push.flush(60)
    shutil.rmtree(folder)
    folder.write_text("in the way")
    counter.push.shutdown(60)
    assert f"2 requests not delivered and lost; nothing could be stored in {folder}" in caplog.text
    assert "POLLER_STATE_DIR would keep them" not in caplog.text


# --- sequences of answers


class Scripted:
    """A sender with scripted answers that records the requests."""

    def __init__(self, judge: Callable[[bytes, int], ExportResult]) -> None:
        self._judge = judge
        self.sent: list[bytes] = []
        self.rests = 0

    def send(self, body: bytes) -> ExportResult:
        self.sent.append(body)
        return self._judge(body, len(self.sent))

    def rest(self) -> None:
        self.rests += 1

    def close(self) -> None:
        """Do nothing; no connection is open."""


Deliver = Callable[..., tuple[RetrySender, Scripted]]
IDLE = 0.3


@pytest.fixture
def deliver() -> Iterator[Deliver]:
    """Deliver requests with a data point each through a scripted sender."""
    begun: list[tuple[RetrySender, SendingQueue]] = []

    def start(
        judge: Callable[[bytes, int], ExportResult], bodies: list[bytes], pause: float = 0.01, points: int = 1
    ) -> tuple[RetrySender, Scripted]:
        queue = SendingQueue(None, max_size=2**20, max_age=3600.0)
        queue.append([Request(body, points) for body in bodies])
        sender = Scripted(judge)
        retry = RetryConfig(FIRST_PAUSE, pause)
        begun.append(
            (RetrySender(format_of("metrics"), queue, sender, "the collector", retry, idle=IDLE), queue)
        )
        return begun[-1][0], sender

    yield start
    for retry_sender, queue in begun:
        retry_sender.close()
        queue.close()


ACCEPTED = ExportResult("accepted")


@pytest.mark.slow
def test_the_pauses_between_attempts_start_again_after_a_success(
    deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="poller.delivery")
    tries = 6  # for each of the two requests

    def judge(_: bytes, count: int) -> ExportResult:
        return ACCEPTED if count % tries == 0 else ExportResult("retryable", "away")

    _, sender = deliver(judge, [b"a", b"b"], pause=60.0)
    assert eventually(lambda: len(sender.sent) == 2 * tries, 60)
    assert sender.sent == [b"a"] * tries + [b"b"] * tries
    messages = [record.getMessage() for record in caplog.records]
    matches = [re.search(r"next attempt in (\S+):", text) for text in messages]
    pauses = [
        seconds for match in matches if match and isinstance(seconds := parse_duration(match[1]), float)
    ]
    # The first failure of an outage is a warning without its pause; each pause is twice the previous one.
    first, last = FIRST_PAUSE, FIRST_PAUSE * 2 ** (tries - 2)
    assert max(pauses) >= last / 2 - 0.05
    assert any(pause <= first * 2 + 0.05 for pause in pauses[len(pauses) // 2 :]), pauses


@pytest.mark.slow
def test_the_sender_rests_once_each_time_the_queue_becomes_empty(
    deliver: Deliver,
) -> None:
    retry_sender, sender = deliver(lambda _, __: ACCEPTED, [b"a", b"b"])
    for sent, rests in ((2, 1), (3, 2)):
        assert eventually(lambda rests=rests: sender.rests == rests)  # type: ignore[misc]
        assert len(sender.sent) == sent
        assert not eventually(lambda rests=rests: sender.rests > rests, 4 * IDLE)  # type: ignore[misc]
        retry_sender.enqueue([Request(b"c", 1)])


def test_the_sender_rests_in_a_long_pause_between_two_attempts(deliver: Deliver) -> None:
    _, sender = deliver(lambda _, __: ExportResult("retryable", "away", wait=3600.0), [b"a"])
    assert eventually(lambda: sender.rests == 1)
    assert len(sender.sent) == 1


def test_a_request_is_suspected_after_the_stated_number_of_refusals(deliver: Deliver) -> None:
    """Then an earlier accepted request is sent again, and the suspected request a last time."""

    def judge(body: bytes, _: int) -> ExportResult:
        return ExportResult("held", "sick") if body == b"bad" else ACCEPTED

    retry_sender, sender = deliver(judge, [b"good", b"bad", b"next"])
    assert eventually(lambda: sender.sent[-1:] == [b"next"], 60)
    times = REFUSALS_BEFORE_DOUBT + 1
    assert sender.sent == [b"good", *[b"bad"] * times, b"good", b"bad", b"next"]
    assert retry_sender.stats.rejected == {"poison": 1}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unavailable_with_a_requested_delay_is_not_retried_at_once(receiver: Receiver, protocol: str) -> None:
    """Without a delay it is retried once, because an idle connection may have been cut."""
    sender = build_sender(endpoint_of(receiver, protocol), 60.0, {})
    assert sender.send(b"").disposition == "accepted"
    receiver.answer_next(CannedAnswer("UNAVAILABLE", 503, "later", retry_after=7))
    result = sender.send(b"")
    assert (result.disposition, result.wait, len(receiver.attempts())) == ("retryable", 7.0, 2)
    sender.close()


@pytest.mark.parametrize("rejected", [2**63 - 1, 2**70, 4])
def test_no_more_points_are_counted_as_rejected_than_were_sent(deliver: Deliver, rejected: int) -> None:
    """Two such answers would overflow the counter and fail every later export."""
    retry_sender, sender = deliver(
        lambda *_: ExportResult("accepted", "no", rejected=rejected), [b"a", b"b"], points=3
    )
    assert eventually(lambda: len(sender.sent) == 2, 60)
    assert eventually(lambda: retry_sender.stats.rejected == {"partial_success": 6})


class FailingSource:
    """A source of metrics whose collection fails."""

    resource = resource("failing", "i", "1")

    def collect(self) -> list[Metric]:
        raise ZeroDivisionError

    def confirm_export(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_metric_that_cannot_be_encoded_is_dropped_alone(
    receiver: Receiver, counting: Open, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    counter = counting(receiver, protocol)
    counter.push.meter.create_observable_counter("huge", [lambda _: [Observation(2**63)]])
    counter.push.meter.create_observable_counter("fine", [lambda _: [Observation(2**63 - 1)]])
    counter.push.add(FailingSource())
    for _ in range(2):
        assert counter.push.flush(60)
    assert {point.metric for point in receiver.points()} == {"number", "fine"}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["metric huge is not exported: it has a value that OTLP cannot carry"]
    assert counter.push.delivery.stats.rejected == {"unencodable": 2}


def test_a_collection_without_metrics_is_not_logged_as_an_export(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="poller.delivery")
    described = resource("obscura-poller", "early", "1")
    queue = SendingQueue(None, max_size=2**20, max_age=3600.0)
    push = MetricExporter(endpoint_of(receiver, "grpc"), described, queue)
    assert push.flush(5)
    assert "kept" not in caplog.text
    push.meter.create_counter("late").add(1)
    assert push.shutdown(60)
    assert "export kept" in caplog.text


def test_several_intervals_without_a_delivery_are_detected(receiver: Receiver, counting: Open) -> None:
    counter = counting(receiver, "grpc", interval=60.0)
    now = time.monotonic()
    assert counter.push.silent(now) is None
    assert counter.push.silent(now + 60.0 * SILENT_INTERVALS + 1) is not None
    assert counting(receiver, "grpc", None).push.silent(now + 1e9) is None, "it exports only on request"
    later = counter.push.silent(now + 1e6)
    assert counter.push.flush(60)
    assert (counter.push.silent(now + 1e6) or 0) < (later or 0)


def test_the_first_export_is_confirmed_once(
    receiver: Receiver, counting: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="poller.delivery")
    single = counting(receiver, "grpc", None)
    assert single.push.flush(60)
    assert caplog.records == [], "the exit code reports the failure"
    counter = counting(receiver, "grpc", interval=3600.0)
    counter.series = 5
    assert counter.push.flush(60)
    assert counter.push.flush(60)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("INFO", "the first export was delivered")
    assert (vars(record)["endpoint"], vars(record)["data_points"]) == (receiver.grpc_endpoint, 5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_flush_ends_as_soon_as_it_is_stopped(receiver: Receiver, counting: Open, protocol: str) -> None:
    receiver.answer = HANG
    counter = counting(receiver, protocol)
    stopped: list[bool] = []
    waiting = threading.Thread(
        target=counter.push.flush, args=(3600.0,), kwargs={"stopped": lambda: bool(stopped)}
    )
    waiting.start()
    receiver.wait_for_attempts(1)
    stopped.append(True)
    waiting.join(60)
    assert not waiting.is_alive()
    assert counter.queue.requests == 1
