"""The nouns: what a query file declares, and what one poll of it came to."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from poller.alert import Alert
from poller.definition import Definition
from poller.definition import Duration as Duration  # noqa: PLC0414 - known from here to all that use a query's
from poller.definition import MisfitError as MisfitError  # noqa: PLC0414
from poller.definition import format_duration as format_duration  # noqa: PLC0414
from poller.definition import parse_duration as parse_duration  # noqa: PLC0414
from poller.errors import PollError
from poller.overflow import Limit, Rows
from poller.statement import is_ordered, statement_problem
from poller.units import unit_problem
from poller.words import shown

AttributeValue = str | bool | int | float
"""An attribute value that OTLP carries as it is (OpenTelemetry specification, common/README.md)."""

DEFAULT_INTERVAL = 300.0
DEFAULT_TIMEOUT = 30.0
DEFAULT_MAX_SERIES = 1000
STALE_AFTER_INTERVALS = 3
MAX_ATTRIBUTE_LENGTH = 1024
"""Characters; a longer attribute value is a sign of data that was never meant to be one."""

_METRIC_NAME = re.compile(r"[a-z][a-z0-9_.]{0,254}")
_QUERY_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_ATTRIBUTE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,254}")
_VERSION_RANGE = re.compile(r"(?:>=|>|<=|<|==)\s*\d+(?:\.\d+)?(?:\s*,\s*(?:>=|>|<=|<|==)\s*\d+(?:\.\d+)?)*")


class MetricDefinition(Definition):
    """One gauge that a query feeds: a value column, and the columns that tell its series apart."""

    name: str = Field(
        description="Name of the metric, exported exactly so (lower case; letters, digits, _ and .).",
        examples=["pending_messages_total"],
    )
    description: str = Field(
        description="What the number means, in a sentence that people read in a dashboard.",
        examples=["Messages waiting for delivery."],
        min_length=1,
    )
    unit: str = Field(
        description="Unit in UCUM: `By`, `s`, `%`, or the thing counted in braces, `{message}`.",
        examples=["{message}", "By", "s"],
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
    )
    attribute_values: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="All values that a column can have: one without a row is 0, any other is refused.",
        examples=[{"state": ["queued", "sent"]}],
    )
    attributes: Mapping[str, AttributeValue] = Field(
        default_factory=dict, description="Attributes with a fixed value.", examples=[{"env": "prod"}]
    )
    on_null: Literal["drop", "zero", "fail"] = Field(
        default="drop",
        description="A NULL value: drop the row and count it, export 0, or fail the query.",
        examples=["drop"],
    )
    alert: tuple[Alert, ...] = Field(
        default=(),
        description="When `poller alerts` shall have Prometheus tell somebody of the metric.",
        examples=[[{"above": 100000}]],
    )

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if not _METRIC_NAME.fullmatch(name):
            raise ValueError(
                f"{shown(name)} is not a metric name; write lower-case letters, digits, _ and ., "
                "starting with a letter, at most 255"
            )
        if name.startswith(("poller.", "poller_")):
            raise ValueError(f"{shown(name)} begins with {name[:7]}, which is the poller's own; rename it")
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
                    f"{shown(name)} is none of the attribute_columns; name it there, or leave it out"
                )
            if not values:
                raise ValueError(f"{name!r} has no values; list all that the column can have")
            if len(set(values)) < len(values):
                twice = next(value for value, count in Counter(values).items() if count > 1)
                raise ValueError(f"value {shown(twice)} of {name!r} stands twice; keep one")
            if long := next((value for value in values if len(value) > MAX_ATTRIBUTE_LENGTH), None):
                raise ValueError(
                    f"value {shown(long)} of {name!r} has {len(long)} characters; "
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

    @field_validator("alert")
    @classmethod
    def _alert(cls, alerts: tuple[Alert, ...]) -> tuple[Alert, ...]:
        for name, count in Counter(f"{one.of}, {one.side}, {one.severity}" for one in alerts).items():
            if count > 1:
                raise ValueError(f"has two alerts of one kind ({name}); give one another severity")
        return alerts


def _labels(names: Iterable[str], remedy: str = "rename it") -> dict[str, str]:
    """The names of attributes by the label that OTLP-to-Prometheus translation makes of each."""
    labels: dict[str, str] = {}
    for name in names:
        if not _ATTRIBUTE_NAME.fullmatch(name):
            raise ValueError(
                f"{shown(name)} is not an attribute name; write letters, digits, _ and ., "
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


class Requirements(Definition):
    """What must hold on the server before a query is sent; where it does not, the query is skipped."""

    columns: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Relations and the columns they must have (an empty list: the relation alone).",
        examples=[{"attachments": ["size_bytes"]}],
    )
    role: Literal["standby", "primary", "any"] = Field(
        default="any", description="Whether the server is a standby or a primary.", examples=["standby"]
    )
    server_version: str | None = Field(
        default=None,
        description="Range of the server's version, its parts joined by commas.",
        examples=[">=14", ">=14,<18"],
    )
    extensions: tuple[str, ...] = Field(
        default=(), description="Extensions that must be installed.", examples=[["pg_stat_statements"]]
    )
    member_of: tuple[str, ...] = Field(
        default=(),
        description="Roles whose privileges the poller's role must have.",
        examples=[["pg_read_all_stats"]],
    )

    @field_validator("server_version")
    @classmethod
    def _version(cls, version: str | None) -> str | None:
        if version is not None and not _VERSION_RANGE.fullmatch(version.strip()):
            raise ValueError(f"{shown(version)} is not a version range; write one like >=14 or >=14,<18")
        return version


class Estimate(Definition):
    """The cheap answer to a query that would cost too much."""

    sql: str = Field(
        description="One statement with the same columns as the query's, and far cheaper.",
        examples=["SELECT reltuples::bigint AS pending FROM pg_class WHERE oid = 'messages'::regclass"],
    )
    above_cost: float = Field(
        description="Planner cost of the query's own sql (EXPLAIN's total) above which this is run.",
        examples=[1000000],
        gt=0,
    )

    @field_validator("sql")
    @classmethod
    def _sql(cls, sql: str) -> str:
        if problem := statement_problem(sql):
            raise ValueError(problem)
        return sql


class QueryDefinition(Definition):
    """One SQL statement, when to run it, within which bounds, and the metrics its rows feed."""

    name: str = Field(
        description="Name of the query, unique over all files; it labels every self-metric and log line.",
        examples=["pending_messages"],
    )
    sql: str = Field(
        description="One statement that reads: SELECT, WITH, VALUES, TABLE or SHOW.",
        examples=["SELECT count(*) AS pending FROM messages WHERE expires_at > now()"],
    )
    interval: Duration = Field(
        default=DEFAULT_INTERVAL,
        description="Time between two polls, 1s to 24h. Default: POLLER_INTERVAL (5m).",
        examples=["5m"],
        ge=1,
        le=86400,
    )
    timeout: Duration = Field(
        default=DEFAULT_TIMEOUT,
        description="Longest run, enforced by the server (statement_timeout). "
        "Default: POLLER_TIMEOUT (30s), or the interval where that is shorter.",
        examples=["30s"],
        ge=0.001,
        validate_default=True,
    )
    max_age: Duration = Field(
        default=DEFAULT_INTERVAL * STALE_AFTER_INTERVALS,
        description="Age from which a value is no longer exported. Default: three intervals.",
        examples=["15m"],
        validate_default=True,
    )
    max_series: int = Field(
        default=DEFAULT_MAX_SERIES,
        description="Rows kept of one result: the first by its ORDER BY, or by their attributes without one.",
        examples=[1000],
        ge=1,
        le=1_000_000,
    )
    overflow: Literal["drop", "other"] = Field(
        default="drop",
        description="The rows beyond max_series: dropped and counted, or summed up in one series `other`.",
        examples=["other"],
    )
    group: str = Field(
        default="default",
        description="Queries of equal group and interval are polled together, in one tick.",
        examples=["inventory"],
        min_length=1,
    )
    requires: Requirements = Field(
        default_factory=Requirements,
        description="What must hold on the server; where it does not, the query is skipped with the reason.",
        examples=[{"columns": {"attachments": ["size_bytes"]}}],
    )
    snapshot: bool = Field(
        default=True,
        description="Whether the query shares its tick's one snapshot; false: a transaction of its own.",
        examples=[True],
    )
    estimate: Estimate | None = Field(
        default=None,
        description="What is run instead where the query would cost too much, or after it timed out.",
        examples=[
            {
                "sql": "SELECT reltuples::bigint AS n FROM pg_class WHERE oid = 'users'::regclass",
                "above_cost": 1000000,
            }
        ],
    )
    metrics: tuple[MetricDefinition, ...] = Field(
        description="The gauges that the rows feed.",
        min_length=1,
        examples=[
            [
                {
                    "name": "users_total",
                    "unit": "{user}",
                    "value_column": "n",
                    "description": "Registered users.",
                }
            ]
        ],
    )

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if not _QUERY_NAME.fullmatch(name):
            raise ValueError(
                f"{shown(name)} is not a query name; write lower-case letters, digits, _, - and ., "
                "starting with a letter, at most 63"
            )
        return name

    @field_validator("sql")
    @classmethod
    def _sql(cls, sql: str) -> str:
        if problem := statement_problem(sql):
            raise ValueError(problem)
        return sql

    # These see only what was accepted before them, so one wrong key does not hide what another has wrong.

    @field_validator("timeout")
    @classmethod
    def _timeout(cls, timeout: float, info: ValidationInfo) -> float:
        interval = info.data.get("interval")
        if interval is not None and interval < timeout:
            raise MisfitError(
                f"interval {format_duration(interval)} is shorter than timeout {format_duration(timeout)}; "
                f"write an interval of at least {format_duration(timeout)}, or a shorter timeout",
                "interval",
                "timeout",
            )
        return timeout

    @field_validator("overflow")
    @classmethod
    def _overflow(cls, overflow: str, info: ValidationInfo) -> str:
        sql = info.data.get("sql")
        if overflow == "other" and sql is not None and not is_ordered(sql):
            raise ValueError("is other, and sql does not say which rows stay apart; end it with ORDER BY")
        return overflow

    @field_validator("metrics")
    @classmethod
    def _metrics(
        cls, metrics: tuple[MetricDefinition, ...], info: ValidationInfo
    ) -> tuple[MetricDefinition, ...]:
        for metric in metrics:
            if info.data.get("overflow") == "other" and not metric.attribute_columns:
                raise MisfitError(
                    f"is other, and {metric.name} has no attribute_columns to write `other` into; name some",
                    "overflow",
                )
            sets = math.prod(len(values) for values in metric.attribute_values.values())
            most = info.data.get("max_series", sets)
            if sets > most:
                raise MisfitError(
                    f"{metric.name} has {sets} sets of attribute_values and max_series is {most}; "
                    f"write max_series: {sets}, or close fewer columns",
                    "max_series",
                    "metrics",
                )
        return metrics

    @cached_property
    def limit(self) -> Limit:
        """Which rows of a result are kept, and what is made of the rest."""
        columns = {name: None for metric in self.metrics for name in metric.attribute_columns}
        return Limit(
            self.max_series,
            # Without an ORDER BY the server may give them in another order each time.
            order=() if is_ordered(self.sql) else tuple(columns),
            fold=tuple(metric.value_column for metric in self.metrics) if self.overflow == "other" else (),
        )

    @field_validator("max_age")
    @classmethod
    def _max_age(cls, max_age: float, info: ValidationInfo) -> float:
        interval = info.data.get("interval")
        if interval is not None and max_age < interval:
            raise MisfitError(
                f"max_age {format_duration(max_age)} is shorter than interval {format_duration(interval)}, "
                f"so every value would vanish before the next; write at least {format_duration(interval)}",
                "max_age",
                "interval",
            )
        return max_age


SkipReason = Literal[
    "role", "version", "extension", "relation", "column", "privilege", "excess_privilege", "primary", "lag",
    "busy", "duty_cycle", "breaker", "budget",
]  # fmt: skip
"""Why a query was not sent, in the words of `poller.reason`."""
REFUSALS: frozenset[SkipReason] = frozenset({"primary", "lag", "excess_privilege"})
"""Those that keep back all queries alike."""
HOLDS: frozenset[SkipReason] = frozenset({"busy", "duty_cycle", "breaker"})
"""Those for which an estimate, where there is one, answers instead."""
DECLARED: tuple[SkipReason, ...] = ("role", "version", "extension", "relation", "column")
"""Those that the query itself asks for, by its `requires`."""


EstimateReason = Literal["cost", "timeout", "busy", "duty_cycle", "breaker"]
"""Why an estimate answered: the planner's cost, the exact query's timeout, or what would have skipped it."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A query that was not sent: why, in a word and in a sentence."""

    reason: SkipReason
    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, slots=True)
