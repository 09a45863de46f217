"""Schema of a metric in a query file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import get_args

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from poller.config.attributes import (
    AS_ATTRIBUTE,
    AttributeName,
    ColumnName,
    FixedValue,
    same_labels,
)
from poller.config.fields import Duration, Part, raise_all, whole
from poller.config.queries.histogram import le_text
from poller.config.queries.schema.alert import DeclaredAlert
from poller.config.queries.schema.boundaries import (
    MOST_BOUNDARIES,
    NO_HISTOGRAM,
    Boundary,
    histogram_problems,
    is_histogram,
    le_problems,
)
from poller.config.queries.schema.parameters import parameter_names
from poller.model.query import (
    MAX_ATTRIBUTE_LENGTH,
    AttributeValue,
    MetricDefinition,
    MetricType,
    OnNull,
)
from poller.model.text import did_you_mean, quote
from poller.model.units import unit_problem

_GAUGES = (
    ", because an OTLP histogram must not fall; write `histogram: [1, 10, 60]` with your boundaries instead, "
    "which makes gauges for histogram_quantile()"
)
_INSTEAD = {
    "histogram": _GAUGES,
    "exponentialhistogram": _GAUGES,
    "summary": "; return a row per quantile, and write attribute_columns: [quantile]",
    "sum": "; write counter if it only grows, else updowncounter",
}
"""Advice for the other types of OTLP and Prometheus."""

_METRIC_NAME = re.compile(r"[a-z][a-z0-9_.]{0,254}")


class DeclaredMetric(Part):
    """One metric that a query feeds: a value column, and the columns that distinguish its series."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"required": ["type"], "properties": {"type": {"const": "counter"}}},
            "then": {
                "properties": {
                    "on_null": {"enum": ["drop", "fail"]},
                    "alert": {
                        "items": {
                            "required": ["of"],
                            "properties": {"of": {"enum": ["daily_growth", "weekly_change"]}},
                        }
                    },
                }
            },
            "allOf": [
                {
                    "if": {"required": ["time_column"], "properties": {"time_column": {"type": "string"}}},
                    "then": {
                        "required": ["settle"],
                        "properties": {
                            "settle": {"type": ["number", "string"]},
                            "type": {"const": "gauge"},
                            "histogram": {"type": "null"},
                            "attribute_values": {"maxProperties": 0},
                        },
                    },
                    "else": {"properties": {"settle": {"type": "null"}}},
                }
            ],
        }
    )

    name: str = Field(
        description="Name of the metric, exported unchanged (lower case; letters, digits, _ and .).",
        examples=["pending_messages_total"],
        json_schema_extra={"pattern": whole(_METRIC_NAME, unless="poller[._]")},
    )
    description: str = Field(
        description="Meaning of the number, in a sentence for dashboards.",
        examples=["Messages waiting for delivery."],
        min_length=1,
        json_schema_extra={"type": ["string", "number"], "pattern": r"\S"},
    )
    unit: str = Field(
        description="Unit in UCUM: `By`, `s`, `%`, or the counted thing in braces, `{message}`.",
        examples=["{message}", "By", "s"],
    )
    histogram: tuple[Boundary, ...] | None = Field(
        default=None,
        description="Ascending boundaries: the buckets, sum and count of value_column replace its values.",
        examples=[[1, 10, 60]],
        min_length=1,
        json_schema_extra={"maxItems": MOST_BOUNDARIES},
    )
    type: MetricType = Field(
        default="gauge",
        description="gauge: a current value. counter: a monotonic sum, which falls only at a reset. "
        "updowncounter: a sum that may fall.",
        examples=["counter"],
    )
    value_column: str = Field(
        description="Result column with the value, of a numeric type.",
        examples=["pending"],
        min_length=1,
    )
    attribute_columns: tuple[ColumnName, ...] = Field(
        default=(),
        description="Result columns that become attributes; each distinct set is one series.",
        examples=[["state", "tenant"]],
        json_schema_extra={"items": {"type": "string", "pattern": AS_ATTRIBUTE}, "uniqueItems": True},
    )
    attribute_values: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="All values of a column: a value without a row is exported as 0 (except for counters); "
        "undeclared values are rejected.",
        examples=[{"state": ["queued", "sent"]}],
        json_schema_extra={
            "additionalProperties": {
                "type": "array",
                "items": {"type": "string", "maxLength": MAX_ATTRIBUTE_LENGTH},
                "minItems": 1,
                "uniqueItems": True,
            }
        },
    )
    attributes: Mapping[AttributeName, FixedValue] = Field(
        default_factory=dict,
        description="Attributes with a fixed value.",
        examples=[{"env": "prod"}],
        json_schema_extra={"propertyNames": {"pattern": AS_ATTRIBUTE}},
    )
    on_null: OnNull = Field(
        default="drop",
        description="Action for a NULL value: drop and count the row, export 0, or fail the query.",
        examples=["drop"],
    )
    alert: tuple[DeclaredAlert, ...] = Field(
        default=(),
        description="Alerting rules of this metric, which `poller alerts` writes.",
        examples=[[{"above": 100000}]],
    )
    time_column: str | None = Field(
        default=None,
        description="Result column (timestamptz) with the time of the data point. The newest row of a series "
        "whose time is past by `settle` is exported, once. Default: the time of the export.",
        examples=["hour"],
        min_length=1,
    )
    settle: Duration | None = Field(
        default=None,
        description="Age of a row's time from which on the row does not change, 0s to 30d; required with "
        "time_column. If the time is the start of a bucket, it includes the length of the bucket.",
        examples=["10m"],
        ge=0,
        le=30 * 86400,
        validate_default=True,
    )

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if not _METRIC_NAME.fullmatch(name):
            raise ValueError(
                f"{quote(name)} is not a metric name; write lower-case letters, digits, _ and ., "
                "starting with a letter, at most 255"
            )
        if name.startswith(("poller.", "poller_")):
            raise ValueError(f"{quote(name)} begins with {name[:7]}, which the poller reserves; rename it")
        return name

    @field_validator("description")
    @classmethod
    def _description(cls, description: str) -> str:
        if not description.strip():
            raise ValueError("is blank; write a sentence that explains the number")
        return description

    @field_validator("unit")
    @classmethod
    def _unit(cls, unit: str) -> str:
        if problem := unit_problem(unit):
            raise ValueError(problem)
        return unit

    @field_validator("histogram")
    @classmethod
    def _histogram(cls, boundaries: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if boundaries and len(boundaries) > MOST_BOUNDARIES:
            raise ValueError(f"has {len(boundaries)} boundaries; write at most {MOST_BOUNDARIES}")
        if unordered := [pair for pair in pairwise(boundaries or ()) if pair[0] >= pair[1]]:
            pairs = ", ".join(f"{le_text(upper)} after {le_text(lower)}" for lower, upper in unordered)
            raise ValueError(f"has {pairs}; write the boundaries in ascending order")
        return boundaries

    @field_validator("type", mode="before")
    @classmethod
    def _type(cls, value: object) -> object:
        types = get_args(MetricType)
        if isinstance(value, str) and value and value not in types:
            instead = _INSTEAD.get(value.lower().replace("_", "")) or did_you_mean(value, types)
            raise ValueError(f"{quote(value)} is not one of {', '.join(types)}{instead}")
        return value

    @field_validator("type", "on_null", "alert")
    @classmethod
    def _not_of_a_histogram(cls, value: object, info: ValidationInfo) -> object:
        if is_histogram(info) and value not in ("gauge", "drop", ()):
            raise ValueError(NO_HISTOGRAM[str(info.field_name)])
        return value

    @field_validator("value_column")
    @classmethod
    def _value_column(cls, column: str, info: ValidationInfo) -> str:
        raise_all(histogram_problems(column, info))
        return column

    @field_validator("attribute_columns")
    @classmethod
    def _attribute_columns(cls, columns: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        raise_all(_column_problems(columns, info))
        return columns

    @field_validator("attribute_values")
    @classmethod
    def _attribute_values(
        cls, closed: Mapping[str, tuple[str, ...]], info: ValidationInfo
    ) -> Mapping[str, tuple[str, ...]]:
        raise_all(_value_problems(closed, info))
        return closed

    @field_validator("attributes")
    @classmethod
    def _attributes(
        cls, attributes: Mapping[str, AttributeValue], info: ValidationInfo
    ) -> Mapping[str, AttributeValue]:
        columns = info.data.get("attribute_columns", ())
        raise_all(
            [
                *(
                    ValueError(f"{name!r} is also in attribute_columns; keep one of the two")
                    for name in attributes
                    if name in columns
                ),
                *same_labels([*columns, *attributes]),
                *le_problems(attributes, info),
            ]
        )
        return attributes

    @field_validator("on_null")
    @classmethod
    def _on_null(cls, on_null: str, info: ValidationInfo) -> str:
        if on_null == "zero" and info.data.get("type") == "counter":
            raise ValueError("is zero, which would look like a reset of the counter; write drop or fail")
        return on_null

    @field_validator("alert")
    @classmethod
    def _alert(cls, alerts: tuple[DeclaredAlert, ...], info: ValidationInfo) -> tuple[DeclaredAlert, ...]:
        raise_all(_alert_problems(alerts, info.data.get("type")))
        return alerts

    @field_validator("time_column")
    @classmethod
    def _time_column(cls, column: str | None, info: ValidationInfo) -> str | None:
        if column is not None:
            raise_all(_time_problems(column, info))
        return column

    @field_validator("settle")
    @classmethod
    def _settle(cls, settle: float | None, info: ValidationInfo) -> float | None:
        column = info.data.get("time_column")
        if settle is None and column is not None:
            raise ValueError(
                f"settle is required with time_column; write how long after {column} a row may still change, "
                "for example settle: 10m"
            )
        if settle is not None and "time_column" in info.data and column is None:
            raise ValueError("has no effect without time_column; add it, or omit settle")
        return settle

    def definition(self) -> MetricDefinition:
        """Return the definition without its histogram, which `with_histogram` adds to the query."""
        parts = self.parts()
        del parts["histogram"]
        return MetricDefinition(**parts)


def _twice(texts: Iterable[str]) -> list[str]:
    return [text for text, count in Counter(texts).items() if count > 1]


def _column_problems(columns: tuple[str, ...], info: ValidationInfo) -> Iterator[ValueError]:
    for column in _twice(columns):
        yield ValueError(f"column {column!r} is listed twice; keep one")
    if (value := info.data.get("value_column")) in columns:
        yield ValueError(f"column {value!r} is also the value_column; keep one of the two")
    yield from same_labels(columns)
    yield from le_problems(columns, info)


def _value_problems(closed: Mapping[str, tuple[str, ...]], info: ValidationInfo) -> Iterator[ValueError]:
    columns = info.data.get("attribute_columns")
    parameters = parameter_names((info.context or {}).get("parameters"))
    for name, values in closed.items():
        if name in parameters:
            yield ValueError(f"{name!r} is a parameter, whose values are known; omit it")
        elif columns is not None and name not in columns:
            yield ValueError(f"{quote(name)} is not in attribute_columns; add it there, or omit it")
        if not values:
            yield ValueError(f"{name!r} has no values; list all values of the column")
        for value in _twice(values):
            yield ValueError(f"value {quote(value)} of {name!r} is listed twice; keep one")
        for value in values:
            if len(value) > MAX_ATTRIBUTE_LENGTH:
                yield ValueError(
                    f"value {quote(value)} of {name!r} has {len(value)} characters; "
                    f"write at most {MAX_ATTRIBUTE_LENGTH}"
                )


def _alert_problems(alerts: tuple[DeclaredAlert, ...], kind: str | None) -> Iterator[ValueError]:
    if kind == "counter" and any(alert.of == "value" for alert in alerts):
        yield ValueError(
            "compares the value of a counter, which depends on its last reset; "
            "write of: daily_growth or of: weekly_change"
        )
    for alert in _twice(
        ", ".join(
            [alert.of, alert.definition().side, alert.severity]
            + [f"{name}: {value}" for name, value in sorted(alert.labels.items())]
        )
        for alert in alerts
    ):
        yield ValueError(f"has two equal alerts ({alert}); change the severity or a label of one")


def _time_problems(column: str, info: ValidationInfo) -> Iterator[ValueError]:
    if is_histogram(info):
        yield ValueError(
            "cannot be combined with histogram, which counts the rows of all times; "
            "omit time_column and settle"
        )
    if column in (info.data.get("value_column"), *info.data.get("attribute_columns", ())):
        yield ValueError(f"column {column!r} is also a value or attribute column; write only one of them")
    if (kind := info.data.get("type", "gauge")) != "gauge":
        yield ValueError(
            f"is a key of gauges, and type is {kind}, whose points begin at its start time; "
            "write type: gauge, or omit time_column"
        )
    if info.data.get("attribute_values"):
        yield ValueError(
            "cannot be combined with attribute_values, because a 0 without a row has no time; "
            "omit attribute_values"
        )
