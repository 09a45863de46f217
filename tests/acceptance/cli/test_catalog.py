"""`poller catalog` prints the complete catalogue in three formats, for any namespace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from poller.config.queries.files import resolve
from poller.config.queries.load import load
from poller.events.catalog import GenerationName, declared
from poller.model.catalog import Defaults
from poller.model.errors import ConfigError
from poller.tools.generate.metric_catalog import all_metrics, to_json, to_markdown
from poller.tools.generate.weaver import to_weaver
from tests.bed.metrics_table import table
from tests.bed.process import ROOT

STATE = {"users_total", "pending_messages_total", "attachments_total_count", "attachments_total_bytes"}


def poller(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "poller", "catalog", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def a_folder(tmp_path: Path, metrics: str) -> Path:
    """Create a folder with a query that feeds `metrics`."""
    text = f"queries:\n  - name: mine\n    sql: SELECT 1 AS n, 'x' AS kind, 2 AS m\n    metrics:\n{metrics}"
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def a_metric(name: str, more: str = "") -> str:
    keys = [f"name: {name}", "description: Mine | yours.", "unit: '{thing}'", "value_column: n", more]
    return "      - " + "\n        ".join(filter(None, keys)) + "\n"


def test_the_table_of_the_documentation_is_the_output_of_poller_catalog() -> None:
    assert table() == poller().stdout.strip()


def test_json_contains_every_declared_metric() -> None:
    done = poller("--format", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    by_name = {metric["name"]: metric for metric in report["metrics"]}

    assert report["generation"] == "document"
    assert set(by_name) == STATE | {metric.name for metric in declared().values()}
    assert by_name["users_total"]["source"] == "query users"
    assert by_name["users_total"]["status"] == "polled"
    assert by_name["attachments_uploaded_bytes"]["prometheus"] == "attachments_uploaded_bytes_total"
    sizes = by_name["attachments_upload_size_bytes"]
    assert (sizes["instrument"], sizes["unit"], sizes["boundaries"][0]) == ("histogram", "By", 1024)
    status, route = (
        by_name["messages_sent_total"]["attributes"][0],
        by_name["http_requests_total"]["attributes"][1],
    )
    assert status["values"] == ["success", "failure"]
    assert (route["values"], route["examples"][-1]) == (None, "unmatched")
    assert "clients cannot create series" in route["open"]
    assert by_name["websocket_ack_batch_size"]["tunes"].startswith("WsConfig.ack_batch_size: ")
    assert by_name["messages_sent_total"]["since"] == "v0.3.9"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (
            ["--generation", "v0.9.4"],
            {"obscura_users_total", "obscura_logins_total", "http_server_requests_total"},
        ),
        (["--namespace", "acme"], {"acme_users_total", "acme_messages_sent_total"}),
        (["--generation", "v0.9.4", "--namespace", "acme"], {"acme_users_total", "acme_logins_total"}),
        (["--queries", "shipped:extended"], {"devices_total", "users_total"}),
    ],
)
def test_gauges_and_events_share_a_namespace(arguments: list[str], names: set[str]) -> None:
    done = poller("--format", "json", *arguments)
    assert done.returncode == 0, done.stderr
    assert names <= {metric["name"] for metric in json.loads(done.stdout)["metrics"]}


def test_gauges_of_several_definitions_are_one_metric_with_all_their_attributes(tmp_path: Path) -> None:
    folder = a_folder(
        tmp_path,
        a_metric("things", "attributes: {left: few, n: 1}")
        + a_metric("things", "attributes: {left: many, n: 1}")
        + a_metric("things_by_kind", "attribute_columns: [kind]")
        + a_metric("things.sent", "type: counter"),
    )
    things, by_kind, sent, *_ = all_metrics(load([folder], Defaults(300, 30, 1000)), declared())

    assert {attribute.name: attribute.values for attribute in things.attributes} == {
        "left": ("few", "many"),
        "n": ("1",),
    }
    assert (things.instrument, sent.instrument) == ("gauge", "counter")
    (kind,) = by_kind.attributes
    assert (kind.name, kind.values) == ("kind", ())
    assert "max_series" in kind.open


def test_a_metric_has_the_owners_of_its_queries(tmp_path: Path) -> None:
    file = a_folder(tmp_path, a_metric("things")) / "mine.yaml"
    second = "\n  - name: yours\n    owner: b\n    sql: SELECT 1 AS n\n    metrics:\n"
    file.write_text(
        file.read_text().replace("name: mine", "name: mine\n    owner: a")
        + second
        + a_metric("things", "attributes: {left: many}")
        + a_metric("others")
    )
    report = poller("--queries", str(file), "--format", "json")
    owners = {metric["name"]: metric["owner"] for metric in json.loads(report.stdout)["metrics"]}
    assert (owners["things"], owners["others"], owners["messages_sent_total"]) == ("a, b", "b", None)
    assert "Mine \\| yours. Owner: a, b. | query" in poller("--queries", str(file)).stdout.replace(
        "queries", "query"
    )


@pytest.mark.parametrize("name", ["messages_sent_total", "messages.sent.total"])
def test_a_gauge_may_not_have_an_events_name(tmp_path: Path, name: str) -> None:
    folder = a_folder(tmp_path, a_metric(name) + a_metric("http_requests_total"))
    with pytest.raises(ConfigError) as refused:
        all_metrics(load([folder], Defaults(300, 30, 1000)), declared())
    assert [str(problem) for problem in refused.value.problems] == [
        f"query mine: {metric}: has the name of the event {event}; rename it, or set another POLLER_NAMESPACE"
        for metric, event in [(name, "messages_sent_total"), ("http_requests_total", "http_requests_total")]
    ]


def test_invalid_query_files_are_reported_with_exit_code_2(tmp_path: Path) -> None:
    done = poller("--queries", str(a_folder(tmp_path, a_metric("Bad"))))
    assert done.returncode == 2
    assert "'Bad' is not a metric name" in done.stderr
    assert poller("--generation", "v1").returncode == 2


# --- Weaver -------------------------------------------------------------------------------------------

LEVELS = {"required", "recommended", "opt_in"}
STABILITIES = {"stable", "development", "alpha", "beta", "release_candidate"}


@pytest.mark.parametrize("generation", ["document", "v0.9.4"])
def test_the_registry_for_weaver_is_valid(generation: GenerationName) -> None:
    """The rules of semconv-syntax.md, version 1; both files also pass Weaver's own JSON schema."""
    metrics = all_metrics(load(resolve("shipped:extended"), Defaults(300, 30, 1000)), declared(generation))
    groups: list[dict[str, Any]] = yaml.safe_load(to_weaver(metrics))["groups"]
    ids = [group["id"] for group in groups]
    shared = {attribute["id"] for attribute in groups[0]["attributes"]}

    assert len(set(ids)) == len(ids)
    assert groups[0]["type"] == "attribute_group"
    assert {group["metric_name"] for group in groups[1:]} == {metric.name for metric in metrics}
    for attribute in groups[0]["attributes"]:
        check_definition(attribute)
    for group in groups[1:]:
        assert group["type"] == "metric"
        assert group["instrument"] in {"counter", "updowncounter", "histogram", "gauge"}
        assert isinstance(group["unit"], str)
        assert group["brief"]
        assert group["stability"] in STABILITIES
        names = [attribute.get("ref", attribute.get("id")) for attribute in group.get("attributes", ())]
        assert len(set(names)) == len(names)
        for attribute in group.get("attributes", ()):
            assert attribute["requirement_level"] in LEVELS
            if "ref" in attribute:
                assert attribute["ref"] in shared
            else:
                assert attribute["id"] not in shared
                check_definition(attribute)


