"""PostgreSQL settings of a query apply to this query only, under the same safeguards."""

from __future__ import annotations

import pytest

from poller.config.queries.schema.server_settings import ALLOWED
from poller.model.query import QueryDefinition
from poller.polling.poll import to_result
from poller.postgres.replica import Replica
from tests.bed.definitions import a_metric, a_query
from tests.bed.postgres import Database

pytestmark = pytest.mark.every_version

SAFEGUARDS = (
    "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_read_only",
    "transaction_isolation", "standard_conforming_strings", "gin_fuzzy_search_limit", "extra_float_digits",
    "DateStyle", "IntervalStyle", "bytea_output", "client_encoding", "role", "session_authorization",
)  # fmt: skip
TENANTS = """
CREATE SCHEMA tenant_a; CREATE TABLE tenant_a.things AS SELECT 1 AS n;
CREATE SCHEMA "Tenant B"; CREATE TABLE "Tenant B".things AS SELECT 1 AS n FROM generate_series(1, 2);
"""


def reading(name: str, setting: str, **more: object) -> QueryDefinition:
    """Return a query whose attribute is the value of a PostgreSQL setting."""
    sql = f"SELECT 1 AS n, current_setting('{setting}', true) AS value"
    return a_query(name, sql, metrics=(a_metric(name, attribute_columns=["value"]),), **more)


def values(replica: Replica, *queries: QueryDefinition) -> list[str]:
    """Return the value of the setting that each query reads, or its error."""
    answers = [to_result(answer) for answer in replica.fetch(queries)]
    return [
        str(answer.error.message if answer.error else answer.samples[0].attributes["value"])
        for answer in answers
    ]


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_setting_applies_to_its_query_only(replica: Replica, snapshot: bool) -> None:
    queries = [
        reading("before", "work_mem", snapshot=snapshot),
        reading("own", "work_mem", snapshot=snapshot, settings={"work_mem": "77MB", "jit": False}),
        reading("other", "work_mem", snapshot=snapshot, settings={"work_mem": 64}),
        reading("after", "work_mem", snapshot=snapshot),
    ]
    for _ in range(2):  # the second tick uses the same connection
        before, own, other, after = values(replica, *queries)
        assert (own, other) == ("77MB", "64kB")
        assert before == after not in (own, other)


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_setting_that_the_server_refuses_fails_only_its_query_and_is_named(
    replica: Replica, snapshot: bool
) -> None:
    bad = {"work_mem": "77MB", "search_path": "a,,b", "jit": "off"}
    answers = replica.fetch(
        [
            a_query("bad", settings=bad, snapshot=snapshot),
            reading("good", "work_mem", settings={"work_mem": "99MB"}, snapshot=snapshot),
            reading("plain", "work_mem", snapshot=snapshot),
        ]
    )
    error = answers[0].error
    assert error is not None
    assert error.message.startswith('settings.search_path: invalid value for parameter "search_path"')
    assert (error.kind, error.sqlstate, error.setting) == ("rejected", "22023", "search_path")
    assert error.hint is not None
    good, plain = (to_result(answer).samples[0].attributes["value"] for answer in answers[1:])
    assert good == "99MB" != plain


@pytest.mark.parametrize("snapshot", [True, False])
def test_no_allowed_setting_weakens_a_safeguard(database: Database, replica: Replica, snapshot: bool) -> None:
    """Each is set to its lowest and highest value, as far as the server has the setting."""
    known = dict(database.execute("SELECT name, context FROM pg_settings"))
    extremes = [
        {
            name: value
            for name, kind in ALLOWED.items()
            if name in known or "." in name
            for value in [_extreme(name, kind.json, highest)]
        }
        for highest in (False, True)
    ]
    assert {known[name] for name in extremes[0] if name in known} == {"user"}
    assert not {name.lower() for name in SAFEGUARDS} & {name.lower() for name in ALLOWED}
    for guard in SAFEGUARDS:
        plain, lowest, highest = values(
            replica,
            reading("plain", guard, snapshot=snapshot),
            *(
                reading(f"extreme{number}", guard, snapshot=snapshot, settings=settings)
                for number, settings in enumerate(extremes)
            ),
        )
        assert plain == lowest == highest, guard


def _extreme(name: str, json: dict[str, object], highest: bool) -> object:
    match json:
        case {"enum": list(words)}:
            return words[-1 if highest else 0]
        case {"minimum": least, "maximum": most}:
            return most if highest else least
        case {"anyOf": _}:
            return {"work_mem": ("64kB", "1GB")}.get(name, ("8kB", "1TB"))[highest]
    return {"search_path": "pg_temp, public", "TimeZone": "UTC"}[name]


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_search_path_selects_the_tables_of_a_query_and_of_its_estimate(
    database: Database, replica: Replica, snapshot: bool
) -> None:
    """The planner finds the tables as well, so that the costs of a query and its estimate are known."""
    database.execute(TENANTS)
    database.replayed()
    sql = "SELECT count(*) AS n FROM things"
    cheap = {"sql": "SELECT -count(*) AS n FROM things", "above_cost": 1e-6}
    queries = [
        a_query("a", sql, settings={"search_path": "tenant_a"}, snapshot=snapshot),
        a_query("b", sql, settings={"search_path": '"$user", "Tenant B"'}, snapshot=snapshot),
        a_query("c", sql, settings={"search_path": '"Tenant B"'}, estimate=cheap, snapshot=snapshot),
        a_query("d", sql, snapshot=snapshot),
    ]
    answers = replica.fetch(queries)
    assert [answer.rows and answer.rows.values for answer in answers] == [
        [(b"1",)], [(b"2",)], [(b"-2",)], None,
    ]  # fmt: skip
    assert answers[2].estimated == "cost"
    assert answers[3].error is not None
    assert answers[3].error.sqlstate == "42P01"


def test_a_search_path_does_not_affect_the_pollers_own_statements(
    database: Database, replica: Replica
) -> None:
    """Functions and operators of the first schema have the names of those that the poller uses."""
    database.execute(
        """
        CREATE SCHEMA trap;
        CREATE FUNCTION trap.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS 'SELECT 1 / 0';
        CREATE FUNCTION trap.fail(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT 1 / 0 = 1';
        CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.fail);
        """
    )
    database.replayed()
    trapped = {"search_path": "trap, pg_catalog", "work_mem": "77MB"}
    estimate = {"sql": "SELECT 2 AS n", "above_cost": 1e9}
    for snapshot in (True, False):
        answers = replica.fetch(
            [
                a_query("a", settings=trapped, estimate=estimate, snapshot=snapshot),
                a_query("b", settings=trapped, snapshot=snapshot),
            ]
        )
        assert [answer.error for answer in answers] == [None, None]
