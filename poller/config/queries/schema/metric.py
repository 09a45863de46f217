"""Schema of a metric in a query file, and of its alert."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Self, get_args

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from poller.config.queries.schema.fields import AlsoText, Duration, Part, whole
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
    """A finite number; of a share, `50%` as well. Raises ValueError."""
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


class DeclaredAlert(Part):
    """One alerting rule of Prometheus over one metric: a limit, and how long it must be passed."""

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
        description="What is compared: the value, its growth in a day, or its change since last week.",
        examples=["daily_growth"],
    )
    above: Limit | None = Field(
        default=None,
        description="Limit above which somebody is told: in the metric's unit, of a change a share.",
        examples=[100000],
    )
    below: Limit | None = Field(
        default=None,
        description="Limit below which somebody is told; one alert has one limit.",
        examples=[1],
    )
    for_: Duration = Field(
        default=900.0,
        alias="for",
        description="How long the limit must be passed without a break, 0s to 7d.",
        examples=["30m"],
        ge=0,
        le=7 * 86400,
    )
    severity: Severity = Field(
        default="warning", description="Label by which alerts are routed.", examples=["critical"]
    )
    summary: str | None = Field(
        default=None,
        description="What the one who is told reads first. Default: metric, limit and value.",
        examples=["The queue is longer than a night's work."],
        min_length=1,
    )
    runbook: str | None = Field(
        default=None,
        description="Address of a page that says what to do. Default: the runbook's section on such alerts.",
        examples=["https://wiki.example/queues"],
        min_length=1,
    )

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("names no limit; write above or below and a number")
        if self.above is not None and self.below is not None:
            raise ValueError("has two limits; write one alert with above and one with below")
        return self

    def definition(self) -> Alert:
        return Alert(**self.parts())


_A_ROW_PER_BUCKET = (
    ", as OTLP has no histogram that falls; give the query a row per bucket, with the count of all up to the "
    "bound `le` ('+Inf' for the last), and write attribute_columns: [le], which histogram_quantile() reads"
)
_INSTEAD = {
    "histogram": _A_ROW_PER_BUCKET,
    "exponentialhistogram": _A_ROW_PER_BUCKET,
    "summary": "; give the query a row per quantile, and write attribute_columns: [quantile]",
    "sum": "; write counter where it only grows, else updowncounter",
}
"""What to write for the other types of OTLP and Prometheus."""

_METRIC_NAME = re.compile(r"[a-z][a-z0-9_.]{0,254}")
_ATTRIBUTE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,254}")
_AS_ATTRIBUTE = whole(_ATTRIBUTE_NAME, unless="_[._]")


class DeclaredMetric(Part):
    """One metric that a query feeds: a value column, and the columns that tell its series apart."""

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
        }
    )

    name: str = Field(
        description="Name of the metric, exported exactly so (lower case; letters, digits, _ and .).",
        examples=["pending_messages_total"],
        json_schema_extra={"pattern": whole(_METRIC_NAME, unless="poller[._]")},
    )
    description: str = Field(
        description="What the number means, in a sentence that people read in a dashboard.",
        examples=["Messages waiting for delivery."],
        min_length=1,
        json_schema_extra={"type": ["string", "number"], "pattern": r"\S"},
    )
    unit: str = Field(
        description="Unit in UCUM: `By`, `s`, `%`, or the thing counted in braces, `{message}`.",
        examples=["{message}", "By", "s"],
    )
    type: MetricType = Field(
        default="gauge",
        description="gauge: a value as it is now. counter: what only grows, but for resets, a monotonic sum. "
        "updowncounter: a sum that may fall.",
        examples=["counter"],
    )
    value_column: str = Field(
        description="Result column with the value; it must be of a numeric type.",
        examples=["pending"],
        min_length=1,
    )
    attribute_columns: tuple[str, ...] = Field(
        default=(),
        description="Result columns that become attributes, one series per distinct set.",
        examples=[["state", "tenant"]],
        json_schema_extra={"items": {"type": "string", "pattern": _AS_ATTRIBUTE}, "uniqueItems": True},
    )
    attribute_values: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="All values that a column can have: one without a row is 0 (not of a counter), any other "
        "is refused.",
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
        json_schema_extra={"propertyNames": {"pattern": _AS_ATTRIBUTE}},
    )
    on_null: OnNull = Field(
        default="drop",
        description="A NULL value: drop the row and count it, export 0, or fail the query.",
        examples=["drop"],
    )
    alert: tuple[DeclaredAlert, ...] = Field(
        default=(),
        description="When `poller alerts` shall have Prometheus tell somebody of the metric.",
        examples=[[{"above": 100000}]],
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
            raise ValueError(f"{quote(name)} begins with {name[:7]}, which is the poller's own; rename it")
        return name

    @field_validator("description")
    @classmethod
    def _description(cls, description: str) -> str:
        if not description.strip():
            raise ValueError("is blank; write a sentence that says what the number means")
        return description

    @field_validator("unit")
    @classmethod
    def _unit(cls, unit: str) -> str:
        if problem := unit_problem(unit):
            raise ValueError(problem)
        return unit

    @field_validator("type", mode="before")
    @classmethod
    def _type(cls, given: object) -> object:
        known = get_args(MetricType)
        if isinstance(given, str) and given and given not in known:
            instead = _INSTEAD.get(given.lower().replace("_", "")) or did_you_mean(given, known)
            raise ValueError(f"{quote(given)} is none of {', '.join(known)}{instead}")
        return given

    @field_validator("attribute_columns")
    @classmethod
    def _attribute_columns(cls, columns: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        _labels(columns, "rename the column with AS")
        if len(set(columns)) < len(columns):
            twice = next(column for column, count in Counter(columns).items() if count > 1)
            raise ValueError(f"column {twice!r} stands twice; keep one")
        if (value := info.data.get("value_column")) in columns:
            raise ValueError(f"column {value!r} is the value_column too; keep one of the two")
        return columns

    @field_validator("attribute_values")
    @classmethod
    def _attribute_values(
        cls, closed: Mapping[str, tuple[str, ...]], info: ValidationInfo
    ) -> Mapping[str, tuple[str, ...]]:
        columns = info.data.get("attribute_columns")
        for name, values in closed.items():
            if columns is not None and name not in columns:
                raise ValueError(
                    f"{quote(name)} is none of the attribute_columns; name it there, or leave it out"
                )
            if not values:
                raise ValueError(f"{name!r} has no values; list all that the column can have")
            if len(set(values)) < len(values):
                twice = next(value for value, count in Counter(values).items() if count > 1)
                raise ValueError(f"value {quote(twice)} of {name!r} stands twice; keep one")
            if long := next((value for value in values if len(value) > MAX_ATTRIBUTE_LENGTH), None):
                raise ValueError(
                    f"value {quote(long)} of {name!r} has {len(long)} characters; "
                    f"the most is {MAX_ATTRIBUTE_LENGTH}"
                )
        return closed

    @field_validator("attributes")
    @classmethod
    def _attributes(
        cls, attributes: Mapping[str, AttributeValue], info: ValidationInfo
    ) -> Mapping[str, AttributeValue]:
        columns = _labels(info.data.get("attribute_columns", ()))
        for label, name in _labels(attributes).items():
            if columns.get(label) == name:
                raise ValueError(f"{name!r} is one of the attribute_columns too; keep one of the two")
            if label in columns:
                raise ValueError(_one_label(columns[label], name))
        for name, value in attributes.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"attribute {name!r} is {value}, which is no value; write a text")
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError(f"attribute {name!r} is an integer beyond 64 bits; write it in quotes")
        return attributes

    @field_validator("on_null")
    @classmethod
    def _on_null(cls, on_null: str, info: ValidationInfo) -> str:
        if on_null == "zero" and info.data.get("type") == "counter":
            raise ValueError("is zero, which of a counter would look like a reset; write drop or fail")
        return on_null

    @field_validator("alert")
    @classmethod
    def _alert(cls, alerts: tuple[DeclaredAlert, ...], info: ValidationInfo) -> tuple[DeclaredAlert, ...]:
        if info.data.get("type") == "counter" and any(one.of == "value" for one in alerts):
            raise ValueError(
                "compares the value of a counter, which mostly says how long it has counted; "
                "write of: daily_growth or of: weekly_change"
            )
        for name, count in Counter(
            f"{one.of}, {one.definition().side}, {one.severity}" for one in alerts
        ).items():
            if count > 1:
                raise ValueError(f"has two alerts of one kind ({name}); give one another severity")
        return alerts

    def definition(self) -> MetricDefinition:
        return MetricDefinition(**self.parts())


def _labels(names: Iterable[str], remedy: str = "rename it") -> dict[str, str]:
    """The names of attributes by the label that OTLP-to-Prometheus translation makes of each."""
    labels: dict[str, str] = {}
    for name in names:
        if not _ATTRIBUTE_NAME.fullmatch(name):
            raise ValueError(
                f"{quote(name)} is not an attribute name; write letters, digits, _ and ., "
                f"starting with a letter or _, or {remedy}"
            )
        if name.replace(".", "_").startswith("__"):
            raise ValueError(f"{name!r} begins as Prometheus' own labels do (__); {remedy}")
        first = labels.setdefault(name.replace(".", "_"), name)
        if first != name:
            raise ValueError(_one_label(first, name))
    return labels


def _one_label(first: str, second: str) -> str:
    return f"{first!r} and {second!r} become one label in Prometheus; rename one"
