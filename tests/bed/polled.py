"""A daemon that polls during faults, with its exports, log records and sessions since a moment."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from poller.postgres.transaction import TransactionLimits
from poller.receiver.decode import Point
from poller.receiver.receiver import Receiver
from tests.bed.process import Process, eventually
from tests.bed.watch import NAME, Watch

THINGS = "CREATE TABLE things AS SELECT generate_series(1, 3) AS id"
_CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS n"
NAP = "SELECT count(*) AS n FROM pg_sleep(0.4)"
USUAL = {
    "things": "SELECT count(*) AS n FROM things",
    # Long enough to be interrupted while it runs; queries after it in the tick fail with it.
    "nap": NAP,
    # Distinguishes every good poll; becomes absent soon after the last one.
    "brief": _CLOCK,
    # The same, but stays.
    "pace": _CLOCK,
}
WITHHELD = "values are withheld"
SKIPPED_TICK = "^tick default/1s skipped: the previous one is still running"
BUDGET_SECONDS = 1.4
"""Longest life of a tick's transaction: its longest timeout and a moment (`postgres.transaction`)."""

Json = dict[str, Any]


def write(folder: Path, queries: Mapping[str, str], **fields: Mapping[str, object]) -> str:
    """Write queries that each feed a gauge of their name from a column n.

    `fields` adds keys to each, or removes those that are None.
    """
    entries = [
        {
            "name": name,
            "sql": sql,
            "interval": "1s",
            "timeout": "900ms",
            "max_age": "1500ms" if name == "brief" else "1h",
            "metrics": [{"name": name, "unit": "{row}", "description": name, "value_column": "n"}],
            **fields.get(name, {}),
        }
        for name, sql in queries.items()
    ]
    entries = [{key: value for key, value in entry.items() if value is not None} for entry in entries]
    file = folder / "queries.yaml"
    file.write_text(json.dumps({"queries": entries}))  # JSON is YAML
    return str(file)


