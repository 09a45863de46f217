"""Declare when somebody shall be told of a metric."""

from __future__ import annotations

import re
from typing import Annotated, Self, get_args

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from poller.alert import Alert, Of, Severity, Side
from poller.declared.part import AlsoText, Duration, Part, whole
from poller.words import shown

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
    raise ValueError(f"{shown(value)} is not a limit; write a number like {example}")


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
