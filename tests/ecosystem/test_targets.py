"""Several targets in Prometheus 3 and VictoriaMetrics: each has its own series, also after a failover."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from poller.demo.cluster import Cluster
from poller.demo.postgres import PostgresServer
from tests.bed.candidate import election_url
from tests.bed.documentation import only
from tests.bed.process import Process
from tests.ecosystem.backends import RULES, Backend, Prometheus, VictoriaMetrics
from tests.ecosystem.test_generated_files import BOARDS, evaluated

Start = Callable[..., Process]
JOB = "obscura-poller"
PROCESS = {"job": JOB, "instance": "poller-0"}
CHAT = {"job": JOB, "instance": "eu-chat"}
SHOP = {"job": JOB, "instance": "eu-shop"}
RESOURCES = {
    "eu-chat": {"db_system_name": "postgresql", "db_namespace": "chat", "team": "messaging"},
    "eu-shop": {"db_system_name": "postgresql", "db_namespace": "shop", "team": "sales"},
}
PANELS = {"Targets", "Down", "Waiting", "Targets: age", "Targets: duration", "Targets: queries by state"}
"""Titles of panels about targets that always have data."""


@pytest.fixture
def databases(own_cluster: Cluster) -> Cluster:
    """Two databases with the same table: `chat` with 3 rows and `shop` with 5."""
    for name, rows in (("chat", 3), ("shop", 5)):
        own_cluster.primary.execute(f"CREATE DATABASE {name}")
        own_cluster.primary.execute(
            f"CREATE TABLE items AS SELECT g AS id FROM generate_series(1, {rows}) g", name
        )
    own_cluster.wait_replayed()
    return own_cluster


def url(database: str, *servers: PostgresServer) -> str:
    """Return a connection string that tries the servers in this order."""
    parts = [conninfo_to_dict(server.dsn(database)) for server in servers]
    hosts = {key: ",".join(str(part[key]) for part in parts) for key in ("host", "port")}
    return make_conninfo("", **{**parts[0], **hosts})


def environment(
    folder: Path, backend: Backend, urls: Mapping[str, str], sql: str = "SELECT count(*) AS n FROM items"
) -> dict[str, str]:
    """Return the variables of a daemon that polls both targets each second."""
    metric = {"name": "items", "unit": "{item}", "description": "Items.", "value_column": "n"}
    query = {"name": "items", "sql": sql, "interval": "1s", "metrics": [metric]}
    (folder / "queries.yaml").write_text(json.dumps({"queries": [query]}), encoding="utf-8")
    targets = []
    for name, of_target in urls.items():
        (folder / f"{name}.url").write_text(of_target, encoding="utf-8")
        targets.append(
            {
                "name": name,
                "url_file": f"{name}.url",
                "resource": {"team": RESOURCES[name]["team"]},
                "attributes": {"region": "eu"},
                "require_standby": False,
            }
        )
    (folder / "targets.yaml").write_text(json.dumps({"targets": targets}), encoding="utf-8")
    return {
        "POLLER_TARGETS": str(folder / "targets.yaml"),
        "POLLER_QUERIES": str(folder / "queries.yaml"),
        "POLLER_OTLP_ENDPOINT": backend.otlp,
        "POLLER_OTLP_PROTOCOL": "http/protobuf",
        "POLLER_INSTANCE": PROCESS["instance"],
        "POLLER_EXPORT_INTERVAL": "1s",
        "POLLER_STATE_DIR": str(folder / "state"),
    }


def labels_of(backend: Backend, expr: str, count: int = 1) -> list[dict[str, str]]:
    """Return the labels of the series in their order, as soon as there are `count`; see `own_labels`."""
    backend.wait_for(lambda: len(backend.series(expr)) >= count)
    labels = (own_labels(backend, labels) for labels, _ in backend.series(expr))
    return sorted(labels, key=lambda labels: sorted(labels.items()))


def own_labels(backend: Backend, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels other than the attributes of the resource, which VictoriaMetrics adds to each series.

    Raises AssertionError if they are not those of the target.
    """
    resource = RESOURCES.get(labels["instance"], {}) if isinstance(backend, VictoriaMetrics) else {}
    assert resource.items() <= labels.items()
    return {name: value for name, value in labels.items() if name not in resource}


