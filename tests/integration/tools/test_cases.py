"""`poller test` runs queries on the rows of test cases as a poll would."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import psycopg
import pytest
from rich.console import Console
from typer.testing import CliRunner

from poller.cli.app import app
from poller.config.queries.load import load
from poller.model.catalog import Defaults
from poller.model.errors import ConfigError, PollError
from poller.postgres.cancellation import CancelToken
from poller.postgres.connection import Connection
from poller.tools.test.case_file import LoadedCase, steps
from poller.tools.test.comparison import CaseResult, compare
from poller.tools.test.discovery import collect, select_cases
from poller.tools.test.report import print_case_result, summary, to_junit
from poller.tools.test.runner import CaseRunner, FixtureError
from tests.bed.postgres import Database, Site
from tests.bed.process import Process

DEFAULTS = Defaults(interval=300.0, timeout=30.0, max_series=1000)
QUERIES = """\
queries:
  - name: waiting
    sql: |
      SELECT state, count(*) AS n, extract(epoch FROM now() - min(created_at))::float8 AS age
      FROM letters WHERE expires_at > now() GROUP BY state
    metrics:
      - name: waiting_total
        description: Letters that wait.
        unit: "{letter}"
        value_column: n
        attribute_columns: [state]
      - name: waiting_age_seconds
        description: Age of the oldest.
        unit: s
        value_column: age
        attribute_columns: [state]
  - name: share
    sql: SELECT count(*) / 3.0 AS share, clock_timestamp() < now() AS late FROM letters
    requires: {columns: {letters: [id]}, role: standby}
    estimate: {sql: SELECT 0.5 AS share, above_cost: 1000000}
    metrics:
      - {name: share, description: A third., unit: "1", value_column: share, attribute_columns: [late]}
  - name: lost
    sql: SELECT count(*) AS n FROM lost
    metrics: [{name: lost_total, description: Lost ones., unit: "{letter}", value_column: n}]
"""
SCHEMA = """\
schema: |
  CREATE TABLE letters (
    id bigint PRIMARY KEY, state text, created_at timestamptz DEFAULT now(), expires_at timestamptz);
