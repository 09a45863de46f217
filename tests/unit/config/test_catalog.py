"""Every mistake in a query file is reported, with its place and the correct form."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poller.config.queries.files import resolve
from poller.config.queries.load import load
from poller.config.queries.schema.query import DeclaredQuery
from poller.model.catalog import Defaults
from poller.model.diagnostics import Diagnostic, invalid
from poller.model.errors import ConfigError
from poller.model.query import Estimate, QueryDefinition
from tests.bed.golden import Golden
from tests.bed.process import ROOT

CATALOGS = ROOT / "tests" / "catalogs"
DEFAULTS = Defaults(interval=300.0, timeout=30.0, max_series=1000)

MISTAKES = [path.stem.removeprefix("invalid-") for path in sorted(CATALOGS.glob("invalid-*.yaml"))]


def problems(*sources: Path, defaults: Defaults = DEFAULTS) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(sources, defaults)
    return [str(problem) for problem in caught.value.problems]


def lines_of(reason: str) -> list[str]:
    """Return the lines of the golden file of `invalid-<reason>.yaml`, one for each problem."""
    return (CATALOGS / f"invalid-{reason}.txt").read_text(encoding="utf-8").split("\n")[:-1]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def query(name: str, metric: str, *, unit: str = "s", description: str = "x", more: str = "") -> str:
    return (
        f"  - name: {name}\n    sql: SELECT 1 AS n\n{more}    metrics:\n"
        f'      - {{name: {metric}, unit: "{unit}", description: {description}, value_column: n}}\n'
    )


@pytest.mark.parametrize("reason", MISTAKES)
def test_each_mistake_is_reported_as_in_its_golden_file(
    reason: str, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pytest --update` writes `invalid-<reason>.txt`."""
    monkeypatch.chdir(CATALOGS)  # paths are printed unchanged
    lines = problems(Path(f"invalid-{reason}.yaml"))
    golden(CATALOGS / f"invalid-{reason}.txt", "".join(f"{line}\n" for line in lines))


def test_every_golden_file_belongs_to_an_invalid_file() -> None:
    assert MISTAKES
    assert {path.stem for path in CATALOGS.glob("*.txt")} == {f"invalid-{reason}" for reason in MISTAKES}


def test_no_message_is_in_the_words_of_a_library() -> None:
    messages = "\n".join(line for reason in MISTAKES for line in lines_of(reason))
    assert not re.search(
        r"Input should|Value error|pydantic|valid (string|list|tuple)|https?://|None\b", messages
    )


def test_a_folder_reports_the_problems_of_all_its_files_by_file_and_line(tmp_path: Path) -> None:
    reasons = [reason for reason in MISTAKES if not re.match(r"metric-|query-twice|everything", reason)]
    for reason in reasons:
        shutil.copy(CATALOGS / f"invalid-{reason}.yaml", tmp_path)
    reported = problems(tmp_path)
    own = [
        line.replace("invalid-", f"{tmp_path}/invalid-") for reason in reasons for line in lines_of(reason)
    ]
    # The files also declare the same query several times.
    assert [line for line in reported if line in own] == own
    order = [re.match(r"(.*?\.yaml)(?::(\d+))?", line) for line in reported]
    places = [(match[1], int(match[2] or 0)) for match in order if match]
    assert len(places) == len(reported)
    assert places == sorted(places)


def test_a_valid_file_hides_no_problem_of_an_invalid_file(tmp_path: Path) -> None:
    shutil.copy(CATALOGS / "valid-complete.yaml", tmp_path)
    shutil.copy(CATALOGS / "invalid-interval-word.yaml", tmp_path)
    assert problems(tmp_path) == [f"{tmp_path}/{line}" for line in lines_of("interval-word")]


