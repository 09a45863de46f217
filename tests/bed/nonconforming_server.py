"""The messaging server with every difference that `poller conform` detects."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.metrics import Counter, NoOpCounter, get_meter

from poller.demo.messaging import __main__ as server
from poller.events._catalog.declaration import Event
from poller.events._catalog.instruments import Instruments
from poller.events._logging import otlp_handler, records
from poller.events._privacy import processors
from poller.events.asgi import HttpExchange
from poller.events.metrics import EventMetrics

_LOG_MESSAGE = "198.51.100.7 comes"
NAMED = {
    "unknown_metric messages_lost_total",
    "missing_metric keys_takeovers_total",
    "not_monotonic users_registered_total",
    "wrong_type websocket_ack_batch_size",
    "wrong_unit attachments_upload_size_bytes",
    "undeclared_attribute messages_sent_total{sender}",
    "undeclared_value rate_limit_decisions_total{status}",
    "personal_attribute client.address",
    "personal_text log body of poller.demo.messaging",
    "no_trace_context log records of poller.demo.messaging",
}
"""Expected differences in the report, and no others."""


def mutate(patch: Callable[[Any, str, Any], None]) -> None:
    """Introduce the differences."""
    make_counter, make_histogram, init = Instruments.counter, Instruments.histogram, EventMetrics.__init__

    def counter(self: Instruments, event: Event) -> Any:
        if event.name == "key_taken_over":
            return NoOpCounter(event.name)
        return self.up_down_counter(event) if event.name == "user_registered" else make_counter(self, event)

    def histogram(self: Instruments, event: Event) -> Any:
        if event.name == "attachment_size":
            return make_histogram(self, replace(event, unit="kBy"))
        instrument = make_histogram(self, event)
        if event.name == "websocket_acks_flushed":
            return _Recording(make_counter(self, event))
        return instrument

    def initialise(self: EventMetrics, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        for labels in self._labels["message_sent"], self._labels["rate_limit_decided"]:
            for value, current in labels.items():
                labels[value] = {**current, "sender": "ada"} if value == "success" else current
        self._labels["rate_limit_decided"]["allowed"] = {"status": "waved through"}
        get_meter("another").create_counter("messages_lost_total").add(1)

    patch(Instruments, "counter", counter)
    patch(Instruments, "histogram", histogram)
    patch(EventMetrics, "__init__", initialise)
    patch(HttpExchange, "__init__", _leak_the_address(HttpExchange.__init__))
    # Without these, the scrubbing would remove the personal data.
    patch(processors, "scrub_attributes", lambda attributes, **_: dict(attributes))
    for module, name in (processors, "scrub_value"), (otlp_handler, "scrub"), (records, "scrub"):
        patch(module, name, _leaking(getattr(module, name)))


class _Recording:
    """A counter in place of a histogram."""

    def __init__(self, counter: Counter) -> None:
        self.record = counter.add
        counter.add(0)


def _leaking(scrub: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: value if _LOG_MESSAGE in str(value) else scrub(value)


def _leak_the_address(init: Callable[..., None]) -> Callable[..., None]:
    def initialise(self: HttpExchange, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.span.set_attribute("client.address", self.scope["client"][0])
        # A new thread has no current span.
        speak = logging.getLogger("poller.demo.messaging").info
        thread = threading.Thread(target=speak, args=(_LOG_MESSAGE,))
        thread.start()
        thread.join()

    return initialise


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patching:
        mutate(patching.setattr)
        server.main()
