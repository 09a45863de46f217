"""Every place of OTLP where an attribute or a text may identify a client, examined in the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from poller.conform.notes import Notes
from poller.conform.personal import gives_away, is_personal
from poller.events.pii import OWN, PEER
from poller.receiver.attributes import Attribute
from poller.words import shown

ADVICE = "keep it out of what leaves the process (design document 005, section 4.1)"


class Places:
    """Notes what is personal, with its place and without its value."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._resource: Mapping[str, Attribute] | None = None
        self._scope: Mapping[str, Attribute] | None = None

    def origin(
        self, resource: Mapping[str, Attribute], scope: str, scope_attributes: Mapping[str, Attribute]
    ) -> None:
        """Examine the resource and the scope, each once in a request.

        An address in a resource is the server's own.
        """
        if resource is not self._resource:
            self._resource = resource
            self.attributes(resource, "the resource", addresses=False)
        if scope_attributes is not self._scope:
            self._scope = scope_attributes
            self.text("scope name", scope, "a scope", addresses=False)
            self.attributes(scope_attributes, f"scope {safe(scope)}")

    def attributes(
        self,
        attributes: Mapping[str, Attribute],
        where: str,
        *,
        outgoing: bool = False,
        addresses: bool = True,
    ) -> None:
        """Examine names and values; `outgoing`: of a span of kind client or producer."""
        for name, value in attributes.items():
            if is_personal(name, outgoing=outgoing):
                detail = "identifies or locates a client, on $"
                self._notes.add("personal_attribute", safe_name(name), detail, where, advice=ADVICE)
                continue
            own = name in OWN or (outgoing and name in PEER)
            for text in texts(value):
                if what := gives_away(text, addresses=addresses and not own):
                    self._personal_text(safe_name(name), what, where)
                    break

    def text(self, subject: str, text: str, where: str, *, addresses: bool = True) -> None:
        """Examine one text."""
        if what := gives_away(text, addresses=addresses):
            self._personal_text(subject, what, where)

    def trace_state(self, header: str, where: str) -> None:
        """Examine the entries of a `tracestate`, which a client may have sent."""
        for entry in header[:_LONGEST_STATE].split(","):
            if what := gives_away(entry) or gives_away(entry.partition("=")[2]):
                self._personal_text("tracestate", what, where)
                return

    def _personal_text(self, subject: str, what: str, where: str) -> None:
        self._notes.add("personal_text", subject, f"holds {what}, on $", where, advice=ADVICE)


_LONGEST_STATE = 4096
"""Characters of a `tracestate`; W3C Trace Context asks senders for 512."""


def texts(value: Attribute) -> Iterator[str]:
    """Every text within a value, names of a mapping's items with their values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            # As one text, because `authorization: ...` says what it is only together.
            yield from (f"{name}: {text}" for text in texts(item))


def safe(text: str) -> str:
    """A name for the report, unless it gives something away itself."""
    what = gives_away(text)
    return f"({what})" if what else shown(text)


def safe_name(name: str) -> str:
    """The name of an attribute for the report, unless it gives something away itself."""
    what = gives_away(name)
    return f"({what})" if what else name
