"""The databases of a real server become targets, and leave when the server has them no more."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from poller.config.load_settings import load
from poller.config.targets.schema import DeclaredTarget
from poller.daemon.discovery_poller import DiscoveryPoller
from poller.daemon.scheduler import PollScheduler
from poller.daemon.server_queues import QueueConfig
from poller.daemon.shard_targets import ShardTargets
from poller.daemon.target_factory import TargetFactory
from poller.daemon.target_poller import TargetPoller
from poller.daemon.target_pollers import TargetPollers
from poller.demo.cluster import wait_replayed
from poller.model.catalog import Catalog, Configuration
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.retry import RetryConfig
from poller.model.shards import Shard, owner_of
from poller.model.target import Databases, Target
from poller.postgres.conninfo import server_of
from poller.postgres.database_list import DatabaseList
from poller.receiver.decode import Point
from poller.receiver.ports import LOOPBACK, free_ports
from poller.receiver.receiver import Receiver
from tests.bed.definitions import a_query
from tests.bed.postgres import Site
from tests.bed.process import Process, eventually
from tests.bed.volume import replace as replace_file

# Not by name: while a standby replays a renaming, current_database() is newer than the snapshot.
QUERY = a_query("oid", "SELECT datid AS n FROM pg_stat_activity WHERE pid = pg_backend_pid()", interval=1.0)
LONG = replace(QUERY, max_age=3600.0)
ONCE = a_query("databases", "SELECT count(*) AS n FROM pg_database", interval=1.0, once_per_server=True)
SOON, NEVER = 0.3, 3600.0


class Server:
    """Databases with a common prefix on a primary; a standby follows it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.prefix = f"d{uuid.uuid4().hex[:8]}_"
        self._roles: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for (name,) in self.execute("SELECT datname FROM pg_database WHERE starts_with(datname::text, %s)"):
            database = sql.Identifier(name)
            self.run(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(database))
            self.run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))
        for role in self._roles:
            self.run(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.site.primary, autocommit=True) as connection:
            return connection.execute(statement.encode(), (self.prefix,)).fetchall()

    def run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.site.primary, autocommit=True) as connection:
            connection.execute(statement)

    def do(self, statement: str, *names: str, **texts: str) -> None:
        """Run a statement on databases, given without their prefix; wait until the standby has it."""
        identifiers = [sql.Identifier(self.prefix + name) for name in names]
        others = {key: sql.Identifier(text) for key, text in texts.items()}
        self.run(sql.SQL(statement).format(*identifiers, **others))
        if self.site.standby is not None:
            with psycopg.connect(self.site.primary, autocommit=True) as connection:
                row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
            assert row is not None
            wait_replayed(self.site.standby, row[0], 60.0)

    def create(self, *names: str) -> None:
        for name in names:
            self.do("CREATE DATABASE {}", name)

    def role(self) -> str:
        """Create a role that is no superuser; return its name."""
        name = f"{self.prefix}role"
        self._roles.append(name)
        self.do("CREATE ROLE {role} LOGIN", role=name)
        return name

    def target(self, dsn: str = "", **fields: Any) -> Target:
        """Return a target for all databases with the prefix."""
        target = DeclaredTarget.model_validate(
            {"name": "s", "url": "host=h", "require_standby": "false", "connect_timeout": "60s"}
        ).definition()
        databases = {"include": (f"{self.prefix}*",), "refresh": SOON, "forget": NEVER, **fields}
        url = dsn or self.site.primary
        return replace(target, url=type(target.url)(url), databases=Databases(**databases))  # type: ignore[misc]


