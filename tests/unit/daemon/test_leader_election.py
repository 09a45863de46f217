"""The election: at most one leader at any moment, whatever the lock does, and no call that can block it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from poller.daemon.health import clock
from poller.daemon.leader_election import ElectionConfig, LeaderElection
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.leader import LockError
from tests.bed.process import eventually

CONFIG = ElectionConfig(0.6)


class Engine:
    """A lock service: the lease of the holder begins when a confirmation arrives, as on a server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.holder = ""
        self.free_at = 0.0

    def acquire(self, name: str) -> bool:
        with self._lock:
            if self.holder not in ("", name) and clock() < self.free_at:
                return False
            self.holder, self.free_at = name, clock() + CONFIG.lease
            return True

    def renew(self, name: str) -> None:
        with self._lock:
            if self.holder != name or clock() >= self.free_at:
                raise LockError("another one holds it", lost=True)
            self.free_at = clock() + CONFIG.lease

    def release(self, name: str) -> None:
        with self._lock:
            if self.holder == name:
                self.holder = ""


class Link:
    """One process's way to the engine, which can fail before or after the engine has acted, or hang."""

    name = "test"

    def __init__(self, engine: Engine, identity: str, fault: Callable[[], str]) -> None:
        self.engine = engine
        self.identity = identity
        self.fault = fault
        self.holder = ""
        self.ended = False
        """Whether the engine has ended the session."""
        self.hangs = threading.Event()
        """Set to end a call that hangs."""

    def acquire(self) -> bool:
        acquired = bool(self._through(lambda: self.engine.acquire(self.identity)))
        self.holder = "" if acquired else self.engine.holder
        return acquired

    def check(self) -> None:
        self._through(lambda: None)

    def renew(self, within: float) -> None:
        del within  # a call may take longer
        self._through(lambda: self.engine.renew(self.identity))

    def may_be_lost(self) -> bool:
        return self.ended

    def release(self) -> None:
        self.engine.release(self.identity)

    def _through(self, act: Callable[[], object]) -> object:
        fault = self.fault()
        if fault == "refused":
            raise LockError("refused")
        if fault == "defect":
            raise ZeroDivisionError
        if fault == "pooler":
            raise ConfigError([invalid("POLLER_LEADER_ELECTION", "a pooler")])
        if fault == "late":
            time.sleep(random.uniform(0, 1.5 * CONFIG.lease))
        if fault == "hang":
            self.hangs.wait(60)
        result = act()
        if fault == "answer lost":
            raise LockError("no answer")
        return result


StartElection = Callable[..., LeaderElection]


@pytest.fixture
def start_election() -> Iterator[StartElection]:
    elections: list[LeaderElection] = []
    links: list[Link] = []

    def start(
        link: Link, on_change: Callable[[bool], None] = lambda _: None, config: ElectionConfig = CONFIG
    ) -> LeaderElection:
        links.append(link)
        elections.append(LeaderElection(link, config, on_change))
        elections[-1].start()
        return elections[-1]

    yield start
    for link in links:
        link.hangs.set()
    for election in elections:
        election.release(60)


def test_two_processes_never_lead_at_the_same_time_whatever_the_lock_does(
    start_election: StartElection,
) -> None:
    engine = Engine()
    dice = random.Random(18)
    faults = [""]
    elections = [start_election(Link(engine, f"p{n}", lambda: dice.choice(faults))) for n in range(3)]
    faults += ["", "", "refused", "answer lost", "late", "defect", "pooler"]
    leaders: set[int] = set()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        leading = [number for number, election in enumerate(elections) if election.leads]
        assert len(leading) <= 1
        leaders.update(leading)
        time.sleep(0.0005)
    assert len(leaders) > 1  # otherwise nothing was tested


def test_a_call_that_never_returns_ends_the_leadership_at_the_deadline(start_election: StartElection) -> None:
    engine, changes = Engine(), list[bool]()
    fault = [""]
    link = Link(engine, "p", lambda: fault[0])
    election = start_election(link, changes.append)
    assert election.leads
    fault[0] = "hang"
    assert eventually(lambda: changes == [True, False])
    assert (election.leads, election.status.state) == (False, "follower")
    fault[0] = ""
    link.hangs.set()
    assert eventually(lambda: election.leads)
    assert election.changes == 3


def test_one_slow_or_failed_call_costs_no_leadership(start_election: StartElection) -> None:
    faults = iter(["", "refused", "answer lost", "refused", "", "refused"])
    changes = list[bool]()
    link = Link(Engine(), "p", lambda: next(faults, ""))
    start_election(link, changes.append)
    assert eventually(lambda: next(faults, None) is None)
    assert changes == [True]


def test_a_lost_lock_ends_the_leadership_at_once(start_election: StartElection) -> None:
    engine, changes = Engine(), list[bool]()
    election = start_election(Link(engine, "p", lambda: ""), changes.append)
    engine.holder, engine.free_at = "other", clock() + 3600
    assert eventually(lambda: changes == [True, False])
    assert eventually(lambda: election.status.holder == "other")


def test_an_ended_session_is_noticed_between_two_confirmations(start_election: StartElection) -> None:
    """The server frees the lock of an ended session at once, so another process may lead already."""
    engine, changes = Engine(), list[bool]()
    link = Link(engine, "p", lambda: "")
    start_election(link, changes.append, ElectionConfig(3600.0))  # the next confirmation is 20 minutes away
    engine.holder, engine.free_at = "other", clock() + 3600
    link.ended = True
    assert eventually(lambda: changes == [True, False])


def test_a_deadline_that_has_passed_ends_the_leadership_even_if_the_lock_is_confirmed_later(
    start_election: StartElection,
) -> None:
    """Ticks were omitted in between, so the next leadership has to poll at once."""
    engine, changes = Engine(), list[bool]()
    fault = [""]
    link = Link(engine, "p", lambda: fault[0])
    start_election(link, changes.append)
    fault[0] = "hang"
    assert eventually(lambda: changes == [True, False])
    fault[0] = ""
    link.hangs.set()
    assert eventually(lambda: changes == [True, False, True])


def test_release_frees_the_lock_for_the_next_process_at_once(start_election: StartElection) -> None:
    engine = Engine()
    first = start_election(Link(engine, "first", lambda: ""))
    first.resign()
    assert (first.leads, first.status.state) == (True, "resigning")  # for the last export
    first.release(60)
    assert [first.leads, engine.holder] == [False, ""]
    assert start_election(Link(engine, "second", lambda: "")).leads


def test_each_change_is_one_record_with_its_reason(
    start_election: StartElection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    engine, fault = Engine(), ["refused"]
    election = start_election(Link(engine, "p", lambda: fault[0]))
    time.sleep(CONFIG.lease)
    fault[0] = ""
    assert eventually(lambda: election.leads)
    fault[0] = "answer lost"
    assert eventually(lambda: election.status.state == "follower")
    records = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
    assert records[:3] == [
        "WARNING the leader lock does not answer: refused; this process cannot become the leader",
        "INFO the leader lock answers again",
        "INFO this process leads now: it polls the targets",
    ]
    assert (
        records[4] == "WARNING leadership lost: not confirmed in time: no answer; this process polls nothing"
    )


def test_a_lock_that_can_never_work_stops_the_start_only() -> None:
    link = Link(Engine(), "p", lambda: "pooler")
    with pytest.raises(ConfigError, match="a pooler"):
        LeaderElection(link, CONFIG, lambda _: None).start()
