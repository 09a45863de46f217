"""Diagnosis of the connection: destination, encryption, role, limits and clock skew."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poller.config.queries.sql_ast import identifier
from poller.model.duration import format_duration
from poller.model.query import QueryDefinition
from poller.postgres.cancellation import CancelToken
from poller.postgres.connection import Connection, Host, ssl_mode
from poller.postgres.pipeline import Pipeline
from poller.postgres.server_facts import ServerFacts, facts_query, read_facts
from poller.postgres.transaction import TransactionLimits, budget, rollback
from poller.tools.doctor.finding import Finding

LARGEST_SKEW_SECONDS = 5.0
_ROLE_ADVICE = "poll with a role of its own that may only read: deploy/role.sql makes one"


@dataclass(frozen=True, slots=True)
class ServerCatalogue:
    """What the first look at the server told."""

    facts: ServerFacts
    """Its `excess` is filled in."""
    values: dict[str, Any]
    """What `_look_query` came to: backend, role, TLS, settings."""
    skew: float
    """Seconds by which the server's clock is ahead of ours at least; negative: behind."""


def read_catalogue(
    session: Connection, cancel_token: CancelToken, lock_timeout: float, queries: Sequence[QueryDefinition]
) -> ServerCatalogue:
    """Ask the server for everything that stands in its catalogue, in one read-only transaction.

    Raises PollError.
    """
    pipeline = Pipeline(session.connection(), cancel_token)
    transaction_limits = TransactionLimits(lock_timeout, budget(queries), charset=pipeline.charset)
    facts = facts_query(queries, privileges=True, charset=pipeline.charset)
    before = time.time()
    sent = [*transaction_limits.opening([facts, _look_query()]), rollback()]
    replies = [(reply, time.time()) for reply in pipeline.send(sent)]
    for reply, _ in replies:
        if reply.error is not None:
            session.close()
            raise reply.error
    values = [
        (reply.rows.values[0][0] or b"", at) for reply, at in replies if reply.rows and reply.rows.values
    ]
    (found, _), (described, after) = values[-2:]
    told: dict[str, Any] = json.loads(described.decode(errors="replace"))
    clock = float(told["clock"])
    # The server looked at its clock between our two looks at ours; what is outside of that is skew for sure.
    skew = min(0.0, clock - before) + max(0.0, clock - after)
    return ServerCatalogue(read_facts(found), told, skew)


def examine(looked: ServerCatalogue, session: Connection, *, place: str, strict: bool) -> list[Finding]:
    """Everything about the connection and the role; `place` is what to show where no host is known."""
    connection = session.connection()
    facts, told = looked.facts, looked.values
    pooled = told["pid"] != connection.info.backend_pid
    return [
        _database(session.host, facts, place, pooled=pooled),
        secured(
            # A pooler's own link to the server is what the server tells of.
            None if pooled else told["ssl"],
            in_use=connection.pgconn.ssl_in_use,
            sslmode=ssl_mode(connection),
            here=is_here(connection.info.host, connection.info.hostaddr),
        ),
        _role(told["role"], facts.excess, strict=strict),
        _connections(told["limit"], told["used"], superuser="superuser" in facts.excess),
        limits(told["role"], told["settings"]),
        clock(looked.skew),
        *_search_path(told["open_schemas"]),
    ]


def _database(host: Host | None, facts: ServerFacts, place: str, *, pooled: bool) -> Finding:
    version = f"{facts.version // 10000}.{facts.version % 10000}"
    shown = str(host) if host else place
    through = " through a pooler" if pooled else ""
    return Finding(
        "database",
        "ok",
        f"PostgreSQL {version} at {shown}{through}",
        facts={
            "address": host.address if host else None,
            "port": host.port if host else None,
            "server_version": version,
            "pooler": pooled,
        },
    )


