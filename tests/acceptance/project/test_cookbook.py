"""The eleven queries of the cookbook return the results in their comments, on a standby with all limits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bed.documentation import all_blocks
from tests.bed.postgres import Database
from tests.bed.process import Process

pytestmark = pytest.mark.every_version

(COOKBOOK,) = [block.text for block in all_blocks("file") if block.argument == "cookbook.yaml"]
TABLES = """
CREATE TABLE orders (
    tenant text, customer text, state text, amount numeric, details jsonb,
    created_at timestamptz, paid_at timestamptz);
INSERT INTO orders
    SELECT 'a', 'c' || (n % 6), 'new', 10.25, jsonb_build_object('channel', 'web', 'items', n), now(), now()
    FROM generate_series(1, 20) n
    UNION ALL SELECT 'b', 'c1', 'sent', 0.5, '{"items": 7}', now() - interval '1 day', NULL
    UNION ALL SELECT 'b', 'c1', 'stolen', 1, '{"channel": "web"}', now(), now();
ANALYZE orders;
CREATE TABLE events (at date) PARTITION BY RANGE (at);
CREATE TABLE events_old PARTITION OF events FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
CREATE TABLE events_new PARTITION OF events FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
INSERT INTO events VALUES ('2025-01-01');
"""


@pytest.fixture
def shop(database: Database) -> Database:
    database.execute(TABLES)
    database.replayed()
    return database


class Kitchen:
    """Polls the cookbook and returns the result of each query."""

    def __init__(self, start: Callable[..., Process], folder: Path) -> None:
        self._start = start
        self._file = folder / "cookbook.yaml"
        self._file.write_text(COOKBOOK, encoding="utf-8")
        self.queries: dict[str, Any] = {}

    def poll(self, dsn: str, *arguments: str, costs: str = "") -> dict[str, Any]:
        if costs:
            self._file.write_text(re.sub("above_cost: .*", f"above_cost: {costs}", COOKBOOK))
        process = self._start("poll", "--queries", str(self._file), "--format", "json", *arguments, env={
            "POLLER_DATABASE_URL": dsn, "POLLER_INSTANCE": "test", "POLLER_REQUIRE_STANDBY": "false",
        })  # fmt: skip
        assert process.wait() == 0, str(process)
        self.queries = {query["query"]: query for query in json.loads(process.stdout)["queries"]}
        return self.queries

    def values(self, query: str) -> dict[str, Any]:
        """Return the values of a query by attributes, and by metric if the query has several."""
        samples = self.queries[query]["samples"]
        several = len({sample["metric"] for sample in samples}) > 1
        values = {}
        for sample in samples:
            names = [sample["metric"]] if several else []
            values[" ".join([*names, *sample["attributes"].values()])] = sample["value"]
        return values


@pytest.fixture
def kitchen(poller_process: Callable[..., Process], tmp_path: Path) -> Kitchen:
    return Kitchen(poller_process, tmp_path)


def test_each_query_returns_the_result_in_its_comment(shop: Database, kitchen: Kitchen) -> None:
    queries = kitchen.poll(shop.standby_dsn)

    assert len(queries) == 11
    assert {query["state"] for query in queries.values()} == {"ok"}
    assert kitchen.values("orders_by_customer") == {"c1": 6, "c2": 4, "c0": 3, "other": 9}
    assert 86_400 <= kitchen.values("oldest_unpaid_order")[""] < 2 * 86_400
    assert kitchen.values("unpaid_share") == {"": pytest.approx(1 / 22)}
    assert kitchen.values("orders_by_state") == {"new": 20, "packed": 0, "sent": 1, "returned": 0}
    assert queries["orders_by_state"]["quarantined"] == {"undeclared_value": 1}, (
        "the order with the state stolen"
    )
    assert kitchen.values("orders") == {"": 22}
    assert kitchen.values("order_amounts") == {
        "order_amount_bucket 1": 2,
        "order_amount_bucket 10": 2,
        "order_amount_bucket 100": 22,
        "order_amount_bucket +Inf": 22,
        "order_amount_sum": 206.5,
        "order_amount_count": 22,
    }
    assert kitchen.values("orders_by_channel") == {"web": 210, "": 7}
    assert kitchen.values("orders_by_tenant") == {
        "orders_by_tenant a": 20,
        "orders_by_tenant b": 2,
        "unpaid_amount_by_tenant a": 0,
        "unpaid_amount_by_tenant b": 0.5,
    }
    partitions = kitchen.values("partitions")
    assert partitions.keys() == {"events_old", "events_new"}
    assert partitions["events_old"] > partitions["events_new"] == 0
    sizes = kitchen.values("table_sizes")
    assert list(sizes) == ["public orders", "public events_old", "public events_new"]
    assert sizes["public orders"] > sizes["public events_old"] == partitions["events_old"]


def test_replication_slots_are_exported_for_each_server(shop: Database, kitchen: Kitchen) -> None:
    for dsn, ask in ((shop.primary_dsn, shop.execute), (shop.standby_dsn, shop.ask_standby)):
        rows = ask("SELECT slot_name FROM pg_replication_slots WHERE restart_lsn IS NOT NULL")
        assert kitchen.poll(dsn, "--query", "replication_slots")["replication_slots"]["state"] == "ok"
        assert kitchen.values("replication_slots").keys() == {name for (name,) in rows}


def test_the_estimate_is_used_above_its_cost(shop: Database, kitchen: Kitchen) -> None:
    queries = kitchen.poll(shop.standby_dsn, "--query", "orders", costs="0.001")

    assert (queries["orders"]["state"], queries["orders"]["reason"]) == ("estimated", "cost")
    assert kitchen.values("orders") == {"": 22}
