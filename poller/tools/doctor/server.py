"""Diagnosis of the connection: destination, encryption, role, limits and clock skew."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poller.config.queries.sql_ast import identifier
from poller.model.diagnostics import Diagnostic, Severity
from poller.model.duration import format_duration
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.postgres.admission import HIDDEN_BACKENDS
from poller.postgres.connection import Connection, Host, ssl_mode
from poller.postgres.inspect import Inspection, inspect
from poller.postgres.server_facts import ServerFacts
from poller.postgres.snapshot import SnapshotOpener
from poller.postgres.sqlstate import connection_advice

LARGEST_SKEW_SECONDS = 5.0
_ROLE_ADVICE = "poll with a dedicated role that may only read: deploy/role.sql creates one"


@dataclass(frozen=True, slots=True)
class ServerCatalogue:
    """Facts from the server's catalogue, and the clock skew."""

    facts: ServerFacts
    """Facts including the role's `excess` privileges."""
    values: dict[str, Any]
    """Result of `_catalogue_query`: backend, role, TLS and settings."""
    skew: float
    """Minimum seconds by which the server's clock is ahead of the local clock; negative if it is behind."""


def read_catalogue(opener: SnapshotOpener, queries: Sequence[QueryDefinition]) -> ServerCatalogue:
    """Read the server's catalogue in one read-only transaction. Raises PollError."""
    return inspect(opener, _read_catalogue, queries, privileges=True)


def _read_catalogue(inspection: Inspection) -> ServerCatalogue:
    before = time.time()
    document = inspection.value(_catalogue_query())
    after = time.time()
    catalogue: dict[str, Any] = json.loads(document.decode(errors="replace"))
    clock = float(catalogue["clock"])
    # The server read its clock between the two local readings; only a time outside of them is certain skew.
    skew = min(0.0, clock - before) + max(0.0, clock - after)
    return ServerCatalogue(inspection.facts, catalogue, skew)


def unreachable(error: PollError, place: str) -> Diagnostic:
    """Finding for a failed connection; `place` is the connection string without its secrets."""
    # Nothing was sent to a server: the words of its messages mean something else in this one.
    local = error.sqlstate is None and not error.server_wide
    advice = (local and error.hint) or connection_advice(error.message) or error.hint
    return Diagnostic(
        "error",
        "database",
        f"{place}: {error.message}",
        advice or "correct POLLER_DATABASE_URL, or fix the network to the server",
        facts={"error": error.kind, "sqlstate": error.sqlstate},
    )


def examine(
    catalogue: ServerCatalogue,
    session: Connection,
    *,
    place: str,
    strict: bool,
    connections: int = 1,
    max_active: int | None = None,
) -> list[Diagnostic]:
    """Findings about the connection and the role; `place` is the fallback for an unknown host.

    `connections` is the maximum number of connections of the poller to the server at the same time.
    `max_active` is POLLER_MAX_ACTIVE_BACKENDS.
    """
    connection = session.connection()
    facts, values = catalogue.facts, catalogue.values
    pooled = values["pid"] != connection.info.backend_pid
    return [
        _database(session.host, facts, place, pooled=pooled),
        encryption(
            # Behind a pooler, the server reports the TLS state of the pooler's connection.
            None if pooled else values["ssl"],
            in_use=connection.pgconn.ssl_in_use,
            sslmode=ssl_mode(connection),
            here=is_local(connection.info.host, connection.info.hostaddr),
        ),
        _role(values["role"], facts.excess, strict=strict),
        check_connections(
            values["limit"],
            values["used"],
            free_for_all(values["settings"]),
            connections,
            superuser="superuser" in facts.excess,
        ),
        *_backends(values["role"], facts.active, max_active),
        limits(values["role"], values["settings"]),
        clock(catalogue.skew),
        *_search_path(values["open_schemas"]),
    ]


