"""Every alert fires when it should, explains why, and is silent otherwise."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bed.process import ROOT
from tests.bed.promtool import promtool

RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
RUNBOOK = ROOT / "docs" / "runbook.md"
POLLER = {"job": "obscura-poller", "instance": "a"}
METRICS = {**POLLER, "poller_signal": "metrics"}
TRACES = {**POLLER, "poller_signal": "traces"}
QUERY = {**POLLER, "poller_query_name": "users"}
SERVER = {**POLLER, "server_address": "replica", "server_port": "5432"}
HALF_HOURS_OF_A_DAY = 48
HALF_HOURS_OF_A_WEEK = 7 * 48

DECLARED = [
    {"above": 1000, "severity": "critical"},
    {
        "below": 10,
        "for": 0,
        "summary": "Few users remain: {{ $value }}",
        "runbook": "https://wiki.example/u",
    },
    {"of": "daily_growth", "above": 500, "for": "1h"},
    {"of": "weekly_change", "above": "50%"},
    {"of": "weekly_change", "below": "-30%"},
]
CATALOG = {
    "queries": [
        {
            "name": "users",
            "sql": "SELECT count(*) AS n FROM users",
            "metrics": [
                {
                    "name": "users_total",
                    "description": "Users {{ of all }} kinds.",
                    "unit": "{user}",
                    "value_column": "n",
                    "alert": DECLARED,
                }
            ],
        },
        {
            "name": "store",
            "sql": "SELECT kind, sum(size) AS n FROM files GROUP BY kind",
            "metrics": [
                {
                    "name": "store.size",
                    "description": "Stored.",
                    "unit": "By",
                    "value_column": "n",
                    "attribute_columns": ["kind"],
                    "attributes": {"disk.name": "one"},
                    "alert": [
                        {
                            "above": 2**30,
                            "for": "5m",
                            "labels": {"team": "storage", "disk": "{{ $labels.disk_name }}"},
                            "annotations": {
                                "dashboard": "https://grafana.example/d/store?var-kind={{ $labels.kind }}",
                                "description": "It holds {{ $value | humanize1024 }}B.",
                            },
                        }
                    ],
                }
            ],
            "owner": "storage-team",
        },
        {
            "name": "sent",
            "sql": "SELECT sent AS n FROM statistics",
            "metrics": [
                {
                    "name": "messages.sent",
                    "type": "counter",
                    "description": "Sent.",
                    "unit": "{message}",
                    "value_column": "n",
                    "alert": [
                        {"of": "daily_growth", "below": 100},
                        {"of": "weekly_change", "below": "-30%"},
                    ],
                }
            ],
        },
    ]
}


def series(name: str, labels: Mapping[str, str], values: str) -> dict[str, str]:
    matchers = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return {"series": f"{name}{{{matchers}}}", "values": values}


def steady(name: str, labels: Mapping[str, str], value: float) -> dict[str, str]:
    return series(name, labels, f"{value}+0x120")


def state(word: str, now: int = 1, **more: str) -> dict[str, str]:
    return steady("poller_query_state", {**QUERY, "poller_state": word, **more}, now)


@dataclass(frozen=True)
class Fires:
    """Stored series, the minute in which the alert fires, and its expected summary."""

    alert: str
    severity: str
    stored: Sequence[dict[str, str]]
    summary: str
    recovery: str
    """The values that follow in each stored series when the problem is over."""
    labels: Mapping[str, str] = field(default_factory=lambda: QUERY)
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Those that the query file adds or replaces."""
    at: int = 70
    step: int = 1
    """Minutes between two samples."""
    runbook: str = ""
    resolved: int = 240
    """A minute in which the alert has resolved, after the recovery."""


