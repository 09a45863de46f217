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
_ROLES = (
    "pg_write_all_data", "pg_execute_server_program", "pg_read_server_files", "pg_write_server_files",
    "pg_signal_backend", "pg_maintain", "pg_checkpoint", "pg_create_subscription",
)  # fmt: skip
_SHOWN = 3


def excess() -> str:
    """An SQL expression: a JSON array that says in words what the current role may do beyond reading.

    Attributes of the role, predefined roles that write or reach outside the database (PostgreSQL manual,
    "Predefined Roles"), relations it owns, tables it may change, schemas and databases it may create in. Of a
    superuser it says only that: everything else would be true as well. The role is the one that logged in
    (`session_user`) as well as the current one, as SET ROLE lays no right down for good; and what a role may
    do that it only could switch to counts too.
    """
    powers = ", ".join(f"CASE WHEN {column} THEN '{word}' END" for column, word in _POWERS.items())
    roles = ", ".join(f"'{role}'" for role in _ROLES)
    writable = """\
pg_catalog.has_table_privilege(session_user, oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
        OR pg_catalog.has_any_column_privilege(session_user, oid, 'INSERT, UPDATE')"""
    return f"""\
(SELECT coalesce(pg_catalog.json_agg(word), '[]') FROM (
    SELECT pg_catalog.unnest(
      CASE WHEN rolsuper THEN ARRAY['superuser'] ELSE ARRAY[{powers}]::pg_catalog.text[] END) AS word
    FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) session_user
    UNION ALL
    SELECT pg_catalog.concat('member of ', rolname) FROM pg_catalog.pg_roles
    WHERE rolname OPERATOR(pg_catalog.=) ANY (ARRAY[{roles}]::pg_catalog.name[])
      AND pg_catalog.pg_has_role(session_user, oid, 'MEMBER') AND NOT {_SUPERUSER}
    UNION ALL
    SELECT {_listed("owner of", "relname")} FROM pg_catalog.pg_class
    WHERE NOT {_SUPERUSER} AND pg_catalog.pg_has_role(session_user, relowner, 'MEMBER')
    HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0
    UNION ALL
    SELECT {_listed("may write", "relname")} FROM pg_catalog.pg_class
    WHERE NOT {_SUPERUSER} AND relkind OPERATOR(pg_catalog.=) ANY ('{{r,p,v,f,m}}'::pg_catalog."char"[])
      AND relnamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace
      AND NOT pg_catalog.pg_has_role(session_user, relowner, 'MEMBER') AND ({writable})
    HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0
    UNION ALL
    SELECT {_listed("may create in schema", "nspname")} FROM pg_catalog.pg_namespace
    WHERE NOT {_SUPERUSER} AND pg_catalog.has_schema_privilege(session_user, oid, 'CREATE')
      AND NOT pg_catalog.pg_is_other_temp_schema(oid)
      AND oid OPERATOR(pg_catalog.<>) pg_catalog.pg_my_temp_schema()
    HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0
    UNION ALL
    SELECT pg_catalog.concat('may create schemas in database ', pg_catalog.current_database())
    WHERE NOT {_SUPERUSER}
      AND pg_catalog.has_database_privilege(session_user, pg_catalog.current_database(), 'CREATE')
  ) AS excess WHERE word IS NOT NULL)"""


_SUPERUSER = "(SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) session_user)"


def _listed(what: str, column: str) -> str:
    """`what` and the first few names, in one text."""
    sorted_names = f"pg_catalog.array_agg({column}::pg_catalog.text ORDER BY {column})"
    names = f"pg_catalog.array_to_string(({sorted_names})[1:{_SHOWN}], ', ')"
    others = f"pg_catalog.count(*) OPERATOR(pg_catalog.-) {_SHOWN}"
    more = (
        f"CASE WHEN {others} OPERATOR(pg_catalog.>) 0 THEN pg_catalog.concat(' and ', {others}, ' more') END"
    )
    return f"pg_catalog.concat('{what} ', {names}, {more})"