def _database(host: Host | None, facts: ServerFacts, place: str, *, pooled: bool) -> Diagnostic:
    version = f"{facts.version // 10000}.{facts.version % 10000}"
    address = str(host) if host else place
    through = " through a pooler" if pooled else ""
    return Diagnostic(
        "ok",
        "database",
        f"PostgreSQL {version} at {address}{through}",
        facts={
            "address": host.address if host else None,
            "port": host.port if host else None,
            "server_version": version,
            "pooler": pooled,
        },
    )


def encryption(ssl: dict[str, Any] | None, *, in_use: bool, sslmode: str, here: bool) -> Diagnostic:
    """Finding about the encryption of the connection.

    `ssl` has version and cipher, or is None if unknown; `here`: the connection stays on this machine.
    """
    facts = {"tls": in_use, "sslmode": sslmode, "version": None, "cipher": None}
    if not in_use:
        if here:
            return Diagnostic(
                "ok", "tls", "no TLS, which is not needed: the connection stays on this machine", facts=facts
            )
        return Diagnostic(
            "warning",
            "tls",
            f"no TLS (sslmode={sslmode}): results and possibly the password cross the network unencrypted",
            "set ssl = on on the server and sslmode=verify-full in the connection string",
            facts=facts,
        )
    facts |= ssl or {}
    how = f"{ssl['version']}, {ssl['cipher']}" if ssl else "TLS"
    if here or sslmode.startswith("verify-"):
        return Diagnostic("ok", "tls", f"{how} (sslmode={sslmode})", facts=facts)
    return Diagnostic(
        "warning",
        "tls",
        f"{how}, but the server's certificate is not verified (sslmode={sslmode})",
        "set sslmode=verify-full, and sslrootcert=FILE of the certificate authority or sslrootcert=system",
        facts=facts,
    )


def _role(name: str, excess: Sequence[str], *, strict: bool) -> Diagnostic:
    facts = {"role": name, "excess": list(excess)}
    if not excess:
        return Diagnostic("ok", "role", f"{name} may only read", facts=facts)
    detail = f"{name} may do more than read: {', '.join(excess)}"
    return Diagnostic("error" if strict else "warning", "role", detail, _ROLE_ADVICE, facts=facts)


def free_for_all(settings: Mapping[str, str]) -> int:
    """Return the number of connections that ordinary roles may use; `settings` are those of the server."""
    reserved = ("superuser_reserved_connections", "reserved_connections")  # the latter from PostgreSQL 16 on
    return int(settings["max_connections"]) - sum(int(settings.get(name, 0)) for name in reserved)


def check_connections(
    limit: int, used: int, available: int, connections: int = 1, *, superuser: bool
) -> Diagnostic:
    """Finding about the connections of the role; a `limit` below 0 is none.

    `used` by the role now, `available` to all ordinary roles, `connections` of the poller at the same time.
    """
    facts: dict[str, object] = {"limit": None if limit < 0 or superuser else limit, "used": used}
    if connections > 1:
        facts |= {"connections": connections, "available": available}

    def diagnostic(severity: Severity, message: str, advice: str | None = None) -> Diagnostic:
        return Diagnostic(severity, "connections", message, advice, facts=facts)

    if connections > available:
        message = f"connections is {connections}, but the server has {available} for ordinary roles"
        return diagnostic("error", message, f"write connections: {max(1, available // 2)} or less")
    if superuser:
        return diagnostic("warning", f"{used} in use; a superuser has no limit")
    shares = f"{'one' if connections == 1 else connections} for the poller, one for a reconnect"
    advice = f"ALTER ROLE ... CONNECTION LIMIT {connections + 1}: {shares}"
    if limit < 0:
        return diagnostic("warning", f"{used} in use, the role has no limit", advice)
    if limit < connections:
        advice = f"{advice}; or write connections: {max(1, limit - 1)}"
        return diagnostic("error", f"connections is {connections}, but the role may have {limit}", advice)
    if limit == connections:
        advice = (
            f"ALTER ROLE ... CONNECTION LIMIT {connections + 1}: during a reconnect the lost connection may "
            "still count"
        )
        return diagnostic("warning", f"{used} in use of the role's {limit}", advice)
    return diagnostic("ok", f"{used} in use of the role's {limit}")


