"""Imported files of other tools: converted features, reported losses, and the rows of the queries."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pgparse
import psycopg
import pytest

from poller.cli.app import main
from poller.config.load import load_together
from poller.config.load_settings import load as load_settings
from poller.config.queries.load import load, open_files
from poller.config.queries.sql_ast import nodes
from poller.config.queries.sql_parameters import to_placeholders
from poller.config.yaml_reader import parse
from poller.model.diagnostics import Place
from poller.model.errors import PollError
from poller.model.result import Answer
from poller.model.text import value_text
from poller.polling.mapping import to_samples
from poller.postgres.replica import Replica
from poller.postgres.transaction import TransactionLimits
from poller.tools.importers.draft import DraftMetric, DraftQuery
from poller.tools.importers.formats import FORMATS, ImportFormat, import_files, tools_of
from poller.tools.importers.sql_columns import columns_of
from poller.tools.importers.sql_exporter import MAX_MATCHES, find_files
from poller.tools.importers.validate import to_yaml
from tests.bed.golden import Golden
from tests.bed.imported import DEFAULTS, Case, cases, imported
from tests.bed.postgres import Site

CASES = list(cases())
RUN = [case for case in CASES if "primary" in case.sections]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=str)
def test_query_file_and_messages(case: Case, folder: Path, golden: Golden) -> None:
    """`pytest --update` writes the expected results into the file of the case."""
    written, targets, messages = imported(case, folder)

    golden(case.path, case.text(written, targets, messages))
    assert "s3cr3t" not in written + targets + messages
    check_together(folder, written, targets)


def check_together(folder: Path, written: str, targets: str) -> None:
    """Validate the query file and the targets file, of which either may be empty; raises ConfigError."""
    environ = {}
    if targets:
        (folder / "written-targets.yaml").write_text(targets, encoding="utf-8")
        environ["POLLER_TARGETS"] = str(folder / "written-targets.yaml")
    files = []
    if written:
        (folder / "written.yaml").write_text(written, encoding="utf-8")
        files = open_files([folder / "written.yaml"])
    load_together(files, load_settings(environ))


def test_each_format_has_cases_and_some_run_on_a_server() -> None:
    assert {case.form for case in CASES} == set(FORMATS)
    assert sorted(case.form for case in RUN) == sorted(FORMATS)


@pytest.mark.parametrize("case", RUN, ids=str)
def test_each_row_of_imported_queries_is_exported_or_has_a_reason(
    case: Case, site: Site, folder: Path
) -> None:
    """On the primary and on the standby each row is exported, or omitted or skipped with a reason."""
    if site.standby is None:
        pytest.skip("needs a streaming standby")
    written, *_ = imported(case, folder)
    (folder / "written.yaml").write_text(written, encoding="utf-8")
    queries = load([folder / "written.yaml"], DEFAULTS).queries
    for role, dsn in (("primary", site.primary), ("standby", site.standby)):
        with connected(dsn) as replica:
            results = [f"{answer.query.name}: {account(answer)}" for answer in replica.fetch(queries)]
        assert results == case.sections[role].splitlines()


# --- the parts ------------------------------------------------------------------------------------

NAMED = [
    "SELECT 1, 'a', NULL, count(*), now(), pg_catalog.now() AS x, 1::int4, '1'::text, 'a' || 'b', 1 < 2",
    "SELECT CASE WHEN true THEN 1 END, CASE WHEN true THEN 1 ELSE relpages END FROM pg_class LIMIT 0",
    "SELECT coalesce(NULL, 1), nullif(1, 2), greatest(1, 2), least(1, 2), ARRAY[1], (ARRAY[1])[1]",
    "SELECT (SELECT 1 AS inner_one), (SELECT max(1)), EXISTS (SELECT 1), ARRAY(SELECT 1), 1 IN (SELECT 1)",
    "SELECT current_user, current_date, current_timestamp, localtime, session_user, current_catalog",
    "SELECT extract(epoch FROM now()), c.relname, c.relname::text, c.oid::int FROM pg_class c",
    'SELECT datname COLLATE "C", grouping(datname), sum(1) OVER () FROM pg_database GROUP BY 1, datname',
    'SELECT 1 AS "With Spaces", 2 AS upper UNION SELECT 3, 4',
    "VALUES (1, 2), (3, 4)",
    "WITH a AS (SELECT 1 AS one, 2 AS two), b AS (SELECT * FROM a) SELECT b.*, 3 AS three FROM b",
    "SELECT * FROM (SELECT 1 AS one, 2) AS x",
    "SELECT (CASE WHEN true THEN 1 END)::int, '1'::text::int, (c).relname, (c.relacl)[1] FROM pg_class c",
    "SELECT xmlelement(name a), xmlconcat('<a/>'), '<a/>'::xml IS DOCUMENT, xmlserialize(content '' AS text)",
    "SELECT json_object('a': 1), json_array(1), json_objectagg('a': 1), json_arrayagg(1), '{}' IS JSON",
    "SELECT json_value('{}', '$'), json_exists('{}', '$'), json_query('{}', '$'), json('{}'), json_scalar(1)",
    "WITH a AS (SELECT 1 AS x) SELECT * FROM a UNION SELECT * FROM a",
    "SELECT * FROM (VALUES (1, 2)) AS v(a), generate_series(1, 2) AS g, now() WITH ORDINALITY AS n(t)",
    "SELECT r.*, q.* FROM json_to_record('{}') AS r(a int, b text) LEFT JOIN (SELECT 1 AS a) q USING (a)",
    "SELECT * FROM (SELECT 1 AS a, 2 AS b) q JOIN (SELECT 3 AS c, 2 AS b) r USING (b), now(), current_date",
    "SELECT * FROM ROWS FROM (now(), json_to_record('{}') AS (a int)) AS f",
    "SELECT (SELECT (SELECT 1)), (VALUES (1)), (SELECT 1 AS a UNION SELECT 1)",
    "SELECT NOT true, true AND false, 1 IS NULL, true IS TRUE, row(1, 2), trim(' a '), substring('a', 1)",
]


def test_column_names_are_those_of_the_server(site: Site) -> None:
    with psycopg.connect(site.primary) as connection:
        for sql in NAMED:
            if connection.info.server_version < 170000 and "json_" in sql:
                continue
            try:
                described = connection.execute(sql.encode()).description or []
            except psycopg.errors.FeatureNotSupported:  # a server without libxml
                assert "xml" in sql
                connection.rollback()
                continue
            assert [column.name for column in columns_of(sql) or []] == [
                column.name for column in described
            ], sql


@pytest.mark.parametrize(
    "sql", ["SELECT * FROM t", "SELECT t.* FROM t, u", "SELECT * FROM (SELECT * FROM t) x", "SHOW x", "SELEC"]
)
def test_columns_are_unknown_if_a_server_is_needed(sql: str) -> None:
    assert columns_of(sql) is None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'a\n   b  \n' AS n",
        "SELECT 1 AS n -- é \u2028 \x7f \U0001f600",
        "SELECT '\t' AS n,\n\t1 AS m",
        "SELECT 'a: b # c', \"d\"",
        "SELECT $$\n  $$ AS n\n",
        "SELECT 1 AS n,   \n  2 AS m",
    ],
)
def test_written_sql_keeps_its_meaning(sql: str) -> None:
    place = Place(Path("x"), 1)
    metrics = [DraftMetric(place, "m", "m", "M.", column.name) for column in columns_of(sql) or ()]
    text = to_yaml([DraftQuery(place, "q", sql, metrics)], "Head.")
    ((written,),) = (document["queries"] for document in [parse(text.encode()).data])

    assert pgparse.parse(written["sql"]) is not None
    assert "".join(written["sql"].split()) == "".join(sql.split())
    if "'" in sql or "$" in sql:
        assert pgparse.fingerprint(written["sql"]) == pgparse.fingerprint(sql)
        inside = re.findall(r"'[^']*'|\$\$[^$]*\$\$", sql)
        assert all(text in written["sql"] for text in inside)


@pytest.mark.parametrize(
    "condition",
    [
        "name = E'it\\'s   \n\tdon\\'t'",
        "name = E'it\\'s \r\nb'",
        "name = 'it''s   \n\tb'''",
        "\"a'  \n\tb'\" = 1",
        "name = 'a\u2028b\x0bc'",
        "name = /* don't */\n\t'a \n b'",
        "name = $a$'  \n\t$a$",
        "name = -- '\n'a  \n\tb'",
    ],
)
@pytest.mark.parametrize("unused", ["", ", 1 AS unused"])
def test_imported_sql_keeps_every_character_of_its_strings_and_names(condition: str, unused: str) -> None:
    """An unused column makes the importer write another query around the statement."""
    sql = f"SELECT count(*) FILTER (WHERE {condition}) AS n{unused} FROM people"
    place = Place(Path("x"), 1)
    draft = DraftQuery(place, "q", sql, [DraftMetric(place, "m", "m", "M.", "n")])

    (query,) = parse(to_yaml([draft], "").encode()).data["queries"]

    def texts(sql: str) -> set[str]:
        return {text for text in nodes(pgparse.parse(sql), "sval") if isinstance(text, str)}

    assert texts(sql) <= texts(query["sql"])
    assert ("AS source" in query["sql"]) == bool(unused)


WRITTEN = ["1.10", "1e3", "+1", "True", "1", ".5", "x"]
TABLE = "{" + ", ".join(f"t{number}: {text}" for number, text in enumerate(WRITTEN)) + "}"
FLOATS = ["1.10", "1e3", "-0.0", "2.50", "inf"]
PARTS: dict[ImportFormat, str] = {
    "sqlquery": (
        "driver: postgres\nqueries:\n- sql: SELECT 1 AS n\n"
        f"  metrics: [{{metric_name: m, value_column: n, static_attributes: {TABLE}}}]\n"
    ),
    "sql_exporter": (
        "collector_name: c\nmetrics:\n- metric_name: m\n  type: gauge\n  values: [n]\n"
        f"  query: SELECT 1 AS n\n  static_labels: {TABLE}\n"
    ),
    "query-exporter": (
        f"databases: {{d: {{dsn: x, labels: {TABLE}}}}}\nmetrics: {{n: {{type: gauge}}}}\n"
        "queries: {q: {databases: [d], metrics: [n], sql: SELECT 1 AS n}}\n"
    ),
}


@pytest.mark.parametrize("form", PARTS)
def test_an_unquoted_label_value_is_imported_as_it_is_written(folder: Path, form: ImportFormat) -> None:
    (folder / "q.yml").write_text(PARTS[form])

    (draft,) = import_files(form, [Path("q.yml")], DEFAULTS).drafts

    attributes = draft.metrics[0].attributes
    assert [attributes[f"t{number}"] for number in range(len(WRITTEN))] == WRITTEN


def test_an_unquoted_tag_value_in_toml_is_imported_as_it_is_written(folder: Path) -> None:
    tags = ", ".join(f"t{number} = {text}" for number, text in enumerate(FLOATS))
    (folder / "t.conf").write_text(
        f"[[inputs.postgresql_extensible]]\ntags = {{{tags}, yes = true, one = 1}}\n"
        '[[inputs.postgresql_extensible.query]]\nsqlquery = "SELECT 1 AS n"\n'
    )

    (draft,) = import_files("telegraf", [Path("t.conf")], DEFAULTS).drafts

    assert list(draft.metrics[0].attributes.values()) == [*FLOATS, "true", "1"]


def test_an_unquoted_row_condition_compares_with_the_text_as_it_is_written(folder: Path) -> None:
    (folder / "q.yml").write_text(
        "driver: postgres\nqueries:\n- sql: SELECT 1 AS n, '1.10' AS version\n  metrics:\n"
        "  - {metric_name: m, value_column: n, row_condition: {column: version, value: 1.10}}\n"
    )

    (draft,) = import_files("sqlquery", [Path("q.yml")], DEFAULTS).drafts

    assert draft.where == "\"version\"::text = '1.10'"


def test_unquoted_names_in_a_list_are_imported_as_they_are_written(folder: Path) -> None:
    (folder / "q.yml").write_text(
        "collector_name: c\nmetrics:\n- metric_name: m\n  type: gauge\n  values: [1.10, True]\n"
        '  value_label: which\n  query: SELECT 1 AS "1.10", 2 AS "True"\n'
    )

    (draft,) = import_files("sql_exporter", [Path("q.yml")], DEFAULTS).drafts

    assert [metric.value_column for metric in draft.metrics] == ["1.10", "True"]


BOUND = """\
databases: {d: {dsn: x}}
metrics: {n: {type: gauge, description: N.}}
queries:
  q: {databases: [d], metrics: [n], interval: 30, sql: "%s", parameters: [{x: %s}]}
