"""Carry encoded batches to the collector, and say when they are lost and when no more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from poller.definition import format_duration
from poller.verdict import Verdict, advice, of_error

if TYPE_CHECKING:
    from poller.otlpgrpc import GrpcSender
    from poller.otlphttp import HttpSender

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 1.0
_UNWANTED = frozenset({"UNIMPLEMENTED", "404"})
"""What a collector answers that has no pipeline for a signal."""


class Courier:
    """Sends one batch at a time, for as long as it may be worth it; what is not taken then is lost.

    Metrics are kept until they are delivered. Spans and log records are not: their like is on stderr, and the
    disk is for the history of the gauges.
    """

    def __init__(
        self,
        sender: GrpcSender | HttpSender,
        endpoint: str,
        what: str,
        setting: str,
        patience: float,
        *,
        asked_for: bool = True,
    ) -> None:
        """`what` is carried, in the plural; `setting` turns it off; `endpoint` is what the log shows.

        A batch is tried again for `patience` seconds. A collector that has no place for a signal that was
        not `asked_for` is no reason to warn.
        """
        self._sender = sender
        self._endpoint = endpoint
        self._what = what
        self._setting = setting
        self._patience = patience
        self._asked_for = asked_for
        self._ended = threading.Event()
        self._failing_since: float | None = None
        self._lost = 0

    def carry(self, encode: Callable[[], bytes], count: int) -> bool:
        """Send what `encode` makes, `count` of them; whether all of it was taken."""
        try:
            verdict = self._send(encode())
        except Exception as error:  # noqa: BLE001 - one value that OTLP cannot carry raises anything
            verdict = of_error(error, "held")
        lost = min(verdict.rejected, count) if verdict.fate == "taken" else count
        if lost:
            self._failed(verdict, lost, count)
        else:
            self._taken()
        return not lost

    def end(self, finish: Callable[[], object], timeout: float) -> None:
        """Let `finish` send what waits, for `timeout` seconds at most; then whatever is under way is cut."""
        finishing = threading.Thread(target=finish, name=f"last {self._what}", daemon=True)
        finishing.start()
        finishing.join(timeout)
        self._ended.set()
        self._sender.close()
        finishing.join(0.1)

    def _send(self, body: bytes) -> Verdict:
        deadline = time.monotonic() + self._patience
        pause = _FIRST_PAUSE_SECONDS
        while True:
            verdict = self._sender.send(body)
            wait = max(pause, verdict.wait or 0.0)
            if verdict.fate != "later" or time.monotonic() + wait > deadline or self._ended.wait(wait):
                return verdict
            pause *= 2

    def _failed(self, verdict: Verdict, lost: int, count: int) -> None:
        if self._ended.is_set():
            return  # it was cut short by us, which is no news of the collector
        self._lost += lost
        extra: dict[str, object] = {"endpoint": self._endpoint, "lost": self._lost, **verdict.error}
        level = logging.WARNING
        if str(verdict.error.get("error.type")) in _UNWANTED:
            extra["hint"] = f"the collector takes no {self._what}; {self._setting} sends none"
            level = logging.WARNING if self._asked_for else logging.INFO
        elif hint := advice(verdict.reason):
            extra["hint"] = hint
        if self._failing_since is not None:
            level = logging.DEBUG
        self._failing_since = self._failing_since or time.monotonic()
        what = self._what if count != 1 else self._what.removesuffix("s")
        verb = "is" if lost == 1 else "are"
        logger.log(level, "%d of %d %s %s lost: %s", lost, count, what, verb, verdict.reason, extra=extra)

    def _taken(self) -> None:
        if self._failing_since is None:
            return
        away = format_duration(round(time.monotonic() - self._failing_since))
        extra = {"endpoint": self._endpoint, "lost": self._lost}
        logger.info("%s are exported again after %s", self._what, away, extra=extra)
        self._failing_since, self._lost = None, 0