class Bed:
    """The daemon's objects and what the collector receives from them."""

    def __init__(
        self,
        receiver: Receiver,
        folder: Path,
        state: Path | None = None,
        shard: Shard | None = None,
        **settings: str,
    ) -> None:
        self.receiver = receiver
        self._closed = False
        targets = folder / "targets.yaml"
        targets.write_text("targets: []")
        self.factory = TargetFactory(
            load(
                {
                    "POLLER_TARGETS": str(targets),
                    "OTEL_TRACES_EXPORTER": "none",
                    "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
                    "POLLER_EXPORT_INTERVAL": "200ms",
                    "POLLER_MAX_DUTY_CYCLE": "100%",
                    **({"POLLER_STATE_DIR": str(state)} if state else {}),
                    **settings,
                }
            ),
            daemon=True,
        )
        self.scheduler = PollScheduler(
            QueueConfig(workers=4), refusal_retry=RetryConfig(first_pause=0.5, longest_pause=1.0)
        )
        self.pollers = TargetPollers(self.factory, self.scheduler, ShardTargets(shard))

    def apply(self, *targets: Target, queries: Sequence[QueryDefinition] = (LONG, ONCE)) -> None:
        self.pollers.apply(Configuration(Catalog(tuple(queries), ()), targets))

    def names(self) -> set[str]:
        return {poller.name for poller in self.pollers}

    def polls(self, *names: str) -> bool:
        """Wait until these targets, and no others, are polled, apart from that of the server."""
        expected = {"s", *(f"s/{name}" for name in names)}
        return eventually(lambda: self.names() == expected)

    def points(self, metric: str) -> dict[str, Point]:
        """Return the newest points of a metric, by the name of their target."""
        requests = self.receiver.requests()
        points = requests[-1].points() if requests else []
        return {
            str(point.resource["service.instance.id"]): point for point in points if point.metric == metric
        }

    def values(self, metric: str = "oid") -> dict[str, Any]:
        return {name.removeprefix("s/"): point.value for name, point in self.points(metric).items()}

    def refreshed(self, times: int) -> None:
        """Wait until the list was read `times` more times."""
        discoveries = self.discoveries().get("ok", 0)
        assert eventually(lambda: self.discoveries().get("ok", 0) >= discoveries + times)

    def discoveries(self) -> dict[str, Any]:
        """Return the number of reads of the list by outcome."""
        return self._newest("poller.discoveries", "poller.outcome")

    def counts(self) -> dict[str, Any]:
        """Return the number of databases by state."""
        return self._newest("poller.discovery.databases", "poller.state")

    def _newest(self, metric: str, attribute: str) -> dict[str, Any]:
        requests = self.receiver.requests()
        points = requests[-1].points() if requests else []
        return {str(point.attributes[attribute]): point.value for point in points if point.metric == metric}

    def stored(self) -> set[str]:
        """Return the targets with stored values."""
        state = self.factory._state  # noqa: SLF001 - there is no other way to see the rows
        assert state is not None
        rows = state.run(lambda db: db.execute("SELECT DISTINCT target FROM value").fetchall())
        return {name.decode() for (name,) in rows or ()}

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.scheduler.stop(self.factory.interrupt, 10.0)
        for poller in self.pollers:
            poller.retire()
        self.factory.telemetry.shutdown(5.0)
        if self.factory.exporter is not None:
            self.factory.exporter.shutdown(5.0)
        if self.factory._state is not None:  # noqa: SLF001 - otherwise it stays open until the process ends
            self.factory._state.close()  # noqa: SLF001


@pytest.fixture
def server(site: Site) -> Iterator[Server]:
    with Server(site) as server:
        yield server


@pytest.fixture
def make_bed(tmp_path: Path) -> Iterator[Callable[..., Bed]]:
    with contextlib.ExitStack() as stack:

        def make(*targets: Target, queries: Sequence[QueryDefinition] = (LONG, ONCE), **settings: Any) -> Bed:
            receiver = stack.enter_context(Receiver(keep=100))
            bed = Bed(receiver, tmp_path, **settings)
            stack.callback(bed.close)
            bed.apply(*targets, queries=queries)
            bed.scheduler.start()
            return bed

        yield make


