"""Server facts that requirements depend on, and the role's privileges beyond reading."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from poller.model.query import QueryDefinition, Requirements
from poller.model.result import Skip
from poller.postgres.charset import UTF8, Charset
from poller.postgres.sql_text import literal

_POWERS = {
    "rolcreaterole": "CREATEROLE",
    "rolcreatedb": "CREATEDB",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
}
_READING_ROLES = (
    "pg_monitor", "pg_read_all_data", "pg_read_all_settings", "pg_read_all_stats", "pg_stat_scan_tables",
    "pg_use_reserved_connections",
)  # fmt: skip
"""Predefined roles that only read. Every other one counts, so that a role of a later release does too."""
_MOST_NAMES = 3


def excess() -> str:
    """Return an SQL expression: a JSON array of texts, one for each privilege of the role beyond reading.

    It covers attributes of roles, predefined roles that write or act outside the database (PostgreSQL
    manual, "Predefined Roles"), owned relations, tables and sequences that the role may change, parameters
    that were granted, and schemas and databases in which it may create objects. For a superuser it names
    only that, because all others would apply too. Parameters that were granted to PUBLIC are not found.

    The role is the one that logged in (`session_user`), because SET ROLE drops no privilege permanently.
    Privileges of every role of which it is a member also count, even if it has to use SET ROLE first.
    """
    powers = ", ".join(f"CASE WHEN {column} THEN '{word}' END" for column, word in _POWERS.items())
    reading = ", ".join(f"'{role}'" for role in _READING_ROLES)
    # `acting` omits roles whose privileges session_user inherits; PostgreSQL 14 has no pg_parameter_acl.
    return f"""\