def test_a_name_used_in_two_files_is_reported_with_both_places_even_if_a_query_is_invalid(
    tmp_path: Path,
) -> None:
    write(
        tmp_path,
        a="queries:\n" + query("users", "a", more="    interval: x\n"),
        b="queries:\n" + query("users", "b"),
    )
    assert problems(tmp_path) == [
        f"{tmp_path}/a.yaml:4: queries[0].interval: 'x' is not a duration; write one like 30s, 5m or 1h30m",
        f"{tmp_path}/b.yaml:2: queries[0].name: 'users' is also the query at {tmp_path}/a.yaml:2; rename one",
    ]


def test_a_metric_with_two_units_in_two_files_is_reported_with_both_places(tmp_path: Path) -> None:
    write(tmp_path, a="queries:\n" + query("a", "size"), b="queries:\n" + query("b", "size", unit="By"))
    here = f"{tmp_path}/b.yaml:5: queries[0].metrics[0].unit"
    there = f"{tmp_path}/a.yaml:5"
    difference = f"differs from the unit of 'size' at {there}; write the same, or rename one"
    assert problems(tmp_path) == [f"{here}: {difference}"]


def test_two_queries_may_feed_the_same_metric_with_the_same_meaning(tmp_path: Path) -> None:
    write(tmp_path, a="queries:\n" + query("a", "size"), b="queries:\n" + query("b", "size"))
    catalog = load([tmp_path], DEFAULTS)
    assert list(catalog.metrics) == ["size"]
    assert [item.name for item in catalog.queries] == ["a", "b"]


def test_keys_that_a_query_omits_have_the_defaults() -> None:
    (users,) = load([CATALOGS / "valid-minimal.yaml"], Defaults(60.0, 90.0, 7)).queries
    assert (users.interval, users.timeout, users.max_age, users.max_series) == (60.0, 60.0, 180.0, 7)


def test_max_age_and_timeout_follow_a_declared_interval(tmp_path: Path) -> None:
    write(tmp_path, a="queries:\n" + query("a", "n", more="    interval: 10s\n"))
    (only,) = load([tmp_path], DEFAULTS).queries
    assert (only.interval, only.timeout, only.max_age) == (10.0, 10.0, 30.0)


def test_every_key_of_a_complete_query_is_loaded() -> None:
    (complete,) = load([CATALOGS / "valid-complete.yaml"], DEFAULTS).queries
    assert (complete.interval, complete.timeout, complete.max_age, complete.max_series) == (
        5400.0,
        90.0,
        86400.0,
        1000,
    )
    assert dict(complete.requires.columns) == {"attachments": ("state", "size"), "public.users": ()}
    assert (complete.requires.role, complete.requires.server_version) == ("standby", ">=14, <19")
    assert (complete.requires.extensions, complete.requires.member_of) == (
        ("pg_stat_statements",),
        ("pg_read_all_stats",),
    )
    assert complete.snapshot is False
    assert complete.estimate == Estimate(sql="SELECT 1 AS n", above_cost=1000)
    (metric,) = complete.metrics
    # YAML 1.2, not 1.1: `no` is a string, 007 keeps its zeros and 12:30:00 is not a number of seconds.
    assert metric.attributes == {
        "env": "prod",
        "shard": 3,
        "weight": 0.5,
        "live": True,
        "answer": "no",
        "code": "007",
        "at": "12:30:00",
    }
    assert metric.attributes["live"] is True
    assert metric.type == "updowncounter"
    assert metric.on_null == "zero"
    growth, change = metric.alert
    assert (growth.of, growth.side, growth.limit, growth.for_) == ("daily_growth", "above", 1e4, 3600.0)
    assert (growth.severity, growth.summary, growth.runbook) == (
        "info",
        "It grows.",
        "https://wiki.example/a",
    )
    assert (change.of, change.side, change.limit, change.for_) == ("weekly_change", "below", -0.3, 900.0)
    assert (change.severity, change.summary, change.runbook) == ("warning", None, None)


def test_a_file_opts_its_queries_out_of_the_snapshot_and_a_query_back_in() -> None:
    own, shared = load([CATALOGS / "valid-without-snapshot.yaml"], DEFAULTS).queries
    assert (own.snapshot, shared.snapshot) == (False, True)
    assert own.estimate is not None
    assert own.estimate.above_cost == 1e6


