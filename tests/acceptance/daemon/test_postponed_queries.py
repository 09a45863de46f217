"""A daemon on a real standby postpones slow and failing queries, and expensive queries while it is busy."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import psycopg

from tests.bed.polled import Polled, polling
from tests.bed.postgres import Database
from tests.bed.process import eventually

QUICK = "SELECT 1 AS n"
SLOW = "SELECT 1 AS n FROM pg_sleep(0.4)"
OTHERS = "SELECT pg_sleep(600)"
EXPENSIVE = "SELECT 1 AS n FROM pg_sleep(1.1)"


def reached(polled: Polled, *poll: str, times: int = 1) -> bool:
    return eventually(lambda: polled.polls().get(poll, 0) >= times, 60)


def test_a_slow_query_is_polled_less_often(database: Database, tmp_path: Path) -> None:
    dsn = database.standby_dsn
    queries = {"quick": QUICK, "slow": SLOW}
    with polling(tmp_path, dsn, [dsn], queries=queries, POLLER_MAX_DUTY_CYCLE="20%") as polled:
        assert reached(polled, "slow", "skipped", "duty_cycle", times=2), polled.process
        assert reached(polled, "slow", "ok", times=3), polled.process
        polls = polled.polls()
    assert polls["quick", "ok"] > polls["slow", "ok"]
    assert ("quick", "skipped", "duty_cycle") not in polls


def test_a_query_that_keeps_failing_is_run_less_often_but_never_stops(
    database: Database, tmp_path: Path
) -> None:
    dsn = database.standby_dsn
    with polling(tmp_path, dsn, [dsn], queries={"quick": QUICK, "wrong": "SELECT n FROM later"}) as polled:
        failed = ("wrong", "failed", "rejected", "42P01")
        assert reached(polled, "wrong", "skipped", "breaker", times=4), polled.process
        assert reached(polled, *failed, times=4), "the half-open probe"
        assert polled.polls()["quick", "ok"] > polled.polls()[failed]
        database.execute("CREATE TABLE later AS SELECT 7 AS n")
        assert reached(polled, "wrong", "ok", times=2), polled.process
        assert eventually(lambda: polled.shows("wrong", 7))


def test_an_expensive_query_waits_while_the_server_is_busy(database: Database, tmp_path: Path) -> None:
    dsn = database.standby_dsn
    queries = {"quick": QUICK, "expensive": EXPENSIVE}
    usual = {"interval": "2s", "timeout": "1900ms", "max_age": "1h"}
    with (
        polling(
            tmp_path, dsn, [], queries=queries, fields=dict.fromkeys(queries, usual),
            POLLER_MAX_ACTIVE_BACKENDS="20",
        ) as polled,
        ExitStack() as others,
    ):  # fmt: skip
        assert reached(polled, "expensive", "ok", times=2), "the server is not busy"
        for _ in range(25):
            other = others.enter_context(closing(psycopg.connect(dsn, autocommit=True)))
            other.pgconn.send_query(OTHERS.encode())
        assert reached(polled, "expensive", "skipped", "busy"), polled.process
        quick = polled.polls()["quick", "ok"]
        assert reached(polled, "quick", "ok", times=quick + 1), "a cheap query continues"
        database.ask_standby(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = '{OTHERS}'"
        )
        expensive = polled.polls()["expensive", "ok"]
        assert reached(polled, "expensive", "ok", times=expensive + 1), polled.process


def test_an_expensive_query_is_skipped_and_a_changed_plan_is_reported(
    database: Database, tmp_path: Path
) -> None:
    database.execute(
        """
        CREATE TABLE messages AS SELECT g AS id FROM generate_series(1, 20000) g;
        CREATE UNIQUE INDEX messages_id ON messages (id); ANALYZE messages;
        """
    )
    database.replayed()
    dsn = database.standby_dsn
    queries = {
        "by_index": "SELECT id AS n FROM messages WHERE id = 7",
        "scan": "SELECT sum(id) AS n FROM messages",
    }
    with polling(tmp_path, dsn, [dsn], queries=queries, POLLER_MAX_COST="100") as polled:
        assert reached(polled, "scan", "skipped", "cost", times=2), polled.process
        assert reached(polled, "by_index", "ok", times=2), polled.process
        database.execute("DROP INDEX messages_id")
        assert reached(polled, "by_index", "skipped", "cost", times=2), polled.process
        messages = [str(record["message"]) for record in polled.records()]
    skips = [message for message in messages if "query scan skipped" in message]
    assert len(skips) == 1
    assert skips[0].endswith("is above max_cost 100")
    (change,) = [message for message in messages if "another plan" in message]
    assert change.startswith("query by_index has another plan: Seq Scan on messages instead of Index")