(WITH roles AS MATERIALIZED (
    SELECT oid, rolname, rolsuper, rolname OPERATOR(pg_catalog.=) session_user AS own,
      CASE WHEN rolsuper THEN 'superuser' ELSE pg_catalog.concat_ws(', ', {powers}) END AS powers
    FROM pg_catalog.pg_roles
    WHERE pg_catalog.pg_has_role(session_user, oid, 'MEMBER') OR rolname OPERATOR(pg_catalog.=) current_user),
  acting AS MATERIALIZED (
    SELECT oid FROM roles WHERE own OR NOT pg_catalog.pg_has_role(session_user, oid, 'USAGE')),
  super(own, reachable) AS MATERIALIZED (
    SELECT pg_catalog.bool_or(rolsuper AND own), pg_catalog.bool_or(rolsuper) FROM roles)
  SELECT coalesce(pg_catalog.json_agg(word), '[]') FROM (
    SELECT pg_catalog.unnest(pg_catalog.string_to_array(powers, ', ')) AS word FROM roles WHERE own
    UNION ALL
    SELECT {_listed("may act as", "name")} FROM (
      SELECT pg_catalog.concat(rolname, ' (', powers, ')') AS name FROM roles, super
      WHERE NOT roles.own AND powers OPERATOR(pg_catalog.<>) '' AND NOT super.own
        AND (rolsuper OR NOT super.reachable)) AS mighty
    HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0
    UNION ALL
    SELECT pg_catalog.concat('member of ', rolname) FROM roles, super
    WHERE NOT super.reachable AND pg_catalog.starts_with(rolname, 'pg_')
      AND rolname OPERATOR(pg_catalog.<>) ALL (ARRAY[{reading}]::pg_catalog.name[])
    UNION ALL
    SELECT {_listed("owner of", "relname")} FROM pg_catalog.pg_class, super
    WHERE NOT reachable AND {_OWNED}
    HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0
    UNION ALL
    SELECT {_listed("may change", "relname")} FROM pg_catalog.pg_class, super
    WHERE NOT reachable AND relkind OPERATOR(pg_catalog.=) ANY ('{{r,p,v,f,m,S}}'::pg_catalog."char"[])
      AND relnamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace
      AND NOT {_OWNED}
      AND EXISTS (SELECT FROM acting WHERE {_CHANGES})
    HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0
    UNION ALL
    SELECT {_listed("may set", "name")} FROM (
      SELECT DISTINCT (pg_catalog.pg_identify_object(classid, objid, 0)).identity AS name
      FROM pg_catalog.pg_shdepend JOIN roles ON roles.oid OPERATOR(pg_catalog.=) refobjid
      WHERE classid OPERATOR(pg_catalog.=)
          pg_catalog.to_regclass('pg_catalog.pg_parameter_acl')::pg_catalog.oid
        AND refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid
    ) AS parameters, super
    WHERE NOT reachable
    HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0
    UNION ALL
    SELECT {_listed("may create in schema", "nspname")} FROM pg_catalog.pg_namespace, super
    WHERE NOT reachable AND EXISTS (
        SELECT FROM acting WHERE pg_catalog.has_schema_privilege(acting.oid, pg_namespace.oid, 'CREATE'))
      AND NOT pg_catalog.pg_is_other_temp_schema(oid)
      AND oid OPERATOR(pg_catalog.<>) pg_catalog.pg_my_temp_schema()
    HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0
    UNION ALL
    SELECT pg_catalog.concat('may create schemas in database ', pg_catalog.current_database())
    FROM super WHERE NOT reachable AND EXISTS (
      SELECT FROM acting
      WHERE pg_catalog.has_database_privilege(acting.oid, pg_catalog.current_database(), 'CREATE'))
  ) AS excess)"""


_OWNED = "pg_catalog.pg_has_role(session_user, relowner, 'MEMBER')"
_CHANGES = """\
CASE WHEN relkind OPERATOR(pg_catalog.=) 'S'::pg_catalog."char"
          THEN pg_catalog.has_sequence_privilege(acting.oid, pg_class.oid, 'USAGE, UPDATE')
          ELSE pg_catalog.has_table_privilege(acting.oid, pg_class.oid, (
              SELECT pg_catalog.concat('INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER', CASE
                WHEN pg_catalog.current_setting('server_version_num')::int OPERATOR(pg_catalog.>=) 170000
                THEN ', MAINTAIN' END)))
            OR pg_catalog.has_any_column_privilege(acting.oid, pg_class.oid, 'INSERT, UPDATE') END"""


def _listed(items: str, column: str) -> str:
    """Return an SQL expression for `items` and the first few names, in one text."""
    sorted_names = f"pg_catalog.array_agg({column}::pg_catalog.text ORDER BY {column})"
    names = f"pg_catalog.array_to_string(({sorted_names})[1:{_MOST_NAMES}], ', ')"
    others = f"pg_catalog.count(*) OPERATOR(pg_catalog.-) {_MOST_NAMES}"
    more = (
        f"CASE WHEN {others} OPERATOR(pg_catalog.>) 0 THEN pg_catalog.concat(' and ', {others}, ' more') END"
    )
    return f"pg_catalog.concat('{items} ', {names}, {more})"


_COMPARISONS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "==": operator.eq}
_IDENTIFIER = r'("(?:[^"]|"")+"|[^".\s]+)'
_RELATION = re.compile(rf"(?:{_IDENTIFIER}\.)?{_IDENTIFIER}")
_GRANT = "GRANT SELECT on it, and USAGE on its schema"
_COMPARISON = re.compile(r"(>=|>|<=|<|==)\s*(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """State of one server in one tick: enough to check every requirement."""

    standby: bool
    version: int
    """As in `server_version_num`: 150018 is 15.18."""
    columns: Mapping[str, frozenset[str]]
    """Columns of each relation that exists, by its name in the query files; missing relations have no key."""
    extensions: frozenset[str]
    unreadable: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Columns of these relations that the role may not SELECT."""
    member_of: frozenset[str] = frozenset()
    """The required roles whose privileges the poller's role has."""
    active: int | None = None
    """Active client backends except the poller's; None if not requested, or if the role may not see them."""
    excess: tuple[str, ...] = ()
    """Privileges of the role beyond reading, as texts; empty if not requested."""
    server: str = ""
    """Identity of the server process: the value of SERVER."""
    session: str = ""
    """Database and role; `excess` applies only to this session and server together."""