"""


@pytest.mark.parametrize(
    ("sql", "value", "result"),
    [
        (r"SELECT 10 -:x\nAS n", "-1", "11"),
        (r"SELECT 10 -:x\nAS n", "-0.0", "10.0"),
        (r"SELECT 10 -:x\nAS n", "-1.5", "11.5"),
        (r"SELECT :x\\:\\:text AS n", "-1", "-1"),
        (r"SELECT :x AS n", r"'C:\:'", r"C:\:"),
    ],
)
def test_a_parameter_in_imported_sql_keeps_its_value(
    site: Site, folder: Path, sql: str, value: str, result: str
) -> None:
    (folder / "q.yml").write_text(BOUND % (sql, value))

    (draft,) = import_files("query-exporter", [Path("q.yml")], DEFAULTS).drafts

    query = draft.data()
    names = list(query["parameters"])
    values = [value_text(value).encode() for (value,) in query["parameters"].values()]
    with psycopg.connect(site.primary) as connection:
        rows = connection.pgconn.exec_params(to_placeholders(query["sql"], names).encode(), values)
    assert (rows.get_value(0, 0) or b"").decode() == result


@pytest.mark.parametrize(
    "parameters",
    ["{st: [queued, sent]}", "{st: {n: queued}}", "{}", "[]", "3", "[queued]", "[{st: queued}, 3]"],
)
def test_parameters_that_are_no_sets_of_values_are_reported(folder: Path, parameters: str) -> None:
    (folder / "q.yml").write_text(
        "databases: {d: {dsn: postgresql://h/d}}\nmetrics: {v: {type: gauge, description: V.}}\nqueries:\n"
        f"  q: {{databases: [d], metrics: [v], sql: 'SELECT 1 AS v', parameters: {parameters}}}\n"
        "  r: {databases: [d], metrics: [v], sql: 'SELECT 1 AS v'}\n"
    )
    result = import_files("query-exporter", [folder / "q.yml"], DEFAULTS)
    assert [draft.name for draft in result.drafts] == ["r"]
    lost = [
        str(problem) for problem in result.losses.diagnostics(result.files) if problem.severity == "error"
    ]
    assert [problem for problem in lost if "queries.q.parameters: not converted" in problem]


def test_collector_files_are_matched_like_in_go(folder: Path) -> None:
    """`**` is `*` there, so that it names one level of folders, and `[^a]` excludes a letter."""
    for name in ("a/b.yml", "a/.hidden.yml", "a/b/deep.yml", "c/b.yml", "a/no.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"collector_name: {name}\nmetrics: []\n")
    patterns = {
        "**/b.yml": ["a/b.yml", "c/b.yml"],
        "[^a]/../a/**.yml": ["c/../a/.hidden.yml", "c/../a/b.yml"],
        str(folder / "a" / "*.yml"): [str(folder / "a/.hidden.yml"), str(folder / "a/b.yml")],
        "./a/b.yml": ["a/b.yml"],
        "gone/*": [],
    }
    for pattern, files in patterns.items():
        assert [str(file) for file in find_files(Path(), pattern)] == files, pattern


def test_a_pattern_that_matches_too_many_folders_is_reported(poller: Command, folder: Path) -> None:
    for number in range(MAX_MATCHES + 1):
        (folder / "many" / str(number)).mkdir(parents=True)
    (folder / "main.yml").write_text("collector_files: ['many/*/zzz*']\n")

    code, out, err = poller("import", "--from", "sql_exporter", "main.yml")

    assert (code, out) == (1, "")
    assert (
        "main.yml:1: collector_files: not converted: many/*/zzz* matches more than"
        f" {MAX_MATCHES} files or folders; pass the files as arguments"
    ) in err


# --- the command --------------------------------------------------------------------------------------

GOOD = """\
collector_name: jobs
min_interval: 1m
metrics:
  - {metric_name: jobs, type: gauge, help: Jobs., values: [n], query: SELECT count(*) AS n FROM jobs}
