"""Mapping of rows to samples; rows that do not fit are rejected and counted by reason."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from poller.model.casts import not_a_number, not_a_time
from poller.model.errors import PollError
from poller.model.numbers import NUMBERS, NotRepresentableError, otlp_number, parse
from poller.model.query import (
    MAX_ATTRIBUTE_LENGTH,
    AttributeValue,
    MetricDefinition,
    QueryDefinition,
)
from poller.model.result import RejectedRow, Sample
from poller.model.rows import Column, OmittedSum, Row, Rows
from poller.model.series import Key, key_of
from poller.model.text import value_text
from poller.polling.attributes import EnumeratedAttributes
from poller.polling.data_times import TimeColumn, hashes, newest_of_each

MOST_REJECTED_ROWS = 20
"""Maximum number of rejected rows of one result that are listed; the others are only counted."""

_MOST_BYTES = 400


@dataclass(slots=True)
class RowAccounting:
    """Outcome of each candidate data point, collected while a result is mapped."""

    columns: tuple[Column, ...]
    by_series: dict[tuple[str, Key, int], tuple[Sample, Row | None] | None] = field(default_factory=dict)
    """By series and time, across all metrics, because two may have one name; None if duplicates were
    withdrawn. Without a time column, the time is 0."""
    rejected: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Number of rejected candidates by reason."""
    rejected_rows: list[RejectedRow] = field(default_factory=list)
    added: int = 0
    folded: int = 0
    unsettled: int = 0

    def take(self, sample: Sample, row: Row | None = None) -> None:
        """Store one sample; `row` is its source, if any. If its series exists already, reject both."""
        time = 0 if sample.time is None else sample.time.at
        series = sample.metric, key_of(sample.attributes), time
        if series not in self.by_series:
            self.by_series[series] = sample, row
            return
        # Reject the first sample as well: one of the two is wrong, and it is unknown which.
        first = self.by_series[series]
        if first is not None:
            self.reject(sample.metric, "duplicate", first[1])
        self.reject(sample.metric, "duplicate", row)
        self.by_series[series] = None

    def reject(self, metric: str, reason: str, row: Row | None) -> None:
        self.rejected[reason] += 1
        if row is not None and len(self.rejected_rows) < MOST_REJECTED_ROWS:
            texts = (None if raw is None else raw[:_MOST_BYTES].decode(errors="replace") for raw in row)
            names = (column.name for column in self.columns)
            self.rejected_rows.append(RejectedRow(metric, reason, dict(zip(names, texts, strict=True))))

    def samples(self) -> tuple[Sample, ...]:
        return tuple([entry[0] for entry in self.by_series.values() if entry is not None])


OTHER = "other"
"""Attribute value of the series that sums the rows beyond `max_series`, in every attribute column."""
_BOOL = 16


class Mapped(NamedTuple):
    """The data points of one result, and the counts of candidates that became none.

    A candidate is one row for one metric, or is added without a row. So
    `len(samples) + folded + sum(rejected.values()) - added` equals the number of rows (including those beyond
    max_series) times the number of metrics; with a time column, `unsettled` and `older` are part of the sum.
    """

    samples: tuple[Sample, ...]
    rejected: Mapping[str, int]
    """Number of rejected candidates by reason."""
    added: int = 0
    """Candidates without a row: declared values that no row has, and `other`."""
    folded: int = 0
    """Candidates that are summed in `other`."""
    rejected_rows: tuple[RejectedRow, ...] = ()
    """The first MOST_REJECTED_ROWS rejected rows."""
    advice: str | None = None
    """The problem of each metric for which all rows were rejected."""
    unsettled: int = 0
    """Candidates whose time is not past by `settle`."""
    closed: frozenset[int] | None = None
    """Hashes of the candidates whose time is past by `settle`; None without a time column."""
    older: int = 0
    """Those of them that are older than the newest one of their series."""