def test_anchors_and_merge_keys_are_resolved_and_explicit_keys_take_precedence() -> None:
    first, second = load([CATALOGS / "valid-anchors.yaml"], DEFAULTS).queries
    assert (first.interval, first.timeout) == (600.0, 60.0)
    assert (second.interval, second.timeout, second.group) == (1200.0, 60.0, "rest")
    assert [metric.value_column for metric in first.metrics] == ["n", "reachable"]
    assert second.metrics[0] == first.metrics[0]


def test_a_problem_of_an_alias_is_reported_at_its_anchor(tmp_path: Path) -> None:
    text = "queries:\n" + query("a", "n", more="    requires: &r\n      role: none\n")
    write(tmp_path, a=text + query("b", "m", more="    requires: *r\n"))
    assert [line.split(": ")[0] for line in problems(tmp_path)] == [f"{tmp_path}/a.yaml:5"] * 2


def test_a_byte_order_mark_and_windows_line_ends_change_nothing() -> None:
    (users,) = load([CATALOGS / "valid-bom-and-crlf.yaml"], DEFAULTS).queries
    assert users.requires.columns == {"users": ()}


def test_the_namespace_is_the_prefix_of_every_metric_but_not_in_messages(tmp_path: Path) -> None:
    namespaced = Defaults(300.0, 30.0, 1000, "obscura")
    catalog = load([CATALOGS / "valid-minimal.yaml"], namespaced)
    assert list(catalog.metrics) == ["obscura_users_total"]
    assert catalog.queries[0].metrics[0].name == "obscura_users_total"
    long = "n" * 250
    write(tmp_path, a="queries:\n" + query("a", long) + query("b", "Bad"))
    too_long, bad = problems(tmp_path, defaults=namespaced)
    difference = "has 258 characters with the namespace 'obscura'; OpenTelemetry allows 255"
    assert too_long == f"{tmp_path}/a.yaml:5: queries[0].metrics[0].name: {difference}"
    assert bad.startswith(f"{tmp_path}/a.yaml:9: queries[1].metrics[0].name: 'Bad' is not a metric name; ")


def test_a_folder_yields_its_yaml_files_in_order_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, b="queries:\n" + query("b", "b"), a="queries:\n" + query("a", "a"))
    (tmp_path / "c.yml").write_text("queries:\n" + query("c", "c"))
    (tmp_path / ".hidden.yaml").write_text("not a query file")
    (tmp_path / "notes.txt").write_text("neither is this")
    write_into = tmp_path / "inner.yaml"
    write_into.mkdir()
    write(write_into, d="queries:\n" + query("d", "d"))
    catalog = load([tmp_path], DEFAULTS)
    assert [path.name for path in catalog.files] == ["a.yaml", "b.yaml", "c.yml"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, a="queries:\n" + query("a", "a"))
    assert len(load([tmp_path, tmp_path / "a.yaml"], DEFAULTS).queries) == 1


def test_each_unreadable_file_is_reported_without_waiting_for_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    (tmp_path / "d.yaml").symlink_to("d.yaml")
    assert problems(tmp_path, tmp_path / "no.yaml") == [
        f"{tmp_path}/a.yaml: cannot be read: No such file or directory",
        f"{tmp_path}/b.yaml: is not a regular file; write a file or a folder",
        f"{tmp_path}/c.yaml:1: is larger than 1 MiB; split it into several files",
        f"{tmp_path}/d.yaml: cannot be read: Too many levels of symbolic links",
        f"{tmp_path}/no.yaml: does not exist; write a folder of query files, or a file",
    ]


def test_a_file_without_permission_is_reported(tmp_path: Path) -> None:
    write(tmp_path, a="")
    (tmp_path / "a.yaml").chmod(0)
    # Root may read every file, unless it drops this capability.
    as_others = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*as_others, sys.executable, "-m", "poller", "check", str(tmp_path)], capture_output=True, text=True
    )
    expected = f"{tmp_path}/a.yaml: cannot be read: Permission denied\n"
    assert (done.returncode, done.stderr) == (2, expected)