TARGET = {"job": "obscura-poller", "instance": "tenants/t_1"}
"""With POLLER_TARGETS, `instance` is the name of a target."""
LEADER = {**POLLER, "poller_leader_election": "postgresql:obscura-poller"}
ELECTION = {name: value for name, value in LEADER.items() if name != "instance"}
PROCESS = steady("poller_export_spool_requests", METRICS, 0)
FIRE = [
    Fires(
        "PollerGone",
        "critical",
        [
            series("poller_export_spool_requests", {**METRICS, "job": "other"}, "0+0x120"),
            series("poller_export_spool_requests", METRICS, "_x121"),
        ],
        "No poller of the service obscura-poller exports",
        "300+0x200",
        labels={},
    ),
    Fires(
        "PollerGone",
        "critical",
        [series("poller_export_spool_requests", {**METRICS, "job": "team/obscura-poller"}, "0+0x20 _x100")],
        "No poller of the service obscura-poller exports",
        "300+0x200",
        labels={},
    ),
    Fires(
        "PollerFewer",
        "warning",
        [PROCESS, series("poller_export_spool_requests", {**METRICS, "instance": "b"}, "0+0x50 _x70")],
        "Fewer pollers of obscura-poller export than an hour ago",
        "300+0x200",
        labels={"job": "obscura-poller"},
        at=75,
    ),
    Fires(
        # The leader ceases to lead, and another election has a leader.
        "PollerNoLeader",
        "critical",
        [
            PROCESS,
            series("poller_leader", LEADER, "1+0x50 0+0x70"),
            series("poller_leader", {**LEADER, "instance": "b"}, "0+0x120"),
            steady("poller_leader", {**LEADER, "poller_leader_election": "kubernetes:other"}, 1),
        ],
        "No poller of the election postgresql:obscura-poller leads",
        "1+0x200",
        labels=ELECTION,
        at=60,
    ),
    Fires(
        # The leader was killed, and the follower cannot reach the server of the election.
        "PollerNoLeader",
        "critical",
        [
            PROCESS,
            series("poller_leader", LEADER, "1+0x50 _x70"),
            series("poller_leader", {**LEADER, "instance": "b"}, "0+0x120"),
        ],
        "No poller of the election postgresql:obscura-poller leads",
        "1+0x200",
        labels=ELECTION,
        at=65,
    ),
    Fires(
        # Within the export interval, so that `poller_leader` is always 1.
        "PollerLeaderFlapping",
        "warning",
        [
            steady("poller_leader", LEADER, 1),
            series("poller_leader_changes_total", LEADER, "1+0x30 1+2x8 17+0x80"),
        ],
        "The leader of the election postgresql:obscura-poller changes often",
        "17+0x200",
        labels=ELECTION,
        at=45,
    ),
    Fires(
        # Both processes are killed in turn, soon after they became the leader; the counters begin again.
        "PollerLeaderFlapping",
        "warning",
        [
            series("poller_leader", LEADER, " ".join(["1+0x5 _x3 0+0x8"] * 6)),
            series("poller_leader", {**LEADER, "instance": "b"}, " ".join(["0+0x8 1+0x5 _x3"] * 6)),
        ],
        "The leader of the election postgresql:obscura-poller changes often",
        "1+0x200",
        labels=ELECTION,
        at=70,
    ),
    Fires(
        # The process still exports when a target is down; the other target is available.
        "PollerTargetDown",
        "critical",
        [
            series("poller_target_up", TARGET, "1+0x10 0+0x60"),
            steady("poller_target_up", {**TARGET, "instance": "eu-1"}, 1),
        ],
        "The poller does not reach the target tenants/t_1",
        "1+0x200",
        labels=TARGET,
        at=30,
    ),
    Fires(
        "PollerTargetsMissing",
        "warning",
        [
            PROCESS,
            *(series("poller_target_up", {**TARGET, "instance": name}, "1+0x50 _x70") for name in "ab"),
            steady("poller_target_up", {**TARGET, "instance": "c"}, 1),
        ],
        "2 targets of obscura-poller have stopped reporting",
        "1+0x200",
        labels={"job": "obscura-poller"},
        at=75,
    ),
    Fires(
        "PollerShardMissing",
        "critical",
        [
            PROCESS,
            *(
                series(
                    "poller_shard_count",
                    {**POLLER, "instance": f"a-{index}", "poller_shard_index": index},
                    "3+0x50 _x70" if index == "1" else "3+0x120",
                )
                for index in "012"
            ),
        ],
        "Only 2 shards of obscura-poller report",
        "3+0x200",
        labels={"job": "obscura-poller"},
        at=75,
    ),
    Fires(
        "PollerServerQueueFull",
        "warning",
        [series("poller_queue_delay_seconds", POLLER, "0+0x9 200 0 0 210 0 205 0 200 0+0x3 205 0+0x40")],
        "Targets of the poller a wait 3m 30s for a connection",
        "0+0x200",
        labels=POLLER,
        at=27,
    ),
    Fires(
        "PollerQueryStale",
        "critical",
        [state("stale"), state("failed", error_type="timeout")],
        "The values of the query users of a are withheld",
        "0+0x200",
    ),
    Fires(
        "PollerQueryStale",
        "critical",
        [state("stale"), state("skipped", poller_reason="lag")],
        "The values of the query users of a are withheld",
        "0+0x200",
    ),
    Fires(
        "PollerQueryFailing",
        "warning",
        [state("failed", error_type="rejected")],
        "The query users of a fails",
        "0+0x200",
        at=16,
    ),
    Fires(
        # It fails for one reason, then for another.
        "PollerQueryFailing",
        "warning",
        [
            series(
                "poller_query_state",
                {**QUERY, "poller_state": "failed", "error_type": "timeout"},
                "1+0x9 0 _x40",
            ),
            series(
                "poller_query_state",
                {**QUERY, "poller_state": "failed", "error_type": "conflict"},
                "_x9 1+0x40",
            ),
        ],
        "The query users of a fails",
        "0+0x200",
        at=16,
    ),
    Fires(
        "PollerQuerySkipped",
        "warning",
        [state("skipped", poller_reason="duty_cycle")],
        "The query users of a has not been sent for an hour: duty_cycle",
        "0+0x200",
        labels={**QUERY, "poller_state": "skipped", "poller_reason": "duty_cycle"},
    ),
    Fires(
        "PollerQuerySkipped",
        "warning",
        [
            series("poller_query_last_success_seconds", QUERY, "0+60x9 540+0x110"),
            series(
                "poller_query_state",
                {**QUERY, "poller_state": "skipped", "poller_reason": "column"},
                "_x9 1+0x110",
            ),
        ],
        "The query users of a has not been sent for an hour: column",
        "0+0x200",
        labels={**QUERY, "poller_state": "skipped", "poller_reason": "column"},
        at=75,
    ),
    Fires(
        "PollerReplicaLag",
        "warning",
        [steady("poller_replica_lag_seconds", SERVER, 500)],
        "The replica replica:5432 is 8m 20s behind",
        "2+0x200",
        labels=SERVER,
    ),
    Fires(
        # A single alert, although two targets are on the server.
        "PollerReplicaLag",
        "warning",
        [
            steady(name, {**TARGET, "instance": target, **more}, value)
            for target, lag in (("a", 500), ("b", 480))
            for name, more, value in (
                ("poller_target_up", {}, 1),
                ("poller_replica_lag_seconds", {"server_address": "replica", "server_port": "5432"}, lag),
            )
        ],
        "The replica replica:5432 is 8m 20s behind",
        "1+0x200",
        labels={"job": "obscura-poller", "server_address": "replica", "server_port": "5432"},
    ),
    Fires(
        "PollerReplicaLagUnknown",
        "warning",
        [
            steady("poller_replica_standby", SERVER, 1),
            series("poller_replica_lag_seconds", SERVER, "_x121"),
        ],
        "The replay lag of the replica replica:5432 is unknown",
        "1+0x200",
        labels=SERVER,
    ),
    Fires(
        "PollerExportFailing",
        "warning",
        [
            series(
                "poller_export_requests_total",
                {**METRICS, "poller_outcome": "failed", "error_type": "UNAVAILABLE"},
                "0+1x120",
            ),
            series("poller_export_requests_total", {**METRICS, "poller_outcome": "ok"}, "0+1x120"),
        ],
        "Exports of the poller a fail",
        "120+0x200",
        labels=POLLER,
    ),
    Fires(
        "PollerExportFailing",
        "warning",
        [steady("poller_export_spool_age_seconds", METRICS, 400)],
        "Exports of the poller a fail",
        "0+0x200",
        labels=POLLER,
    ),
    Fires(
        "PollerSpoolFilling",
        "critical",
        [steady("poller_export_spool_size_bytes", METRICS, 140_000_000)],
        "The spool of the poller a is filling up",
        "0+0x200",
        labels=METRICS,
    ),
    Fires(
        "PollerSpoolFilling",
        "critical",
        [
            series("poller_export_spool_size_bytes", METRICS, "0+1200000x120"),
            series("poller_export_spool_age_seconds", METRICS, "0+60x120"),
        ],
        "The spool of the poller a is filling up",
        "0+0x200",
        labels=METRICS,
        at=40,
    ),
    Fires(
        # The series begins with the event, so `increase` has no earlier sample.
        "PollerExportDropped",
        "critical",
        [series("poller_export_dropped_total", {**METRICS, "poller_reason": "age"}, "_x60 7+0x60")],
        "The poller a has dropped requests: age",
        "7+0x200",
        labels={**METRICS, "poller_reason": "age"},
        at=62,
    ),
    Fires(
        "PollerExportRejected",
        "warning",
        [series("poller_export_rejected_total", {**METRICS, "poller_reason": "invalid"}, "3+0x60 9+0x60")],
        "The collector rejects data points of the poller a",
        "9+0x200",
        labels={**METRICS, "poller_reason": "invalid"},
        at=65,
    ),
    Fires(
        "PollerDataPointsRefused",
        "warning",
        [series("poller_query_quarantined_total", {**QUERY, "poller_reason": "nan"}, "0+1x120")],
        "Rows of the query users are rejected: nan",
        "120+0x200",
        labels={**QUERY, "poller_reason": "nan"},
    ),
    Fires(
        # Without the name of a query: POLLER_SELF_METRICS=target.
        "PollerDataPointsRefused",
        "warning",
        [series("poller_query_quarantined_total", {**POLLER, "poller_reason": "nan"}, "0+1x120")],
        "Rows are rejected: nan",
        "120+0x200",
        labels={**POLLER, "poller_reason": "nan"},
    ),
    Fires(
        "PollerTicksLeftOut",
        "warning",
        [series("poller_tick_overruns_total", {**POLLER, "poller_tick_name": "default/1m"}, "0+1x120")],
        "Ticks default/1m are skipped",
        "120+0x200",
        labels={**POLLER, "poller_tick_name": "default/1m"},
    ),
    Fires(
        "PollerReloadFailed",
        "warning",
        [steady("poller_config_reload_success", POLLER, 0)],
        "The query files or targets of the poller a have errors",
        "1+0x200",
        labels=POLLER,
    ),
    Fires(
        "UsersTotalAbove",
        "critical",
        [steady("users_total", POLLER, 1234)],
        "users_total is 1.234k: above 1,000",
        "500+0x200",
    ),
    Fires(
        "UsersTotalBelow",
        "warning",
        [steady("users_total", POLLER, 9)],
        "Few users remain: 9",
        "50+0x200",
        runbook="https://wiki.example/u",
        at=0,
    ),
    Fires(
        "UsersTotalGrowthAbove",
        "warning",
        [series("users_total", POLLER, f"20+15x{2 * HALF_HOURS_OF_A_DAY}")],
        "users_total grows by 720 in a day: above 500",
        "1460+0x200",
        at=30 * HALF_HOURS_OF_A_DAY,
        step=30,
        resolved=30 * (2 * HALF_HOURS_OF_A_DAY + 60),
    ),
    Fires(
        "UsersTotalWeeklyChangeAbove",
        "warning",
        [series("users_total", POLLER, f"100+0x{HALF_HOURS_OF_A_WEEK} 160+0x20")],
        "users_total differs by 60% from the same hour a week ago: above 50%",
        "100+0x200",
        at=30 * (HALF_HOURS_OF_A_WEEK + 6),
        step=30,
        resolved=30 * (HALF_HOURS_OF_A_WEEK + 60),
    ),
    Fires(
        "UsersTotalWeeklyChangeBelow",
        "warning",
        [series("users_total", POLLER, f"100+0x{HALF_HOURS_OF_A_WEEK} 40+0x20")],
        "users_total differs by -60% from the same hour a week ago: below -30%",
        "100+0x200",
        at=30 * (HALF_HOURS_OF_A_WEEK + 6),
        step=30,
        resolved=30 * (HALF_HOURS_OF_A_WEEK + 60),
    ),
    Fires(
        "StoreSizeBytesAbove",
        "warning",
        [
            steady("store_size_bytes", {**POLLER, "kind": "image", "disk_name": "one"}, 1.5 * 2**30),
            steady("store_size_bytes", {**POLLER, "kind": "text", "disk_name": "one"}, 5),
            steady("store_size_bytes", {**POLLER, "kind": "image", "disk_name": "two"}, 2 * 2**30),
        ],
        "store_size_bytes is 1.5GiB: above 1,073,741,824 By",
        "5+0x200",
        labels={
            **POLLER,
            "kind": "image",
            "disk_name": "one",
            "poller_query_name": "store",
            "owner": "storage-team",
            "team": "storage",
            "disk": "one",
        },
        annotations={
            "dashboard": "https://grafana.example/d/store?var-kind=image",
            "description": "It holds 1.5GiB.",
        },
    ),
    Fires(
        # The counter of a statistics table that was reset; the decrease does not count.
        "MessagesSentTotalGrowthBelow",
        "warning",
        [series("messages_sent_total", POLLER, f"100000+1x{HALF_HOURS_OF_A_DAY} 0+1x{HALF_HOURS_OF_A_DAY}")],
        "messages_sent_total grows by 47 in a day: below 100",
        "48+10x200",
        labels={**POLLER, "poller_query_name": "sent"},
        at=30 * 60,
        step=30,
        resolved=30 * (2 * HALF_HOURS_OF_A_DAY + 60),
    ),
    Fires(
        "MessagesSentTotalWeeklyChangeBelow",
        "warning",
        [series("messages_sent_total", POLLER, f"0+100x{HALF_HOURS_OF_A_WEEK} 33600+50x20")],
        "messages_sent_total differs by -50% from the same hour a week ago: below -30%",
        "34700+100x200",
        labels={**POLLER, "poller_query_name": "sent"},
        at=30 * (HALF_HOURS_OF_A_WEEK + 8),
        step=30,
        resolved=30 * (HALF_HOURS_OF_A_WEEK + 60),
    ),
]  # fmt: skip

