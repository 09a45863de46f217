"""Scheduler of the ticks, with one worker and a schedule that can be replaced between two runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Protocol

from poller.daemon.timer import Timer
from poller.model.duration import format_duration
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.retry import RETRY, RetryConfig
from poller.model.tick import Tick

logger = logging.getLogger(__name__)

_OVERDUE_SECONDS = 2.0
_HUNG_SECONDS = 60.0


class Poll(Protocol):
    """Function that polls one tick's queries, stores their results and returns them."""

    def __call__(self, queries: Sequence[QueryDefinition]) -> Sequence[PollResult]: ...


class PollScheduler:
    """One worker that runs every tick at its time, one after the other.

    There is one worker because there is one connection. Ticks that are due together run one after the other.
    A tick that is still running when it is due again is skipped and counted, and several missed runs are
    combined into one. A tick that found no server is retried soon, with pauses that double up to a minute.
    """

    def __init__(
        self,
        ticks: Sequence[Tick],
        poll: Poll,
        *,
        rest: Callable[[float], None] = lambda _: None,
        on_overrun: Callable[[str], None] = lambda _: None,
        on_first_polls: Callable[[], None] = lambda: None,
        spacing: float = 10.0,
        patience: float = 900.0,
        retry: RetryConfig = RETRY,
    ) -> None:
        """Prepare the schedule; nothing runs before `start`.

        After each tick `rest` is called with the seconds until the next run. `on_first_polls` is called on
        the worker's thread after queries were polled for the first time since the start or a swap: after the
        first of them, after the last, and in between at most every `spacing` seconds, so that many ticks
        cause few exports. A tick that runs for `patience` seconds more than its interval counts as hung.
        A tick that found no server runs again after the pauses of `retry`.
        """
        self._planned = ticks
        self._poll = poll
        self._rest = rest
        self._on_overrun = on_overrun
        self._on_first_polls = on_first_polls
        self._spacing = spacing
        self._patience = patience
        self._retry = retry
        self._ticks: dict[str, Tick] = {}
        self._fresh: dict[str, set[str]] = {}
        self._first_polls = False
        self._first_polls_reported: float | None = None
        self._ended: dict[str, float] = {}
        self._awaited = {tick.name for tick in ticks}
        self._doing: tuple[str, float, float] | None = None
        self._overdue_since: float | None = None
        self._failures: dict[str, int] = {}
        self._skips: dict[str, int] = {}
        self._idle = threading.Event()
        self._idle.set()
        self._stopping = False
        self._timer = Timer(self._run, self._overran)

    def start(self) -> None:
        """Run every tick once now, and then on its schedule."""
        self._replace_ticks(self._planned, {query.name for tick in self._planned for query in tick.queries})
        self._timer.start()

    def swap(self, ticks: Sequence[Tick], fresh: Collection[str], act: Callable[[], None]) -> bool:
        """Replace the ticks and call `act` between two runs; wait until that is done.

        A tick whose name stays keeps its next time. The queries named in `fresh` are polled once immediately.
        Returns False if the scheduler is stopped first. Raises the errors of `act`.
        """
        done: Future[None] = Future()
        self._timer.once(self._swap, ticks, fresh, act, done)
        while not self._stopping and not done.done():
            wait([done], timeout=0.5)
        if not done.done():
            return False
        done.result()
        return True

    def stop(self, interrupt: Callable[[], None], timeout: float) -> bool:
        """Start no further tick, interrupt the running tick and wait at most `timeout` seconds for its end.

        Returns whether the worker is idle.
        """
        self._stopping = True
        interrupt()
        self._timer.stop()
        return self._idle.wait(timeout)

    @property
    def ready(self) -> bool:
        """Whether every tick has run once since the start, with any result."""
        return not self._awaited

    def last_runs(self) -> dict[str, tuple[float, float | None]]:
        """Return each tick's interval (seconds) and the end of its last run (seconds since 1970) or None."""
        return {name: (tick.interval, self._ended.get(name)) for name, tick in self._ticks.items()}

    def next_runs(self) -> dict[str, float]:
        """Return the time of each query's next poll, by its name, in seconds since 1970."""
        due = ((tick, self._timer.next_run(tick.name)) for tick in self._ticks.values())
        return {query.name: at for tick, at in due if at is not None for query in tick.queries}

    def stuck(self, now: float) -> str | None:
        """Return why scheduler or worker count as hung at `now` (monotonic seconds); None if neither does.

        The worker's limit is above all timeouts of the replica, so no unreachable or hanging server exceeds
        it. The call also wakes a scheduler that is overdue, and corrects the schedule after the clock was set
        back.
        """
        if self._stopping:
            return None
        self._timer.set_right(self._ticks.values(), time.time())
        if (doing := self._doing) and now - doing[1] > doing[2]:
            return f"{doing[0]} runs for {format_duration(round(now - doing[1]))}"
        if self._timer.until_next() > -_OVERDUE_SECONDS:
            self._overdue_since = None
            return None
        self._timer.wake()
        self._overdue_since = self._overdue_since or now
        late = now - self._overdue_since
        return f"no tick was started for {format_duration(round(late))}" if late > _HUNG_SECONDS else None

    def _replace_ticks(self, ticks: Sequence[Tick], fresh: Collection[str]) -> None:
        before, self._ticks = self._ticks, {tick.name: tick for tick in ticks}
        for gone in before.keys() - self._ticks.keys():
            self._timer.leave(gone)
            self._awaited.discard(gone)
            for known in (self._fresh, self._ended, self._failures, self._skips):
                known.pop(gone, None)
        for number, tick in enumerate(ticks):
            if names := {query.name for query in tick.queries}.intersection(fresh):
                self._fresh.setdefault(tick.name, set()).update(names)
                self._timer.once(self._run_fresh, tick.name, number=number)
            if tick.name not in before:
                self._timer.enter(tick, time.time())

    def _swap(
        self, ticks: Sequence[Tick], fresh: Collection[str], act: Callable[[], None], done: Future[None]
    ) -> None:
        with self._busy("a reload", self._patience) as allowed:
            if not allowed:
                return
            try:
                act()
                self._replace_ticks(ticks, fresh)
                self._report_first_polls()  # the awaited ticks may have been removed
                self._rest(self._timer.until_next())
            except Exception as error:  # noqa: BLE001 - raised again where the swap was requested
                done.set_exception(error)
            else:
                done.set_result(None)

    def _run_fresh(self, name: str) -> None:
        """Poll the new queries of a tick, unless the whole tick was polled meanwhile."""
        if (tick := self._ticks.get(name)) and (fresh := self._fresh.get(name)):
            self._poll_now(tick, [query for query in tick.queries if query.name in fresh])

    def _run(self, name: str) -> None:
        # By name, because a swap may have replaced the tick while it waited in the worker's queue.
        if tick := self._ticks.get(name):
            self._poll_now(tick, tick.queries)

    def _poll_now(self, tick: Tick, queries: Sequence[QueryDefinition]) -> None:
        skips = self._skips.get(tick.name, 0)
        with self._busy(f"tick {tick.name}", tick.interval + self._patience) as allowed:
            if not allowed:
                return
            first = self._fresh.pop(tick.name, None)
            if not queries:  # a swap moved them to another tick
                self._report_first_polls()
                return
            try:
                results = self._poll(queries)
                if not self._stopping:
                    self._plan_retry(tick, results)
                    self._rest(self._timer.until_next())
            except Exception:  # a defect in this tick must not stop the others
                logger.exception("tick %s failed because of a defect of the poller", tick.name)
            self._ended[tick.name] = time.time()
            self._awaited.discard(tick.name)
            if self._skips.get(tick.name, 0) == skips:
                self._skips.pop(tick.name, None)  # the tick keeps up again; the next skip is a warning
            self._first_polls |= bool(first)
            self._report_first_polls()

    def _report_first_polls(self) -> None:
        if not self._first_polls or self._stopping:
            return
        now, last = time.monotonic(), self._first_polls_reported
        if not self._fresh or last is None or now - last >= self._spacing:
            self._first_polls, self._first_polls_reported = False, now
            self._on_first_polls()

    @contextmanager
    def _busy(self, doing: str, longest: float) -> Iterator[bool]:
        """Make `stop` wait for the block; yields whether the scheduler still runs."""
        self._idle.clear()
        self._doing = (doing, time.monotonic(), longest)
        try:
            # Read after `_idle` is cleared, so that `stop` either waits for this run or prevents it.
            yield not self._stopping
        finally:
            self._doing = None
            self._idle.set()

    def _plan_retry(self, tick: Tick, results: Sequence[PollResult]) -> None:
        # Only if no query was sent, because a query that kills its backend must not run every second.
        if not any(
            result.error and result.error.kind == "unavailable" and result.error.unsent for result in results
        ):
            self._failures.pop(tick.name, None)
            return
        failures = self._failures.get(tick.name, 0)
        self._failures[tick.name] = failures + 1
        self._timer.again(tick.name, time.time() + self._retry.pause(failures))

    def _overran(self, tick: str) -> None:
        times = self._skips[tick] = self._skips.get(tick, 0) + 1
        level = logging.WARNING if times == 1 else logging.DEBUG
        logger.log(level, "tick %s skipped: the previous one is still running", tick)
        self._on_overrun(tick)
