"""Delivery: whatever a collector does, every export arrives in its order, and each loss has a name."""

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

from poller.config.endpoint import Endpoint, resolve
from poller.model.duration import parse_duration
from poller.model.retry import RetryConfig
from poller.otlp import sender as otlp
from poller.otlp.exporter import SILENT_INTERVALS, MetricExporter, resource
from poller.otlp.request import Request
from poller.otlp.response import ExportResult
from poller.otlp.retry_sender import REFUSALS_BEFORE_DOUBT, RetrySender
from poller.otlp.sending_queue import SendingQueue
from poller.otlp.signals import format_of
from poller.receiver.decode import points_of
from poller.receiver.receiver import (
    ACCEPT,
    CUT,
    HANG,
    INVALID,
    UNAVAILABLE,
    Answer,
    Receiver,
    partial,
    throttle,
)
from poller.telemetry import export_metrics as exportmetrics
from tests.bed.process import eventually

PROTOCOLS = ["grpc", "http/protobuf"]
SICK = Answer("INTERNAL", 500, "the receiver is configured to be sick")
STRANGER = Answer("UNAUTHENTICATED", 401, "the receiver was told to know nobody")
TOO_LARGE = Answer("RESOURCE_EXHAUSTED", 413, "Received message larger than max (5 vs. 4)")


FIRST_PAUSE = 0.05
"""Seconds are what a collector needs; these tests are about the order of things."""


class Counting:
    """A push whose gauge `number` tells how many collections there were: 1, 2, 3, ..."""

    def __init__(self, endpoint: Endpoint, folder: Path | None, first: int = 1, **arguments: Any) -> None:
        self.queue = SendingQueue(folder, max_size=2**28, max_age=3600.0)
        described = resource("obscura-poller", f"from-{first}", "1")
        # A machine that stalls is not to make an answer late.
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
        """Push several times without waiting for the delivery."""
        for _ in range(times):
            self.push.flush(0)


Open = Callable[..., Counting]


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Open]:
    opened: list[Counting] = []

    def start(
        receiver: Receiver, protocol: str, folder: Path | None = tmp_path, **arguments: Any
    ) -> Counting:
        opened.append(Counting(endpoint_of(receiver, protocol), folder, **arguments))
        return opened[-1]

    yield start
    for one in opened:
        one.push.shutdown(0.1)


def endpoint_of(receiver: Receiver, protocol: str) -> Endpoint:
    url = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    return resolve(url, "POLLER_OTLP_ENDPOINT", "grpc" if protocol == "grpc" else "http/protobuf")


def numbers(receiver: Receiver) -> list[int]:
    """The numbers that were taken, in the order of their coming."""
    return [point.value for point in receiver.points("number") if isinstance(point.value, int)]


def values(request: ExportMetricsServiceRequest) -> list[object]:
    return [point.value for point in points_of(request) if point.metric == "number"]


