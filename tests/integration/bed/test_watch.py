"""The watch that other tests rely on records connections and idle transactions."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import make_conninfo

from poller.demo.cluster import Cluster
from tests.bed.postgres import Database
from tests.bed.process import eventually
from tests.bed.watch import Watch


def test_it_counts_connections_over_all_servers_and_records_the_maximum(database: Database) -> None:
    primary, standby = database.primary_dsn, database.standby_dsn
    with Watch(primary, standby, name="watched") as watch:
        with (
            psycopg.connect(make_conninfo(primary, application_name="watched")),
            psycopg.connect(make_conninfo(standby, application_name="watched")),
            psycopg.connect(make_conninfo(standby, application_name="another")),
        ):
            assert eventually(lambda: watch.most == 2)
        assert eventually(lambda: watch.now() == [])
        assert watch.most == 2
        watch.reset()
        assert watch.most == 0


def test_it_measures_the_age_of_an_idle_transaction(database: Database) -> None:
    with Watch(database.standby_dsn, name="watched") as watch:
        with psycopg.connect(make_conninfo(database.standby_dsn, application_name="watched")) as connection:
            connection.execute("SELECT 42")
            # A connection counts from the second look on.
            assert eventually(lambda: watch.oldest > 0.2 and watch.most > 0)
        assert watch.most == 1
        assert ("idle in transaction", "SELECT 42") in watch.seen


def test_it_survives_a_restart_of_a_server(own_cluster: Cluster) -> None:
    standby = own_cluster.standby
    with Watch(standby.dsn(), name="watched") as watch:
        for mode in ("fast", "immediate"):
            with psycopg.connect(standby.dsn() + "?application_name=watched"):
                assert eventually(lambda: len(watch.now()) == 1)
                standby.stop(mode)
                assert eventually(lambda: watch.now() == [])
            standby.start()
