"""Schema of an alert of a metric in a query file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from poller.config.fields import ENDLESS, AlsoText, Duration, MisfitError, Part, whole
from poller.model.query import Alert, AlertSeverity, Of, Side
from poller.model.text import quote

_PERCENT = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?\s*%")


def _parse_limit(value: object, info: ValidationInfo) -> object:
    """Parse a finite number, or `50%` if the alert compares a share; raises ValueError."""
    share = info.data.get("of") == "weekly_change"
    example = "50%, 0.5 or -30%" if share else "100000"
    if isinstance(value, str) and share and _PERCENT.fullmatch(value.strip()):
        return float(value.strip().removesuffix("%")) / 100
    if value is None or value == "":
        raise ValueError(f"is empty; write a number like {example}")
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < ENDLESS:
        return float(value)
    raise ValueError(f"{quote(value)} is not a limit; write a number like {example}")


AlertLimit = Annotated[float, BeforeValidator(_parse_limit), AlsoText(whole(_PERCENT))]


_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_MOST_LABELS = 32


def _label(name: str, kind: str, taken: Mapping[str, str]) -> str:
    if not _LABEL.fullmatch(name) or (kind == "label" and name.startswith("__")):
        raise ValueError(
            f"{quote(name)} is not a name of a Prometheus {kind}; write letters, digits and _, "
            "starting with a letter, at most 128"
        )
    if name in taken:
        raise ValueError(taken[name])
    return name


def _names(kind: str, taken: Mapping[str, str]) -> AfterValidator:
    """Return a validator of the names of labels or annotations; `taken` has the messages of refused ones."""
    return AfterValidator(lambda name: _label(name, kind, taken))


_SET_LABELS = {
    "severity": "is a key of the alert; write it next to labels",
    "owner": "is a key of the query; write it next to the query's name",
    "alertname": "is set by Prometheus; omit it",
    "poller_query_name": "is set by the poller; omit it",
}
_SET_ANNOTATIONS = {
    "summary": "is a key of the alert; write it next to annotations",
    "runbook_url": "is made from the alert's key runbook; write runbook next to annotations",
}
LabelName = Annotated[str, _names("label", _SET_LABELS)]
AnnotationName = Annotated[str, _names("annotation", _SET_ANNOTATIONS)]
AlertText = Annotated[str, Field(min_length=1, max_length=4096)]
"""Value of a label or annotation; it may be a template of Prometheus."""


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
    above: AlertLimit | None = Field(
        default=None,
        description="Upper limit, in the metric's unit; for weekly_change, a share.",
        examples=[100000],
    )
    below: AlertLimit | None = Field(
        default=None,
        description="Lower limit; one alert has only one limit.",
        examples=[1],
        validate_default=True,
    )
    for_: Duration = Field(
        default=900.0,
        alias="for",
        description="How long the limit must be violated without a break, 0s to 7d.",
        examples=["30m"],
        ge=0,
        le=7 * 86400,
    )
    severity: AlertSeverity = Field(
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
    labels: Mapping[LabelName, AlertText] = Field(
        default_factory=dict,
        description="Labels in addition to severity, owner and those of the series.",
        examples=[{"team": "messaging"}],
        max_length=_MOST_LABELS,
        json_schema_extra={"propertyNames": {"pattern": whole(_LABEL, unless="__")}},
    )
    annotations: Mapping[AnnotationName, AlertText] = Field(
        default_factory=dict,
        description="Annotations in addition to summary and runbook_url; `description` replaces the "
        "generated one.",
        examples=[{"impact": "Messages arrive late."}],
        max_length=_MOST_LABELS,
        json_schema_extra={"propertyNames": {"pattern": whole(_LABEL)}},
    )

    @field_validator("below")
    @classmethod
    def _single_limit(cls, below: float | None, info: ValidationInfo) -> float | None:
        if "above" not in info.data:
            return below
        above = info.data["above"]
        if above is None and below is None:
            raise MisfitError("is missing; write above or below, and a number", "above", "below")
        if above is not None and below is not None:
            raise ValueError("has two limits; write one alert with above and one with below")
        return below

    def definition(self) -> Alert:
        return Alert(**self.parts())