def facts_query(
    queries: Iterable[QueryDefinition],
    *,
    count_active: bool = False,
    privileges: bool = False,
    charset: Charset = UTF8,
) -> str:
    """Return the statement that reads ServerFacts for `queries`, as a single JSON value.

    With `count_active` it also counts active backends; other roles' backends are visible only to
    pg_read_all_stats. With `privileges` it reads excess privileges, which scans all of pg_class. It omits
    names that `charset` cannot encode: no such object exists, and the statement would fail for all queries.

    It reads only what a query requires or a parameter requests, and always the server's role, version,
    process and session. It reads only the system catalogue and never uses a user's relation as a relation.
    So a missing relation causes no error in the server's log, and names follow the search_path as in the
    query. `to_regclass` does the same, but raises an error for a schema without USAGE privilege and for a
    name of three parts. Here such an error would fail every query.
    """
    queries = tuple(queries)
    has = charset.has
    relations = sorted({name for query in queries for name in query.requires.columns if has(name)})
    roles = ", ".join(
        literal(role) for role in sorted({r for query in queries for r in query.requires.member_of if has(r)})
    )
    extensions = any(query.requires.extensions for query in queries)
    active = (
        "CASE WHEN pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') THEN ("
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity"
        " WHERE state OPERATOR(pg_catalog.=) 'active'"
        " AND backend_type OPERATOR(pg_catalog.=) 'client backend'"
        " AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()) END"
        if count_active
        else "NULL"
    )
    parts = {
        "standby": "pg_catalog.pg_is_in_recovery()",
        "version": "pg_catalog.current_setting('server_version_num')::int",
        "server": SERVER,
        "session": "pg_catalog.concat_ws(' ', pg_catalog.current_database(), session_user)",
        "active": active,
        "excess": excess() if privileges else _NONE,
        "extensions": _EXTENSIONS if extensions else _NONE,
        "member_of": _member_of(roles) if roles else _NONE,
        "columns": _columns(relations) if relations else "'{}'::pg_catalog.json",
    }
    listed = ", ".join(f"'{name}', {expression}" for name, expression in parts.items())
    return f"SELECT pg_catalog.json_build_object({listed})"


SERVER = (
    "pg_catalog.concat_ws(' ', pg_catalog.inet_server_addr(), pg_catalog.current_setting('port'),"
    " extract(epoch FROM pg_catalog.pg_postmaster_start_time()))"
)
"""An SQL expression whose text is unique for each server process."""
_NONE = "'[]'::pg_catalog.json"
_EXTENSIONS = "(SELECT coalesce(pg_catalog.json_agg(extname), '[]') FROM pg_catalog.pg_extension)"


def _member_of(roles: str) -> str:
    return f"""\
(SELECT coalesce(pg_catalog.json_agg(rolname), '[]') FROM pg_catalog.pg_roles
    WHERE rolname OPERATOR(pg_catalog.=) ANY (ARRAY[{roles}]::pg_catalog.text[])
      AND pg_catalog.pg_has_role(oid, 'USAGE'))"""


def _columns(relations: Sequence[str]) -> str:
    names = ", ".join(_row(name) for name in relations)
    path = "pg_catalog.current_schemas(true)"
    return f"""\
(SELECT coalesce(pg_catalog.json_object_agg(wanted.name, (
      SELECT pg_catalog.json_build_array(
        coalesce(pg_catalog.json_agg(attname), '[]'),
        coalesce(pg_catalog.json_agg(attname) FILTER (WHERE NOT (
          found.usable AND pg_catalog.has_column_privilege(attrelid, attnum, 'SELECT'))), '[]'))
      FROM pg_catalog.pg_attribute
      WHERE attrelid OPERATOR(pg_catalog.=) found.oid AND attnum OPERATOR(pg_catalog.>) 0
        AND NOT attisdropped)), '{{}}')
    FROM (VALUES {names}) AS wanted(name, schema, relation), LATERAL (
      SELECT pg_class.oid, pg_catalog.has_schema_privilege(relnamespace, 'USAGE') AS usable
      FROM pg_catalog.pg_class
        JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) relnamespace
      WHERE relname OPERATOR(pg_catalog.=) relation
        AND CASE WHEN schema IS NULL THEN nspname OPERATOR(pg_catalog.=) ANY ({path})
          ELSE nspname OPERATOR(pg_catalog.=) schema END
      ORDER BY pg_catalog.array_position({path}, nspname) LIMIT 1) AS found)"""