class Polled:
    """A running daemon, its receiver and the watch on its servers."""

    def __init__(self, process: Process, receiver: Receiver, watch: Watch, queries: Sequence[str]) -> None:
        self.process = process
        self.receiver = receiver
        self.watch = watch
        self.queries = queries

    def newest(self) -> list[Point]:
        """Return the data points of the newest push."""
        requests = self.receiver.requests()
        return requests[-1].points() if requests else []

    def value(self, metric: str, **attributes: str) -> Any:
        """Return the value of one series in the newest push; None if it is absent."""
        expected = {name.replace("__", "."): value for name, value in attributes.items()}
        for point in self.newest():
            if point.metric == metric and expected.items() <= point.attributes.items():
                return point.value
        return None

    def shows(self, metric: str, value: float) -> bool:
        return bool(self.value(metric) == value)

    def polls(self) -> dict[tuple[str, ...], int]:
        """Return the number of polls by query name, state, error.type, SQLSTATE and reason."""
        keys = ("query.name", "state", "error.type", "db.response.status_code", "reason")
        counts: dict[tuple[str, ...], int] = {}
        for point in self.newest():
            if point.metric == "poller.polls":
                labels = {name.removeprefix("poller."): str(v) for name, v in point.attributes.items()}
                assert isinstance(point.value, int)
                counts[tuple(labels[key] for key in keys if key in labels)] = point.value
        return counts

    def stale(self, query: str) -> Any:
        """Return 1 while the values of `query` are withheld, else 0; None before its first poll."""
        if self.value("poller.query.series", poller__query__name=query) is None:
            return None
        return self.value("poller.query.state", poller__query__name=query, poller__state="stale") or 0

    def records(self, after: int = 0) -> list[Json]:
        """Return the log records after the first `after`; every line is a record."""
        return [json.loads(line) for line in self.process.stderr.splitlines(keepends=True)[after:]]

    def napping(self) -> int:
        """Wait until the nap has just begun; return the process id of its backend."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for backend in self.watch.now():
                young = backend.transaction_age is not None and backend.transaction_age < 0.15
                if young and backend.query.startswith(NAP) and backend.state == "active":
                    return backend.pid
            time.sleep(0.002)
        raise AssertionError(f"it never naps\n{self.process}")

    def after_tick(self) -> int:
        """Wait until a tick has just ended, so that the next is a while away; return as `napping` does."""
        pid = self.napping()
        assert eventually(lambda: [(b.pid, b.state) for b in self.watch.now()] == [(pid, "idle")])
        return pid

    @contextmanager
    def stopped_between_ticks(self) -> Iterator[None]:
        """Stop the process of the daemon between two ticks, so that none begins meanwhile."""
        while True:
            pid = self.after_tick()
            self.process.send(signal.SIGSTOP)
            assert eventually(partial(self._has_checked, self.watch.checks + 10))
            if [(backend.pid, backend.state) for backend in self.watch.now()] == [(pid, "idle")]:
                break
            self.process.send(signal.SIGCONT)
        try:
            yield
        finally:
            self.process.send(signal.SIGCONT)

    def _has_checked(self, number: int) -> bool:
        return self.watch.checks > number

    def pushed_after(self, moment: float) -> bool:
        """Return whether a push began after `moment` (seconds since 1970)."""
        return any(point.time_unix_nano > moment * 1e9 for point in self.newest())


class Spell:
    """Observation of a daemon while a fault begins and ends."""

    def __init__(self, polled: Polled) -> None:
        """Wait until every query has values, and begin."""
        self._polled = polled
        assert eventually(lambda: all(polled.stale(query) == 0 for query in polled.queries)), polled.process
        polled.receiver.clear()
        assert eventually(lambda: bool(polled.newest())), polled.process
        polled.watch.reset()
        self._after = len(polled.process.stderr.splitlines())
        self._before = polled.polls()
        self._good = {query: polled.value(query) for query in polled.queries}
        self._healed: tuple[float, int] | None = None

    def said(self, pattern: str, severity: str = "WARNING") -> Json:
        """Wait for a record whose message matches; return it."""
        matches: list[Json] = []

        def look() -> bool:
            matches[:] = self._said(pattern, severity)
            return bool(matches)

        assert eventually(look), f"no record matches {pattern!r}\n{self._polled.process}"
        return matches[0]

    def counted(self, *poll: str, times: int = 1) -> None:
        """Wait for `times` more polls with this key of `polls`."""
        assert eventually(lambda: self.more().get(poll, 0) >= times), (poll, self.more())

    def more(self) -> dict[tuple[str, ...], int]:
        """Return the polls since the beginning."""
        now = self._polled.polls()
        return {key: n - self._before.get(key, 0) for key, n in now.items() if n > self._before.get(key, 0)}

    def withheld(self, *retained: str) -> None:
        """Wait until `brief` is absent and reported as too old; queries with a larger max_age stay."""
        polled = self._polled
        assert eventually(lambda: polled.stale("brief") == 1 and polled.value("brief") is None), (
            polled.process
        )
        stay = polled.value("pace")
        count = len(polled.receiver.requests())
        assert eventually(lambda: len(polled.receiver.requests()) > count)
        assert stay is not None
        assert polled.value("pace") == stay, "the last good value stays"
        assert polled.stale("pace") == 0
        for name in retained or ("things",):
            assert polled.value(name) == self._good[name]

    def healed(self) -> None:
        """Record that the fault has ended; from now on, at most one tick may still fail."""
        now = time.time()
        polled = self._polled
        assert eventually(lambda: polled.pushed_after(now)), polled.process
        self._healed = now, self._bad()

    def recovered(
        self,
        *warnings: str,
        ends: Sequence[str] = (),
        besides: str | None = None,
        things: Sequence[int] = (3,),
        connections: int = 1,
        late: int = 1,
        budget: float = BUDGET_SECONDS,
    ) -> None:
        """Wait until a poll that began after the end of the fault is pushed, and check the observations.

        `warnings` matches every record above INFO, in order; `ends` matches every record that announces an
        end. Records that match `besides` are ignored. `late` ticks may still fail: the one under way.
        """
        polled = self._polled
        if self._healed is None:
            self.healed()
        assert self._healed is not None
        since, bad = self._healed
        assert eventually(lambda: (polled.value("pace") or 0) > since * 1000), polled.process
        assert self._bad() - bad <= late, f"more than the tick under way failed: {self.more()}"
        assert eventually(lambda: all(polled.stale(query) == 0 for query in polled.queries)), polled.process
        self._check_log(warnings, ends, besides)
        self._check_values(things)
        watch = polled.watch
        assert watch.checks > 0
        assert watch.most <= connections, sorted(watch.seen)
        # The server ends transactions itself if the network fails; see transaction_timeout in
        # `postgres.transaction`.
        assert watch.oldest <= budget + TransactionLimits(1.0).patience
        assert eventually(lambda: all(backend.state == "idle" for backend in watch.now())), watch.now()
        assert all(backend.transaction_age is None for backend in watch.now() if backend.state == "idle")

    def _check_log(self, warnings: Sequence[str], ends: Sequence[str], besides: str | None) -> None:
        def messages(*severities: str) -> list[str]:
            every = [r["message"] for r in self._records() if r["severity"] in severities]
            # Values are too old only if the fault lasts long enough; `withheld` checks that. And a busy
            # machine may skip a tick at any time.
            ignored = [WITHHELD, *([] if SKIPPED_TICK in warnings else [SKIPPED_TICK])]
            ignored += [besides] if besides else []
            return [
                message for message in every if not any(re.search(pattern, message) for pattern in ignored)
            ]

        def announced() -> list[str]:
            return [message for message in messages("INFO") if re.search(" (again|recovered) ", message)]

        assert eventually(lambda: len(announced()) >= len(ends)), (ends, str(self._polled.process))
        for logged, expected in ((messages("WARNING", "ERROR", "CRITICAL"), warnings), (announced(), ends)):
            assert len(logged) == len(expected), (logged, expected)
            for message, pattern in zip(logged, expected, strict=True):
                assert re.search(pattern, message), (message, pattern)
                assert "\n" not in message
        assert "Traceback" not in self._polled.process.stderr
        assert not [record for record in self._records() if "exception" in record]

    def _check_values(self, things: Sequence[int]) -> None:
        """Check that every value is that of a poll and every metric is declared."""
        polled = self._polled
        pushes = [request.points() for request in polled.receiver.requests()]
        values = {
            query: [p.value for points in pushes for p in points if p.metric == query]
            for query in polled.queries
        }
        assert set(values.get("things", things)) <= set(things)
        pace = [value for value in values["pace"] if isinstance(value, int)]
        assert len(pace) == len(values["pace"])
        assert pace == sorted(pace)
        good = sum(n for key, n in self.more().items() if key[:2] == ("pace", "ok"))
        assert len(set(pace)) <= good + 1
        strange = {p.metric for points in pushes for p in points if not p.metric.startswith("poller.")}
        assert strange <= set(polled.queries)

    def _bad(self) -> int:
        """Return the number of polls of `pace` without a value."""
        return sum(n for key, n in self._polled.polls().items() if key[0] == "pace" and key[1] != "ok")

    def _records(self) -> list[Json]:
        return self._polled.records(self._after)

    def _said(self, pattern: str, severity: str) -> list[Json]:
        return [r for r in self._records() if r["severity"] == severity and re.search(pattern, r["message"])]


@contextmanager
def polling(
    folder: Path,
    dsn: str,
    watched: Sequence[str],
    *,
    queries: Mapping[str, str] = USUAL,
    fields: Mapping[str, Mapping[str, object]] | None = None,
    name: str = NAME,
    **environment: str,
) -> Iterator[Polled]:
    """Run `poller run` on `dsn`, once a second, under a watch on the servers `watched`."""
    with Receiver(keep=400) as receiver, Watch(*watched, name=name) as watch:
        process = Process(
            [sys.executable, "-m", "poller", "run"],
            env={
                "POLLER_DATABASE_URL": dsn,
                "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
                "POLLER_QUERIES": write(folder, queries, **(fields or {})),
                "POLLER_INSTANCE": "test",
                "POLLER_EXPORT_INTERVAL": "200ms",
                "POLLER_LOG_FORMAT": "json",
                "POLLER_LOCK_TIMEOUT": "200ms",
                "POLLER_CONNECT_TIMEOUT": "2s",
                "POLLER_MAX_DUTY_CYCLE": "100%",
                **environment,
            },
        )
        try:
            yield Polled(process, receiver, watch, tuple(queries))
        finally:
            process.close()