"""
NEXT_STEP = "poller check --database FILE checks them on your server"
PARTLY = GOOD + "  - {metric_name: gone, type: summary, help: Gone., values: [n], query: SELECT 1 AS n}\n"


@dataclass(frozen=True)
class Command:
    """The command line, run in this process."""

    patch: pytest.MonkeyPatch
    captured: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        self.patch.setattr(sys, "argv", ["poller", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = self.captured.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, out, err


@pytest.fixture
def poller(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    (folder / "good.yml").write_text(GOOD)
    (folder / "partly.yml").write_text(PARTLY)
    return Command(monkeypatch, capsys)


def test_exit_code_is_1_if_something_is_lost(poller: Command) -> None:
    code, out, err = poller("import", "--from", "sql_exporter", "good.yml")
    assert (code, err) == (
        0,
        f"1 query, 1 metric imported from sql_exporter; 0 not converted, 0 changed; {NEXT_STEP}\n",
    )
    assert "value_column: n" in out

    code, out, err = poller("import", "--from", "sql_exporter", "partly.yml")
    assert code == 1
    assert "gone" not in out
    assert err.splitlines() == [
        "partly.yml:5: metrics[1].type: not converted: gone is of type summary; write gauge or counter",
        f"1 query, 1 metric imported from sql_exporter; 1 not converted, 0 changed; {NEXT_STEP}",
    ]


def test_no_file_is_written_without_a_query(poller: Command, folder: Path) -> None:
    (folder / "none.yml").write_text("collector_name: none\n")

    code, out, err = poller("import", "--from", "sql_exporter", "none.yml", "--write", "new.yaml")

    assert (code, out) == (1, "")
    assert (
        "none.yml:1: not converted: contains no sql_exporter query; name another file, or another --from"
        in err
    )
    assert "poller check" not in err
    assert not (folder / "new.yaml").exists()


def test_an_existing_file_is_not_overwritten_and_a_new_file_passes_check(
    poller: Command, folder: Path
) -> None:
    code, out, err = poller("import", "--from", "sql_exporter", "partly.yml", "--write", "new.yaml")
    assert (code, out) == (1, "")
    assert "poller check --database new.yaml" in err
    head = "# Imported from sql_exporter, partly.yml.\nqueries:\n"
    assert (folder / "new.yaml").read_text().startswith(head)
    assert poller("check", "new.yaml")[0] == 0

    code, _, err = poller("import", "--from", "sql_exporter", "good.yml", "--write", "new.yaml")
    assert (code, err) == (2, "new.yaml: already exists; remove it, or write another file\n")


def test_a_folder_receives_a_file_for_each_imported_file(poller: Command, folder: Path) -> None:
    (folder / "ours").mkdir()

    code, out, _ = poller("import", "--from", "sql_exporter", "good.yml", "partly.yml", "--write", "ours")

    assert (code, out) == (1, "")
    assert sorted(path.name for path in (folder / "ours").iterdir()) == ["good.yaml", "partly.yaml"]
    assert "name: jobs_2" in (folder / "ours" / "partly.yaml").read_text()
    assert poller("check", "ours")[0] == 0


def test_all_files_of_a_folder_are_imported(poller: Command) -> None:
    code, out, _ = poller("import", "--from", "sql_exporter", ".")

    assert code == 1
    assert out.count("- name: jobs") == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "sql_exporter", "missing.yml"], "missing.yml: cannot be read: No such file or directory"),
        (["--from", "telegraf", "."], ".: contains no .conf or .toml file"),
        (
            ["--from", "sql_exporter", "good.yml", "--write", "nowhere"],
            "--write nowhere: is not a folder; write an existing folder, or a file that ends in .yaml",
        ),
        (
            ["--from", "sql_exporter", "good.yml", "--write", "no/where.yaml"],
            "no/where.yaml: cannot be written: No such file or directory",
        ),
        (["--from", "prometheus", "good.yml"], "sqlquery"),
        (["good.yml"], "--from"),
    ],
)
def test_invalid_arguments_are_reported(poller: Command, arguments: list[str], message: str) -> None:
    code, out, err = poller("import", *arguments)

    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_file_is_not_attributed_to_another_tool(case: Case, folder: Path) -> None:
    """This also applies to files with problems."""
    for name, text in case.sections.items():
        file = folder / name.removeprefix("+")
        file.write_text(text, encoding="utf-8")
        assert case.form in (tools_of(file) or {case.form})


def test_the_tool_of_a_file_is_detected_by_its_keys(folder: Path) -> None:
    for case in RUN:
        (name,) = [name for name in case.sections if name.endswith((".yaml", ".yml", ".toml", ".conf"))]
        (folder / name).write_text(case.sections[name], encoding="utf-8")
        assert tools_of(folder / name) == {case.form}, case


@pytest.mark.parametrize("key", ["receivers", "queries", "metrics", "jobs", "databases", "collectors", "a"])
@pytest.mark.parametrize("value", ["1", "x", "[1, [x]]", "{a: 1}", "{a: {query: 1, metrics: 2}}", "!file x"])
def test_an_invalid_file_belongs_to_no_tool(folder: Path, key: str, value: str) -> None:
    (folder / "odd.yml").write_text(f"{key}: {value}\n")
    assert tools_of(folder / "odd.yml") <= {"sql_exporter"}


def test_files_of_another_tool_are_rejected_with_its_name(poller: Command, folder: Path) -> None:
    columns = "{query: SELECT 1 AS n, metrics: [{n: {usage: GAUGE}}]"
    (folder / "either.yaml").write_text(f"a: {columns}}}\n")
    (folder / "other.yaml").write_text(f"a: {columns}, master: true}}\nb: {columns}}}\n")

    code, out, err = poller("import", "--from", "sql_exporter", "other.yaml", "good.yml", "either.yaml")

    assert (code, out) == (2, "")
    other, either = err.splitlines()
    assert other == (
        "other.yaml: looks like postgres_exporter, not like sql_exporter; write --from postgres_exporter"
    )
    assert either == (
        "either.yaml: looks like pg_exporter or postgres_exporter, not like sql_exporter;"
        " write --from pg_exporter or --from postgres_exporter"
    )
    assert poller("import", "--from", "telegraf", "good.yml")[2] == (
        "good.yml: looks like sql_exporter, not like telegraf; write --from sql_exporter\n"
    )
    for form in ("pg_exporter", "postgres_exporter"):
        assert poller("import", "--from", form, "either.yaml")[0] == 0


@pytest.mark.parametrize("form", FORMATS)
def test_a_link_to_itself_cannot_be_read(poller: Command, folder: Path, form: str) -> None:
    (folder / "loop.yml").symlink_to("loop.yml")

    code, out, err = poller("import", "--from", form, "loop.yml")

    assert (code, out) == (2, "")
    assert "loop.yml: cannot be read: Too many levels of symbolic links" in err


def test_a_named_pipe_in_a_file_does_not_block(poller: Command, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "q.yml").write_text(
        "databases: {d: {dsn: postgresql://x}}\nmetrics: {m: {type: gauge}}\n"
        "queries: {q: {databases: [d], metrics: [m], sql: !file pipe}}\n"
    )

    _, out, err = poller("import", "--from", "query-exporter", "q.yml")

    assert out == ""
    assert "queries.q.sql: not converted: the file pipe cannot be read" in err


@pytest.mark.parametrize(
    "word", ["1e5", "0o17", "yes", "1_000", "2020-01-01", "1:30", "null", "~", ".inf", "{x"]
)
def test_a_text_that_looks_like_another_type_stays_a_text(word: str) -> None:
    place = Place(Path("x.yml"), 1)
    metric = DraftMetric(place, "m", "m", word, "n", "1", attributes={"code": word})
    text = to_yaml([DraftQuery(place, "q", "SELECT 1 AS n", [metric])], "")

    (query,) = parse(text.encode()).data["queries"]
    assert query["metrics"][0]["attributes"] == {"code": word}
    assert query["metrics"][0]["description"] == word


@contextmanager
def connected(dsn: str) -> Iterator[Replica]:
    replica = Replica(lambda: dsn, connect_timeout=30.0, limits=TransactionLimits(1.0))
    try:
        yield replica
    finally:
        replica.close()


def account(answer: Answer) -> str:
    """Return the result of a query, with the number of data points and omitted rows of all its metrics."""
    if answer.skipped is not None:
        return f"skipped, {answer.skipped.reason}"
    if answer.error is not None:
        return f"{answer.error.kind}, {answer.error.sqlstate}"
    assert answer.rows is not None
    try:
        mapped = to_samples(answer.query, answer.rows, at=0.0)
    except PollError as error:
        return error.kind
    omitted = sum(mapped.rejected.values())
    assert len(mapped.samples) + omitted == len(answer.rows.values) * len(answer.query.metrics)
    reasons = "".join(f", {count} {reason}" for reason, count in sorted(mapped.rejected.items()))
    return f"{len(mapped.samples)} exported{reasons}"
