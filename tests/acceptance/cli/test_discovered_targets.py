"""Commands read the list of databases of a real server, as the daemon does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from poller.receiver.ports import LOOPBACK, free_ports
from tests.bed.postgres import Database
from tests.bed.process import Process
from tests.bed.terminal import Terminal

Start = Callable[..., Process]
SUFFIXES = ("a", "b", "closed", "test", "z")


def a_query(name: str, sql: str, **keys: Any) -> dict[str, Any]:
    metrics = [{"name": name, "unit": "{row}", "description": "x", "value_column": "n"}]
    return {"name": name, "sql": sql, "interval": "1s", "timeout": "1s", "metrics": metrics, **keys}


class Bed:
    """A server `s` of which a and b are polled, one that is down, and a target of one database."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.prefix = f"{database.name}_"
        self.role = f"{self.prefix}role"
        self.dsn = make_conninfo(database.primary_dsn, user=self.role)
        (closed,) = free_ports(1)
        databases = {"include": [f"{self.prefix}*"], "exclude": ["*_test"], "limit": 2}
        targets = [
            {"name": "alone", "url": self.dsn, "tags": ["one"]},
            {"name": "s", "url": self.dsn, "databases": databases, "attributes": {"region": "eu"}},
            {"name": "dead", "url": f"host={LOOPBACK} port={closed} dbname=x", "databases": {}},
        ]
        defaults = {"require_standby": False, "connect_timeout": "2s"}
        (folder / "t.yaml").write_text(json.dumps({"defaults": defaults, "targets": targets}))
        queries = [
            a_query("current", "SELECT count(*) AS n FROM pg_class WHERE relname = 'things'"),
            a_query("databases", "SELECT count(*) AS n FROM pg_database", once_per_server=True),
        ]
        self.queries = folder / "q.yaml"
        self.queries.write_text(json.dumps({"queries": queries}))
        self.env = {"POLLER_TARGETS": str(folder / "t.yaml"), "POLLER_QUERIES": str(self.queries)}

    def name(self, suffix: str) -> str:
        return f"s/{self.prefix}{suffix}"


@pytest.fixture
def bed(database: Database, tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(database, tmp_path)
    database.execute(f"CREATE ROLE {bed.role} LOGIN")
    for suffix in SUFFIXES:
        database.execute(f"CREATE DATABASE {bed.prefix}{suffix}")
    database.execute(f"REVOKE CONNECT ON DATABASE {bed.prefix}closed FROM PUBLIC")
    yield bed
    for suffix in SUFFIXES:
        database.execute(f"DROP DATABASE {bed.prefix}{suffix} WITH (FORCE)")
    database.execute(f"DROP ROLE {bed.role}")


def finished(process: Process, code: int) -> str:
    assert process.wait() == code, process
    assert "Traceback" not in process.stderr
    return process.stdout


def rows(table: str) -> list[tuple[str, str, str]]:
    lines = [line.split() for line in table.splitlines()[1:]]
    return [(line[0], line[1], line[-1]) for line in lines]


def test_poll_polls_each_listed_database_and_reports_a_server_whose_list_cannot_be_read(
    bed: Bed, poller_process: Start
) -> None:
    process = poller_process("poll", env=bed.env)
    assert rows(finished(process, 1)) == [
        ("alone", "current", "ok"),
        ("alone", "databases", "ok"),
        ("s", "databases", "ok"),
        (bed.name("a"), "current", "ok"),
        (bed.name("b"), "current", "ok"),
        ("dead", "list", "failed(unavailable)"),
        ("dead", "databases", "failed(unavailable)"),
    ]
    assert process.stderr.count("replica unavailable") == 1
    document = json.loads(
        finished(poller_process("poll", "--target", "dead/x", "--format", "json", env=bed.env), 1)
    )
    queries = [(query["target"], query["query"]) for query in document["queries"]]
    assert queries == [("dead", "list of databases"), ("dead", "databases")]
    otlp = finished(poller_process("poll", "--format", "otlp-json", env=bed.env), 1)
    attributes = [resource["resource"]["attributes"] for resource in json.loads(otlp)["resourceMetrics"]]
    namespaces = {
        item["value"]["stringValue"] for of in attributes for item in of if item["key"] == "db.namespace"
    }
    assert {f"{bed.prefix}a", f"{bed.prefix}b"} <= namespaces


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("s/*",), ["s/a", "s/b"]),
        (("s/*_b", "alone"), ["alone", "s/b"]),
        (("s/{prefix}b",), ["s/b"]),
        (("s",), ["s"]),
        (("s*",), ["s", "s/a", "s/b"]),
        (("al*",), ["alone"]),
    ],
)
def test_patterns_select_listed_databases_and_connect_to_no_other_server(
    bed: Bed, poller_process: Start, patterns: tuple[str, ...], expected: list[str]
) -> None:
    # A connection to the server that is down would be a failure.
    options = [option for pattern in patterns for option in ("--target", pattern.format(prefix=bed.prefix))]
    polled = rows(finished(poller_process("poll", *options, env=bed.env), 0))
    names = [name.replace(bed.prefix, "") for name, _, _ in polled]
    assert list(dict.fromkeys(names)) == expected


