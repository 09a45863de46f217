"""Retry-aware delivery of OTLP requests, oldest first, one at a time."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from poller.model.retry import RETRY, RetryConfig
from poller.otlp.export_log import ExportLog, ExportStats
from poller.otlp.queue_database import StoredRequest
from poller.otlp.queue_folder import Reason
from poller.otlp.request import Request, halves
from poller.otlp.response import ExportResult
from poller.otlp.signals import SignalFormat

HELD_PAUSES = 5
"""Factor by which the longest pause grows if only an operator can fix the failure."""
LONGEST_REQUESTED_PAUSE = 3600.0
"""Longest pause that a collector may request; a date in its answer may come from a wrong clock."""
_CHECK_SECONDS = 0.2
"""Seconds between two checks whether a wait was stopped, because a signal handler may not notify."""
IDLE_SECONDS = 6.0
"""Seconds without a request after which the sender rests. In about this time an open gRPC channel uses as
much CPU as opening another. So exports a few seconds apart share a channel, and others do not."""
REFUSALS_BEFORE_DOUBT = 10
"""Refusals of a request after which another request shows whether the request itself is at fault."""


class Sender(Protocol):
    """A sender of one request at a time; it returns failures as results and raises no error for them."""

    def send(self, body: bytes) -> ExportResult:
        """Send an encoded request of the signal and classify the answer."""

    def rest(self) -> None:
        """Release resources that only sending needs, because no request is expected soon."""

    def close(self) -> None:
        """Close the connections."""


class Queue(Protocol):
    """Queue of undelivered requests, oldest first: `SendingQueue`, on disk for metrics, else in memory."""

    def append(self, requests: Sequence[Request], /) -> list[int]:
        """Append all of the requests or none; return their ids."""

    def take(self) -> StoredRequest | None:
        """Return the oldest request and protect it from dropping until `remove` or `give_back`, or None."""

    def after(self, number: int, /) -> StoredRequest | None:
        """Return the oldest request after the request with this id; None if there is none."""

    def give_back(self) -> None:
        """Return the taken request to the queue."""

    def remove(self, number: int, /) -> None:
        """Remove the finished request with this id."""

    @property
    def empty(self) -> bool:
        """Whether the queue is empty."""

    @property
    def requests(self) -> int:
        """Number of queued requests."""

    @property
    def size(self) -> int:
        """Size of the queued requests in bytes."""

    @property
    def age(self) -> float:
        """Age of the oldest request in seconds; 0 if the queue is empty."""

    @property
    def dropped(self) -> Counter[Reason]:
        """Number of dropped requests by reason."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A handle to wait for the delivery of certain requests."""

    waiting: set[int]
    """Ids of undelivered requests in the queue."""
    clean: bool = True
    """Whether every delivered request was accepted without rejected items."""


