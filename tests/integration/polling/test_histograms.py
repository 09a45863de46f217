"""A histogram of a query counts the values of a real server exactly, in each bucket."""

from __future__ import annotations

import json
import math
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from poller.config.queries.load import load
from poller.model.catalog import Defaults
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.polling.poll import poll
from poller.postgres.admission import Admission
from poller.postgres.replica import Replica
from tests.bed.postgres import Database
from tests.bed.replica import Make

pytestmark = pytest.mark.every_version
KINDS = ("a", "b", None)
BOUNDARIES = (-10, 0, 0.1, 2.5, 7, 1e6)
NAN = float("nan")
SPECIAL: dict[str, list[Any]] = {
    "int4": [-(2**31), 2**31 - 1],
    "int8": [-(2**63), 2**63 - 1],
    "float8": [math.inf, -math.inf, NAN, -0.0, 5e-324, math.nextafter(0.1, 1), math.nextafter(7, 0)],
    "numeric": [NAN, Decimal("0.10000000000000001"), Decimal("1e-300")],
}


@pytest.fixture
def replica(database: Database, make_replica: Make) -> Replica:
    return make_replica(database.standby_dsn, admission=Admission("true"))


def declared(folder: Path, *queries: dict[str, Any]) -> tuple[QueryDefinition, ...]:
    """Return the queries of a file; each has one histogram of the column `n`, unless it says otherwise."""
    for query in queries:
        metric = {"name": query["name"], "description": "N.", "unit": "{n}", "value_column": "n"}
        query["metrics"] = [{**metric, "histogram": BOUNDARIES, **query.pop("metric", {})}]
    file = folder / "q.yaml"
    file.write_text(json.dumps({"queries": queries}))
    return load([file], Defaults(300.0, 30.0, 1000)).queries


def values_of(result: PollResult) -> dict[tuple[str, str | None, str | None], float]:
    """Return each value by the suffix of its metric, `kind` and `le`."""
    assert result.outcome == "ok", result.error
    return {
        (
            sample.metric.rpartition("_")[2],
            None if (kind := sample.attributes.get("kind")) is None else str(kind),
            None if (le := sample.attributes.get("le")) is None else str(le),
        ): sample.value
        for sample in result.samples
    }


def literal(value: Any, kind: str) -> str:
    return "NULL" if value is None else f"'{value}'::{kind}"


@pytest.mark.parametrize("kind", SPECIAL)
def test_each_value_is_in_all_buckets_from_its_own_on(replica: Replica, tmp_path: Path, kind: str) -> None:
    """As in Prometheus, a bound belongs to its bucket. NULL counts nowhere, NaN only in +Inf."""
    chance = random.Random(kind)
    integral = kind.startswith("int")
    usual = [value for value in BOUNDARIES if not integral or value == int(value)]
    rows: dict[str, list[tuple[str | None, Any]]] = {}
    for number in range(20):
        ordinary = [*usual, None, *(chance.randint(-20, 20) for _ in range(9))]
        # The sum of a group with NaN or an infinity has no number, so half of the results have none.
        choices = ordinary if number % 2 else [*ordinary, *SPECIAL[kind]]
        drawn = [chance.choice(choices) for _ in range(chance.randint(1, 40))]
        drawn = [int(value) if integral and value is not None else value for value in drawn]
        rows[f"q{number}"] = [(chance.choice(KINDS), value) for value in drawn]
    queries = declared(
        tmp_path,
        *(
            {
                "name": name,
                "sql": "SELECT * FROM (VALUES "
                + ", ".join(f"({literal(group, 'text')}, {literal(value, kind)})" for group, value in members)
                + ") AS v (kind, n); -- the end",
                "metric": {"attribute_columns": ["kind"]},
            }
            for name, members in rows.items()
        ),
    )

    for result in poll(queries, replica):
        expected: dict[tuple[str, str | None, str | None], Any] = {}
        without_sum = 0
        for group in {group for group, _ in rows[result.query.name]}:
            values = [value for of, value in rows[result.query.name] if of == group and value is not None]
            for boundary in BOUNDARIES:
                # As doubles, like the values that a client of Prometheus observes.
                counted = sum(float(value) <= boundary for value in values)
                expected["bucket", group, f"{boundary:g}"] = counted
            expected["bucket", group, "+Inf"] = expected["count", group, None] = len(values)
            total = float(sum(values if integral else map(float, values)))
            if math.isfinite(total):
                expected["sum", group, None] = pytest.approx(total)
            else:
                without_sum += 1
        assert values_of(result) == expected
        assert sum(result.rejected.values()) == without_sum
        assert set(result.rejected) <= {"nan", "infinite"}


def test_a_histogram_of_nothing_is_zero(replica: Replica, tmp_path: Path) -> None:
    """Without rows, with NULL only, and for a declared attribute value without a row."""
    empty, null, absent = poll(
        declared(
            tmp_path,
            {"name": "empty", "sql": "SELECT 1 AS n WHERE false", "metric": {"histogram": [1]}},
            {
                "name": "null",
                "sql": "SELECT 'a' AS kind, NULL::int AS n",
                "metric": {"histogram": [1], "attribute_columns": ["kind"]},
            },
            {
                "name": "absent",
                "sql": "SELECT 'a' AS kind, 1 AS n",
                "metric": {
                    "histogram": [1],
                    "attribute_columns": ["kind"],
                    "attribute_values": {"kind": ["a", "b"]},
                },
            },
        ),
        replica,
    )

    def series(kind: str | None, value: int) -> dict[tuple[str, str | None, str | None], int]:
        keys = (("bucket", kind, "1"), ("bucket", kind, "+Inf"), ("sum", kind, None), ("count", kind, None))
        return dict.fromkeys(keys, value)

    assert values_of(empty) == series(None, 0)
    assert values_of(null) == series("a", 0)
    assert values_of(absent) == series("a", 1) | series("b", 0)
    assert not any(result.rejected for result in (empty, null, absent))


def test_names_that_need_quotes_and_a_row_limit_apply_to_a_histogram(
    replica: Replica, tmp_path: Path
) -> None:
    """The limit counts sets of attributes, of which the first are kept."""
    (result,) = poll(
        declared(
            tmp_path,
            {
                "name": "quoted",
                "sql": 'SELECT g % 3 AS "order", g AS "the ""n""", 1 AS "source"'
                " FROM generate_series(1, 9) g ORDER BY 1 DESC LIMIT 8",
                "max_series": 2,
                "metric": {
                    "value_column": 'the "n"',
                    "attribute_columns": ["order", "source"],
                    "histogram": [4],
                },
            },
        ),
        replica,
    )

    assert result.outcome == "ok", result.error
    counts = {
        (sample.attributes["order"], sample.attributes.get("le")): sample.value
        for sample in result.samples
        if not sample.metric.endswith("_sum")
    }
    assert counts == {
        ("0", "4"): 1, ("0", "+Inf"): 2, ("0", None): 2,
        ("1", "4"): 2, ("1", "+Inf"): 3, ("1", None): 3,
    }  # fmt: skip
    assert result.rejected == {"overflow": 4}
