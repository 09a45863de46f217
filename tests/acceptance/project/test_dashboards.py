"""The expressions of the dashboards and rules match the series of a real run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from poller.config.queries.files import resolve
from poller.config.queries.load import load
from poller.model.catalog import Defaults
from poller.model.prometheus import metric_name
from poller.model.text import install
from poller.model.units import unit_problem
from poller.receiver.answers import ACCEPT, UNAVAILABLE, partial
from poller.receiver.decode import Point
from poller.receiver.receiver import Receiver
from poller.tools.generate.alert_rules import query_rules, to_yaml
from poller.tools.generate.dashboard import inventory
from poller.tools.generate.grafana import unit_id
from poller.tools.generate.promql import increase, of
from tests.bed.messaging import MessagingServer
from tests.bed.process import ROOT, Process, eventually
from tests.bed.programs import need
from tests.bed.prometheus import Prometheus, openmetrics

GRAFANA = ROOT / "deploy" / "grafana"
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
HOUR, WEEK = 3600.0, 604800.0
Json = dict[str, Any]


def a_query(name: str, sql: str, *, metric: Mapping[str, object] | None = None, **fields: object) -> Json:
    fed = {"name": name, "description": name, "unit": "{row}", "value_column": "n", **(metric or {})}
    once = {"name": name, "sql": sql, "interval": "1s", "timeout": "1s", "max_age": "1h", "metrics": [fed]}
    return {**once, **fields}


# One query for each kind of failure, in addition to the shipped queries.
TROUBLED = {
    "queries": [
        a_query(
            "by_name",
            "SELECT name, count(*) AS n FROM devices GROUP BY name",
            metric={
                "attribute_columns": ["name"],
                "attributes": {"of.what": "devices"},
                "alert": [
                    {"above": 0},
                    {"of": "daily_growth", "above": -1e12},
                    {"of": "weekly_change", "above": "-100%"},
                    {"below": 1000},
                ],
            },
        ),
        a_query(
            "guessed",
            "SELECT count(*) AS n FROM users",
            estimate={"sql": "SELECT 40 AS n", "above_cost": 0.0001},
        ),
        a_query(
            "divided", "SELECT 1/0 AS n", interval="1h"
        ),  # it stays failed, and no circuit breaker postpones it
        a_query("undone", "SELECT 1 AS n", requires={"columns": {"attachments": ["colour"]}}),
        a_query("dropped", "SELECT count(*) AS n FROM fleeting", max_age="1s", metric={"unit": "By"}),
        a_query("vanished", "SELECT count(*) AS n FROM fleeting", requires={"columns": {"fleeting": ["id"]}}),
        a_query(
            "not_numbers",
            "SELECT g AS id, 'NaN'::float8 AS n FROM generate_series(1, 2) g UNION ALL SELECT 3, 1.5",
            metric={"attribute_columns": ["id"], "unit": "s"},
        ),
        a_query(
            "too_many",
            "SELECT g AS id, 1 AS n FROM generate_series(1, 9) g ORDER BY g",
            metric={"attribute_columns": ["id"]},
            max_series=3,
            overflow="other",
        ),
        a_query(
            "sizes",
            "SELECT kind, n FROM (VALUES ('a', 1), ('a', 5), ('b', 50)) AS v (kind, n)",
            metric={"attribute_columns": ["kind"], "histogram": [1, 10]},
        ),
        a_query(
            "counted",
            "SELECT g AS id, extract(epoch FROM now())::bigint AS n FROM generate_series(1, 2) g",
            metric={
                "type": "counter",
                "attribute_columns": ["id"],
                "alert": [{"of": "daily_growth", "above": 0}, {"of": "weekly_change", "above": "-100%"}],
            },
        ),
    ]
}
METRICS = {
    # Whether there are exact, estimated or stale values.
    "users_total": [True, False, False],
    "pending_messages_total": [True, False, False],
    "attachments_total_count": [True, False, False],
    "attachments_total_bytes": [True, False, False],
    "by_name": [True, False, False],
    "guessed": [False, True, False],
    "divided": [False, False, False],
    "undone": [False, False, False],
    "dropped": [False, False, True],
    "vanished": [True, False, False],
    "not_numbers": [True, False, False],
    "too_many": [True, False, False],
    "sizes_sum": [True, False, False],
    "sizes_count": [True, False, False],
    "counted": [True],
}
MAY_BE_EMPTY = {
    # Series that a short run may lack.
    "Ticks skipped in an hour",
    "Lost in an hour",
}
NO_CAUSE = {
    "PollerGone",
    "PollerFewer",
    "PollerNoLeader",
    "PollerLeaderFlapping",
    "PollerTargetDown",
    "PollerTargetsMissing",
    "PollerServerQueueFull",
    "PollerShardMissing",
    "PollerReplicaLag",
    "PollerReplicaLagUnknown",
    "PollerSpoolFilling",
    "PollerExportDropped",
    "PollerTicksLeftOut",
}
FUNCTIONS = {"max_over_time", "avg_over_time", "predict_linear"}
UNSEEN = {
    # Only with POLLER_TARGETS.
    "poller_target_up",
    "poller_queue_delay_seconds",
    # Only with POLLER_LEADER_ELECTION.
    "poller_leader",
    metric_name("poller.leader.changes", "{change}", "counter"),
    "poller_shard_count",
    # An event that has not happened has no series.
    metric_name("poller.export.dropped", "{request}", "counter"),
    metric_name("poller.tick.overruns", "{tick}", "counter"),
}


def written(which: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "poller", "dashboard", which], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(server: MessagingServer, receiver: Receiver, queries: str, file: Path) -> list[Point]:
    """Run the daemon while a table, the collector and `file` disappear; return all exported points."""
    server.execute("CREATE TABLE fleeting AS SELECT 1 AS id")
    server.replayed()
    process = Process(
        [sys.executable, "-m", "poller", "run"],
        env={
            "POLLER_DATABASE_URL": server.standby_dsn,
            "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
            "POLLER_QUERIES": queries,
            "POLLER_INSTANCE": "test",
            "POLLER_INTERVAL": "1m",
            "POLLER_TIMEOUT": "1s",
            "POLLER_EXPORT_INTERVAL": "500ms",
            "POLLER_MAX_DUTY_CYCLE": "100%",
        },
    )
    try:
        receiver.wait_for(lambda points: {p.metric for p in points} >= {"dropped", "by_name", "guessed"}, 120)
        since = time.time_ns()
        server.execute("DROP TABLE fleeting")
        file.write_text("queries: none")
        receiver.answer = UNAVAILABLE
        # Several times, because a rate ignores the first sample.
        assert eventually(lambda: len(receiver.attempts()) >= len(receiver.requests()) + 8)
        receiver.answer = partial(1, "too old")
        process.wait_for_line("rejects 1 of", 120)
        receiver.answer = ACCEPT
        receiver.wait_for(
            lambda points: all(
                any(has(point) for point in points if point.time_unix_nano > since) for has in TROUBLES
            ),
            120,
        )
        count = len(receiver.requests())
        assert eventually(lambda: len(receiver.requests()) >= count + 3)  # a rate needs two points
        return receiver.points()
    finally:
        process.close()


TROUBLES: list[Callable[[Point], bool]] = [
    lambda point: (
        point.metric == "poller.query.state"
        and point.attributes["poller.query.name"] == "dropped"
        and point.attributes["poller.state"] == "stale"
        and point.value == 1
    ),
    lambda point: point.attributes.get("poller.outcome") == "failed",
    lambda point: point.metric == "poller.export.rejected",
    lambda point: point.metric == "poller.config.reload.success" and point.value == 0,
]
"""Conditions for the end of the run."""


@pytest.mark.parametrize("which", ["inventory", "poller"])
def test_the_committed_dashboards_are_current(which: str) -> None:
    """`poller dashboard WHICH > deploy/grafana/WHICH.json` regenerates them."""
    assert (GRAFANA / f"{which}.json").read_text(encoding="utf-8") == written(which)


@pytest.mark.timeout(400)
def test_every_expression_matches_the_series_of_a_real_run(
    server: MessagingServer, receiver: Receiver, tmp_path: Path
) -> None:
    """The daemon polls the standby, and Prometheus stores the exports, also with the times of a week earlier.

    No expression fails. Every panel has data with each label that its legend or table names. Every alert that
    the run causes has data, and each metric that an alert uses is stored.
    """
    need("prometheus", "prometheus")
    file = tmp_path / "troubled.yaml"
    file.write_text(json.dumps(TROUBLED))
    queries = f"shipped:{file}"
    points = run(server, receiver, queries, file)
    file.write_text(json.dumps(TROUBLED))
    now = max(point.time_unix_nano for point in points) / 1e9
    with Prometheus(tmp_path, openmetrics(points, (HOUR, WEEK)), now) as prometheus:
        assert prometheus.label_values("job", "poller_export_spool_requests") == ["obscura-poller"]
        catalog = load(resolve(queries), Defaults(60.0, 1.0, 1000))
        for board in GRAFANA.glob("*.json"):
            check_panels(board.read_text(encoding="utf-8"), prometheus)
        check_panels(inventory(catalog.queries), prometheus)
        check_rules(RULES.read_text(encoding="utf-8"), prometheus)
        check_rules(to_yaml({"asked": list(query_rules(catalog.queries, ""))}, ""), prometheus)


def check_panels(board: str, prometheus: Prometheus) -> None:
    for panel in panels(json.loads(board)):
        results = [prometheus.query(filled(target["expr"])) for target in panel["targets"]]
        title = panel["title"].removesuffix(": growth").removesuffix(": counted")
        if title in METRICS:
            # Exact values, estimates and last values of stale queries; or now, growth and projection.
            expected = METRICS[title] if title == panel["title"] else [any(METRICS[title])] * len(results)
            assert [bool(result) for result in results] == expected, panel["title"]
        elif title not in MAY_BE_EMPTY:
            assert all(results), title
        for target, series in zip(panel["targets"], results, strict=True):
            labels = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]) + columns(panel)
            for label in labels:
                assert not series or label == "poller_conflict" or any(label in entry for entry in series), (
                    f"{title} shows {label}, which no series has: {series[0]}"
                )


def test_the_first_event_of_a_series_counts(tmp_path: Path) -> None:
    """A series of events begins with the first one, which PromQL's own `increase` ignores."""
    now, minute = 1_800_000_000, 60
    values = {
        "new": {-20: 3, -15: 3, -10: 5, -5: 5, 0: 5},
        "old": dict.fromkeys(range(-120, 1, 5), 7),
        "interrupted": {ago: 9 for ago in range(-180, 1, 5) if not -100 < ago < -30},
        "ended": dict.fromkeys(range(-180, -90, 5), 4),
    }
    samples = [
        f'events_total{{job="a",instance="b",kind="{kind}"}} {value} {now + ago * minute}'
        for kind, series in values.items()
        for ago, value in series.items()
    ]
    text = "\n".join(["# TYPE events counter", *samples, "# EOF", ""])
    with Prometheus(tmp_path, text, now) as prometheus:
        increases = prometheus.values(filled(increase(of("events_total"), "kind")))

    assert {labels["kind"]: value for labels, value in increases} == {"new": 5, "old": 0, "interrupted": 0}


