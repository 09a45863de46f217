"""`check` and `import` print warnings that need no database, and succeed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from poller.cli.app import app
from poller.tools.check.own_session import OWN_SETTINGS, distortions
from tests.bed.postgres import Database
from tests.bed.process import Process

Start = Callable[..., Process]
BACKENDS = "; add pid <> pg_backend_pid()"
OWN = " including the poller's own backend" + BACKENDS
SETS = ", which the poller sets for its own session; "
BACKENDS_OF_DATABASE = (
    "reads numbackends, which includes the poller's own backend; count the rows of pg_stat_activity with "
    "pid <> pg_backend_pid() instead"
)
ROLLBACKS = (
    "reads xact_rollback, which the poller's own transactions increase; add datname <> current_database()"
)
RESET = f"{SETS}read reset_val of pg_settings instead"


def query(name: str, sql: str = "SELECT 1 AS n", metric: dict[str, Any] | None = None, **more: Any) -> Any:
    fed = {"name": name, "unit": "1", "description": "N.", "value_column": "n", **(metric or {})}
    return {"name": name, "sql": sql, "metrics": [fed], **more}


def warnings(folder: Path, *queries: Any, text: str = "") -> list[tuple[str, str, str]]:
    """Return rule, path and message of every warning of `poller check`, which succeeds."""
    (folder / "q.yaml").write_text(text or json.dumps({"queries": queries}))
    done = CliRunner().invoke(app, ["check", str(folder / "q.yaml"), "--format", "json"])
    assert done.exit_code == 0, done.output
    problems = json.loads(done.stdout)["problems"]
    assert {problem["level"] for problem in problems} <= {"warning"}
    return [(item["rule"], item["path"], item["message"]) for item in problems]


@pytest.mark.parametrize(
    ("sql", "expected"),
    {
        "SELECT current_setting('statement_timeout') AS n": f"reads statement_timeout{RESET}",
        "SELECT current_setting('Lock_Timeout', true) AS n": f"reads lock_timeout{RESET}",
        "SHOW transaction_isolation": (
            f"reads transaction_isolation{SETS}read default_transaction_isolation instead"
        ),
        "SELECT setting AS n FROM pg_settings WHERE name = 'default_transaction_read_only'": (
            f"reads default_transaction_read_only{SETS}omit it, because pg_settings has no value of another "
            "session"
        ),
        "SELECT setting AS n FROM pg_catalog.pg_settings WHERE name IN ('statement_timeout', 'work_mem')": (
            f"reads statement_timeout{RESET}"
        ),
        "SELECT setting AS n FROM pg_settings WHERE name LIKE 'lock%'": f"reads lock_timeout{RESET}",
        "SELECT setting AS n FROM pg_settings WHERE name ~ '^statement_'": f"reads statement_timeout{RESET}",
        "SELECT reset_val AS n FROM pg_settings WHERE name = 'statement_timeout'": None,
        "SELECT setting AS n FROM pg_settings WHERE name = 'max_connections'": None,
        "SELECT current_setting('max_connections') AS n": None,
        "SELECT count(*) AS n FROM pg_stat_activity": f"reads pg_stat_activity{OWN}",
        "SELECT (SELECT count(*) FROM pg_catalog.pg_locks l JOIN pg_class c ON c.oid = l.relation) AS n": (
            f"reads pg_locks{OWN}"
        ),
        "SELECT count(*) AS n FROM pg_stat_get_activity(NULL)": f"reads pg_stat_activity{OWN}",
        "SELECT state, count(*) AS n FROM pg_stat_activity WHERE state <> 'idle' GROUP BY 1": (
            f"reads pg_stat_activity{OWN}"
        ),
        "SELECT count(*) FILTER (WHERE state = 'idle') AS n, count(*) FROM pg_stat_activity": (
            f"reads pg_stat_activity{OWN}"
        ),
        "SELECT count(*) AS n FROM pg_stat_activity WHERE pid <> pg_backend_pid()": None,
        "SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'idle in transaction'": None,
        "SELECT count(*) AS n FROM pg_stat_activity WHERE state LIKE 'idle%' AND datname = 'a'": None,
        "SELECT count(*) AS n FROM pg_stat_activity WHERE backend_type <> 'client backend'": None,
        "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event IS NOT NULL": None,
        "SELECT count(*) AS n FROM pg_stat_activity WHERE xact_start < now() - interval '1h'": None,
        "SELECT count(*) AS n FROM pg_locks WHERE NOT granted": None,
        "SELECT count(*) AS n FROM pg_stat_ssl WHERE ssl": f"reads pg_stat_ssl{OWN}",
        "SELECT count(*) AS n FROM pg_stat_gssapi": f"reads pg_stat_gssapi{OWN}",
        "SELECT count(*) AS n FROM pg_stat_get_backend_idset()": f"reads pg_stat_get_backend_idset(){OWN}",
        "SELECT count(*) AS n FROM (SELECT pg_stat_get_backend_idset() AS id) AS x": (
            f"reads pg_stat_get_backend_idset(){OWN}"
        ),
        (
            "SELECT count(*) AS n FROM (SELECT pg_stat_get_backend_idset() AS id) AS x "
            "WHERE pg_stat_get_backend_pid(id) <> pg_backend_pid()"
        ): None,
        "SELECT 1 AS n UNION ALL SELECT count(*) FROM pg_locks": f"reads pg_locks{OWN}",
        "SELECT count(*) AS n FROM pg_stat_activity WHERE pid <> 0 OR pid = pg_backend_pid()": (
            f"reads pg_stat_activity{OWN}"
        ),
        "SELECT count(*) AS n, pg_backend_pid() AS own FROM pg_stat_activity": f"reads pg_stat_activity{OWN}",
        (
            "SELECT (SELECT count(*) FROM pg_locks) AS n FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        ): f"reads pg_locks{OWN}",
        "SELECT count(*) AS n FROM pg_stat_activity WHERE pid IS DISTINCT FROM pg_backend_pid()": None,
        "SELECT count(*) AS n FROM pg_stat_activity WHERE NOT pid = pg_backend_pid()": None,
        "SELECT count(*) AS n FROM pg_stat_activity WHERE pid NOT IN (1, pg_backend_pid())": None,
        "SELECT count(*) FILTER (WHERE pid <> pg_backend_pid()) AS n FROM pg_stat_activity": None,
        "WITH a AS (SELECT * FROM pg_locks) SELECT count(*) AS n FROM a WHERE pid <> pg_backend_pid()": None,
        "SELECT 1 AS n FROM pg_stat_activity WHERE state = 'idle' OR state IS DISTINCT FROM 'active'": None,
        "SELECT id AS n FROM users WHERE state = 'a' AND id < (SELECT count(*) FROM pg_locks)": (
            f"reads pg_locks{OWN}"
        ),
        "SELECT count(*) AS n FROM pg_stat_activity WHERE query_start > now() - interval '1 min'": (
            f"reads pg_stat_activity{OWN}"
        ),
        "SELECT count(*) AS n FROM pg_stat_activity WHERE now() - query_start < interval '1 min'": (
            f"reads pg_stat_activity{OWN}"
        ),
        "SELECT count(*) AS n FROM pg_stat_activity WHERE extract(epoch FROM age(now(), xact_start)) < 60": (
            f"reads pg_stat_activity{OWN}"
        ),
        "SELECT count(*) AS n FROM pg_stat_activity WHERE now() - query_start > interval '1 min'": None,
        "SELECT count(*) AS n FROM pg_stat_activity WHERE interval '1h' <= age(xact_start)": None,
        "SELECT 1 AS n FROM pg_stat_activity WHERE extract(epoch FROM now() - query_start)::int > 60": None,
        "SELECT count(*) AS n FROM pg_stat_activity WHERE coalesce(wait_event, 'CPU') = 'CPU'": (
            f"reads pg_stat_activity{OWN}"
        ),
        "SELECT 1 AS n FROM pg_stat_activity WHERE version() IS NOT NULL": f"reads pg_stat_activity{OWN}",
        "SELECT count(*) AS n FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) = 0": (
            f"reads pg_stat_activity{OWN}"
        ),
        "SELECT count(*) AS n FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0": None,
        "SELECT sum(numbackends) AS n FROM pg_stat_database": BACKENDS_OF_DATABASE,
        "SELECT pg_stat_get_db_numbackends(oid) AS n FROM pg_database": BACKENDS_OF_DATABASE,
        "SELECT xact_rollback AS n FROM pg_stat_database WHERE datname = 'a'": ROLLBACKS,
        "SELECT xact_rollback AS n FROM pg_stat_database WHERE datname <> current_database()": None,
        "SELECT xact_commit AS n FROM pg_stat_database": None,
    }.items(),
    ids=lambda value: str(value)[:60],
)
def test_a_value_that_the_pollers_session_distorts_is_a_warning_with_advice(
    sql: str, expected: str | None
) -> None:
    assert [message for _, message in distortions(sql)] == ([expected] if expected else [])


@pytest.mark.parametrize(
    "sql", ["SELECT name, setting FROM pg_settings", "SELECT * FROM pg_show_all_settings()"]
)
def test_a_query_of_all_settings_causes_a_single_warning(sql: str) -> None:
    assert list(distortions(sql)) == [
        (
            "own-setting",
            (
                "reads all settings, some of which the poller sets for its own session; read reset_val of "
                "pg_settings instead"
            ),
        )
    ]


def test_a_setting_that_the_query_sets_for_itself_causes_no_warning() -> None:
    sql = "SELECT current_setting('timezone') AS zone, current_setting('lock_timeout') AS n"
    assert [message for _, message in distortions(sql, ["TimeZone", "work_mem"])] == [
        "reads lock_timeout, which the poller sets for its own session; read reset_val of pg_settings instead"
    ]


def test_the_list_contains_every_setting_that_a_poll_changes(
    database: Database, poller_process: Start, tmp_path: Path
) -> None:
    """According to the advice, reset_val has the value that is set for the role."""
    database.execute(f"ALTER DATABASE {database.name} SET statement_timeout = '7s'")
    database.replayed()
    changed = "SELECT lower(name) AS name, 1 AS n FROM pg_settings WHERE source IN ('client', 'session')"
    unaffected = "SELECT reset_val::int AS n FROM pg_settings WHERE name = 'statement_timeout'"
    queries = [query("changed", changed, {"attribute_columns": ["name"]}), query("kept", unaffected)]
    (tmp_path / "q.yaml").write_text(json.dumps({"queries": queries}))
    process = poller_process(
        "poll", "--format", "json",
        env={"POLLER_DATABASE_URL": database.standby_dsn, "POLLER_QUERIES": str(tmp_path)},
    )  # fmt: skip
    assert process.wait() == 0, process
    polled = {item["query"]: item["samples"] for item in json.loads(process.stdout)["queries"]}
    names = {sample["attributes"]["name"] for sample in polled["changed"]}

    assert {"statement_timeout", "lock_timeout", "default_transaction_read_only"} <= names
    assert names <= OWN_SETTINGS.keys()
    assert [sample["value"] for sample in polled["kept"]] == [7000]


HOURS = "SELECT date_trunc('hour', at) AS hour, count(*) AS n FROM t GROUP BY 1"
OLD = "with the interval, data points are up to"
REFUSED = (
    "old, and Prometheus refuses times in the past; "
    "write `storage: {tsdb: {out_of_order_time_window: %s}}` in its configuration"
)
OPEN = (
    "the hour that begins at 'hour' is exported before it is over; add interval '1 hour' to 'hour', "
    "or write settle: 1h2m"
)
LOOKBACK = (
    "old, and instant queries and alerts of Prometheus look back 5m; write last_over_time(a[RANGE]) in them"
)


@pytest.mark.parametrize(
    ("sql", "settle", "expected"),
    [
        ("SELECT at, n FROM t", "4m", [("old-times", f"{OLD} 5m {REFUSED % '2h'}")]),
        (
            "SELECT at, n FROM t",
            "5m",
            [("old-times", f"{OLD} 6m {REFUSED % '2h'}"), ("old-times", f"{OLD} 6m {LOOKBACK}")],
        ),
        (
            HOURS,
            "1h",
            [("old-times", f"{OLD} 1h1m {REFUSED % '3h'}"), ("old-times", f"{OLD} 1h1m {LOOKBACK}")],
        ),
        (HOURS, "2m", [("open-bucket", OPEN), ("old-times", f"{OLD} 3m {REFUSED % '2h'}")]),
        (
            HOURS.replace(" AS hour", " + interval '1 hour' AS hour"),
            "2m",
            [("old-times", f"{OLD} 3m {REFUSED % '2h'}")],
        ),
    ],
)
def test_times_that_a_backend_refuses_or_does_not_find_cause_warnings(
    tmp_path: Path, sql: str, settle: str, expected: list[tuple[str, str]]
) -> None:
    column = "hour" if "hour" in sql else "at"
    declared = query("a", sql, {"time_column": column, "settle": settle}, interval="1m")
    reported = warnings(tmp_path, declared)
    assert [(rule, message) for rule, _, message in reported] == expected
    assert {path for _, path, _ in reported} <= {"queries[0].metrics[0].settle"}


def test_the_age_of_times_includes_the_longest_distance_of_a_schedule_or_the_default_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = {"time_column": "at", "settle": "1m"}
    sql = "SELECT at, n FROM t"
    messages = [message for _, _, message in warnings(tmp_path, query("a", sql, timed, schedule="0 3 * * *"))]
    assert len(messages) == 2
    assert all(message.startswith(f"{OLD} 24h1m old") for message in messages)
    assert f"{OLD} 6m {LOOKBACK}" in [message for _, _, message in warnings(tmp_path, query("a", sql, timed))]
    monkeypatch.setenv("POLLER_INTERVAL", "1m")
    ((_, _, message),) = warnings(tmp_path, query("a", sql, timed))
    assert message.startswith(f"{OLD} 2m old")


def test_two_queries_that_feed_the_same_series_cause_a_warning_at_the_second(tmp_path: Path) -> None:
    same = {"name": "m"}
    ((rule, path, message),) = warnings(tmp_path, query("a", metric=same), query("b", metric=same))
    assert (rule, path) == ("same-series", "queries[1].metrics[0].name")
    assert message == (
        f"'m' is also a series at {tmp_path}/q.yaml:1, so one of the two is wrong; write different attributes"
    )


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"attributes": {"a": "x"}}, {"attributes": {"a": "y"}}, False),
        ({"attributes": {"a": "x"}}, {"attributes": {"a": "X"}}, False),
        ({"attributes": {"a": ""}}, {}, True),
        ({"attributes": {"a": True}}, {"attributes": {"a": "true"}}, True),
        ({"attribute_columns": ["a"]}, {"attribute_columns": ["a"]}, False),
    ],
)
def test_metrics_share_a_series_if_their_prometheus_labels_are_equal(
    tmp_path: Path, first: Any, second: Any, same: bool
) -> None:
    all_warnings = warnings(
        tmp_path, query("a", metric={"name": "m", **first}), query("b", metric={"name": "m", **second})
    )
    assert [rule for rule, _, _ in all_warnings] == (["same-series"] if same else [])


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"role": "standby"}, {"role": "primary"}, False),
        ({"server_version": ">=14"}, {"server_version": "<14"}, False),
        ({"columns": {"t": ["a", "b"]}}, {"columns": {"t": ["a", "c"]}}, False),
        ({"columns": {"t": ["a"]}}, {"columns": {"t": ["a", "c"]}}, True),
        ({}, {"role": "primary"}, True),
        ({"extensions": ["x"]}, {"extensions": ["x"]}, True),
    ],
)
def test_queries_with_exclusive_requirements_are_alternatives(
    tmp_path: Path, first: Any, second: Any, same: bool
) -> None:
    all_warnings = warnings(
        tmp_path,
        query("a", metric={"name": "m"}, requires=first),
        query("b", metric={"name": "m"}, requires=second),
    )
    assert [rule for rule, _, _ in all_warnings] == (["same-series"] if same else [])


def test_a_fixed_attribute_that_is_not_exported_as_written_is_a_warning(tmp_path: Path) -> None:
    text = """\
