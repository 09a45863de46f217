"""Definitions of queries and targets in one line, including definitions that no query file may contain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from poller.config.queries.schema.metric import DeclaredMetric
from poller.config.queries.schema.parameters import parameter_names
from poller.config.queries.schema.query import DeclaredQuery
from poller.config.queries.sql_check import is_ordered
from poller.config.queries.sql_parameters import to_placeholders
from poller.model.query import MetricDefinition, QueryDefinition
from poller.model.result import Answer, PollResult, Sample
from poller.model.secrets import Secret
from poller.model.target import Target


def a_metric(name: str = "things", **fields: Any) -> MetricDefinition:
    return DeclaredMetric.model_validate(
        {"name": name, "description": "Things.", "unit": "{thing}", "value_column": "n", **fields}
    ).definition()


def a_query(name: str = "q", sql: str = "SELECT 1 AS n", **fields: Any) -> QueryDefinition:
    """Return a query with one metric and the defaults of a query file.

    `sql` bypasses the check of statements, so that a test can exercise the server's own protection.
    """
    metrics = fields.pop("metrics", (a_metric(name.replace("-", "_")),))
    interval = fields.setdefault("interval", 300.0)
    fields = {"timeout": min(30.0, interval), "max_age": 3 * interval, **fields}
    parameters = parameter_names(fields.get("parameters"))
    keys = {
        "name": name,
        "sql": ", :".join(("SELECT 1 AS n", *parameters)),
        "metrics": [_written(metric) for metric in metrics],
        **fields,
    }
    context = {"parameters": fields.get("parameters")}
    built = DeclaredQuery.model_validate(keys, context=context).definition()
    sql = to_placeholders(sql, parameters)
    return replace(built, sql=sql, ordered=is_ordered(sql))


def _written(metric: MetricDefinition) -> dict[str, Any]:
    """Return the metric as a file would declare it: there an alert's `for` is not a keyword of Python."""
    written = asdict(metric)
    alerts = [{key.rstrip("_"): value for key, value in alert.items()} for alert in written["alert"]]
    return {**written, "alert": alerts}


def a_result(query: QueryDefinition, *samples: Sample, **fields: Any) -> PollResult:
    return PollResult(
        **{"query": query, "at": 1000.0, "duration": 0.5, "outcome": "ok", "samples": samples, **fields}
    )


class Source:
    """Source of queries whose answers are the result of a function."""

    def __init__(self, answer: Callable[[Sequence[QueryDefinition]], Sequence[Answer]]) -> None:
        self._answer = answer

    def fetch(self, queries: Sequence[QueryDefinition], on_answer: Callable[[str], None]) -> Sequence[Answer]:
        answers = self._answer(queries)
        for answer in answers:
            on_answer(answer.query.name)
        return answers

    def rest(self, seconds: float) -> None:
        pass

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


def a_target(name: str, url: str = "", **fields: Any) -> Target:
    """Return a target without limits; `fields` override the others."""
    limits = {"max_replay_lag": None, "max_active_backends": None, "strict": False}
    timeouts = {"connect_timeout": 10.0, "lock_timeout": 1.0}
    return Target(
        **{"name": name, "url": Secret(url), "require_standby": "false", **timeouts, **limits, **fields}
    )