@pytest.mark.parametrize("level", ["target", "query"])
def test_targets_with_the_same_series_never_mix(
    databases: Cluster, poller_process: Start, tmp_path: Path, backend: Backend, level: str
) -> None:
    """`instance` is the name of the target, and the poller's own metrics have POLLER_INSTANCE."""
    urls = {"eu-chat": url("chat", databases.standby), "eu-shop": url("shop", databases.standby)}
    variables = environment(tmp_path, backend, urls)
    poller_process("run", env={**variables, "POLLER_SELF_METRICS": level})

    assert labels_of(backend, "items", 2) == [{**CHAT, "region": "eu"}, {**SHOP, "region": "eu"}]
    assert {labels["instance"]: value for labels, value in backend.series("items")} == {
        "eu-chat": 3, "eu-shop": 5,
    }  # fmt: skip
    assert labels_of(backend, "poller_target_up == 1", 2) == [CHAT, SHOP]
    assert labels_of(backend, 'poller_target_queries{poller_state="ok"} == 1', 2) == [
        {**CHAT, "poller_state": "ok"},
        {**SHOP, "poller_state": "ok"},
    ]
    for metric in ("poller_queue_targets", "poller_queue_delay_seconds", "poller_config_reload_success"):
        assert labels_of(backend, metric) == [PROCESS]
    polls, of_queries = "poller_polls_total", "poller_query_series"
    if level == "target":
        assert labels_of(backend, polls) == [{**PROCESS, "poller_state": "ok"}]
        assert not backend.series(of_queries)
    else:
        assert labels_of(backend, polls) == [{**PROCESS, "poller_query_name": "items", "poller_state": "ok"}]
        assert labels_of(backend, of_queries, 2) == [
            {**of, "poller_query_name": "items"} for of in (CHAT, SHOP)
        ]

    assert {labels["instance"] for labels, _ in backend.series(choices())} == urls.keys()
    with_data, firing = evaluated(backend)
    assert with_data >= PANELS
    assert firing <= {"PollerTicksLeftOut"}, "healthy targets fire no alert"


def test_each_target_has_its_own_target_info(
    databases: Cluster, poller_process: Start, tmp_path: Path, prometheus: Prometheus
) -> None:
    urls = {"eu-chat": url("chat", databases.standby), "eu-shop": url("shop", databases.standby)}
    poller_process("run", env=environment(tmp_path, prometheus, urls))

    prometheus.wait_for(lambda: len(prometheus.series("target_info")) == 3)
    infos = {labels["instance"]: labels for labels, _ in prometheus.series("target_info")}
    assert infos.keys() == {"eu-chat", "eu-shop", "poller-0"}
    for name, resource in RESOURCES.items():
        assert resource.items() <= infos[name].items()
    assert not infos["poller-0"].keys() & {"db_system_name", "db_namespace", "team"}
    joined = "items * on (job, instance) group_left (team, db_namespace) target_info"
    prometheus.wait_for(lambda: len(prometheus.series(joined)) == 2)
    series = prometheus.series(joined)
    assert {labels["instance"]: (labels["team"], labels["db_namespace"]) for labels, _ in series} == {
        "eu-chat": ("messaging", "chat"),
        "eu-shop": ("sales", "shop"),
    }


def test_a_failover_renames_no_series(
    databases: Cluster, poller_process: Start, tmp_path: Path, backend: Backend
) -> None:
    """One target moves to the primary, and the other has no second host, so that it is down."""
    urls = {
        "eu-chat": url("chat", databases.standby, databases.primary),
        "eu-shop": url("shop", databases.standby),
    }
    poller_process("run", env=environment(tmp_path, backend, urls))
    backend.wait_for(lambda: len(backend.series("items")) == 2)
    backend.wait_for_series('poller_replica_standby{instance="eu-chat"} == 1')

    databases.standby.stop("immediate")
    databases.primary.execute("INSERT INTO items VALUES (4)", "chat")

    assert labels_of(backend, "items == 4") == [{**CHAT, "region": "eu"}]
    assert labels_of(backend, "poller_target_up == 0") == [SHOP]
    assert labels_of(backend, "poller_target_up == 1") == [CHAT]
    series = backend.samples("items", 600)
    assert sorted(labels["instance"] for labels, _ in series) == ["eu-chat", "eu-shop"]
    assert len(backend.samples("target_info", 600)) == (3 if isinstance(backend, Prometheus) else 0)
    (down,) = [rule for rule in rules() if rule["alert"] == "PollerTargetDown"]
    assert labels_of(backend, down["expr"]) == [SHOP]


