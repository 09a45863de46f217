"""Know what tells the signals of OTLP apart for who sends them: the method, and the words of the answer."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from poller.endpoint import Signal


@dataclass(frozen=True, slots=True)
class Form:
    """One signal's (OTLP specification 1.10); its path is the endpoint's business."""

    method: str
    """Full name of the gRPC method."""
    response: Any
    """The message that answers."""
    rejected: str
    """What a partial success calls the number of things that it rejects."""

    @property
    def rejected_in_json(self) -> str:
        first, *others = self.rejected.split("_")
        return first + "".join(map(str.capitalize, others))


_SERVICES: dict[Signal, tuple[str, str, str]] = {
    "metrics": ("metrics", "Metrics", "rejected_data_points"),
    "traces": ("trace", "Trace", "rejected_spans"),
    "logs": ("logs", "Logs", "rejected_log_records"),
}


def form_of(signal: Signal) -> Form:
    """The form of `signal`; imports its messages and no other's."""
    package, name, rejected = _SERVICES[signal]
    base = f"opentelemetry.proto.collector.{package}.v1"
    messages = importlib.import_module(f"{base}.{package}_service_pb2")
    return Form(f"/{base}.{name}Service/Export", getattr(messages, f"Export{name}ServiceResponse"), rejected)
