"""Diagnosis of the standby: role, replay lag and recovery conflicts with queries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from poller.model.diagnostics import Diagnostic, Severity
from poller.model.duration import format_duration
from poller.model.query import QueryDefinition
from poller.model.target import RequireStandby
from poller.postgres.server_tracker import ServerInfo


def examine(
    server_info: ServerInfo,
    settings: dict[str, str],
    queries: Sequence[QueryDefinition],
    *,
    require_standby: RequireStandby,
    max_lag: float | None,
) -> list[Diagnostic]:
    """Findings about the role, the replay lag and recovery conflicts.

    `settings` are the server's, in the units of `pg_settings`. `max_lag` is POLLER_MAX_REPLAY_LAG in seconds.
    """
    return [
        _standby(server_info, require_standby),
        _lag(server_info, queries, max_lag),
        _conflicts(settings, queries, standby=server_info.standby),
    ]


def _standby(server_info: ServerInfo, require: RequireStandby) -> Diagnostic:
    timeline = f", timeline {server_info.timeline}" if server_info.timeline is not None else ""
    detail = f"a {server_info.role}{timeline}"
    facts = {"role": server_info.role, "timeline": server_info.timeline}
    if server_info.standby or require == "false":
        return Diagnostic("ok", "standby", detail, facts=facts)
    if require == "true":
        advice = "point POLLER_DATABASE_URL at a standby (target_session_attrs=standby chooses among several)"
        return Diagnostic(
            "error", "standby", f"{detail}, but POLLER_REQUIRE_STANDBY is true", advice, facts=facts
        )
    advice = "point POLLER_DATABASE_URL at a standby, or set POLLER_REQUIRE_STANDBY=false if this is intended"
    return Diagnostic("warning", "standby", detail, advice, facts=facts)


def _lag(server_info: ServerInfo, queries: Iterable[QueryDefinition], limit: float | None) -> Diagnostic:
    seconds, why = server_info.lag, server_info.why
    facts = {"lag": seconds, "data_age": server_info.data_age, "why": why, "limit": limit}
    shortest = min((query.interval for query in queries), default=0.0)
    above = f"; the limit is {format_duration(limit)}" if limit is not None else ""
    advice = "check the connection to the primary (pg_stat_wal_receiver), and why replay waits"
    if not server_info.standby:
        return Diagnostic("ok", "lag", why, facts=facts)
    if seconds is None:
        severity: Severity = "warning" if limit is None else "error"
        return Diagnostic(severity, "lag", f"unknown: {why}{above}", advice, facts=facts)
    detail = f"{format_duration(round(seconds, 3))}: {why}{above}"
    if limit is not None and seconds > limit:
        return Diagnostic("error", "lag", detail, f"{advice}; or raise POLLER_MAX_REPLAY_LAG", facts=facts)
    if seconds > shortest:
        detail += f"; longer than an interval ({format_duration(shortest)}), so old values look current"
        return Diagnostic(
            "warning", "lag", detail, f"{advice}; set POLLER_MAX_REPLAY_LAG to skip polls", facts=facts
        )
    grant = "GRANT pg_monitor TO the role, so that a silent connection to the primary is detected as well"
    return Diagnostic("ok", "lag", detail, grant if server_info.data_age is None else None, facts=facts)


def _conflicts(settings: dict[str, str], queries: Sequence[QueryDefinition], *, standby: bool) -> Diagnostic:
    """Finding about recovery conflicts (PostgreSQL manual, "Handling Query Conflicts")."""
    if not standby:
        return Diagnostic("skip", "conflicts", "only a standby cancels queries during recovery")
    longest = max(queries, key=lambda query: query.timeout, default=None)
    timeout = longest.timeout if longest else 0.0
    delay = int(settings["max_standby_streaming_delay"]) / 1000
    feedback = settings["hot_standby_feedback"] == "on"
    facts = {
        "max_standby_streaming_delay": None if delay < 0 else delay,
        "hot_standby_feedback": feedback,
        "longest_timeout": timeout,
    }
    delay_text = "-1" if delay < 0 else format_duration(delay)
    both = f"max_standby_streaming_delay {delay_text}, hot_standby_feedback {'on' if feedback else 'off'}"
    run = f"a query may run {format_duration(timeout)} ({longest.name if longest else '-'})"
    if delay < 0:
        return Diagnostic("ok", "conflicts", f"{both}: {run}, and replay waits for it", facts=facts)
    if delay >= timeout:
        return Diagnostic("ok", "conflicts", f"{both}: {run}, and replay waits as long", facts=facts)
    if feedback:
        detail = f"{both}: {run}; VACUUM on the primary does not cancel it, but DDL may"
        return Diagnostic("ok", "conflicts", detail, facts=facts)
    return Diagnostic(
        "warning",
        "conflicts",
        f"{both}: {run}, and VACUUM or DDL on the primary may cancel it",
        "set hot_standby_feedback = on on the standby (the primary then keeps dead rows while a query runs), "
        f"or max_standby_streaming_delay = {format_duration(timeout)} (replay may then lag by as much)",
        facts=facts,
    )
