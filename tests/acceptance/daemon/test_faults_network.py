"""After every fault of the network the tick ends, the fault is logged once, and a later tick recovers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg.conninfo import conninfo_to_dict

from poller.demo.cluster import Cluster
from tests.bed.polled import SKIPPED_TICK, THINGS, Polled, Spell, polling
from tests.bed.proxy import Proxy

GONE = "^replica unavailable, polls will be retried: "
BACK = "^replica available again after "


@pytest.fixture(scope="module")
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    """A proxy between the poller and a standby with the polled tables."""
    cluster.primary.execute("CREATE DATABASE networked")
    cluster.primary.execute(THINGS, "networked")
    cluster.wait_replayed()
    with Proxy(int(conninfo_to_dict(cluster.standby.dsn())["port"] or 0)) as proxy:
        yield proxy
    cluster.primary.execute("DROP DATABASE networked WITH (FORCE)")


@pytest.fixture(scope="module")
def polled(proxy: Proxy, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Polled]:
    """A daemon for all tests; its name distinguishes it from daemons of other tests on the same servers."""
    dsn = proxy.dsn(cluster.standby.dsn("networked") + "?application_name=networked")
    watched = [cluster.primary.dsn(), cluster.standby.dsn()]
    with polling(tmp_path_factory.mktemp("queries"), dsn, watched, name="networked") as polled:
        yield polled


@pytest.fixture
def spell(polled: Polled, proxy: Proxy) -> Iterator[Spell]:
    yield Spell(polled)
    proxy.resume()
    proxy.delay_up = proxy.delay_down = 0.0


def test_a_server_that_refuses_connections(proxy: Proxy, polled: Polled, spell: Spell) -> None:
    polled.after_tick()
    proxy.refuse()
    assert "Connection refused" in spell.said(GONE)["message"]
    spell.counted("pace", "failed", "unavailable", times=2)
    spell.withheld()
    proxy.resume()
    spell.healed()
    spell.recovered(GONE, ends=[BACK])


def test_a_server_that_accepts_and_never_answers(proxy: Proxy, polled: Polled, spell: Spell) -> None:
    with polled.stopped_between_ticks():
        proxy.hang()
        proxy.cut()
    assert "timeout expired" in spell.said(GONE)["message"]
    spell.withheld()
    proxy.resume()
    spell.healed()
    spell.recovered(SKIPPED_TICK, GONE, ends=[BACK])


def test_a_connection_cut_in_the_middle_of_a_result(proxy: Proxy, polled: Polled, spell: Spell) -> None:
    """Results that arrived completely before are stored; an incomplete result is discarded."""
    polled.napping()
    proxy.cut_after(10)
    spell.said(GONE)
    spell.healed()
    spell.recovered(GONE, ends=[BACK])
    failed = {key[0]: n for key, n in spell.more().items() if key[1] != "ok"}
    assert failed == {"nap": 1, "brief": 1, "pace": 1}


def test_a_network_that_drops_everything_while_a_query_runs(
    proxy: Proxy, polled: Polled, spell: Spell
) -> None:
    """The tick ends after the timeout of its query; the server ends the session."""
    polled.napping()
    proxy.hang()
    spell.said(GONE)
    spell.withheld()
    proxy.resume()
    spell.healed()
    # The server keeps the old connection until the network reports the failure.
    spell.recovered(SKIPPED_TICK, GONE, ends=[BACK], connections=2)


def test_a_network_that_drops_everything_between_two_ticks(
    proxy: Proxy, polled: Polled, spell: Spell
) -> None:
    polled.after_tick()
    proxy.hang()
    spell.withheld()
    spell.said(GONE)
    proxy.resume()
    spell.healed()
    spell.recovered(SKIPPED_TICK, GONE, ends=[BACK], connections=2)


def test_a_slow_network_is_not_a_fault(proxy: Proxy, spell: Spell) -> None:
    """A delay of 50 ms in each direction fails no poll; the server's timeouts do not include the delay."""
    proxy.delay_up = proxy.delay_down = 0.05
    spell.counted("pace", "ok", times=3)
    spell.recovered()
    assert {key[1] for key in spell.more()} == {"ok"}
