"""`poller new` asks for a table and offers its aggregates, on a terminal or by options."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from poller.cli.app import app
from poller.model.catalog import Defaults
from poller.model.errors import ConfigError
from poller.tools.draft.append import append
from tests.bed.postgres import Database
from tests.bed.terminal import Terminal

New = Callable[..., Result]
TABLES = """
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE SCHEMA app;
CREATE TABLE app.jobs (id bigserial PRIMARY KEY, state text NOT NULL, owner text, size_bytes bigint,
    body bytea NOT NULL, done bool NOT NULL, mood mood, "Odd Name" text, created_at timestamptz NOT NULL)
    WITH (autovacuum_enabled = off);
INSERT INTO app.jobs (state, owner, size_bytes, body, done, mood, "Odd Name", created_at)
    SELECT (ARRAY['queued', 'sent', 'failed'])[1 + g % 3], 'o' || g % 50, g, 'four', false, 'sad',
        'x' || g % 2, now() - g * interval '1 minute'
    FROM generate_series(1, 600) g;
CREATE TABLE parts (id int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100) WITH (autovacuum_enabled = off);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (900) WITH (autovacuum_enabled = off);
INSERT INTO parts SELECT g FROM generate_series(1, 500) g;
CREATE TABLE fresh (n int) WITH (autovacuum_enabled = off);
ANALYZE app.jobs; ANALYZE parts;
"""
JOBS = [
    "count", "count-estimate", "count-by=state", "count-by=done", "count-by=mood", "count-by=Odd Name",
    "top=owner", "newest-age=created_at", "oldest-age=created_at", "sum=size_bytes", "sum=body", "size",
]  # fmt: skip


@pytest.fixture
def tables(database: Database) -> Database:
    database.execute(TABLES)
    database.replayed()
    return database


@pytest.fixture
def new(tables: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> New:
    """Run `poller new` on the standby, in an empty folder and without a terminal."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["new", *arguments, "--database-url", tables.standby_dsn])

    return run


def problems(done: Result) -> list[str]:
    assert isinstance(done.exception, ConfigError), done.output
    assert done.stdout == ""
    return [str(problem) for problem in done.exception.problems]


def polled(database: Database, file: str) -> dict[str, list[dict[str, Any]]]:
    done = CliRunner().invoke(
        app, ["poll", "--queries", file, "--format", "json", "--database-url", database.standby_dsn]
    )
    queries = json.loads(done.stdout)["queries"]
    assert {query["state"] for query in queries} == {"ok"}, done.output
    assert all(not query["quarantined"] for query in queries)
    return {query["query"]: query["samples"] for query in queries}


def values(samples: list[dict[str, Any]], attribute: str) -> dict[str, int]:
    return {sample["attributes"][attribute]: sample["value"] for sample in samples}


@pytest.mark.every_version
def test_every_offered_aggregate_is_a_query_with_the_right_result(new: New, tables: Database) -> None:
    options = [word for key in JOBS for word in ("--aggregate", key)]
    done = new("--table", "app.jobs", *options)
    assert done.exit_code == 0, done.output
    Path("q.yaml").write_text(done.stdout)
    samples = polled(tables, "q.yaml")

    assert samples["jobs_count"][0]["value"] == samples["jobs_estimated_count"][0]["value"] == 600
    assert values(samples["jobs_by_state"], "state") == {"failed": 200, "queued": 200, "sent": 200}
    assert values(samples["jobs_by_done"], "done") == {"false": 600, "true": 0}
    assert values(samples["jobs_by_mood"], "mood") == {"glad": 0, "sad": 600}
    assert values(samples["jobs_by_odd_name"], "odd_name") == {"x0": 300, "x1": 300}
    top = values(samples["jobs_by_owner"], "owner")
    assert (len(top), top["o0"], top["other"]) == (11, 12, 600 - 10 * 12)
    assert samples["jobs_newest_created_at_age"][0]["value"] >= 60
    assert samples["jobs_oldest_created_at_age"][0]["value"] >= 600 * 60
    assert (samples["jobs_size_bytes"][0]["value"], samples["jobs_size_bytes"][0]["unit"]) == (180300, "By")
    assert (samples["jobs_body_bytes"][0]["value"], samples["jobs_body_bytes"][0]["unit"]) == (2400, "By")
    ((size,),) = tables.ask_standby("SELECT pg_total_relation_size('app.jobs')")
    assert samples["jobs_disk_bytes"][0]["value"] == size
    assert done.stderr.splitlines() == [
        "warning: values of state that are not listed are rejected; list all possible values",
        "warning: rows whose mood is NULL are rejected; if there are any, remove attribute_values",
        "warning: values of Odd Name that are not listed are rejected; list all possible values",
        "warning: no value is exported while any size_bytes is NULL",
    ]


