"""Schema of a metric in a query file, and of its alert."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Annotated, Self, get_args

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from poller.config.queries.histogram import (
    LE,
    MAX_COLUMN_BYTES,
    SUFFIXES,
    bucket_columns,
)
from poller.config.queries.schema.attributes import AS_ATTRIBUTE, check_values, labels, same_label
from poller.config.queries.schema.fields import AlsoText, Duration, MisfitError, Part, whole
from poller.model.prometheus import metric_name
from poller.model.query import (
    MAX_ATTRIBUTE_LENGTH,
    Alert,
    AttributeValue,
    MetricDefinition,
    MetricType,
    Of,
    OnNull,
    Severity,
    Side,
)
from poller.model.text import did_you_mean, quote
from poller.model.units import unit_problem

_ENDLESS = 1e300
_PERCENT = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?\s*%")


def _parse_limit(value: object, info: ValidationInfo) -> object:
    """Parse a finite number, or `50%` if the alert compares a share; raises ValueError."""
    share = info.data.get("of") == "weekly_change"
    example = "50%, 0.5 or -30%" if share else "100000"
    if isinstance(value, str) and share and _PERCENT.fullmatch(value.strip()):
        return float(value.strip().removesuffix("%")) / 100
    if value is None or value == "":
        raise ValueError(f"is empty; write a number like {example}")
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _ENDLESS:
        return float(value)
    raise ValueError(f"{quote(value)} is not a limit; write a number like {example}")


Limit = Annotated[float, BeforeValidator(_parse_limit), AlsoText(whole(_PERCENT))]


_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_MOST_LABELS = 32
_SET_LABELS = {
    "severity": "write severity next to labels",
    "owner": "write owner next to the name of the query",
    "alertname": "omit it, because Prometheus sets it",
    "poller_query_name": "omit it, because the poller sets it",
}
_SET_ANNOTATIONS = {
    "summary": "write summary next to annotations",
    "runbook_url": "write runbook next to annotations",
}
AlertText = Annotated[str, Field(min_length=1, max_length=4096)]
"""Value of a label or annotation; it may be a template of Prometheus."""


def check_labels(labels: Mapping[str, str], taken: Mapping[str, str], kind: str) -> None:
    """Raise ValueError for a label or annotation that a rule cannot have; `taken` says what to write."""
    for name in labels:
        if not _LABEL.fullmatch(name) or (kind == "label" and name.startswith("__")):
            raise ValueError(
                f"{quote(name)} is not a name of a Prometheus {kind}; write letters, digits and _, "
                "starting with a letter, at most 128"
            )
        if name in taken:
            raise ValueError(f"has the {kind} {name}; {taken[name]}")


class DeclaredAlert(Part):
    """One Prometheus alerting rule for one metric: a limit, and how long it must be violated."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [side], "properties": {side: {"type": ["number", "string"]}}}
                for side in get_args(Side)
            ],
            "if": {"required": ["of"], "properties": {"of": {"const": "weekly_change"}}},
            "else": {"properties": {side: {"type": ["number", "null"]} for side in get_args(Side)}},
        }
    )

    of: Of = Field(
        default="value",
        description="Compared quantity: the value, its growth in a day, or its change since last week.",
        examples=["daily_growth"],
    )
    above: Limit | None = Field(
        default=None,
        description="Upper limit, in the metric's unit; for weekly_change, a share.",
        examples=[100000],
    )
    below: Limit | None = Field(
        default=None,
        description="Lower limit; one alert has only one limit.",
        examples=[1],
    )
    for_: Duration = Field(
        default=900.0,
        alias="for",
        description="How long the limit must be violated without a break, 0s to 7d.",
        examples=["30m"],
        ge=0,
        le=7 * 86400,
    )
    severity: Severity = Field(
        default="warning", description="Label that routes the alert.", examples=["critical"]
    )
    summary: str | None = Field(
        default=None,
        description="First sentence of the notification. Default: metric, limit and value.",
        examples=["The queue is longer than a night's work."],
        min_length=1,
    )
    runbook: str | None = Field(
        default=None,
        description="Address of a page with instructions. Default: the runbook's section on such alerts.",
        examples=["https://wiki.example/queues"],
        min_length=1,
    )
    labels: Mapping[str, AlertText] = Field(
        default_factory=dict,
        description="Labels in addition to severity, owner and those of the series.",
        examples=[{"team": "messaging"}],
        max_length=_MOST_LABELS,
        json_schema_extra={"propertyNames": {"pattern": whole(_LABEL, unless="__")}},
    )
    annotations: Mapping[str, AlertText] = Field(
        default_factory=dict,
        description="Annotations in addition to summary and runbook_url; `description` replaces the "
        "generated one.",
        examples=[{"impact": "Messages arrive late."}],
        max_length=_MOST_LABELS,
        json_schema_extra={"propertyNames": {"pattern": whole(_LABEL)}},
    )

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: Mapping[str, str]) -> Mapping[str, str]:
        check_labels(labels, _SET_LABELS, "label")
        return labels

    @field_validator("annotations")
    @classmethod
    def _annotations(cls, annotations: Mapping[str, str]) -> Mapping[str, str]:
        check_labels(annotations, _SET_ANNOTATIONS, "annotation")
        return annotations

    @model_validator(mode="after")
    def _single_limit(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("has no limit; write above or below and a number")
        if self.above is not None and self.below is not None:
            raise ValueError("has two limits; write one alert with above and one with below")
        return self

    def definition(self) -> Alert:
        return Alert(**self.parts())


def _parse_boundary(value: object) -> object:
    """Parse a finite number; raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _ENDLESS:
        return float(value)
    if value in (math.inf, "+Inf"):
        raise ValueError("is +Inf, which every histogram has; omit it")
    raise ValueError(f"{quote(value)} is not a boundary; write a number like 0.5")


_MOST_BOUNDARIES = 100
Boundary = Annotated[float, BeforeValidator(_parse_boundary)]
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
        json_schema_extra={"maxItems": _MOST_BOUNDARIES},
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
    attribute_columns: tuple[str, ...] = Field(
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
    attributes: Mapping[str, AttributeValue] = Field(
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
    def _histogram(
        cls, boundaries: tuple[float, ...] | None, info: ValidationInfo
    ) -> tuple[float, ...] | None:
        if boundaries and len(boundaries) > _MOST_BOUNDARIES:
            raise ValueError(f"has {len(boundaries)} boundaries; write at most {_MOST_BOUNDARIES}")
        for lower, upper in pairwise(boundaries or ()):
            if lower >= upper:
                raise ValueError(f"has {upper:g} after {lower:g}; write the boundaries in ascending order")
        if boundaries and {"name", "unit"} <= info.data.keys():
            _check_histogram_name(info.data["name"], info.data["unit"])
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
        if _is_histogram(info) and value not in ("gauge", "drop", ()):
            raise ValueError(_NO_HISTOGRAM[str(info.field_name)])
        return value

    @field_validator("value_column")
    @classmethod
    def _value_column(cls, column: str, info: ValidationInfo) -> str:
        boundaries = info.data.get("histogram") or ()
        for name in bucket_columns(column, boundaries).values() if boundaries else ():
            if len(name.encode()) > MAX_COLUMN_BYTES:
                raise ValueError(
                    f"makes the column {quote(name)} of a histogram, which has more than {MAX_COLUMN_BYTES} "
                    "bytes; give the column a shorter name with AS"
                )
        return column

    @field_validator("attribute_columns")
    @classmethod
    def _attribute_columns(cls, columns: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        labels(columns, "rename the column with AS")
        if len(set(columns)) < len(columns):
            twice = next(column for column, count in Counter(columns).items() if count > 1)
            raise ValueError(f"column {twice!r} is listed twice; keep one")
        if (value := info.data.get("value_column")) in columns:
            raise ValueError(f"column {value!r} is also the value_column; keep one of the two")
        _check_le(columns, info)
        return columns

    @field_validator("attribute_values")
    @classmethod
    def _attribute_values(
        cls, closed: Mapping[str, tuple[str, ...]], info: ValidationInfo
    ) -> Mapping[str, tuple[str, ...]]:
        columns = info.data.get("attribute_columns")
        for name, values in closed.items():
            if columns is not None and name not in columns:
                raise ValueError(f"{quote(name)} is not in attribute_columns; add it there, or omit it")
            if not values:
                raise ValueError(f"{name!r} has no values; list all values of the column")
            if len(set(values)) < len(values):
                twice = next(value for value, count in Counter(values).items() if count > 1)
                raise ValueError(f"value {quote(twice)} of {name!r} is listed twice; keep one")
            if long := next((value for value in values if len(value) > MAX_ATTRIBUTE_LENGTH), None):
                raise ValueError(
                    f"value {quote(long)} of {name!r} has {len(long)} characters; "
                    f"write at most {MAX_ATTRIBUTE_LENGTH}"
                )
        return closed

    @field_validator("attributes")
    @classmethod
    def _attributes(
        cls, attributes: Mapping[str, AttributeValue], info: ValidationInfo
    ) -> Mapping[str, AttributeValue]:
        columns = labels(info.data.get("attribute_columns", ()))
        for label, name in labels(attributes).items():
            if columns.get(label) == name:
                raise ValueError(f"{name!r} is also in attribute_columns; keep one of the two")
            if label in columns:
                raise ValueError(same_label(columns[label], name))
        check_values(attributes)
        _check_le(attributes, info)
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
        if info.data.get("type") == "counter" and any(alert.of == "value" for alert in alerts):
            raise ValueError(
                "compares the value of a counter, which depends on its last reset; "
                "write of: daily_growth or of: weekly_change"
            )
        for name, count in Counter(
            ", ".join(
                [alert.of, alert.definition().side, alert.severity]
                + [f"{label}: {value}" for label, value in sorted(alert.labels.items())]
            )
            for alert in alerts
        ).items():
            if count > 1:
                raise ValueError(f"has two equal alerts ({name}); change the severity or a label of one")
        return alerts

    @field_validator("time_column")
    @classmethod
    def _time_column(cls, column: str | None, info: ValidationInfo) -> str | None:
        if column is None:
            return column
        if _is_histogram(info):
            raise ValueError(
                "cannot be combined with histogram, which counts the rows of all times; "
                "omit time_column and settle"
            )
        if column in (info.data.get("value_column"), *info.data.get("attribute_columns", ())):
            raise ValueError(f"column {column!r} is also a value or attribute column; write only one of them")
        if info.data.get("type", "gauge") != "gauge":
            raise ValueError(
                f"is a key of gauges, and type is {info.data['type']}, whose points begin at its start time; "
                "write type: gauge, or omit time_column"
            )
        if info.data.get("attribute_values"):
            raise ValueError(
                "cannot be combined with attribute_values, because a 0 without a row has no time; "
                "omit attribute_values"
            )
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
        """Return the definition without its histogram, which `with_histograms` adds to the query."""
        parts = self.parts()
        del parts["histogram"]
        return MetricDefinition(**parts)


_NO_HISTOGRAM = {
    "type": "is not gauge, but the counts of a histogram may fall; omit type",
    "on_null": "has no effect on a histogram, which ignores NULL; omit it, or write coalesce() in sql",
    "alert": "compares one value, and a histogram has many; omit it, and write a rule with "
    "histogram_quantile()",
}


def _is_histogram(info: ValidationInfo) -> bool:
    """Return whether the metric has boundaries, even invalid ones, so that all its mistakes are reported."""
    return info.data.get("histogram", True) is not None


def _check_le(attributes: Collection[str], info: ValidationInfo) -> None:
    if LE in attributes and _is_histogram(info):
        raise ValueError(f"{LE!r} is the bound of the histogram's buckets; rename it")


def _check_histogram_name(name: str, unit: str) -> None:
    """Raise MisfitError if Prometheus would append the unit after `_sum`, so that the names differ."""
    longest = max(map(len, SUFFIXES))
    if len(name) + longest > 255:
        raise MisfitError(
            f"has {len(name)} characters; write at most {255 - longest} for a histogram", "name"
        )
    translated = metric_name(f"{name}_sum", unit)
    if translated.endswith("_sum"):
        return
    word = translated.rpartition("_sum_")[2]
    if metric_name(f"{name}_{word}_sum", unit).endswith("_sum"):
        raise MisfitError(
            f"lacks the unit: the sum of the histogram becomes {translated} in Prometheus; "
            f"write {name}_{word}",
            "name",
        )
    raise MisfitError(
        f"is appended to the name of a gauge: the sum of the histogram becomes {translated} in Prometheus; "
        f"write the unit as the name of a thing, {{{word}}}",
        "unit",
    )
