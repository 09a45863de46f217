"""A query with parameters runs once with each combination, and its answer is one result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poller.model.query import MAX_ATTRIBUTE_LENGTH, AttributeValue, QueryDefinition
from poller.model.result import Answer, own_failure
from poller.polling.poll import to_result
from poller.postgres.inspect import inspect
from poller.postgres.replica import Replica
from poller.postgres.transaction import TransactionLimits
from tests.bed.definitions import a_metric, a_query
from tests.bed.postgres import Database

pytestmark = pytest.mark.every_version

NASTY: list[AttributeValue] = [
    "'; DROP TABLE orders; --",
    "it's",
    'say "hi"',
    "$1",
    ":state",
    r"\'",
    "Zoë 🦊 \u202e",
    "",
    "x" * MAX_ATTRIBUTE_LENGTH,
    "two\nlines",
]


@pytest.fixture
def database(database: Database) -> Database:
    database.execute(
        "CREATE TABLE orders (state text, tier int); "
        "INSERT INTO orders SELECT * FROM unnest(ARRAY['queued', 'queued', 'sent'], ARRAY[1, 2, 2])"
    )
    database.replayed()
    return database


COUNT = "SELECT count(*) AS n FROM orders WHERE state = :state AND tier = :tier"


def with_parameters(sql: str = COUNT, metric: Any = None, **parameters: Any) -> QueryDefinition:
    own = {key: parameters.pop(key) for key in list(parameters) if not isinstance(parameters[key], list)}
    return a_query(sql=sql, parameters=parameters, metrics=(a_metric(**metric or {}),), **own)


def samples(answer: Answer) -> list[tuple[dict[str, AttributeValue], int | float]]:
    assert answer.error is None, answer.error
    return [(dict(sample.attributes), sample.value) for sample in to_result(answer).samples]


def fetch(replica: Replica, query: QueryDefinition) -> Answer:
    (answer,) = replica.fetch([query])
    return answer


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_statement_runs_with_each_combination_in_order(replica: Replica, snapshot: bool) -> None:
    query = with_parameters(state=["sent", "queued"], tier=[1, 2], snapshot=snapshot)
    before, answer, after = replica.fetch([a_query("before"), query, a_query("after", "SELECT 2 AS n")])
    assert samples(answer) == [
        ({"state": "sent", "tier": 1}, 0),
        ({"state": "sent", "tier": 2}, 1),
        ({"state": "queued", "tier": 1}, 1),
        ({"state": "queued", "tier": 2}, 1),
    ]
    assert (samples(before), samples(after)) == ([({}, 1)], [({}, 2)]), "the answers match their queries"


def test_a_list_of_combinations_runs_only_those(replica: Replica) -> None:
    sets = [{"state": "queued", "tier": 2}, {"tier": 1, "state": "sent"}]
    answer = fetch(replica, a_query(sql=COUNT, parameters=sets))
    assert samples(answer) == [({"state": "queued", "tier": 2}, 1), ({"state": "sent", "tier": 1}, 0)]


def test_all_runs_see_the_same_snapshot(database: Database, replica: Replica) -> None:
    def write(_: str) -> None:
        database.execute("INSERT INTO orders VALUES ('sent', 2)")
        database.replayed()

    sql = "SELECT count(*) AS n FROM orders, pg_sleep(0.5) WHERE state = :state"
    _, answer = replica.fetch([a_query("first"), with_parameters(sql, state=["queued", "sent"])], write)
    assert [value for _, value in samples(answer)] == [2, 1]


@pytest.mark.parametrize("value", NASTY, ids=ascii)
def test_a_value_is_never_part_of_the_statement(
    database: Database, replica: Replica, value: AttributeValue
) -> None:
    sql = "SELECT octet_length(:state) AS n"
    ((attributes, count),) = samples(fetch(replica, with_parameters(sql, state=[value])))
    assert attributes == {"state": value}
    assert count == len(str(value).encode())
    assert database.execute("SELECT count(*) FROM orders") == [(3,)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False),
        min_size=1,
        unique_by=(lambda value: str(value).lower(), lambda value: value),
    )
)
def test_every_value_arrives_unchanged_and_keeps_its_type(
    replica: Replica, values: list[AttributeValue]
) -> None:
    answer = fetch(replica, with_parameters("SELECT 1 AS n, :v AS echo", v=values))
    assert answer.rows is not None
    assert all(row[1] == row[2] for row in answer.rows.values)
    got = [sample.attributes["v"] for sample in to_result(answer).samples]
    assert [(type(value), value) for value in got] == [(type(value), value) for value in values]


@pytest.mark.parametrize("snapshot", [True, False])
def test_one_failing_combination_fails_the_query_and_is_named(replica: Replica, snapshot: bool) -> None:
    query = with_parameters("SELECT 1 / :divisor::int AS n", divisor=[1, 0, 2], snapshot=snapshot)
    answer, after = replica.fetch([query, a_query("after", "SELECT 2 AS n")])
    assert answer.rows is None
    assert answer.error is not None
    assert (answer.error.sqlstate, answer.error.message) == ("22012", "division by zero (with divisor = 0)")
    assert samples(after) == [({}, 2)]


def test_after_a_failure_the_other_combinations_are_not_run(replica: Replica) -> None:
    """Each would take its whole timeout as well."""
    query = with_parameters(
        "SELECT 1 AS n FROM pg_sleep(:seconds)", seconds=[0, 60, *range(61, 80)], timeout=0.3, interval=60.0
    )
    answer, after = replica.fetch([query, a_query("after")])
    assert answer.error is not None
    assert (answer.error.kind, answer.error.message.rpartition(" (")[2]) == ("timeout", "with seconds = 60)")
    assert samples(after) == [({}, 1)]
    assert own_failure(to_result(answer)), "the circuit breaker counts it"


def test_the_timeout_is_for_each_run_and_the_duration_for_all(replica: Replica) -> None:
    sql = "SELECT 1 AS n FROM pg_sleep(0.4), generate_series(1, :most::int) GROUP BY 1"
    # A server that is silent for 1.1 s counts as dead.
    replica.opener.limits = TransactionLimits(1.0, patience=0.1)
    answer = fetch(replica, with_parameters(sql, most=[1, 2, 3, 4], timeout=1.0))
    assert len(samples(answer)) == 4
    assert answer.duration >= 1.6


def test_runs_that_use_up_the_whole_tick_are_a_timeout_of_their_query(replica: Replica) -> None:
    query = with_parameters(
        "SELECT 1 AS n FROM pg_sleep(0.8), generate_series(1, :most::int) GROUP BY 1",
        most=[1, 2, 3, 4, 5],
        timeout=1.0,
        interval=3.0,
    )
    queries = [query, a_query("after", interval=3.0)]
    late, unreached = replica.fetch(queries)
    assert late.error is not None
    assert late.error.kind == "timeout"
    assert late.error.message.startswith("its 5 runs with parameters took longer than the tick's share")
    assert unreached.skipped is not None
    assert unreached.skipped.reason == "budget"
    assert samples(replica.fetch(queries)[1]) == [({}, 1)], "it runs first in the next tick"


def test_a_wrong_statement_is_reported_at_its_place_in_the_written_sql(replica: Replica) -> None:
    sql = "SELECT count(*) AS n FROM orders WHERE state = :state AND tear = 1"
    answer = fetch(replica, with_parameters(sql, state=["sent"]))
    assert answer.error is not None
    assert answer.error.position == sql.index("tear") + 1
    assert answer.error.message == 'column "tear" does not exist'


def test_a_parameter_without_an_inferred_type_fails_with_the_remedy(replica: Replica) -> None:
    answer = fetch(replica, with_parameters("SELECT 1 AS n, num_nulls(:state) AS x", state=[1]))
    assert answer.error is not None
    assert answer.error.hint == "write the type after the parameter, for example :name::int", answer.error


def test_the_size_of_all_runs_together_is_limited(replica: Replica) -> None:
    replica.opener.limits = TransactionLimits(1.0, max_result_bytes=100_000)
    sql = "SELECT 1 AS n, repeat('x', 1000) AS long FROM generate_series(1, 10) AS s WHERE s > :least::int"
    assert fetch(replica, with_parameters(sql, least=[0])).error is None
    answer = fetch(replica, with_parameters(sql, least=[-n for n in range(20)]))
    assert answer.error is not None
    assert answer.error.kind == "too_large"


def test_the_rows_of_all_runs_together_are_limited(replica: Replica) -> None:
    sql = "SELECT s AS n, 'k' || s AS k FROM generate_series(1, :most::int) AS s ORDER BY s"
    metric = {"attribute_columns": ("k",)}
    answer = fetch(replica, with_parameters(sql, metric, most=[3, 4], max_series=5))
    result = to_result(answer)
    assert [(sample.attributes["most"], sample.value) for sample in result.samples] == [
        (3, 1),
        (3, 2),
        (3, 3),
        (4, 1),
        (4, 2),
    ]
    assert result.rejected == {"overflow": 2}
    query = replace(with_parameters(sql, metric, most=[3, 4], max_series=5), overflow="other")
    folded = fetch(replica, query)
    assert samples(folded)[-1] == ({"k": "other", "most": "other"}, 7)


def test_the_costs_of_all_runs_together_decide_about_the_estimate(replica: Replica) -> None:
    sql = "SELECT x AS n FROM generate_series(1, 1000) AS a(x) WHERE x < :most::int"
    estimate = "SELECT -:most::int AS n"

    def estimated(limit: float, values: list[int]) -> Answer:
        own = {"estimate": {"sql": estimate, "above_cost": limit}}
        return fetch(replica, with_parameters(sql, most=values, **own))

    (plan,) = inspect(
        replica.opener,
        lambda it: it.statements([with_parameters(sql, most=[2]).sql], parameters=[({"most": 2},)]),
    )
    assert plan.cost is not None
    assert estimated(1.5 * plan.cost, [2]).estimated is None
    answer = estimated(1.5 * plan.cost, [2, 3])
    assert answer.estimated == "cost"
    assert samples(answer) == [({"most": 2}, -2), ({"most": 3}, -3)]


def test_an_inspected_statement_has_its_parameters_as_columns(replica: Replica) -> None:
    query = with_parameters(state=["queued", "sent"], tier=[1])
    (inspected,) = inspect(
        replica.opener, lambda it: it.statements([query.sql], parameters=[query.parameters])
    )
    assert [column.name for column in inspected.columns] == ["n", "state", "tier"]
    assert inspected.plan is not None
    assert {scan.relation for scan in inspected.plan.scans} == {("public", "orders")}


def test_declared_values_without_a_row_are_0_in_each_combination(replica: Replica) -> None:
    sql = "SELECT state, count(*) AS n FROM orders WHERE tier = :tier GROUP BY state"
    metric = {"attribute_columns": ("state",), "attribute_values": {"state": ["queued", "sent"]}}
    answer = fetch(replica, with_parameters(sql, metric, tier=[1, 7]))
    assert sorted((str(a["state"]), a["tier"], value) for a, value in samples(answer)) == [
        ("queued", 1, 1),
        ("queued", 7, 0),
        ("sent", 1, 0),
        ("sent", 7, 0),
    ]


def test_a_column_with_the_name_of_a_parameter_is_refused(replica: Replica) -> None:
    sql = "SELECT state, count(*) AS n FROM orders WHERE state = :state GROUP BY state"
    result = to_result(fetch(replica, with_parameters(sql, state=["sent"])))
    assert result.error is not None
    assert result.error.message == (
        "column 'state' has the name of a parameter, which is already an attribute; remove it"
    )
