"""Schema of a test case: fixture rows, a query, and the expected result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from poller.config.queries.schema.fields import Part
from poller.model.numbers import is_representable
from poller.model.query import AttributeValue
from poller.model.text import did_you_mean, kind_of, quote

REASONS = (
    "null", "nan", "infinite", "not_a_number", "negative", "duplicate", "not_utf8", "attribute_too_long",
    "undeclared_value", "overflow",
)  # fmt: skip
"""Why a data point is not exported, in the words of `poller.reason`."""


class Expectation(Part):
    """One series that must come of the query."""

    metric: str | None = Field(
        default=None,
        description="Name of the metric; may be left out where the query feeds one only.",
        examples=["pending_messages_total"],
    )
    attributes: Mapping[str, AttributeValue] = Field(
        default_factory=dict, description="All of its attributes.", examples=[{"state": "queued"}]
    )
    value: int | float | Literal["any"] = Field(
        description="The value, or `any` where only the series has to be there.", examples=[3]
    )

    @field_validator("value", mode="before")
    @classmethod
    def _value(cls, value: object) -> object:
        if is_representable(value) or value == "any":
            return value
        what = quote(value) if isinstance(value, str | bool) else kind_of(value)
        raise ValueError(f"is {what}, not a number; write for example `value: 3`, or `value: any`")


class Case(Part):
    """Rows, a query, and the series, the failure or the skip that is expected of it."""

    name: str = Field(
        description="What it shows, in a few words; unique in its file.",
        examples=["expired messages do not count"],
        min_length=1,
    )
    query: str | None = Field(
        default=None,
        description="Name of the query; may be left out where the query file holds one only.",
        examples=["pending_messages"],
    )
    rows: Mapping[str, str] = Field(
        default_factory=dict,
        description="Rows of each table as CSV; the first line names the columns, an empty cell is NULL.",
        examples=[{"messages": "id,expires_at"}],
    )
    files: Mapping[str, str] = Field(
        default_factory=dict,
        description="The same from CSV files, by paths from the folder of this file.",
        examples=[{"messages": "messages.csv"}],
    )
    sql: str = Field(
        default="",
        description="Statements that make rows, after those of `rows` and `files`.",
        examples=["INSERT INTO messages (expires_at) VALUES (now())"],
    )
    estimate: bool = Field(
        default=False,
        description="Whether the query's estimate is asked in its place.",
        examples=[True],
    )
    expect: tuple[Expectation, ...] | None = Field(
        default=None,
        description="Every series that must come of it; an empty list: none.",
        examples=[[{"metric": "pending_messages_total", "value": 3}]],
    )
    fails: Literal["rejected", "mismatch", "timeout"] | None = Field(
        default=None,
        description="Kind of the failure that is expected, in the words of `error.type`.",
        examples=["mismatch"],
    )
    skipped: Literal["version", "extension", "relation", "column", "privilege"] | None = Field(
        default=None,
        description="Which requirement of the query is not met, in the words of `poller.reason`.",
        examples=["column"],
    )
    quarantined: Mapping[str, int] = Field(
        default_factory=dict,
        description="How many data points are left out, by reason.",
        examples=[{"null": 1}],
    )

    @field_validator("fails", "skipped")
    @classmethod
    def _other_end(cls, end: str | None, info: ValidationInfo) -> str | None:
        told = next((name for name in ("expect", "fails") if info.data.get(name) is not None), None)
        if end is not None and told is not None and told != info.field_name:
            raise ValueError(f"is another end than {told}, and a case has one; leave one out")
        return end

    @field_validator("quarantined")
    @classmethod
    def _quarantined(cls, counts: Mapping[str, int], info: ValidationInfo) -> Mapping[str, int]:
        for reason in counts:
            if reason not in REASONS:
                meant = did_you_mean(reason, REASONS) or ";"
                raise ValueError(f"{quote(reason)} is no reason{meant} there are: {', '.join(REASONS)}")
        other = next((name for name in ("fails", "skipped") if info.data.get(name) is not None), None)
        if counts and other is not None:
            raise ValueError(f"says nothing where {other} is expected; leave it out")
        return counts

    @model_validator(mode="after")
    def _some_end(self) -> Case:
        if self.expect is None and self.fails is None and self.skipped is None:
            raise ValueError(
                "expects nothing; write `expect:` and the series below it, or `fails:` or `skipped:`"
            )
        return self


class Cases(Part):
    """What a file of cases holds."""

    schema_sql: str = Field(
        default="",
        alias="schema",
        description="Statements that make the tables, run before every case.",
        examples=["CREATE TABLE messages (id bigint, expires_at timestamptz)"],
    )
    schema_file: str | None = Field(
        default=None,
        description="A file of such statements, by its path from the folder of this file; run first.",
        examples=["schema.sql"],
        min_length=1,
    )
    cases: tuple[Case, ...] = Field(
        description="The cases.",
        min_length=1,
        examples=[[{"name": "none", "expect": [{"value": 0}]}]],
    )
