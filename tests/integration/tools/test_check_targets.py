"""`poller check` validates the targets together with the query files, in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from poller.cli.app import app
from poller.config.targets.json_schema import schema
from poller.model.errors import ConfigError

QUERIES = """queries:
  - name: a
    sql: SELECT 1 AS n
    targets: [eu]
    metrics: [{name: a, unit: s, description: x, value_column: n}]
"""
TARGETS = """targets:
  - {name: eu-1, url: host=a, tags: [eu]}
  - {name: us-1, url: host=b}
"""
INVALID = TARGETS.replace("host=b", "'host=b password=hunter2'")
Check = Callable[..., Result]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run `poller check` in a folder with `q.yaml` and `t.yaml`."""

    def run(targets: str, *options: str, queries: str = QUERIES) -> Result:
        monkeypatch.chdir(tmp_path)
        Path("q.yaml").write_text(queries, encoding="utf-8")
        Path("t.yaml").write_text(targets, encoding="utf-8")
        return CliRunner(env={"POLLER_QUERIES": "q.yaml"}).invoke(
            app, ["check", "--targets", "t.yaml", *options]
        )

    return run


@pytest.mark.parametrize(
    ("election", "problem"),
    [
        ("postgresql://u@a,b:5432/d", "names several servers, each with its own locks; name one host"),
        ("postgresql://u@a:5432x/d", "libpq does not understand the connection string"),
        ("postgresql://u@a/d?sslmod=disable", "libpq does not know the parameter sslmod"),
    ],
)
def test_an_election_that_cannot_work_is_an_error(
    check: Check, monkeypatch: pytest.MonkeyPatch, election: str, problem: str
) -> None:
    monkeypatch.setenv("POLLER_LEADER_ELECTION", election)
    done = check(TARGETS)
    assert isinstance(done.exception, ConfigError)
    assert f"POLLER_LEADER_ELECTION: {problem}" in str(done.exception)


def test_targets_are_counted_and_one_without_a_query_is_a_warning(check: Check) -> None:
    done = check(TARGETS)
    warning = "t.yaml:3: targets[1]: no query selects it; add one of its tags to the queries"
    assert warning in done.output
    assert done.output.endswith("1 file, 1 query, 1 metric, 2 targets: 1 warning\n")
    assert done.exit_code == 0


def test_other_query_files_than_the_daemon_s_cause_no_warning(check: Check) -> None:
    assert check(TARGETS, "q.yaml").output == "1 file, 1 query, 1 metric, 2 targets: no problems\n"


def test_mistakes_of_queries_and_targets_are_reported_at_once(check: Check) -> None:
    done = check(INVALID, queries=QUERIES.replace("targets:", "target:"))
    assert isinstance(done.exception, ConfigError)
    places = [str(problem.place) for problem in done.exception.problems]
    assert places == ["q.yaml:4: queries[0].target", "t.yaml:3: targets[1].url"]
    assert "hunter2" not in str(done.exception)


@pytest.mark.parametrize("form", ["json", "github", "sarif"])
def test_every_format_has_the_mistakes_of_targets(check: Check, form: str) -> None:
    done = check(INVALID, "--format", form)
    assert done.exit_code == 2
    assert "hunter2" not in done.output
    if form == "json":
        (problem,) = json.loads(done.stdout)["problems"]
        assert (problem["rule"], problem["file"], problem["line"]) == ("targets-file", "t.yaml", 3)
        assert problem["path"] == "targets[1].url"
    elif form == "github":
        assert done.stdout.startswith(
            "::error file=t.yaml,line=3,col=18,title=poller targets-file::targets[1].url:"
        )
    else:
        (result,) = json.loads(done.stdout)["runs"][0]["results"]
        assert result["ruleId"] == "targets-file"


def test_the_schema_of_targets_files_is_printed(tmp_path: Path) -> None:
    runner, file = CliRunner(), tmp_path / "s.json"
    assert json.loads(runner.invoke(app, ["schema", "--targets"]).stdout) == schema()
    assert runner.invoke(app, ["schema", "--targets", "--write", str(file)]).exit_code == 0
    assert json.loads(file.read_text(encoding="utf-8")) == schema()


def test_a_targets_file_in_place_of_a_query_file_and_the_reverse_are_a_single_problem_each(
    check: Check,
) -> None:
    done = check(QUERIES, queries=TARGETS)
    assert isinstance(done.exception, ConfigError)
    queries, targets = map(str, done.exception.problems)
    text = "is the list of a {} file, not of a {} file; write --{} FILE, or set POLLER_{}"
    assert queries == f"q.yaml:1: targets: {text.format('targets', 'query', 'targets', 'TARGETS')}"
    assert targets == f"t.yaml:1: queries: {text.format('query', 'targets', 'queries', 'QUERIES')}"