def test_each_database_that_passes_the_patterns_is_polled_with_an_identity_of_its_own(
    server: Server, make_bed: Callable[..., Bed]
) -> None:
    server.create("a", "b", "b_test", "closed", "model")
    server.do("ALTER DATABASE {} ALLOW_CONNECTIONS false", "closed")
    server.do("ALTER DATABASE {} IS_TEMPLATE true", "model")
    p = server.prefix
    bed = make_bed(replace(server.target(exclude=("*_test",)), attributes={"region": "eu"}))
    assert bed.polls(f"{p}a", f"{p}b")
    assert eventually(lambda: bed.values().keys() == {f"{p}a", f"{p}b"})
    point = bed.points("oid")[f"s/{p}a"]
    assert point.resource["db.namespace"] == f"{p}a"
    assert point.attributes["region"] == "eu"
    assert eventually(lambda: bed.values("poller.target.up") == {"s": 1, f"{p}a": 1, f"{p}b": 1})
    # A query per server runs in the server's own target only, and all other queries run elsewhere.
    assert eventually(lambda: bed.values("databases").keys() == {"s"})
    counts = bed.counts()
    assert counts["polled"] == 2
    assert counts["excluded"] >= 2, "b_test and postgres"


def test_a_server_on_which_no_query_runs_is_up_or_down_by_its_list_of_databases(
    server: Server, make_bed: Callable[..., Bed]
) -> None:
    server.create("a")
    p = server.prefix
    (closed,) = free_ports(1)
    dead = replace(server.target(f"host={LOOPBACK} port={closed} dbname=x"), name="dead")
    bed = make_bed(server.target(), dead, queries=[LONG])
    assert eventually(lambda: bed.values("poller.target.up") == {"s": 1, f"{p}a": 1, "dead": 0})


def test_a_server_is_down_if_its_list_fails_without_a_try(
    server: Server, make_bed: Callable[..., Bed]
) -> None:
    """As while another target keeps the server in quarantine."""
    bed = make_bed(server.target(refresh=NEVER), queries=[LONG])
    assert eventually(lambda: bed.values("poller.target.up").get("s") == 1)
    discovery = next(poller for poller in bed.pollers if isinstance(poller, DiscoveryPoller))
    (tick,) = discovery.ticks
    discovery.fail(tick.queries, PollError("unavailable", "another target found the server unavailable"))
    assert eventually(lambda: bed.values("poller.target.up").get("s") == 0)


def test_beyond_the_limit_the_first_by_name_are_polled_and_the_rest_is_counted_and_logged_once(
    server: Server, make_bed: Callable[..., Bed], caplog: pytest.LogCaptureFixture
) -> None:
    server.create("d", "c", "b", "a")
    p = server.prefix
    bed = make_bed(server.target(limit=2))
    assert bed.polls(f"{p}a", f"{p}b")
    assert eventually(lambda: bed.counts().get("over_limit") == 2)
    bed.refreshed(3)
    records = [record for record in caplog.records if "above the limit" in record.getMessage()]
    assert [record.levelno for record in records] == [logging.WARNING]
    assert "2 databases are above the limit of 2" in records[0].getMessage()
    server.do("DROP DATABASE {}", "a")
    assert bed.polls(f"{p}b", f"{p}c")


def test_all_databases_of_a_server_move_to_another_shard_with_it(
    server: Server, make_bed: Callable[..., Bed], tmp_path: Path
) -> None:
    server.create("a", "b", "gone")
    p = server.prefix
    file = tmp_path / "url"
    file.write_text(server.site.primary)
    target = replace(server.target(), url=None, url_file=file)
    shard = Shard(owner_of(server_of(server.site.primary), 2), 2)
    bed = make_bed(target, shard=shard)
    assert bed.polls(f"{p}a", f"{p}b", f"{p}gone")
    server.do("DROP DATABASE {} WITH (FORCE)", "gone")
    assert bed.polls(f"{p}a", f"{p}b")
    before = bed.pollers.url_files()

    elsewhere = (f"host=other{number}" for number in range(99))
    file.write_text(next(dsn for dsn in elsewhere if not shard.owns(server_of(dsn))))
    assert bed.pollers.url_files() != before
    bed.pollers.apply_servers()
    assert bed.names() == set()
    assert bed.pollers.configured() == 0
    assert eventually(lambda: not bed.values() and not bed.values("poller.target.up"))

    file.write_text(server.site.primary)
    bed.pollers.apply_servers()
    assert bed.polls(f"{p}a", f"{p}b")
    assert eventually(lambda: bed.values().keys() == {f"{p}a", f"{p}b"})


