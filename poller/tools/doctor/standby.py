"""Diagnosis of the standby: role, replay lag and recovery conflicts with queries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from poller.model.duration import format_duration
from poller.model.query import QueryDefinition
from poller.postgres.admission import RequireStandby
from poller.postgres.server_tracker import ServerInfo
from poller.tools.doctor.finding import Finding


def examine(
    server_info: ServerInfo,
    settings: dict[str, str],
    queries: Sequence[QueryDefinition],
    *,
    require_standby: RequireStandby,
    max_lag: float | None,
) -> list[Finding]:
    """Findings about the role, the replay lag and recovery conflicts.

    `settings` are the server's, in the units of `pg_settings`. `max_lag` is POLLER_MAX_REPLAY_LAG in seconds.
    """
    return [
        _standby(server_info, require_standby),
        _lag(server_info, queries, max_lag),
        _conflicts(settings, queries, standby=server_info.standby),
    ]


def _standby(server_info: ServerInfo, require: RequireStandby) -> Finding:
    timeline = f", timeline {server_info.timeline}" if server_info.timeline is not None else ""
    detail = f"a {server_info.role}{timeline}"
    facts = {"role": server_info.role, "timeline": server_info.timeline}
    if server_info.standby or require == "false":
        return Finding("standby", "ok", detail, facts=facts)
    if require == "true":
        advice = "point POLLER_DATABASE_URL at a standby (target_session_attrs=standby chooses among several)"
        return Finding(
            "standby", "fail", f"{detail}, but POLLER_REQUIRE_STANDBY is true", advice, facts=facts
        )
    advice = "point POLLER_DATABASE_URL at a standby, or set POLLER_REQUIRE_STANDBY=false if this is intended"
    return Finding("standby", "warn", detail, advice, facts=facts)


def _lag(server_info: ServerInfo, queries: Iterable[QueryDefinition], limit: float | None) -> Finding:
    seconds, why = server_info.lag, server_info.why
    facts = {"lag": seconds, "data_age": server_info.data_age, "why": why, "limit": limit}
    shortest = min((query.interval for query in queries), default=0.0)
    above = f"; the limit is {format_duration(limit)}" if limit is not None else ""
    advice = "check the connection to the primary (pg_stat_wal_receiver), and why replay waits"
    if not server_info.standby:
        return Finding("lag", "ok", why, facts=facts)
    if seconds is None:
        state = "warn" if limit is None else "fail"
        return Finding("lag", state, f"unknown: {why}{above}", advice, facts=facts)  # type: ignore[arg-type]  # one of the two
    detail = f"{format_duration(round(seconds, 3))}: {why}{above}"
    if limit is not None and seconds > limit:
        return Finding("lag", "fail", detail, f"{advice}; or raise POLLER_MAX_REPLAY_LAG", facts=facts)
    if seconds > shortest:
        detail += f"; longer than an interval ({format_duration(shortest)}), so old values look current"
        return Finding(
            "lag", "warn", detail, f"{advice}; set POLLER_MAX_REPLAY_LAG to skip polls", facts=facts
        )
    grant = "GRANT pg_monitor TO the role, so that a silent connection to the primary is detected as well"
    return Finding("lag", "ok", detail, grant if server_info.data_age is None else None, facts=facts)


def _conflicts(settings: dict[str, str], queries: Sequence[QueryDefinition], *, standby: bool) -> Finding:
    """Finding about recovery conflicts (PostgreSQL manual, "Handling Query Conflicts")."""
    if not standby:
        return Finding("conflicts", "skip", "only a standby cancels queries during recovery")
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
        return Finding("conflicts", "ok", f"{both}: {run}, and replay waits for it", facts=facts)
    if delay >= timeout:
        return Finding("conflicts", "ok", f"{both}: {run}, and replay waits as long", facts=facts)
    if feedback:
        detail = f"{both}: {run}; VACUUM on the primary does not cancel it, but DDL may"
        return Finding("conflicts", "ok", detail, facts=facts)
    return Finding(
        "conflicts",
        "warn",
        f"{both}: {run}, and VACUUM or DDL on the primary may cancel it",
        "set hot_standby_feedback = on on the standby (the primary then keeps dead rows while a query runs), "
        f"or max_standby_streaming_delay = {format_duration(timeout)} (replay may then lag by as much)",
        facts=facts,
    )
