"""Diagnosis of every query: requirements, duration and planner cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from poller.model.duration import format_duration
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import Answer, PollResult, SkipReason
from poller.model.tick import Tick
from poller.polling.poll import to_result
from poller.postgres.batch import Batch
from poller.postgres.cancellation import CancelToken
from poller.postgres.connection import Connection
from poller.postgres.inspect import inspecting
from poller.postgres.transaction import budget
from poller.postgres.volatile_functions import ADVICE
from poller.tools.doctor.finding import Finding, State

_ADVICE: dict[SkipReason, str] = {
    "privilege": "GRANT it on the primary; deploy/role.sql does for the packaged queries",
    "budget": "make the queries of this tick cheaper, or give some another group or a longer interval",
}
_EXPECTED: frozenset[SkipReason] = frozenset({"role", "version", "extension", "relation", "column"})
"""What a query file foresees."""
_REFUSED: dict[SkipReason, str] = {"primary": "standby", "lag": "lag", "excess_privilege": "role"}
"""What holds back all queries alike has a line of its own; its check is named here."""


def run(attempts: Batch, planned: Sequence[Tick], on_answer: Callable[[str], None]) -> dict[str, Answer]:
    """Run every tick once as the daemon does; what recovery cancels is asked again, one by one."""
    answers: dict[str, Answer] = {}
    for tick in planned:
        ends = time.monotonic() + max(tick.interval, budget(tick.queries))
        answers |= attempts.run(tick.queries, on_answer, ends, together=True)
        cancelled = [query for query in tick.queries if _conflicts(answers[query.name])]
        if cancelled:
            answers |= attempts.run(cancelled, on_answer, ends, together=False)
    return answers


def planned(
    session: Connection, cancel_token: CancelToken, lock_timeout: float, answers: Sequence[Answer]
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """The planner's cost of each query that has run, and the volatile functions that it calls, by query.

    Only of those that have run, because the others would fail again.
    """
    ran = [answer.query for answer in answers if answer.rows is not None or _timed_out(answer)]
    if not ran:
        return {}, {}
    sqls = [query.sql for query in ran]
    try:
        with inspecting(session, cancel_token, lock_timeout) as inspection:
            looked, volatile = inspection.statements(sqls), inspection.volatile(sqls)
    except PollError:
        return {}, {}  # The connection was lost; the queries that answered before are reported all the same.
    costs = {query.name: one.cost for query, one in zip(ran, looked, strict=True) if one.cost is not None}
    return costs, {query.name: names for query, names in zip(ran, volatile, strict=True) if names}


def volatile(functions: Mapping[str, Sequence[str]]) -> list[Finding]:
    """A finding for all volatile functions that are not known to only read; none if there are none."""
    if not functions:
        return []
    calls = ", ".join(f"{query} calls {' and '.join(names)}" for query, names in functions.items())
    detail = f"{calls}: declared VOLATILE, so it may write in spite of READ ONLY"
    return [Finding("functions", "warn", detail, ADVICE, facts={"functions": dict(functions)})]


def examine(answer: Answer, cost: float | None, max_duty_cycle: float) -> Finding:
    """What one query came to; `max_duty_cycle` is a share of 1."""
    result = to_result(answer)
    query = answer.query
    facts = {
        "duration": round(answer.duration, 6) if answer.skipped is None else None,
        "cost": cost,
        "series": len(result.samples),
        "estimated": answer.estimated,
        "reason": answer.skipped.reason if answer.skipped else None,
        "error": result.error_type,
    }

    def finding(state: State, detail: str, advice: str | None = None) -> Finding:
        return Finding("query", state, detail, advice, query.name, facts)

    if answer.skipped is not None:
        reason = answer.skipped.reason
        if reason in _REFUSED:
            return finding("skip", f"not run: see {_REFUSED[reason]}")
        state: State = "skip" if reason in _EXPECTED else "warn"
        return finding(state, f"skipped: {answer.skipped.detail}", _ADVICE.get(reason))
    spent = _spent(answer.duration, cost)
    if result.error is not None:
        error = result.error
        code = f" ({error.sqlstate})" if error.sqlstate else ""
        return finding("fail", f"{error.kind}{code}: {error.message}; {spent}", error.hint)
    series = f"{len(result.samples)} series" + _instead(answer, query)
    if result.quarantined.keys() - {"null"}:
        look = f"look at the rows: poller poll --query {query.name} -v"
        return finding("warn", f"{spent}, {series}, {_dropped(result)}", look)
    if answer.estimated == "timeout":
        return finding("warn", f"{spent}, {series}", "make the query cheaper, or raise its timeout")
    if answer.duration > max_duty_cycle * query.interval:
        often = format_duration(round(answer.duration / max_duty_cycle))
        detail = (
            f"{spent}, {series}: more than {max_duty_cycle:.0%} of its interval, so it runs every {often}"
        )
        return finding("warn", detail, "make it cheaper, or its interval longer")
    # A NULL under on_null: drop is omitted because the definition asks for it.
    return finding("ok", f"{spent}, {series}" + (f", {_dropped(result)}" if result.quarantined else ""))


def _instead(answer: Answer, query: QueryDefinition) -> str:
    if answer.estimated == "cost" and query.estimate is not None:
        return f" by its estimate (cost above {query.estimate.above_cost:,.0f})"
    return f" by its estimate ({answer.estimated})" if answer.estimated else ""


def _dropped(result: PollResult) -> str:
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(result.quarantined.items()))
    return f"rows dropped: {dropped}"


def _spent(seconds: float, cost: float | None) -> str:
    if seconds >= 1:
        time = f"{seconds:.1f} s"
    elif seconds >= 0.01:
        time = f"{seconds * 1000:.0f} ms"
    else:
        time = f"{seconds * 1000:.1f} ms" if seconds >= 0.0001 else "<0.1 ms"
    return time if cost is None else f"{time}, cost {cost:,.0f}"


def _conflicts(answer: Answer) -> bool:
    return answer.error is not None and answer.error.kind == "conflict"


def _timed_out(answer: Answer) -> bool:
    return answer.error is not None and answer.error.kind == "timeout"