@pytest.mark.every_version
def test_partitions_are_counted_together_and_an_incomplete_estimate_is_absent(
    new: New, tables: Database
) -> None:
    done = new(
        "--table", "parts", "--aggregate", "count", "--aggregate", "count-estimate", "--aggregate", "size"
    )
    Path("q.yaml").write_text(done.stdout)
    samples = polled(tables, "q.yaml")
    assert samples["parts_count"][0]["value"] == samples["parts_estimated_count"][0]["value"] == 500
    ((size,),) = tables.ask_standby(
        "SELECT pg_total_relation_size('parts_1') + pg_total_relation_size('parts_2')"
    )
    assert samples["parts_disk_bytes"][0]["value"] == size

    tables.execute("CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (900) TO (999)")
    tables.replayed()
    ((estimate,),) = tables.ask_standby(
        done.stdout.partition("estimated_count\n    sql: ")[2].partition("\n")[0]
    )
    ((never,),) = tables.execute("SELECT reltuples FROM pg_class WHERE relname = 'parts_3'")
    assert never == -1
    assert estimate is None


@pytest.mark.every_version
def test_a_locked_partition_is_not_waited_for(tables: Database) -> None:
    """No partition is locked either: locks on thousands of partitions would fill the server's lock table."""
    with psycopg.connect(tables.primary_dsn) as other:
        other.execute("LOCK TABLE parts_1 IN ACCESS EXCLUSIVE MODE")
        done = CliRunner().invoke(
            app, ["new", "--table", "parts", "--aggregate", "count", "--database-url", tables.primary_dsn]
        )
    assert done.exit_code == 0, done.output


def test_a_sum_over_unknown_values_is_absent(new: New, tables: Database) -> None:
    done = new("--table", "jobs", "--aggregate", "sum=size_bytes")
    sql = done.stdout.partition("sql: ")[2].partition("\n")[0]
    assert tables.execute(sql) == [(180300,)]
    tables.execute("UPDATE app.jobs SET size_bytes = NULL WHERE id = 1")
    assert tables.execute(sql) == [(None,)]


