"""Counts of exported and lost requests, and log records when exporting fails and recovers."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

from poller.model.duration import format_duration
from poller.model.text import counted
from poller.otlp.response import Disposition, ExportResult, advise
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
        requested: bool = True,
    ) -> None:
        """Prepare; records show the collector as `endpoint`. With `confirm` the first success is logged.

        Without `requested` a collector that does not support the signal is logged at info level, not as a
        warning.
        """
        self._form = form
        self._logger = form.logger
        self._unwanted_level = logging.WARNING if requested else logging.INFO
        self._endpoint = endpoint
        self._clock = clock
        self._since: float | None = None
        self._once, self._proven = not confirm, not confirm
        self._counts: Counter[str] = Counter()
        self._remark = ""

    def failed(self, export_result: ExportResult, pause: float) -> None:
        """Log that a request failed and stays queued; the next attempt is in `pause` seconds."""
        begins = self._begin()
        self._counts["failures"] += 1
        extra = self._extra(export_result, failures=self._counts["failures"])
        if begins:
            # After a single push, the last record reports whether its requests are kept.
            subject = "failed" if self._once else "failed and will be retried"
            level = self._unwanted_level if self._is_unwanted(export_result) else logging.WARNING
            self._logger.log(
                level, "%s %s: %s", self._form.export, subject, export_result.reason, extra=extra
            )
        else:
            again = format_duration(round(pause, 1))
            message = "%s failed; next attempt in %s: %s"
            self._logger.debug(message, self._form.export, again, export_result.reason, extra=extra)

    def refused(self, export_result: ExportResult, items: int) -> None:
        """Log that the collector refused a request for its data; the request is dropped."""
        self._begin()
        self._counts["refused"] += 1
        level = logging.WARNING if self._counts["refused"] == 1 else logging.DEBUG
        extra = self._extra(export_result, **{self._form.field: items})
        message = "%s refused, its %s are lost: %s"
        self._logger.log(
            level, message, self._form.export, self._form.items, export_result.reason, extra=extra
        )

    def accepted(self, export_result: ExportResult, items: int, *, last: bool) -> None:
        """Log that the collector accepted a request; `last` means that the queue is empty now."""
        self._note(export_result, items)
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
                "%s recovered after %s; delivered since then: %s",
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

    def _note(self, export_result: ExportResult, items: int) -> None:
        """Log the collector's remark on an accepted request; a repeated remark only at debug level."""
        remark, self._remark = (
            self._remark,
            export_result.reason or ("rejected" if export_result.rejected else ""),
        )
        if not self._remark:
            return
        level = logging.DEBUG if remark == self._remark else logging.WARNING
        extra = self._extra(export_result, rejected=export_result.rejected, **{self._form.field: items})
        if export_result.rejected:
            subject = f"{export_result.rejected} of {items} {self._form.items}"
            self._logger.log(
                level,
                "the collector rejects %s: %s",
                subject,
                export_result.reason or "without a reason",
                extra=extra,
            )
        else:
            self._logger.log(level, "message of the collector: %s", export_result.reason, extra=extra)

    def _extra(self, export_result: ExportResult, **more: object) -> dict[str, object]:
        hint = advise(export_result.reason) if export_result.disposition != "accepted" else None
        if self._form.off and self._is_unwanted(export_result):
            hint = f"the collector accepts no {self._form.items}; {self._form.off} turns them off"
        return {"endpoint": self._endpoint, **export_result.error, **more, **({"hint": hint} if hint else {})}

    @staticmethod
    def _is_unwanted(export_result: ExportResult) -> bool:
        return str(export_result.error.get("error.type")) in _UNWANTED


Rejection = Literal["partial_success", "invalid", "too_large", "poison", "unencodable"]
_OUTCOMES: dict[Disposition, str] = {
    "accepted": "ok",
    "retryable": "failed",
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

    def count_answer(self, export_result: ExportResult) -> None:
        """Count one request."""
        outcome = ("poller.outcome", _OUTCOMES[export_result.disposition])
        self.requests[outcome, *export_result.error.items()] += 1
        if export_result.rejected:
            self.rejected["partial_success"] += export_result.rejected

    def count_lost(self, reason: Rejection, items: int) -> None:
        """Count the items of a request that is dropped."""
        self.rejected[reason] += items
