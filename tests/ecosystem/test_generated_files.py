"""Generated dashboards and rules work in a real Prometheus 3 and VictoriaMetrics."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from tests.acceptance.project import test_alerts as cases
from tests.bed.messaging import MessagingServer
from tests.bed.process import ROOT, Process
from tests.ecosystem.backends import RULES, Backend, Prometheus, environment
from tests.ecosystem.builds import need

Start = Callable[..., Process]

BOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
ALWAYS = {"users_total", "pending_messages_total", "attachments_total_count", "attachments_total_bytes"}
"""Titles of panels that have data in the run below."""


def expressions() -> Iterator[tuple[str, str]]:
    """Yield the title of each panel and each of its expressions, with all values of the variables."""
    for board in BOARDS:
        panels = json.loads(board.read_text(encoding="utf-8"))["panels"]
        panels += [panel for row in panels for panel in row.get("panels", [])]
        for panel in panels:
            for target in panel.get("targets", []):
                yield (
                    panel["title"],
                    target["expr"].replace("$job", ".*").replace("$instance", ".*").replace("$target", ".*"),
                )


def test_every_expression_of_dashboards_and_rules_is_evaluated(
    server: MessagingServer, poller_process: Start, tmp_path: Path, backend: Backend
) -> None:
    poller_process(
        "run", env=environment(server, backend.otlp, tmp_path, POLLER_OTLP_PROTOCOL="http/protobuf")
    )
    backend.wait_for_series("users_total")
    backend.wait_for_series("poller_query_duration_seconds")

    with_data, firing = evaluated(backend)
    assert with_data >= ALWAYS
    assert firing <= {"PollerTicksLeftOut"}, "a healthy poller fires no alert"


def evaluated(backend: Backend) -> tuple[set[str], set[str]]:
    """Evaluate everything; return the titles of the panels with data, and the alerts that would fire."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    with_data = {title for title, expr in expressions() if backend.series(expr)}
    return with_data, {rule["alert"] for rule in rules if backend.series(rule["expr"])}


def test_names_with_dots_hide_the_poller_from_dashboards_and_rules(
    server: MessagingServer,
    poller_process: Start,
    tmp_path: Path,
    start_prometheus: Callable[..., Prometheus],
) -> None:
    """So the documentation says to keep Prometheus' default translation."""
    prometheus = start_prometheus(strategy="NoUTF8EscapingWithSuffixes")
    poller_process(
        "run", env=environment(server, prometheus.otlp, tmp_path, POLLER_OTLP_PROTOCOL="http/protobuf")
    )
    prometheus.wait_for_series("users_total")
    prometheus.wait_for_series('{"poller.query.duration_seconds"}')

    with_data, firing = evaluated(prometheus)
    assert with_data >= ALWAYS
    assert "Age" not in with_data
    assert firing == {"PollerGone"}


def test_an_alert_fires_and_resolves_in_prometheus(
    server: MessagingServer, poller_process: Start, tmp_path: Path
) -> None:
    file = tmp_path / "queries.yaml"
    alert = [{"above": 10, "for": "1s", "summary": "Many: {{ $value }}"}]
    metric = {"name": "items", "unit": "{item}", "description": "Items.", "value_column": "n", "alert": alert}
    query = {"name": "items", "sql": "SELECT count(*) AS n FROM users", "interval": "1s", "metrics": [metric]}
    file.write_text(json.dumps({"queries": [query]}), encoding="utf-8")
    rules = tmp_path / "rules.yaml"
    generated = poller_process("alerts", "--queries", str(file))
    generated.wait()
    rules.write_text(generated.stdout, encoding="utf-8")
    prometheus = Prometheus(tmp_path / "prometheus", rules=rules)
    try:
        variables = environment(server, prometheus.otlp, tmp_path, POLLER_OTLP_PROTOCOL="http/protobuf")
        poller_process("run", env={**variables, "POLLER_QUERIES": str(file)})

        def summaries() -> list[str]:
            alerts = prometheus.api("alerts")["alerts"]
            return [alert["annotations"]["summary"] for alert in alerts if alert["state"] == "firing"]

        assert prometheus.wait_for(summaries) == ["Many: 37"]
        server.execute("DELETE FROM users")
        assert prometheus.wait_for(lambda: not summaries())
    finally:
        prometheus.stop()


PROMETHEUS_3_SUMMARIES = {
    "messages_sent_total grows by 47 in a day": "messages_sent_total grows by 46.98 in a day",
}
"""`increase` extrapolates from one sample less than in Prometheus 2, because a range excludes its start."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", sorted({case.step for case in cases.FIRE}))
def test_each_alert_fires_explains_why_and_resolves_in_prometheus(
    rules: Path, tmp_path: Path, step: int
) -> None:
    file = rule_tests(tmp_path, rules, [case for case in cases.FIRE if case.step == step], step)
    text = file.read_text(encoding="utf-8")
    for before, now in PROMETHEUS_3_SUMMARIES.items():
        text = text.replace(before, now)
    file.write_text(text, encoding="utf-8")

    check_rules(need("promtool"), "test", "rules", str(file))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", sorted({case.step for case in cases.FIRE}))
def test_each_alert_fires_explains_why_and_resolves_in_vmalert(
    rules: Path, tmp_path: Path, step: int
) -> None:
    """vmalert's clock starts in 2000 and the series of the excluded case in 1970; `time()` compares them."""
    possible = [
        case
        for case in cases.FIRE
        if case.step == step
        if not any("last_success" in stored["series"] for stored in case.stored)
    ]
    assert {case.alert for case in possible} == {case.alert for case in cases.FIRE if case.step == step}
    file = rule_tests(tmp_path, rules, possible, step)

    check_rules(need("vmalert-tool"), "unittest", "--disableAlertgroupLabel", f"--files={file}")


def rule_tests(folder: Path, rules: Path, possible: Sequence[cases.Fires], step: int) -> Path:
    groups = [cases.unit_test(*cases.firing_and_resolving(case, rules), step) for case in possible]
    return cases.write_tests(folder, rules, groups, step)


def check_rules(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
