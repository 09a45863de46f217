"""Differences between OTLP's signals: gRPC method, messages, item fields and log wording."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from typing import Any

from poller.config.endpoint import Signal


@dataclass(frozen=True, slots=True)
class Form:
    """One signal's (OTLP specification 1.10); its URL path is a matter of the endpoint."""

    signal: Signal
    method: str
    """Full name of the gRPC method."""
    request: Any
    """The message class of a request."""
    response: Any
    """The message class of an answer."""
    path: tuple[str, ...]
    """The repeated fields that lead from a request to its items."""
    items: str
    """What the items are called, in the plural."""
    export: str
    """What an export is called in a log line."""
    off: str | None
    """The setting that turns the signal off; None if there is none."""

    @property
    def logger(self) -> logging.Logger:
        """Where the queue and the delivery of the signal log."""
        return logging.getLogger(f"poller.delivery.{self.signal}")

    @property
    def rejected(self) -> str:
        """The field of a partial success that counts the rejected items."""
        return f"rejected_{self.field}"

    @property
    def rejected_in_json(self) -> str:
        first, *others = self.rejected.split("_")
        return first + "".join(map(str.capitalize, others))

    @property
    def field(self) -> str:
        """What the items are called as the field of a log record."""
        return self.items.replace(" ", "_")


_METRICS = "resource_metrics", "scope_metrics", "metrics", "data_points"
_SPANS = "resource_spans", "scope_spans", "spans"
_LOGS = "resource_logs", "scope_logs", "log_records"
_FORMS: dict[Signal, tuple[str, str, tuple[str, ...], str, str, str | None]] = {
    "metrics": ("metrics", "Metrics", _METRICS, "data points", "export", None),
    "traces": ("trace", "Trace", _SPANS, "spans", "export of spans", "POLLER_TRACES=false"),
    "logs": ("logs", "Logs", _LOGS, "log records", "export of log records", "POLLER_OTLP_LOGS=false"),
}


def form_of(signal: Signal) -> Form:
    """The form of `signal`; imports its messages and no other's."""
    package, name, path, items, export, off = _FORMS[signal]
    base = f"opentelemetry.proto.collector.{package}.v1"
    messages = importlib.import_module(f"{base}.{package}_service_pb2")
    request, response = (getattr(messages, f"Export{name}Service{kind}") for kind in ("Request", "Response"))
    return Form(signal, f"/{base}.{name}Service/Export", request, response, path, items, export, off)
