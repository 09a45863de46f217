"""Retry-aware delivery of OTLP requests, oldest first, one at a time."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from poller.otlp.export_log import Outage, Tally
from poller.otlp.queue_storage import Kept
from poller.otlp.request import Request, halves
from poller.otlp.response import Verdict
from poller.otlp.sending_queue import Spool
from poller.otlp.signals import Form

FIRST_PAUSE_SECONDS = 1.0
HELD_PAUSES = 5
"""How many times longer the pauses may get where only an operator can help."""
LONGEST_WISH_SECONDS = 3600.0
"""Longest wait that a collector may ask for; a date in its answer may come from a clock that is wrong."""
_LOOK_SECONDS = 0.2
"""Between two looks whether a wait for the delivery is stopped: a signal handler may not notify."""
IDLE_SECONDS = 6.0
"""Without a request, after which the sender rests: about the time in which an open gRPC channel uses as much
CPU as opening another. So exports some seconds apart share one, and exports a minute apart do not."""
REFUSALS_BEFORE_DOUBT = 10
"""After so many refusals of a request another one shows whether the request itself is at fault."""


class Sender(Protocol):
    """Sends one request and judges the answer; raises nothing for the collector's sake."""

    def send(self, body: bytes) -> Verdict:
        """Send an encoded request of the signal."""

    def rest(self) -> None:
        """Release what only sending needs: no request is expected soon."""

    def close(self) -> None:
        """End the connections."""


@dataclass(slots=True, eq=False)
class Ticket:
    """To wait for the delivery of some requests with."""

    waiting: set[int]
    """Ids in the spool."""
    clean: bool = True
    """Whether all that is delivered was taken, with nothing rejected."""