def secured(ssl: dict[str, Any] | None, *, in_use: bool, sslmode: str, here: bool) -> Finding:
    """How well the connection is kept from others' eyes.

    `ssl` holds version and cipher, None where they are not known; `here` is a connection that does not leave
    this machine.
    """
    facts = {"tls": in_use, "sslmode": sslmode, "version": None, "cipher": None}
    if not in_use:
        if here:
            return Finding("tls", "ok", "no TLS, and none needed: the connection stays here", facts=facts)
        return Finding(
            "tls",
            "warn",
            f"no TLS (sslmode={sslmode}): numbers and perhaps the password cross the network readable",
            "set ssl = on on the server and sslmode=verify-full in the connection string",
            facts=facts,
        )
    facts |= ssl or {}
    how = f"{ssl['version']}, {ssl['cipher']}" if ssl else "TLS"
    if here or sslmode.startswith("verify-"):
        return Finding("tls", "ok", f"{how} (sslmode={sslmode})", facts=facts)
    return Finding(
        "tls",
        "warn",
        f"{how}, but nobody looks whose certificate it is (sslmode={sslmode})",
        "sslmode=verify-full, with sslrootcert=FILE of the authority or sslrootcert=system",
        facts=facts,
    )


def _role(name: str, excess: Sequence[str], *, strict: bool) -> Finding:
    facts = {"role": name, "excess": list(excess)}
    if not excess:
        return Finding("role", "ok", f"{name} may read and no more", facts=facts)
    detail = f"{name} may do more than read: {', '.join(excess)}"
    return Finding("role", "fail" if strict else "warn", detail, _ROLE_ADVICE, facts=facts)


def _connections(limit: int, used: int, *, superuser: bool) -> Finding:
    facts = {"limit": None if limit < 0 or superuser else limit, "used": used}
    if superuser:
        return Finding("connections", "warn", f"{used} in use; a superuser has no limit", facts=facts)
    if limit < 0:
        advice = "ALTER ROLE ... CONNECTION LIMIT 2: one for the poller, one for the moment of a reconnect"
        return Finding("connections", "warn", f"{used} in use, the role has no limit", advice, facts=facts)
    if limit == 1:
        advice = "ALTER ROLE ... CONNECTION LIMIT 2: a reconnect may come before the server notices the loss"
        return Finding("connections", "warn", f"{used} in use of the role's 1", advice, facts=facts)
    return Finding("connections", "ok", f"{used} in use of the role's {limit}", facts=facts)


