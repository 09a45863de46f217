"""A histogram of a query file becomes gauges with the names that Prometheus expects."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.config.queries.histogram import le_text
from poller.config.queries.load import load
from poller.config.queries.sql_check import statement_problem
from poller.model.catalog import Defaults
from poller.model.prometheus import metric_name
from tests.unit.config.test_catalog import CATALOGS

FILE = CATALOGS / "valid-histogram.yaml"


def test_a_histogram_is_loaded_as_the_gauges_of_its_buckets_sum_and_count() -> None:
    (query,) = load([FILE], Defaults(300.0, 30.0, 1000, namespace="app")).queries

    assert {(metric.type, metric.attribute_columns, metric.on_null) for metric in query.metrics} == {
        ("gauge", ("kind",), "drop")
    }
    assert [
        (metric.name, metric.unit, metric.value_column, metric.attributes.get("le"))
        for metric in query.metrics
    ] == [
        ("app_message_age_seconds_bucket", "{value}", "age <= -1", "-1"),
        ("app_message_age_seconds_bucket", "{value}", "age <= 0.5", "0.5"),
        ("app_message_age_seconds_bucket", "{value}", "age <= 10", "10"),
        ("app_message_age_seconds_bucket", "{value}", "age <= 1e+06", "1e+06"),
        ("app_message_age_seconds_bucket", "{value}", "count(age)", "+Inf"),
        ("app_message_age_seconds_sum", "s", "sum(age)", None),
        ("app_message_age_seconds_count", "{value}", "count(age)", None),
    ]
    assert all(metric.attributes["env"] == "prod" for metric in query.metrics)
    assert {metric_name(metric.name, metric.unit) for metric in query.metrics} == {
        f"app_message_age_seconds_{suffix}" for suffix in ("bucket", "sum", "count")
    }


def test_the_statement_and_its_estimate_contain_the_written_ones_without_the_semicolon() -> None:
    (query,) = load([FILE], Defaults(300.0, 30.0, 1000)).queries
    assert query.estimate is not None

    assert "FROM (\nSELECT kind, extract(epoch FROM now() - created_at) AS age\nFROM messages\n" in query.sql
    assert "TABLESAMPLE SYSTEM (1)\n" in query.estimate.sql
    assert [statement_problem(sql) for sql in (query.sql, query.estimate.sql)] == [None, None]


@pytest.mark.parametrize(
    "change", [("0.5,", "0.25,"), ("value_column: age", "value_column: size"), ("0.5,", "")]
)
def test_a_change_of_a_histogram_changes_the_digest(change: tuple[str, str], tmp_path: Path) -> None:
    """Values of the previous boundaries are not restored."""
    changed = tmp_path / "changed.yaml"
    changed.write_text(FILE.read_text().replace(*change))
    before, after = (load([file], Defaults(300.0, 30.0, 1000)).queries[0] for file in (FILE, changed))

    assert before.digest != after.digest


@given(st.floats(min_value=-1e300, max_value=1e300))
def test_le_is_exactly_the_boundary(boundary: float) -> None:
    assert float(le_text(boundary)) == boundary


@pytest.mark.parametrize(
    ("boundary", "text"),
    [
        (1.0, "1"), (100.0, "100"), (0.5, "0.5"), (-0.0, "0"), (-2.5, "-2.5"), (123456.0, "123456"),
        (1e6, "1e+06"), (1234567.0, "1.234567e+06"), (0.0001, "0.0001"), (0.00001, "1e-05"),
        (1.5e100, "1.5e+100"), (5.960464477539063e-08, "5.960464477539063e-08"),
    ],
)  # fmt: skip
def test_le_is_written_as_in_go(boundary: float, text: str) -> None:
    assert le_text(boundary) == text