class Delivery:
    """A thread that sends what the spool keeps of one signal; nothing overtakes what is older.

    A request leaves the spool only when it was taken, or refused for its data. One that is refused again and
    again for a reason that says nothing of its data is poison if the collector takes another meanwhile: one
    that it had before, as a request may come twice and never out of order.
    """

    def __init__(
        self,
        form: Form,
        spool: Spool,
        sender: Sender,
        endpoint: str,
        longest_pause: float,
        *,
        confirm: bool = True,
        asked_for: bool = True,
        idle: float = IDLE_SECONDS,
    ) -> None:
        """Begin with what the spool holds; `longest_pause` between two tries is in seconds.

        `form` is that of the signal. With `confirm` the log has a line for the first request that was taken.
        A collector that has no place for a signal that was not `asked_for` is no reason to warn. The sender
        rests after `idle` seconds without a request.
        """
        self.form = form
        self.spool = spool
        self.tally = Tally()
        self.last_ok: bool | None = None
        """Whether the last request was taken; None before the first."""
        self.busy_since: float | None = None
        """When the request under way was begun, in monotonic seconds; None while none is."""
        self.taken_at = time.monotonic()
        """When a request was last taken, in monotonic seconds; before the first one, the start."""
        self._sender = sender
        self._logger = form.logger
        self._outage = Outage(form, endpoint, confirm=confirm, asked_for=asked_for)
        self._longest_pause = longest_pause
        self._idle = idle
        self._changed = threading.Condition()
        self._tickets: list[Ticket] = []
        self._last: Verdict | None = None
        self._attempts = self._tries = self._refusals = 0
        self._again_at = self._wished_at = 0.0
        self._too_large = math.inf
        self._witness: Request | None = None
        self._ended = False
        self._newest = 0
        self._thread = threading.Thread(target=self._work, name=f"delivery of {form.items}", daemon=True)
        if not spool.empty:
            self._thread.start()

    def keep(self, requests: Sequence[Request], *, watched: bool = False) -> Ticket:
        """Put requests behind what waits, and return; they outlive the process then, see `Spool.append`.

        The ticket is of use only when `watched`, and has to be given to `wait`.
        """
        with self._changed:
            ticket = Ticket(set(self.spool.append(requests)))
            self._newest = max(ticket.waiting, default=self._newest)
            extra = {"requests": len(requests), "waiting": self.spool.requests}
            self._logger.debug("%s kept", self.form.export, extra=extra)
            if watched:
                self._tickets.append(ticket)
            if self._thread.ident is None and not self._ended:
                self._thread.start()
            self._changed.notify_all()
        return ticket

    def drain(self, timeout: float) -> None:
        """Wait for the delivery of all that was kept, for `timeout` seconds at most, as `wait` does."""
        with self._changed:
            ticket = Ticket(set() if self.spool.empty else {self._newest})
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
        """Whether all of a ticket's requests are taken within `timeout` seconds, nothing of them rejected.

        Tries at once, unless the collector asked for a pause; gives up early where that pause is longer,
        where only an operator can help, where it is not `patient`, and as soon as `stopped` is true. What is
        not delivered goes on waiting.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._again_at, before = self._wished_at, self._attempts
            self._changed.notify_all()
            while ticket.waiting and not self._ended and not stopped():
                left = deadline - time.monotonic()
                tried = self._attempts > before
                if left <= 0 or self._wished_at > deadline or (tried and self._is_in_vain(patient=patient)):
                    break
                self._changed.wait(min(left, _LOOK_SECONDS))
            self._tickets.remove(ticket)
            return ticket.clean and not ticket.waiting

    def close(self) -> None:
        """End the thread, and a request under way; what waits stays in the spool. Returns at once."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._sender.close()
        if self._thread.ident is not None:
            self._thread.join(timeout=0.1)

    def _work(self) -> None:
        while not self._ended:
            try:
                self._deliver_one()
            except Exception:
                self._logger.exception("a defect of the poller; it goes on delivering")
                self._again_at = time.monotonic() + self._longest_pause

    def _deliver_one(self) -> None:
        if not (head := self._await()):
            return
        self.busy_since = time.monotonic()
        try:
            verdict = self._judge(head)
        finally:
            self.busy_since = None
        with self._changed:
            if not self._ended:  # else it was cut short by us, which is no news of the collector
                self._note(head, verdict)
                self._changed.notify_all()

    def _await(self) -> Kept | None:
        """The oldest request, as soon as one is there and due; None at the end.

        Lets the sender rest once if that takes long.
        """
        resting = False
        with self._changed:
            while not self._ended:
                left = self._again_at - time.monotonic()
                if left <= 0 and (head := self.spool.take()):
                    return head
                wait = left if left > 0 else None
                if resting or (wait is not None and wait <= self._idle):
                    self._changed.wait(wait)
                elif not self._changed.wait(self._idle):
                    self._sender.rest()
                    resting = True
        return None

    def _judge(self, head: Kept) -> Verdict:
        verdict = self._send(head.request)
        if verdict.fate == "taken":
            self._witness = head.request
        elif verdict.fate == "held":
            self._refusals += 1
            if self._refusals > REFUSALS_BEFORE_DOUBT and self._takes_another(head):
                # What was taken again may show that the collector has just become well, so once more.
                verdict = self._send(head.request) if self._witness is not None else verdict
                if verdict.fate == "held":
                    self.tally.lost("poison", head.request.items)
                    return replace(verdict, fate="invalid")
        return verdict

    def _takes_another(self, head: Kept) -> bool:
        """Whether the collector takes what it took last; before it took anything, the next in line.

        Then this one cannot be tried once more: it would come out of order.
        """
        other = self._witness
        if other is None and (after := self.spool.behind(head.id)):
            other = after.request
        return other is not None and self._send(other).fate == "taken"

    def _send(self, request: Request) -> Verdict:
        """Send a request, or its halves where it is too large."""
        if request.items > 1 and len(request.body) >= self._too_large:
            return self._send_halves(request)
        verdict = self._sender.send(request.body)
        # The number is the collector's: whatever it says, no more than all items can be rejected.
        verdict = replace(verdict, rejected=min(verdict.rejected, request.items))
        self.tally.answered(verdict)
        if verdict.fate == "too_large" and request.items > 1:
            self._too_large = min(self._too_large, len(request.body))
            return self._send_halves(request)
        if verdict.fate in ("invalid", "too_large"):
            self.tally.lost(verdict.fate, request.items)
        return verdict

    def _send_halves(self, request: Request) -> Verdict:
        rejected, reason = 0, ""
        for half in halves(request, self.form):
            verdict = self._send(half)
            if verdict.fate in ("later", "held"):
                return verdict  # and then all of it once more: what comes twice is the same
            rejected += verdict.rejected if verdict.fate == "taken" else half.items
            reason = verdict.reason or reason
        if rejected >= request.items:
            return Verdict("invalid", reason, verdict.error)
        return Verdict("taken", reason, rejected=rejected)

    def _note(self, head: Kept, verdict: Verdict) -> None:
        self._last = verdict
        self._attempts += 1
        self.last_ok = verdict.fate == "taken"
        if self.last_ok:
            self.taken_at = time.monotonic()
        if verdict.fate in ("later", "held"):
            self._postpone(verdict)
        else:
            self._settle(head, verdict)

    def _settle(self, head: Kept, verdict: Verdict) -> None:
        self.spool.settle(head.id)
        self._tries = self._refusals = 0
        self._again_at = self._wished_at = 0.0
        for ticket in self._tickets:
            if head.id in ticket.waiting:
                ticket.waiting.remove(head.id)
                ticket.clean &= verdict.fate == "taken" and not verdict.rejected
        if verdict.fate == "taken":
            self._outage.taken(verdict, head.request.items, last=self.spool.empty)
        else:
            self._outage.refused(verdict, head.request.items)

    def _postpone(self, verdict: Verdict) -> None:
        self.spool.give_back()
        longest = self._longest_pause * (HELD_PAUSES if verdict.fate == "held" else 1)
        pause = min(FIRST_PAUSE_SECONDS, longest)
        wish = min(verdict.wait or 0.0, LONGEST_WISH_SECONDS)
        # Where somebody waits for an answer, or the collector says when, every pause is like the first.
        if not self._tickets and verdict.wait is None:
            pause = min(pause * 2.0 ** min(self._tries, 16), longest)
        self._tries += 1
        pause = max(wish, pause * random.uniform(0.5, 1.0))  # noqa: S311 - to spread pollers, not to keep a secret
        now = time.monotonic()
        self._wished_at, self._again_at = now + wish, now + pause
        self._outage.failed(verdict, pause)

    def _is_in_vain(self, *, patient: bool) -> bool:
        """Whether the last answer is no reason to wait for the next."""
        return self._last is not None and self._last.fate in (("held",) if patient else ("held", "later"))
