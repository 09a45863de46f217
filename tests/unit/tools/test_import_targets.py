"""Targets files of `poller import --targets`: they are valid, and no secret is in them or in a message."""

from __future__ import annotations

import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poller.cli.app import main
from poller.config.load import load_together
from poller.config.load_settings import load as load_settings
from poller.config.queries.load import open_files
from poller.tools.importers.formats import FORMATS, WITH_TARGETS, ImportFormat, import_files
from poller.tools.importers.targets import patterns
from poller.tools.importers.validate import to_yaml
from tests.bed.imported import DEFAULTS

SPECIAL = st.text("@:/?#[]!$&'()*+,;=% \\\"{}", max_size=3)
PASSWORDS = st.builds("{}s3cr3t{}".format, SPECIAL, SPECIAL)
CONNECTIONS = [
    "postgres://me:{}@h/d",
    "postgresql+psycopg2://me:{}@h:5432/d?sslmode=require",
    "postgres://me:{}@h/d?pool_max_conns=3",
    "postgres://:{}@h",
    "postgres://h/d?password={}",
    "postgres://h/d?options=-c app.token%3D{}",
    "host=h user=me password={} dbname=d",
    "host=h password = '{}'",
    "host=h {}",
    "{}",
    "me:{}@h",
    "etcd://me:{}@h",
]


REVERSED = "postgres://me:s3cr3t@reversed/app"
"""A connection string in the place of a name."""


def sql_exporter(connection: str) -> object:
    metric = {"metric_name": "m", "type": "gauge", "help": "M.", "values": ["n"], "query": "SELECT 1 AS n"}
    return {
        "jobs": [
            {
                "job_name": "j",
                "collectors": ["c"],
                "static_configs": [{"targets": {"a": connection, REVERSED: "a", "b": "host=b"}}],
            },
            {"job_name": "k", "collectors": ["d"], "static_configs": [{"targets": connection}]},
        ],
        "collectors": [{"collector_name": "c", "min_interval": "1m", "metrics": [metric]}],
    }


def justwatch(connection: str) -> object:
    query = {"name": "q", "help": "Q.", "values": ["n"], "query": "SELECT 1 AS n"}
    jobs = [
        {"name": "j", "interval": "1m", "connections": [connection, "host=b"], "queries": [query]},
        {"name": "k", "interval": "1m", "connections": connection, "queries": [query]},
    ]
    return {"jobs": jobs}


def query_exporter(connection: str) -> object:
    parts = {"dialect": "postgresql", "password": connection, "host": "h", "options": {"x": connection}}
    return {
        "databases": {
            "a": {"dsn": connection},
            "b": {"dsn": parts, "labels": {"x": "1", "y": "2"}},
            "c": {"dsn": {**parts, "options": {}}},
            "d": {"dsn": [connection]},
        },
        "metrics": {"n": {"type": "gauge", "description": "N.", "labels": ["x"]}},
        "queries": {
            "q": {"databases": ["a", "b"], "metrics": ["n"], "interval": 60, "sql": "SELECT 1 AS n, 'a' AS x"}
        },
    }


def pgwatch(connection: str) -> object:
    return [
        {"name": "a", "conn_str": connection, "custom_metrics": {"m": 60}},
        {"name": "b", "conn_str": connection, "kind": "postgres-continuous-discovery", "group": "g"},
        {"name": "c", "conn_str": [connection]},
        {"name": REVERSED, "conn_str": "host=b"},
    ]


def sqlquery(connection: str) -> object:
    metric = {"metric_name": "m", "value_column": "n", "description": "M."}
    queries = [{"sql": "SELECT 1 AS n", "metrics": [metric]}]
    parts = {"host": "h", "username": "u", "password": connection, "database": "d"}
    common = {"driver": "postgres", "collection_interval": "1m", "queries": queries}
    return {
        "receivers": {
            "sqlquery": {**common, "datasource": connection},
            "sqlquery/a": {**common, **parts},
            "sqlquery/b": {**common, **parts, "additional_params": {"x": connection}},
        }
    }


TOOLS: list[tuple[ImportFormat, object]] = [
    ("sql_exporter", sql_exporter),
    ("sql_exporter", justwatch),
    ("query-exporter", query_exporter),
    ("pgwatch", pgwatch),
    ("sqlquery", sqlquery),
]
METRICS = "metrics: {m: {gauges: ['*'], sqls: {11: SELECT 1 AS n}}}\n"


@pytest.mark.parametrize(("form", "file"), TOOLS)
@settings(max_examples=40)
@given(connection=st.sampled_from(CONNECTIONS), password=PASSWORDS)
def test_no_output_contains_a_secret_and_the_files_pass_check(
    form: ImportFormat, file: object, connection: str, password: str
) -> None:
    assert callable(file)
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "f.yaml").write_text(yaml.safe_dump(file(connection.format(password)), sort_keys=False))
        paths = [folder / "f.yaml"]
        if form == "pgwatch":
            (folder / "m.yaml").write_text(METRICS)
            paths.append(folder / "m.yaml")
        result = import_files(form, paths, DEFAULTS, with_targets=True)
        assert result.targets is not None
        written, targets = to_yaml(result.drafts, ""), result.targets.to_yaml("")
        messages = "".join(map(str, result.losses.diagnostics(paths)))
        assert "s3cr3t" not in written + targets + messages

        (folder / "q.yaml").write_text(written)
        (folder / "t.yaml").write_text(targets)
        files = open_files([folder / "q.yaml"]) if result.drafts else []
        load_together(files, load_settings({"POLLER_TARGETS": str(folder / "t.yaml")}))


