"""Ticks of one target: which are due, which queries their next run contains, and when they ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from poller.model.query import QueryDefinition
from poller.model.tick import Tick


class Replaced(NamedTuple):
    """Changes made by a replacement of the ticks."""

    removed: list[str]
    added: list[Tick]
    fresh: list[Tick]
    """Ticks with queries that are to be polled at once."""


class Run(NamedTuple):
    """One run of a tick."""

    tick: Tick
    queries: list[QueryDefinition]
    """Those queries of the tick that are due."""
    fresh: bool
    """Whether it is the first poll of some of them."""
    skips: int
    """Number of its runs that were omitted in succession before it."""


@dataclass(slots=True)
class _State:
    """One tick, and the reasons for which it waits for a run."""

    tick: Tick
    regular: bool = False
    """Its time has come, so all its queries are due."""
    retry: bool = False
    """Its last run reached no server, so all its queries are due again."""
    fresh: set[str] = field(default_factory=set)
    """Names of queries that are to be polled at once."""
    ended: float | None = None
    skips: int = 0


class TargetTicks:
    """The ticks of one target by their names, in the order of its queries; not thread-safe."""

    def __init__(self) -> None:
        self.running: str | None = None
        """Name of the tick in progress."""
        self._states: dict[str, _State] = {}
        self._due: dict[str, None] = {}
        """Names of the ticks that wait for a run, in their order."""

    def __iter__(self) -> Iterator[Tick]:
        return (state.tick for state in self._states.values())

    @property
    def due(self) -> list[Tick]:
        """The ticks that wait for a run, in their order."""
        return [self._states[name].tick for name in self._due]

    @property
    def ends(self) -> Iterator[tuple[Tick, float | None]]:
        """Each tick and the end of its last run in seconds since 1970, or None."""
        return ((state.tick, state.ended) for state in self._states.values())

    def get(self, name: str) -> Tick | None:
        """Return a tick; None if it was removed."""
        state = self._states.get(name)
        return state.tick if state else None

    def replace(self, ticks: Sequence[Tick], fresh: Collection[str]) -> Replaced:
        """Replace the ticks, whose names identify them; the queries named in `fresh` are due now."""
        before, self._states = self._states, {}
        result = Replaced([], [], [])
        for tick in ticks:
            if tick.name not in before:
                result.added.append(tick)
            state = self._states[tick.name] = before.pop(tick.name, _State(tick))
            state.tick = tick
            if names := {query.name for query in tick.queries}.intersection(fresh):
                state.fresh |= names
                self._due[tick.name] = None
                result.fresh.append(tick)
        result.removed.extend(before)
        for name in before:
            self._due.pop(name, None)
        return result

    def note_due(self, name: str) -> bool:
        """Note that the time of a tick has come; return whether its previous run has not ended or begun."""
        if self.running == name:
            return True
        state = self._states[name]
        waits, state.regular = state.regular, True
        self._due[name] = None
        return waits

    def take(self, name: str) -> Run | None:
        """Return the pending run of a tick and clear it; None if no run is pending."""
        if name not in self._due:
            return None
        del self._due[name]
        state = self._states[name]
        whole, fresh = state.regular or state.retry, state.fresh
        state.regular, state.retry, state.fresh = False, False, set()
        queries = [query for query in state.tick.queries if whole or query.name in fresh]
        return Run(state.tick, queries, bool(fresh), state.skips) if queries else None

    def end(self, run: Run, *, retry: bool) -> None:
        """Note the end of the tick in progress; with `retry`, queue it again if it still exists."""
        self.running = None
        if state := self._states.get(run.tick.name):
            if retry:
                state.retry = True
                self._due[run.tick.name] = None
            if state.skips == run.skips:
                state.skips = 0  # the tick keeps up again

    def note_ends(self, ticks: Iterable[Tick], at: float) -> None:
        """Note that ticks have ended, with any result, at a time in seconds since 1970."""
        for tick in ticks:
            if state := self._states.get(tick.name):
                state.ended = at

    def are_fresh(self, ticks: Iterable[Tick]) -> bool:
        """Return whether one of the ticks has queries that were never polled."""
        return any(state.fresh for tick in ticks if (state := self._states.get(tick.name)))

    def skip(self, name: str) -> int:
        """Count an omitted run; return the number of successive omitted runs."""
        if state := self._states.get(name):
            state.skips += 1
            return state.skips
        return 1
