"""State file with the last good values, which preserves them across a restart."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from poller.model.files import parse_json, read_regular, replace_file
from poller.model.query import QueryDefinition
from poller.model.result import EstimateReason, GoodResult, PollResult, Sample, UnbrokenSequence

logger = logging.getLogger(__name__)

MAX_BYTES = 64 << 20
"""Maximum size of the file."""
_VERSION = 1
_LEAST_ROOM = 64 * 1024
"""Minimum number of bytes that are appended before the file is replaced."""
_CLOCK_SET_BACK = 60.0
"""Seconds that a value may be in the future; beyond that, its age is unknown and it is discarded."""


class StateFile:
    """One file of values: a line with all of them, then a line for each later tick.

    The file is replaced atomically (POSIX rename), so that no reader sees half of it. Each tick appends its
    values. When the appended lines have the size of the first line, the file is replaced again. So the bytes
    written are proportional to the number of new values, not to the number of all values.

    A stored value is restored only if the query is unchanged and the database is the same: values of other
    SQL or of another server would be wrong.
    """

    def __init__(self, folder: Path, database: str) -> None:
        """Use `values.json` in `folder`; `database` identifies the source, as text without secrets."""
        self._path = folder / "values.json"
        self._database = hashlib.sha256(database.encode()).hexdigest()
        self._failing = False
        self._room = -1
        """Bytes that may still be appended; if negative, the file is replaced."""

    def load(self, queries: Iterable[QueryDefinition], now: float, wall: float) -> list[GoodResult]:
        """Return the stored values of `queries`, with their age.

        `now` is in seconds on the store's clock, `wall` in seconds since 1970. If the file cannot be read, a
        warning is logged, the file is renamed to `values.json.unreadable`, and no value is restored.
        """
        try:
            by_name: dict[str, Any] = {}
            for document in _documents(read_regular(self._path, MAX_BYTES)):
                _check(
                    document["version"] == _VERSION,
                    f"it is of version {document['version']!r}, not {_VERSION}",
                )
                if document["database"] != self._database:
                    logger.info("the stored values are of another database and are not used")
                    return []
                by_name |= {entry["query"]: entry for entry in document["results"]}
            return [
                GoodResult(result, now - max(0.0, wall - result.at))
                for query in queries
                if (entry := by_name.get(query.name)) and entry["definition"] == query.digest
                if (result := _result(query, entry)).at <= wall + _CLOCK_SET_BACK
            ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            logger.warning("the stored values cannot be read and are discarded: %s", error)
            self._set_aside()
            return []

    def save(self, values: Sequence[GoodResult]) -> None:
        """Replace the stored values. If the folder is not writable, log it once and continue."""
        content = self._encoded(values)
        self._room = -1
        try:
            self._replace(content)
        except OSError as error:
            if not self._failing:
                self._failing = True
                logger.warning("the values cannot be stored for a restart: %s", error)
        else:
            self._room = min(max(len(content), _LEAST_ROOM), MAX_BYTES - len(content))
            if self._failing:
                self._failing = False
                logger.info("the values are stored again")

    def add(self, fresh: Sequence[GoodResult], every: Callable[[], Sequence[GoodResult]]) -> None:
        """Store the values of one tick; `every` returns those of all queries, including `fresh`."""
        line = b"\n" + self._encoded(fresh)
        self._room -= len(line)
        if self._room >= 0:
            try:
                self._append(line)
            except OSError:
                logger.debug("the values cannot be appended", exc_info=True)
            else:
                return
        self.save(every())

    def invalidate(self) -> None:
        """Replace the file at the next tick, because the queries have changed."""
        self._room = -1

    def _encoded(self, values: Sequence[GoodResult]) -> bytes:
        document = {
            "version": _VERSION,
            "database": self._database,
            "results": [
                {
                    "query": result.query.name,
                    "definition": result.query.digest,
                    "at": result.at,
                    "duration": result.duration,
                    "estimated": result.estimated,
                    "server": result.server,
                    "samples": [_document(sample) for sample in result.samples],
                }
                for result in (good.result for good in values)
            ],
        }
        return json.dumps(document, separators=(",", ":")).encode()

    def _append(self, line: bytes) -> None:
        # O_NONBLOCK: if a pipe has replaced the file, opening it must not wait.
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(self._path, flags), "wb") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _replace(self, content: bytes) -> None:
        if len(content) > MAX_BYTES:
            raise OSError(errno.EFBIG, f"they are larger than {MAX_BYTES / 2**20:g} MiB")
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._path, content, durable=True)

    def _set_aside(self) -> None:
        try:
            self._path.replace(self._path.with_suffix(".json.unreadable"))
        except OSError:
            logger.debug("it could not be moved", exc_info=True)


def _documents(content: bytes) -> Iterator[Any]:
    """Yield each line as JSON; skip a last line that a crash cut off."""
    first, *more = content.split(b"\n")
    yield parse_json(first)
    for number, line in enumerate(more, 1):
        try:
            document = parse_json(line)
        except ValueError:
            if number == len(more):
                return
            raise
        yield document


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _document(sample: Sample) -> list[Any]:
    """Return a sample as a list; if its sequence has a start time, that is the last element."""
    start = sample.sequence.start if sample.sequence else None
    return [sample.metric, sample.value, dict(sample.attributes), *([] if start is None else [start])]


def _is_number(value: object) -> bool:
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return type(value) is float and math.isfinite(value)


def _is_attribute(value: object) -> bool:
    # encode() fails for half of a surrogate pair, which would make every later export fail.
    return type(value) is bool or _is_number(value) or (type(value) is str and value.encode() is not None)


def _result(query: QueryDefinition, entry: dict[str, Any]) -> PollResult:
    types = {metric.name: metric.type for metric in query.metrics}
    samples = []
    for metric, value, attributes, *past in entry["samples"]:
        _check(metric in types and _is_number(value), f"{metric!r} has {value!r}")
        _check(all(map(_is_attribute, [*attributes, *attributes.values()])), f"{metric!r} has {attributes!r}")
        _check(all(type(start) is int and 0 < start < 2**64 for start in past), f"{metric!r} began {past!r}")
        sequence = None if types[metric] == "gauge" else UnbrokenSequence(*past)
        samples.append(Sample(metric, value, dict(attributes), sequence))
    _check(entry["estimated"] in (None, *get_args(EstimateReason)), f"estimated is {entry['estimated']!r}")
    return PollResult(
        query,
        float(entry["at"]),
        float(entry["duration"]),
        "ok",
        tuple(samples),
        estimated=entry["estimated"],
        server=str(entry.get("server", "")),
    )
