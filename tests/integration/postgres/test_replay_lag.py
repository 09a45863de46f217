"""Replay lag is correct on an idle primary and on a cut link, unlike both common formulas."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.demo.cluster import Cluster
from poller.postgres.replay_lag import Lag, LagMeter, lag_query
from tests.bed.process import eventually
from tests.bed.proxy import Proxy

pytestmark = pytest.mark.every_version

SINCE_REPLAY = "SELECT extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8"
ZERO_IF_EQUAL = (
    "SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0 "
    "ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END::float8"
)


@dataclass
class Site:
    """A standby that streams through a link that the tests control, and a meter that reads its lag."""

    cluster: Cluster
    link: Proxy
    meter: LagMeter = field(default_factory=LagMeter)

    def lag(self, user: str = "postgres", dsn: str | None = None) -> Lag:
        with psycopg.connect(dsn or self.cluster.standby.dsn(user=user), autocommit=True) as connection:
            row = connection.execute(lag_query().encode()).fetchone()
        assert row is not None
        return self.meter.read(json.dumps(row[0]).encode(), time.monotonic())

    def naive(self, formula: str) -> float:
        ((seconds,),) = self.cluster.standby.execute(formula)
        return float(seconds)

    def commit(self) -> None:
        self.cluster.primary.execute("INSERT INTO things VALUES (0)")

    def synced(self) -> Lag:
        """Wait until every commit is replayed and the standby reports no lag."""
        self.cluster.wait_replayed()
        assert eventually(lambda: self.lag().seconds == 0.0), self.lag()
        return self.lag()


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, pg_bin: Path | None) -> Iterator[Site]:
    if request.config.getoption("--test-dsn"):
        pytest.skip("it would cut the link of the servers of --test-dsn")
    with Cluster(pg_bin) as cluster, Proxy(cluster.primary.port) as link:
        cluster.primary.execute(
            "CREATE TABLE things (n int); CREATE ROLE plain LOGIN; CREATE ROLE watcher LOGIN"
        )
        cluster.primary.execute("GRANT pg_monitor TO watcher")
        cluster.wait_replayed()
        standby = cluster.standby
        ((conninfo,),) = standby.execute("SHOW primary_conninfo")
        parts = [part for part in conninfo.split() if not part.startswith("port=")]
        changed = " ".join([*parts, f"port={link.port}"]).replace("'", "''")
        standby.execute(f"ALTER SYSTEM SET primary_conninfo = '{changed}'")
        standby.execute("SELECT pg_reload_conf()")
        yield Site(cluster, link)


def streams(site: Site) -> bool:
    through = f"status = 'streaming' AND sender_port = {site.link.port}"
    return site.cluster.standby.execute(f"SELECT count(*) FROM pg_stat_wal_receiver WHERE {through}") == [
        (1,)
    ]


@pytest.fixture
def site(shared: Site) -> Iterator[Site]:
    """The pair in working order, with a new meter."""
    shared.meter = LagMeter()
    assert eventually(lambda: streams(shared))
    yield shared
    shared.link.resume()
    shared.cluster.standby.execute("SELECT pg_wal_replay_resume()")
    assert eventually(lambda: streams(shared))


# --- a real pair --------------------------------------------------------------------------------------


def test_an_idle_primary_means_no_lag(site: Site) -> None:
    """`now() - pg_last_xact_replay_timestamp()` includes the idle time."""
    site.commit()
    lag = site.synced()
    before = site.naive(SINCE_REPLAY)
    assert eventually(lambda: site.naive(SINCE_REPLAY) > before + 1.0)
    lag = site.lag()
    assert (lag.seconds, lag.standby, lag.timeline) == (0.0, True, 1)
    assert lag.data_age is not None


def test_the_lag_of_a_cut_link_counts_from_the_last_synchronous_moment(site: Site) -> None:
    """`CASE WHEN receive = replay THEN 0` stays 0, because it ignores WAL that was not received."""
    site.commit()
    site.synced()
    site.link.refuse()
    assert eventually(
        lambda: site.cluster.standby.execute("SELECT count(*) FROM pg_stat_wal_receiver") == [(0,)]
    )
    site.commit()
    first = site.lag()
    assert first.seconds is not None
    assert eventually(lambda: (site.lag().seconds or 0) > (first.seconds or 0) + 0.5)
    assert site.naive(ZERO_IF_EQUAL) == 0.0
    assert "no WAL receiver" in site.lag().why
    site.link.resume()
    assert site.synced().seconds == 0.0


def test_the_lag_of_a_link_cut_before_the_first_reading_counts_from_the_last_commit(site: Site) -> None:
    site.commit()
    site.cluster.wait_replayed()
    site.link.refuse()
    assert eventually(
        lambda: site.cluster.standby.execute("SELECT count(*) FROM pg_stat_wal_receiver") == [(0,)]
    )
    lag = site.lag()
    assert lag.seconds == pytest.approx(site.naive(SINCE_REPLAY), abs=5.0)
    assert lag.why.endswith("since the last replayed transaction")


def test_the_lag_of_a_paused_replay_counts_from_the_first_missing_record(site: Site) -> None:
    site.commit()
    site.synced()
    site.cluster.standby.execute("SELECT pg_wal_replay_pause()")
    assert eventually(lambda: "paused" in site.lag().why)
    assert site.lag().seconds == 0.0, "nothing is missing yet"
    site.commit()
    assert eventually(lambda: (site.lag().seconds or 0) > 0.3)
    assert "replay is paused" in site.lag().why
    site.cluster.standby.execute("SELECT pg_wal_replay_resume()")
    assert site.synced().seconds == 0.0


@pytest.mark.parametrize("user", ["plain", "watcher"])
def test_any_role_can_read_the_lag_and_pg_monitor_shows_more(site: Site, user: str) -> None:
    site.commit()
    site.cluster.wait_replayed()
    assert eventually(lambda: site.lag(user).seconds == 0.0)
    assert (site.lag(user).data_age is None) == (user == "plain")


def test_a_primary_has_no_lag(site: Site) -> None:
    assert site.lag(dsn=site.cluster.primary.dsn()) == Lag(0.0, 0.0, False, 1, "a primary has no replay lag")


def test_the_lag_of_a_standby_that_starts_without_its_primary_is_unknown_until_promotion(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster()
    site = Site(cluster, Proxy(cluster.primary.port))
    try:
        cluster.primary.stop()
        assert eventually(lambda: site.lag().why.startswith("no WAL receiver runs"))
        cluster.standby.restart()
        site.meter = LagMeter()
        assert cluster.standby.execute("SELECT pg_last_xact_replay_timestamp() IS NULL") == [(True,)]
        lag = site.lag()
        assert (lag.seconds, lag.data_age) == (None, None)
        assert lag.why.endswith("its earlier state is unknown")
        cluster.standby.promote()
        promoted = site.lag()
        assert (promoted.seconds, promoted.standby, promoted.timeline) == (0.0, False, 2)
    finally:
        site.link.close()


@pytest.mark.parametrize("user", ["postgres", "watcher", "plain"])
@pytest.mark.parametrize("role", ["primary", "standby"])
def test_a_brief_reading_differs_only_by_its_omissions(site: Site, role: str, user: str) -> None:
    site.synced()
    server = site.cluster.primary if role == "primary" else site.cluster.standby
    whole: dict[str, Any] = {}
    brief: dict[str, Any] = {}

    def unchanged() -> bool:
        """Read the lag in full, briefly and in full; return whether the server wrote no WAL meanwhile."""
        with psycopg.connect(server.dsn(user=user), autocommit=True) as connection:
            rows = [connection.execute(lag_query(brief=b).encode()).fetchone() for b in (False, True, False)]
        answers = [row[0] for row in rows if row is not None]
        for answer in answers:
            answer["receiver"] = answer["receiver"] and {**answer["receiver"], "age": None}
            answer["replay_age"] = None
        whole.update(answers[0])
        brief.update(answers[1])
        return bool(answers[0] == answers[2])

    assert eventually(unchanged)
    omitted = {"system"} | ({"timeline"} if role == "standby" else set())
    assert all(brief[name] is None and whole[name] is not None for name in omitted)
    assert {**brief, **{name: whole[name] for name in omitted}} == whole


def test_after_a_full_reading_a_brief_one_is_enough_unless_the_receiver_is_hidden_or_gone(site: Site) -> None:
    def brief(user: str = "postgres") -> bool:
        site.lag(user=user)
        return site.meter.brief

    site.synced()
    assert [brief(), brief("plain"), brief("watcher")] == [True, False, True]
    site.link.refuse()
    assert eventually(lambda: not brief())


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("60s", 60), ("1min", 60), ("500ms", 0.5), ("0", 0), ("1h", 3600), ("1d", 86400), ("90500", 90.5)],
)
def test_half_of_wal_receiver_timeout_is_read_in_every_unit(site: Site, timeout: str, seconds: float) -> None:
    standby = site.cluster.standby
    standby.execute(f"ALTER SYSTEM SET wal_receiver_timeout = '{timeout}'")
    try:
        standby.execute("SELECT pg_reload_conf()")
        half = "SELECT setting::float8 / 2000 FROM pg_settings WHERE name = 'wal_receiver_timeout'"
        assert eventually(lambda: standby.execute(half) == [(seconds / 2,)])
        assert standby.execute(lag_query())[0][0]["ping"] == seconds / 2
    finally:
        standby.execute("ALTER SYSTEM RESET wal_receiver_timeout")
        standby.execute("SELECT pg_reload_conf()")


# --- recorded answers ---------------------------------------------------------------------------------

STREAMING: dict[str, Any] = {
    "status": "streaming", "heard": True, "age": 0.2, "end": 1000, "timeline": 1
}  # fmt: skip
IN_SYNC: dict[str, Any] = {
    "standby": True, "aurora": False, "aurora_ms": None, "address": "10.0.0.1 5432",
    "started": 1.5, "system": "7", "receiver": STREAMING,
    "ping": 30.0, "received": 1000, "replayed": 1000, "replay_age": 3600.0, "pause": "not paused",
    "timeline": "1",
}  # fmt: skip


def read(meter: LagMeter, now: float, **changes: Any) -> Lag:
    return meter.read(json.dumps({**IN_SYNC, **changes}).encode(), now)


def receiver(**changes: Any) -> dict[str, Any]:
    return {**STREAMING, **changes}


def test_a_link_that_drops_everything_counts_as_cut_after_an_unanswered_ping() -> None:
    meter = LagMeter()
    assert read(meter, 0.0).seconds == 0.0
    assert read(meter, 39.0, receiver=receiver(age=39.0)).seconds == 0.0, (
        "silent, but the ping was sent a moment ago"
    )
    silent = read(meter, 41.0, receiver=receiver(age=41.0))
    assert silent.seconds == pytest.approx(41.0, abs=0.5)
    assert "silent for 41s" in silent.why


def test_a_receiver_that_has_just_connected_does_not_reset_the_lag() -> None:
    meter = LagMeter()
    read(meter, 0.0)
    lag = read(meter, 10.0, receiver=receiver(heard=False, age=0.0))
    assert lag.seconds == pytest.approx(10.2)
    assert "just connected" in lag.why


def test_wal_that_was_written_but_not_received_counts_as_missing() -> None:
    meter = LagMeter()
    read(meter, 0.0)
    lag = read(meter, 5.0, receiver=receiver(end=2000))
    assert lag.seconds == pytest.approx(5.2), "since the last look in sync, the newer reference"
    assert lag.why.endswith("since it was last seen in sync")


def test_after_an_idle_hour_a_transaction_in_transit_counts_from_the_last_reading() -> None:
    meter = LagMeter()
    read(meter, 0.0)
    late = read(meter, 0.1, received=1100, receiver=receiver(end=1100))
    assert late.seconds == pytest.approx(0.3)


def test_the_lag_of_a_slow_replay_is_measured_by_replayed_marks() -> None:
    meter = LagMeter()
    for second in range(10):
        written = 1000 + 100 * second
        read(meter, float(second), received=written, replayed=1000, receiver=receiver(end=written))
    lag = read(meter, 10.0, received=2000, replayed=1500, receiver=receiver(end=2000))
    assert lag.seconds == pytest.approx(10.0 - 4.8), (
        "WAL written at 5 s (less the age of the message) is replayed"
    )


def test_aurora_reports_the_lag_itself() -> None:
    aurora = {
        "aurora": True,
        "receiver": None,
        "received": None,
        "replayed": None,
        "replay_age": None,
        "pause": None,
    }
    assert read(LagMeter(), 0.0, **aurora, aurora_ms="21.5").seconds == pytest.approx(0.0215)
    assert read(LagMeter(), 0.0, **aurora, aurora_ms=None).seconds is None


@pytest.mark.parametrize(
    "change",
    [
        {"address": "10.0.0.2 5432"},
        {"started": 2.5, "system": "8"},
        {"timeline": "2"},
    ],
)
def test_marks_of_another_server_or_timeline_are_discarded(change: dict[str, Any]) -> None:
    meter = LagMeter()
    read(meter, 0.0)
    lag = read(meter, 5.0, receiver=None, replay_age=None, **change)
    assert lag.seconds is None


def test_a_restart_of_the_same_server_discards_no_marks() -> None:
    meter = LagMeter()
    read(meter, 0.0)
    assert read(meter, 5.0, started=2.5, receiver=None, replay_age=None).seconds == pytest.approx(5.2)


def brief(**changes: Any) -> bytes:
    """Return the answer to a brief look."""
    return json.dumps({**IN_SYNC, "system": None, "timeline": None, **changes}).encode()


def test_a_brief_reading_after_a_full_one_gives_the_same_lag() -> None:
    meter = LagMeter()
    whole = read(meter, 0.0)
    assert [LagMeter().brief, meter.brief] == [False, True]
    assert meter.covers(brief())
    assert meter.read(brief(), 0.0) == whole
    missing = brief(received=1100, receiver=receiver(end=1100))
    assert meter.covers(missing)
    assert meter.read(missing, 1.0).seconds == pytest.approx(1.2), "the earlier marks still apply"


@pytest.mark.parametrize(
    "change",
    [
        {"started": 2.5},
        {"address": "10.0.0.2 5432"},
        {"receiver": None},
        {"receiver": receiver(timeline=None)},
    ],
)
def test_another_server_process_and_a_missing_receiver_need_a_full_reading(change: dict[str, Any]) -> None:
    """A pooler may switch to another server; without a receiver the control file is needed."""
    meter = LagMeter()
    read(meter, 0.0)
    assert not meter.covers(brief(**change))


@pytest.mark.parametrize(
    ("change", "enough"),
    [
        ({"standby": False, "receiver": None}, True),
        ({"receiver": None}, False),
        ({"receiver": receiver(timeline=None)}, False),
        ({"aurora": True, "aurora_ms": "20", "receiver": None}, False),
    ],
)
def test_a_reading_is_brief_only_if_it_can_be_enough(change: dict[str, Any], enough: bool) -> None:
    meter = LagMeter()
    read(meter, 0.0)
    read(meter, 1.0, **change)
    assert meter.brief is enough


def test_an_earlier_timeline_of_the_same_server_discards_no_marks() -> None:
    """Without a receiver only the control file has the timeline, and it is updated late."""
    meter = LagMeter()
    assert read(meter, 0.0, receiver=receiver(timeline=2)).timeline == 2
    lag = read(meter, 5.0, receiver=None, replay_age=None)
    assert lag.seconds == pytest.approx(5.2)
    assert lag.timeline == 2


def test_marks_are_ignored_if_the_standby_shows_an_older_state_than_before() -> None:
    meter = LagMeter()
    read(meter, 0.0)
    assert read(meter, 5.0, receiver=None, replayed=900, replay_age=7200.0).seconds == 7200.0


receivers = st.none() | st.builds(
    receiver,
    status=st.sampled_from(["streaming", "starting", "waiting", None]),
    heard=st.booleans(),
    age=st.none() | st.floats(0, 100),
    end=st.none() | st.integers(0, 3000),
    timeline=st.sampled_from([None, 1, 2]),
)
answers = st.builds(
    lambda **fields: {**IN_SYNC, **fields},
    standby=st.booleans(),
    receiver=receivers,
    received=st.none() | st.integers(0, 3000),
    replayed=st.none() | st.integers(0, 3000),
    replay_age=st.none() | st.floats(-5, 1e5),
    pause=st.sampled_from(["not paused", "pause requested", "paused"]),
    timeline=st.sampled_from([None, "1", "2"]),
)


@pytest.mark.slow
@given(st.lists(answers, max_size=20))
def test_a_lag_is_never_negative_and_0_only_if_no_wal_is_missing(
    states: list[dict[str, Any]],
) -> None:
    meter = LagMeter()
    for second, answer in enumerate(states):
        lag = meter.read(json.dumps(answer).encode(), float(second))
        assert lag.seconds is None or lag.seconds >= 0
        if lag.seconds == 0 and lag.standby:
            receiver = answer["receiver"]
            assert receiver is not None
            assert (answer["replayed"] or 0) >= max(answer["received"] or 0, receiver["end"] or 0)
        if lag.seconds is None:
            assert answer["replay_age"] is None
