"""Importer for the jobs of justwatchcom's sql_exporter.

Source: justwatchcom/sql_exporter, config.go, job.go and query.go.
"""

from __future__ import annotations

import re

from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.naming import metric_name, others, unit_of
from poller.tools.importers.node import Node

_JOB = (
    "name", "interval", "cron_schedule", "connections", "queries", "startup_sql", "iterator", "keepalive",
)  # fmt: skip
_QUERY = ("name", "help", "labels", "values", "query", "query_ref", "allow_zero_rows", "timestamp")


def is_justwatch(root: Node) -> bool:
    """Return whether it is a file of this tool instead of the other sql_exporter."""
    jobs = root.value.get("jobs") if isinstance(root.value, dict) else None
    return isinstance(jobs, list) and any(isinstance(job, dict) and "queries" in job for job in jobs)


def read(root: Node) -> list[DraftQuery]:
    """Return the queries of all jobs."""
    root.others("jobs", "queries", "configuration", "cloudsql_config")
    named = {name: root.child("queries").text(name) for name, _ in root.entries("queries")}
    return [draft for job in root.items("jobs") for draft in _job(job, named)]


def _job(job: Node, named: dict[str, str]) -> list[DraftQuery]:
    job.others(*_JOB)
    interval = job.seconds("interval")
    if "cron_schedule" in job:
        interval = None
        job.lost(
            "cron_schedule", "a query has an interval here, no times of day", "write interval: 24h or less"
        )
    job.session("startup_sql")
    if "iterator" in job:
        job.lost("iterator", "a query is not repeated over another one's rows", "join the two in SQL")
    connections = job.value.get("connections")
    if told := others(connections if isinstance(connections, list) else []):
        job.lost("connections", f"{', '.join(told)} is not PostgreSQL", "the poller speaks to nothing else")
        return []
    job.connection("connections")
    job.unmade("connections", "driver", "host", "database", "user")
    drafts = [_query(query, job.text("name"), interval, named) for query in job.items("queries")]
    return [draft for draft in drafts if draft is not None]


def _query(node: Node, job: str, interval: float | None, named: dict[str, str]) -> DraftQuery | None:
    node.others(*_QUERY)
    reference = node.text("query_ref")
    if reference and reference not in named:
        node.lost("query_ref", f"there is no query {reference}", "name one of the file's queries")
        return None
    sql = node.text("query") or named.get(reference, "")
    if "{{" in sql:
        node.lost("query", "it holds a placeholder in braces", "write what stands for it")
        return None
    node.timestamp("timestamp")
    name = node.text("name")
    original = re.sub("[^a-zA-Z0-9_:]", "", f"sql_{name}")
    return DraftQuery(
        node.place,
        name,
        sql,
        [
            DraftMetric(
                node.place,
                original,
                metric_name(original),
                node.text("help"),
                column,
                unit=unit_of(original),
                attribute_columns=tuple(node.texts("labels")),
                attributes={"sql_job": job, "col": column},
            )
            for column in node.texts("values")
        ],
        comment=node.comment(),
        interval=interval,
    )
