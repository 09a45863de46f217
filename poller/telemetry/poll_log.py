"""Log records of polls: each failure once, a summary of its repeats, and its recovery."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poller.model.duration import format_duration
from poller.model.errors import PollError
from poller.model.result import HOLDS, REFUSALS, PollResult, Skip, state_of
from poller.model.text import counted
from poller.telemetry.logging import about

if TYPE_CHECKING:
    from poller.model.result import Freshness

logger = logging.getLogger(__name__)

DELAYS_LOGGED_EVERY = 3600.0
"""Seconds between two records about the same delay."""
MOST_LOGGED_SEPARATELY, MOST_NAMES = 2, 20
"""Number of queries with withheld values that get a record each, and of names in one record about more."""
REPEATS_LOGGED_EVERY = 3600.0
"""Seconds between two summaries of an unchanged state."""

Within = Callable[[str], AbstractContextManager[object]]
"""Function that makes a query's span the current one, by the query's name."""


@dataclass(slots=True)
class _Failure:
    condition: tuple[str | None, ...]
    since: float
    times: int = 1
    summed_up: float = 0.0

    def again(self, now: float) -> bool:
        """Count a repetition; return whether a summary is due."""
        self.times += 1
        due = now - max(self.since, self.summed_up) >= REPEATS_LOGGED_EVERY
        self.summed_up = now if due else self.summed_up
        return due

    def lasted(self, now: float) -> str:
        return format_duration(round(now - self.since))


class PollLog:
    """Log of polls, with records only when a poll differs from the previous poll.

    A query's record has the query, the kind of failure, the SQLSTATE, the server's message and a hint. An
    unreachable or refused server makes one record for all queries together, and one at its recovery. An
    unchanged failure is summed up every REPEATS_LOGGED_EVERY seconds. A query that is delayed because of its
    own history is logged every DELAYS_LOGGED_EVERY seconds. With `every_result` each value of a good poll is
    logged, because without a push the log is the only place to see values.
    """

    def __init__(
        self,
        *,
        every_result: bool = False,
        repeats: bool = True,
        servers: bool = True,
        within: Within = nullcontext,
    ) -> None:
        """Without `servers` an unavailable server is not logged, because many targets may share it.

        With `repeats` the records about an unavailable server mention that polls are retried.

        Records about one query are logged inside the context `within(name)`.
        """
        self._within = within
        self._every_result = every_result
        self._servers = servers
        self._later = ", polls will be retried" if repeats else ""
        self._queries: dict[str, _Failure] = {}
        self._holds: dict[tuple[str, str], float] = {}
        self._server: _Failure | None = None
        self._withheld: set[str] = set()

    def observe(self, results: Sequence[PollResult], now: float | None = None) -> None:
        """Log the changes in the results of one tick; `now` is in monotonic seconds."""
        now = time.monotonic() if now is None else now
        self._log_server(results, now)
        self._log_unreached(results, now)
        for result in results:
            if self._needs_no_record(result):
                continue
            if result.error is not None and (result.error.kind == "unavailable" or _by_us(result.error)):
                continue
            if result.skipped is not None and result.skipped.reason in (*REFUSALS, "budget"):
                continue
            with self._within(result.query.name):
                if result.skipped is not None and result.skipped.reason in HOLDS:
                    self._log_hold(result.query.name, result.skipped, now)
                else:
                    self._log_query(result, now)

    def newly_withheld(self, freshness: Iterable[Freshness]) -> list[Freshness]:
        """Return the queries whose values are withheld from now on because they are too old."""
        withheld: list[Freshness] = []
        for item in freshness:
            name = item.query.name
            if not item.stale:
                self._withheld.discard(name)
            elif item.age is not None and name not in self._withheld:
                self._withheld.add(name)
                withheld.append(item)
        return withheld

    def reset(self, names: Collection[str]) -> None:
        """Forget these queries, which were removed or changed, so that their next state is logged."""
        for name in names:
            self._queries.pop(name, None)
        self._withheld.difference_update(names)
        self._holds = {key: at for key, at in self._holds.items() if key[0] not in names}

    def _needs_no_record(self, result: PollResult) -> bool:
        """Return whether a query is still ok and needs no record, which is the usual case."""
        return (
            result.outcome == "ok"
            and result.estimated is None
            and not result.rejected
            and result.query.name not in self._queries
            and not self._every_result
        )

    def _log_server(self, results: Sequence[PollResult], now: float) -> None:
        """Log the changes that concern all queries."""
        gone = [
            result.error
            for result in results
            if result.error
            and result.error.kind == "unavailable"
            and (self._servers or not result.error.server_wide)
        ]
        refused = [
            result.skipped for result in results if result.skipped and result.skipped.reason in REFUSALS
        ]
        condition = ("unavailable",) if gone else (refused[0].reason,) if refused else ()
        if condition:
            if self._server is not None and self._server.condition == condition:
                if self._server.again(now):
                    logger.warning(
                        "%s for %s by now",
                        "replica unavailable" if gone else f"polls skipped ({refused[0].reason})",
                        self._server.lasted(now),
                        extra={"failed_ticks": self._server.times},
                    )
                return
            self._server = _Failure(condition, now)
        if gone:
            logger.warning(
                "replica unavailable%s: %s",
                self._later,
                gone[0].message,
                extra={"error.type": "unavailable", "queries": len(gone)}
                | _advice(gone[0].sqlstate, gone[0].hint),
            )
        elif refused:
            logger.warning(
                "polls skipped: %s",
                refused[0].detail,
                extra={"poller.reason": refused[0].reason, "queries": len(refused)},
            )
        elif self._server is not None and any(
            result.error_type not in ("cancelled", "unavailable") for result in results
        ):
            over = (
                "replica available again" if self._server.condition == ("unavailable",) else "polling again"
            )
            extra = {"failed_ticks": self._server.times}
            logger.info("%s after %s", over, self._server.lasted(now), extra=extra)
            self._server = None

    def _log_unreached(self, results: Sequence[PollResult], now: float) -> None:
        left = [result.skipped for result in results if result.skipped and result.skipped.reason == "budget"]
        last = self._holds.get(("", "budget"))
        if left and (last is None or now - last >= DELAYS_LOGGED_EVERY):
            self._holds["", "budget"] = now
            extra = {"poller.reason": "budget", "queries": len(left)}
            logger.warning(
                "%s not run in this tick: %s", counted(len(left), "query"), left[0].detail, extra=extra
            )

    def _log_hold(self, name: str, skip: Skip, now: float) -> None:
        last = self._holds.get((name, skip.reason))
        if last is None or now - last >= DELAYS_LOGGED_EVERY:
            self._holds[name, skip.reason] = now
            extra = {"query": name, "poller.reason": skip.reason}
            logger.warning("query %s is polled less often: %s", name, skip.detail, extra=extra)

    def _log_query(self, result: PollResult, now: float) -> None:
        name = result.query.name
        before = self._queries.get(name)
        # A NULL that `on_null: drop` omits is intended, so alone it is only counted.
        reasons = sorted(reason for reason in result.rejected if reason != "null")
        rejected = {f"quarantined.{r}": count for r, count in result.rejected.items() if reasons}
        if result.error is not None:
            error = result.error
            condition: tuple[str | None, ...] = ("failed", error.kind, error.sqlstate, error.conflict)
        elif result.skipped is not None:
            condition = ("skipped", result.skipped.reason)
        elif result.estimated is not None:
            condition = ("estimated", result.estimated)
        else:
            condition = ("rejected", *reasons) if reasons else ()
        if before is not None and before.condition == condition:
            due = before.again(now)
            level = logging.WARNING if due and result.error is not None else logging.DEBUG
            extra = {"query": name, "times": before.times}
            logger.log(
                level,
                "query %s is still %s after %s",
                name,
                state_of(result),
                before.lasted(now),
                extra=extra,
            )
            return
        if before is not None and not condition:
            extra = {"query": name, "times": before.times}
            logger.info("query %s recovered after %s", name, before.lasted(now), extra=extra)
            del self._queries[name]
            self._holds.pop((name, "breaker"), None)
        elif condition:
            self._queries[name] = _Failure(condition, now)
        self._log_state(result, rejected)

    def _log_state(self, result: PollResult, rejected: dict[str, int]) -> None:
        name = result.query.name
        extra: dict[str, object] = {"query": name, "duration": round(result.duration, 4)}
        if result.error is not None:
            advice = _advice(result.error.sqlstate, result.error.hint)
            extra |= {"error.type": result.error.kind, **advice}
            if result.error.conflict is not None:
                extra["poller.conflict"] = result.error.conflict
            logger.warning("query %s failed: %s", name, result.error.message, extra=extra)
        elif result.skipped is not None:
            extra["poller.reason"] = result.skipped.reason
            logger.warning("query %s skipped: %s", name, result.skipped.detail, extra=extra)
        elif result.estimated is not None:
            logger.info("query %s: the estimate answers (%s)", name, result.estimated, extra=extra)
        elif rejected:
            advice = {"hint": result.advice} if result.advice else {}
            logger.warning("query %s: rows omitted", name, extra=extra | rejected | advice)
        if result.outcome == "ok" and self._every_result:
            for sample in result.samples:
                # In one field, because a column may have a name that logging reserves (`name`, `message`).
                attributes = {"attributes": dict(sample.attributes)} if sample.attributes else {}
                logger.info("%s = %s", sample.metric, sample.value, extra={"query": name, **attributes})


def log_withheld(by_target: Mapping[str, Sequence[Freshness]]) -> None:
    """Log the queries whose values are withheld from now on, by target; many in one record."""
    withheld = {target: items for target, items in by_target.items() if items}
    number = sum(map(len, withheld.values()))
    if number <= MOST_LOGGED_SEPARATELY:
        for target, items in withheld.items():
            with about(target):
                _log_each(items)
        return
    (first, *others) = withheld
    names = [f"{target} ({len(items)})" for target, items in withheld.items()]
    if not others:
        names = [item.query.name for item in withheld[first]]
    listed = ", ".join(names[:MOST_NAMES])
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    text = f"no successful poll within their max_age; their values are withheld: {listed}{more}"
    on_targets = f" on {len(withheld)} targets" if others else ""
    with about("" if others else first):
        logger.warning("%d queries%s: %s", number, on_targets, text, extra={"queries": number})


def _log_each(withheld: Iterable[Freshness]) -> None:
    for item in withheld:
        logger.warning(
            "query %s: no successful poll for %s; its values are withheld (max_age %s)",
            item.query.name,
            format_duration(round(item.age or 0.0)),
            format_duration(item.query.max_age),
            extra={"query": item.query.name, "state": str(item.state)},
        )


def _by_us(error: PollError) -> bool:
    """Return whether the poller cancelled the query; other cancellations have the server's SQLSTATE."""
    return error.kind == "cancelled" and error.sqlstate is None


def _advice(sqlstate: str | None, hint: str | None) -> dict[str, str]:
    fields = {"db.response.status_code": sqlstate, "hint": hint}
    return {key: value for key, value in fields.items() if value}