def read_facts(answer: bytes) -> ServerFacts:
    """Read the result of `facts_query`."""
    # In a SQL_ASCII database, names may be in any encoding.
    data = json.loads(answer.decode(errors="replace"))
    return ServerFacts(
        standby=data["standby"],
        version=data["version"],
        columns={name: frozenset(columns) for name, (columns, _) in data["columns"].items()},
        extensions=frozenset(data["extensions"]),
        unreadable={name: frozenset(closed) for name, (_, closed) in data["columns"].items()},
        member_of=frozenset(data["member_of"]),
        active=data["active"],
        excess=tuple(data["excess"]),
        server=data["server"],
        session=data["session"],
    )


def unmet_requirement(requires: Requirements, facts: ServerFacts) -> Skip | None:
    """Return the first requirement that does not hold, as a Skip; None if all hold.

    A named relation or column must also be readable: without the privilege, the query would cause an error
    in the server's log at every tick.
    """
    if requires.role != "any" and (requires.role == "standby") != facts.standby:
        return Skip("role", f"needs a {requires.role}, this server is a {_role(facts)}")
    if requires.server_version and not _in_range(requires.server_version, facts.version):
        required = requires.server_version
        return Skip(
            "version", f"needs server version {required}, this server has {_format_version(facts.version)}"
        )
    for extension in requires.extensions:
        if extension not in facts.extensions:
            return Skip("extension", f"extension {extension} is not installed")
    for role in requires.member_of:
        if role not in facts.member_of:
            return Skip("privilege", f"the role does not have the privileges of {role}; GRANT {role} to it")
    denied: Skip | None = None  # reported only if nothing is missing, because a GRANT does not fix that
    for relation, columns in requires.columns.items():
        if relation not in facts.columns:
            return Skip("relation", f"relation {relation} does not exist")
        closed = facts.unreadable.get(relation, frozenset())
        if not columns and facts.columns[relation] and closed >= facts.columns[relation]:
            denied = denied or Skip("privilege", f"no column of {relation} may be read; {_GRANT}")
        for column in columns:
            if column not in facts.columns[relation]:
                return Skip("column", f"column {relation}.{column} does not exist")
            if column in closed:
                denied = denied or Skip("privilege", f"column {relation}.{column} may not be read; {_GRANT}")
    return denied


def _role(facts: ServerFacts) -> str:
    return "standby" if facts.standby else "primary"


def _in_range(required: str, version: int) -> bool:
    # 14 means every 14.x: without a minor version, only major versions are compared.
    return all(
        _COMPARISONS[sign](version // 10000, int(major))
        if minor == ""
        else _COMPARISONS[sign](version, int(major) * 10000 + int(minor))
        for sign, major, minor in _COMPARISON.findall(required)
    )


def _format_version(version: int) -> str:
    return f"{version // 10000}.{version % 10000}"


def _row(name: str) -> str:
    """Return one row of VALUES: the name as written, its schema (or NULL) and its relation."""
    match = _RELATION.fullmatch(name)
    schema, relation = (_folded(part) for part in match.groups()) if match else (None, None)
    return f"({', '.join('NULL' if text is None else literal(text) for text in (name, schema, relation))})"


def _folded(identifier: str | None) -> str | None:
    """Read an identifier as PostgreSQL does: an unquoted one is folded to lower case."""
    if identifier is None or not identifier.startswith('"'):
        return identifier and identifier.lower()
    return identifier[1:-1].replace('""', '"')
