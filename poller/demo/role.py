"""Make the role that the demo's daemon logs in with: it may read what queries count, and no secret."""

from __future__ import annotations

from poller.demo.server import Server

LOGIN = "poller"

_GRANTS = f"""\
SELECT format('GRANT SELECT (%s) ON %s TO {LOGIN}',
    string_agg(quote_ident(attname), ', '), attrelid::regclass)
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
    AND atttypid <> 'bytea'::regtype AND attname NOT IN ('password_hash', 'token_hash', 'token')
GROUP BY attrelid"""
"""More than deploy/role.sql grants, so that one can add queries, but no password, content, key or token:
a query of those is refused here as it is there."""


def make(server: Server, dbname: str) -> None:
    """Make it on the primary `server`, once the tables of the database `dbname` are there."""
    server.execute(f"CREATE ROLE {LOGIN} LOGIN")
    for (grant,) in server.execute(_GRANTS, dbname):
        server.execute(grant, dbname)
