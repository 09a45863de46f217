"""Declare what the catalogue tells of a metric: its name, instrument and unit, its attributes, its use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Instrument = Literal["counter", "updowncounter", "histogram", "gauge"]
Status = Literal["implemented", "planned", "added", "polled"]
"""Whether the server has it in its releases, plans it, this package adds it, or the daemon polls it."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a metric, and the values it may have."""

    name: str
    description: str
    values: tuple[str, ...] = ()
    """All that there are; empty where the set is open."""
    open: str = ""
    """Why the set is open, and what bounds it all the same."""
    examples: tuple[str, ...] = ()
    """Of an open set."""

    def __post_init__(self) -> None:
        if bool(self.values) == bool(self.open):
            raise ValueError(f"attribute {self.name!r} needs values, or else the reason why they are open")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happens and is measured, whatever its metric is called.

    The unit (UCUM) is such that OTLP-to-Prometheus translation adds nothing to the name but a counter's
    `_total`: things counted stand in braces, seconds and bytes are in the name already.
    """

    name: str
    instrument: Instrument
    unit: str
    description: str
    attributes: tuple[Attribute, ...] = ()
    boundaries: tuple[float, ...] = ()
    """Of a histogram: upper bounds of its buckets but the last, in its unit."""


@dataclass(frozen=True, slots=True)
class Name:
    """What one generation of the catalogue calls an event, and what its server makes of it."""

    event: str
    metric: str
    """Exactly as it is exported without a namespace of one's own."""
    source: str
    """The part of the server that tells it."""
    since: str = ""
    """First release of the server that has it, under whatever name; empty: none has."""
    status: Status = "implemented"
    tunes: str = ""
    """The server's setting that it helps to choose, and how (design document, section 3.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric of the catalogue: an event under a name, or a gauge of the system's state."""

    event: str
    """Name of the event; of a gauge of the state, that of the query."""
    name: str
    instrument: Instrument
    unit: str
    description: str
    source: str
    since: str
    status: Status
    attributes: tuple[Attribute, ...]
    boundaries: tuple[float, ...]
    tunes: str