class Answer:
    """What the replica said to one query: exactly one of rows, error and skipped is set."""

    query: QueryDefinition
    at: float
    """When the snapshot was taken: seconds since 1970, UTC; the same for all answers of one tick."""
    duration: float
    """Seconds the query kept the connection."""
    rows: Rows | None = None
    error: PollError | None = None
    skipped: Skip | None = None
    estimated: EstimateReason | None = None
    """Set where the rows are those of the estimate: why the query's own are not there."""
    answered: float = 0.0
    """When it was told: seconds on a monotonic clock."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series' value: an int within 64 bits or a finite float."""

    metric: str
    value: int | float
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row that a metric got no data point of: why, and what the row held, as text (NULL as None)."""

    metric: str
    reason: str
    row: Mapping[str, str | None]


Outcome = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class PollResult:
    """What one poll of one query came to; a failure is a value here, not an exception in flight."""

    query: QueryDefinition
    at: float
    """When the answer was asked for: seconds since 1970, UTC."""
    duration: float
    """Seconds from asking to the last row."""
    outcome: Outcome
    samples: tuple[Sample, ...] = ()
    quarantined: Mapping[str, int] = field(default_factory=dict)
    """Data points that were not exported, by reason."""
    refused: tuple[Refusal, ...] = ()
    """The first of them, for people to look at."""
    folded: int = 0
    """Data points that are in the sums of a series `other`."""
    advice: str | None = None
    """What is wrong with a metric that got no data point at all, and what to write instead."""
    error: PollError | None = None
    """Set exactly when the outcome is `failed`."""
    skipped: Skip | None = None
    """Set exactly when the outcome is `skipped`."""
    estimated: EstimateReason | None = None
    """Set where the samples are the estimate's: why the exact ones are not there."""

    @property
    def error_type(self) -> str | None:
        return self.error.kind if self.error else None
