"""Query files change while the daemon polls a standby: no tick is lost, and no two versions are mixed."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from apscheduler.events import (
    EVENT_JOB_ADDED,
    EVENT_JOB_MODIFIED,
    EVENT_JOB_REMOVED,
    EVENT_JOB_SUBMITTED,
    JobEvent,
)
from opentelemetry.metrics import NoOpMeter

from poller.config.file_watcher import Fingerprint, contents, fingerprint
from poller.config.load import open_configuration
from poller.config.load_settings import load
from poller.config.queries.diff import Difference
from poller.daemon.reload import Reload
from poller.daemon.scheduler import PollScheduler
from poller.daemon.server_queues import QueueConfig
from poller.daemon.target_factory import TargetFactory
from poller.daemon.target_pollers import TargetChanges
from poller.model.catalog import Configuration
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.receiver.decode import Point
from poller.receiver.receiver import Receiver
from tests.bed.pollable import FunctionTarget
from tests.bed.polled import Json
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually
from tests.bed.volume import ConfigMap, replace

RELOADS = 1000
PATIENCE = 90.0
Start = Callable[..., Process]


def query(name: str, sql: str, group: str = "default", interval: str = "1s", **metric: str) -> Json:
    return {
        "name": name,
        "sql": sql,
        "group": group,
        "interval": interval,
        "timeout": "1s",
        "max_age": "24h",
        "metrics": [
            {"name": name, "unit": "{row}", "description": "Rows.", "value_column": "n", **metric},
        ],
    }


def written(*queries: Json) -> str:
    return json.dumps({"queries": queries})  # JSON is YAML


def version(number: int) -> str:
    """Return a version of the query file: numbered, added, removed and unchanged queries."""
    numbered = f"SELECT {number} AS n"
    return written(
        query("left", numbered, "pair"),
        query("kept", "SELECT 7 AS n", "pair"),
        query("right", numbered, "pair"),
        query("other", numbered, "second"),
        query("steady", "SELECT 8 AS n", "steady"),
        query(f"only_{number}", numbered, "second" if number % 2 else f"group_{number % 5}"),
    )


UNCHANGED_TICKS = ("pair/1s", "second/1s", "steady/1s")


def number_of(definition: QueryDefinition) -> int | None:
    """Return the version of a query; None for queries of all versions."""
    return None if definition.name in ("kept", "steady") else int(definition.sql.split()[1])


class Bed:
    """The daemon's objects on a real standby, with checks of every tick, every swap and every export."""

    def __init__(self, file: Path, dsn: str) -> None:
        settings = load(
            {"POLLER_DATABASE_URL": dsn, "POLLER_QUERIES": str(file), "POLLER_MAX_DUTY_CYCLE": "100%"}
        )
        self._file, self._settings = file, settings
        configuration = self.load()
        self.factory = TargetFactory(settings, daemon=True)
        self.poller = self.factory.open(configuration.targets[0], configuration.catalog.queries)
        self.store = self.poller.cycle.store
        self.wrong: list[str] = []
        self.running = 1
        self.steady_runs = 0
        self.polls: Counter[str] = Counter()
        self.events: Counter[tuple[int, str]] = Counter()
        self.outcomes: list[str] = []
        self.turns = threading.Semaphore(0)
        self.started = threading.Event()
        self.over = threading.Event()
        self.target = FunctionTarget(self.tick)
        self.daemon = PollScheduler(QueueConfig())
        self.daemon._timer._scheduler.add_listener(  # noqa: SLF001 - its events are visible only there
            self.record_event,
            EVENT_JOB_SUBMITTED | EVENT_JOB_ADDED | EVENT_JOB_MODIFIED | EVENT_JOB_REMOVED,
        )
        self.target.put_in(self.daemon, *self.poller.ticks)
        self.reload = Reload(configuration, self, apply=self.apply, meter=NoOpMeter("test"))

    def fingerprint(self) -> bytes:
        return contents([self._file])

    def status(self) -> Fingerprint:
        return fingerprint([self._file])

    def load(self) -> Configuration:
        return open_configuration(self._settings)

    def record_event(self, event: JobEvent) -> None:
        self.events[event.code, event.job_id] += 1

    def tick(self, queries: Sequence[QueryDefinition]) -> list[PollResult]:
        """Poll on a worker, while another thread replaces the queries: the results are of one version."""
        results = list(self.poller.run(queries, lambda: None))
        numbers = {number for item in results if (number := number_of(item.query)) is not None}
        if len(numbers) > 1:
            self.wrong.append(f"a tick with results of {numbers}")
        for result in results:
            self.polls[result.query.name] += 1
            if result.outcome != "ok":
                self.wrong.append(f"{result.query.name}: {result.error}")
        self.steady_runs += any(definition.name == "steady" for definition in queries)
        self.check()
        return results

    def apply(self, configuration: Configuration, difference: Difference) -> TargetChanges:
        queries, dropped = configuration.catalog.queries, difference.dropped
        numbers = {number for definition in queries if (number := number_of(definition)) is not None}
        if len(numbers) != 1:
            self.wrong.append(f"a catalogue of {numbers}")
        if {"kept", "steady"} & set(dropped):
            self.wrong.append("unchanged queries were dropped")
        self.poller.swap(queries, dropped)
        # No query of the new version has been polled yet, and no value of the old version may remain.
        self.check(numbers & {self.running})
        (self.running,) = numbers
        self.daemon.replace(self.target, self.poller.ticks, difference.fresh)
        return TargetChanges([], [], [])

    def check(self, allowed: set[int] | None = None) -> None:
        """Check the values that an export would contain at this moment."""
        exported = [
            (result.query, sample.value)
            for result in self.store.current(time.monotonic())
            for sample in result.samples
        ]
        numbers = {int(value) for definition, value in exported if number_of(definition) is not None}
        if len(numbers) > 1 or (allowed is not None and not numbers <= allowed):
            self.wrong.append(f"values of {numbers} at the same time, {allowed} allowed")
        if self.started.is_set() and not {"kept", "steady"} <= {
            definition.name for definition, _ in exported
        }:
            self.wrong.append("an unchanged value is missing")

    def look_on(self) -> None:
        while not self.over.wait(0.001):
            self.check()

    def reload_on(self, times: int) -> None:
        """Reload `times` times, each time after a turn is given."""
        try:
            for _ in range(times):
                assert self.turns.acquire(timeout=120)
                self.outcomes.append(self.reload.run(requested=True))
        finally:
            self.over.set()