PARTS = st.sampled_from(
    [
        "t",
        "_",
        "-",
        r"\.",
        ".",
        ".*",
        ".+",
        "[a-c]",
        "[^a]",
        "[ab_]",
        "|",
        "^",
        "$",
        "*",
        "(a|b)",
        r"\d",
        "\\",
    ]
)


@given(regex=st.lists(PARTS, max_size=6).map("".join), name=st.text("abct_.-|*\n", max_size=6))
@example("^(a|b_.*)$", "b_")
@example("a|", "x")
@example("^$", "")
def test_patterns_match_the_same_databases_as_the_regular_expression(regex: str, name: str) -> None:
    globs = patterns(regex)
    if globs is None:
        return
    assert all(globs)
    # In PostgreSQL `.` matches a line break, and `$` only the end.
    matches = re.search(re.sub(r"(?<!\\)\$", r"\\Z", regex), name, re.DOTALL) is not None
    assert any(fnmatchcase(name, glob) for glob in globs) == matches


@pytest.mark.parametrize(
    ("regex", "expected"),
    [
        ("^t_", ["t_*"]),
        ("^(shop|t_.*)$", ["shop", "t_*"]),
        ("_old$", ["*_old"]),
        (r"^a\.b$|c", ["a.b", "*c*"]),
        ("^db[0-9]$", ["db[0-9]"]),
        ("^[^_]", ["[!_]*"]),
        (r"^a\*$", ["a[*]"]),
        ("^db[0-9]+$", None),
        ("(?i)^T", None),
        (r"^\d", None),
        ("^a?$", None),
        ("^" + "a" * 300, None),
    ],
)
def test_a_regular_expression_becomes_patterns_or_is_reported(regex: str, expected: list[str] | None) -> None:
    assert patterns(regex) == expected


MAIN = """\
jobs:
- {job_name: j, collectors: [c], static_configs: [{targets: {a: "postgres://me:s3cr3t@h/d"}}]}
collectors:
- collector_name: c
  min_interval: 1m
  metrics: [{metric_name: m, type: gauge, help: M., values: [n], query: SELECT 1 AS n}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("main.yml").write_text(MAIN)
    return tmp_path


def poller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str) -> tuple[int, str]:
    """Return the exit code and stderr of a command."""
    monkeypatch.setattr(sys, "argv", ["poller", *line.split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code, capsys.readouterr().err


def test_the_summary_names_the_command_that_checks_the_queries_with_the_targets(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "import --from sql_exporter main.yml --write q.yaml --targets t.yaml"

    code, err = poller(monkeypatch, capsys, line)

    assert code == 0
    assert "1 query, 1 metric, 1 target imported from sql_exporter; 0 not converted, 2 changed" in err
    assert "; poller check --targets t.yaml q.yaml checks them together\n" in err
    assert (folder / "t.yaml").read_text().startswith("# Imported from sql_exporter.\ntargets:\n")
    assert poller(monkeypatch, capsys, "check --targets t.yaml q.yaml")[0] == 0


def test_nothing_is_written_if_one_of_the_files_exists(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "t.yaml").write_text("")

    line = "import --from sql_exporter main.yml --write q.yaml --targets t.yaml"

    expected = "t.yaml: already exists; remove it, or write another file\n"
    assert poller(monkeypatch, capsys, line) == (2, expected)
    assert not (folder / "q.yaml").exists()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("form", sorted(set(FORMATS) - set(WITH_TARGETS)))
def test_tools_without_targets_are_rejected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    code, err = poller(monkeypatch, capsys, f"import --from {form} main.yml --targets t.yaml")

    assert code == 2
    assert (
        f"--targets t.yaml: is not possible, because files of {form} contain no connections; remove it" in err
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--targets t.txt", "is not a file that ends in .yaml; write one"),
        ("--targets q.yaml", "is in the folder of the query files"),
        ("--targets ./queries/t.yaml --write queries", "is in the folder of the query files"),
    ],
)
def test_an_unusable_targets_file_is_rejected(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: str,
    problem: str,
) -> None:
    (folder / "queries").mkdir()

    code, err = poller(monkeypatch, capsys, f"import --from sql_exporter main.yml --write q.yaml {options}")

    assert (code, problem in err) == (2, True), err


def test_files_without_a_connection_are_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "main.yml").write_text(MAIN[MAIN.index("collectors:\n") :])

    code, err = poller(monkeypatch, capsys, "import --from sql_exporter main.yml --targets t.yaml")

    assert code == 1
    assert "main.yml:1: not converted: contains no connection of sql_exporter to PostgreSQL; pass the" in err
    assert not (folder / "t.yaml").exists()
