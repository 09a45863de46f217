"""Scheduler of the ticks of all targets, whose schedules can be replaced at any time."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from poller.daemon.first_polls import FirstPolls
from poller.daemon.server_queues import QueueConfig, ServerQueues, TurnOutcome, Waiting, outcome_of
from poller.daemon.target_ticks import TargetTicks
from poller.daemon.targets_log import TargetsLog
from poller.daemon.timer import Entry, Timer
from poller.model.duration import format_duration
from poller.model.errors import PollError
from poller.model.leader import NO_ELECTION, Leadership
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.retry import RETRY, RetryConfig
from poller.model.tick import Tick

logger = logging.getLogger(__name__)

_OVERDUE_SECONDS = 2.0
_HUNG_SECONDS = 60.0


class Pollable(Protocol):
    """One target as the scheduler uses it: `daemon.target_poller.TargetPoller`, except in tests."""

    @property
    def name(self) -> str:
        """Name of the target; empty if it is the only one."""

    @property
    def connections(self) -> int:
        """Maximum number of connections to its server at the same time."""

    def server(self) -> str:
        """Return the server that the target is on now; equal for all targets of one server."""

    def run(
        self, queries: Sequence[QueryDefinition], on_server: Callable[[], None], /
    ) -> Sequence[PollResult]:
        """Poll the queries of one tick and store the results; call `on_server` when the server answers."""

    def fail(self, queries: Sequence[QueryDefinition], error: PollError, /) -> None:
        """Record that the queries failed without a try."""

    def overran(self, tick: str, /) -> None:
        """Count a tick that was omitted because its previous run has not ended."""

    def rest(self, seconds: float, /) -> None:
        """Release what only polls need, because the next poll is due in `seconds`."""


@dataclass(slots=True)
class _Schedule:
    """One target, its ticks, and how its last turn ended."""

    target: Pollable
    ticks: TargetTicks = field(default_factory=TargetTicks)
    refusals: int = 0
    """Number of successive turns in which the server refused the target."""
    error: PollError | None = None
    """Why the last turn reached no server, or was refused."""


class PollScheduler:
    """Runs every tick of every target at its time, in the order of `ServerQueues`.

    In its turn a target runs all its due ticks, one after the other on one connection. A tick that is still
    running when it is due again is omitted and counted, and several missed runs are combined into one. A
    server that does not answer, and a target that its server refuses, are tried again soon, with pauses that
    double. Meanwhile due ticks of a server with several targets fail without a try.
    """

    def __init__(
        self,
        queues: QueueConfig,
        *,
        on_tick: Callable[[], None] = lambda: None,
        on_first_polls: Callable[[], None] = lambda: None,
        leadership: Leadership = NO_ELECTION,
        spacing: float = 10.0,
        patience: float = math.inf,
        refusal_retry: RetryConfig = RETRY,
    ) -> None:
        """Prepare; nothing runs before `start`.

        `on_tick` is called after each tick. `on_first_polls` is called after queries were polled for the
        first time since the start or a replacement: after the first of them, after the last, and in between
        at most every `spacing` seconds, so that many ticks cause few exports. A tick whose turn comes while
        this process does not lead is omitted. A tick that runs for `patience` seconds more than its interval
        counts as hung. `refusal_retry` has the pauses between two tries of a target that its server refuses.
        """
        self._queues = ServerQueues(queues)
        self._on_tick = on_tick
        self._first_polls = FirstPolls(on_first_polls, spacing)
        self._leadership = leadership
        self._patience = patience
        self._refusal_retry = refusal_retry
        self._lock = threading.RLock()
        """Guards the state below; held for moments only."""
        self._idle = threading.Condition(self._lock)
        self._schedules: dict[str, _Schedule] = {}
        self._check_at = -math.inf
        """Time of the next check of the turns, because one may have stopped counting (monotonic seconds)."""
        self._log = TargetsLog()
        self._doing: dict[str, tuple[Entry, float, float]] = {}
        """The tick in progress of each target, its start (monotonic) and the seconds that it may take."""
        self._overdue_since: float | None = None
        self._started = False
        self._stopping = False
        self._timer = Timer(self._on_due)
        self._pool = ThreadPoolExecutor(queues.workers + queues.most_unanswered, "poll")

    def start(self) -> None:
        """Run every tick with fresh queries once now, and then all on their schedules."""
        with self._lock:
            self._started = True
        self._timer.start()
        self._dispatch()

    def replace(self, target: Pollable, ticks: Sequence[Tick], fresh: Collection[str]) -> None:
        """Add a target, or replace its ticks; the queries named in `fresh` are polled once immediately.

        A tick whose name stays keeps its next time. A tick in progress ends with its old queries.
        """
        with self._lock:
            schedule = self._schedules.setdefault(target.name, _Schedule(target))
            schedule.target = target
            replaced = schedule.ticks.replace(ticks, fresh)
            for gone in replaced.removed:
                self._leave(Entry(target.name, gone))
            for tick in replaced.fresh:
                # Until the poller is ready, it also awaits the databases that the first lists contain.
                at_start = tick.schedule is None and not (self._started and self.ready)
                self._first_polls.expect(Entry(target.name, tick.name), at_start=at_start)
            for tick in replaced.added:
                self._timer.enter(Entry(target.name, tick.name), tick, time.time())
        self._offer(target.name)
        self._report_first_polls()

    def remove(self, name: str) -> None:
        """Remove a target; a tick in progress ends as usual."""
        with self._lock:
            if schedule := self._schedules.pop(name, None):
                for gone in schedule.ticks.replace([], []).removed:
                    self._leave(Entry(name, gone))
                self._queues.remove(name)
        self._dispatch()  # its server may have more connections for the others now
        self._report_first_polls()

    def stop(self, interrupt: Callable[[], None], timeout: float) -> bool:
        """Start no further tick, interrupt the others and wait at most `timeout` seconds for their end.

        Returns whether no tick is in progress any more.
        """
        self._stopping = True
        interrupt()
        self._timer.stop()
        idle = self.wait_until_idle(timeout)
        self._pool.shutdown(wait=False)
        return idle

    def wait_until_idle(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until no tick is in progress; return whether none is."""
        with self._lock:
            return self._idle.wait_for(lambda: not self._doing, timeout)

    @property
    def ready(self) -> bool:
        """Whether every tick of the start without a schedule has ended once, with any result."""
        return self._first_polls.ready

    @property
    def awaited(self) -> list[Entry]:
        """The ticks of the start that have not ended yet."""
        with self._lock:
            return self._first_polls.awaited

    def last_runs(self) -> dict[Entry, tuple[Tick, float | None]]:
        """Return each tick and the end of its last run (seconds since 1970) or None."""
        with self._lock:
            return {
                Entry(target, tick.name): (tick, end)
                for target, schedule in self._schedules.items()
                for tick, end in schedule.ticks.ends
            }

    def next_runs(self, target: str = "") -> dict[str, float]:
        """Return the time of the next poll of each query of a target, by its name, in seconds since 1970."""
        with self._lock:
            schedule = self._schedules.get(target)
            ticks = list(schedule.ticks) if schedule else []
            retry_at = self._queues.retry_at(target)
            due = schedule.ticks.due if schedule and retry_at is not None else []
        result = {}
        for tick in ticks:
            at = self._timer.next_run(Entry(target, tick.name))
            if retry_at is not None and tick in due:
                retry = time.time() + max(0.0, retry_at - time.monotonic())
                at = retry if at is None else min(at, retry)
            if at is not None:
                result.update(dict.fromkeys((query.name for query in tick.queries), at))
        return result

    def waiting(self) -> Waiting:
        """Return the targets that wait for a connection now."""
        with self._lock:
            return self._queues.all_waiting(time.monotonic())

    def stuck(self, now: float) -> str | None:
        """Return why the scheduler or a tick counts as hung at `now` (monotonic seconds); None if none does.

        The limit of a tick is above all timeouts of the replica, so no unreachable or hanging server exceeds
        it. The call also wakes a timer that is overdue, and corrects the schedule after the clock was set
        back.
        """
        if self._stopping:
            return None
        with self._lock:
            ticks = [
                (Entry(target, tick.name), tick)
                for target, schedule in self._schedules.items()
                for tick in schedule.ticks
            ]
            doing = list(self._doing.values())
        self._timer.set_right(ticks, time.time())
        for entry, since, longest in doing:
            if now - since > longest:
                return f"tick {entry.tick} runs for {format_duration(round(now - since))}"
        if self._timer.until_next() > -_OVERDUE_SECONDS:
            self._overdue_since = None
            return None
        self._timer.wake()
        self._overdue_since = self._overdue_since or now
        late = now - self._overdue_since
        return f"no tick was started for {format_duration(round(late))}" if late > _HUNG_SECONDS else None

    def _on_due(self, entry: Entry) -> None:
        """Queue a tick for a regular run, on the timer's thread."""
        with self._lock:
            schedule = self._schedules.get(entry.target)
            tick = schedule.ticks.get(entry.tick) if schedule else None
            if schedule is None or tick is None or self._stopping:
                return
            runs = schedule.ticks.running == tick.name
            overrun = schedule.ticks.note_due(tick.name)
        error = self._offer(entry.target, due=True)
        if error is not None and not runs:
            self._fail(schedule, [tick], error)
        elif overrun:
            self._overran(schedule, tick.name)

    def _offer(self, name: str, *, due: bool = False) -> PollError | None:
        """Queue a target that has due ticks, and start the turns that may begin.

        Return why a tick that is `due` fails without a try: its server is in quarantine. The only target of a
        server is always tried when a tick is due.
        """
        schedule = self._schedules.get(name)
        server = schedule.target.server() if schedule else ""  # without the lock, because it may read a file
        error, others = None, list[str]()
        with self._lock:
            if schedule is not None and self._schedules.get(name) is schedule:
                connections = schedule.target.connections
                if self._queues.place(name, server, connections) and self._started:
                    others = self._queues.others_on_server(name)
                if schedule.ticks.due:
                    self._queues.offer(name, server, connections, time.monotonic())
                error = self._queues.error(name)
                if due and self._queues.is_alone(name):
                    self._queues.wake(server, early=True)
                    error = None
        if len(others) == 1 and (other := self._schedules.get(others[0])):
            self._rest(other)  # the only target of a server may have kept its connection
        self._dispatch()
        return error

    def _wake(self, server: str) -> None:
        """Try a server again, because its pause is over."""
        with self._lock:
            retry_at = self._queues.wake(server)
        if retry_at is not None and (left := retry_at - time.monotonic()) > 0:
            self._timer.call(f"server {server}", left, self._wake, server)  # the clock was set forward
        self._dispatch()

    def _dispatch(self) -> None:
        """Start every turn that may begin now."""
        with self._lock:
            if not self._started or self._stopping:
                return
            now = time.monotonic()
            while (name := self._queues.take(now)) is not None:
                self._pool.submit(self._turn, name)
            check_at = self._queues.next_check(now)
            planned = check_at is not None and not now < self._check_at <= check_at
            self._check_at = check_at if check_at is not None and planned else self._check_at
        if check_at is not None and planned:
            self._timer.call("check of turns", check_at - now, self._dispatch)

    def _turn(self, name: str) -> None:
        """Run the due ticks of a target, on a thread of the pool."""
        outcome: TurnOutcome = "none"
        schedule = self._schedules.get(name)
        target = schedule.target if schedule else None
        try:
            if schedule is not None:
                outcome = self._run_all(schedule)
        except Exception:  # a defect of the poller must not stop the other ticks
            logger.exception("the ticks of a target failed because of a defect of the poller")
        finally:
            self._finish(name, schedule, target, outcome)

    def _run_all(self, schedule: _Schedule) -> TurnOutcome:
        """Run the due ticks of a target; if its server cannot be reached, the rest fails without a try."""
        outcome: TurnOutcome = "none"
        with self._lock:
            due = schedule.ticks.due
        for number, tick in enumerate(due, 1):
            result = self._run(schedule, tick.name)
            outcome = outcome if result == "none" else result
            if outcome not in ("none", "reached"):
                left = [other for tick in due[number:] if (other := schedule.ticks.get(tick.name))]
                if left and schedule.error is not None:
                    self._fail(schedule, left, schedule.error)
                break
        return outcome

    def _run(self, schedule: _Schedule, name: str) -> TurnOutcome:
        """Run one tick; return how its server answered."""
        target = schedule.target
        entry = Entry(target.name, name)
        with self._lock:
            run = schedule.ticks.take(name)
            self._first_polls.begin(entry)
            if run is None:  # the tick was removed, or its queries are in another one
                return "none"
            if self._stopping or not self._leadership.leads:
                return "none"
            schedule.ticks.running = name
            self._doing[target.name] = entry, time.monotonic(), run.tick.interval + self._patience
        outcome: TurnOutcome = "none"
        try:
            results = target.run(run.queries, lambda: self._queues.note_answer(target.name))
            outcome, schedule.error = outcome_of(results)
        except Exception:
            logger.exception("tick %s failed because of a defect of the poller", name)
        with self._lock:
            del self._doing[target.name]
            self._idle.notify_all()
            # Once more, when the server is available.
            schedule.ticks.end(run, retry=outcome not in ("none", "reached"))
        self._ended(schedule, [run.tick], first=run.fresh)
        return outcome

    def _finish(
        self, name: str, schedule: _Schedule | None, target: Pollable | None, outcome: TurnOutcome
    ) -> None:
        """End the turn of a target, and plan when its server or the target is tried again.

        If the target was replaced meanwhile, its turn says nothing about the new one.
        """
        failing: list[tuple[_Schedule, list[Tick]]] = []
        if not self._stopping and (rested := self._schedules.get(name)) is not None:
            self._rest(rested)  # before another target may use its connection
        with self._lock:
            current = self._schedules.get(name)
            replaced = current is None or current.target is not target
            if replaced and outcome != "reached":
                outcome = "none"
            now = time.monotonic()
            error = schedule.error if schedule is not None else None
            turn = self._queues.finish(name, outcome, now, error)
            if current is None:
                self._queues.remove(name)
            if schedule is not None and outcome != "none":
                refused, schedule.refusals = schedule.refusals, 0
                if outcome == "refused":
                    schedule.refusals = refused + 1
                    pause = self._refusal_retry.pause(refused)
                    self._timer.call(f"refused {name}", pause, self._offer, name)
                if turn.retry_at is not None:
                    pause = max(0.0, turn.retry_at - now)
                    self._timer.call(f"server {turn.server}", pause, self._wake, turn.server)
            if turn.quarantine_began:
                others = (self._schedules.get(other) for other in self._queues.waiting(turn.server))
                failing = [(other, other.ticks.due) for other in others if other and other is not schedule]
            is_due = current is not None and current.ticks.due != []
        if name and turn.quarantine_began and error is not None:
            self._log.unavailable(turn.server, error, len(failing))
        elif name and turn.quarantine_lasted is not None:
            self._log.available(turn.server, turn.quarantine_lasted)
        for other, ticks in failing:
            self._fail(other, ticks, error or PollError("unavailable", "the server is unavailable"))
        if is_due and (replaced or outcome != "refused"):
            self._offer(name)  # another tick was due meanwhile, or the target is on another server
        else:
            self._dispatch()

    def _fail(self, schedule: _Schedule, ticks: Sequence[Tick], error: PollError) -> None:
        """Record that ticks failed without a try."""
        try:
            for tick in ticks:
                schedule.target.fail(tick.queries, error)
        except Exception:  # a defect of one target must not stop the others
            logger.exception("a failure could not be recorded because of a defect of the poller")
        with self._lock:
            first = schedule.ticks.are_fresh(ticks)
        self._ended(schedule, ticks, first=first)

    def _ended(self, schedule: _Schedule, ticks: Sequence[Tick], *, first: bool) -> None:
        with self._lock:
            schedule.ticks.note_ends(ticks, time.time())
            self._first_polls.end((Entry(schedule.target.name, tick.name) for tick in ticks), first=first)
        if not self._stopping:
            self._on_tick()
        self._report_first_polls()

    def _rest(self, schedule: _Schedule) -> None:
        name = schedule.target.name
        with self._lock:
            alone = self._queues.is_alone(name)
            ticks = [Entry(name, tick.name) for tick in schedule.ticks] if alone else []
        due = (self._timer.next_run(entry) for entry in ticks)
        at = min((run for run in due if run is not None), default=math.inf)
        try:
            schedule.target.rest(at - time.time())
        except Exception:  # the same
            logger.exception("a connection could not be closed because of a defect of the poller")

    def _report_first_polls(self) -> None:
        with self._lock:
            report = None if self._stopping else self._first_polls.due()
        if report is not None:
            report()

    def _overran(self, schedule: _Schedule, tick: str) -> None:
        with self._lock:
            times = schedule.ticks.skip(tick)
        if not schedule.target.name:
            level = logging.WARNING if times == 1 else logging.DEBUG
            logger.log(level, "tick %s skipped: the previous one is still running", tick)
        else:
            self._log.skipped(f"{tick} of target {schedule.target.name}")
        schedule.target.overran(tick)

    def _leave(self, entry: Entry) -> None:
        """Stop running a tick."""
        self._timer.leave(entry)
        self._first_polls.end([entry], first=False)
