"""Schema of a query in a query file."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator

from poller.config.fields import NOT_A_BOOLEAN, Duration, MisfitError, Part, raise_all, whole
from poller.config.queries.histogram import with_histogram
from poller.config.queries.schema.contradictions import contradictions
from poller.config.queries.schema.estimate import DeclaredEstimate, bound
from poller.config.queries.schema.metric import DeclaredMetric
from poller.config.queries.schema.parameters import DeclaredParameters
from poller.config.queries.schema.requirements import DeclaredRequirements
from poller.config.queries.schema.schedule import Cron, TimeZone
from poller.config.queries.schema.server_settings import AS_SERVER_SETTINGS, ServerSettings
from poller.config.queries.sql_check import is_ordered
from poller.model.duration import format_duration
from poller.model.query import (
    DEFAULT_INTERVAL,
    DEFAULT_MAX_SERIES,
    DEFAULT_TIMEOUT,
    NO_PARAMETERS,
    STALE_AFTER_INTERVALS,
    Overflow,
    Parameters,
    QueryDefinition,
)
from poller.model.schedule import Schedule, distances
from poller.model.text import quote

_OWNER = re.compile(r"\S|\S[^\r\n]{0,126}\S")
_QUERY_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,62}")


_SELECTOR = re.compile(r"!?(?:name:\S.{0,254}|[A-Za-z0-9][A-Za-z0-9_.-]{0,62})")


def _selector(text: str) -> str:
    if not _SELECTOR.fullmatch(text):
        raise ValueError(
            f"{quote(text)} is not a selector; write a tag, or `name:` and a pattern; "
            "`!` in front of it excludes targets"
        )
    return text


Selector = Annotated[str, AfterValidator(_selector), Field(json_schema_extra={"pattern": whole(_SELECTOR)})]


class DeclaredQuery(Part):
    """One SQL statement, its schedule and limits, and the metrics that its rows feed."""

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {"timezone": ["schedule"]},
            "allOf": [
                {
                    "if": {"required": ["schedule"], "properties": {"schedule": {"type": "string"}}},
                    "then": {"not": {"required": ["interval"]}},
                },
                {
                    "if": {"required": ["overflow"], "properties": {"overflow": {"const": "other"}}},
                    "then": {
                        "properties": {
                            "metrics": {
                                "items": {
                                    "required": ["attribute_columns"],
                                    "properties": {
                                        "attribute_columns": {"minItems": 1},
                                        "time_column": {"type": "null"},
                                    },
                                }
                            }
                        }
                    },
                },
                {
                    "if": {
                        "properties": {
                            "metrics": {
                                "contains": {
                                    "required": ["type"],
                                    "properties": {"type": {"const": "counter"}},
                                }
                            }
                        }
                    },
                    "then": {
                        "properties": {"overflow": {"const": "drop"}, "estimate": {"type": "null"}},
                    },
                },
            ],
        }
    )

    name: str = Field(
        description="Name of the query, unique in all files; it labels every self-metric and log record.",
        examples=["pending_messages"],
        json_schema_extra={"pattern": whole(_QUERY_NAME)},
    )
    sql: str = Field(
        description="One statement that only reads: SELECT, WITH, VALUES or TABLE.",
        examples=["SELECT count(*) AS pending FROM messages WHERE expires_at > now()"],
        json_schema_extra={"pattern": r"\S"},
    )
    interval: Duration = Field(
        default=DEFAULT_INTERVAL,
        description="Time between two polls, 1s to 24h. Default: POLLER_INTERVAL (5m).",
        examples=["5m"],
        ge=1,
        le=86400,
    )
    schedule: Cron | None = Field(
        default=None,
        description="Times of the polls in the format of cron, instead of interval: minute, hour, day of the "
        "month, month, weekday; or @hourly, @daily, @weekly, @monthly, @yearly.",
        examples=["15 3 * * *", "*/10 8-17 * * mon-fri"],
    )
    timezone: TimeZone = Field(
        default="UTC", description="Time zone of the schedule.", examples=["Europe/Berlin"]
    )
    timeout: Duration = Field(
        default=DEFAULT_TIMEOUT,
        description="Maximum run time, enforced by the server (statement_timeout). "
        "Default: POLLER_TIMEOUT (30s), or the interval if that is shorter.",
        examples=["30s"],
        ge=0.001,
        le=86400,
        validate_default=True,
    )
    max_age: Duration = Field(
        default=DEFAULT_INTERVAL * STALE_AFTER_INTERVALS,
        description="Maximum age of an exported value. Default: three intervals, or twice the longest time "
        "between two runs of the schedule.",
        examples=["15m"],
        validate_default=True,
    )
    max_series: Annotated[int, NOT_A_BOOLEAN] = Field(
        default=DEFAULT_MAX_SERIES,
        description="Maximum rows of one result: the first by ORDER BY, or by their attributes without it.",
        examples=[1000],
        ge=1,
        le=1_000_000,
    )
    overflow: Overflow = Field(
        default="drop",
        description="Rows beyond max_series: drop and count them, or sum them up in one series `other`.",
        examples=["other"],
    )
    group: str = Field(
        default="default",
        description="Queries with equal group and interval or schedule are polled together, in one tick.",
        examples=["inventory"],
        min_length=1,
    )
    requires: DeclaredRequirements = Field(
        default_factory=DeclaredRequirements,
        description="Conditions that the server must meet; otherwise the query is skipped, with the reason.",
        examples=[{"columns": {"attachments": ["size_bytes"]}}],
    )
    snapshot: bool = Field(
        default=True,
        description="Whether the query shares the snapshot of its tick; false: it has its own transaction.",
        examples=[True],
    )
    estimate: DeclaredEstimate | None = Field(
        default=None,
        description="Statement that runs instead if the query would cost too much, or after a timeout.",
        examples=[
            {
                "sql": "SELECT nullif(reltuples, -1)::bigint AS n FROM pg_class WHERE oid = 't'::regclass",
                "above_cost": 1000000,
            }
        ],
    )
    targets: tuple[Selector, ...] = Field(
        default=(),
        description="Targets that are polled: tags, or `name:` and a pattern; `!` excludes. Default: all.",
        examples=[["messaging", "!eu", "name:eu-*"]],
    )
    once_per_server: bool = Field(
        default=False,
        description="Whether, of all databases of a server, only the one that lists the others is polled.",
        examples=[True],
    )
    owner: str | None = Field(
        default=None,
        description="Responsible person or team: label `owner` of its alerts; in `catalog` and `doctor`.",
        examples=["messaging-team"],
        json_schema_extra={"type": ["string", "null"], "pattern": whole(_OWNER)},
    )
    parameters: DeclaredParameters | None = Field(
        default=None,
        description="Values for `:name` in the sql, which runs with each combination; also attributes.",
        examples=[{"state": ["queued", "sent"], "tier": ["gold", "free"]}],
    )
    max_cost: Annotated[float | None, NOT_A_BOOLEAN] = Field(
        default=None,
        description="Planner cost above which the query is skipped. Default: POLLER_MAX_COST (no limit).",
        examples=[1000000],
        ge=0.01,
        le=1e300,
    )
    settings: ServerSettings = Field(
        default_factory=dict,
        description="PostgreSQL settings during the query: memory, the planner, search_path, TimeZone.",
        examples=[{"work_mem": "256MB", "jit": "off", "search_path": "tenant_a"}],
        json_schema_extra=AS_SERVER_SETTINGS,
    )
    metrics: tuple[DeclaredMetric, ...] = Field(
        description="Metrics that the rows feed.",
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
                f"{quote(name)} is not a query name; write lower-case letters, digits, _, - and ., "
                "starting with a letter, at most 63"
            )
        return name

    @field_validator("owner")
    @classmethod
    def _owner(cls, owner: str | None) -> str | None:
        if owner is not None and not (_OWNER.fullmatch(owner) and owner.isprintable()):
            raise ValueError(
                f"{quote(owner)} is not a name in one line; write at most 128 printable characters"
            )
        return owner

    @field_validator("sql")
    @classmethod
    def _sql(cls, sql: str, info: ValidationInfo) -> str:
        return bound(sql, info)

    # `info.data` has only the valid keys, so one wrong key does not hide the problem of another.

    @field_validator("schedule")
    @classmethod
    def _schedule(cls, expression: str | None, info: ValidationInfo) -> str | None:
        if expression is not None and "interval" in (info.context or ()):
            raise ValueError("cannot be combined with interval; remove one of them")
        return expression

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, name: str, info: ValidationInfo) -> str:
        if info.data.get("schedule", "") is None:
            raise ValueError("is the time zone of a schedule; add `schedule`, or remove it")
        return name

    @field_validator("timeout")
    @classmethod
    def _timeout(cls, timeout: float, info: ValidationInfo) -> float:
        interval = _interval(info)
        if interval is not None and interval < timeout:
            if info.data["schedule"] is not None:
                shortest = format_duration(interval)
                raise ValueError(f"is longer than the time between two runs; write at most {shortest}")
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
            raise ValueError("is other, which requires an order of the rows; end sql with ORDER BY")
        return overflow

    @field_validator("parameters")
    @classmethod
    def _parameters(cls, parameters: Parameters | None, info: ValidationInfo) -> Parameters | None:
        count = len(parameters or ())
        if count > (most := info.data.get("max_series", count)):
            raise MisfitError(
                f"parameters has {count} combinations and max_series is {most}; "
                f"write max_series: {count}, or fewer values",
                "max_series",
                "parameters",
            )
        return parameters

    @field_validator("metrics")
    @classmethod
    def _metrics(
        cls, metrics: tuple[DeclaredMetric, ...], info: ValidationInfo
    ) -> tuple[DeclaredMetric, ...]:
        raise_all(contradictions(metrics, info))
        return metrics

    @field_validator("max_age")
    @classmethod
    def _max_age(cls, max_age: float, info: ValidationInfo) -> float:
        interval = _interval(info)
        if interval is not None and max_age < interval:
            if info.data["schedule"] is not None:
                shortest = format_duration(interval)
                raise ValueError(f"is shorter than the time between two runs; write at least {shortest}")
            raise MisfitError(
                f"max_age {format_duration(max_age)} is shorter than interval {format_duration(interval)}, "
                f"so values would expire before the next poll; write at least {format_duration(interval)}",
                "max_age",
                "interval",
            )
        return max_age

    def definition(self) -> QueryDefinition:
        parts = self.parts()
        timezone = parts.pop("timezone")
        if self.schedule is not None:
            parts["schedule"] = Schedule(self.schedule, timezone)
        parts["parameters"] = parts["parameters"] or NO_PARAMETERS
        query = QueryDefinition(**parts, ordered=is_ordered(self.sql))
        if boundaries := self.metrics[0].histogram:
            query = with_histogram(query, boundaries)
        names = tuple(query.parameters[0])
        metrics = tuple(
            replace(metric, attribute_columns=(*metric.attribute_columns, *names)) for metric in query.metrics
        )
        return replace(query, metrics=metrics)


def _interval(info: ValidationInfo) -> float | None:
    """Return the interval, or the shortest time between two runs of the schedule; None if it is invalid."""
    if "schedule" not in info.data:
        return None
    schedule = info.data["schedule"]
    return info.data.get("interval") if schedule is None else distances(schedule).shortest