def to_samples(query: QueryDefinition, rows: Rows, at: float) -> Mapped:
    """Map the rows of one result to samples, by the query's definition.

    `at` is the time of the snapshot in seconds since 1970, to which times in columns are compared.

    These rows are rejected and counted, without failing the result:

    - `null`: NULL under `on_null: drop`;
    - `nan`, `infinite`: NaN or infinity;
    - `not_a_number`: not a number; a value column of a non-numeric type rejects all rows of its metric;
    - `negative`: a counter below 0;
    - `duplicate`: every row of a series that occurs twice, because the right value is unknown;
    - `not_utf8`, `attribute_too_long`: an attribute that is not UTF-8, or exceeds MAX_ATTRIBUTE_LENGTH;
    - `not_a_time`, `future`: a time that no data point can have; a time column that is not `timestamptz`
      rejects all rows of its metric;
    - `undeclared_value`: an attribute value that `attribute_values` does not list;
    - `overflow`: rows beyond `max_series`, unless they are summed.

    Raises PollError of kind `mismatch` if the whole result contradicts the definition: a declared column is
    missing or occurs twice, no value column has a numeric type, or a value is NULL under `on_null: fail`.
    """
    positions = _positions(query, rows.columns)
    advice = _wrong_types(query, rows.columns, positions)
    if advice and all(_is_unusable(metric, advice) for metric in query.metrics):
        raise PollError("mismatch", "; ".join(advice.values()))
    account = RowAccounting(rows.columns)
    for metric in query.metrics:
        if _is_unusable(metric, advice):
            reason = "not_a_number" if metric.value_column in advice else "not_a_time"
            for row in rows.values:
                account.reject(metric.name, reason, row)
            account.rejected["overflow"] += rows.beyond
            continue
        _map_metric(query, metric, rows, positions, account, at)
        if rows.beyond:
            _account_for_the_rest(metric, rows, account)
    samples = account.samples()
    timed = any(metric.time_column is not None for metric in query.metrics)
    newest = tuple(newest_of_each(samples)) if timed else samples
    return Mapped(
        newest,
        {reason: count for reason, count in account.rejected.items() if count},
        account.added,
        account.folded,
        tuple(account.rejected_rows),
        "; ".join(advice.values()) or None,
        account.unsettled,
        hashes(samples) if timed else None,
        len(samples) - len(newest),
    )


def _is_unusable(metric: MetricDefinition, advice: Collection[str]) -> bool:
    return metric.value_column in advice or metric.time_column in advice


def _map_metric(
    query: QueryDefinition,
    metric: MetricDefinition,
    rows: Rows,
    positions: Mapping[str, int],
    account: RowAccounting,
    now: float,
) -> None:
    value_at = positions[metric.value_column]
    oid = rows.columns[value_at].oid
    names = query.parameters[0]
    columns = [
        (name, positions[name], rows.columns[positions[name]].oid)
        for name in metric.attribute_columns
        if name not in names
    ]
    # The values of the parameters are the last columns.
    last = len(rows.columns) - len(names)
    runs = {tuple(value_text(value).encode() for value in run.values()): run for run in query.parameters}
    closed = EnumeratedAttributes(metric, query.parameters) if metric.attribute_values else None
    existing: set[Key] = set()
    column = metric.time_column
    times = TimeColumn.of(metric, positions[column], now) if column is not None else None
    time = None
    for row in rows.values:
        try:
            if times is not None and (time := times.read(row)) is None:
                account.unsettled += 1
                continue
            attributes = _attributes(row, columns)
            attributes.update(runs[cast("tuple[bytes, ...]", row[last:])])
            if closed is not None:
                closed.see(attributes)
                existing.add(key_of(attributes))
            value = _value(row[value_at], oid, metric)
        except NotRepresentableError as error:
            account.reject(metric.name, str(error), row)
        else:
            attributes.update(metric.attributes)
            account.take(Sample(metric.name, value, attributes, time=time), row)
    if closed is not None and not rows.beyond and metric.type != "counter":
        # Only a complete result shows that a row is missing. For a counter, the 0 would be a reset.
        _fill(metric, closed, existing, max(0, query.max_series - len(rows.values)), account)


def _fill(
    metric: MetricDefinition,
    closed: EnumeratedAttributes,
    existing: Collection[Key],
    room: int,
    account: RowAccounting,
) -> None:
    """Add a 0 for each declared set without a row, up to `room` samples, and count the others."""
    absent = closed.count_missing(existing)
    account.added += absent
    account.rejected["overflow"] += max(0, absent - room)
    for attributes in itertools.islice(closed.missing(existing), room):
        account.take(Sample(metric.name, 0, {**attributes, **metric.attributes}))


