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
has_table_privilege(session_user, oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
        OR has_any_column_privilege(session_user, oid, 'INSERT, UPDATE')"""
    return f"""\
(SELECT coalesce(json_agg(word), '[]') FROM (
    SELECT unnest(CASE WHEN rolsuper THEN ARRAY['superuser'] ELSE ARRAY[{powers}] END) AS word
    FROM pg_roles WHERE rolname = session_user
    UNION ALL
    SELECT 'member of ' || rolname FROM pg_roles
    WHERE rolname IN ({roles}) AND pg_has_role(session_user, oid, 'MEMBER') AND NOT {_SUPERUSER}
    UNION ALL
    SELECT {_listed("owner of", "relname")} FROM pg_class
    WHERE NOT {_SUPERUSER} AND pg_has_role(session_user, relowner, 'MEMBER') HAVING count(*) > 0
    UNION ALL
    SELECT {_listed("may write", "relname")} FROM pg_class
    WHERE NOT {_SUPERUSER} AND relkind IN ('r', 'p', 'v', 'f', 'm')
      AND relnamespace <> 'pg_catalog'::regnamespace
      AND NOT pg_has_role(session_user, relowner, 'MEMBER') AND ({writable})
    HAVING count(*) > 0
    UNION ALL
    SELECT {_listed("may create in schema", "nspname")} FROM pg_namespace
    WHERE NOT {_SUPERUSER} AND has_schema_privilege(session_user, oid, 'CREATE')
      AND NOT pg_is_other_temp_schema(oid) AND oid <> pg_my_temp_schema()
    HAVING count(*) > 0
    UNION ALL
    SELECT 'may create schemas in database ' || current_database()
    WHERE NOT {_SUPERUSER} AND has_database_privilege(session_user, current_database(), 'CREATE')
  ) AS excess WHERE word IS NOT NULL)"""


_SUPERUSER = "(SELECT rolsuper FROM pg_roles WHERE rolname = session_user)"


def _listed(what: str, column: str) -> str:
    """`what` and the first few names, in one text."""
    names = f"(array_agg({column}::text ORDER BY {column}))[1:{_SHOWN}]"
    more = f"CASE WHEN count(*) > {_SHOWN} THEN ' and ' || count(*) - {_SHOWN} || ' more' ELSE '' END"
    return f"'{what} ' || array_to_string({names}, ', ') || {more}"
