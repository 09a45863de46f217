"""Tell what a role may do beyond reading."""

from __future__ import annotations

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