def filled(expr: str) -> str:
    """Return the expression with all values of the dashboard's variables."""
    return expr.replace("$job", ".*").replace("$instance", ".*").replace("$target", ".*")


def columns(panel: Json) -> list[str]:
    """The labels that are columns of a table."""
    renamed: list[str] = [
        name
        for transformation in panel.get("transformations", [])
        for name in transformation["options"].get("renameByName", {})
    ]
    return [name for name in renamed if not name.startswith("Value")]


def check_rules(rules: str, prometheus: Prometheus) -> None:
    fired = {rule["alert"] for rule in rules_of(rules) if prometheus.query(rule["expr"])}
    for rule in rules_of(rules):
        for metric in set(re.findall(r"[a-z]+(?:_[a-z]+)+", bare(rule["expr"]))):
            exempt = metric in FUNCTIONS | UNSEEN
            assert exempt or prometheus.query(f"last_over_time({metric}[1h])"), (
                f"{rule['alert']} looks at {metric}, which is not stored"
            )
    expected = {rule["alert"] for rule in rules_of(rules)} - NO_CAUSE
    assert fired - {"PollerTicksLeftOut"} == expected  # a slow machine may skip ticks


def rules_of(rules: str) -> list[Json]:
    return [rule for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]


def bare(expr: str) -> str:
    """The expression without matchers and lists of labels."""
    return re.sub(r"\{[^}]*\}|\b(?:by|on|without|ignoring) *\([^)]*\)", " ", expr)


