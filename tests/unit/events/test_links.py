"""Links of spans and values that contain themselves are scrubbed and finite."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import Link, SpanContext, TraceState

from poller.events._privacy.attributes import scrub_value
from poller.events._privacy.processors import scrub_span

ADDRESS = "203.0.113.77"


def context(**state: str) -> SpanContext:
    return SpanContext(0xABC, 0xDEF, is_remote=True, trace_state=TraceState(list(state.items())))


def test_the_tracestate_of_a_link_is_scrubbed() -> None:
    links = BoundedList.from_seq(None, [Link(context(kept="1", vendor=ADDRESS), {"n": 7})])
    (link,) = scrub_span(ReadableSpan("one", context(kept="2"), links=links)).links
    assert dict(link.context.trace_state) == {"kept": "1"}
    assert (link.context.trace_id, link.context.span_id) == (0xABC, 0xDEF)
    assert dict(link.attributes or {}) == {"n": 7}


def depth(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(map(depth, inner), default=0) if isinstance(inner, list | tuple) else 0


@pytest.mark.parametrize("kind", ["list", "dict", "both"])
def test_a_value_that_contains_itself_is_cut_at_a_depth(kind: str) -> None:
    values: list[Any] = [ADDRESS]
    named: dict[str, Any] = {"where": ADDRESS}
    values.append(named if kind == "both" else values)
    named["more"] = values if kind == "both" else named
    scrubbed = scrub_value(named if kind == "dict" else values)
    assert 1 < depth(scrubbed) < 50
    assert "'...'" in str(scrubbed)
    assert ADDRESS not in str(scrubbed)
