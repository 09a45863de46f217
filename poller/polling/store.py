"""Store of each query's last good samples, by the poll's clock and the export's clock."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence

from poller.model.query import QueryDefinition
from poller.model.result import (
    STALE,
    WAITING,
    Freshness,
    GoodResult,
    PollResult,
    State,
    own_failure,
    state_after,
    state_of,
)
from poller.polling.counter_resets import continued
from poller.polling.data_times import confirm, each_once, note_collection
from poller.polling.duplicates import Duplicates, DuplicateTracker, without
from poller.polling.state_file import TargetValues


class ResultStore:
    """The last good result of each query, with its age by the poll's clock, for the export's clock.

    A failed or skipped poll does not change a value; a value is removed only because of its age, or because
    another database answers. So all values are of one database. `now` is in seconds on a monotonic clock, the
    same clock in every call.
    """

    def __init__(
        self,
        queries: Iterable[QueryDefinition],
        restored: Iterable[GoodResult] = (),
        state_file: TargetValues | None = None,
    ) -> None:
        """Start with the results `restored` from an earlier process, which keep their age.

        Only those of the database that answered last are used. Good results are saved in `state_file`, if
        given.
        """
        self._state_file = state_file
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._queries = tuple(queries)
        self._by_name = {query.name: query for query in self._queries}
        restored = sorted(restored, key=lambda good: good.at)
        self._database = restored[-1].result.database if restored else ""
        """That answered last; empty if it is unknown."""
        self._good = {
            good.result.query.name: good for good in restored if good.result.database == self._database
        }
        self._states: dict[str, tuple[State, float, float | None]] = {
            name: (state_of(good.result), good.at, None) for name, good in self._good.items()
        }
        self._failing: dict[str, State] = {}
        self._tracker = DuplicateTracker(self._queries, (good.result for good in self._good.values()))

    def put(self, results: Sequence[PollResult], now: float) -> list[PollResult]:
        """Store the good results of one tick, all at once, so that no export sees half of a snapshot.

        Return the results without the series that another query reports too. Results of queries that a swap
        has removed or changed meanwhile are ignored. If another database has answered, because the connection
        string was changed, the values of the previous one are deleted. `now` is in seconds.
        """
        results = self._of_last_database(results)
        with self._lock:  # also while results are compared with the last ones, which an export changes
            results = [
                each_once(result, self._last(result.query.name)) if result.outcome == "ok" else result
                for result in map(self._current_result, results)
                if result is not None
            ]
            for result in results:
                name = result.query.name
                if result.outcome == "ok":
                    self._good[name] = GoodResult(continued(result, self._last(name)), now)
                    self._tracker.put(self._good[name].result)
                duration = None if result.outcome == "skipped" else result.duration
                self._states[name] = state_after(result, self._failing.get(name)), now, duration
                failed = own_failure(result)
                if failed:
                    self._failing[name] = state_of(result)
                elif failed is not None:
                    self._failing.pop(name, None)
        self._save(result.query.name for result in results if result.outcome == "ok")
        return self.without_duplicates(results, now)

    def without_duplicates(self, results: Sequence[PollResult], now: float) -> list[PollResult]:
        """Return `results`, which were stored, without the series that another query reports too."""
        with self._lock:
            duplicates = self._duplicates(results, now)
        return [without(result, duplicates) for result in results]

    def swap(self, queries: Iterable[QueryDefinition], dropped: Collection[str]) -> None:
        """Replace the queries; delete the stored state of removed queries and of those in `dropped`.

        The remaining results use the new definition, whose description may differ.
        """
        queries = tuple(queries)
        stay = {query.name: query for query in queries if query.name not in dropped}
        with self._lock:
            self._queries = queries
            self._by_name = {query.name: query for query in queries}
            self._good = {
                name: good._replace(result=good.result._replace(query=stay[name]))
                for name, good in self._good.items()
                if name in stay
            }
            self._tracker = DuplicateTracker(queries, (good.result for good in self._good.values()))
            self._states = {name: state for name, state in self._states.items() if name in stay}
            self._failing = {name: state for name, state in self._failing.items() if name in stay}
        if self._state_file is not None:
            self._state_file.retain(stay)

    def current(self, now: float) -> list[PollResult]:
        """Return the good results that are not older than `max_age`, without duplicate series.

        They are in the order of the queries. Their data points with a time of their own count as collected.
        """
        with self._lock:  # so that results and duplicates are of one moment
            results = [good.result for good in self._current(now)]
            for result in results:
                note_collection(result)
            duplicates = self._duplicates(results, now)
        return [without(result, duplicates) for result in results]

    def confirm_export(self) -> None:
        """Note that the data points of the last collection were handed over for delivery.

        Those with a time of their own are not exported again, also after a restart with the state file.
        """
        with self._lock:
            results = [good.result for good in self._good.values()]
        self._save([result.query.name for result in results if confirm(result)])

    def good(self, now: float) -> list[GoodResult]:
        """Return the good results that are not older than `max_age`, each with the time of its arrival."""
        with self._lock:
            return list(self._current(now))

    def freshness(self, now: float) -> Iterator[Freshness]:
        """Yield the freshness of every query, including those that never succeeded."""
        with self._lock:
            queries, good, states = self._queries, self._good.copy(), self._states.copy()
        for query in queries:
            first = STALE if query.schedule is None else WAITING
            state, since, duration = states.get(query.name, (first, now, None))
            if now - since > query.max_age:
                state = STALE
            last_good = good.get(query.name)
            if last_good is None:
                yield Freshness(query, None, None, stale=True, series=0, state=state, duration=duration)
                continue
            stale = now - last_good.at > query.max_age
            yield Freshness(
                query,
                last_good.result.at,
                now - last_good.at,
                stale,
                0 if stale else len(last_good.result.samples),
                state,
                duration,
                None if stale else state_of(last_good.result),
            )

    def detach(self) -> None:
        """Store no more values for a restart."""
        self._state_file = None

    def _of_last_database(self, results: Sequence[PollResult]) -> Sequence[PollResult]:
        """Return the results without those of another database than answered last; delete its values too."""
        answered = [result for result in results if result.database]
        if not answered:
            return results
        before, self._database = self._database, max(answered, key=lambda result: result.answered).database
        if before not in ("", self._database):
            self.swap(self._queries, dropped=self._by_name)
        return [result for result in results if result.database in ("", self._database)]

    def _save(self, names: Iterable[str]) -> None:
        """Save the good results of these queries for a restart."""
        if (state_file := self._state_file) is None:
            return
        with self._saving:  # so that an older result never replaces a newer one
            with self._lock:
                good = [self._good[name] for name in names if name in self._good]
            if good:
                state_file.add(good)

    def _current_result(self, result: PollResult) -> PollResult | None:
        """Return `result` with the current definition of its query; None if its numbers may differ."""
        query = self._by_name.get(result.query.name)
        if query is result.query:
            return result
        return result._replace(query=query) if query and query.digest == result.query.digest else None

    def _current(self, now: float) -> Iterator[GoodResult]:
        for query in self._queries:
            good = self._good.get(query.name)
            if good is not None and now - good.at <= query.max_age:
                yield good

    def _duplicates(self, results: Iterable[PollResult], now: float) -> Duplicates:
        def is_current(name: str) -> bool:
            good = self._good[name]
            return now - good.at <= good.result.query.max_age

        return self._tracker.duplicates((result.query.name for result in results), is_current)

    def _last(self, name: str) -> PollResult | None:
        good = self._good.get(name)
        return good.result if good else None