NAMES = [
    "q\"uote's",
    "slash/and\\back",
    "line\nfeed\tand=sign",
    "host=h port=1",
    "postgresql://h",
    "%41$1{}*[",
    "x" * 53,
    "ä" * 26 + "x",  # 63 bytes with the prefix
    " space ",
]


def test_databases_with_any_characters_in_their_names_are_polled(
    server: Server, make_bed: Callable[..., Bed]
) -> None:
    with psycopg.connect(server.site.primary) as connection:
        version = connection.info.server_version
    names = [name for name in NAMES if version < 190000 or "\n" not in name]
    server.create(*names)
    bed = make_bed(server.target())
    expected = {f"{server.prefix}{name}" for name in names}
    assert bed.polls(*expected)
    assert eventually(lambda: bed.values().keys() == expected), expected - bed.values().keys()
    assert {point.resource["db.namespace"] for point in bed.points("oid").values()} == expected


@pytest.mark.parametrize("role", ["primary", "standby"])
def test_databases_are_dropped_created_and_renamed_while_they_are_polled(
    role: str, server: Server, make_bed: Callable[..., Bed]
) -> None:
    dsn = server.site.primary if role == "primary" else server.site.standby
    if dsn is None:
        pytest.skip("this test needs a standby")
    server.create("a", "b", "c")
    p = server.prefix
    bed = make_bed(server.target(dsn))
    assert eventually(lambda: bed.values().keys() == {f"{p}a", f"{p}b", f"{p}c"})
    # The poller closes its connections after each tick, so none of the statements is blocked for long.
    server.do("DROP DATABASE {}", "a")
    server.do("ALTER DATABASE {} RENAME TO {}", "b", "d")
    server.create("e")
    assert bed.polls(*(f"{p}{name}" for name in "cde"))
    assert eventually(lambda: bed.values().keys() == {f"{p}{name}" for name in "abcde"}), bed.values()
    values = bed.values()
    assert values[f"{p}d"] == values[f"{p}b"]
    assert eventually(lambda: bed.counts().get("missing") == 2)
    assert eventually(
        lambda: bed.values("poller.target.up") == dict.fromkeys(("s", f"{p}c", f"{p}d", f"{p}e"), 1)
    ), "nothing is known of a database that is not polled"


def test_the_values_of_a_missing_database_go_absent_and_its_data_is_deleted_later(
    server: Server, make_bed: Callable[..., Bed], tmp_path: Path
) -> None:
    server.create("a", "b")
    p = server.prefix
    state = tmp_path / "state"
    bed = make_bed(server.target(forget=4.0), queries=(QUERY,), state=state)
    assert eventually(lambda: bed.values().keys() == {f"{p}a", f"{p}b"})
    server.do("DROP DATABASE {}", "a")
    assert bed.polls(f"{p}b")
    assert eventually(lambda: bed.values().keys() == {f"{p}b"}), "max_age is 3 seconds"
    assert eventually(lambda: bed.counts()["missing"] == 0)
    assert bed.stored() == {f"s/{p}b"}


def test_a_database_that_returns_continues_and_one_that_was_created_again_does_not(
    server: Server, make_bed: Callable[..., Bed]
) -> None:
    server.create("a", "b")
    p = server.prefix
    bed = make_bed(server.target())
    assert eventually(lambda: bed.values().keys() == {f"{p}a", f"{p}b"})
    before = bed.values()
    server.do("ALTER DATABASE {} RENAME TO {}", "a", "other")
    assert bed.polls(f"{p}b", f"{p}other")
    server.do("ALTER DATABASE {} RENAME TO {}", "other", "a")
    assert bed.polls(f"{p}a", f"{p}b")
    assert eventually(lambda: bed.counts().get("missing") == 1), "only `other` is missing"
    assert eventually(lambda: f"{p}a" in bed.values("poller.target.up"))
    assert eventually(lambda: bed.values().get(f"{p}a") == before[f"{p}a"])
    server.do("DROP DATABASE {}", "a")
    server.create("a")
    assert eventually(lambda: bed.values().get(f"{p}a", before[f"{p}a"]) != before[f"{p}a"])