cases:
"""


class Desk:
    """A folder with a query file, and the results of cases written next to it."""

    def __init__(self, folder: Path, runner: CaseRunner | None = None) -> None:
        self.folder = folder
        self.runner = runner
        self.write("letters.yaml", QUERIES)
        rows = ("id,state,expires_at", "1,queued,tomorrow", "2,queued,tomorrow", "3,sent,yesterday")
        self.write("more.csv", "\n".join(rows))

    def write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.write_text(text, encoding="utf-8")
        return file

    def cases(self, text: str) -> tuple[LoadedCase, ...]:
        self.write("letters.test.yaml", SCHEMA + textwrap.indent(textwrap.dedent(text), "  "))
        return collect([self.folder], DEFAULTS).loaded_cases

    def run(self, text: str) -> CaseResult:
        (loaded_case,) = self.cases(text)
        assert self.runner is not None
        return compare(loaded_case, self.runner.run(loaded_case), 0.25)

    def difference(self, text: str) -> list[str]:
        return [str(line) for line in self.run(text).lines]

    def errors(self, text: str) -> list[str]:
        self.write("letters.test.yaml", text)
        with pytest.raises(ConfigError) as caught:
            collect([self.folder], DEFAULTS)
        return [str(problem).removeprefix(f"{self.folder}/") for problem in caught.value.problems]


@pytest.fixture(scope="module")
def runner(site: Site) -> Iterator[CaseRunner]:
    cancel_token = CancelToken()
    session = Connection(lambda: site.primary, cancel_token, connect_timeout=30)
    yield CaseRunner(session, cancel_token)
    session.close()
    cancel_token.close()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def table(tmp_path: Path, runner: CaseRunner) -> Desk:
    return Desk(tmp_path, runner)


def test_every_shipped_query_has_cases_that_pass(database: Database, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    command = ["test", "shipped", "extended", "--database", database.primary_dsn, "--junit", str(junit)]
    done = subprocess.run([sys.executable, "-m", "poller", *command], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    reported = ET.parse(junit).getroot()
    assert reported.attrib["failures"] == reported.attrib["errors"] == "0"
    tried = {case.attrib["classname"] for case in reported.iter("testcase")}
    folders = [Path("queries"), Path("queries/extended")]
    assert tried == {query.name for query in load(folders, DEFAULTS).queries}
    assert "without a case" not in done.stdout


def test_without_a_database_it_starts_a_server_and_prints_the_differences(
    desk: Desk, poller_process: Callable[..., Process]
) -> None:
    desk.cases("""\
        - name: two wait
          query: waiting
          rows: {letters: "id,expires_at\\n1,tomorrow"}
          expect: [{metric: waiting_total, value: 2}, {metric: waiting_age_seconds, value: 0}]
        - {name: it is lost, query: lost, fails: rejected}
        - {name: nowhere, query: lost, sql: INSERT INTO nowhere VALUES (1), expect: []}
        """)
    process = poller_process("test", ".", cwd=desk.folder)

    assert process.wait() == 1, str(process)
    assert process.stdout.splitlines() == [
        "failed  letters.test.yaml:5: two wait (waiting)",
        "        - waiting_total 2",
        "        + waiting_total 1",
        "          waiting_age_seconds 0.0",
        "ok      letters.test.yaml: it is lost",
        "broken  letters.test.yaml:10: nowhere (lost)",
        '        letters.test.yaml:10: sql: line 1 of the script: relation "nowhere" does not exist',
        "3 cases: 1 ok, 1 failed, 1 broken (- expected, + actual); without a case: share",
    ]


def test_now_is_constant_and_every_series_is_compared(table: Desk) -> None:
    assert table.difference("""\
        - name: by state
          query: waiting
          files: {letters: more.csv}
          rows: {letters: "id,state,expires_at\\n4,sent,infinity\\n"}
          sql: |
            -- what BEGIN and COMMIT say here is ignored
            BEGIN;
            UPDATE letters SET created_at = now() - interval '90.5 s' WHERE state = 'sent';
            COMMIT
          expect:
            - {metric: waiting_total, attributes: {state: queued}, value: 2}
            - {metric: waiting_total, attributes: {state: sent}, value: 1}
            - {metric: waiting_age_seconds, attributes: {state: queued}, value: any}
            - {metric: waiting_age_seconds, attributes: {state: sent}, value: 90.5}
        """) == []  # fmt: skip


@pytest.mark.parametrize(
    ("case", "difference"),
    [
        (
            """
            query: waiting
            files: {letters: more.csv}
            expect:
              - {metric: waiting_total, attributes: {state: queued}, value: 3}
              - {metric: waiting_total, attributes: {state: sent}, value: 1}
            """,
            [
                "- waiting_total state=queued 3",
                "+ waiting_total state=queued 2",
                "- waiting_total state=sent 1",
                "+ waiting_age_seconds state=queued 0.0",
            ],
        ),
        (
            """
            query: waiting
            sql: INSERT INTO letters VALUES (1, 'x', NULL, 'tomorrow')
            expect: [{metric: waiting_total, attributes: {state: x}, value: 1}]
            """,
            [
                "  waiting_total state=x 1",
                "- quarantined null: 0",
                "+ quarantined null: 1",
                "# waiting: omitted from waiting_age_seconds (null): state=x n=1 age=NULL",
            ],
        ),
        (
            "{query: waiting, expect: [], quarantined: {nan: 2}}",
            ["- quarantined nan: 2", "+ quarantined nan: 0"],
        ),
        (
            "{query: lost, expect: []}",
            [
                "- ok",
                "+ failed(rejected)",
                '# 42P01 relation "lost" does not exist',
                "# if that is expected here, name it under requires.columns",
            ],
        ),
        (
            "{query: lost, sql: CREATE TABLE lost (), fails: rejected}",
            ["- failed(rejected)", "+ ok", "+ lost_total 0"],
        ),
        (
            "{query: share, sql: DROP TABLE letters, skipped: column}",
            ["- skipped(column)", "+ skipped(relation)", "# relation letters does not exist"],
        ),
        (
            """
            query: share
            sql: INSERT INTO letters VALUES (1)
            expect: [{attributes: {late: false}, value: 0.3333}]
            """,
            ["- share late=false 0.3333", "+ share late=false 0.3333333333333333"],
        ),
    ],
)
def test_the_difference_has_the_expected_and_the_actual_result(
    table: Desk, case: str, difference: list[str]
) -> None:
    case = case.strip() if case.startswith("{") else case
    text = f"- {{name: x, {case[1:]}\n" if case.startswith("{") else f"- name: x\n{_body(case)}"

    assert table.difference(text) == difference


def _body(case: str) -> str:
    return textwrap.indent(textwrap.dedent(case).strip("\n"), "  ") + "\n"


NOT_LATE = "attributes: {late: false}"


@pytest.mark.parametrize(
    "case",
    [
        "query: lost, fails: rejected",
        "query: share, sql: ALTER TABLE letters DROP COLUMN id CASCADE, skipped: column",
        f"query: share, sql: INSERT INTO letters VALUES (1), expect: [{{{NOT_LATE}, value: 0.33333333333}}]",
        f"query: share, expect: [{{{NOT_LATE}, value: 0}}]",
        "query: share, estimate: true, fails: mismatch",
        "query: waiting, expect: [], quarantined: {nan: 0}",
    ],
)
def test_a_case_that_is_as_expected_has_no_difference(table: Desk, case: str) -> None:
    assert table.difference(f"- {{name: x, {case}}}") == []


def test_a_query_runs_with_its_settings(table: Desk) -> None:
    own = "SELECT count(*) AS n FROM lost\n    settings: {search_path: tenant, TimeZone: Asia/Tokyo}"
    table.write("letters.yaml", QUERIES.replace("SELECT count(*) AS n FROM lost", own))
    difference = table.difference("""\
        - name: another schema
          query: lost
          sql: |
            CREATE SCHEMA tenant;
            CREATE VIEW tenant.lost AS
              SELECT FROM generate_series(1, 2) WHERE current_setting('TimeZone') = 'Asia/Tokyo';
          expect: [{value: 2}]
        """)
    assert difference == []


@pytest.mark.parametrize(
    ("created_at", "result"),
    [
        ("'2020-01-01T00:00:00Z'", '[{value: 1, time: "2020-01-01T00:00:00Z"}]'),
        ("now() - interval '9 minutes'", "[]"),
        ("now() + interval '1 s'", "[], quarantined: {future: 1}"),
    ],
    ids=["settled", "open", "future"],
)
def test_times_of_rows_are_compared_with_the_time_of_the_case(
    table: Desk, created_at: str, result: str
) -> None:
    timed = "SELECT count(*) AS n, max(created_at) AS at FROM letters HAVING count(*) > 0"
    text = QUERIES.replace("SELECT count(*) AS n FROM lost", timed)
    table.write(
        "letters.yaml", text.replace("value_column: n}", "value_column: n, time_column: at, settle: 10m}")
    )
    difference = table.difference(f"""\
        - {{name: x, query: lost, expect: {result},
           sql: "INSERT INTO letters (id, created_at) VALUES (4, {created_at})"}}
        """)
    assert difference == []


def test_a_case_is_rolled_back_and_the_query_cannot_write(table: Desk, site: Site) -> None:
    table.write("letters.yaml", QUERIES.replace("SELECT count(*) AS n FROM lost", "SELECT make_lost() AS n"))
    difference = table.difference("""\
        - name: it writes
          query: lost
          sql: |
            CREATE FUNCTION make_lost() RETURNS int LANGUAGE sql
            AS 'INSERT INTO letters VALUES (7) RETURNING 7';
          expect: []
        """)

    assert difference[:3] == [
        "- ok",
        "+ failed(rejected)",
        "# 25006 cannot execute INSERT in a read-only transaction",
    ]
    with psycopg.connect(site.primary) as connection:
        ((relation,),) = connection.execute("SELECT to_regclass('letters')::text").fetchall()
    assert relation is None


def test_a_dump_serves_as_schema(table: Desk) -> None:
    """Including the commands that pg_dump adds, such as the empty search_path."""
    table.write(
        "schema.sql",
        "\\restrict abc\nSET statement_timeout = 0;\n"
        "SELECT pg_catalog.set_config('search_path', '', false);\n"
        "CREATE TABLE public.lost (id bigint);\nCOMMENT ON TABLE public.lost IS 'a;b';\n\\unrestrict abc\n",
    )
    table.write(
        "letters.test.yaml",
        "schema_file: schema.sql\nschema: INSERT INTO public.lost VALUES (1)\n"
        "cases: [{name: x, query: lost, rows: {lost: 'id\n\n  2'}, expect: [{value: 2}]}]\n",
    )
    (loaded_case,) = collect([table.folder / "letters.yaml"], DEFAULTS).loaded_cases
    assert table.runner is not None

    assert compare(loaded_case, table.runner.run(loaded_case), 0.0).state == "ok"


@pytest.mark.parametrize(
    ("fixture", "reported"),
    [
        (
            'sql: "SELECT 1;\\n\\nINSERT INTO\\n  nowhere VALUES (1)"',
            'sql: line 4 of the script: relation "nowhere" does not exist',
        ),
        ('rows: {letters: "id\\n1\\nx"}', "rows.letters: invalid input syntax for type bigint"),
        ('rows: {letters: "nope\\n1"}', 'rows.letters: column "nope" of relation "letters" does not exist'),
        ('rows: {a.b: "nope\\n1"}', 'rows.a.b: schema "a" does not exist'),
        ("sql: CREATE TABLE letters ()", 'sql: line 1 of the script: relation "letters" already exists'),
    ],
)
def test_rows_that_cannot_be_created_are_reported_with_their_place(
    table: Desk, fixture: str, reported: str
) -> None:
    (loaded_case,) = table.cases(f"- {{name: x, query: lost, {fixture}, expect: []}}")
    assert table.runner is not None
    with pytest.raises(FixtureError) as caught:
        table.runner.run(loaded_case)

    place, _, rest = str(caught.value).partition(": ")
    assert place == f"{table.folder}/letters.test.yaml:5"
    assert rest.startswith(reported)
    (loaded_case,) = table.cases("- {name: the next one, query: lost, fails: rejected}")
    assert compare(loaded_case, table.runner.run(loaded_case), 0.0).state == "ok"


def mistakes() -> Iterator[tuple[str, str, list[str]]]:
    """Yield the name of the mistake, the file, and each reported problem without the file's name."""
    text = Path(__file__).with_name("mistaken_cases.txt").read_text(encoding="utf-8")
    for part in text.split("==== ")[1:]:
        name, _, rest = part.partition("\n")
        file, _, reported = rest.partition("---- is reported as\n")
        yield name, file, reported.splitlines()