def _account_for_the_rest(metric: MetricDefinition, rows: Rows, account: RowAccounting) -> None:
    """Sum the rows beyond the limit in one series, or count them."""
    folded = rows.folded.get(metric.value_column)
    if folded is None:
        account.rejected["overflow"] += rows.beyond
        return
    rejected = _rejected_values(metric, folded)
    for reason, count in rejected.items():
        account.rejected[reason] += count
    rest = rows.beyond - sum(rejected.values())
    try:
        total = otlp_number(folded.total)
    except NotRepresentableError:
        total, rejected = 0, Counter(infinite=1)
    attributes: dict[str, AttributeValue] = {**dict.fromkeys(metric.attribute_columns, OTHER)}
    attributes.update(metric.attributes)
    if rejected or (metric.name, key_of(attributes), 0) in account.by_series:
        # A partial sum would look like the sum of all rows.
        account.rejected["overflow"] += rest
        return
    account.take(Sample(metric.name, total, attributes))
    account.added += 1
    account.folded += rest


def _rejected_values(metric: MetricDefinition, folded: OmittedSum) -> Counter[str]:
    """Return the number of values that the sum cannot include, by reason; a NULL that counts as 0 is none."""
    rejected = Counter(folded.rejected)
    nulls = rejected.pop("null", 0)
    if nulls and metric.on_null == "fail":
        raise _null(metric)
    if nulls and metric.on_null == "drop":
        rejected["null"] = nulls
    return rejected


def _positions(query: QueryDefinition, columns: tuple[Column, ...]) -> dict[str, int]:
    """Return the position of each declared column; raise one PollError that lists all problems."""
    at = {column.name: position for position, column in enumerate(columns)}
    if len(at) == len(columns) and all(name in at for metric in query.metrics for name in metric.columns):
        return at
    names = [column.name for column in columns]
    problems: list[str] = []
    absent: dict[str, int] = {}
    for metric in query.metrics:
        for name in metric.columns:
            if name in absent:
                continue
            if names.count(name) > 1:
                problems.append(repeated_column(query, name, names.count(name)))
            elif name not in names:
                problems.append(
                    f"column {name!r} is missing; the result has {', '.join(names) or 'no columns'}"
                )
            absent[name] = names.index(name) if name in names else 0
    if problems:
        present = {name: position for name, position in absent.items() if name in names}
        raise PollError("mismatch", "; ".join([*problems, *_wrong_types(query, columns, present).values()]))
    return absent


def repeated_column(query: QueryDefinition, name: str, count: int) -> str:
    """Return the message for a column that occurs `count` times in the result."""
    if name in query.parameters[0]:
        return f"column {name!r} has the name of a parameter, which is already an attribute; remove it"
    return f"column {name!r} comes {count} times; rename all but one with AS"


def _wrong_types(
    query: QueryDefinition, columns: tuple[Column, ...], positions: Mapping[str, int]
) -> dict[str, str]:
    """Return a message for each value column that is not numeric, and each time column that is no time."""
    notes: dict[str, str] = {}
    for metric in query.metrics:
        name = metric.value_column
        if name in positions and (oid := columns[positions[name]].oid) not in NUMBERS:
            notes[name] = not_a_number(name, oid)
        time = metric.time_column
        if (
            time is not None
            and time in positions
            and (problem := not_a_time(time, columns[positions[time]].oid))
        ):
            notes[time] = problem
    return notes


def _value(raw: bytes | None, oid: int, metric: MetricDefinition) -> int | float:
    if raw is not None:
        value = otlp_number(parse(raw, oid))
        if value < 0 and metric.type == "counter":
            raise NotRepresentableError("negative")
        return value
    if metric.on_null == "zero":
        return 0
    if metric.on_null == "fail":
        raise _null(metric)
    raise NotRepresentableError("null")


def _null(metric: MetricDefinition) -> PollError:
    message = f"column {metric.value_column!r} is NULL and {metric.name} declares on_null: fail"
    return PollError("mismatch", message)


def _attributes(row: Row, columns: list[tuple[str, int, int]]) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {}
    for name, position, oid in columns:
        raw = row[position]
        if raw is None:
            continue  # OpenTelemetry has no null attribute, so NULL omits the attribute.
        if len(raw) > 4 * MAX_ATTRIBUTE_LENGTH:
            raise NotRepresentableError("attribute_too_long")  # UTF-8 has at most 4 bytes per character
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise NotRepresentableError("not_utf8") from None
        if len(text) > MAX_ATTRIBUTE_LENGTH:
            raise NotRepresentableError("attribute_too_long")
        attributes[name] = {"t": "true", "f": "false"}.get(text, text) if oid == _BOOL else text
    return attributes