def test_the_names_of_shipped_queries_select_the_packaged_folders(tmp_path: Path) -> None:
    write(tmp_path, a="queries:\n" + query("a", "a"))
    shipped, extended, own = resolve(f"shipped:extended: {tmp_path} :")
    assert shipped.name == "queries"
    assert extended == shipped / "extended"
    assert own == tmp_path
    catalog = load([shipped, extended, own], DEFAULTS)
    gauges = {"users_total", "pending_messages_total", "attachments_total_count", "attachments_total_bytes"}
    assert gauges <= set(catalog.metrics)


def test_every_missing_or_empty_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(f"shiped:{tmp_path}")
    missing = "does not exist; write a folder of query files, or a file; did you mean 'shipped'?"
    empty = "contains no query file; add a *.yaml file, or write another folder"
    assert [(problem.where, problem.message) for problem in caught.value.problems] == [
        ("POLLER_QUERIES", f"'shiped' {missing}"),
        ("POLLER_QUERIES", f"'{tmp_path}' {empty}"),
    ]
    with pytest.raises(ConfigError, match="POLLER_QUERIES: is empty"):
        resolve(" : ")


def test_queries_are_selected_by_name_and_pattern_in_the_order_of_the_files(tmp_path: Path) -> None:
    write(tmp_path, a="queries:\n" + query("users", "a") + query("users_new", "b") + query("inbox", "c"))
    catalog = load([tmp_path], DEFAULTS)

    def names(*patterns: str) -> list[str]:
        return [item.name for item in catalog.select(patterns)]

    assert names("inbox", "users*") == ["users", "users_new", "inbox"]
    assert names("*s") == ["users"]
    with pytest.raises(ConfigError) as caught:
        catalog.select(["user", "z*", "users"])
    assert str(caught.value).splitlines() == [
        "--query: 'user' matches no query; did you mean 'users'? there are: inbox, users, users_new",
        "--query: 'z*' matches no query; there are: inbox, users, users_new",
    ]


def load_or_report(path: Path) -> None:
    problems: Sequence[Diagnostic] = ()
    try:
        catalog = load([path], DEFAULTS)
        assert all(isinstance(item, QueryDefinition) for item in catalog.queries)
    except ConfigError as error:
        problems = error.problems or [invalid("nowhere", "a failure without a reason")]
    for problem in problems:
        assert problem.where.startswith(str(path))
        assert "\n" not in str(problem)
        assert len(problem.message) < 1000


KEYS = sorted(
    {*DeclaredQuery.model_fields, "unit", "value_column", "attributes", "on_null", "columns", "<<", "x"}
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["5m", "users", "By"]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=10,
)
QUERIES = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["users", "Users"]) | TREES,
        "sql": st.sampled_from(["SELECT 1 AS n", "TABLE t; COMMIT"]) | TREES,
        "metrics": st.lists(
            st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, TREES)),
            max_size=3,
        )
        | TREES,
    },
    optional={key: TREES for key in KEYS if key not in ("name", "sql", "metrics")},
)
# All examples write into the same folder on purpose; the health check would warn about that.
FUZZ = settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(
    raw=st.binary(max_size=200)
    | st.text(alphabet="abc:-[]{}&*<!|>'\"%@ \n\t#?,0\\", max_size=80).map(str.encode)
)
def test_any_bytes_load_or_are_reported(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(raw)
    load_or_report(path)


@pytest.mark.slow
@FUZZ
@given(data=TREES | st.fixed_dictionaries({"queries": st.lists(QUERIES | TREES, max_size=3)}))
def test_any_structure_loads_or_is_reported(tmp_path: Path, data: object) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8", errors="replace")
    load_or_report(path)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 500_000,
        b"- " * 500_000,
        b"? " * 500_000,
        b"{a: " * 200_000,
        b"a: &a [*a]",
        b"a: " + b"9" * 5000,
    ],
    ids=["lists", "items", "keys", "mappings", "itself", "digits"],
)
def test_hostile_files_are_reported(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(raw)
    load_or_report(path)
