"""Command `grants`: the least privileges that the query files need, as SQL."""

from __future__ import annotations

from typing import Annotated

import typer

from poller.cli.options import FILES, QueryFiles, with_settings
from poller.config.queries.files import named, resolve
from poller.config.queries.load import load
from poller.config.settings import Settings
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.text import quote
from poller.tools.grants.script import to_sql
from poller.tools.grants.statement import needs_of

_NO_ROLES = {"public", "none", ""}
"""Names that GRANT does not accept as a role, even in quotes."""


@with_settings(*FILES, warn=True)
def grants(
    settings: Settings,
    files: QueryFiles = None,
    role: Annotated[str, typer.Option(metavar="NAME", help="Login role of the poller.")] = "poller",
    schema: Annotated[
        str, typer.Option(metavar="NAME", help="Schema of tables that queries name without a schema.")
    ] = "public",
) -> None:
    """Print the least privileges that the queries need, as SQL for psql, without a database.

    deploy/role.sql creates the role. Then run the output on the primary, as the owner of the tables
    (memberships as a superuser). Columns are granted one by one. If a statement does not show which table a
    column belongs to, the script looks it up on the server. Exit code 2: the query files are invalid.
    """
    if role in _NO_ROLES:
        problem = f"{quote(role)} is not one role; write the poller's login role"
        raise ConfigError([invalid("--role", problem)])
    sources = [named(file) for file in files] if files else resolve(settings.queries)
    catalog = load(sources, settings.defaults)
    typer.echo(to_sql(needs_of(catalog.queries, schema), role), nl=False)
