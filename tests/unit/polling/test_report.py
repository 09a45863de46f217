"""Results of a poll, as a table for people and JSON for programs."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from poller.model.errors import PollError
from poller.model.query import MetricDefinition
from poller.model.result import PollResult, Sample, Skip
from poller.model.rows import Column, Rows
from poller.polling.mapping import to_samples
from poller.polling.report import attributes_text, print_table, rejection_lines, to_json
from tests.bed.definitions import a_metric, a_query, a_result

QUERY = a_query("waiting")
METRICS = {"things": a_metric(), "pressure": a_metric("pressure", unit="{[bold]}")}
FAILED = a_result(
    QUERY, outcome="failed", error=PollError("timeout", "too [slow]", sqlstate="57014", hint="be quick")
)
SKIPPED = a_result(
    QUERY, outcome="skipped", skipped=Skip("relation", "relation [x] does not exist"), duration=0.0
)
GOOD = a_result(
    QUERY,
    Sample("things", 1234567, {"state": "queued", "live": True}),
    Sample("things", 2**63 - 1, {"state": "[bold]sent"}),
    duration=1.25,
    rejected={"null": 2},
)


def table(*results: PollResult, metrics: dict[str, MetricDefinition] = METRICS) -> list[list[str]]:
    """Return the rows of the output in a pipe, split at the columns' starts."""
    out = io.StringIO()
    print_table(Console(file=out, width=80), [("", results)], metrics)
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in out.getvalue().splitlines()
    ]


def test_the_table_has_a_line_per_series_and_per_query_without_series() -> None:
    assert table(GOOD, FAILED, SKIPPED) == [
        ["QUERY", "METRIC", "ATTRIBUTES", "VALUE", "UNIT", "DURATION", "STATE"],
        ["waiting", "things", "state=queued live=true", "1234567", "{thing}", "1.2 s", "ok, 2 null"],
        ["waiting", "things", "state=[bold]sent", "9223372036854775807", "{thing}", "1.2 s", "ok, 2 null"],
        ["waiting", "-", "-", "-", "-", "500 ms", "failed(timeout)"],
        ["waiting", "-", "-", "-", "-", "-", "skipped(relation)"],
    ]


def test_the_state_of_a_query_without_series_contains_the_omitted_rows_and_reasons() -> None:
    refused = a_result(QUERY, rejected={"not_a_number": 3, "duplicate": 585})
    assert table(refused)[1][-1] == "ok, 585 duplicate, 3 not_a_number"


@pytest.mark.parametrize(
    ("samples", "rejected", "is_so"),
    [
        ([], {"duplicate": 585}, True),
        ([], {"duplicate": 2, "null": 1}, True),
        ([], {"null": 1}, False),
        ([], {}, False),
        ([Sample("things", 1, {})], {"duplicate": 2}, False),
    ],
)
def test_ignored_rows_do_not_count_as_rejected(
    samples: list[Sample], rejected: dict[str, int], is_so: bool
) -> None:
    """min() over no rows is a single NULL, and `on_null: drop` ignores it."""
    assert a_result(QUERY, *samples, rejected=rejected).all_rejected is is_so


def test_a_unit_in_square_brackets_is_printed_unchanged() -> None:
    assert table(a_result(QUERY, Sample("pressure", 1, {})))[1][4] == "{[bold]}"


def test_a_long_row_is_a_single_line_in_a_pipe() -> None:
    long = "x" * 500
    assert table(a_result(QUERY, Sample("things", 1, {"state": long})))[1][2] == f"state={long}"


def test_an_attribute_cannot_break_the_line_or_control_the_terminal() -> None:
    lines = table(a_result(QUERY, Sample("things", 1, {"a": "x\ny", "b": "\x1b[2J"})))
    assert lines[1][2] == r'a="x\ny" b="\u001b[2J"'
    assert len(lines) == 2


def test_attributes_that_would_be_unclear_are_quoted() -> None:
    assert attributes_text({"a": "x", "b": "Zürich West", "c": "", "d": 3}) == 'a=x b="Zürich West" c="" d=3'


def test_a_terminal_gets_grouped_digits_and_colour() -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True, color_system="standard")
    print_table(console, [("", [GOOD, FAILED])], METRICS)
    assert "1,234,567" in out.getvalue()
    assert "\x1b[32mok" in out.getvalue()
    assert "\x1b[31mfailed" in out.getvalue()


def test_json_is_complete_and_exact() -> None:
    good, failed, skipped = json.loads(to_json([("", [GOOD, FAILED, SKIPPED])], METRICS))["queries"]
    assert good == {
        "query": "waiting",
        "state": "ok",
        "at": "1970-01-01T00:16:40.000Z",
        "duration": 1.25,
        "samples": [
            {
                "metric": "things",
                "type": "gauge",
                "unit": "{thing}",
                "attributes": {"state": "queued", "live": True},
                "value": 1234567,
            },
            {
                "metric": "things",
                "type": "gauge",
                "unit": "{thing}",
                "attributes": {"state": "[bold]sent"},
                "value": 2**63 - 1,
            },
        ],
        "quarantined": {"null": 2},
        "folded": 0,
    }
    assert failed["state"] == "failed"
    assert failed["error"] == {
        "type": "timeout", "sqlstate": "57014", "message": "too [slow]", "hint": "be quick"
    }  # fmt: skip
    assert (skipped["state"], skipped["reason"], skipped["detail"]) == (
        "skipped", "relation", "relation [x] does not exist"
    )  # fmt: skip
    assert "error" not in skipped


@pytest.mark.parametrize(
    ("rows", "expected"), [([None, b""], True), ([None, None], False), ([b"", b"a"], False)]
)
def test_null_and_empty_attributes_that_are_duplicates_are_explained(
    rows: list[bytes | None], expected: bool
) -> None:
    query = a_query(metrics=(a_metric("m", attribute_columns=["c"]),))
    mapped = to_samples(
        query, Rows((Column("n", 20), Column("c", 25)), [(b"1", row) for row in rows]), at=0.0
    )
    result = a_result(query, rejected_rows=mapped.rejected_rows, rejected=mapped.rejected)
    hint = "NULL and '' of c are one series to Prometheus; write coalesce(c, 'none') to distinguish them"
    assert (f"{query.name}: {hint}" in list(rejection_lines(result))) is expected
