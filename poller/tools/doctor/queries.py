"""Diagnosis of every query: requirements, duration and planner cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from poller.model.diagnostics import Diagnostic, Severity
from poller.model.duration import format_duration
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import Answer, PollResult, SkipReason
from poller.polling.poll import to_result
from poller.postgres.inspect import inspect
from poller.postgres.snapshot import SnapshotOpener
from poller.postgres.volatile_functions import ADVICE
from poller.tools.check.search_path import USABLE_SCHEMAS, ignored_schemas

_ADVICE: dict[SkipReason, str] = {
    "privilege": "GRANT it on the primary; deploy/role.sql does so for the packaged queries",
    "cost": "make the query (or its estimate) cheaper, or raise max_cost (default: POLLER_MAX_COST)",
    "budget": "make the queries of this tick cheaper, or move some to another group or a longer interval",
}
_EXPECTED: frozenset[SkipReason] = frozenset({"role", "version", "extension", "relation", "column"})
"""Skips that a query file expects."""
_CHECK_OF_REASON: dict[SkipReason, str] = {"primary": "standby", "lag": "lag", "excess_privilege": "role"}
"""Check that reports a reason for which all queries are skipped."""


class PlannedQueries(NamedTuple):
    """What the server knows of the queries that have run; each field is by query."""

    costs: Mapping[str, float] = MappingProxyType({})
    functions: Mapping[str, Sequence[str]] = MappingProxyType({})
    """Volatile functions that may write."""
    ignored: Mapping[str, Sequence[str]] = MappingProxyType({})
    """Messages about schemas in the search_path that PostgreSQL ignores."""


def planned(opener: SnapshotOpener, answers: Sequence[Answer]) -> PlannedQueries:
    """Inspect each query that has run. Others are skipped, because they would fail again."""
    ran = [answer.query for answer in answers if answer.rows is not None or _timed_out(answer)]
    if not ran:
        return PlannedQueries()
    sqls, settings = [query.sql for query in ran], [query.settings for query in ran]
    parameters = [query.parameters for query in ran]
    paths = {query.name: query.settings["search_path"] for query in ran if "search_path" in query.settings}
    try:
        plans, volatile, usable = inspect(
            opener,
            lambda inspection: (
                inspection.statements(sqls, parameters=parameters, settings=settings),
                inspection.volatile(sqls, settings),
                inspection.value(USABLE_SCHEMAS) if paths else b"{}",
            ),
        )
    except PollError:
        return PlannedQueries()  # The connection was lost; the answers received so far are still reported.
    return PlannedQueries(
        {query.name: plan.cost for query, plan in zip(ran, plans, strict=True) if plan.cost is not None},
        {query.name: names for query, names in zip(ran, volatile, strict=True) if names},
        {name: list(ignored_schemas(path, usable)) for name, path in paths.items()},
    )


def volatile(functions: Mapping[str, Sequence[str]]) -> list[Diagnostic]:
    """One diagnostic for all volatile functions that may write; empty if there are none."""
    if not functions:
        return []
    calls = ", ".join(f"{query} calls {' and '.join(names)}" for query, names in functions.items())
    detail = f"{calls}: declared VOLATILE, so it may write despite READ ONLY"
    return [Diagnostic("warning", "functions", detail, ADVICE, facts={"functions": dict(functions)})]


def examine(answer: Answer, planned_queries: PlannedQueries, max_duty_cycle: float) -> Diagnostic:
    """Finding for one query; `max_duty_cycle` is a fraction of 1."""
    result = to_result(answer)
    query = answer.query
    cost = planned_queries.costs.get(query.name)
    facts = {
        "duration": round(answer.duration, 6) if answer.skipped is None else None,
        "cost": cost,
        "max_cost": query.max_cost,
        "series": len(result.samples),
        "estimated": answer.estimated,
        "reason": answer.skipped.reason if answer.skipped else None,
        "error": result.error_type,
        "owner": query.owner,
    }

    def diagnostic(severity: Severity, detail: str, advice: str | None = None) -> Diagnostic:
        if query.owner:
            detail = f"{detail}; owner: {query.owner}"
        return Diagnostic(severity, "query", detail, advice, query.name, facts=facts)

    if answer.skipped is not None:
        reason = answer.skipped.reason
        if reason in _CHECK_OF_REASON:
            return diagnostic("skip", f"not run: see {_CHECK_OF_REASON[reason]}")
        severity: Severity = "skip" if reason in _EXPECTED else "warning"
        return diagnostic(severity, f"skipped: {answer.skipped.detail}", _ADVICE.get(reason))
    spent = _spent(answer.duration, cost, query.max_cost)
    if result.error is not None:
        error = result.error
        code = f" ({error.sqlstate})" if error.sqlstate else ""
        return diagnostic("error", f"{error.kind}{code}: {error.message}; {spent}", error.hint)
    series = f"{len(result.samples)} series" + _estimate_note(answer, query)
    if result.rejected.keys() - {"null"}:
        advice = f"check the rows: poller poll --query {query.name} -v"
        return diagnostic("warning", f"{spent}, {series}, {_dropped(result)}", advice)
    if ignored := planned_queries.ignored.get(query.name):
        detail = f"{spent}, {series}: {ignored[0]}"
        return diagnostic("warning", detail, "correct search_path in the settings of the query")
    if answer.estimated == "timeout":
        return diagnostic("warning", f"{spent}, {series}", "make the query cheaper, or raise its timeout")
    if answer.duration > max_duty_cycle * query.interval:
        often = format_duration(round(answer.duration / max_duty_cycle))
        detail = (
            f"{spent}, {series}: more than {max_duty_cycle:.0%} of its interval, so it runs every {often}"
        )
        return diagnostic("warning", detail, "make the query cheaper, or its interval longer")
    # A NULL under on_null: drop is omitted because the definition asks for it.
    return diagnostic("ok", f"{spent}, {series}" + (f", {_dropped(result)}" if result.rejected else ""))


def _estimate_note(answer: Answer, query: QueryDefinition) -> str:
    if answer.estimated == "cost":
        return f" by its estimate (cost above {query.exact_limit:,.0f})"
    return f" by its estimate ({answer.estimated})" if answer.estimated else ""


def _dropped(result: PollResult) -> str:
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(result.rejected.items()))
    return f"rows dropped: {dropped}"


def _spent(seconds: float, cost: float | None, max_cost: float | None) -> str:
    if seconds >= 1:
        time = f"{seconds:.1f} s"
    elif seconds >= 0.01:
        time = f"{seconds * 1000:.0f} ms"
    else:
        time = f"{seconds * 1000:.1f} ms" if seconds >= 0.0001 else "<0.1 ms"
    limit = "" if max_cost is None else f" of {max_cost:,.0f}"
    return time if cost is None else f"{time}, cost {cost:,.0f}{limit}"


def _timed_out(answer: Answer) -> bool:
    return answer.error is not None and answer.error.kind == "timeout"
