"""Refuse to make rows in a database that is somebody's already."""

from __future__ import annotations

import psycopg

from poller.errors import ConfigError, Problem

_RELATIONS = """
SELECT c.oid::pg_catalog.regclass::pg_catalog.text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S}'::pg_catalog."char"[])
  AND n.nspname OPERATOR(pg_catalog.!~) '^pg_|^information_schema$'
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.objid OPERATOR(pg_catalog.=) c.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
  )
ORDER BY c.oid
"""
"""Those that neither the server nor an extension has made; no schema but the server's may begin with pg_
(PostgreSQL manual, "The System Catalog Schema")."""


def refuse_used(connection: psycopg.Connection) -> None:
    """Raise ConfigError where the database holds relations: the DDL of a case would lock whoever uses them.

    Rolling back gives no lock back before its time, and what waits behind ACCESS EXCLUSIVE is every query.
    """
    names = [name for (name,) in connection.execute(_RELATIONS)]
    if not names:
        return
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    what = (
        f"holds the relation {names[0]}{more}, and a case would lock whoever uses it; write an empty "
        "database (createdb scratch), and have `schema:` or `schema_file:` make the tables in it"
    )
    raise ConfigError([Problem("--database", what)])
