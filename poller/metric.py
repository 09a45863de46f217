"""Say what a metric is: the value column of a query, and the columns that tell its series apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from poller.alert import Alert

MetricType = Literal["gauge", "counter", "updowncounter"]
"""What is exported, in the words of OpenTelemetry's instruments.

gauge          a value as it is now
counter        a cumulative, monotonic sum: it only grows, and a lower value means that it began anew
updowncounter  a cumulative sum that may fall
"""
OnNull = Literal["drop", "zero", "fail"]
AttributeValue = str | bool | int | float
"""An attribute value that OTLP carries as it is (OpenTelemetry specification, common/README.md)."""

MAX_ATTRIBUTE_LENGTH = 1024
"""Characters; a longer attribute value is a sign of data that was never meant to be one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricDefinition:
    """One metric that a query feeds: a value column, and the columns that tell its series apart."""

    name: str
    """As it is exported, with the namespace."""
    description: str
    unit: str
    """UCUM."""
    type: MetricType = "gauge"
    value_column: str
    attribute_columns: tuple[str, ...] = ()
    attribute_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """All values that a column can have."""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    on_null: OnNull = "drop"
    alert: tuple[Alert, ...] = ()
