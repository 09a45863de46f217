"""Make query definitions in a line, also such as no query file may hold."""

from __future__ import annotations

from typing import Any

from poller.metric import MetricDefinition
from poller.query import QueryDefinition
from poller.result import PollResult, Sample


def a_metric(name: str = "things", **fields: Any) -> MetricDefinition:
    return MetricDefinition(
        **{"name": name, "description": "Things.", "unit": "{thing}", "value_column": "n", **fields}
    )


def a_query(name: str = "q", sql: str = "SELECT 1 AS n", **fields: Any) -> QueryDefinition:
    """A query with one metric and the defaults of a query file.

    `sql` goes around the model's own fence, to get at the server's.
    """
    metrics = fields.pop("metrics", (a_metric(name.replace("-", "_")),))
    interval = fields.setdefault("interval", 300.0)
    fields = {"timeout": min(30.0, interval), "max_age": 3 * interval, **fields}
    made = QueryDefinition(name=name, sql="SELECT 1 AS n", metrics=metrics, **fields)
    return made.model_copy(update={"sql": sql})


def a_result(query: QueryDefinition, *samples: Sample, **fields: Any) -> PollResult:
    return PollResult(
        **{"query": query, "at": 1000.0, "duration": 0.5, "outcome": "ok", "samples": samples, **fields}
    )