class Writer(threading.Thread):
    """Rewrites the query file in every way, and gives turns to reload it."""

    def __init__(self, file: Path, bed: Bed) -> None:
        super().__init__()
        self._file = file
        self._bed = bed
        self._number = 1
        self._turns = 0

    def run(self) -> None:
        while not self._bed.over.is_set():
            self._number += 1
            replace(self._file, version(self._number))
            self._expect("changed")
            for spoil in self._ways_to_spoil():
                spoil()
                self._expect("refused")
            self._storm()
            time.sleep(0.05)  # so that some ticks run meanwhile

    def _ways_to_spoil(self) -> Iterator[Callable[[], object]]:
        whole = version(self._number + 1)
        yield lambda: self._file.write_text(whole[: len(whole) // 2])
        yield lambda: self._file.write_text(whole.replace("SELECT", "DELETE"))
        yield lambda: self._file.write_text("")
        yield self._file.unlink

    def _storm(self) -> None:
        """Write the file in place, in halves, during three reloads."""
        self._give(3)
        while not self._settled():
            self._number += 1
            whole = version(self._number)
            with self._file.open("w") as file:
                file.write(whole[: len(whole) // 2])
                file.flush()
                file.write(whole[len(whole) // 2 :])

    def _expect(self, outcome: str) -> None:
        self._give(1)
        while not self._settled():
            time.sleep(0.0002)
        if self._bed.over.is_set():
            return
        if (came := self._bed.outcomes[-1]) != outcome:
            self._bed.wrong.append(f"{came}, not {outcome}")
        if outcome == "changed" and self._bed.running != self._number:
            self._bed.wrong.append(f"{self._bed.running} runs, not {self._number}")

    def _give(self, turns: int) -> None:
        self._turns += turns
        self._bed.turns.release(turns)

    def _settled(self) -> bool:
        return len(self._bed.outcomes) == self._turns or self._bed.over.is_set()


@pytest.mark.timeout(400)
def test_a_thousand_reloads_of_valid_invalid_and_incomplete_files_lose_no_tick_and_mix_no_versions(
    database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "queries.yaml"
    file.write_text(version(1))
    bed = Bed(file, database.standby_dsn)
    bed.daemon.start()
    assert eventually(lambda: {"kept", "steady", "other", "only_1"} <= bed.polls.keys())
    bed.started.set()
    writer = Writer(file, bed)
    threads = [writer, threading.Thread(target=bed.look_on)]
    for thread in threads:
        thread.start()
    bed.reload_on(RELOADS)
    for thread in threads:
        thread.join(60)
    # Every due run took place or is counted as an overrun; the first run was not due.
    due = (EVENT_JOB_SUBMITTED, "\0steady/1s")
    assert eventually(
        lambda: bed.steady_runs + bed.target.overruns.count("steady/1s") == bed.events[due] + 1 > 2
    )
    assert bed.wrong == []
    assert bed.daemon.stop(bed.factory.interrupt, 60.0)
    bed.poller.retire()

    outcomes = Counter(bed.outcomes)
    assert outcomes.total() == RELOADS
    assert outcomes.keys() <= {"changed", "unchanged", "refused", "unsteady"}
    assert outcomes["changed"] >= RELOADS // 8
    assert outcomes["refused"] >= RELOADS // 2 - 4
    for tick in UNCHANGED_TICKS:
        touched = [
            bed.events[code, f"\0{tick}"] for code in (EVENT_JOB_ADDED, EVENT_JOB_MODIFIED, EVENT_JOB_REMOVED)
        ]
        assert touched == [1, 0, 0], tick


def environment(dsn: str, receiver: Receiver, queries: Path, **more: str) -> dict[str, str]:
    return {
        "POLLER_DATABASE_URL": dsn,
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        "POLLER_QUERIES": str(queries),
        "POLLER_EXPORT_INTERVAL": "200ms",
        "POLLER_LOG_FORMAT": "json",
        **more,
    }


def newest(receiver: Receiver) -> dict[str, Point]:
    """Return the newest export by metric; of the poller's metrics only those about reloads, by outcome."""
    requests = receiver.requests()
    points = requests[-1].points() if requests else []
    return {
        " ".join([point.metric, *map(str, point.attributes.values())]).removeprefix("poller.config."): point
        for point in points
        if point.metric.startswith("poller.config.") or not point.metric.startswith("poller.")
    }


def values(receiver: Receiver) -> dict[str, object]:
    return {name: point.value for name, point in newest(receiver).items() if "last_success" not in name}


@pytest.mark.timeout(400)
def test_sighup_replaces_series_and_an_invalid_file_changes_nothing(
    database: Database, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    file = tmp_path / "queries.yaml"
    # Polled once an hour, so a value after a reload is the value from before.
    unchanged = query(
        "kept", "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS n", interval="1h"
    )
    file.write_text(written(unchanged, query("gone", "SELECT 1 AS n"), query("turned", "SELECT 2 AS n")))
    process = poller_process(
        "run", env=environment(database.standby_dsn, receiver, file, POLLER_WATCH="false")
    )
    receiver.wait_for(lambda _: {"kept", "gone", "turned"} <= newest(receiver).keys(), PATIENCE)
    first = newest(receiver)["kept"].value
    assert (newest(receiver)["turned"].unit, values(receiver)["reload.success"]) == ("{row}", 1)

    turned = query("turned", "SELECT 2 AS n", unit="s", description="Turned.")
    file.write_text(written(unchanged, turned, query("added", "SELECT 3 AS n", "other", "1h")))
    process.send(signal.SIGHUP)
    after = {"kept": first, "turned": 2, "added": 3, "reload.success": 1, "reloads ok": 1}
    receiver.wait_for(lambda _: values(receiver) == after, PATIENCE)
    point = newest(receiver)["turned"]
    assert (point.unit, point.description) == ("s", "Turned.")

    file.write_text(written(turned | {"sql": "DELETE FROM t"}, turned))
    process.send(signal.SIGHUP)
    receiver.wait_for(
        lambda _: values(receiver) == {**after, "reload.success": 0, "reloads failed": 1}, PATIENCE
    )
    assert {point.value for point in receiver.points("kept")} == {first}
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    records = [json.loads(line) for line in process.stderr.splitlines()]
    where = f"ERROR {file}:1: queries"
    assert [
        f"{line['severity']} {line['message']}"
        for line in records
        if line["logger"] == "poller.daemon.reload"
    ] == [
        "INFO query files read again: 1 added, 1 removed, 1 changed, 1 unchanged",
        "INFO added: added",
        "INFO removed: gone",
        "INFO changed: turned (metrics); its old values are dropped",
        "INFO new metrics: added",
        "INFO removed metrics: gone",
        "INFO metrics with a new unit: turned {row} -> s",
        "INFO metrics with a new description: turned",
        "ERROR query files rejected; the running queries stay in use",
        f"{where}[0].sql: is DELETE; a query may only read: write SELECT, WITH, VALUES or TABLE",
        f"{where}[1].name: 'turned' is also the query at {file}:1; rename one",
    ]


@pytest.mark.timeout(400)
def test_a_changed_config_map_is_loaded_without_a_signal(
    database: Database, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    """Its files are replaced all at once; an invalid file changes nothing and is logged once."""
    volume = ConfigMap(tmp_path / "volume", a=written(query("a", "SELECT 1 AS n")))
    process = poller_process("run", env=environment(database.standby_dsn, receiver, volume.folder))
    receiver.wait_for(lambda _: values(receiver).get("a") == 1, PATIENCE)

    volume.update(a=written(query("a", "SELECT 2 AS n")), b=written(query("b", "SELECT 3 AS n")))
    good = {"a": 2, "b": 3, "reload.success": 1, "reloads ok": 1}
    receiver.wait_for(lambda _: values(receiver) == good, PATIENCE)

    volume.update(a="queries: [", b=written(query("c", "SELECT 3 AS n")))
    receiver.wait_for(
        lambda _: values(receiver) == {**good, "reload.success": 0, "reloads failed": 1}, PATIENCE
    )

    volume.update(b=written(query("b", "SELECT 3 AS n")))
    last = {"b": 3, "reload.success": 1, "reloads ok": 2, "reloads failed": 1}
    receiver.wait_for(lambda _: values(receiver) == last, PATIENCE)
    assert process.stderr.count("query files rejected") == 1
    assert process.running
