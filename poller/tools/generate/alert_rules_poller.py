"""Prometheus alerting rules for the poller itself: values that are missing or soon will be missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import indent

from poller.model.duration import format_duration
from poller.model.query import AlertSeverity
from poller.model.result import DECLARED
from poller.tools.generate.alert_rules import Rule

MINUTE, HOUR = 60.0, 3600.0

_DECLARED = "|".join(DECLARED)
_QUERY = "{{ $labels.poller_query_name }}"
_INSTANCE = "{{ $labels.instance }}"
"""POLLER_INSTANCE, or the name of a target."""
_ELECTION = "{{ $labels.poller_leader_election }}"
_PLACE = "{{ $labels.server_address }}:{{ $labels.server_port }}"
_METRICS = '{poller_signal="metrics"}'
"""No alert covers spans and log records: the poller keeps them for minutes only, and logs the same events."""
_SAME_QUERY = "on (job, instance, poller_query_name)"
_BY_ELECTION = "by (job, poller_leader_election)"
_PROCESS = "poller_export_spool_requests"
"""A metric that every process exports, whatever its targets and POLLER_SELF_METRICS=query or target."""
_UNLESS_DOWN = "unless on (job, instance) poller_target_up == 0"
"""PollerTargetDown explains the failures of all queries of a target."""


@dataclass(frozen=True, slots=True)
class AlertLimits:
    """Service name and limits that the rules use."""

    service: str
    """service.name of the pollers. The label `job` is this name, prefixed with service.namespace if set."""
    replay_lag: float
    """Replay lag in seconds above which an alert fires."""
    spool_size: int
    """Maximum size of the spool in bytes."""
    queue_delay: float
    """Seconds that a target may wait for a connection."""


def poller_rules(limits: AlertLimits, runbook: str) -> Iterator[Rule]:
    """All rules of the poller; `runbook` is the address of the runbook, which has a section for each rule."""

    def rule(
        name: str, severity: AlertSeverity, lasting: float, expr: str, summary: str, description: str
    ) -> Rule:
        return Rule(
            name, expr, lasting, severity, summary, description, f"{runbook}#{name.lower()}", labels={}
        )

    service = limits.service
    yield rule(
        "PollerGone",
        "critical",
        10 * MINUTE,
        f"absent({_PROCESS}{{job=~{_job(service)}}})",
        f"No poller of the service {service} exports",
        "No poller has reported for 10 minutes: it is down, or its exports do not arrive.",
    )
    yield rule(
        "PollerFewer",
        "warning",
        10 * MINUTE,
        f"count by (job) (group by (job, instance) ({_PROCESS} offset 1h))\n"
        f"  > count by (job) (group by (job, instance) ({_PROCESS}))",
        "Fewer pollers of {{ $labels.job }} export than an hour ago",
        "An hour ago there were {{ $value }}. The alert ends an hour after the poller stopped.",
    )
    yield rule(
        "PollerNoLeader",
        "critical",
        5 * MINUTE,
        f"max {_BY_ELECTION} (poller_leader) == 0",
        f"No poller of the election {_ELECTION} leads",
        "All of them are followers, so none polls. The values of their targets are absent.",
    )
    yield rule(
        "PollerLeaderFlapping",
        "warning",
        0,
        f"sum {_BY_ELECTION} (increase(poller_leader_changes_total[1h])) > 6\n"
        "or\n"
        f"sum {_BY_ELECTION} (resets(poller_leader[1h])) > 3",
        f"The leader of the election {_ELECTION} changes often",
        "More than three times within the last hour a poller has ceased to lead, or has restarted while it "
        "led. The values of the targets have a gap each time.",
    )
    yield rule(
        "PollerShardMissing",
        "critical",
        10 * MINUTE,
        "count by (job) (group by (job, poller_shard_index) (poller_shard_count))\n"
        "  < max by (job) (poller_shard_count)",
        "Only {{ $value }} shards of {{ $labels.job }} report",
        "There are fewer processes than shards, so the servers of the missing shards are not polled.",
    )
    yield rule(
        "PollerTargetDown",
        "critical",
        15 * MINUTE,
        "poller_target_up == 0",
        f"The poller does not reach the target {_INSTANCE}",
        "No poll has reached its database for 15 minutes. Its values are exported until they are older than "
        "the max_age of their queries.",
    )
    yield rule(
        "PollerTargetsMissing",
        "warning",
        10 * MINUTE,
        "count by (job) (\n"
        "  group by (job, instance) (poller_target_up offset 1h)\n"
        "    unless group by (job, instance) (poller_target_up)\n"
        ")",
        "{{ $value }} targets of {{ $labels.job }} have stopped reporting",
        "They reported an hour ago. They were removed, or their poller has stopped. The alert ends an hour "
        "after the last of them stopped.",
    )
    yield rule(
        "PollerServerQueueFull",
        "warning",
        15 * MINUTE,
        f"max_over_time(poller_queue_delay_seconds[15m]) > {limits.queue_delay:g}",
        f"Targets of the poller {_INSTANCE} wait {{{{ $value | humanizeDuration }}}} for a connection",
        "Their polls are late, because those of other targets need all connections to the server. The limit "
        f"is {format_duration(limits.queue_delay)}.",
    )
    yield rule(
        "PollerQueryStale",
        "critical",
        5 * MINUTE,
        'max by (job, instance, poller_query_name) (poller_query_state{poller_state="stale"}) == 1\n'
        f"  unless {_SAME_QUERY}\n"
        f'  poller_query_state{{poller_state="skipped",poller_reason=~"{_DECLARED}"}} == 1\n'
        f"  {_UNLESS_DOWN}",
        f"The values of the query {_QUERY} of {_INSTANCE} are withheld",
        "No poll has succeeded within its max_age, or no poll has ever succeeded: its series are absent.",
    )
    yield rule(
        "PollerQueryFailing",
        "warning",
        15 * MINUTE,
        'max by (job, instance, poller_query_name) (poller_query_state{poller_state="failed"}) == 1\n'
        f"  {_UNLESS_DOWN}",
        f"The query {_QUERY} of {_INSTANCE} fails",
        "It has not succeeded for 15 minutes. Its last good values are exported until they are older than "
        "its max_age.",
    )
    yield rule(
        "PollerQuerySkipped",
        "warning",
        HOUR,
        f'poller_query_state{{poller_state="skipped",poller_reason!~"{_DECLARED}"}} == 1\n'
        "or\n"
        f'poller_query_state{{poller_state="skipped",poller_reason=~"{_DECLARED}"}} == 1\n'
        f"  and {_SAME_QUERY}\n"
        "  time() - poller_query_last_success_seconds < 86400",
        f"The query {_QUERY} of {_INSTANCE} has not been sent for an hour: {{{{ $labels.poller_reason }}}}",
        "It is postponed, the server is refused, or a requirement is no longer met.",
    )
    yield rule(
        "PollerReplicaLag",
        "warning",
        10 * MINUTE,
        _for_each_server(f"poller_replica_lag_seconds > {limits.replay_lag:g}"),
        f"The replica {_PLACE} is {{{{ $value | humanizeDuration }}}} behind",
        f"All values are that old. The limit is {format_duration(limits.replay_lag)}.",
    )
    yield rule(
        "PollerReplicaLagUnknown",
        "warning",
        30 * MINUTE,
        _for_each_server(
            "poller_replica_standby == 1\n"
            "  unless on (job, instance, server_address, server_port) poller_replica_lag_seconds"
        ),
        f"The replay lag of the replica {_PLACE} is unknown",
        "The standby started without its primary, or does not report its lag. The values may be of any age.",
    )
    yield rule(
        "PollerExportFailing",
        "warning",
        15 * MINUTE,
        "sum by (job, instance) (\n"
        '  rate(poller_export_requests_total{poller_signal="metrics",poller_outcome!="ok"}[10m])\n'
        ") > 0\n"
        "or\n"
        f"max by (job, instance) (poller_export_spool_age_seconds{_METRICS}) > {5 * MINUTE:g}",
        "Exports of the poller {{ $labels.instance }} fail",
        "The collector does not accept all requests. Requests that it did not accept wait in the queue.",
    )
    yield rule(
        "PollerSpoolFilling",
        "critical",
        5 * MINUTE,
        f"poller_export_spool_size_bytes{_METRICS} > {limits.spool_size // 2}\n"
        "or\n"
        f"predict_linear(poller_export_spool_size_bytes{_METRICS}[30m], 4 * 3600) > {limits.spool_size}\n"
        f"  and poller_export_spool_age_seconds{_METRICS} > {5 * MINUTE:g}",
        "The spool of the poller {{ $labels.instance }} is filling up",
        f"Its limit is {limits.spool_size:,} bytes. It is half full, or will be full within 4 hours. Then "
        "the oldest requests are dropped.",
    )
    yield rule(
        "PollerExportDropped",
        "critical",
        0,
        _grew(f"poller_export_dropped_total{_METRICS}", "15m"),
        "The poller {{ $labels.instance }} has dropped requests: {{ $labels.poller_reason }}",
        "They waited for the collector and will never be delivered.",
    )
    yield rule(
        "PollerExportRejected",
        "warning",
        0,
        _grew(f"poller_export_rejected_total{_METRICS}", "15m"),
        "The collector rejects data points of the poller {{ $labels.instance }}",
        "They are lost. Reason: {{ $labels.poller_reason }}.",
    )
    yield rule(
        "PollerDataPointsRefused",
        "warning",
        0,
        _grew('poller_query_quarantined_total{poller_reason!="null"}', "1h"),
        "Rows {{ with $labels.poller_query_name }}of the query {{ . }} {{ end }}are rejected: "
        "{{ $labels.poller_reason }}",
        "They are omitted and counted. The exported values are exact, but incomplete.",
    )
    yield rule(
        "PollerTicksLeftOut",
        "warning",
        0,
        "increase(poller_tick_overruns_total[1h]) > 3",
        "Ticks {{ $labels.poller_tick_name }} are skipped",
        "Several times within the last hour the previous tick was still running when the next was due.",
    )
    yield rule(
        "PollerReloadFailed",
        "warning",
        5 * MINUTE,
        "poller_config_reload_success == 0",
        "The query files or targets of the poller {{ $labels.instance }} have errors",
        "The files on disk were rejected; the previous queries and targets stay in use.",
    )


def _for_each_server(expr: str) -> str:
    """PromQL with one series for all targets of a server, because each of them reports the server."""
    inner = indent(expr, "    ").lstrip()
    return (
        f"{expr}\n  unless on (job, instance) poller_target_up\nor\n"
        "max by (job, server_address, server_port) (\n"
        f"  {inner}\n    and on (job, instance) poller_target_up\n)"
    )


def _job(service: str) -> str:
    """PromQL string that matches the label `job` of a service in any namespace."""
    pattern = re.escape(service).replace(r"\-", "-")
    return json.dumps(f"(.+/)?{pattern}", ensure_ascii=False)


def _grew(counter: str, window: str) -> str:
    # `increase` ignores the first event of a series, because the series begins with it.
    return f"increase({counter}[{window}]) > 0\nor\n{counter} > 0 unless {counter} offset {window}"
