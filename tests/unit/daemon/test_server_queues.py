"""Targets take turns on their servers: in order, within caps, without starvation, with quarantine."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from poller.daemon.server_queues import QueueConfig, ServerQueues, TurnOutcome
from poller.model.errors import PollError
from poller.model.retry import RetryConfig
from poller.model.tick import Tick

CONFIG = QueueConfig(workers=3, unanswered_after=0.5, most_unanswered=2, retry=RetryConfig(1.0, 60.0))


def taken(queues: ServerQueues, now: float) -> list[str]:
    return list(iter(lambda: queues.take(now), None))


def test_targets_of_one_server_run_in_the_order_in_which_they_were_offered() -> None:
    queues = ServerQueues(CONFIG)
    for name in ("c", "a", "b"):
        queues.offer(name, "s", 1, 0.0)
    order = []
    for now in (0.0, 1.0, 2.0):
        (name,) = taken(queues, now)
        order.append(name)
        queues.note_answer(name)
        assert queues.finish(name, "reached", now)[:2] == ("s", None)
    assert order == ["c", "a", "b"]
    assert taken(queues, 3.0) == []


def test_a_target_that_waits_or_has_its_turn_is_not_queued_again() -> None:
    queues = ServerQueues(CONFIG)
    queues.offer("a", "s", 2, 0.0)
    queues.offer("a", "s", 2, 0.0)
    assert taken(queues, 0.0) == ["a"]
    queues.offer("a", "s", 2, 0.0)
    assert taken(queues, 0.0) == []
    queues.finish("a", "reached", 1.0)
    assert taken(queues, 1.0) == []


def test_servers_take_turns_so_that_a_long_queue_delays_no_other_server() -> None:
    queues = ServerQueues(QueueConfig(workers=1))
    for number in range(100):
        queues.offer(f"busy-{number}", "busy", 5, 0.0)
    queues.offer("quiet", "quiet", 1, 0.0)
    first = queues.take(0.0)
    assert first is not None
    queues.finish(first, "reached", 0.0)
    assert queues.take(0.0) == "quiet"


def test_the_smallest_number_of_connections_of_a_servers_targets_holds() -> None:
    queues = ServerQueues(QueueConfig(workers=8))
    for name, connections in (("a", 5), ("b", 2), ("c", 5)):
        queues.offer(name, "s", connections, 0.0)
    assert taken(queues, 0.0) == ["a", "b"]


def test_turns_without_an_answer_stop_counting_after_a_moment_and_are_limited_themselves() -> None:
    queues = ServerQueues(CONFIG)
    for number in range(9):
        queues.offer(str(number), f"s{number}", 1, 0.0)
    assert taken(queues, 0.0) == ["0", "1", "2"]
    assert queues.next_check(0.0) == 0.5
    assert taken(queues, 0.4) == []
    assert taken(queues, 0.5) == ["3", "4"], "two more than the workers"
    assert taken(queues, 1.1) == [], "at most so many"
    queues.finish("0", "reached", 1.2)
    assert taken(queues, 1.2) == ["5"]


def test_a_turn_whose_server_has_answered_counts_until_its_end() -> None:
    queues = ServerQueues(CONFIG)
    for number in range(5):
        queues.offer(str(number), f"s{number}", 1, 0.0)
    for name in taken(queues, 0.0):
        queues.note_answer(name)
    assert taken(queues, 100.0) == []
    assert queues.next_check(100.0) is None
    queues.finish("1", "reached", 100.0)
    assert taken(queues, 100.0) == ["3"]


def test_an_unavailable_server_is_tried_by_one_target_at_a_time_after_pauses_that_double() -> None:
    queues = ServerQueues(QueueConfig(workers=8, retry=RetryConfig(1.0, 4.0)))
    for name in ("a", "b", "c"):
        queues.offer(name, "s", 3, 0.0)
    assert taken(queues, 0.0) == ["a", "b", "c"]
    assert queues.finish("a", "unavailable", 10.0)[:2] == ("s", 11.0)
    assert queues.finish("b", "unavailable", 10.0).retry_at == 11.0, "it began before the quarantine"
    assert taken(queues, 10.0) == []
    assert queues.finish("c", "unavailable", 10.5).retry_at == 11.0
    now, pauses = 11.0, []
    for name in ("a", "b", "c", "a"):
        queues.wake("s")
        assert taken(queues, now) == [name], "another one each time"
        retry_at = queues.finish(name, "unavailable", now).retry_at
        assert retry_at is not None
        assert queues.retry_at(name) == retry_at
        pauses.append(retry_at - now)
        now = retry_at
    assert pauses == [2.0, 4.0, 4.0, 4.0]
    queues.wake("s")
    assert taken(queues, now) == ["b"]
    assert queues.finish("b", "reached", now).retry_at is None
    assert taken(queues, now) == ["c", "a"], "the others follow"


def test_a_refusal_shows_that_the_server_is_available() -> None:
    queues = ServerQueues(CONFIG)
    queues.offer("a", "s", 1, 0.0)
    queues.offer("b", "s", 1, 0.0)
    assert taken(queues, 0.0) == ["a"]
    queues.finish("a", "unavailable", 0.0)
    queues.wake("s")
    assert taken(queues, 1.0) == ["b"]
    assert queues.finish("b", "refused", 1.0).retry_at is None
    assert taken(queues, 1.0) == ["a"]


def test_a_server_without_a_free_connection_gets_half_of_them_for_a_while() -> None:
    queues = ServerQueues(QueueConfig(workers=8, full_for=600.0))
    for number in range(8):
        queues.offer(str(number), "s", 4, 0.0)
    first = taken(queues, 0.0)
    assert len(first) == 4
    queues.finish(first[0], "full", 0.0)
    for name in first[1:]:
        queues.finish(name, "reached", 0.0)
    half = taken(queues, 1.0)
    assert len(half) == 2
    for name in half:
        queues.finish(name, "reached", 700.0)
    assert len(taken(queues, 700.0)) == 3, "all that wait, within the four connections"


def test_a_target_that_moves_to_another_server_leaves_the_queue_of_the_unavailable_one() -> None:
    queues = ServerQueues(CONFIG)
    queues.offer("a", "old", 1, 0.0)
    assert taken(queues, 0.0) == ["a"]
    queues.offer("a", "new", 1, 0.0)
    assert queues.finish("a", "unavailable", 0.0).server == "old"
    queues.offer("a", "new", 1, 0.5)
    assert taken(queues, 0.5) == ["a"]
    assert queues.finish("a", "reached", 1.0)[:2] == ("new", None)
    assert queues.waiting("old") == []


def test_a_retry_that_comes_too_early_is_made_up_for_at_the_next_offer() -> None:
    queues = ServerQueues(CONFIG)
    for name in ("a", "b"):
        queues.offer(name, "s", 1, 0.0)
    assert taken(queues, 0.0) == ["a"]
    assert queues.finish("a", "unavailable", 0.0).retry_at == 1.0
    assert queues.wake("s") == 1.0
    assert taken(queues, 0.5) == []
    queues.offer("a", "s", 1, 5.0)
    assert taken(queues, 5.0) == ["b"]


def test_a_changed_number_of_connections_holds_at_once() -> None:
    queues = ServerQueues(QueueConfig(workers=8))
    for name in ("a", "b", "c", "d"):
        queues.offer(name, "s", 1, 0.0)
    assert taken(queues, 0.0) == ["a"]
    for name in ("a", "b", "c"):
        queues.offer(name, "s", 3, 0.0)
    assert taken(queues, 0.0) == [], "d still declares one connection"
    queues.remove("d")
    assert taken(queues, 0.0) == ["b", "c"]


def test_a_turn_that_contacts_no_server_changes_no_quarantine() -> None:
    queues = ServerQueues(CONFIG)
    for name in ("a", "b"):
        queues.offer(name, "s", 1, 0.0)
    assert taken(queues, 0.0) == ["a"]
    queues.finish("a", "unavailable", 0.0)
    queues.wake("s")
    assert taken(queues, 1.0) == ["b"]
    assert queues.finish("b", "none", 1.0).retry_at == 1.0
    assert queues.waiting("s") == ["a"]
    assert taken(queues, 1.0) == ["a"]


def test_nothing_is_remembered_of_targets_and_servers_that_are_gone() -> None:
    queues = ServerQueues(CONFIG)
    for number in range(1000):
        name, server = f"t{number}", f"s{number}"
        queues.offer(name, server, 1, 0.0)
        if number % 2:
            queues.remove(name)
            continue
        assert taken(queues, float(number)) == [name]
        queues.finish(name, "unavailable" if number % 4 else "reached", float(number))
        queues.remove(name)
    # No public method shows what is left.
    left = [len(part) for part in vars(queues).values() if isinstance(part, dict)]
    assert sum(left) == 0


names, servers = st.integers(0, 11), st.integers(0, 3)
outcomes = st.sampled_from(["none", "reached", "refused", "unavailable", "full"])


class Machine(RuleBasedStateMachine):
    """Any order of offers, turns, ends, removals and waits keeps the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.queues = ServerQueues(CONFIG)
        self.now = 0.0
        self.turns: dict[str, str] = {}
        self.waiting: dict[str, str] = {}
        self.home: dict[str, str] = {}
        self.quarantine: dict[str, float] = {}

    @rule(name=names, server=servers)
    def offer(self, name: int, server: int) -> None:
        target = str(name)
        self.queues.offer(target, str(server), 1 + server, self.now)
        self.home[target] = str(server)
        if target not in self.turns:
            self.waiting[target] = str(server)
        self.end_quarantine_of_unused_servers()

    @rule(name=names, server=servers)
    def place(self, name: int, server: int) -> None:
        target, before = str(name), self.home.get(str(name))
        assert self.queues.place(target, str(server), 1 + server) == (before != str(server))
        self.home[target] = str(server)
        if before != str(server):
            self.waiting.pop(target, None)
        self.end_quarantine_of_unused_servers()

    @rule()
    def take(self) -> None:
        for target in taken(self.queues, self.now):
            self.turns[target] = self.waiting.pop(target)

    @precondition(lambda self: self.turns)
    @rule(outcome=outcomes, data=st.data())
    def finish(self, outcome: TurnOutcome, data: st.DataObject) -> None:
        target = data.draw(st.sampled_from(sorted(self.turns)))
        server = self.turns.pop(target)
        turn = self.queues.finish(target, outcome, self.now, PollError("unavailable", outcome))
        assert outcome == "none" or (turn.retry_at is None) == (outcome in ("reached", "refused"))
        assert turn.quarantine_began == (outcome in ("unavailable", "full") and server not in self.quarantine)
        if outcome in ("unavailable", "full"):
            self.quarantine.setdefault(server, self.now)
            if self.home.get(target) == server:
                self.waiting[target] = server
        since = self.quarantine.pop(server, None) if outcome in ("reached", "refused") else None
        assert turn.quarantine_lasted == (None if since is None else self.now - since)
        self.end_quarantine_of_unused_servers()

    @rule(name=names)
    def remove(self, name: int) -> None:
        self.queues.remove(str(name))
        self.waiting.pop(str(name), None)
        self.home.pop(str(name), None)
        self.end_quarantine_of_unused_servers()

    def end_quarantine_of_unused_servers(self) -> None:
        used = {*self.home.values(), *self.turns.values()}
        self.quarantine = {server: since for server, since in self.quarantine.items() if server in used}

    @rule(seconds=st.floats(0.0, 100.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for server in range(4):
            self.queues.wake(str(server))

    @invariant()
    def caps_are_never_exceeded(self) -> None:
        assert len(self.turns) <= CONFIG.workers + CONFIG.most_unanswered
        for server, count in Counter(self.turns.values()).items():
            assert count <= 1 + int(server)

    @invariant()
    def waiting_targets_are_known(self) -> None:
        assert {
            target: server for server in map(str, range(4)) for target in self.queues.waiting(server)
        } == self.waiting

    @invariant()
    def targets_know_their_neighbours_and_the_quarantine(self) -> None:
        for target, server in self.home.items():
            others = {other for other, at in self.home.items() if at == server} - {target}
            assert set(self.queues.others_on_server(target)) == others
            assert self.queues.is_alone(target) == (not others)
            assert (self.queues.error(target) is not None) == (server in self.quarantine)

    def teardown(self) -> None:
        """After an end of all failures everything that waits gets its turn."""
        for _ in range(50):
            self.wait(1000.0)
            self.take()
            for target in list(self.turns):
                self.queues.finish(target, "reached", self.now)
                del self.turns[target]
        assert not self.waiting


TestAnyOrder = Machine.TestCase


@dataclass
class Simulation:
    """A day of many targets on a fake clock, with the real queues, quarantine and offsets of ticks."""

    targets_per_server: int
    servers: int
    interval: float
    duration: Callable[[int, float], float]
    """Seconds of one turn on a server at a time; above `give_up` the server does not answer."""
    give_up: float = 10.0
    config: QueueConfig = field(default_factory=lambda: QueueConfig(workers=8))
    connections: int = 1

    def run(self, seconds: float) -> None:
        """Run; afterwards `late`, `turns` and `tries` have what happened."""
        self.late: list[float] = []
        self.turns: Counter[int] = Counter()
        self.tries: defaultdict[int, list[float]] = defaultdict(list)
        self.most: Counter[int] = Counter()
        queues = ServerQueues(self.config)
        running: Counter[int] = Counter()
        due: dict[str, float] = {}
        sequence = itertools.count()
        events: list[tuple[float, int, str, str, TurnOutcome]] = []

        def at(when: float, kind: str, name: str, outcome: TurnOutcome = "reached") -> None:
            heapq.heappush(events, (when, next(sequence), kind, name, outcome))

        for server in range(self.servers):
            for number in range(self.targets_per_server):
                name = f"{server}/{number}"
                # The offset is random by name, as that of `model.tick`.
                tick = Tick("t", (), self.interval, random.Random(name).random() * self.interval)
                at(tick.first_due(0.0), "due", name)
        look = None
        while events and events[0][0] < seconds:
            now, _, kind, name, outcome = heapq.heappop(events)
            server = int(name.partition("/")[0])
            if kind == "due":
                at(now + self.interval, "due", name)
                due.setdefault(name, now)
                queues.offer(name, str(server), self.connections, now)
            elif kind == "answer":
                queues.note_answer(name)
            elif kind == "end":
                running[server] -= 1
                retry_at = queues.finish(name, outcome, now).retry_at
                if outcome == "reached":
                    self.turns[server] += 1
                if retry_at is not None:
                    at(retry_at, "wake", name)
            elif kind == "wake":
                queues.wake(str(server))
            else:
                look = None
            while (target := queues.take(now)) is not None:
                server = int(target.partition("/")[0])
                running[server] += 1
                self.most[server] = max(self.most[server], running[server])
                self.tries[server].append(now)
                took = self.duration(server, now)
                if took > self.give_up:
                    at(now + self.give_up, "end", target, "unavailable")
                else:
                    self.late.append(now - due.pop(target))
                    at(now + took / 2, "answer", target)
                    at(now + took, "end", target)
            moment = queues.next_check(now)
            if moment is not None and (look is None or moment < look):
                look = moment
                at(moment, "look", "0/0")


@pytest.mark.slow
def test_ten_thousand_databases_are_polled_on_time_although_every_tenth_server_hangs() -> None:
    """Two hours of 500 servers, polled every 5 minutes; a turn takes 20 ms, and 10 s on a hanging server."""
    simulation = Simulation(20, 500, 300.0, lambda server, _: 1000.0 if server % 10 == 0 else 0.02)
    simulation.run(7200.0)
    late = sorted(simulation.late)
    assert late[int(0.99 * len(late))] < 1.0
    for server in range(500):
        assert simulation.most[server] <= 1
        if server % 10:
            # 20 targets, each once in 5 minutes; the first and the last interval may be cut.
            assert abs(simulation.turns[server] - 20 * 24) <= 40
        else:
            tries = simulation.tries[server]
            assert len(tries) >= 7200 / (60 + 10) - 10, "a dead server is tried again for ever"
            later = [second - first for first, second in itertools.pairwise(tries)][8:]
            assert min(later) >= 60.0, "at most once a minute"


@pytest.mark.slow
def test_after_an_outage_of_all_servers_each_gets_no_more_than_its_connections() -> None:
    simulation = Simulation(50, 20, 60.0, lambda _, now: 1000.0 if now < 600.0 else 0.05, connections=2)
    simulation.run(900.0)
    assert max(simulation.most.values()) <= 2
    assert all(count >= 50 * 3 for count in simulation.turns.values())
    assert max(simulation.late[-1000:]) < 2.0, "on time again"


@given(
    st.lists(st.floats(0.001, 30.0), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_no_target_starves_however_slow_the_servers_are(
    durations: list[float], targets: int, workers: int, connections: int
) -> None:
    simulation = Simulation(
        targets,
        len(durations),
        10.0,
        lambda server, _: durations[server],
        config=QueueConfig(workers=workers),
        connections=connections,
    )
    simulation.run(3000.0)
    for server, duration in enumerate(durations):
        if duration <= simulation.give_up:
            assert simulation.turns[server] > 0
        assert simulation.most[server] <= connections