queries:
  - name: a
    sql: SELECT 1 AS n, '1.10' AS release
    metrics:
      - name: a
        description: N.
        unit: "1"
        value_column: n
        attribute_columns: [release]
        attribute_values: {release: [1.10, "1.20", 2]}
        attributes: {version: 1.10, kept: "1.10", big: 1e3, whole: 7, on: True, off: false}
"""
    assert warnings(tmp_path, text=text) == [
        (
            "attribute-text",
            "queries[0].metrics[0].attribute_values.release[0]",
            "1.10 becomes 1.1; write '1.10' in quotes to keep it",
        ),
        (
            "attribute-text",
            "queries[0].metrics[0].attributes.version",
            "1.10 becomes 1.1; write '1.10' in quotes to keep it",
        ),
        (
            "attribute-text",
            "queries[0].metrics[0].attributes.big",
            "1e3 becomes 1000.0; write '1e3' in quotes to keep it",
        ),
        (
            "attribute-text",
            "queries[0].metrics[0].attributes.on",
            "True becomes true; write 'True' in quotes to keep it",
        ),
    ]


@pytest.mark.parametrize(
    ("parameters", "path"), [("{v: [1, 1.10]}", "v[1]"), ("[{v: 1}, {v: 1.10}]", "[1].v")]
)
def test_a_parameter_that_is_not_bound_as_written_is_a_warning(
    tmp_path: Path, parameters: str, path: str
) -> None:
    metric = '{name: a, description: N., unit: "1", value_column: n}'
    sql = "SELECT 1 AS n WHERE :v > 0"
    text = f"queries: [{{name: a, sql: '{sql}', parameters: {parameters}, metrics: [{metric}]}}]"
    ((rule, at, message),) = warnings(tmp_path, text=text)
    assert (rule, at) == ("attribute-text", f"queries[0].parameters{'.' if path[0] == 'v' else ''}{path}")
    assert message == "1.10 becomes 1.1; write '1.10' in quotes to keep it"


def test_text_output_has_the_warnings_and_their_number(tmp_path: Path) -> None:
    (tmp_path / "q.yaml").write_text(
        json.dumps({"queries": [query("a", "SELECT count(*) AS n FROM pg_locks")]})
    )
    done = CliRunner().invoke(app, ["check", str(tmp_path / "q.yaml")])
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"warning  {tmp_path}/q.yaml:1: queries[0].sql: reads pg_locks{OWN}",
        "1 file, 1 query, 1 metric: 1 warning",
    ]


def test_import_warns_with_the_place_in_the_imported_file(tmp_path: Path) -> None:
    (tmp_path / "queries.yaml").write_text(
        "locks:\n"
        "  query: SELECT count(*) AS n FROM pg_locks\n"
        "  metrics:\n"
        "    - n: {usage: GAUGE, description: Locks.}\n"
    )
    done = CliRunner().invoke(app, ["import", "--from", "postgres_exporter", str(tmp_path / "queries.yaml")])
    assert done.exit_code == 0, done.output
    assert "FROM pg_locks" in done.stdout
    assert f"{tmp_path}/queries.yaml:1: locks: warning: query locks: reads pg_locks{OWN}" in done.stderr
    assert "0 not converted, 2 changed, 1 warning; " in done.stderr
