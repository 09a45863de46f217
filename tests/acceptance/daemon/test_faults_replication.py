"""The poller detects outdated data and follows role changes after every fault between primary and standby."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from poller.demo.cluster import Cluster
from tests.bed.polled import THINGS, USUAL, WITHHELD, Polled, Spell, polling
from tests.bed.process import eventually
from tests.bed.proxy import Proxy

pytestmark = pytest.mark.every_version

TOO_FAR = r"^polls skipped: replay lag is .*, the limit is 1s"
CLOSER = "^polling again after "
QUERIES = {name: sql for name, sql in USUAL.items() if name != "nap"}
ROLES = {"of_standby": {"requires": {"role": "standby"}}, "of_primary": {"requires": {"role": "primary"}}}


class Bed:
    """A primary, a standby, and a link between them that the tests control."""

    def __init__(self, cluster: Cluster, link: Proxy) -> None:
        self.cluster = cluster
        self.link = link

    def lengthen(self) -> None:
        """Commit a row on the primary that the standby does not have yet."""
        self.cluster.primary.execute("INSERT INTO things VALUES (0)")

    def follow(self, port: int) -> None:
        """Make the standby stream from this port."""
        standby = self.cluster.standby
        ((before,),) = standby.execute("SHOW primary_conninfo")
        parts = [part for part in before.split() if not part.startswith("port=")]
        conninfo = " ".join([*parts, f"port={port}"]).replace("'", "''")
        standby.execute(f"ALTER SYSTEM SET primary_conninfo = '{conninfo}'")
        standby.execute("SELECT pg_reload_conf()")
        streams = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming' AND sender_port = "
        assert eventually(lambda: standby.execute(f"{streams}{port}") == [(1,)])


@pytest.fixture(scope="module")
def bed(request: pytest.FixtureRequest, pg_bin: Path | None) -> Iterator[Bed]:
    if request.config.getoption("--test-dsn"):
        pytest.skip("it would cut and promote the servers of --test-dsn")
    with Cluster(pg_bin) as cluster, Proxy(cluster.primary.port) as link:
        cluster.primary.execute(THINGS)
        cluster.wait_replayed()
        bed = Bed(cluster, link)
        bed.follow(link.port)
        yield bed


@pytest.fixture(scope="module")
def polled(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Polled]:
    servers = [bed.cluster.primary.dsn(), bed.cluster.standby.dsn()]
    folder = tmp_path_factory.mktemp("queries")
    with polling(
        folder, bed.cluster.standby.dsn(), servers, queries=QUERIES, POLLER_MAX_REPLAY_LAG="1s"
    ) as polled:
        yield polled


def test_replay_is_paused(bed: Bed, polled: Polled) -> None:
    """Polls continue while no WAL is missing; after that the lag grows and polls are skipped."""
    spell = Spell(polled)
    count = polled.value("things")
    bed.cluster.standby.execute("SELECT pg_wal_replay_pause()")
    spell.counted("pace", "ok", times=2)
    bed.lengthen()
    spell.said(TOO_FAR)
    spell.counted("pace", "skipped", "lag", times=2)
    spell.withheld()
    assert polled.value("poller.replica.lag") > 1
    assert polled.value("poller.replica.data_age") > 1
    assert polled.value("poller.replica.standby") == 1
    bed.cluster.standby.execute("SELECT pg_wal_replay_resume()")
    bed.cluster.wait_replayed()
    spell.healed()
    spell.recovered(TOO_FAR, ends=[CLOSER], things=(count, count + 1))
    assert eventually(lambda: polled.value("poller.replica.lag") == 0)
    assert eventually(lambda: polled.value("things") == count + 1)


def test_the_link_to_the_primary_is_cut(bed: Bed, polled: Polled) -> None:
    """The lag grows after the cut, although the standby has nothing to replay: it cannot see missing WAL."""
    spell = Spell(polled)
    count = polled.value("things")
    bed.link.refuse()
    spell.said(TOO_FAR)
    spell.counted("pace", "skipped", "lag", times=2)
    spell.withheld()
    first = polled.value("poller.replica.lag")
    assert eventually(lambda: polled.value("poller.replica.lag") > first)
    bed.lengthen()
    bed.link.resume()
    bed.cluster.wait_replayed()
    spell.healed()
    spell.recovered(TOO_FAR, ends=[CLOSER], things=(count, count + 1))
    assert eventually(lambda: polled.value("poller.replica.lag") == 0)
    assert eventually(lambda: polled.value("things") == count + 1)


def test_a_standby_is_promoted(own_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`requires.role` follows without a restart; POLLER_REQUIRE_STANDBY=true then refuses the server, and
    `warn` logs a warning once."""
    own_cluster.primary.execute(THINGS)
    own_cluster.wait_replayed()
    servers = [own_cluster.primary.dsn(), own_cluster.standby.dsn()]

    def run(name: str, require: str) -> AbstractContextManager[Polled]:
        dsn = own_cluster.standby.dsn() + f"?application_name={name}"
        queries = {**QUERIES, **dict.fromkeys(ROLES, "SELECT 1 AS n")}
        return polling(
            tmp_path_factory.mktemp(name),
            dsn,
            servers,
            queries=queries,
            fields=ROLES,
            name=name,
            POLLER_REQUIRE_STANDBY=require,
        )

    with run("warns", "warn") as warns, run("refuses", "true") as refuses:
        for polled in (warns, refuses):
            assert eventually(partial(polled.shows, "of_standby", 1))
            assert polled.value("of_primary") is None
            assert polled.value("poller.replica.standby") == 1
        timeline = warns.value("poller.replica.timeline")
        own_cluster.standby.promote()
        assert eventually(lambda: warns.value("of_primary") == 1)
        assert eventually(lambda: any(key[0] == "of_standby" and key[-1] == "role" for key in warns.polls()))
        assert eventually(lambda: warns.value("poller.replica.standby") == 0)
        assert warns.value("poller.replica.timeline") == timeline + 1
        assert eventually(lambda: refuses.polls().get(("pace", "skipped", "primary"), 0) >= 3)
        before = warns.value("pace")
        assert eventually(lambda: warns.value("pace") > before)
        assert eventually(lambda: refuses.value("brief") is None and refuses.stale("brief") == 1)
        assert refuses.value("of_primary") is None
        for polled, loud in (
            (
                warns,
                ["of_primary skipped", "this server is a primary", "is a primary now", "of_standby skipped"],
            ),
            (refuses, ["of_primary skipped", "is a primary now", "polls skipped: this server is a primary"]),
        ):
            warned = [r["message"] for r in polled.records() if r["severity"] == "WARNING"]
            messages = [message for message in warned if WITHHELD not in message]
            # A poll at the end of recovery may see the new timeline before the new role.
            messages = [message for message in messages if "follows timeline" not in message]
            assert len(messages) == len(loud), messages
            assert all(any(part in message for message in messages) for part in loud), messages
            assert polled.watch.most == 1
            assert "Traceback" not in polled.process.stderr