def test_the_series_of_the_targets_continue_when_the_leader_is_killed(
    databases: Cluster, poller_process: Start, tmp_path: Path, backend: Backend
) -> None:
    """No series is new, no graph has a gap, and one process leads, as the documented queries report."""
    urls = {"eu-chat": url("chat", databases.standby), "eu-shop": url("shop", databases.standby)}
    variables = {
        **environment(tmp_path, backend, urls),
        "POLLER_LEADER_ELECTION": election_url(databases.standby.dsn()),
        "POLLER_LEADER_TTL": "3s",
    }

    def start(instance: str) -> Process:
        own = {"POLLER_INSTANCE": instance, "POLLER_STATE_DIR": str(tmp_path / instance)}
        process = poller_process("run", env={**variables, **own})
        process.wait_for_line("leads|follows")
        return process

    def leaders(window: str) -> dict[str, float]:
        expr = f"last_over_time(poller_leader[{window}])"
        return {labels["instance"]: value for labels, value in backend.series(expr)}

    first = start("poller-0")
    second = start("poller-1")
    assert backend.wait_for(lambda: leaders("1h") == {"poller-0": 1, "poller-1": 0})
    assert backend.wait_for(lambda: len(backend.series("items")) == 2)
    # A poll's status is recorded after its values, so an export in between has no series of the status.
    assert backend.wait_for(lambda: len(backend.series("poller_target_up == 1")) == 2)
    before = of_targets(backend)
    begin = time.time()

    first.send(signal.SIGKILL)
    databases.primary.execute("INSERT INTO items VALUES (4)", "chat")
    second.wait_for_line("this process leads now")
    assert labels_of(backend, "items == 4") == [{**CHAT, "region": "eu"}]

    assert of_targets(backend) ^ before == set()
    times = [at for at, _ in graph(backend, 'items{instance="eu-chat"}', begin)]
    assert len(times) == round(times[-1] - times[0]) + 1
    number, *others, without_leader = queries()
    assert backend.wait_for(lambda: leaders("5s") == {"poller-1": 1})
    assert [value for _, value in backend.series(number.replace("2m", "5s"))] == [1]
    with_data, firing = evaluated(backend)
    assert with_data >= PANELS | {"Leader", "Changes in an hour"}
    assert firing <= {"PollerTicksLeftOut"}, "a failover fires no alert"

    start("poller-0")
    assert backend.wait_for(lambda: leaders("5s") == {"poller-0": 0, "poller-1": 1})
    assert of_targets(backend) ^ before == set()
    assert [value for _, value in backend.series(number)] == [1]
    for expr in others:
        assert backend.series(expr), expr
    assert not backend.series(without_leader)


def of_targets(backend: Backend) -> set[str]:
    """Return all series of the targets since the start, except alerts and those of queries not ok."""
    selector = '{instance=~"eu-.*",__name__!="poller_query_state",alertname=""}'
    series = backend.api("series", **{"match[]": selector})
    return {
        json.dumps(labels, sort_keys=True) for labels in series if labels.get("poller_state", "ok") == "ok"
    }


def graph(backend: Backend, expr: str, begin: float) -> list[tuple[float, str]]:
    """Return the points of the only series of a graph from `begin` until now, with a second between two."""
    end = f"{time.time():.0f}"
    (series,) = backend.api("query_range", query=expr, start=f"{begin:.0f}", end=end, step="1s")["result"]
    points: list[tuple[float, str]] = series["values"]
    return points


def queries() -> list[str]:
    """Return the documented queries about the leader."""
    _, text = only("leader_queries")
    return text.strip().splitlines()


def choices() -> str:
    """Return the expression of the values of the dashboards' variable `target`."""
    board = json.loads(BOARDS[0].read_text(encoding="utf-8"))
    (variable,) = [item for item in board["templating"]["list"] if item["name"] == "target"]
    query: str = variable["query"]["query"].removeprefix("query_result(").removesuffix(")")
    return query.replace("$job", ".*").replace("$instance", ".*").replace("$__range", "1h")


def rules() -> list[dict[str, str]]:
    """Return the shipped rules about the poller."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]
