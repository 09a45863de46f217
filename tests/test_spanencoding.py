"""A batch of spans is encoded as the SDK's own encoder does it, attribute for attribute."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from poller.spanencoding import SpanEncoder

ATTRIBUTES: list[dict[str, Any]] = [
    {},
    {"text": "größer", "empty": "", "yes": True, "no": False},
    {"number": 1, "zero": 0, "least": -(2**63), "most": 2**63 - 1},
    {"number": 1.0, "zero": 0.0, "lag": 0.25},
    {"number": True, "zero": -0.0, "lag": float("inf")},
    {"number": 1, "text": "größer"},
]


def made(**limits: int) -> list[ReadableSpan]:
    """Of every kind and status, with every attribute, a root and its children."""
    exporter = InMemorySpanExporter()
    resource = Resource({"service.name": "poller"})
    provider = TracerProvider(resource=resource, span_limits=SpanLimits(**limits), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("poller", "1")
    above = SpanContext(
        3, 4, is_remote=False, trace_flags=TraceFlags(1), trace_state=TraceState([("a", "b")])
    )
    for context in (None, trace.set_span_in_context(trace.NonRecordingSpan(above))):
        with tracer.start_as_current_span("tick", context):
            for kind in SpanKind:
                for attributes in ATTRIBUTES:
                    span = tracer.start_span(kind.name, kind=kind, attributes=attributes, start_time=5)
                    if kind == SpanKind.CLIENT:
                        span.set_status(StatusCode.ERROR, "too late" if attributes else None)
                    span.end(2**62)
    return list(exporter.get_finished_spans())


@pytest.mark.parametrize("limits", [{}, {"max_span_attributes": 2, "max_span_attribute_length": 3}])
def test_it_is_what_the_sdk_makes(limits: dict[str, int]) -> None:
    spans = made(**limits)
    encoder = SpanEncoder()

    assert len(spans) == 2 * (1 + len(SpanKind) * len(ATTRIBUTES))
    for batch in (spans, spans, spans[::-1], spans[:1]):
        assert encoder.encode(batch) == encode_spans(batch).SerializeToString()