HEALTHY = [
    PROCESS,
    series("poller_query_last_success_seconds", QUERY, "0+60x120"),
    # Another instance, later.
    series("poller_export_spool_requests", {**METRICS, "instance": "b"}, "_x60 0+0x120"),
    # Targets: one always, one added, one without an answer for ten minutes; a queue that was long once.
    steady("poller_target_up", {**TARGET, "instance": "always"}, 1),
    series("poller_target_up", {**TARGET, "instance": "added"}, "_x60 1+0x120"),
    series("poller_target_up", {**TARGET, "instance": "moved"}, "1+0x30 0+0x9 1+0x120"),
    series("poller_queue_delay_seconds", POLLER, "0+0x30 400 0+0x120"),
    # An election whose leader has changed by a regular stop, and once by a lost connection.
    series("poller_leader", LEADER, "1+0x20 _x3 0+0x30 1+0x70"),
    series("poller_leader", {**LEADER, "instance": "b"}, "0+0x20 1+0x33 0+0x70"),
    series("poller_leader_changes_total", LEADER, "1+0x20 _x3 0+0x30 1+0x70"),
    series("poller_leader_changes_total", {**LEADER, "instance": "b"}, "0+0x20 1+0x33 2+0x70"),
    # Shards: a third one is added before the others have the new number, each restarted once.
    *(
        series(
            "poller_shard_count", {**POLLER, "instance": f"a-{index}", "poller_shard_index": index}, values
        )
        for index, values in (("0", "2+0x34 3+0x90"), ("1", "2+0x32 _ 3+0x90"), ("2", "_x30 3+0x95"))
    ),
    # Stale until its first poll.
    series("poller_query_state", {**QUERY, "poller_state": "stale"}, "1 0 _x120"),
    # Failed twice in a row, then recovered.
    series(
        "poller_query_state",
        {**QUERY, "poller_state": "failed", "error_type": "conflict"},
        "_x20 1+0x9 0 _x120",
    ),
    # The column never existed, as the query declares.
    *(
        steady(name, {**POLLER, "poller_query_name": "attachments_bytes", **more}, value)
        for name, more, value in (
            ("poller_query_state", {"poller_state": "skipped", "poller_reason": "column"}, 1),
            ("poller_query_state", {"poller_state": "stale"}, 1),
        )
    ),
    # Sometimes delayed.
    series(
        "poller_query_state",
        {**QUERY, "poller_query_name": "slow", "poller_state": "skipped", "poller_reason": "duty_cycle"},
        "1+0x40 0 _x4 1+0x40 0 _x40",
    ),
    steady("poller_replica_lag_seconds", SERVER, 2),
    steady("poller_replica_standby", SERVER, 1),
    steady("poller_replica_standby", {**SERVER, "server_address": "primary"}, 0),
    series("poller_export_requests_total", {**METRICS, "poller_outcome": "ok"}, "0+1x120"),
    # One lost connection.
    series("poller_export_requests_total", {**METRICS, "poller_outcome": "failed"}, "_x30 1+0x120"),
    steady("poller_export_spool_size_bytes", METRICS, 0),
    series("poller_export_spool_age_seconds", METRICS, "0+0x30 60+0x1 0+0x120"),
    # Long ago.
    steady("poller_export_dropped_total", {**METRICS, "poller_reason": "age"}, 7),
    steady("poller_export_rejected_total", {**METRICS, "poller_reason": "partial_success"}, 7),
    # A collector that does not accept spans.
    series(
        "poller_export_requests_total",
        {**TRACES, "poller_outcome": "failed"},
        "0+1x120",
    ),
    series("poller_export_spool_age_seconds", TRACES, "0+60x10 600+0x110"),
    series(
        "poller_export_dropped_total",
        {**TRACES, "poller_reason": "age"},
        "0+1x120",
    ),
    # As declared by on_null: drop.
    series("poller_query_quarantined_total", {**QUERY, "poller_reason": "null"}, "0+1x120"),
    series(
        "poller_tick_overruns_total", {**POLLER, "poller_tick_name": "default/5m"}, "0+0x50 1+0x10 2+0x60"
    ),
    steady("poller_config_reload_success", POLLER, 1),
    series("users_total", POLLER, "100+0.001x120"),
    steady("store_size_bytes", {**POLLER, "kind": "image", "disk_name": "one"}, 2**29),
    series("messages_sent_total", POLLER, "0+10x120"),
]


