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
"""`document`: the names of design document 005. `v0.9.4`: those that the server has at that release."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One naming of the same events."""

    name: GenerationName
    namespace: str
    """What its names begin with, without the underscore."""
    units: bool
    """Whether its server tells units."""
    names: tuple[Name, ...]


_EVENTS = {event.name: event for event in EVENTS}
_GENERATIONS = {
    one.name: one
    for one in (
        Generation("document", namespace="", units=True, names=DOCUMENT),
        # The server gives no instrument a unit; ours do, and the names stay the same by it.
        Generation("v0.9.4", namespace="obscura", units=False, names=V0_9_4),
    )
}


def generation(name: GenerationName) -> Generation:
    """Return a generation; raises ValueError, naming those that there are, for any other name."""
    try:
        return _GENERATIONS[name]
    except KeyError:
        known = ", ".join(map(repr, get_args(GenerationName)))
        raise ValueError(f"{name!r} is no generation of the catalogue; there are {known}") from None


def declared(name: GenerationName = "document", namespace: str | None = None) -> Mapping[str, Metric]:
    """Return the metrics of a generation by the names of their events, in the catalogue's order.

    A `namespace` takes the place of the generation's own: `acme` makes `acme_messages_sent_total` in either,
    the empty text `messages_sent_total`. Without one the names are exactly the generation's.
    """
    found = generation(name)
    return MappingProxyType({one.event: _metric(one, found.namespace, namespace) for one in found.names})


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
