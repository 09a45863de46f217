"""`poller conform` judges the output of OpenTelemetry's SDKs for Go, JavaScript and Rust correctly."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bed.golden import Golden
from tests.bed.process import Process
from tests.ecosystem import scenarios
from tests.ecosystem.backends import SHIPPED
from tests.ecosystem.builds import FOLDER, Program, need
from tests.ecosystem.scenarios import Metrics

pytestmark = pytest.mark.slow

Start = Callable[..., Process]
Conform = Callable[..., tuple[int, list[str]]]

PROGRAMS: dict[str, Program] = {
    "go": "producer-go",
    "javascript": "producer.js",
    "rust": "producer-rust",
}
every_language = pytest.mark.parametrize("language", PROGRAMS)


@pytest.fixture
def conform(poller_process: Start, start_process: Start, tmp_path: Path) -> Conform:
    """Return the exit code of `poller conform` and the lines of its report, without skipped signals."""

    def conform(language: str, metrics: Metrics, protocol: str = "grpc", **env: str) -> tuple[int, list[str]]:
        program = need(PROGRAMS[language])
        ports = ("--grpc-port", "0", "--http-port", "0")
        process = poller_process("conform", *ports, "--require", "all", "--format", "json")
        grpc, http = process.wait_for_line(r"grpc (\S+), http (\S+),").groups()
        producer = start_process(
            [program, scenarios.write(metrics, tmp_path)],
            env={
                "OTEL_EXPORTER_OTLP_ENDPOINT": grpc if protocol == "grpc" else http,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                **env,
            },
        )
        assert producer.wait() == 0, producer
        process.send(signal.SIGINT)
        code = process.wait()
        checks = json.loads(process.stdout)["checks"]
        return code, [_line(check) for check in checks if check["state"] != "skip"]

    return conform


def _line(check: dict[str, Any]) -> str:
    subject = f" {check['subject']}" if "subject" in check else ""
    advice = f" -> {check['advice']}" if check["advice"] else ""
    return f"{check['state']} {check['check']}{subject}: {check['detail']}{advice}"


@pytest.mark.parametrize(
    ("language", "protocol"),
    [
        ("go", "grpc"),
        ("go", "http/protobuf"),
        ("javascript", "grpc"),
        ("javascript", "http/protobuf"),
        ("javascript", "http/json"),
        ("rust", "grpc"),
        ("rust", "http/protobuf"),
    ],
)
def test_a_correct_producer_passes(conform: Conform, language: str, protocol: str) -> None:
    code, report = conform(language, scenarios.catalogue(), protocol)
    assert report == [_all_received(scenarios.catalogue())]
    assert code == 0


@every_language
def test_exponential_histograms_pass(conform: Conform, language: str) -> None:
    metrics = scenarios.catalogue()
    aggregation = "base2_exponential_bucket_histogram"
    code, report = conform(
        language, metrics, OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION=aggregation
    )
    assert report == [_all_received(metrics)]
    assert code == 0


@every_language
def test_each_mistake_is_reported_as_in_the_golden_file(
    conform: Conform, language: str, golden: Golden
) -> None:
    code, report = conform(language, scenarios.with_mistakes(), OTEL_RESOURCE_ATTRIBUTES=scenarios.RESOURCE)
    golden(FOLDER / "producers" / language / "mistakes.txt", "".join(f"{line}\n" for line in report))
    assert code == 1


@every_language
def test_series_above_the_limit_of_the_sdk_are_one_difference(conform: Conform, language: str) -> None:
    code, (difference, summary) = conform(language, scenarios.with_too_many_routes())
    assert difference == (
        "fail too_many_series http_requests_total: has more series than its SDK's limit;"
        " the SDK merges the others into one (2 times) -> limit the values of its attributes"
    )
    assert summary.endswith(", 1 difference")
    assert code == 1


@every_language
def test_delta_temporality_is_a_warning(conform: Conform, language: str) -> None:
    metrics = scenarios.catalogue()
    code, report = conform(language, metrics, OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta")
    *warnings, summary = report
    assert {line.partition(": ")[0] for line in warnings} == {
        f"warn temporality {name}"
        for name, metric in metrics.items()
        if metric["instrument"] in ("counter", "histogram")
    }
    assert summary == _all_received(metrics)
    assert code == 0


def _all_received(metrics: Metrics) -> str:
    """Return the summary of a conforming server: the producers export each series twice."""
    points = 2 * sum(len(metric["series"]) for metric in metrics.values())
    known = len(metrics) + len(SHIPPED)  # the gauges of the daemon's queries are not required
    return f"ok metrics: {len(metrics)} of {known} received in {points} data points, no difference"
