"""Differences between OTLP's signals: gRPC method, messages, item fields and log wording."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from typing import Any

from poller.model.otlp_endpoint import Signal


@dataclass(frozen=True, slots=True)
class SignalFormat:
    """The properties of one signal (OTLP specification 1.10); the endpoint determines its URL path."""

    signal: Signal
    method: str
    """Full name of the gRPC method."""
    request: Any
    """Message class of a request."""
    response: Any
    """Message class of an answer."""
    path: tuple[str, ...]
    """Repeated fields that lead from a request to its items."""
    items: str
    """Name of the items, in the plural."""
    export: str
    """Name of an export in a log record."""
    off: str | None
    """Setting that turns the signal off; None if there is none."""

    @property
    def logger(self) -> logging.Logger:
        """Logger of the signal's queue and delivery; its documented name is not a module path."""
        return logging.getLogger(f"poller.delivery.{self.signal}")

    @property
    def rejected(self) -> str:
        """Field of a partial success that counts the rejected items."""
        return f"rejected_{self.field}"

    @property
    def rejected_in_json(self) -> str:
        first, *others = self.rejected.split("_")
        return first + "".join(map(str.capitalize, others))

    @property
    def field(self) -> str:
        """Name of the items as the field of a log record."""
        return self.items.replace(" ", "_")


_METRICS = "resource_metrics", "scope_metrics", "metrics", "data_points"
_SPANS = "resource_spans", "scope_spans", "spans"
_LOGS = "resource_logs", "scope_logs", "log_records"
_FORMS: dict[Signal, tuple[str, str, tuple[str, ...], str, str, str | None]] = {
    "metrics": ("metrics", "Metrics", _METRICS, "data points", "export", None),
    "traces": ("trace", "Trace", _SPANS, "spans", "export of spans", "POLLER_TRACES=false"),
    "logs": ("logs", "Logs", _LOGS, "log records", "export of log records", "POLLER_OTLP_LOGS=false"),
}


def format_of(signal: Signal) -> SignalFormat:
    """Return the form of `signal`; imports only that signal's messages."""
    package, name, path, items, export, off = _FORMS[signal]
    base = f"opentelemetry.proto.collector.{package}.v1"
    messages = importlib.import_module(f"{base}.{package}_service_pb2")
    request, response = (getattr(messages, f"Export{name}Service{kind}") for kind in ("Request", "Response"))
    return SignalFormat(signal, f"/{base}.{name}Service/Export", request, response, path, items, export, off)
