"""Event half of the metric catalogue in both of its generations, under any namespace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from poller.events._catalog.declaration import Metric, Name
from poller.events._catalog.events import EVENTS
from poller.events._catalog.names import DOCUMENT, V0_9_4

GenerationName = Literal["document", "v0.9.4"]
"""`document`: the names of design document 005. `v0.9.4`: the names of that release of the server."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One set of metric names for the events."""

    name: GenerationName
    namespace: str
    """Prefix of the names, without the underscore."""
    units: bool
    """Whether the server declares units in this generation."""
    names: tuple[Name, ...]


_EVENTS = {event.name: event for event in EVENTS}
_GENERATIONS = {
    entry.name: entry
    for entry in (
        Generation("document", namespace="", units=True, names=DOCUMENT),
        # This release of the server declares no units. This package does, without a change of the names.
        Generation("v0.9.4", namespace="obscura", units=False, names=V0_9_4),
    )
}


def generation(name: GenerationName) -> Generation:
    """Return a generation by name; raises ValueError, with the list of known names, if it is unknown."""
    try:
        return _GENERATIONS[name]
    except KeyError:
        names = ", ".join(map(repr, get_args(GenerationName)))
        raise ValueError(f"{name!r} is not a generation of the catalogue; write one of {names}") from None


def declared(name: GenerationName = "document", namespace: str | None = None) -> Mapping[str, Metric]:
    """Return the metrics of a generation by event name, in the order of the catalogue.

    `namespace` replaces the generation's own prefix: `acme` results in `acme_messages_sent_total` in both
    generations, the empty string in `messages_sent_total`. By default the names are exactly those of the
    generation.
    """
    chosen = generation(name)
    return MappingProxyType(
        {entry.event: _metric(entry, chosen.namespace, namespace) for entry in chosen.names}
    )


def _metric(name: Name, own: str, namespace: str | None) -> Metric:
    event = _EVENTS[name.event]
    exported = name.metric
    if namespace is not None:
        bare = exported.removeprefix(f"{own}_") if own else exported
        exported = f"{namespace}_{bare}" if namespace else bare
    return Metric(
        event=event.name,
        name=exported,
        instrument=event.instrument,
        unit=event.unit,
        description=event.description,
        source=name.source,
        since=name.since,
        status=name.status,
        attributes=event.attributes,
        boundaries=event.boundaries,
        tunes=name.tunes,
    )
