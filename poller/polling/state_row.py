"""Row of the state file: the last good result of one query of one target, as JSON with a checksum."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any, NamedTuple, get_args

from poller.model.files import parse_json
from poller.model.query import QueryDefinition
from poller.model.result import DataTime, EstimateReason, PollResult, Sample, UnbrokenSequence


class StateRow(NamedTuple):
    """The result of one query of one target."""

    target: str
    query: str
    source: bytes
    """SHA-256 of the database's identity."""
    definition: bytes
    """Digest of the query."""
    checksum: int
    """Checksum of the other values."""
    body: bytes
    """The result as JSON."""


def encode(target: str, source: bytes, result: PollResult) -> StateRow:
    """Return the row of a result; `source` is the SHA-256 of the database's identity."""
    body = json.dumps(
        {
            "at": result.at,
            "duration": result.duration,
            "estimated": result.estimated,
            "server": result.server,
            "database": result.database,
            "samples": [_document(sample) for sample in result.samples],
            **({"newest": result.newest} if result.newest else {}),
        },
        separators=(",", ":"),
    ).encode()
    row = StateRow(target, result.query.name, source, definition_of(result.query), 0, body)
    return row._replace(checksum=checksum_of(row))


def decode(query: QueryDefinition, row: StateRow) -> PollResult:
    """Return the stored result; raises an error of its conversion if the row is damaged."""
    _check(
        checksum_of(row) == row.checksum, f"the row of {query.name!r} differs from the row that was stored"
    )
    entry = parse_json(row.body)
    types = {metric.name: metric.type for metric in query.metrics}
    timed = {metric.name for metric in query.metrics if metric.time_column is not None}
    samples = []
    for metric, value, attributes, *times in entry["samples"]:
        _check(metric in types and _is_number(value), f"{metric!r} has {value!r}")
        _check(all(map(_is_attribute, [*attributes, *attributes.values()])), f"{metric!r} has {attributes!r}")
        valid = all(type(at) is int and 0 < at < 2**64 for at in times[:1])
        _check(valid and all(type(exported) is bool for exported in times[1:]), f"{metric!r} has {times!r}")
        sequence = None if types[metric] == "gauge" else UnbrokenSequence(*times)
        time = DataTime(*times) if metric in timed else None
        samples.append(Sample(metric, value, dict(attributes), sequence, time))
    newest = entry.get("newest", {})
    _check(all(metric in timed and type(at) is int for metric, at in newest.items()), f"newest is {newest!r}")
    at, duration, estimated, server = (entry[key] for key in ("at", "duration", "estimated", "server"))
    _check(_is_number(at) and _is_number(duration), f"its times are {at!r} and {duration!r}")
    _check(estimated in (None, *get_args(EstimateReason)), f"estimated is {estimated!r}")
    _check(_is_text(server), f"server is {server!r}")
    database = entry.get("database", "")  # earlier versions did not store it
    _check(_is_text(database), f"database is {database!r}")
    return PollResult(
        query,
        float(at),
        float(duration),
        "ok",
        tuple(samples),
        estimated=estimated,
        server=server,
        database=database,
        newest=newest,
    )


def checksum_of(row: StateRow) -> int:
    """Return the checksum of the row's other values."""
    return zlib.crc32(row.body, zlib.crc32(repr(row[:4]).encode()))


def definition_of(query: QueryDefinition) -> bytes:
    """Return the digest of a query, as in its row."""
    return bytes.fromhex(query.digest)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _document(sample: Sample) -> list[Any]:
    """Return a sample as a list, which ends with the start time of its sequence, or the time of its row."""
    times: list[Any] = []
    if sample.sequence is not None and sample.sequence.start is not None:
        times = [sample.sequence.start]
    elif sample.time is not None:
        times = [sample.time.at, sample.time.exported]
    return [sample.metric, sample.value, dict(sample.attributes), *times]


def _is_number(value: object) -> bool:
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return type(value) is float and math.isfinite(value)


def _is_text(value: object) -> bool:
    # str.encode() fails for half of a surrogate pair, which would make every later export fail.
    return type(value) is str and value.encode() is not None


def _is_attribute(value: object) -> bool:
    return type(value) is bool or _is_number(value) or _is_text(value)