def test_a_database_that_is_not_polled_is_an_error_with_the_reason(bed: Bed, poller_process: Start) -> None:
    p = bed.prefix
    excluded = "is excluded; change include or exclude of `databases` of the target s"
    messages = {
        f"s/{p}test": f"'s/{p}test' matches no target: it {excluded}",
        "s/*_test": f"'s/*_test' matches no target: 's/{p}test' {excluded}",
        f"s/{p}z": f"'s/{p}z' matches no target: it is above the limit of 2; raise `databases.limit`, or "
        "exclude others",
        f"s/{p}closed": f"'s/{p}closed' matches no target: it refuses the role; grant it CONNECT on the "
        "database",
        f"s/{p}bb": f"'s/{p}bb' matches no target; did you mean 's/{p}b'?",
        "alone/x": "'alone/x' matches no target; did you mean 'alone'?",
    }
    options = [option for pattern in messages for option in ("--target", pattern)]
    for command in (("poll",), ("doctor",), ("check", "--database")):
        process = poller_process(*command, *options, env=bed.env)
        assert finished(process, 2) == ""
        assert process.stderr.splitlines() == [f"--target: {message}" for message in messages.values()]


def test_poll_says_how_to_select_the_databases_of_a_server_on_which_no_query_runs(
    bed: Bed, poller_process: Start
) -> None:
    process = poller_process("poll", "--target", "s", "--query", "current", env=bed.env)
    assert finished(process, 2) == ""
    assert "write --target 's/*' for the databases of s" in process.stderr


def test_doctor_previews_the_databases_and_counts_them_in_the_schedule(
    bed: Bed, poller_process: Start
) -> None:
    p = bed.prefix
    lines = finished(poller_process("doctor", env=bed.env), 1).splitlines()
    (preview,) = [line for line in lines if "databases:" in line]
    assert preview.startswith(f"warn    databases:  2 polled: {p}a, {p}b; ")
    assert f"; 1 above the limit of 2: {p}z; 1 without the privilege CONNECT: {p}closed -> " in preview
    assert "exclude some; GRANT CONNECT ON DATABASE" in preview
    assert any(line.endswith(f"  same on:  {bed.name('b')}") for line in lines)
    assert any("schedule:  the polls of 4 targets on 1 server keep" in line for line in lines)
    assert lines[-1].startswith("5 targets: 1 failed, ")
    assert sum("Connection refused" in line for line in lines) == 1

    document = json.loads(
        finished(poller_process("doctor", "--target", "s", "--format", "json", env=bed.env), 0)
    )
    assert {check.get("target") for check in document["checks"]} == {"s", None}
    (facts,) = [check["facts"] for check in document["checks"] if check["check"] == "databases"]
    assert (facts["polled"], facts["over_limit"], facts["no_privilege"]) == (2, 1, 1)
    assert facts["excluded"] >= 2, "the test database and postgres"


def test_check_prepares_the_queries_on_each_listed_database(bed: Bed, poller_process: Start) -> None:
    lines = finished(poller_process("check", "--database", env=bed.env), 1).splitlines()
    assert lines[:4] == [
        "ok       alone: 2 queries accepted",
        "ok       s: 1 query accepted",
        f"ok       {bed.name('a')}: 1 query accepted",
        f"ok       {bed.name('a')}: the same on {bed.name('b')}",
    ]
    assert lines[4].startswith("error    dead: ")
    assert lines[5] == "5 queries on 5 targets: 1 error, 0 warnings, 0 notes"


def test_try_and_new_use_a_database_of_a_server_unless_it_is_excluded(
    bed: Bed, poller_process: Start
) -> None:
    def run(name: str, code: int) -> Process:
        process = poller_process(
            "try", "--target", name, "--format", "json", "SELECT current_database() AS d, 1 AS n", env=bed.env
        )
        finished(process, code)
        return process

    assert json.loads(run(bed.name("z"), 0).stdout)["rows"] == [[f"{bed.prefix}z", "1"]]
    message = "is not a target: it is excluded; change include or exclude of `databases` of the target s"
    assert message in run(bed.name("test"), 2).stderr
    assert "is not a target but a pattern; write one database" in run("s/*", 2).stderr
    assert "alone has no key `databases`; write --target alone" in run("alone/x", 2).stderr
    new = poller_process(
        "new", "--target", bed.name("test"), "--table", "users", "--aggregate", "count", env=bed.env
    )
    finished(new, 2)
    assert message in new.stderr


def test_cases_are_not_run_in_a_database_that_is_polled_as_one_of_a_server(
    bed: Bed, poller_process: Start
) -> None:
    case = {"name": "c", "query": "current", "expect": [{"value": 0}]}
    bed.queries.with_suffix(".test.yaml").write_text(json.dumps({"cases": [case]}))

    def stderr(suffix: str) -> str:
        dsn = make_conninfo(bed.dsn, dbname=f"{bed.prefix}{suffix}")
        process = poller_process("test", "--database", dsn, env=bed.env)
        assert process.wait() is not None
        return process.stderr

    refusal = "is a database of the target s, which must only be read"
    assert refusal in stderr("a")
    assert refusal not in stderr("test")


def test_watch_polls_the_databases_that_a_pattern_selects(
    bed: Bed, on_terminal: Callable[..., Terminal]
) -> None:
    terminal = on_terminal("watch", "--poll", "--target", "s/*", width=120, height=30, **bed.env)
    terminal.shows(f"^{bed.name('a')} +up ")
    terminal.shows(f"^{bed.name('b')} +up ")
    terminal.shows("^2 targets: 2 up")
    terminal.type("q")
    assert terminal.wait() == 0, terminal.text
