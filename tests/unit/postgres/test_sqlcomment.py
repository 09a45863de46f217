"""A comment in its SQL names the running query to the server, and changes nothing else."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pgparse
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.daemon.build import tags
from poller.demo.cluster import Cluster
from poller.model.query import QueryDefinition
from poller.postgres.sqlcomment import VISIBLE_BYTES, commented
from tests.bed.definitions import a_query
from tests.bed.postgres import Database
from tests.bed.process import eventually
from tests.bed.replica import Make
from tests.bed.watch import NAME

NAP = "SELECT count(*) AS n FROM pg_sleep(30)"


def test_keys_are_sorted_and_everything_is_encoded() -> None:
    keys = {"query": "a", "traceparent": "00-ab-cd-01", "app": "it's */ 50%"}
    assert commented("SELECT 1", keys) == (
        "SELECT 1 /*app='it%27s%20%2A%2F%2050%25',query='a',traceparent='00-ab-cd-01'*/"
    )
    assert commented("SELECT 1", {}) == "SELECT 1"


@given(st.text(), st.text())
def test_no_value_can_end_the_comment(key: str, value: str) -> None:
    comment = commented("", {key: value}).strip()  # a comment that is too long precedes the statement
    assert comment.count("/*") == comment.count("*/") == 1
    assert comment.startswith("/*")
    assert comment.endswith("*/")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 -- and no more",
        "-- first\nSELECT 1",
        "/* mine */ SELECT 1 /* too */",
        "SELECT 1;",
        f"SELECT '{'x' * 5000}' -- and no more",
        "/*+ SeqScan(t) */ SELECT 1",
        "/*+ SeqScan(t) */ SELECT 1 -- and no more",
        "/*+ SeqScan(t) */ SELECT 1;",
    ],
)
def test_the_statement_is_the_same_with_and_without_the_comment(sql: str) -> None:
    def parsed(text: str) -> str:
        return str(pgparse.fingerprint(text))

    assert parsed(commented(sql, {"query": "a"})) == parsed(sql)
    assert len(pgparse.parse(commented(sql, {"query": "a"}))) == 1


@pytest.mark.parametrize("size", [950, 1008, 1009, 1010, 5000])
def test_it_is_within_the_visible_part_of_the_statement_and_after_a_hint(size: int) -> None:
    comment = "/*query='a'*/"
    sql = "SELECT 'é" + "x" * (size - 11) + "'"
    assert len(sql.encode()) == size
    visible = commented(sql, {"query": "a"}).encode()[:VISIBLE_BYTES]
    assert comment.encode() in visible
    assert visible.startswith(comment.encode()) is (size > 1009)
    hinted = f"/*+ SeqScan(t) */ {sql}"
    assert commented(hinted, {"query": "a"}) == f"{hinted} {comment}"


@pytest.mark.parametrize(
    ("setting", "expected"), [("off", {}), ("name", {"query": "a"}), ("traceparent", {"query": "a"})]
)
def test_without_a_span_there_is_no_traceparent(setting: str, expected: Mapping[str, str]) -> None:
    assert tags(setting)("a") == expected


def statements_on_standby(database: Database) -> set[str]:
    """Return the statements of the poller that the standby runs in this database."""
    rows = database.ask_standby(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
        f"AND application_name = '{NAME}'"
    )
    return {text for (text,) in rows}


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize("more", ["", "-- and no more", f"-- {'x' * 5000}"], ids=["short", "remark", "long"])
def test_the_server_shows_which_query_runs(
    database: Database, make_replica: Make, snapshot: bool, more: str
) -> None:
    """Even for a statement that is longer than the visible part."""
    replica = make_replica(database.standby_dsn, tags=tags("name"))
    query = a_query("the-one", f"{NAP} {more}", snapshot=snapshot)
    asking = threading.Thread(target=replica.fetch, args=[[query]])
    asking.start()
    try:
        assert eventually(
            lambda: any("/*query='the-one'*/" in sql for sql in statements_on_standby(database))
        )
    finally:
        replica.interrupt()
        asking.join()


def test_the_plan_for_an_estimate_has_the_comment_as_well(
    cluster: Cluster, database: Database, make_replica: Make
) -> None:
    """The estimate as well, in the server's own log of every statement."""
    database.execute(f"ALTER DATABASE {database.name} SET log_statement = 'all'")
    database.replayed()
    replica = make_replica(database.standby_dsn, tags=tags("name"))
    expensive: QueryDefinition = a_query(
        database.name, "SELECT 1 AS n", estimate={"sql": "SELECT 2 AS n", "above_cost": 0.001}
    )
    (answer,) = replica.fetch([expensive])
    assert answer.rows is not None
    assert answer.rows.values == [(b"2",)]

    log = cluster.standby.log_path.read_text()
    assert f"EXPLAIN (FORMAT JSON) SELECT 1 AS n /*query='{database.name}'*/" in log
    assert f"SELECT 2 AS n /*query='{database.name}'*/" in log


def test_the_query_id_of_the_statement_is_unchanged(database: Database) -> None:
    """pg_stat_statements groups by the query id, so that a traceparent creates no new entries."""

    def query_id(sql: str) -> object:
        ((identifier,),) = database.execute(f"SET compute_query_id = on; {sql}")
        return identifier

    own = "SELECT query_id FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    ids = {query_id(commented(own, {"query": "a", "traceparent": f"00-{n:032x}"})) for n in range(3)}
    assert ids == {query_id(own)}
    assert None not in ids
