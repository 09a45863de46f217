"""Importer for the jobs of justwatchcom's sql_exporter.

Source: justwatchcom/sql_exporter, config.go, job.go and query.go.
"""

from __future__ import annotations

import re
from dataclasses import replace

from poller.tools.importers.cron_schedule import CronSchedule, read_schedule
from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.naming import metric_name, other_databases, unit_of
from poller.tools.importers.node import SourceNode
from poller.tools.importers.session_settings import read_settings
from poller.tools.importers.sql_columns import kinds_of
from poller.tools.importers.targets import DraftTargets

_JOB = (
    "name", "interval", "cron_schedule", "connections", "queries", "startup_sql", "iterator", "keepalive",
)  # fmt: skip
_QUERY = ("name", "help", "labels", "values", "query", "query_ref", "allow_zero_rows", "timestamp")


def is_justwatch(root: SourceNode) -> bool:
    """Return whether it is a file of this tool instead of the other sql_exporter."""
    jobs = root.value.get("jobs") if isinstance(root.value, dict) else None
    return isinstance(jobs, list) and any(isinstance(job, dict) and "queries" in job for job in jobs)


def read(root: SourceNode, targets: DraftTargets | None) -> list[DraftQuery]:
    """Return the queries of all jobs; add their connections to `targets`, unless it is None."""
    root.report_unknown_keys("jobs", "queries", "configuration", "cloudsql_config")
    named = {name: root.child("queries").text(name) for name, _ in root.entries("queries")}
    return [draft for job in root.items("jobs") for draft in _job(job, named, targets)]


def _job(job: SourceNode, named: dict[str, str], targets: DraftTargets | None) -> list[DraftQuery]:
    job.report_unknown_keys(*_JOB)
    times = (
        read_schedule(job, "cron_schedule")
        if "cron_schedule" in job
        else CronSchedule(interval=job.seconds("interval"))
    )
    settings = read_settings(job, "startup_sql")
    if "iterator" in job:
        job.report_loss(
            "iterator", "a query cannot be repeated for each row of another query", "join them in SQL"
        )
    connections = job.value.get("connections")
    if schemes := other_databases(connections if isinstance(connections, list) else []):
        job.report_loss(
            "connections", f"{', '.join(schemes)} is not PostgreSQL", "the poller supports PostgreSQL only"
        )
        return []
    if targets is None:
        job.report_connection("connections")
    are_targets = targets is not None
    job.report_omitted_labels("connections", "driver", "host", "database", "user", are_targets=are_targets)
    queries = [_query(query, job.text("name"), times, named) for query in job.items("queries")]
    drafts = [replace(draft, settings=settings) for draft in queries if draft is not None]
    if targets is not None:
        connections = job.child("connections") if "connections" in job else job
        count = len(connections.value) if isinstance(connections.value, list) else 0
        users = [targets.add(connections, index, "", {}, job.place) for index in range(count)]
        if not any(users):
            job.report_loss("connections", "the job has no connection", "add one, or remove the job")
            return []
        tag = targets.tag(job.place, job.text("name"))
        for user in users:
            if user is not None:
                user.tags.append(tag)
        for draft in drafts:
            draft.targets = (tag,)
    return drafts


def _query(node: SourceNode, job: str, times: CronSchedule, named: dict[str, str]) -> DraftQuery | None:
    node.report_unknown_keys(*_QUERY)
    reference = node.text("query_ref")
    if reference and reference not in named:
        node.report_loss(
            "query_ref", f"query {reference} does not exist", "write the name of a query in the file"
        )
        return None
    sql = node.text("query") or named.get(reference, "")
    if "{{" in sql:
        node.report_loss("query", "the SQL contains a placeholder in braces", "write the value instead")
        return None
    time_column = node.time_column("timestamp", kinds_of(sql).get(node.text("timestamp")))
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
                time_column=time_column,
            )
            for column in node.texts("values")
        ],
        comment=node.comment(),
        interval=times.interval,
        schedule=times.expression,
        timezone=times.timezone,
    )
