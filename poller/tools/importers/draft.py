"""Draft of a query that an importer has read from another tool's file."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from poller.config.queries.sql_parameters import to_names
from poller.model.diagnostics import Place
from poller.model.duration import format_duration
from poller.model.query import NO_PARAMETERS, AttributeValue, MetricType, Parameters
from poller.tools.importers.sql_columns import columns_of
from poller.tools.importers.sql_projection import project, statement


@dataclass(slots=True)
class DraftMetric:
    """One metric under its original name, with the settings from the imported file."""

    place: Place
    original: str
    """Name in Prometheus, as exported by the other tool."""
    name: str
    description: str
    value_column: str
    unit: str = ""
    attribute_columns: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)
    zero_for_null: bool = False
    type: MetricType = "gauge"
    histogram: tuple[Any, ...] = ()
    """Boundaries, as written; empty: the values themselves."""
    time_column: str = ""
    """Column with the time of the data points; empty: they have the time of their export."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the result that the metric uses."""
        return (self.value_column, *self.attribute_columns, *([self.time_column] if self.time_column else []))

    def data(self) -> dict[str, Any]:
        """Return the metric as data of a query file."""
        return {
            "name": self.name,
            **({"type": self.type} if self.type != "gauge" else {}),
            "description": self.description,
            "unit": self.unit,
            **({"histogram": list(self.histogram)} if self.histogram else {}),
            "value_column": self.value_column,
            **({"attribute_columns": list(self.attribute_columns)} if self.attribute_columns else {}),
            **({"attributes": dict(self.attributes)} if self.attributes else {}),
            **({"on_null": "zero"} if self.zero_for_null else {}),
            **({"time_column": self.time_column, "settle": "0s"} if self.time_column else {}),
        }


@dataclass(slots=True)
class DraftQuery:
    """One statement with its metrics. Durations are in seconds, or None if the file has none."""

    place: Place
    name: str
    sql: str
    metrics: list[DraftMetric]
    comment: tuple[str, ...] = ()
    interval: float | None = None
    timeout: float | None = None
    max_age: float | None = None
    requires: dict[str, Any] = field(default_factory=dict)
    computed: Mapping[str, str] = field(default_factory=dict)
    """SQL expressions over the columns of `sql`, by the name of the resulting column."""
    targets: tuple[str, ...] = ()
    """Selectors of targets: tags, or `name:` and a name."""
    once_per_server: bool = False
    schedule: str = ""
    """Expression of cron, instead of the interval."""
    timezone: str = ""
    settings: Mapping[str, str | int | float] = field(default_factory=dict)
    """PostgreSQL settings by name."""
    where: str = ""
    """SQL condition that selects rows of `sql`."""
    parameters: Parameters = NO_PARAMETERS
    """Values of the placeholders `$1`, `$2`, ... in `sql`, for each run."""

    def data(self) -> dict[str, Any]:
        """Return the query as data of a query file."""
        durations = {"interval": self.interval, "timeout": self.timeout, "max_age": self.max_age}
        return {
            "name": self.name,
            "sql": to_names(self._statement(), tuple(self.parameters[0])),
            **({"schedule": self.schedule} if self.schedule else {}),
            **({"timezone": self.timezone} if self.timezone else {}),
            **{key: format_duration(value) for key, value in durations.items() if value is not None},
            **({"requires": self.requires} if self.requires else {}),
            **({"targets": list(self.targets)} if self.targets else {}),
            **({"once_per_server": True} if self.once_per_server else {}),
            **({"parameters": self._parameters()} if self.parameters[0] else {}),
            **({"settings": dict(self.settings)} if self.settings else {}),
            "metrics": [metric.data() for metric in self.metrics],
        }

    def _parameters(self) -> dict[str, list[AttributeValue]] | list[dict[str, AttributeValue]]:
        """Return a list of values for each parameter if the runs are all of their combinations."""
        runs = [tuple(run.values()) for run in self.parameters]
        values = [list(dict.fromkeys(column)) for column in zip(*runs, strict=True)]
        if list(itertools.product(*values)) == runs:
            return dict(zip(self.parameters[0], values, strict=True))
        return [dict(run) for run in self.parameters]

    def _statement(self) -> str:
        sql = statement(self.sql)
        columns = {name: None for metric in self.metrics for name in metric.attribute_columns}
        columns |= {metric.value_column: None for metric in self.metrics}
        columns |= {metric.time_column: None for metric in self.metrics if metric.time_column}
        # Rows that differ only in an unused column are rejected as duplicates, and `check` warns about such
        # columns.
        unused = any(column.name not in columns for column in columns_of(sql) or ())
        if not self.computed and not self.where and not unused:
            return sql
        return project(sql, tuple(columns), self.computed, self.where)
