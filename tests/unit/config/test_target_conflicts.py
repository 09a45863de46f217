"""Queries and targets are validated together, and every problem of both is reported at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from poller.config.load import load_together, open_configuration
from poller.config.load_settings import load as load_settings
from poller.config.queries.load import open_files
from poller.config.settings import Settings
from poller.config.targets.conflicts import unused_targets
from poller.model.errors import ConfigError

TARGETS = """targets:
  - {name: eu-1, url: host=a, tags: [messaging, eu], attributes: {cell.region: eu}}
  - {name: us-1, url: host=b, tags: [messaging]}
"""
SERVER = """targets:
  - {name: tenants, url: host=a, tags: [tenant], databases: {}}
"""


def query(name: str, keys: str = "", metric: str = "") -> str:
    return (
        f"  - name: {name}\n    sql: SELECT 1 AS n\n{keys}"
        f"    metrics: [{{name: {name}, unit: s, description: x, value_column: n{metric}}}]\n"
    )


def settings(folder: Path, queries: str, targets: str | None = TARGETS, **more: str) -> Settings:
    (folder / "q.yaml").write_text(f"queries:\n{queries}", encoding="utf-8")
    environ = {"POLLER_QUERIES": str(folder / "q.yaml"), **more}
    if targets is not None:
        (folder / "t.yml").write_text(targets, encoding="utf-8")
        environ["POLLER_TARGETS"] = str(folder / "t.yml")
    return load_settings(environ)


def problems(folder: Path, queries: str, targets: str | None = TARGETS, **more: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        open_configuration(settings(folder, queries, targets, **more))
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_a_selector_that_matches_no_target_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    queries = query("a", "    targets: [mesaging, '!euu', 'name:eu-*', 'name:ue-1', zzz]\n")
    tags = "tags are: eu, messaging"
    assert problems(tmp_path, queries) == [
        f"q.yaml:4: queries[0].targets[0]: 'mesaging' matches no target; did you mean 'messaging'? {tags}",
        "q.yaml:4: queries[0].targets[1]: '!euu' matches no target; did you mean '!eu'?",
        "q.yaml:4: queries[0].targets[3]: 'name:ue-1' matches no target; did you mean 'name:us-1'?",
        f"q.yaml:4: queries[0].targets[4]: 'zzz' matches no target; {tags}",
    ]


def test_selectors_that_exclude_each_other_are_an_error(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, query("a", "    targets: [eu, '!messaging']\n"))
    assert problem.startswith(
        "q.yaml:4: queries[0].targets: selects no target, because its selectors exclude"
    )


@pytest.mark.parametrize(
    "selector", ["name:tenants/t_*", "name:tenants/t_1", "name:*_42", "name:ten*", "!tenants"]
)
def test_a_selector_may_match_a_database_that_is_not_discovered_yet(tmp_path: Path, selector: str) -> None:
    targets = SERVER.replace("[tenant]", "[tenant, tenants]")
    selectors = f"    targets: ['{selector}']\n"
    if selector.startswith("!"):
        targets += "  - {name: b, url: host=b}\n"
    open_configuration(settings(tmp_path, query("a", selectors), targets))


@pytest.mark.parametrize("selector", ["name:tenats/*", "name:ten", "name:tenants2*", "tenants"])
def test_a_selector_that_can_match_no_database_of_a_server_is_an_error(tmp_path: Path, selector: str) -> None:
    (problem,) = problems(tmp_path, query("a", f"    targets: ['{selector}']\n"), SERVER)
    assert f"'{selector}' matches no target" in problem


ITSELF = "that runs it, because tenants itself only runs queries with once_per_server; write"


@pytest.mark.parametrize(
    ("selector", "once", "message"),
    [
        ("name:tenants", False, f"{ITSELF} name:tenants/* for its databases"),
        ("!name:tenants", False, f"{ITSELF} !name:tenants/* for its databases"),
        ("name:tenants/*", True, "that runs queries with once_per_server; write name:tenants"),
        ("!name:*/t_1", True, "that runs queries with once_per_server; write !name:tenants"),
        ("name:tenants/x", False, "because `databases` of tenants exclude 'x'; remove the selector"),
        ("name:tenants/rdsadmin", False, "because `databases` of tenants exclude 'rdsadmin'; remove"),
    ],
)
def test_a_selector_that_only_matches_targets_on_which_its_query_cannot_run_is_an_error(
    tmp_path: Path, selector: str, once: bool, message: str
) -> None:
    targets = SERVER.replace("{}", "{exclude: [x]}")
    keys = f"    targets: ['{selector}']\n    once_per_server: {str(once).lower()}\n"
    (problem,) = problems(tmp_path, query("a", keys), targets)
    assert f"queries[0].targets[0]: '{selector}' matches no target" in problem
    assert message in problem
    open_configuration(settings(tmp_path, query("a", keys.replace("    targets", "    # ")), targets))


@pytest.mark.parametrize(("selector", "once"), [("name:tenants", True), ("name:tenants/*", False)])
def test_a_query_per_server_selects_the_server_and_any_other_its_databases(
    tmp_path: Path, selector: str, once: bool
) -> None:
    keys = f"    targets: ['{selector}']\n    once_per_server: {str(once).lower()}\n"
    chosen = settings(tmp_path, query("a", keys), SERVER)
    catalog, targets = load_together(open_files([tmp_path / "q.yaml"]), chosen)
    assert list(unused_targets(catalog, targets)) == []


def test_a_number_is_the_tag_of_its_digits(tmp_path: Path) -> None:
    targets = TARGETS.replace("[messaging, eu]", "[messaging, eu, 2024]")
    lines = problems(tmp_path, query("a", "    targets: [2024, 2025, '!2026', 1.5]\n"), targets)
    assert [line.removeprefix("q.yaml:4: queries[0].") for line in lines] == [
        "targets[1]: '2025' matches no target; did you mean '2024'? tags are: 2024, eu, messaging",
        "targets[2]: '!2026' matches no target; did you mean '!2024'?",
        "targets[3]: '1.5' matches no target; tags are: 2024, eu, messaging",
    ]
    keys = "    targets: [2024]\n"
    attribute = ", attribute_columns: [cell.region]"
    (problem,) = problems(tmp_path, query("a", keys, attribute), targets)
    assert "is also an attribute of the target eu-1" in problem


@pytest.mark.parametrize("metric", [", attributes: {cell_region: x}", ", attribute_columns: [cell.region]"])
def test_an_attribute_of_a_target_that_a_selecting_query_also_has_is_an_error(
    tmp_path: Path, metric: str
) -> None:
    key = metric.split()[1].removesuffix(":")
    name = "cell_region" if "cell_region" in metric else "cell.region"
    (problem,) = problems(tmp_path, query("a", metric=metric))
    assert problem == (
        f"q.yaml:4: queries[0].metrics[0].{key}: '{name}' is also an attribute of the target eu-1 "
        "at t.yml:2; rename one"
    )
    open_configuration(settings(tmp_path, query("a", "    targets: ['!eu']\n", metric)))


def test_a_parameter_that_is_also_an_attribute_of_a_target_is_an_error(tmp_path: Path) -> None:
    queries = query("a", "    parameters: {cell_region: [1]}\n")
    (problem,) = problems(tmp_path, queries.replace("1 AS n", ":cell_region AS n"))
    assert problem == (
        "q.yaml:4: queries[0].parameters: 'cell_region' is also an attribute of the target eu-1 "
        "at t.yml:2; rename one"
    )


def test_mistakes_of_queries_targets_and_both_are_reported_at_once(tmp_path: Path) -> None:
    queries = query("a", "    targets: [us]\n    interval: often\n")
    assert [line.partition(": ")[0] for line in problems(tmp_path, queries)] == ["q.yaml:4", "q.yaml:5"]
    broken = TARGETS.replace("host=b", "mysql://b")
    assert [line.partition(": ")[0] for line in problems(tmp_path, queries, broken)] == [
        "q.yaml:5",
        "t.yml:3",
    ]


def test_without_targets_the_database_of_the_settings_is_the_only_target_and_selectors_are_ignored(
    tmp_path: Path,
) -> None:
    queries = query("a", "    targets: [nowhere]\n    once_per_server: true\n")
    database = {"POLLER_DATABASE_URL": "host=h"}
    configuration = open_configuration(settings(tmp_path, queries, None, **database))
    assert [(t.name, t.conninfo()) for t in configuration.targets] == [("", "host=h")]
    (loaded,) = configuration.catalog.queries
    assert (loaded.targets, loaded.once_per_server) == (("nowhere",), True)


def test_a_missing_database_is_reported_together_with_the_mistakes_of_the_queries(tmp_path: Path) -> None:
    lines = problems(tmp_path, query("a", "    interval: often\n"), None)
    assert [line.partition(": ")[0] for line in lines] == ["q.yaml:4", "POLLER_DATABASE_URL"]


@pytest.mark.parametrize("selector", ["'!'", "'a b'", "'name:'", "'!!eu'", "'eu*'", "''", "[eu]"])
def test_a_text_that_is_no_selector_is_an_error(tmp_path: Path, selector: str) -> None:
    (problem,) = problems(tmp_path, query("a", f"    targets: [{selector}]\n"), None, PGHOST="h")
    assert problem.startswith("q.yaml:4: queries[0].targets[0]: ")


def test_a_target_that_no_query_selects_is_a_warning(tmp_path: Path) -> None:
    chosen = settings(tmp_path, query("a", "    targets: [eu]\n"))
    catalog, targets = load_together(open_files([tmp_path / "q.yaml"]), chosen)
    (warning,) = unused_targets(catalog, targets)
    assert str(warning).endswith(
        "t.yml:3: targets[1]: no query selects it; add one of its tags to the queries, or remove the target"
    )
    assert (warning.severity, warning.subject) == ("warning", "us-1")
