"""Simulation of candidates for a Lease under a fake clock, with faults, delays and processes that freeze."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.daemon.kubernetes_api import ApiAnswer, Method
from poller.daemon.kubernetes_lease import KubernetesLease
from poller.model.leader import LockError
from tests.bed.kubernetes_api import Leases

NAME = "obscura-poller"
TTL = 30.0
SHARE = 0.8
"""Share of the TTL during which a confirmed holder works."""


@dataclass
class World:
    """The API server, the time and the candidates. During a request of one candidate the others may act."""

    random: random.Random
    leases: Leases = field(default_factory=Leases)
    now: float = 0.0
    faulty: bool = True
    candidates: list[Candidate] = field(default_factory=list)
    delayed: list[tuple[Method, dict[str, Any] | None]] = field(default_factory=list)
    """Requests without an answer that reach the server later."""

    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.delayed and self.random.random() < 0.3:
            self.leases.apply(self.delayed[0][0], NAME, self.delayed.pop(0)[1])

    def step(self) -> None:
        """Let one candidate act that has no request under way."""
        idle = [candidate for candidate in self.candidates if not candidate.busy]
        if idle:
            self.random.choice(idle).act()


class SlowApi:
    """The way of one candidate to the API server, with random faults."""

    namespace = "observability"

    def __init__(self, world: World) -> None:
        self._world = world

    def send(self, method: Method, lease: Mapping[str, Any] | None, timeout: float) -> ApiAnswer:
        world, chance = self._world, self._world.random
        document = None if lease is None else dict(lease)
        self._pass(timeout / 2)
        fault = chance.random() if world.faulty else 1.0
        if fault < 0.1:
            raise LockError("the request was lost")
        if fault < 0.2:
            world.delayed.append((method, document))
            raise LockError("the request is late")
        status, answer = world.leases.apply(method, NAME, document)
        self._pass(timeout / 2)
        if fault < 0.3:
            raise LockError("the answer was lost")
        if fault < 0.35:
            return ApiAnswer(500, {})
        return ApiAnswer(status, answer)

    def close(self) -> None:
        pass

    def _pass(self, most: float) -> None:
        frozen = self._world.faulty and self._world.random.random() < 0.05
        for _ in range(8 if frozen else 1):
            self._world.wait(TTL / 3 if frozen else self._world.random.uniform(0, most))
            if frozen or self._world.random.random() < 0.3:
                self._world.step()


class Candidate:
    """A process with a clock of its own that acts as the daemon does."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        offset = world.random.uniform(0, 1e6)
        self.clock = lambda: world.now + offset
        self.lock = KubernetesLease(NAME, str(number), TTL, clock=self.clock, api=SlowApi(world))
        self.busy = False
        self.deadline = 0.0
        """The time of the world until which it works as the leader."""

    @property
    def leads(self) -> bool:
        return self._world.now < self.deadline

    def act(self) -> None:
        self.busy = True
        sent = self._world.now
        try:
            if self._world.faulty and self._world.random.random() < 0.05:
                self.deadline = 0.0
                self.lock.release()
            elif not self.leads:
                if self.lock.acquire():
                    self._lead(sent)
            else:
                self.lock.renew(TTL / 6)
                self._lead(sent)
        except LockError as error:
            if error.lost:
                self.deadline = 0.0
        finally:
            self.busy = False

    def _lead(self, sent: float) -> None:
        self.deadline = sent + SHARE * TTL
        leaders = [candidate for candidate in self._world.candidates if candidate.leads]
        assert len(leaders) <= 1, [candidate.lock.identity for candidate in leaders]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 3))
def test_there_are_never_two_leaders_and_one_leads_again_after_the_faults(seed: int, count: int) -> None:
    chance = random.Random(seed)
    world = World(chance)
    world.candidates = [Candidate(world, number) for number in range(count)]
    for _ in range(150):
        # A pause of all is a pause of each: a frozen process, or a cluster without its API server.
        world.wait(chance.choice([0.0, 1.0, 5.0, TTL * SHARE, TTL, 2 * TTL]))
        world.step()

    world.faulty = False
    world.delayed.clear()
    for _ in range(2 * count * int(TTL)):
        world.wait(1.0)
        world.step()
        if any(candidate.leads for candidate in world.candidates):
            break
    assert [candidate.leads for candidate in world.candidates].count(True) == 1
