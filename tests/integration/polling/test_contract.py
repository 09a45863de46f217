"""Results of a real server become series as the query file declares, without invented numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poller.model.query import QueryDefinition
from poller.polling.poll import poll
from poller.postgres.admission import Admission
from poller.postgres.replica import Replica
from tests.bed.definitions import a_metric, a_query
from tests.bed.postgres import Database
from tests.bed.process import Process
from tests.bed.replica import Make

Start = Callable[..., Process]
MESSAGES = """
CREATE TABLE mail (state text, tenant text, n numeric);
INSERT INTO mail VALUES ('queued', 'a', 5), ('sent', 'b', 'NaN'), ('lost', 'c', 1), ('failed', 'd', NULL);
CREATE TABLE sizes AS SELECT 't' || g AS tenant, g * 10 AS bytes FROM generate_series(1, 9) g;
"""
FILE = """
queries:
  - name: mail
    sql: SELECT state, n FROM mail
    metrics:
      - name: mail
        description: Mail by state.
        unit: "{mail}"
        value_column: n
        attribute_columns: [state]
        attribute_values: {state: [queued, sent, failed, read]}
  - name: sizes
    sql: SELECT tenant, bytes FROM sizes ORDER BY bytes DESC
    max_series: 2
    overflow: other
    metrics:
      - {name: sizes, description: Sizes., unit: By, value_column: bytes, attribute_columns: [tenant]}
  - name: unordered
    sql: SELECT tenant, bytes FROM sizes
    max_series: 2
    metrics:
      - {name: unordered, description: Sizes., unit: By, value_column: bytes, attribute_columns: [tenant]}
"""


@pytest.fixture
def replica(database: Database, make_replica: Make) -> Replica:
    return make_replica(database.primary_dsn, admission=Admission("false"))


@pytest.mark.every_version
def test_rows_that_violate_the_declaration_are_rejected_and_reported(
    database: Database, poller_process: Start, tmp_path: Path
) -> None:
    database.execute(MESSAGES)
    database.replayed()
    (tmp_path / "q.yaml").write_text(FILE)
    process = poller_process(
        "poll", "-v", "--format", "json", "--queries", str(tmp_path),
        env={"POLLER_DATABASE_URL": database.standby_dsn},
    )  # fmt: skip
    assert process.wait() == 0, str(process)
    mail, sizes, unordered = json.loads(process.stdout)["queries"]

    def series(query: dict[str, Any], attribute: str) -> dict[str, int]:
        return {sample["attributes"][attribute]: sample["value"] for sample in query["samples"]}

    assert series(mail, "state") == {"queued": 5, "read": 0}, "no 0 for a value whose row was rejected"
    assert mail["quarantined"] == {"nan": 1, "undeclared_value": 1, "null": 1}
    assert series(sizes, "tenant") == {"t9": 90, "t8": 80, "other": 280}
    assert (sizes["folded"], sizes["quarantined"]) == (7, {})
    assert series(unordered, "tenant") == {"t1": 10, "t2": 20}, "always the first rows by attributes"
    assert unordered["quarantined"] == {"overflow": 7}
    messages = [line for line in process.stderr.splitlines() if ": " in line and not line.startswith("20")]
    assert messages == [
        "mail: omitted from mail (nan): state=sent n=NaN",
        "mail: omitted from mail (undeclared_value): state=lost n=1",
        "mail: omitted from mail (null): state=failed n=NULL",
        "sizes: 7 beyond max_series 2 summed up in `other`",
        "unordered: 7 omitted beyond max_series 2 (overflow)",
    ]


SAMPLES = [
    "", "0", "1", "-1", "2.5", "NaN", "Infinity", "t", "a", "{}", "{1,2}", "[1,2)", "empty", "1 day",
    "infinity", "2026-01-01", "12:30:00", "12:30:00+01", "127.0.0.1", "08:00:2b:01:02:03",
    "08:00:2b:01:02:03:04:05",
    "(1,2)", "((1,2),(3,4))", "{1,-1,0}", "[(0,0),(1,1)]", "<(1,1),2>", "101", "1:2:", "0/16B3748", "$1.50",
    "(0,1)", "\\x00ff", "<a/>", "'x':1", "a & b", "pg_class", "int4", "+", "+(integer,integer)", "abs",
    "abs(integer)", "postgres", "english", "simple", "pg_catalog", "en_US", "C",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "9223372036854775807", "1e400", "1e-400", "99999999999999999999",
]  # fmt: skip
"""Nearly every type of PostgreSQL accepts at least one of these texts."""


@pytest.mark.every_version
def test_a_column_of_every_type_is_an_exact_number_or_counted_as_rejected(
    database: Database, replica: Replica
) -> None:
    """Each type is a value and an attribute, with NULL and with every sample that the type accepts."""
    types: list[str] = [
        name
        for (name,) in database.execute(
            "SELECT format_type(oid, NULL) FROM pg_type WHERE typtype IN ('b', 'r', 'm') AND typisdefined"
        )
    ]
    assert len(types) > 150
    good = 0
    for start in range(0, len(types), 20):
        queries = [
            _of(f"q{number}", f"{_quoted(text)}::{name}")
            for number, (name, text) in enumerate(
                (name, text) for name in types[start : start + 20] for text in [None, *SAMPLES]
            )
        ]
        for result in poll(queries, replica):
            assert result.outcome in ("ok", "failed")
            if result.error is not None:
                # The text is not of this type, or the type is not numeric; no other failure is allowed.
                assert result.error.kind in ("rejected", "mismatch"), result.error.message
                continue
            assert len(result.samples) + sum(result.rejected.values()) == 1
            for sample in result.samples:
                assert type(sample.value) in (int, float)
                assert math.isfinite(sample.value)
                good += 1
    assert good > 30


def _of(name: str, expression: str) -> QueryDefinition:
    return a_query(
        name,
        f"SELECT v AS n, v AS a FROM (SELECT {expression} AS v) AS one",
        metrics=(a_metric(name, attribute_columns=("a",)),),
        interval=3600,
    )


def _quoted(text: str | None) -> str:
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"
