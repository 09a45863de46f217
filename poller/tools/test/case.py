"""Schema of a test case: fixture rows, a query, and the expected result."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from poller.config.fields import Part
from poller.model.numbers import is_representable
from poller.model.query import AttributeValue
from poller.model.text import did_you_mean, kind_of, quote

REASONS = (
    "null", "nan", "infinite", "not_a_number", "negative", "duplicate", "not_utf8", "attribute_too_long",
    "undeclared_value", "overflow", "not_a_time", "future", "late",
)  # fmt: skip
"""Values of `poller.reason`: why a data point is not exported."""


def parse_time(text: str) -> datetime | None:
    """Return the time with its time zone; None if `text` is not one."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if time.tzinfo is None else time


class Expectation(Part):
    """One series that the query must produce."""

    metric: str | None = Field(
        default=None,
        description="Name of the metric; optional if the query feeds only one metric.",
        examples=["pending_messages_total"],
    )
    attributes: Mapping[str, AttributeValue] = Field(
        default_factory=dict, description="All of its attributes.", examples=[{"state": "queued"}]
    )
    value: int | float | Literal["any"] = Field(
        description="The value, or `any` if only the existence of the series matters.", examples=[3]
    )

    time: str | None = Field(
        default=None,
        description="Time of the data point, if the metric has a time_column; optional.",
        examples=["2026-03-01T13:00:00Z"],
    )

    @field_validator("time")
    @classmethod
    def _time(cls, time: str | None) -> str | None:
        if time is not None and parse_time(time) is None:
            raise ValueError(f"{quote(time)} is not a time with a time zone; write '2026-03-01T13:00:00Z'")
        return time

    @field_validator("value", mode="before")
    @classmethod
    def _value(cls, value: object) -> object:
        if is_representable(value) or value == "any":
            return value
        actual = quote(value) if isinstance(value, str | bool) else kind_of(value)
        raise ValueError(f"is {actual}, not a number; write for example `value: 3`, or `value: any`")


class Case(Part):
    """Fixture rows, a query, and its expected series, failure or skip."""

    name: str = Field(
        description="Short description of the case; unique in its file.",
        examples=["expired messages do not count"],
        min_length=1,
    )
    query: str | None = Field(
        default=None,
        description="Name of the query; optional if the query file has only one query.",
        examples=["pending_messages"],
    )
    rows: Mapping[str, str] = Field(
        default_factory=dict,
        description="Rows of each table as CSV; the first line names the columns, an empty cell is NULL.",
        examples=[{"messages": "id,expires_at"}],
    )
    files: Mapping[str, str] = Field(
        default_factory=dict,
        description="CSV files with the rows of each table; paths are relative to the folder of this file.",
        examples=[{"messages": "messages.csv"}],
    )
    sql: str = Field(
        default="",
        description="Statements that create rows, run after `rows` and `files` are loaded.",
        examples=["INSERT INTO messages (expires_at) VALUES (now())"],
    )
    estimate: bool = Field(
        default=False,
        description="Whether the query's estimate runs instead of the query.",
        examples=[True],
    )
    expect: tuple[Expectation, ...] | None = Field(
        default=None,
        description="Every series that the query must produce; an empty list means none.",
        examples=[[{"metric": "pending_messages_total", "value": 3}]],
    )
    fails: Literal["rejected", "mismatch", "timeout"] | None = Field(
        default=None,
        description="Expected kind of failure: a value of `error.type`.",
        examples=["mismatch"],
    )
    skipped: Literal["version", "extension", "relation", "column", "privilege"] | None = Field(
        default=None,
        description="Requirement of the query that is not met: a value of `poller.reason`.",
        examples=["column"],
    )
    quarantined: Mapping[str, int] = Field(
        default_factory=dict,
        description="Number of omitted data points, by reason.",
        examples=[{"null": 1}],
    )

    @field_validator("fails", "skipped")
    @classmethod
    def _other_end(cls, end: str | None, info: ValidationInfo) -> str | None:
        other = next((name for name in ("expect", "fails") if info.data.get(name) is not None), None)
        if end is not None and other is not None and other != info.field_name:
            raise ValueError(f"cannot be combined with {other}; remove one of them")
        return end

    @field_validator("quarantined")
    @classmethod
    def _quarantined(cls, counts: Mapping[str, int], info: ValidationInfo) -> Mapping[str, int]:
        for reason in counts:
            if reason not in REASONS:
                hint = did_you_mean(reason, REASONS) or ";"
                raise ValueError(f"{quote(reason)} is not a reason{hint} reasons are: {', '.join(REASONS)}")
        other = next((name for name in ("fails", "skipped") if info.data.get(name) is not None), None)
        if counts and other is not None:
            raise ValueError(f"has no effect if {other} is expected; remove it")
        return counts

    @model_validator(mode="after")
    def _some_end(self) -> Case:
        if self.expect is None and self.fails is None and self.skipped is None:
            raise ValueError(
                "has no expectation; write `expect:` and the series below it, or `fails:` or `skipped:`"
            )
        return self


class Cases(Part):
    """Content of a test case file."""

    schema_sql: str = Field(
        default="",
        alias="schema",
        description="Statements that create the tables, run before every case.",
        examples=["CREATE TABLE messages (id bigint, expires_at timestamptz)"],
    )
    schema_file: str | None = Field(
        default=None,
        description="SQL file that runs before `schema`; the path is relative to the folder of this file.",
        examples=["schema.sql"],
        min_length=1,
    )
    cases: tuple[Case, ...] = Field(
        description="The cases.",
        min_length=1,
        examples=[[{"name": "none", "expect": [{"value": 0}]}]],
    )