def once(found: list[int]) -> list[int]:
    """Without what came again at once, as it may when the answer to the first was lost."""
    return [number for position, number in enumerate(found) if found[position - 1 : position] != [number]]


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
def test_whatever_the_collector_says_everything_arrives_in_its_order(
    receiver: Receiver, counting: Open, protocol: str, answers: list[Answer]
) -> None:
    one = counting(receiver, protocol, interval=0.05)
    receiver.wait_for(lambda _: len(numbers(receiver)) >= 2)
    receiver.answer_next(*answers)
    receiver.wait_for_attempts(len(receiver.attempts()) + len(answers) + 2)
    assert one.push.shutdown(60)
    assert once(numbers(receiver)) == list(range(1, one.next))
    times = [point.time_unix_nano for point in receiver.points("number")]
    assert times == sorted(times)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_that_is_away_or_hangs_holds_up_no_collection(
    receiver: Receiver, counting: Open, protocol: str
) -> None:
    """It comes back without having answered; what waited has its own times and goes first."""
    one = counting(receiver, protocol, interval=0.05)
    receiver.answer = HANG
    receiver.wait_for_attempts(1)
    assert eventually(lambda: one.queue.requests >= 5, 60)
    receiver.stop()
    waiting = one.queue.requests
    assert eventually(lambda: one.queue.requests >= waiting + 5, 60)
    receiver.answer = ACCEPT
    receiver.start()
    receiver.wait_for(lambda _: len(numbers(receiver)) >= waiting + 8)
    assert one.push.shutdown(60)
    assert once(numbers(receiver)) == list(range(1, one.next))
    times = [point.time_unix_nano for point in receiver.points("number")]
    assert times == sorted(times)
    assert len(set(times)) == one.next - 1
    assert one.queue.empty


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_the_last_process_could_not_deliver_goes_first_and_as_it_was(
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


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dated", [False, True])
def test_the_collector_decides_when_it_is_asked_again(
    receiver: Receiver, counting: Open, protocol: str, dated: bool
) -> None:
    """By RetryInfo, or by Retry-After as a number or as a date."""
    one = counting(receiver, protocol)
    receiver.answer_next(Answer("RESOURCE_EXHAUSTED", 429, "not now", retry_after=1, dated=dated))
    assert one.push.flush(60)
    first, second = (received.at for received in receiver.attempts())
    assert second - first >= 0.9


def test_a_flush_ends_where_the_collector_asks_for_a_longer_pause(receiver: Receiver, counting: Open) -> None:
    one = counting(receiver, "grpc")
    receiver.answer_next(throttle(3000))
    assert one.push.flush(600) is False
    assert one.push.shutdown(600) is False
    assert len(receiver.attempts()) == 1
    assert one.next == 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refused_data_are_dropped_and_hold_up_nothing(
    receiver: Receiver, counting: Open, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver.stop()
    one = counting(receiver, protocol)
    one.collect(4)
    receiver.answer_next(ACCEPT, INVALID, INVALID)
    receiver.start()
    assert one.push.flush(60) is True  # what it was about itself is there
    assert numbers(receiver) == [1, 4, 5]
    assert one.push.delivery.stats.rejected == {"invalid": 2}
    lost = [record for record in caplog.records if "its data points are lost" in record.getMessage()]
    assert [record.levelno for record in lost] == [logging.WARNING]
    (well,) = [record for record in caplog.records if "works again" in record.getMessage()]
    assert (vars(well)["refused"], vars(well)["delivered"]) == (2, 3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rejected_points_are_counted_and_told_and_the_flush_is_false(
    receiver: Receiver, counting: Open, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = counting(receiver, protocol)
    one.series = 5
    receiver.answer = partial(3, "too old by far")
    assert one.push.flush(60) is False
    assert one.push.flush(60) is False
    receiver.answer = ACCEPT
    assert one.push.flush(60) is True
    assert one.push.delivery.stats.rejected == {"partial_success": 6}
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "the collector rejects 3 of 5 data points: too old by far"
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_remark_without_rejections_is_told_and_all_is_well(
    receiver: Receiver, counting: Open, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = counting(receiver, protocol)
    receiver.answer = partial(0, "this endpoint goes away soon")
    assert one.push.flush(60) is True
    assert "the collector remarks: this endpoint goes away soon" in caplog.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_an_operator_has_to_repair_costs_no_data_and_no_waiting(
    receiver: Receiver, counting: Open, protocol: str
) -> None:
    one = counting(receiver, protocol, interval=3600.0)
    receiver.answer = STRANGER
    assert one.push.flush(600) is False  # at once, or the test's own time would be up
    assert one.push.flush(600) is False
    receiver.answer = ACCEPT
    assert one.push.flush(60) is True
    assert numbers(receiver) == [1, 2, 3]
    assert not one.push.delivery.stats.rejected


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_that_is_too_large_arrives_in_parts(
    receiver: Receiver, counting: Open, protocol: str
) -> None:
    one = counting(receiver, protocol)
    one.series = 10
    receiver.answer_next(TOO_LARGE, TOO_LARGE)  # the whole, then its first half
    assert one.push.flush(60) is True
    assert [len(received.points()) for received in receiver.requests()] == [3, 2, 3, 2]
    assert [point.attributes["series"] for point in receiver.points()] == list(range(10))
    assert {point.value for point in receiver.points()} == {1}
    assert one.push.flush(60) is True  # its size is known now
    assert len(receiver.attempts()) == 10


def test_a_real_servers_limit_is_one_of_those(receiver: Receiver, counting: Open) -> None:
    """gRPC takes 4 MiB."""
    one = counting(receiver, "grpc", request_size=2**30)

    def observe(_: CallbackOptions) -> Iterator[Observation]:
        for number in range(1200):
            yield Observation(number, {"name": f"{number:05000}"})

    one.push.meter.create_observable_gauge("long", [observe])
    assert one.push.flush(60) is True
    assert [point.value for point in receiver.points("long")] == list(range(1200))
    assert len(receiver.requests()) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_data_point_that_is_too_large_is_lost_alone(
    receiver: Receiver, counting: Open, protocol: str
) -> None:
    one = counting(receiver, protocol)
    one.series = 2
    receiver.answer_next(TOO_LARGE, ACCEPT, TOO_LARGE)
    assert one.push.flush(60) is False
    assert [point.attributes["series"] for point in receiver.points()] == [0]
    assert one.push.delivery.stats.rejected == {"too_large": 1}
    assert one.queue.empty


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_that_alone_makes_the_collector_sick_holds_up_nothing_for_ever(
    receiver: Receiver, counting: Open, protocol: str
) -> None:
    """What it took before it takes again, so that the request is at fault, and not the collector."""
    receiver.answer_by(lambda request: SICK if 3 in values(request) else None)
    one = counting(receiver, protocol, interval=0.05)
    receiver.wait_for(lambda _: max(numbers(receiver), default=0) >= 8)
    assert one.push.shutdown(60)
    assert once(numbers(receiver)) == [1, 2, *range(4, one.next)]
    assert one.push.delivery.stats.rejected == {"poison": 1}


def test_that_is_so_for_the_first_request_of_a_process_too(receiver: Receiver, counting: Open) -> None:
    receiver.answer_by(lambda request: SICK if 1 in values(request) else None)
    one = counting(receiver, "grpc", interval=0.05)
    receiver.wait_for(lambda _: max(numbers(receiver), default=0) >= 8)
    assert one.push.shutdown(60)
    assert once(numbers(receiver)) == list(range(2, one.next))
    assert one.push.delivery.stats.rejected == {"poison": 1}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_that_refuses_everything_makes_no_request_poison(
    receiver: Receiver, counting: Open, protocol: str
) -> None:
    one = counting(receiver, protocol, interval=0.05)
    receiver.wait_for(lambda _: numbers(receiver))
    receiver.answer = SICK
    # The last of them may be what is asked to tell the one from the other.
    receiver.wait_for_attempts(len(receiver.attempts()) + 22)
    receiver.answer = ACCEPT
    receiver.wait_for(lambda _: len(numbers(receiver)) >= 5)
    assert one.push.shutdown(60)
    assert once(numbers(receiver)) == list(range(1, one.next))
    assert not one.push.delivery.stats.rejected


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
    """The 200 of any other server would discard everything."""

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
        one = Counting(resolve(url, "POLLER_OTLP_ENDPOINT", "http/protobuf"), tmp_path / "page")
        assert one.push.flush(60) is accepted
        assert one.queue.requests == (0 if accepted else 1)
        one.push.shutdown(0.1)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_becomes_of_the_exports_is_shown_as_metrics(
    receiver: Receiver, counting: Open, protocol: str
) -> None:
    one = counting(receiver, protocol)
    exportmetrics.register(one.push.meter, [one.push.delivery])
    receiver.answer_next(UNAVAILABLE, INVALID, partial(2, "no"))
    assert one.push.flush(60) is False
    assert one.push.flush(60) is False
    assert one.push.flush(60) is True
    receiver.stop()
    one.collect(3)  # the third tells of the others, as none of them can be delivered meanwhile
    third = one.next - 1
    receiver.start()
    assert one.push.flush(60) is True
    every = [request.points() for request in receiver.requests()]
    told = next(points for points in every if any((p.metric, p.value) == ("number", third) for p in points))
    found: dict[tuple[object, ...], Any] = {
        (point.metric, *sorted(point.attributes.items())): point.value for point in told
    }
    of_metrics = ("poller.signal", "metrics")
    grpc = protocol == "grpc"
    status = "rpc.response.status_code" if grpc else "http.response.status_code"
    unavailable, invalid = ("UNAVAILABLE", "INVALID_ARGUMENT") if grpc else ("503", "400")

    def requests(outcome: str, error: str | None = None) -> Any:
        code = {} if error is None else {"error.type": error, status: error if grpc else int(error)}
        attributes = dict([of_metrics], **{"poller.outcome": outcome}, **code)
        return found.get(("poller.export.requests", *sorted(attributes.items())))

    assert requests("refused", invalid) == 1
    assert requests("ok") == 2
    assert requests("failed", unavailable) >= 1
    assert found["poller.export.rejected", ("poller.reason", "partial_success"), of_metrics] == 2
    assert found["poller.export.rejected", ("poller.reason", "invalid"), of_metrics] > 3
    assert found["poller.export.spool.requests", of_metrics] == 2
    assert found["poller.export.spool.size", of_metrics] > 200
    assert found["poller.export.spool.age", of_metrics] > 0


def test_the_end_says_what_a_state_folder_could_not_take(
    receiver: Receiver, counting: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = Answer("UNAUTHENTICATED", 401, "told to know nobody")
    folder = tmp_path / "state"
    one = counting(receiver, "grpc", folder)
    one.push.flush(60)
    shutil.rmtree(folder)
    folder.write_text("in the way")
    one.push.shutdown(60)
    assert f"2 requests not delivered and lost; nothing could be kept in {folder}" in caplog.text
    assert "POLLER_STATE_DIR would keep them" not in caplog.text


# --- sequences of answers


class Scripted:
    """A sender that answers as it is told, and remembers what it was sent."""

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
        """Nothing is open."""


Deliver = Callable[..., tuple[RetrySender, Scripted]]
IDLE = 0.3


@pytest.fixture
def deliver() -> Iterator[Deliver]:
    """Deliver requests of a point each by a scripted sender."""
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
    for one, queue in begun:
        one.close()
        queue.close()


TAKEN = ExportResult("taken")


def test_the_pauses_between_tries_start_again_after_a_success(
    deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="poller.delivery")
    tries = 6  # for each of the two requests

    def judge(_: bytes, count: int) -> ExportResult:
        return TAKEN if count % tries == 0 else ExportResult("later", "away")

    _, sender = deliver(judge, [b"a", b"b"], pause=60.0)
    assert eventually(lambda: len(sender.sent) == 2 * tries, 60)
    assert sender.sent == [b"a"] * tries + [b"b"] * tries
    said = [record.getMessage() for record in caplog.records]
    found = [re.search(r"once more in (\S+):", text) for text in said]
    pauses = [seconds for one in found if one and isinstance(seconds := parse_duration(one[1]), float)]
    # The first of each outage is a warning without its pause; within an outage each is twice the one before.
    first, last = FIRST_PAUSE, FIRST_PAUSE * 2 ** (tries - 2)
    assert max(pauses) >= last / 2 - 0.05
    assert any(pause <= first * 2 + 0.05 for pause in pauses[len(pauses) // 2 :]), pauses


def test_the_sender_rests_once_when_nothing_is_left_to_send_and_once_more_after_the_next(
    deliver: Deliver,
) -> None:
    one, sender = deliver(lambda _, __: TAKEN, [b"a", b"b"])
    for sent, rests in ((2, 1), (3, 2)):
        assert eventually(lambda rests=rests: sender.rests == rests)  # type: ignore[misc]
        assert len(sender.sent) == sent
        assert not eventually(lambda rests=rests: sender.rests > rests, 4 * IDLE)  # type: ignore[misc]
        one.enqueue([Request(b"c", 1)])


def test_the_sender_rests_in_a_long_pause_between_two_tries(deliver: Deliver) -> None:
    _, sender = deliver(lambda _, __: ExportResult("later", "away", wait=3600.0), [b"a"])
    assert eventually(lambda: sender.rests == 1)
    assert len(sender.sent) == 1


def test_a_request_is_doubted_after_the_stated_number_of_refusals(deliver: Deliver) -> None:
    """Then what was taken before is sent once more, and the request itself a last time."""

    def judge(body: bytes, _: int) -> ExportResult:
        return ExportResult("held", "sick") if body == b"bad" else TAKEN

    one, sender = deliver(judge, [b"good", b"bad", b"next"])
    assert eventually(lambda: sender.sent[-1:] == [b"next"], 60)
    times = REFUSALS_BEFORE_DOUBT + 1
    assert sender.sent == [b"good", *[b"bad"] * times, b"good", b"bad", b"next"]
    assert one.stats.rejected == {"poison": 1}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unavailable_with_a_wish_to_wait_is_not_sent_again_at_once(receiver: Receiver, protocol: str) -> None:
    """Without one it is, once, as a connection at rest may have been cut."""
    sender = otlp.build(endpoint_of(receiver, protocol), 60.0, {})
    assert sender.send(b"").fate == "taken"
    receiver.answer_next(Answer("UNAVAILABLE", 503, "later", retry_after=7))
    found = sender.send(b"")
    assert (found.fate, found.wait, len(receiver.attempts())) == ("later", 7.0, 2)
    sender.close()


@pytest.mark.parametrize("rejected", [2**63 - 1, 2**70, 4])
def test_no_more_points_are_rejected_than_were_sent(deliver: Deliver, rejected: int) -> None:
    """Two such answers overflowed the counter, and with it every later export."""
    one, sender = deliver(lambda *_: ExportResult("taken", "no", rejected=rejected), [b"a", b"b"], points=3)
    assert eventually(lambda: len(sender.sent) == 2, 60)
    assert eventually(lambda: one.stats.rejected == {"partial_success": 6})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_metric_that_cannot_be_encoded_costs_only_itself(
    receiver: Receiver, counting: Open, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = counting(receiver, protocol)
    one.push.meter.create_observable_counter("huge", [lambda _: [Observation(2**63)]])
    one.push.meter.create_observable_counter("fine", [lambda _: [Observation(2**63 - 1)]])
    one.push.add(lambda: [1 / 0])  # type: ignore[list-item]
    for _ in range(2):
        assert one.push.flush(60)
    assert {point.metric for point in receiver.points()} == {"number", "fine"}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["metric huge is not exported: it has a value that OTLP cannot carry"]
    assert one.push.delivery.stats.rejected == {"unencodable": 2}


def test_an_export_that_was_never_delivered_for_some_intervals_is_known(
    receiver: Receiver, counting: Open
) -> None:
    one = counting(receiver, "grpc", interval=60.0)
    now = time.monotonic()
    assert one.push.silent(now) is None
    assert one.push.silent(now + 60.0 * SILENT_INTERVALS + 1) is not None
    assert counting(receiver, "grpc", None).push.silent(now + 1e9) is None, "it exports when it is asked to"
    later = one.push.silent(now + 1e6)
    assert one.push.flush(60)
    assert (one.push.silent(now + 1e6) or 0) < (later or 0)


def test_the_first_export_is_confirmed_once(
    receiver: Receiver, counting: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="poller.delivery")
    single = counting(receiver, "grpc", None)
    assert single.push.flush(60)
    assert caplog.records == [], "its exit code says so"
    one = counting(receiver, "grpc", interval=3600.0)
    one.series = 5
    assert one.push.flush(60)
    assert one.push.flush(60)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("INFO", "the first export was delivered")
    assert (vars(record)["endpoint"], vars(record)["data_points"]) == (receiver.grpc_endpoint, 5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_flush_ends_as_soon_as_it_is_stopped(receiver: Receiver, counting: Open, protocol: str) -> None:
    receiver.answer = HANG
    one = counting(receiver, protocol)
    stopped: list[bool] = []
    waiting = threading.Thread(
        target=one.push.flush, args=(3600.0,), kwargs={"stopped": lambda: bool(stopped)}
    )
    waiting.start()
    receiver.wait_for_attempts(1)
    stopped.append(True)
    waiting.join(60)
    assert not waiting.is_alive()
    assert one.queue.requests == 1