def panels(board: Json) -> list[Json]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("which", ["inventory", "poller"])
def test_panels_fit_the_grid_and_have_descriptions(which: str) -> None:
    board = json.loads((GRAFANA / f"{which}.json").read_text(encoding="utf-8"))
    occupied: set[tuple[int, int]] = set()
    board["panels"] += [panel for row in board["panels"] for panel in row.get("panels", [])]
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not occupied & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        occupied |= cells
        assert panel["type"] == "row" or panel["description"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert 8 <= len(board["uid"]) <= 40
    variables = {"datasource", "job", "instance", "target"}
    assert {variable["name"] for variable in board["templating"]["list"]} == variables
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board)))
    assert used - {"__all", "__range"} == variables


def test_the_dashboards_link_to_each_other() -> None:
    boards = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(GRAFANA.glob("*.json"))]
    assert [board["links"][0]["url"] for board in boards] == [f"/d/{board['uid']}" for board in boards[::-1]]


@pytest.mark.parametrize(
    ("unit", "format_id"),
    [
        ("{message}", "short"),
        ("", "short"),
        ("1", "none"),
        ("%", "percent"),
        ("By", "bytes"),
        ("MiBy", "mbytes"),
        ("MBy", "decmbytes"),
        ("s", "s"),
        ("min", "m"),
        ("us", "µs"),
        ("By/s", "Bps"),
        ("{message}/s", "cps"),
        ("wk", "suffix: wk"),
        ("{message}/h", "suffix: /h"),
    ],
)
def test_a_unit_becomes_a_format_of_grafana(unit: str, format_id: str) -> None:
    assert unit_problem(unit) is None
    assert unit_id(unit) == format_id


def test_without_the_extra_the_error_names_it() -> None:
    code = (
        "import sys; sys.modules['grafana_foundation_sdk'] = None; sys.argv = ['poller', 'dashboard']\n"
        "from poller.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)

    assert done.returncode == 2
    assert done.stderr == f"poller dashboard: requires an extra: {install('dashboard')}\n"