_COMPARISONS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "==": operator.eq}
_IDENTIFIER = r'("(?:[^"]|"")+"|[^".\s]+)'
_RELATION = re.compile(rf"(?:{_IDENTIFIER}\.)?{_IDENTIFIER}")
_GRANT = "GRANT SELECT on it, and USAGE on its schema"
_COMPARISON = re.compile(r"(>=|>|<=|<|==)\s*(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What one look at the server told: enough to decide every requirement of a tick."""

    standby: bool
    version: int
    """As `server_version_num`: 150018 is 15.18."""
    columns: Mapping[str, frozenset[str]]
    """Columns of each relation that exists, by its name in the query files; no key, no relation."""
    extensions: frozenset[str]
    unreadable: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Columns of those relations that the role may not SELECT."""
    member_of: frozenset[str] = frozenset()
    """Those of the wanted roles whose privileges the poller's role has."""
    active: int | None = None
    """Active client backends but our own; None where it was not asked for, or the role may not see them."""
    excess: tuple[str, ...] = ()
    """What the role may do beyond reading, in words; empty where it was not asked for."""
    server: str = ""
    """The server process: the value of SERVER."""
    session: str = ""
    """Database and role, of which `excess` is true only together with the server."""


def facts_query(
    queries: Iterable[QueryDefinition],
    *,
    count_active: bool = False,
    privileges: bool = False,
    charset: Charset = UTF8,
) -> str:
    """The one statement that fetches ServerFacts for `queries`, as a single JSON value.

    With `count_active` it counts active backends too, which only pg_read_all_stats sees of other roles;
    with `privileges` it looks for excess ones, which reads all of pg_class. Nothing can have a name that
    `charset` does not have, so none is asked for: it would cost all queries their answers.

    It looks only at what a query requires or a parameter asks for; only the role and the version are always
    in it. It reads the system catalogue only and never names a relation of the user's as such, so that a
    missing one makes no error in the server's log, and follows the search_path as the query will.
    `to_regclass` would do the same, but raises for a schema that may not be used and for a name of three
    parts, and one query's error here would be every query's.
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
"""An expression that no two server processes give the same text."""
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
    """Read what `facts_query` came to."""
    # A database in SQL_ASCII keeps names in any encoding.
    told = json.loads(answer.decode(errors="replace"))
    return ServerFacts(
        standby=told["standby"],
        version=told["version"],
        columns={name: frozenset(columns) for name, (columns, _) in told["columns"].items()},
        extensions=frozenset(told["extensions"]),
        unreadable={name: frozenset(closed) for name, (_, closed) in told["columns"].items()},
        member_of=frozenset(told["member_of"]),
        active=told["active"],
        excess=tuple(told["excess"]),
        server=told["server"],
        session=told["session"],
    )


def unmet(requires: Requirements, facts: ServerFacts) -> Skip | None:
    """Say which requirement does not hold; None where all hold.

    A relation or column that is named must be readable as well: without the privilege the query would be an
    error in the server's log at every tick.
    """
    if requires.role != "any" and (requires.role == "standby") != facts.standby:
        return Skip("role", f"needs a {requires.role}, this server is a {_role(facts)}")
    if requires.server_version and not _in_range(requires.server_version, facts.version):
        wanted = requires.server_version
        return Skip("version", f"needs server version {wanted}, this server has {_spoken(facts.version)}")
    for extension in requires.extensions:
        if extension not in facts.extensions:
            return Skip("extension", f"extension {extension} is not installed")
    for role in requires.member_of:
        if role not in facts.member_of:
            return Skip("privilege", f"the role has not the privileges of {role}; GRANT {role} to it")
    denied: Skip | None = None  # of less use than what is missing, which no GRANT repairs
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


def _in_range(wanted: str, version: int) -> bool:
    # 14 means every 14.x: where no minor is written, only majors are compared.
    return all(
        _COMPARISONS[sign](version // 10000, int(major))
        if minor == ""
        else _COMPARISONS[sign](version, int(major) * 10000 + int(minor))
        for sign, major, minor in _COMPARISON.findall(wanted)
    )


def _spoken(version: int) -> str:
    return f"{version // 10000}.{version % 10000}"


def _row(name: str) -> str:
    """One row of what is wanted: the name as it stands, its schema (or NULL) and its relation."""
    match = _RELATION.fullmatch(name)
    schema, relation = (_folded(part) for part in match.groups()) if match else (None, None)
    return f"({', '.join('NULL' if text is None else literal(text) for text in (name, schema, relation))})"


def _folded(identifier: str | None) -> str | None:
    """Read an identifier as PostgreSQL does: what is not quoted is folded to lower case."""
    if identifier is None or not identifier.startswith('"'):
        return identifier and identifier.lower()
    return identifier[1:-1].replace('""', '"')