def _backends(role: str, active: int | None, limit: int | None) -> list[Diagnostic]:
    """Finding about the backends of other clients; `active` is None if the role cannot see them."""
    if limit is None:
        return []
    facts = {"active": active, "limit": limit}
    if active is None:
        advice = f"GRANT pg_read_all_stats TO {identifier(role)}"
        return [Diagnostic("warning", "backends", HIDDEN_BACKENDS, advice, facts=facts)]
    return [Diagnostic("ok", "backends", f"{active} active, the limit is {limit}", facts=facts)]


def _search_path(open_schemas: Mapping[str, Sequence[str]]) -> list[Diagnostic]:
    """Schemas of the search_path that other roles own, can create, or can create objects in."""
    if not open_schemas:
        return []
    listed = ", ".join(f"{schema} ({', '.join(roles)})" for schema, roles in sorted(open_schemas.items()))
    schemas = ", ".join(sorted(open_schemas))
    return [
        Diagnostic(
            "warning",
            "search_path",
            f"other roles may create objects in {listed}: a function or operator there can replace "
            "PostgreSQL's own in your queries and run with this role's privileges; a table can replace yours",
            f"REVOKE CREATE ON SCHEMA {schemas} FROM them, or ALTER ROLE ... SET search_path without it",
            facts={"open_schemas": dict(open_schemas)},
        )
    ]


def limits(role: str, settings: Mapping[str, str]) -> Diagnostic:
    """Finding about disk, workers and memory that one query may use; `settings` are those of the session."""
    files, workers = int(settings["temp_file_limit"]), settings["max_parallel_workers_per_gather"]
    current = {
        "temp_file_limit": "unlimited" if files < 0 else f"{files / 1024:.0f}MB",
        "max_parallel_workers_per_gather": workers,
    }
    missing = {}
    if files < 0:
        missing["temp_file_limit"] = "'1GB'"
    if workers != "0":
        missing["max_parallel_workers_per_gather"] = "0"
    if memory := settings.get("hash_mem_multiplier"):  # from PostgreSQL 13 on
        current["hash_mem_multiplier"] = memory
        if float(memory) > 1:
            missing["hash_mem_multiplier"] = "1"
    detail = ", ".join(f"{name} {value}" for name, value in current.items())
    facts = {"limits": current, "missing": list(missing)}
    if not missing:
        return Diagnostic("ok", "limits", detail, facts=facts)
    commands = [f"ALTER ROLE {identifier(role)} SET {name} = {value}" for name, value in missing.items()]
    detail = f"{detail}: one query may fill the disk, or use several workers and their memory"
    advice = f"{'; '.join(commands)} (deploy/role.sql does this; temp_file_limit requires a superuser)"
    return Diagnostic("warning", "limits", detail, advice, facts=facts)


def clock(skew: float) -> Diagnostic:
    """Finding about the clock skew; for `skew` see `ServerCatalogue`."""
    facts = {"skew": round(skew, 3)}
    if abs(skew) <= LARGEST_SKEW_SECONDS:
        detail = f"differs from the server's by at most {LARGEST_SKEW_SECONDS:g}s"
        return Diagnostic("ok", "clock", detail, facts=facts)
    direction = "ahead of" if skew > 0 else "behind"
    amount = format_duration(round(abs(skew), 1))
    return Diagnostic(
        "warning",
        "clock",
        f"the server's clock is {amount} {direction} the local clock: ages by now() and timestamps disagree",
        "synchronize the clocks of both machines with NTP",
        facts=facts,
    )


def _catalogue_query() -> str:
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
        -- A missing schema of the search_path can be created by roles that may create schemas.
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
        'max_parallel_workers_per_gather', 'hash_mem_multiplier', 'max_connections',
        'superuser_reserved_connections', 'reserved_connections'])))"""


def is_local(host: str, address: str) -> bool:
    """Whether the connection does not leave this machine."""
    if not host or host[0] in "/@":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