def test_a_failed_discovery_changes_nothing_and_is_logged_once_with_its_recovery(
    server: Server, make_bed: Callable[..., Bed], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    role = server.role()
    server.create("a", "home")
    p = server.prefix
    home = make_conninfo(server.site.primary, dbname=f"{p}home", user=role)
    bed = make_bed(server.target(home, exclude=("*_home",)))
    assert bed.polls(f"{p}a")
    assert eventually(lambda: bed.values().keys() == {f"{p}a"})
    with _refused(server, "home", role):
        assert eventually(lambda: any("cannot be read" in r.getMessage() for r in caplog.records))
        assert bed.names() == {"s", f"s/{p}a"}
        time.sleep(2)
        assert bed.names() == {"s", f"s/{p}a"}
    assert eventually(lambda: any("was read again" in r.getMessage() for r in caplog.records))
    assert sum("cannot be read" in record.getMessage() for record in caplog.records) == 1
    assert eventually(lambda: bed.discoveries().get("failed", 0) >= 1)
    assert bed.discoveries()["ok"] >= 1


@contextmanager
def _refused(server: Server, name: str, role: str) -> Iterator[None]:
    """Refuse connections of a role to one database."""
    server.do("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", name)
    yield
    server.do("GRANT CONNECT ON DATABASE {} TO {role}", name, role=role)


def test_a_database_without_the_privilege_to_connect_is_not_polled_and_concerns_no_other(
    server: Server, make_bed: Callable[..., Bed], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    role = server.role()
    server.create("a", "b", "c_test")
    server.do("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", "c_test")
    p = server.prefix
    bed = make_bed(server.target(make_conninfo(server.site.primary, user=role), exclude=("*_test",)))
    assert eventually(lambda: bed.values().keys() == {f"{p}a", f"{p}b"})
    assert eventually(lambda: bed.counts().get("no_privilege") == 0), "c_test is excluded"
    with _refused(server, "b", role):
        assert bed.polls(f"{p}a")
        assert eventually(lambda: bed.counts().get("no_privilege") == 1)
        assert bed.counts()["missing"] == 0, "it still exists"
        (record,) = [record for record in caplog.records if "no longer connect" in record.getMessage()]
        assert record.getMessage().endswith(
            "1 polled, 0 new, 0 missing, 1 to which the role may no longer connect"
        )
        assert record.__dict__["no_privilege"] == f"{p}b"
        oid = bed.points("oid")[f"s/{p}a"].time_unix_nano
        assert eventually(lambda: bed.points("oid")[f"s/{p}a"].time_unix_nano > oid)
    assert bed.polls(f"{p}a", f"{p}b")
    assert not any("cannot be read" in record.getMessage() for record in caplog.records)


def test_the_daemon_is_ready_after_the_first_polls_of_the_databases_in_the_first_list(
    server: Server, make_bed: Callable[..., Bed]
) -> None:
    server.create("a", "b")
    nap = a_query("nap", "SELECT 1 AS n FROM pg_sleep(1)", interval=600.0, timeout=30.0)
    bed = make_bed(server.target(), queries=(nap,))
    assert eventually(lambda: bed.scheduler.ready)
    ended = {entry.target: ended for entry, (_, ended) in bed.scheduler.last_runs().items()}
    assert ended.keys() == {"s", f"s/{server.prefix}a", f"s/{server.prefix}b"}
    assert None not in ended.values()


def test_the_daemon_is_ready_if_the_list_of_databases_cannot_be_read(
    server: Server, make_bed: Callable[..., Bed]
) -> None:
    bed = make_bed(server.target(make_conninfo(server.site.primary, dbname=f"{server.prefix}none")))
    assert eventually(lambda: bed.scheduler.ready)
    assert bed.names() == {"s"}


def test_a_standby_cancels_polls_of_a_dropped_database_and_of_no_other(
    server: Server, make_bed: Callable[..., Bed]
) -> None:
    if server.site.standby is None:
        pytest.skip("this test needs a standby")
    server.create("a", "b")
    p = server.prefix
    # Each poll takes long enough to run when the standby replays the DROP.
    nap = a_query("nap", "SELECT 1 AS n FROM pg_sleep(0.7)", interval=1.0, max_age=3600.0)
    bed = make_bed(replace(server.target(server.site.standby), connections=3), queries=(nap,))
    assert eventually(lambda: bed.values("nap").keys() == {f"{p}a", f"{p}b"})
    server.do("DROP DATABASE {}", "a")
    assert bed.polls(f"{p}b")
    bed.refreshed(2)
    (poller,) = [poller for poller in bed.pollers if poller.name == f"s/{p}b"]
    assert [status.state.name for status in poller.cycle.store.freshness(time.monotonic())] == ["ok"]
    assert bed.discoveries().keys() == {"ok"}


def test_a_list_is_the_same_in_a_database_with_another_encoding(
    server: Server, make_bed: Callable[..., Bed]
) -> None:
    server.create("ä")
    create = "CREATE DATABASE {} ENCODING {encoding} TEMPLATE template0 LOCALE {locale}"
    server.do(create, "home", encoding="LATIN1", locale="C")
    home = make_conninfo(server.site.primary, dbname=f"{server.prefix}home", client_encoding="LATIN1")
    latin1 = f'"{server.prefix}ö"'.encode("latin1")  # in LATIN1 its bytes are not valid UTF-8
    with psycopg.connect(home, autocommit=True) as connection:
        connection.execute(b"CREATE DATABASE " + latin1)
        try:
            bed = make_bed(server.target(home, exclude=("*home",)))
            assert bed.polls(f"{server.prefix}ä")
            assert eventually(lambda: bed.values().keys() == {f"{server.prefix}ä"})
        finally:
            connection.execute(b"DROP DATABASE " + latin1)


def test_a_reload_of_the_server_s_target_changes_its_databases_only(
    server: Server, make_bed: Callable[..., Bed]
) -> None:
    server.create("a", "b")
    p = server.prefix
    target = server.target(refresh=NEVER)
    single = replace(target, name="single", databases=None)
    bed = make_bed(target, single)
    expected = {"s", "single", f"s/{p}a", f"s/{p}b"}
    assert eventually(lambda: bed.names() == expected)
    assert eventually(lambda: bed.values().keys() == {"single", f"{p}a", f"{p}b"})
    untouched = {poller.name: poller for poller in bed.pollers}
    target = replace(target, attributes={"region": "eu"})
    bed.apply(target, single)
    assert bed.names() == expected
    assert {p.name for p in bed.pollers if untouched[p.name] is p} == {"single"}
    assert eventually(
        lambda: (
            bed.points("oid").get(f"s/{p}a") is not None
            and bed.points("oid")[f"s/{p}a"].attributes.get("region") == "eu"
        )
    )
    renamed = replace(target, databases=replace(target.databases, exclude=("*a",)))  # type: ignore[type-var]
    bed.apply(renamed, single)
    assert bed.names() == expected - {f"s/{p}a"}
    assert eventually(lambda: f"{p}a" not in bed.values())
    bed.apply(single)
    assert bed.names() == {"single"}
    assert eventually(lambda: bed.values().keys() == {"single"})


def test_databases_get_their_stored_values_as_soon_as_they_are_discovered(
    server: Server, make_bed: Callable[..., Bed], tmp_path: Path
) -> None:
    server.create("a", "b")
    p = server.prefix
    state = tmp_path / "state"
    state.mkdir()
    slow = a_query("slow", "SELECT 1 AS n", interval=3600.0)
    bed = make_bed(server.target(), queries=(slow,), state=state)
    assert eventually(lambda: bed.values("slow").keys() == {f"{p}a", f"{p}b"})
    bed.close()
    server.do("DROP DATABASE {}", "b")
    asleep = a_query("slow", "SELECT 1 AS n", interval=3600.0)
    bed = make_bed(server.target(), queries=(asleep,), state=state)
    assert bed.polls(f"{p}a")
    poller = next(poller for poller in bed.pollers if poller.name == f"s/{p}a")
    assert [good.result.outcome for good in poller.cycle.store.good(time.monotonic())] == ["ok"]
    assert bed.stored() == {f"s/{p}a"}, "the values of b are deleted"


def test_databases_that_come_and_go_leave_nothing(server: Server, make_bed: Callable[..., Bed]) -> None:
    server.create("a", *(f"n{number}" for number in range(3)))
    p = server.prefix
    target = server.target(forget=0.0, refresh=NEVER)
    bed = make_bed(target)
    assert eventually(lambda: len(bed.names()) == 5)
    discovery = next(poller for poller in bed.pollers if isinstance(poller, DiscoveryPoller))
    oids = {f"{p}a": 1}
    for number in range(200):
        oids = {f"{p}a": 1, f"{p}new{number}": number}
        bed.pollers.apply_list(discovery, DatabaseList(oids, (), (), ()))
    assert bed.names() == {"s", f"s/{p}a", f"s/{p}new199"}
    servers = bed.pollers._servers["s"]  # noqa: SLF001 - the objects are counted
    assert len(servers.missing) == 0
    scheduler: Any = bed.scheduler
    assert scheduler._schedules.keys() == bed.names()  # noqa: SLF001
    assert eventually(lambda: len(scheduler._queues._turns) == 0)  # noqa: SLF001
    assert eventually(_has_at_most_pollers(len(bed.names())))
    exporter: Any = bed.factory.exporter
    assert len(exporter._sources) <= 3 + 1  # noqa: SLF001


def _has_at_most_pollers(most: int) -> Callable[[], bool]:
    def has() -> bool:
        gc.collect()
        # Pollers of earlier tests may still be referred to by their beds.
        pollers = (item for item in gc.get_objects() if isinstance(item, TargetPoller))
        return sum(poller.name.startswith("s/") for poller in pollers) <= most

    return has


def test_the_daemon_discovers_the_databases_of_its_targets_file_and_follows_a_reload(
    server: Server, tmp_path: Path
) -> None:
    server.create("a", "b")
    p = server.prefix
    queries, targets = tmp_path / "queries.yaml", tmp_path / "targets.yaml"
    metric = {"name": "n", "unit": "{row}", "description": "Rows.", "value_column": "n"}
    queries.write_text(
        json.dumps(
            {"queries": [{"name": "n", "sql": "SELECT 1 AS n", "interval": "1s", "metrics": [metric]}]}
        )
    )

    def write(**databases: Any) -> None:
        listed = {"include": [f"{p}*"], "refresh": "10s", **databases}
        target = {"name": "s", "url": server.site.primary, "require_standby": "false", "databases": listed}
        replace_file(targets, json.dumps({"targets": [target]}))

    write()
    with Receiver(keep=100) as receiver:
        process = Process(
            [sys.executable, "-m", "poller", "run"],
            env={
                "POLLER_TARGETS": str(targets),
                "POLLER_QUERIES": str(queries),
                "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
                "POLLER_EXPORT_INTERVAL": "200ms",
            },
        )

        def polled() -> set[str]:
            requests = receiver.requests()
            points = requests[-1].points() if requests else []
            return {str(point.resource["service.instance.id"]) for point in points if point.metric == "n"}

        try:
            assert eventually(lambda: polled() == {f"s/{p}a", f"s/{p}b"}), process
            write(exclude=["*_b"])
            assert eventually(lambda: polled() == {f"s/{p}a"}), process
            assert "Traceback" not in process.stderr
        finally:
            process.close()