def _search_path(open_schemas: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Schemas of the search_path that other roles own, may create, or may create objects in."""
    if not open_schemas:
        return []
    found = ", ".join(f"{schema} ({', '.join(roles)})" for schema, roles in sorted(open_schemas.items()))
    schemas = ", ".join(sorted(open_schemas))
    return [
        Finding(
            "search_path",
            "warn",
            f"others may create in {found}: a function or operator made there can run in the place of "
            "PostgreSQL's own in your queries, with this role's rights, and a table in the place of yours",
            f"REVOKE CREATE ON SCHEMA {schemas} FROM them, or ALTER ROLE ... SET search_path without it",
            facts={"open_schemas": dict(open_schemas)},
        )
    ]


def limits(role: str, settings: Mapping[str, str]) -> Finding:
    """What one query may use of disk, workers and memory; `settings` are those of the session."""
    files, workers = int(settings["temp_file_limit"]), settings["max_parallel_workers_per_gather"]
    shown = {
        "temp_file_limit": "unlimited" if files < 0 else f"{files / 1024:.0f}MB",
        "max_parallel_workers_per_gather": workers,
    }
    wanted = {}
    if files < 0:
        wanted["temp_file_limit"] = "'1GB'"
    if workers != "0":
        wanted["max_parallel_workers_per_gather"] = "0"
    if memory := settings.get("hash_mem_multiplier"):  # from PostgreSQL 13 on
        shown["hash_mem_multiplier"] = memory
        if float(memory) > 1:
            wanted["hash_mem_multiplier"] = "1"
    detail = ", ".join(f"{name} {value}" for name, value in shown.items())
    facts = {"limits": shown, "missing": list(wanted)}
    if not wanted:
        return Finding("limits", "ok", detail, facts=facts)
    commands = [f"ALTER ROLE {identifier(role)} SET {name} = {value}" for name, value in wanted.items()]
    detail = f"{detail}: one query may fill the disk or use several workers and their memory"
    advice = f"{'; '.join(commands)} (deploy/role.sql does; temp_file_limit takes a superuser)"
    return Finding("limits", "warn", detail, advice, facts=facts)


def clock(skew: float) -> Finding:
    """What the two clocks differ by: `skew` as in `Looked`."""
    facts = {"skew": round(skew, 3)}
    if abs(skew) <= LARGEST_SKEW_SECONDS:
        detail = f"within {LARGEST_SKEW_SECONDS:g}s of the server's"
        return Finding("clock", "ok", detail, facts=facts)
    which = "ahead of" if skew > 0 else "behind"
    amount = format_duration(round(abs(skew), 1))
    return Finding(
        "clock",
        "warn",
        f"the server's is {amount} {which} this machine's: ages by now() and the points' times disagree",
        "let NTP set the clocks of both machines",
        facts=facts,
    )


def _look_query() -> str:
    return """\
SELECT pg_catalog.json_build_object(
  'pid', pg_catalog.pg_backend_pid(),
  'clock', extract(epoch FROM pg_catalog.clock_timestamp()),
  'role', session_user,
  'limit', (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) session_user),
  'used', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity
    WHERE usename OPERATOR(pg_catalog.=) session_user
      AND backend_type OPERATOR(pg_catalog.=) 'client backend'),
  'ssl', (SELECT pg_catalog.json_build_object('version', version, 'cipher', cipher)
    FROM pg_catalog.pg_stat_ssl WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND ssl),
  'open_schemas', (
    SELECT coalesce(pg_catalog.json_object_agg(nspname, roles), '{}') FROM (
      SELECT nspname, pg_catalog.json_agg(DISTINCT coalesce(rolname, 'PUBLIC')::pg_catalog.text) AS roles
      FROM (
        SELECT nspname, grantee FROM pg_catalog.pg_namespace CROSS JOIN LATERAL pg_catalog.aclexplode(nspacl)
        WHERE nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(false))
          AND privilege_type OPERATOR(pg_catalog.=) 'CREATE' AND grantee OPERATOR(pg_catalog.<>) nspowner
        UNION ALL
        SELECT nspname, nspowner FROM pg_catalog.pg_namespace
        WHERE nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(false))
        UNION ALL
        -- A schema of the search_path that does not exist yet: who may create schemas may create it.
        SELECT session_user, grantee FROM pg_catalog.pg_database
          CROSS JOIN LATERAL pg_catalog.aclexplode(datacl)
        WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
          AND privilege_type OPERATOR(pg_catalog.=) 'CREATE' AND grantee OPERATOR(pg_catalog.<>) datdba
          AND pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.~) '[$]user'
          AND pg_catalog.to_regnamespace(pg_catalog.quote_ident(session_user::pg_catalog.text)) IS NULL
        ) AS may(nspname, grantee)
        LEFT JOIN pg_catalog.pg_roles ON pg_roles.oid OPERATOR(pg_catalog.=) grantee
      WHERE rolsuper IS NOT TRUE AND coalesce(rolname OPERATOR(pg_catalog.<>) session_user, true)
        AND coalesce(rolname OPERATOR(pg_catalog.<>) 'pg_database_owner', true)
      GROUP BY nspname) AS open),
  'settings', (SELECT pg_catalog.json_object_agg(name, setting) FROM pg_catalog.pg_settings
    WHERE name OPERATOR(pg_catalog.=)
      ANY (ARRAY['max_standby_streaming_delay', 'hot_standby_feedback', 'temp_file_limit',
        'max_parallel_workers_per_gather', 'hash_mem_multiplier'])))"""


def is_here(host: str, address: str) -> bool:
    """Whether the connection does not leave this machine."""
    if not host or host[0] in "/@":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