def check_definition(attribute: dict[str, Any]) -> None:
    assert attribute["brief"]
    assert attribute["stability"] in STABILITIES
    if attribute["type"] == "string":
        assert all(isinstance(example, str) for example in attribute["examples"])
        assert attribute["examples"]
        return
    members = attribute["type"]["members"]
    assert members
    assert len({member["id"] for member in members}) == len(members)
    for member in members:
        assert member["id"].isidentifier()
        assert isinstance(member["value"], str)
        assert member["stability"] in STABILITIES


def test_the_registry_for_weaver_has_values_boundaries_and_prometheus_names() -> None:
    done = poller("--format", "weaver")
    assert done.returncode == 0, done.stderr
    groups = {group["id"]: group for group in yaml.safe_load(done.stdout)["groups"]}
    sent = groups["metric.messages_sent_total"]
    (status,) = sent["attributes"]

    assert [member["value"] for member in status["type"]["members"]] == ["success", "failure"]
    assert groups["metric.health_status"]["attributes"] == [
        {"ref": "component", "requirement_level": "required"}
    ]
    sizes = groups["metric.attachments_upload_size_bytes"]["annotations"]
    assert sizes["obscura"]["boundaries"][:2] == [1024, 4096]
    assert sizes["code_generation"] == {"metric_value_type": "int"}
    uploaded = groups["metric.attachments_uploaded_bytes"]["annotations"]["obscura"]
    assert uploaded["prometheus"] == "attachments_uploaded_bytes_total"
    assert "Tunes WsConfig" in groups["metric.websocket_ack_batch_size"]["note"]


def test_a_pipe_in_a_description_does_not_start_a_new_cell(tmp_path: Path) -> None:
    metrics = all_metrics(load([a_folder(tmp_path, a_metric("things"))], Defaults(300, 30, 1000)), declared())
    row = to_markdown(metrics).splitlines()[2]
    assert row == "| `things` | gauge, `{thing}` | - | Mine \\| yours. | query mine | polled |"
    assert json.loads(to_json(metrics, "document"))["metrics"][0]["description"] == "Mine | yours."
