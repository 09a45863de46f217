"""Counts of exported and lost requests, and log records when exporting fails and recovers."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

from poller.model.duration import format_duration
from poller.model.text import counted
from poller.otlp.response import ExportResult, Fate, advice
from poller.otlp.signals import SignalFormat

_UNWANTED = frozenset({"UNIMPLEMENTED", "404", "405"})
"""Error types that mean that the collector has no pipeline for a signal."""


class ExportLog:
    """Log the first success, the start, first loss and end of each outage, and new remarks of the collector.

    Repetitions are logged at debug level.
    """

    def __init__(
        self,
        form: SignalFormat,
        endpoint: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        confirm: bool = True,
        asked_for: bool = True,
    ) -> None:
        """Prepare; records show the collector as `endpoint`. With `confirm` the first success is logged.

        Without `asked_for` a collector that does not support the signal is logged at info level, not as a
        warning.
        """
        self._form = form
        self._logger = form.logger
        self._unwanted_level = logging.WARNING if asked_for else logging.INFO
        self._endpoint = endpoint
        self._clock = clock
        self._since: float | None = None
        self._once, self._proven = not confirm, not confirm
        self._counts: Counter[str] = Counter()
        self._remark = ""

    def failed(self, verdict: ExportResult, pause: float) -> None:
        """Log that a request failed and stays queued; the next attempt is in `pause` seconds."""
        begins = self._begin()
        self._counts["failures"] += 1
        extra = self._extra(verdict, failures=self._counts["failures"])
        if begins:
            # After a single push, the last record reports whether its requests are kept.
            what = "failed" if self._once else "failed, it is kept and tried again"
            level = self._unwanted_level if self._is_unwanted(verdict) else logging.WARNING
            self._logger.log(level, "%s %s: %s", self._form.export, what, verdict.reason, extra=extra)
        else:
            again = format_duration(round(pause, 1))
            message = "%s failed, once more in %s: %s"
            self._logger.debug(message, self._form.export, again, verdict.reason, extra=extra)

    def refused(self, verdict: ExportResult, items: int) -> None:
        """Log that the collector refused a request for its data; the request is dropped."""
        self._begin()
        self._counts["refused"] += 1
        level = logging.WARNING if self._counts["refused"] == 1 else logging.DEBUG
        extra = self._extra(verdict, **{self._form.field: items})
        message = "%s refused, its %s are lost: %s"
        self._logger.log(level, message, self._form.export, self._form.items, verdict.reason, extra=extra)

    def taken(self, verdict: ExportResult, items: int, *, last: bool) -> None:
        """Log that the collector accepted a request; `last` means that the queue is empty now."""
        self._note(verdict, items)
        proven, self._proven = self._proven, True
        if self._since is None:
            if not proven:
                extra = {"endpoint": self._endpoint, self._form.field: items}
                self._logger.info("the first %s was delivered", self._form.export, extra=extra)
            return
        self._counts["delivered"] += 1
        if last:
            away = format_duration(round(self._clock() - self._since))
            extra = {"endpoint": self._endpoint, **self._counts}
            self._logger.info(
                "%s works again after %s, caught up with %s",
                self._form.export,
                away,
                counted(self._counts["delivered"], "request"),
                extra=extra,
            )
            self._since = None

    def _begin(self) -> bool:
        if self._since is not None:
            return False
        self._since = self._clock()
        self._counts.clear()
        return True

    def _note(self, verdict: ExportResult, items: int) -> None:
        """Log the collector's remark on an accepted request; a repeated remark only at debug level."""
        remark, self._remark = self._remark, verdict.reason or ("rejected" if verdict.rejected else "")
        if not self._remark:
            return
        level = logging.DEBUG if remark == self._remark else logging.WARNING
        extra = self._extra(verdict, rejected=verdict.rejected, **{self._form.field: items})
        if verdict.rejected:
            what = f"{verdict.rejected} of {items} {self._form.items}"
            self._logger.log(
                level, "the collector rejects %s: %s", what, verdict.reason or "it says not why", extra=extra
            )
        else:
            self._logger.log(level, "the collector remarks: %s", verdict.reason, extra=extra)

    def _extra(self, verdict: ExportResult, **more: object) -> dict[str, object]:
        hint = advice(verdict.reason) if verdict.fate != "taken" else None
        if self._form.off and self._is_unwanted(verdict):
            hint = f"the collector takes no {self._form.items}; {self._form.off} sends none"
        return {"endpoint": self._endpoint, **verdict.error, **more, **({"hint": hint} if hint else {})}

    @staticmethod
    def _is_unwanted(verdict: ExportResult) -> bool:
        return str(verdict.error.get("error.type")) in _UNWANTED


Rejection = Literal["partial_success", "invalid", "too_large", "poison", "unencodable"]
_OUTCOMES: dict[Fate, str] = {
    "taken": "ok",
    "later": "failed",
    "held": "failed",
    "invalid": "refused",
    "too_large": "refused",
}


class ExportStats:
    """Counts since the start. Another thread must copy the counters before it iterates over them."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[tuple[str, str | int], ...]] = Counter()
        """Requests, by `poller.outcome` and the attributes of the error."""
        self.rejected: Counter[Rejection] = Counter()
        """Data points, spans or log records that were lost, by reason."""

    def answered(self, verdict: ExportResult) -> None:
        """Count one request."""
        self.requests[("poller.outcome", _OUTCOMES[verdict.fate]), *verdict.error.items()] += 1
        if verdict.rejected:
            self.rejected["partial_success"] += verdict.rejected

    def lost(self, reason: Rejection, items: int) -> None:
        """Count the items of a request that is dropped."""
        self.rejected[reason] += items