class RetrySender:
    """A thread that sends the requests in a signal's queue, strictly in order.

    A request leaves the queue only after the collector accepted it or refused it for its data. A request
    that is repeatedly refused for an unrelated reason is dropped as poison if the collector still accepts
    another request. That is one it accepted before, because a request may arrive twice but never out of
    order; before the first success it is the next request in the queue.
    """

    def __init__(
        self,
        form: SignalFormat,
        queue: Queue,
        sender: Sender,
        endpoint: str,
        retry: RetryConfig = RETRY,
        *,
        confirm: bool = True,
        requested: bool = True,
        idle: float = IDLE_SECONDS,
    ) -> None:
        """Start with the contents of the queue; `retry` has the pauses between two attempts.

        With `confirm` the first accepted request is logged. Without `requested` a collector that does not
        support the signal is logged at info level, not as a warning. The sender rests after `idle` seconds
        without a request.
        """
        self.form = form
        self.queue = queue
        self.stats = ExportStats()
        self.last_ok: bool | None = None
        """Whether the last request was accepted; None before the first."""
        self.on_change: Callable[[], None] = lambda: None
        """Called on the sending thread when `last_ok` has changed."""
        self.busy_since: float | None = None
        """Start of the request in progress, in monotonic seconds; None if there is none."""
        self.accepted_at = time.monotonic()
        """Time of the last accepted request, in monotonic seconds; initially the start."""
        self._sender = sender
        self._logger = form.logger
        self._export_log = ExportLog(form, endpoint, confirm=confirm, requested=requested)
        self._retry = retry
        self._held_retry = replace(retry, longest_pause=HELD_PAUSES * retry.longest_pause)
        self._idle = idle
        self._changed = threading.Condition()
        self._tickets: list[Ticket] = []
        self._last: ExportResult | None = None
        self._attempts = self._tries = self._refusals = 0
        self._again_at = self._paused_until = 0.0
        self._too_large = math.inf
        self._witness: Request | None = None
        self._ended = False
        self._newest = 0
        self._thread = threading.Thread(target=self._work, name=f"delivery of {form.items}", daemon=True)
        if not queue.empty:
            self._thread.start()

    def enqueue(self, requests: Sequence[Request], *, watched: bool = False) -> Ticket:
        """Append requests to the queue and return; see `SendingQueue.append` for their durability.

        The ticket is useful only if `watched`, and must then be passed to `wait`.
        """
        with self._changed:
            ticket = Ticket(set(self.queue.append(requests)))
            self._newest = max(ticket.waiting, default=self._newest)
            if requests:  # none before the first metric exists
                extra = {"requests": len(requests), "waiting": self.queue.requests}
                self._logger.debug("%s kept", self.form.export, extra=extra)
            if watched:
                self._tickets.append(ticket)
            if self._thread.ident is None and not self._ended:
                self._thread.start()
            self._changed.notify_all()
        return ticket

    def drain(self, timeout: float) -> None:
        """Wait like `wait` for the delivery of everything in the queue, at most `timeout` seconds."""
        with self._changed:
            ticket = Ticket(set() if self.queue.empty else {self._newest})
            self._tickets.append(ticket)
        self.wait(ticket, timeout)

    def wait(
        self,
        ticket: Ticket,
        timeout: float,
        *,
        patient: bool = True,
        stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Return whether the collector accepts a ticket's requests in full within `timeout` seconds.

        Starts an attempt at once, unless the collector requested a pause. Returns early if that pause is
        longer, if only an operator can fix the failure, if an attempt fails and the caller is not `patient`,
        and as soon as `stopped` returns true. Undelivered requests stay queued.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._again_at, before = self._paused_until, self._attempts
            self._changed.notify_all()
            while ticket.waiting and not self._ended and not stopped():
                left = deadline - time.monotonic()
                tried = self._attempts > before
                if (
                    left <= 0
                    or self._paused_until > deadline
                    or (tried and self._cannot_succeed_soon(patient=patient))
                ):
                    break
                self._changed.wait(min(left, _CHECK_SECONDS))
            self._tickets.remove(ticket)
            return ticket.clean and not ticket.waiting

    def close(self) -> None:
        """End the thread and cancel a request in progress; undelivered requests stay queued."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._sender.close()
        if self._thread.ident is not None:
            self._thread.join(timeout=0.1)

    def _work(self) -> None:
        while not self._ended:
            try:
                self._deliver_next()
            except Exception:
                self._logger.exception("defect of the poller; the delivery continues")
                self._again_at = time.monotonic() + self._retry.longest_pause

    def _deliver_next(self) -> None:
        if not (head := self._await()):
            return
        self.busy_since = time.monotonic()
        try:
            export_result = self._send_oldest(head)
        finally:
            self.busy_since = None
        with self._changed:
            if not self._ended:  # otherwise `close` cancelled it, which shows nothing about the collector
                self._note(head, export_result)
                self._changed.notify_all()

    def _await(self) -> StoredRequest | None:
        """Return the oldest request as soon as there is one and it is due; None at the end.

        Lets the sender rest once if that takes longer than the idle time.
        """
        resting = False
        with self._changed:
            while not self._ended:
                left = self._again_at - time.monotonic()
                if left <= 0 and (head := self.queue.take()):
                    return head
                wait = left if left > 0 else None
                if resting or (wait is not None and wait <= self._idle):
                    self._changed.wait(wait)
                elif not self._changed.wait(self._idle):
                    self._sender.rest()
                    resting = True
        return None

    def _send_oldest(self, head: StoredRequest) -> ExportResult:
        export_result = self._send(head.request)
        if export_result.disposition == "accepted":
            self._witness = head.request
        elif export_result.disposition == "held":
            self._refusals += 1
            if self._refusals > REFUSALS_BEFORE_DOUBT and self._takes_another(head):
                # Retry, because the collector may have recovered just before it accepted the other request.
                export_result = self._send(head.request) if self._witness is not None else export_result
                if export_result.disposition == "held":
                    self.stats.count_lost("poison", head.request.items)
                    return replace(export_result, disposition="invalid")
        return export_result

    def _takes_another(self, head: StoredRequest) -> bool:
        """Return whether the collector accepts the request it accepted last, or else the next in the queue.

        After the next request was accepted, `head` must not be sent again: it would arrive out of order.
        """
        other = self._witness
        if other is None and (after := self.queue.after(head.id)):
            other = after.request
        return other is not None and self._send(other).disposition == "accepted"

    def _send(self, request: Request) -> ExportResult:
        """Send a request, or its halves if it is too large."""
        if request.items > 1 and len(request.body) >= self._too_large:
            return self._send_halves(request)
        export_result = self._sender.send(request.body)
        # The collector may report more rejected items than the request has.
        export_result = replace(export_result, rejected=min(export_result.rejected, request.items))
        self.stats.count_answer(export_result)
        if export_result.disposition == "too_large" and request.items > 1:
            self._too_large = min(self._too_large, len(request.body))
            return self._send_halves(request)
        if export_result.disposition in ("invalid", "too_large"):
            self.stats.count_lost(export_result.disposition, request.items)
        return export_result

    def _send_halves(self, request: Request) -> ExportResult:
        rejected, reason = 0, ""
        for half in halves(request, self.form):
            export_result = self._send(half)
            if export_result.disposition in ("retryable", "held"):
                return export_result  # the whole request is retried; sending its items twice changes nothing
            rejected += export_result.rejected if export_result.disposition == "accepted" else half.items
            reason = export_result.reason or reason
        if rejected >= request.items:
            return ExportResult("invalid", reason, export_result.error)
        return ExportResult("accepted", reason, rejected=rejected)

    def _note(self, head: StoredRequest, export_result: ExportResult) -> None:
        self._last = export_result
        self._attempts += 1
        before, self.last_ok = self.last_ok, export_result.disposition == "accepted"
        if self.last_ok:
            self.accepted_at = time.monotonic()
        if export_result.disposition in ("retryable", "held"):
            self._postpone(export_result)
        else:
            self._settle(head, export_result)
        if self.last_ok is not before:
            self.on_change()

    def _settle(self, head: StoredRequest, export_result: ExportResult) -> None:
        self.queue.remove(head.id)
        self._tries = self._refusals = 0
        self._again_at = self._paused_until = 0.0
        for ticket in self._tickets:
            if head.id in ticket.waiting:
                ticket.waiting.remove(head.id)
                ticket.clean &= export_result.disposition == "accepted" and not export_result.rejected
        if export_result.disposition == "accepted":
            self._export_log.accepted(export_result, head.request.items, last=self.queue.empty)
        else:
            self._export_log.refused(export_result, head.request.items)

    def _postpone(self, export_result: ExportResult) -> None:
        self.queue.give_back()
        retry = self._held_retry if export_result.disposition == "held" else self._retry
        requested = min(export_result.wait or 0.0, LONGEST_REQUESTED_PAUSE)
        # If a caller waits, or the collector requested a pause, every pause is like the first.
        pause = retry.pause(0 if self._tickets or export_result.wait is not None else self._tries)
        self._tries += 1
        pause = max(requested, pause * random.uniform(0.5, 1.0))  # noqa: S311 - to spread pollers, not to keep a secret
        now = time.monotonic()
        self._paused_until, self._again_at = now + requested, now + pause
        self._export_log.failed(export_result, pause)

    def _cannot_succeed_soon(self, *, patient: bool) -> bool:
        """Return whether the last result rules out an early success."""
        lasting = ("held",) if patient else ("held", "retryable")
        return self._last is not None and self._last.disposition in lasting
