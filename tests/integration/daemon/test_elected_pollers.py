"""A process that leads for a while: its ticks are interrupted at the end, and nothing of them stays."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poller.config.load_settings import load
from poller.daemon.elected_pollers import ElectedPollers
from poller.daemon.scheduler import PollScheduler
from poller.daemon.server_queues import QueueConfig
from poller.daemon.target_factory import TargetFactory
from poller.daemon.target_poller import TargetPoller
from poller.daemon.target_pollers import TargetPollers
from poller.model.catalog import Catalog, Configuration
from poller.receiver.receiver import Receiver
from tests.bed.definitions import a_metric, a_query, a_target
from tests.bed.postgres import Database
from tests.bed.process import eventually


class Exhausted(TargetFactory):
    """A factory that fails the first time, as without descriptors or threads."""

    failed = False

    def open(self, *arguments: Any, **more: Any) -> TargetPoller:
        if not self.failed:
            self.failed = True
            raise OSError(errno.EMFILE, "Too many open files")
        return super().open(*arguments, **more)


class Elected:
    """The parts of a daemon that open and close the pollers of one target."""

    def __init__(
        self, database: Database, receiver: Receiver, sql: str, make: type[TargetFactory] = TargetFactory
    ) -> None:
        settings = load(
            {
                "POLLER_TARGETS": "unused.yaml",
                "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
                "POLLER_EXPORT_INTERVAL": "1h",
                "POLLER_TRACES": "false",
            }
        )
        self.leads = False
        self.factory = make(settings, daemon=True, leadership=self)
        self.scheduler = PollScheduler(QueueConfig(4), leadership=self)
        self.pollers = TargetPollers(self.factory, self.scheduler)
        query = a_query("q", sql, metrics=(a_metric("n"),), interval=3600.0, timeout=300.0)
        target = a_target("only", database.primary_dsn)
        self.configuration = Configuration(Catalog((query,), ()), (target,))
        self.elected = ElectedPollers(self.factory, self.scheduler, self.pollers, self.configuration)
        self.elected.start()
        self.scheduler.start()

    def change(self, *, leads: bool) -> None:
        self.leads = leads
        self.elected.change(leads)
        assert eventually(lambda: len(self.pollers) == int(leads))

    def has_values(self) -> bool:
        return any(poller.cycle.store.current(time.monotonic()) for poller in self.pollers)

    def push(self) -> None:
        assert self.factory.exporter is not None
        assert self.factory.exporter.flush(60)


@pytest.fixture
def opened() -> Iterator[list[Elected]]:
    elected: list[Elected] = []
    yield elected
    for each in elected:
        each.scheduler.stop(each.factory.interrupt, 60.0)
        assert each.factory.exporter is not None
        each.factory.exporter.shutdown(1)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def active(database: Database) -> int:
    sql = "SELECT count(*)::int FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(123%'"
    return int(database.execute(f"{sql} AND pid <> pg_backend_pid()")[0][0])


def test_a_tick_under_way_when_the_leadership_ends_is_cancelled_on_the_server_and_dropped(
    database: Database, receiver: Receiver, opened: list[Elected]
) -> None:
    elected = Elected(database, receiver, "SELECT 1 AS n FROM (SELECT pg_sleep(123)) AS slow")
    opened.append(elected)
    elected.change(leads=True)
    assert eventually(lambda: active(database) == 1)
    elected.change(leads=False)
    assert eventually(lambda: active(database) == 0)
    elected.push()
    assert receiver.points("n") == []
    elected.change(leads=False)  # for example because the leadership was too short to begin
    elected.change(leads=True)  # the next tick is not interrupted
    assert eventually(lambda: active(database) == 1)


def test_the_results_of_a_tick_that_ends_after_the_deadline_are_dropped(
    database: Database, receiver: Receiver, opened: list[Elected]
) -> None:
    elected = Elected(database, receiver, "SELECT 1 AS n FROM (SELECT pg_sleep(2), 'pg_sleep(123') AS slow")
    opened.append(elected)
    elected.change(leads=True)
    assert eventually(lambda: active(database) == 1)
    elected.leads = False  # and no thread has noticed yet
    assert eventually(lambda: active(database) == 0)
    assert elected.scheduler.wait_until_idle(60)
    assert not elected.has_values()


def test_targets_that_cannot_be_opened_are_tried_again(
    database: Database, receiver: Receiver, opened: list[Elected]
) -> None:
    elected = Elected(database, receiver, "SELECT 1 AS n", Exhausted)
    opened.append(elected)
    elected.change(leads=True)
    assert eventually(elected.has_values)
    elected.push()
    assert len(receiver.points("n")) == 1


def test_values_are_exported_only_while_this_process_leads(
    database: Database, receiver: Receiver, opened: list[Elected]
) -> None:
    elected = Elected(database, receiver, "SELECT 1 AS n")
    opened.append(elected)
    elected.change(leads=True)
    assert eventually(elected.has_values)
    elected.push()
    assert len(receiver.points("n")) == 1
    elected.leads = False  # the deadline has passed, and no thread has noticed yet
    elected.push()
    assert len(receiver.points("n")) == 1
    assert receiver.points("poller.export.requests")  # those of the process itself are exported


def test_a_configuration_that_is_read_by_a_follower_is_used_when_it_leads(
    database: Database, receiver: Receiver, opened: list[Elected]
) -> None:
    elected = Elected(database, receiver, "SELECT 1 AS n")
    opened.append(elected)
    new = a_query("new", "SELECT 2 AS n", metrics=(a_metric("other"),), interval=3600.0)
    assert not any(elected.elected.apply(Configuration(Catalog((new,), ()), elected.configuration.targets)))
    elected.change(leads=True)
    assert eventually(elected.has_values)
    elected.push()
    assert receiver.points("n") == []
    assert [point.value for point in receiver.points("other")] == [2]


def test_changes_of_the_leader_leave_no_descriptor_thread_or_connection(
    database: Database, receiver: Receiver, opened: list[Elected]
) -> None:
    elected = Elected(database, receiver, "SELECT 1 AS n")
    opened.append(elected)

    def lead_for_a_while() -> None:
        elected.change(leads=True)
        assert eventually(elected.has_values)
        elected.push()
        elected.change(leads=False)

    lead_for_a_while()
    threads, before = threading.active_count(), descriptors()
    for _ in range(30):
        lead_for_a_while()
    assert threading.active_count() <= threads + 4  # threads of the pool start as they are needed
    assert eventually(lambda: descriptors() <= before + 4)
    sessions = "SELECT count(*)::int FROM pg_stat_activity WHERE application_name LIKE 'obscura-poller%'"
    assert eventually(lambda: database.execute(sessions)[0][0] == 0)