@pytest.mark.parametrize(("text", "reported"), [pytest.param(*rest, id=name) for name, *rest in mistakes()])
def test_a_mistake_is_reported_with_its_line_and_advice(
    desk: Desk, text: str, reported: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk.folder)
    desk.folder = Path()

    named = [line.replace("FILE", "letters.test.yaml") for line in reported]
    assert desk.errors(text) == [f"letters.test.yaml:{line}" for line in named]


def test_mistakes_in_the_query_file_are_reported_first_and_folders_without_cases(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.write("letters.yaml", "queries: []")
    assert desk.errors("cases: []") == [
        "letters.yaml:1: queries: is empty; write at least one query below it, each with a leading dash"
    ]
    (tmp_path / "letters.test.yaml").unlink()
    desk.write("letters.yaml", QUERIES)
    for source in (tmp_path, tmp_path / "letters.yaml"):
        with pytest.raises(ConfigError, match=r"finds no cases; write cases to .*/letters\.test\.yaml"):
            collect([source], DEFAULTS)
    with pytest.raises(ConfigError, match="does not exist"):
        collect([tmp_path / "nowhere.yaml"], DEFAULTS)


def test_check_reports_the_mistakes_of_cases(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names in cases have no namespace, even if POLLER_NAMESPACE is set."""
    monkeypatch.chdir(desk.folder)
    monkeypatch.setenv("POLLER_NAMESPACE", "mail")
    desk.cases("- {name: x, query: lost, expect: [{metric: lost_total, value: 1}]}")
    right = CliRunner().invoke(app, ["check", "."])
    desk.write("letters.test.yaml", "cases: [{name: x, query: lots, expect: []}]")
    wrong = CliRunner().invoke(app, ["check", "letters.yaml", "--format", "github"])

    assert (right.exit_code, right.stdout) == (0, "1 file, 3 queries, 4 metrics: no problems\n")
    assert wrong.exit_code == 2
    assert wrong.stdout == (
        "::error file=letters.test.yaml,line=1,col=19,title=poller query-file::cases[0].query: 'lots' is not "
        "in the query file; did you mean 'lost'? its queries are: waiting, share, lost\n"
    )


def test_case_files_are_not_query_files(desk: Desk) -> None:
    cases = desk.write("letters.test.yaml", "cases: []")

    assert load([desk.folder], DEFAULTS).files == (desk.folder / "letters.yaml",)
    with pytest.raises(ConfigError, match="contains cases for `poller test`"):
        load([cases], DEFAULTS)


def test_a_script_is_split_into_statements_with_their_lines() -> None:
    reported = steps(
        "-- é\nSELECT ';' ;\n\n  SELECT $$\n;$$;;\nSTART TRANSACTION;SELECT 3;COMMIT;\n-- the end"
    )

    assert [(step.line, step.sql) for step in reported] == [
        (1, "-- é\nSELECT ';'"),
        (4, "SELECT $$\n;$$"),
        (6, "SELECT 3"),
    ]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SAVEPOINT x", "rolled back as a whole"),
        ("PREPARE TRANSACTION 'x'", "rolled back as a whole"),
        ("rollback prepared 'x'", "rolled back as a whole"),
        ("ABORT", "rolled back as a whole"),
        ("COMMIT PREPARED 'x'", "rolled back as a whole"),
        ("COPY letters FROM PROGRAM 'curl example'", "a case runs no program"),
        ("COPY letters TO PROGRAM 'mail'", "writes no file"),
        ("COPY (SELECT 1) TO '/srv/letters.csv'", "writes no file"),
        ("COPY letters FROM STDIN", "write the rows below `rows:`"),
    ],
)
def test_a_statement_that_no_rollback_would_undo_is_rejected(sql: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"contains {sql} (line 2 of the script); ") + f".*{why}"):
        steps(f"COPY letters FROM '/srv/letters.csv';\n{sql}")


def test_a_database_with_relations_is_rejected(database: Database) -> None:
    """Relations of the server and of extensions do not count."""
    cancel_token = CancelToken()
    session = Connection(lambda: database.primary_dsn, cancel_token, connect_timeout=30)
    runner = CaseRunner(session, cancel_token)
    database.execute("CREATE SCHEMA nothing_in_it; CREATE TYPE pair AS (a int, b int)")
    runner.connect(empty=True)
    database.execute("CREATE MATERIALIZED VIEW nothing_in_it.a AS SELECT 1; CREATE SEQUENCE b")
    runner.connect(empty=False)
    with pytest.raises(ConfigError) as caught:
        runner.connect(empty=True)
    session.close()
    cancel_token.close()

    assert str(caught.value) == (
        "--database: contains the relation nothing_in_it.a and 1 more, which a case would lock for other "
        "clients; write an empty database (createdb scratch), and create the tables with `schema:` or "
        "`schema_file:`"
    )


@pytest.mark.parametrize(
    ("fixture", "number", "code"),
    [
        ("sql: SET statement_timeout = 0; SELECT pg_sleep(6000)", signal.SIGINT, 130),
        ('rows: {slow: "id\\n1"}', signal.SIGTERM, 143),
    ],
    ids=["statement", "COPY"],
)
def test_a_signal_cancels_the_statement_that_creates_rows(
    desk: Desk,
    database: Database,
    poller_process: Callable[..., Process],
    fixture: str,
    number: int,
    code: int,
) -> None:
    cases = desk.write(
        "letters.test.yaml", f"{SLOW}cases: [{{name: x, query: lost, {fixture}, expect: []}}]\n"
    )
    process = poller_process("test", str(cases), "--database", database.primary_dsn)
    _until(lambda: _at_work(database, "wait_event = 'PgSleep'"), process)
    process.send(signal.Signals(number))

    assert (process.wait(), process.stdout, process.stderr) == (code, "", "")
    _until(lambda: not _at_work(database, "true"), process)
    assert database.execute("SELECT to_regclass('slow')") == [(None,)]


SLOW = """\
schema: |
  SET statement_timeout = 0;
  CREATE TABLE slow (id bigint);
  CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(6000); RETURN NEW; END';
  CREATE TRIGGER wait BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION wait();
"""


def _at_work(database: Database, which: str) -> bool:
    mine = "datname = current_database() AND application_name = 'poller test'"
    return bool(database.execute(f"SELECT pid FROM pg_stat_activity WHERE {mine} AND {which}"))


def _until(holds: Callable[[], bool], process: Process) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, str(process)
        time.sleep(0.05)


def test_a_statement_that_takes_too_long_is_reported_with_its_limit(table: Desk) -> None:
    (loaded_case,) = table.cases(
        '- {name: x, query: lost, sql: "SET statement_timeout = 1; SELECT pg_sleep(6000)", expect: []}'
    )
    assert table.runner is not None
    with pytest.raises(FixtureError) as caught:
        table.runner.run(loaded_case)

    assert (
        "sql: line 1 of the script: canceling statement due to statement timeout; the limit is 60 s"
        in str(caught.value)
    )


def test_a_standby_accepts_no_rows(desk: Desk, database: Database) -> None:
    (loaded_case,) = desk.cases("- {name: x, query: lost, fails: rejected}")
    cancel_token = CancelToken()
    session = Connection(lambda: database.standby_dsn, cancel_token, connect_timeout=30)
    with pytest.raises(PollError, match="the server accepts no rows: cannot set transaction read-write mode"):
        CaseRunner(session, cancel_token).run(loaded_case)
    session.close()
    cancel_token.close()


def test_a_polled_or_unreachable_database_is_reported(
    desk: Desk, poller_process: Callable[..., Process]
) -> None:
    desk.cases("- {name: x, query: lost, fails: rejected}")
    nowhere = "postgresql://u:s3cret@127.0.0.1:1/x?connect_timeout=2"
    polled = "--database: is POLLER_DATABASE_URL, which must only be read; write an empty scratch database"
    for environ, files, reported in (
        ({}, ["."], "poller test: connection failed"),
        ({"POLLER_DATABASE_URL": "host=127.0.0.1 port=1 dbname=x user=other"}, ["."], polled),
        ({}, ["password=s3cret"], "--database: contains blanks; quote the value"),
    ):
        process = poller_process("test", *files, "--database", nowhere, cwd=desk.folder, env=environ)
        assert (process.wait(), process.stdout) == (2, ""), str(process)
        assert process.stderr.startswith(reported), process.stderr
        assert "s3cret" not in process.stderr


def test_the_polled_database_is_recognized_without_its_port(desk: Desk) -> None:
    desk.cases("- {name: x, query: lost, fails: rejected}")
    done = CliRunner().invoke(
        app,
        ["test", str(desk.folder), "--database", "postgresql://127.0.0.1/x"],
        env={"POLLER_DATABASE_URL": "host=127.0.0.1 port=5432 dbname=x"},
    )
    assert "is POLLER_DATABASE_URL, which must only be read" in str(done.exception)


def test_cases_are_selected_by_name(desk: Desk) -> None:
    loaded_cases = desk.cases("""\
        - {name: first one, query: lost, fails: rejected}
        - {name: second one, query: lost, fails: rejected}
        """)

    assert select_cases(loaded_cases, ["sec*"]) == [loaded_cases[1]]
    with pytest.raises(ConfigError, match="'first won' matches no case; did you mean 'first one'"):
        select_cases(loaded_cases, ["sec*", "first won"])


def test_a_lost_connection_is_an_error_and_the_next_case_gets_a_new_one(table: Desk) -> None:
    kill = "SELECT pg_terminate_backend(pg_backend_pid())"
    (loaded_case,) = table.cases(f"- {{name: x, query: lost, sql: {kill}, expect: []}}")
    assert table.runner is not None
    with pytest.raises((FixtureError, PollError)):
        table.runner.run(loaded_case)

    assert table.difference("- {name: x, query: lost, fails: rejected}") == []


def test_junit_has_the_same_results_as_a_terminal(table: Desk) -> None:
    """Including characters that are invalid in XML or control a terminal."""
    good = table.run("- {name: good, query: lost, fails: rejected}")
    bad = table.run("""\
        - name: <bad> &
          query: waiting
          sql: INSERT INTO letters VALUES (1, E'\\x1b[31m', now(), 'tomorrow')
          expect: []
        """)
    broken = CaseResult(bad.loaded_case, 0.5, broken="no \x00 rows")
    reported = ET.fromstring(to_junit([good, bad, broken]))

    assert {key: reported.attrib[key] for key in ("tests", "failures", "errors", "time")} == {
        "tests": "3", "failures": "1", "errors": "1", "time": "1.000",
    }  # fmt: skip
    first, second, third = reported.iter("testcase")
    assert (first.attrib["name"], list(first)) == ("good", [])
    assert (second.attrib["name"], second.attrib["line"]) == ("<bad> &", "5")
    assert [element.tag for element in second] == ["failure"]
    assert "waiting_total" in str(second[0].text)
    assert third[0].attrib["message"] == "no \ufffd rows"
    coloured = io.StringIO()
    print_case_result(
        Console(file=coloured, force_terminal=True, color_system="standard", highlight=False), bad
    )
    assert "\x1b[32m        + waiting_total" in coloured.getvalue()
    plain = io.StringIO()
    print_case_result(Console(file=plain, width=20, highlight=False), bad)
    assert "\x1b" not in plain.getvalue()
    assert all(line[:6].strip() in ("failed", "") for line in plain.getvalue().splitlines()), (
        "no line is wrapped"
    )
    assert (
        summary([good, bad, broken], ["x"])
        == "3 cases: 1 ok, 1 failed, 1 broken (- expected, + actual); without a case: x"
    )