DOWN = [
    PROCESS,
    steady("poller_target_up", TARGET, 0),
    *(
        steady("poller_query_state", {**TARGET, "poller_query_name": "users", **more}, 1)
        for more in (
            {"poller_state": "failed", "error_type": "unavailable"},
            {"poller_state": "stale"},
        )
    ),
]


FAILOVERS = [
    # The leader is killed twice: `a`, then `b`. The other one leads at once, and each restarts as a follower.
    *(
        item
        for name, values, counts in (
            ("a", "1+0x40 _x2 0+0x20 1+0x60", "1+0x40 _x2 0+0x20 1+0x60"),
            ("b", "0+0x40 1+0x20 _x2 0+0x60", "0+0x40 1+0x20 _x2 0+0x60"),
        )
        for item in (
            series("poller_leader", {**LEADER, "instance": name}, values),
            series("poller_leader_changes_total", {**LEADER, "instance": name}, counts),
            *(
                series(metric, {**labels, "instance": name}, values.replace("1+", "0+"))
                for metric, labels in (
                    ("poller_export_spool_requests", METRICS),
                    ("poller_queue_delay_seconds", POLLER),
                )
            ),
            series("poller_config_reload_success", {**POLLER, "instance": name}, values.replace("0+", "1+")),
        )
    ),
    # The series of the target continue, with the state of a query before its first poll.
    series("poller_target_up", TARGET, "1+0x40 _ 1+0x20 _ 1+0x60"),
    series("users_total", TARGET, "100+0x40 _ 100+0x20 _ 100+0x60"),
    *(
        series("poller_query_state", {**TARGET, "poller_query_name": "users", **more}, values)
        for more, values in (
            ({"poller_state": "stale"}, "_x40 1 0 _x20 1 0 _x60"),
            # The new leader does not report that the query failed in the old one.
            ({"poller_state": "failed", "error_type": "timeout"}, "_x35 1+0x4 _x80"),
        )
    ),
]


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rules that `poller alerts` writes for queries with alerts."""
    folder = tmp_path_factory.mktemp("alerts")
    queries = folder / "queries.yaml"
    queries.write_text(json.dumps(CATALOG))
    written = folder / "rules.yaml"
    written.write_text(alerts("--queries", str(queries)))
    return written


def alerts(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "poller", "alerts", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rules_in(rules: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(rules.read_text())["groups"] for rule in group["rules"]]


def examine(
    folder: Path, rules: Path, stored: Sequence[object], rule_tests: Sequence[object], step: int = 1
) -> None:
    """Run `promtool test rules` and assert success; `step` is in minutes."""
    file = write_tests(folder, rules, [unit_test(stored, rule_tests, step)], step)
    done = promtool("test", "rules", file)
    if done.returncode != 0:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


def write_tests(folder: Path, rules: Path, tests: Sequence[object], step: int) -> Path:
    """Write a file of unit tests for rules; `step` is the interval of evaluation in minutes."""
    file = folder / f"test-{step}m.yaml"
    whole = {"rule_files": [str(rules)], "evaluation_interval": f"{step}m", "tests": tests}
    file.write_text(json.dumps(whole))
    return file


def unit_test(stored: Sequence[object], rule_tests: Sequence[object], step: int) -> dict[str, object]:
    return {"interval": f"{step}m", "input_series": stored, "alert_rule_test": rule_tests}


@pytest.mark.parametrize("case", FIRE, ids=lambda case: case.alert)
def test_an_alert_fires_explains_why_and_resolves(case: Fires, rules: Path, tmp_path: Path) -> None:
    """With exactly these labels, this summary and a link to the runbook, and not earlier."""
    stored, rule_tests = firing_and_resolving(case, rules)
    examine(tmp_path, rules, stored, rule_tests, case.step)


def firing_and_resolving(case: Fires, rules: Path) -> tuple[list[object], list[object]]:
    """Return the series and the expected alerts of a case."""
    (rule,) = [rule for rule in rules_in(rules) if rule["alert"] == case.alert]
    fired = {
        "exp_labels": {"severity": case.severity, **case.labels},
        "exp_annotations": {
            "summary": case.summary,
            "description": description(rule, case),
            "runbook_url": case.runbook or rule["annotations"]["runbook_url"],
            **case.annotations,
        },
    }
    expected = {case.at: [fired], case.resolved: []}
    if "for" in rule:
        expected[2] = []
    rule_tests: list[object] = [
        {"eval_time": f"{minute}m", "alertname": case.alert, "exp_alerts": alerts}
        for minute, alerts in sorted(expected.items())
    ]
    stored: list[object] = [
        {**stored, "values": f"{stored['values']} {case.recovery}"} for stored in case.stored
    ]
    return stored, rule_tests


def description(rule: dict[str, Any], case: Fires) -> str:
    """The description of the rule with its templates filled in."""
    text: str = rule["annotations"]["description"]
    text = text.replace('{{ "{{" }}', "{{").replace("{{ $value }}", "2")
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: case.labels[match[1]], text)


def test_no_alert_fires_without_a_problem(rules: Path, tmp_path: Path) -> None:
    rule_tests: list[dict[str, object]] = [
        {"eval_time": f"{minute}m", "alertname": rule["alert"], "exp_alerts": []}
        for rule in rules_in(rules)
        for minute in (20, 30, 45, 70, 90, 115)
    ]
    examine(tmp_path, rules, HEALTHY, rule_tests)


def test_a_failover_of_the_leader_fires_no_alert(rules: Path, tmp_path: Path) -> None:
    rule_tests: list[dict[str, object]] = [
        {"eval_time": f"{minute}m", "alertname": rule["alert"], "exp_alerts": []}
        for rule in rules_in(rules)
        for minute in (*range(40, 75), 80, 90, 100, 115)
    ]
    examine(tmp_path, rules, FAILOVERS, rule_tests)


def test_a_target_that_is_down_fires_one_alert_instead_of_one_for_each_query(
    rules: Path, tmp_path: Path
) -> None:
    rule_tests: list[dict[str, object]] = [
        {"eval_time": "70m", "alertname": rule["alert"], "exp_alerts": []}
        for rule in rules_in(rules)
        if rule["alert"] != "PollerTargetDown"
    ]
    examine(tmp_path, rules, DOWN, rule_tests)


def test_a_steady_week_fires_no_anomaly_alert(rules: Path, tmp_path: Path) -> None:
    """A new series is not an anomaly either, although any value is infinitely more than none."""
    weeks = f"{2 * HALF_HOURS_OF_A_WEEK}"
    stored = [
        series("users_total", POLLER, f"100+0.1x{weeks}"),
        series("users_total", {**POLLER, "instance": "new"}, f"0+0x{HALF_HOURS_OF_A_WEEK} 50+0x{weeks}"),
    ]
    rule_tests: list[dict[str, object]] = [
        {"eval_time": f"{30 * (HALF_HOURS_OF_A_WEEK + later)}m", "alertname": alert, "exp_alerts": []}
        for alert in ("UsersTotalWeeklyChangeAbove", "UsersTotalWeeklyChangeBelow", "UsersTotalGrowthAbove")
        for later in (4, 40, 200)
    ]
    examine(tmp_path, rules, stored, rule_tests, 30)


def test_each_alert_has_a_case(rules: Path) -> None:
    assert {rule["alert"] for rule in rules_in(rules)} == {case.alert for case in FIRE}


def test_promtool_accepts_the_rules(rules: Path) -> None:
    for file in (rules, RULES):
        done = promtool("check", "rules", "--lint=all", "--lint-fatal", file)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_committed_rules_are_current() -> None:
    """`poller alerts > deploy/prometheus/rules.yaml` regenerates them."""
    assert RULES.read_text() == alerts()


def test_the_limits_come_from_the_settings() -> None:
    text = alerts(
        "--max-replay-lag",
        "90s",
        "--service-name",
        'my"po.ller',
        "--runbook",
        "https://x.example/r",
        "--interval",
        "1m",
    )
    written = {rule["alert"]: rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]}

    assert written["PollerReplicaLag"]["expr"].startswith("poller_replica_lag_seconds > 90\n")
    assert written["PollerServerQueueFull"]["expr"].endswith("> 30\n")
    assert r'{job=~"(.+/)?my\"po\\.ller"}' in written["PollerGone"]["expr"]
    assert written["PollerGone"]["annotations"]["runbook_url"] == "https://x.example/r#pollergone"


def test_the_runbook_has_a_section_for_each_alert(rules: Path) -> None:
    sections = dict(
        re.findall(r"^## ([^\n]+)\n(.+?)(?=^## |\Z)", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    )
    anchors = {heading.lower().replace(" ", "-"): text for heading, text in sections.items()}
    linked = {
        rule["annotations"]["runbook_url"].partition("#")[2]
        for rule in rules_in(rules)
        if rule["annotations"]["runbook_url"].startswith("docs/runbook.md#")
    }

    assert linked == anchors.keys()
    for heading, text in sections.items():
        assert "**Look at**" in text, heading
        assert "**Do**" in text, heading
    for anchor in re.findall(r"\]\(#([^)]+)\)", RUNBOOK.read_text()):
        assert anchor in anchors
