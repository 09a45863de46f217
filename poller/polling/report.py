"""Report of a poll: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from poller.model.printable import one_line
from poller.model.query import AttributeValue, MetricDefinition
from poller.model.result import PollResult, state_of
from poller.model.text import value_text

if TYPE_CHECKING:
    from rich.console import Console

_ENDLESS = 100_000
"""Columns of a line for a program: wide enough to avoid folding."""
_CELL = 80
"""Maximum characters shown of one value of an omitted row."""
_STYLES = {"ok": "green", "estimated": "green", "failed": "red", "skipped": "yellow", "stale": "red"}


TargetResults = Sequence[tuple[str, Sequence[PollResult]]]
"""The name of each target with its results; the name is empty for the only database."""


def print_table(console: Console, by_target: TargetResults, metrics: Mapping[str, MetricDefinition]) -> None:
    """Print one row per series, and one per query without series; wide cells fold, nothing is cut off.

    Omitted rows follow the state, with the reason: `ok, 585 duplicate`.
    The type column appears if a metric is not a gauge, the time column if one has the time of its rows, the
    target column if a target has a name.
    """
    from rich.table import Table

    person = console.is_terminal
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    named = any(name for name, _ in by_target)
    typed = any(
        metric.type != "gauge"
        for _, results in by_target
        for result in results
        for metric in result.query.metrics
    )
    types = ["TYPE"] if typed else []
    timed = any(
        metric.time_column is not None
        for _, results in by_target
        for result in results
        for metric in result.query.metrics
    )
    for heading in (
        *(["TARGET"] if named else []),
        "QUERY",
        "METRIC",
        *types,
        "ATTRIBUTES",
        "VALUE",
        "UNIT",
        *(["TIME"] if timed else []),
        "DURATION",
        "STATE",
    ):
        right = heading in ("VALUE", "DURATION")
        # In a pipe, each row is one line, so that grep and awk find a whole series.
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=not person)
    for target, result in ((name, result) for name, results in by_target for result in results):
        first = (*([_plain(target)] if named else []), result.query.name)
        state = state_of(result)
        line = f"[{_STYLES[state.name]}]{state}[/]{_omitted_rows(result)}"
        duration = "-" if result.outcome == "skipped" else _duration(result.duration)
        if not result.samples:
            nothing = ["-"] * (4 + len(types) + timed)
            table.add_row(*first, *nothing, duration, line)
        for sample in result.samples:
            metric = metrics[sample.metric]
            unit = _plain(metric.unit) or "-"
            value = f"{sample.value:,}" if person else str(sample.value)
            attributes = _plain(attributes_text(sample.attributes)) or "-"
            kind = [metric.type for _ in types]
            time = [format_time(sample.time.at / 1e9) if sample.time else "-"] if timed else []
            table.add_row(*first, metric.name, *kind, attributes, value, unit, *time, duration, line)
    if not person:
        console.width = _ENDLESS
    console.print(table)


def rejection_lines(result: PollResult) -> Iterator[str]:
    """Yield a line for each listed omitted row, and one for the number of others."""
    name = result.query.name
    if result.advice:
        yield f"{name}: {result.advice}"
    for rejected in result.rejected_rows:
        row = " ".join(f"{column}={_cell(text)}" for column, text in rejected.row.items())
        yield f"{name}: omitted from {rejected.metric} ({rejected.reason}): {row}"
    for column in _null_and_empty(result):
        text = f"{name}: NULL and '' of {column} are one series to Prometheus"
        yield f"{text}; write coalesce({column}, 'none') to distinguish them"
    beyond = result.rejected.get("overflow", 0)
    more = sum(result.rejected.values()) - beyond - len(result.rejected_rows)
    if more > 0:
        yield f"{name}: {more} more omitted"
    if beyond:
        yield f"{name}: {beyond} omitted beyond max_series {result.query.max_series} (overflow)"
    if result.folded:
        yield f"{name}: {result.folded} beyond max_series {result.query.max_series} summed up in `other`"


def _null_and_empty(result: PollResult) -> Iterator[str]:
    """Yield the attribute columns that are NULL in one duplicate row and empty in another."""
    for name in dict.fromkeys(name for metric in result.query.metrics for name in metric.attribute_columns):
        values = {
            rejected.row.get(name, "-") for rejected in result.rejected_rows if rejected.reason == "duplicate"
        }
        if {None, ""} <= values:
            yield name


def to_json(by_target: TargetResults, metrics: Mapping[str, MetricDefinition]) -> str:
    """Return a JSON object with a list `queries`; durations in seconds, times in RFC 3339, numbers exact.

    Each query has its `target` if it has a name.
    """
    queries = [
        {**({"target": name} if name else {}), **_as_object(result, metrics)}
        for name, results in by_target
        for result in results
    ]
    return json.dumps({"queries": queries}, indent=2, ensure_ascii=False)


def attributes_text(attributes: Mapping[str, AttributeValue]) -> str:
    """Return attributes as text, `state=queued tenant=a`; ambiguous values are quoted."""
    return " ".join(f"{name}={_quoted(value_text(value))}" for name, value in attributes.items())


def _as_object(result: PollResult, metrics: Mapping[str, MetricDefinition]) -> dict[str, Any]:
    state = state_of(result)
    line: dict[str, Any] = {
        "query": result.query.name,
        "state": state.name,
        "at": format_time(result.at, "milliseconds"),
        "duration": round(result.duration, 6),
        "samples": [
            {
                "metric": sample.metric,
                "type": metrics[sample.metric].type,
                "unit": metrics[sample.metric].unit,
                "attributes": dict(sample.attributes),
                "value": sample.value,
                **({"time": format_time(sample.time.at / 1e9, "milliseconds")} if sample.time else {}),
            }
            for sample in result.samples
        ],
        "quarantined": dict(result.rejected),
        "folded": result.folded,
    }
    if result.closed is not None:
        line["unsettled"] = result.unsettled
    if state.reason is not None:
        line["reason"] = state.reason
    if result.skipped is not None:
        line["detail"] = result.skipped.detail
    if result.error is not None:
        line["error"] = {
            "type": result.error.kind,
            "sqlstate": result.error.sqlstate,
            "message": result.error.message,
            "hint": result.error.hint,
        }
        if result.error.conflict is not None:
            line["error"]["conflict"] = result.error.conflict
    return line


def _omitted_rows(result: PollResult) -> str:
    """Return the number of omitted data points, by reason: `, 585 duplicate`."""
    line = "".join(f", {count} {reason}" for reason, count in sorted(result.rejected.items()))
    unsettled = f", {result.unsettled} unsettled" if result.unsettled else ""
    return (f"[yellow]{line}[/]" if line else "") + unsettled


def format_time(seconds: float, precision: str = "auto") -> str:
    """Return a time in seconds since 1970 in RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _cell(text: str | None) -> str:
    if text is None:
        return "NULL"
    return _quoted(text if len(text) <= _CELL else f"{text[: _CELL - 3]}...")


def _quoted(text: str) -> str:
    # A line break would split the row, and an escape sequence would control the reader's terminal.
    return (
        text
        if text.isprintable() and text and not set(text) & set(' "')
        else json.dumps(text, ensure_ascii=not text.isprintable())
    )


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(one_line(text))
