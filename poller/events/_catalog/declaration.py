"""Declarations of the catalogue: events, metrics, attributes and histogram boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

REQUEST = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 120)
"""Seconds: boundaries of `http.server.request.duration` (semantic conventions 1.44) up to the longest
timeout."""

SESSION = (1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200, 86_400, 604_800)
"""Seconds, from one second to a week, for sessions that fail at once, that a proxy ends, or that last."""

CLEANUP = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30)
"""Seconds, for a cleanup of data in memory."""

BYTES = (1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864, 268_435_456)
"""Bytes, 1 KiB to 256 MiB; each boundary is four times the previous one."""

BATCH = (0, 1, 2, 5, 10, 20, 49, 50, 99, 100, 200, 500)
"""Items. By default the server fetches at most 50 and flushes at most 100: full batches have own buckets."""


Instrument = Literal["counter", "updowncounter", "histogram", "gauge"]
Status = Literal["implemented", "planned", "added", "polled"]
"""Released by the server, planned by the server, added by this package, or polled by the daemon."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a metric and its permitted values."""

    name: str
    description: str
    values: tuple[str, ...] = ()
    """All permitted values; empty for an open set."""
    open: str = ""
    """Why the set is open, and what still limits its size."""
    examples: tuple[str, ...] = ()
    """Examples of values of an open set."""

    def __post_init__(self) -> None:
        if bool(self.values) == bool(self.open):
            raise ValueError(f"attribute {self.name!r} needs either values or the reason for an open set")


@dataclass(frozen=True, slots=True)
class Event:
    """One measured event, independent of its metric name.

    The unit (UCUM) is chosen so that the translation from OTLP to Prometheus adds only a counter's `_total`
    to the name: counted things are in braces, and the names already contain seconds and bytes.
    """

    name: str
    instrument: Instrument
    unit: str
    description: str
    attributes: tuple[Attribute, ...] = ()
    boundaries: tuple[float, ...] = ()
    """Upper bounds of all histogram buckets except the last, in the event's unit."""


@dataclass(frozen=True, slots=True)
class Name:
    """Metric name of an event in one generation of the catalogue, and its status in the server."""

    event: str
    metric: str
    """Exported name if no custom namespace is set."""
    source: str
    """The part of the server that records the event."""
    since: str = ""
    """First release of the server with this event, under any name; empty if there is none."""
    status: Status = "implemented"
    tunes: str = ""
    """The server's setting that the metric helps to tune, and how (design document, section 3.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric of the catalogue: a named event, or a gauge of the system's state."""

    event: str
    """Name of the event, or of the query for a gauge of the system's state."""
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
    owner: str = ""
    """Who is responsible for the queries that feed it; empty: not declared."""
