"""Leader election: whether this process polls, by a lock with a lease and its own clock."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from poller.daemon.health import clock
from poller.model.duration import format_duration
from poller.model.errors import ConfigError
from poller.model.leader import LeaderLock, LockError

logger = logging.getLogger(__name__)

_FIRST_ATTEMPT_SECONDS = 5.0
"""Longest time that the start waits for the first attempt, whose ConfigError ends the process."""

LeaderState = Literal["follower", "leader", "resigning"]
"""State of this process in the election.

follower   another process leads, or none; this one polls nothing and tries to become the leader
leader     this process polls and exports the values
resigning  this process polls nothing any more; it ends its ticks, pushes what it still may, frees the lock
"""


class ElectionConfig(NamedTuple):
    """Times of an election, all derived from the lease, in seconds."""

    lease: float
    """Time after the last confirmation at which the lock becomes free; the same in all processes."""

    @property
    def heartbeat(self) -> float:
        """Time between two confirmations, and between two attempts of a follower."""
        return self.lease / 3

    @property
    def tenure(self) -> float:
        """Time after the last confirmation during which the process leads; shorter than the lease."""
        return 0.8 * self.lease

    @property
    def pause(self) -> float:
        """Time between two attempts to confirm, when the lock does not answer."""
        return min(1.0, self.lease / 12)

    @property
    def step(self) -> float:
        """Longest time until a stop, the end of a session or a sleep of the machine is noticed."""
        return min(0.5, self.lease / 12)

    @property
    def settling(self) -> float:
        """Time between the acquisition of the lock and the first poll.

        It is enough for the previous leader to notice that its server has ended its session.
        """
        return 2 * self.step


class LeaderStatus(NamedTuple):
    """State of the election as people see it."""

    state: LeaderState
    since: float
    """Seconds since 1970."""
    name: str
    holder: str
    """The leader, if it is another process and known."""
    why: str
    """The last reason for a change or for not leading."""


class LeaderElection:
    """Keeps trying to hold the lock, and says at any moment whether this process may poll (`Leadership`).

    The process leads only until its deadline: the time at which the last successful confirmation was *sent*,
    plus 0.8 leases. A silent holder's lock becomes free more than 0.9 leases after it was received. So two
    processes do not lead at the same time, as long as no clock runs a tenth faster than another. A lock that
    is freed early, because its server restarts or an operator ends the session, is an exception: the process
    notices it within a step, and a new leader waits for two; or at its deadline if the link is cut as well.
    The clock includes sleep, so a process that was stopped or suspended does not lead when it continues.
    """

    def __init__(
        self,
        lock: LeaderLock,
        config: ElectionConfig,
        on_change: Callable[[bool], None],
        *,
        on_reason: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; `on_change` is called with whether this process leads, soon after each change.

        `on_reason` is called after the reason why this process does not lead has changed.
        """
        self._lock = lock
        self._config = config
        self._on_change = on_change
        self._on_reason = on_reason
        self._deadline = -math.inf
        self._state: LeaderState = "follower"
        self._since = time.time()
        self._why = "it has not tried yet"
        self._problem = ""
        """Why the lock does not answer; empty if it does."""
        self._holder: str | None = None
        self.changes = 0
        """Number of times that this process became the leader or ceased to be it."""
        self._call: _LockCall | None = None
        """A call that may not have ended yet."""
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="election", daemon=True)

    @property
    def leads(self) -> bool:
        """Whether this process may poll and export values at this moment."""
        return clock() < self._deadline and not self._ended.is_set()

    @property
    def polls(self) -> bool:
        """Whether this process leads and does not resign: before its end it exports, but does not poll."""
        return self.leads and self._state == "leader"

    @property
    def status(self) -> LeaderStatus:
        """The state for people and probes."""
        holder = "" if self._state == "leader" else self._holder or ""
        return LeaderStatus(self._state, self._since, self._lock.name, holder, self._why)

    def start(self) -> None:
        """Make the first attempt now and continue in a thread; raises ConfigError if it can never succeed."""
        self._try_to_lead(clock(), min(self._config.heartbeat, _FIRST_ATTEMPT_SECONDS))
        self._thread.start()

    def resign(self) -> None:
        """Begin to stop: keep the lock for the last export until `release`, but do not acquire it again."""
        self._stopping.set()
        if self._state == "leader":
            self._change("resigning", "the process stops")

    def release(self, within: float) -> None:
        """Cease to lead now and free the lock within so many seconds, so that another process can lead."""
        ends = clock() + within
        self._stopping.set()
        self._ended.set()
        self._thread.join(within)
        if self._call is None or not self._call.is_alive():
            call = _LockCall(self._lock.release)
            call.start()
            call.join(max(0.1, ends - clock()))

    def _run(self) -> None:
        while not self._ended.is_set():
            sent = clock()
            try:
                if self._deadline > -math.inf:
                    self._confirm(sent)
                elif not self._stopping.is_set():
                    self._try_to_lead(sent)
            except ConfigError as error:  # the server has changed since the start
                self._not_answered(LockError("; ".join(map(str, error.problems))))
            except Exception:  # the election must go on
                logger.exception("the election failed because of a defect of the poller")
            until = sent + self._config.heartbeat
            if self._deadline > -math.inf:
                until = min(self._deadline, sent + self._config.pause if self._problem else until)
            self._rest(until)

    def _rest(self, until: float) -> None:
        """Wait in steps, because a wait does not count sleep; end early if the lock may be lost."""
        while (left := until - clock()) > 0 and not self._ended.wait(min(left, self._config.step)):
            if self._deadline > -math.inf and (not self.leads or self._lock.may_be_lost()):
                return

    def _try_to_lead(self, sent: float, within: float = math.inf) -> None:
        """Try to become the leader; raises ConfigError."""
        try:
            if (call := self._try(self._lock.acquire, within)) is not None:
                self._acquired(sent, acquired=bool(call.result()))
        except LockError as error:
            self._not_answered(error)

    def _acquired(self, sent: float, *, acquired: bool) -> None:
        if self._problem:
            logger.info("the leader lock answers again", extra=self._extra())
            self._problem = ""
        if acquired:
            self._holder = None
            self._ended.wait(self._config.settling)
            # An answer that is too late begins no lease; the next attempt does.
            if not self._stopping.is_set() and clock() < sent + self._config.tenure:
                self._deadline = sent + self._config.tenure
                self._change("leader", "it holds the lock")
            return
        if self._lock.holder == self._holder:
            return
        self._holder = self._lock.holder
        self._why = f"{self._holder or 'another process'} holds the lock"
        if self._holder == self._lock.identity:
            self._why = f"an earlier session of this process, or another {self._holder}, holds the lock"
            logger.warning(
                "the lock is held in the name of this process: by its earlier session, which the server ends "
                "within %s, or by another process with the same POLLER_INSTANCE; this one follows",
                format_duration(self._config.lease),
                extra=self._extra() | {"hint": "give each process a POLLER_INSTANCE of its own"},
            )
        else:
            logger.info("another process holds the lock; this one follows", extra=self._extra())
        self._on_reason()

    def _not_answered(self, error: LockError) -> None:
        self._holder = None
        if not self._problem:
            more = {"hint": error.hint} if error.hint else {}
            logger.warning(
                "the leader lock does not answer: %s; this process cannot become the leader",
                error,
                extra=self._extra() | more,
            )
            self._on_reason()
        self._problem = self._why = str(error)

    def _confirm(self, sent: float) -> None:
        """Confirm the lock before the deadline; otherwise cease to lead."""
        left = self._deadline - sent
        try:
            call = self._try(lambda: self._lock.renew(left), left) if left > 0 else None
            if call is not None:
                call.result()
                if self.leads:  # a deadline that has passed ends the leadership: ticks were omitted
                    self._deadline = max(self._deadline, sent + self._config.tenure)
                    self._problem = ""
        except LockError as error:
            if error.lost:
                self._lose(f"{error}; {error.hint}" if error.hint else str(error))
                return
            if not self._problem:
                logger.warning(
                    "leadership not confirmed, it will be retried: %s; this process leads for %s more",
                    error,
                    format_duration(round(left, 1)),
                    extra=self._extra(),
                )
            self._problem = str(error)
        if not self.leads and not self._ended.is_set():
            self._lose(f"not confirmed in time: {self._problem or 'no answer'}")

    def _lose(self, why: str) -> None:
        self._deadline = -math.inf
        self._problem, self._holder = "", None
        if self._state == "leader":
            self._change("follower", why)

    def _change(self, state: LeaderState, why: str) -> None:
        self._state, self._since, self._why = state, time.time(), why
        if state == "leader":
            self.changes += 1
            logger.info("this process leads now: it polls the targets", extra=self._extra())
        elif state == "follower":
            self.changes += 1
            logger.warning("leadership lost: %s; this process polls nothing", why, extra=self._extra())
        else:
            logger.info("resigning as the leader: %s", why, extra=self._extra())
        if state != "resigning":
            self._on_change(state == "leader")

    def _extra(self) -> dict[str, object]:
        return {"election": self._lock.name, **({"leader": self._holder} if self._holder else {})}

    def _try(self, act: Callable[[], object], within: float) -> _LockCall | None:
        """Run `act` in a thread; return it when it has ended, None after `within` seconds or at the stop.

        A call that does not end in time keeps its thread, and no other call begins before it ends.
        """
        deadline = clock() + within
        if self._call is not None and not self._wait_for(self._call, deadline):
            return None
        self._call = call = _LockCall(act)
        call.start()
        return call if self._wait_for(call, deadline) else None

    def _wait_for(self, call: _LockCall, deadline: float) -> bool:
        while call.is_alive():
            left = deadline - clock()
            if left <= 0 or self._ended.is_set():
                return False
            call.join(min(left, self._config.step))
        return True


class _LockCall(threading.Thread):
    """One call of a lock's method, whose outcome is taken with `result`."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__(name="election-call", daemon=True)
        self._act = act
        self._result: object = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._act()
        except BaseException as error:  # noqa: BLE001 - raised where the result is taken
            self._error = error

    def result(self) -> object:
        """Return what the call returned, or raise its error."""
        if self._error is not None:
            raise self._error
        return self._result
