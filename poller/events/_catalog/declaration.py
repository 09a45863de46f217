"""Declarations of the catalogue: events, metrics, attributes and histogram boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

REQUEST = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 120)
"""Seconds; those of `http.server.request.duration` (semantic conventions 1.44), to the longest timeout."""

SESSION = (1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200, 86_400, 604_800)
"""Seconds, a second to a week: a session that ends at once, one that a proxy cuts, one that stays."""

CLEANUP = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30)
"""Seconds of a pass over what is in memory."""

BYTES = (1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864, 268_435_456)
"""Bytes, 1 KiB to 256 MiB, each four times the one before."""

BATCH = (0, 1, 2, 5, 10, 20, 49, 50, 99, 100, 200, 500)
"""Items. Unless told otherwise the server fetches 50 and flushes 100 at most: full batches stand apart."""


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