@pytest.mark.every_version
def test_options_name_the_query_its_length_and_its_file(new: New) -> None:
    done = new(
        "--table", "jobs", "--aggregate", "top=owner", "--top", "3", "--name", "busiest", "--interval", "15m",
        "--write", "q.yaml",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout == Path("q.yaml").read_text()
    assert done.stdout == (
        "queries:\n"
        "  - name: busiest\n"
        "    sql: SELECT owner, count(*) AS rows FROM app.jobs GROUP BY owner ORDER BY rows DESC, owner\n"
        "    max_series: 3\n"
        "    overflow: other\n"
        "    interval: 15m\n"
        "    metrics:\n"
        "      - name: busiest\n"
        "        description: Jobs by owner.\n"
        '        unit: "{job}"\n'
        "        value_column: rows\n"
        "        attribute_columns: [owner]\n"
    )
    again = new("--table", "jobs", "--aggregate", "count", "--name", "busiest", "--write", "q.yaml")
    assert problems(again) == [
        "--name: the query name 'busiest' is already used at q.yaml:2; write --name busiest_2"
    ]


@pytest.mark.every_version
def test_without_a_terminal_every_missing_or_wrong_option_is_reported_with_the_fix(new: New) -> None:
    assert problems(new()) == [
        "--table: is missing, and there is no terminal to ask; write --table NAME --aggregate count"
    ]
    assert problems(new("--table", "job", "--aggregate", "count")) == [
        "--table: 'job' is not a table that the role may read; did you mean 'app.jobs'?"
    ]
    assert problems(new("--table", "zzzzzz", "--aggregate", "count")) == [
        "--table: 'zzzzzz' does not exist; the role may read app.jobs, public.parts, public.fresh"
    ]
    assert problems(new("--table", "jobs")) == [
        f"--aggregate: is missing; write one of these for app.jobs: {', '.join(JOBS)}"
    ]
    wrong = ["cuont", "age=created_at", "size=id", "top", "count-by=stat", "sum=state", "newest-age=id"]
    columns = "id, state, owner, size_bytes, body, done, mood, Odd Name, created_at"
    assert problems(
        new("--table", "jobs", *(word for aggregate in wrong for word in ("--aggregate", aggregate)))
    ) == [
        (
            "--aggregate: 'cuont' is not an aggregate; did you mean 'count'? write one of count, "
            "count-estimate, count-by, top, newest-age, oldest-age, sum, size"
        ),
        (
            "--aggregate: 'age' is not an aggregate; did you mean 'newest-age' or 'oldest-age'? write one of "
            "count, count-estimate, count-by, top, newest-age, oldest-age, sum, size"
        ),
        "--aggregate: 'size' applies to the whole table; write size",
        "--aggregate: 'top' needs a column; write top=COLUMN",
        "--aggregate: app.jobs has no readable column 'stat'; did you mean 'state'? write one of " + columns,
        "--aggregate: 'state' is text, which has no sum; write a numeric column",
        "--aggregate: 'id' is bigint; write a column of the type timestamp with time zone",
    ]
    two = new("--table", "jobs", "--aggregate", "count", "--aggregate", "size", "--name", "x")
    assert problems(two) == ["--name: needs a single query; choose one aggregate"]


@pytest.mark.every_version
def test_a_relation_that_cannot_be_chosen_is_reported_with_its_kind(new: New, tables: Database) -> None:
    tables.execute("CREATE VIEW public.glance AS SELECT 1 AS n")
    tables.replayed()
    by_hand = 'write a statement: poller try "SELECT count(*) AS n FROM'
    for name, message in {
        "pg_class": f"'pg_class' is a system relation; {by_hand} pg_class\"",
        "glance": f"'glance' is a view; {by_hand} glance\"",
        "app.jobs_pkey": "'app.jobs_pkey' is an index; write the name of a table",
        "parts_1": (
            "'parts_1' is a partition; write the name of the partitioned table, or "
            'poller try "SELECT count(*) AS n FROM parts_1"'
        ),
    }.items():
        assert problems(new("--table", name, "--aggregate", "count")) == [f"--table: {message}"]


@pytest.mark.every_version
def test_unsuitable_columns_are_not_offered_and_doubtful_ones_cause_a_warning(
    new: New, tables: Database
) -> None:
    tables.execute(
        "CREATE TABLE tokens (id int NOT NULL, secret bytea NOT NULL, label text NOT NULL, made timestamptz, "
        "ends timestamptz, expires_at timestamptz) WITH (autovacuum_enabled = off);"
        "INSERT INTO tokens SELECT g, 'x', 'l' || g, now() - interval '1h', now() + g * interval '1h', now() "
        "FROM generate_series(1, 100) g; ANALYZE tokens"
    )
    tables.replayed()
    (offered,) = problems(new("--table", "tokens"))
    assert offered.partition(" for public.tokens: ")[2] == (
        "count, count-estimate, newest-age=made, oldest-age=made, sum=secret, size"
    )
    aggregates = [
        "newest-age=ends",
        "oldest-age=expires_at",
        "count-by=label",
        "count-by=secret",
        "sum=secret",
    ]
    done = new(
        "--table",
        "tokens",
        "--max-series",
        "50",
        *(w for aggregate in aggregates for w in ("--aggregate", aggregate)),
    )
    assert done.stderr.splitlines() == [
        "warning: the age is negative while ends is in the future",
        "warning: the age is negative while expires_at is in the future",
        (
            "warning: about 100 values of label need a series each, but max_series is 50; top=label exports "
            "the most frequent values"
        ),
        (
            "warning: attribute column 'secret' is bytea, and each value creates a separate series; select "
            "the part that distinguishes the series"
        ),
    ]
    assert "Sum of the length of secret over all rows of public.tokens." in done.stdout


@pytest.mark.every_version
def test_a_name_in_two_schemas_needs_a_schema(new: New, tables: Database) -> None:
    tables.execute("CREATE TABLE public.jobs (n int)")
    tables.replayed()
    (problem,) = problems(new("--table", "jobs", "--aggregate", "count"))
    assert problem.startswith("--table: 'jobs' matches several; write one of ")
    assert {"app.jobs", "public.jobs"} <= set(problem.replace(",", " ").split())
    assert new("--table", "public.jobs", "--aggregate", "count").exit_code == 0


@pytest.mark.every_version
def test_only_readable_tables_and_columns_are_offered(tables: Database) -> None:
    name = f"reader_{tables.name}"
    tables.execute(
        f"CREATE ROLE {name} LOGIN; GRANT USAGE ON SCHEMA app TO {name}; GRANT SELECT (id, state) ON "
        f"app.jobs TO {name}"
    )
    try:
        tables.replayed()
        url = tables.standby_dsn.replace("postgres@", f"{name}@").replace("user=postgres", f"user={name}")
        assert name in url
        done = CliRunner().invoke(app, ["new", "--table", "jobs", "--database-url", url])
        hidden = CliRunner().invoke(app, ["new", "--table", "parts", "--database-url", url])
    finally:
        tables.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
    assert problems(done) == [
        (
            "--aggregate: is missing; write one of these for app.jobs: "
            "count, count-estimate, count-by=state, size"
        )
    ]
    assert problems(hidden) == ["--table: 'parts' is a table that the role may not read; GRANT SELECT on it"]


@pytest.mark.every_version
def test_a_terminal_prompts_again_after_a_wrong_answer(
    tables: Database, on_terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    first = {"name": "a", "sql": "SELECT 1 AS n", "metrics": [
        {"name": "a", "description": "x", "unit": "1", "value_column": "n"}
    ]}  # fmt: skip
    append(file, first, Defaults(300.0, 30.0, 1000))
    terminal = on_terminal("new", width=100, height=40, POLLER_DATABASE_URL=tables.standby_dsn)
    terminal.shows(r"app\.jobs +600 ")
    terminal.shows(r"public\.fresh +not analysed")
    terminal.shows(r"Which table \(number or name\):")
    terminal.type("jbos\n")
    terminal.shows("'jbos' is not a table that the role may read; did you mean 'app.jobs'")
    terminal.type("app.jobs\n")
    terminal.shows("app.jobs: about 600 rows")
    terminal.shows(r"3 +count-by=state +number of rows per value of state \(failed, queued, sent\)")
    terminal.shows(r"Which aggregates \(numbers or names\) \(1\):")
    terminal.type("99\n")
    terminal.shows("write numbers from 1 to 12 or names, such as 1 3")
    terminal.type("count-by=state, 1\n")
    terminal.shows("Append to which file")
    terminal.type("q.txt\n")
    terminal.shows("q.txt is not a query file; write a name that ends in .yaml")
    terminal.type(f"{file}\n")
    assert terminal.wait() == 0, terminal.text
    text = file.read_text()
    assert [line.strip() for line in text.splitlines() if line.startswith("  - ")] == [
        "- name: a", "- name: jobs_by_state", "- name: jobs_count",
    ]  # fmt: skip


@pytest.mark.every_version
@pytest.mark.parametrize("prompt", ["file", "nothing"])
def test_a_terminal_prompts_for_another_name_if_the_name_is_already_used(
    tables: Database, on_terminal: Callable[..., Terminal], tmp_path: Path, prompt: str
) -> None:
    file = tmp_path / "mine.yaml"
    metric = {"name": "jobs_count", "description": "x", "unit": "1", "value_column": "n"}
    append(
        file,
        {"name": "jobs_count", "sql": "SELECT 1 AS n", "metrics": [metric]},
        Defaults(300.0, 30.0, 1000),
    )
    options = ["--write", str(file)] if prompt == "nothing" else []
    terminal = on_terminal(
        "new", "--table", "jobs", *options, width=100, height=40, POLLER_DATABASE_URL=tables.standby_dsn
    )
    terminal.shows(r"Which aggregates \(numbers or names\) \(1\):")
    terminal.type("count, size\n")
    if prompt == "file":
        terminal.shows("Append to which file")
        terminal.type(f"{file}\n")
    terminal.shows("the query name 'jobs_count' is already used at")
    terminal.shows("New name for jobs_count")
    terminal.type("Jobs\n")
    terminal.shows("New name for Jobs")
    terminal.type("all_jobs\n")
    assert terminal.wait() == 0, terminal.text
    names = [line.strip() for line in file.read_text().splitlines() if line.startswith("  - ")]
    assert names == ["- name: jobs_count", "- name: all_jobs", "- name: jobs_disk_bytes"]


@pytest.mark.every_version
def test_an_end_of_input_ends_the_prompt(tables: Database, on_terminal: Callable[..., Terminal]) -> None:
    terminal = on_terminal(
        "new", "--table", "jobs", width=100, height=40, POLLER_DATABASE_URL=tables.standby_dsn
    )
    terminal.shows(r"Which aggregates \(numbers or names\)")
    terminal.type("\x04")
    assert terminal.wait() == 1
    assert "Traceback" not in terminal.text
    assert "queries:" not in terminal.text
