"""Script for psql with the GRANTs that a role needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from poller.config.queries.sql_ast import identifier
from poller.tools.grants.needs import CLOSED, Needs, RelationName

_PLAIN = re.compile(
    r"(count|sum|min|max|avg|bool_or|bool_and|array_agg|string_agg|percentile_cont|"
    r"percentile_disc|coalesce|extract|date_trunc|date_part|now|age|clock_timestamp|"
    r"statement_timestamp|timezone|length|lower|upper|round|floor|ceil|abs|greatest|least|"
    r"nullif|generate_series|unnest|pg_backend_pid|pg_is_in_recovery|current_database)"
)
"""Common functions, whose EXECUTE privilege administrators do not revoke from PUBLIC."""


def to_sql(needs: Needs, role: str) -> str:
    """Return the GRANTs as a script for psql, sorted, each once."""
    to = f"TO {identifier(role)};"
    lines = [f"GRANT USAGE ON SCHEMA {identifier(schema)} {to}" for schema in sorted(needs.schemas)]
    for relation in sorted(needs.columns):
        lines += _on(needs, relation, to)
    lines += [f"GRANT {identifier(member)} {to}" for member in sorted(needs.roles)]
    closed = {name for name in needs.catalogs if CLOSED.fullmatch(name)}
    unusual = {name for name in needs.functions if not _PLAIN.fullmatch(name)}
    lines += [
        f"-- {why}: {', '.join(map(_comment, sorted(names)))}."
        for why, names in (
            ("Not granted, because they are PostgreSQL's or an extension's own", needs.catalogs - closed),
            ("Not granted, because PostgreSQL restricts who may read them", closed),
            ("Grant EXECUTE, or membership in pg_monitor, if PUBLIC may not call", unusual),
        )
        if names
    ]
    if needs.computed:
        readers = ", ".join(sorted(needs.computed))
        lines.append(f"-- Grant USAGE on the schemas of the names that the query computes for: {readers}.")
    if needs.columns:
        lines += [
            "-- A view with security_invoker needs these privileges on its tables as well.",
            "-- A row security policy needs the privileges of what it reads and calls: see pg_policies.",
        ]
    return "".join(f"{line}\n" for line in lines)


def _on(needs: Needs, relation: RelationName, to: str) -> Iterator[str]:
    """Yield the GRANTs on one relation; the server decides on each name that may not be its column."""
    full = ".".join(map(identifier, relation))
    everything = f"GRANT SELECT ON {full} {to}"
    if why := needs.whole.get(relation):
        yield f"-- All columns, because {_comment(why)}."
        yield everything
        return
    sure = needs.columns[relation]
    qualified = needs.qualified.get(relation, set()) - sure
    possible = needs.possible.get(relation, set()) - sure - qualified
    if sure:
        yield f"GRANT SELECT ({_list(sure)}) ON {full} {to}"
    if qualified:
        yield "-- All columns if one of these is a function of the row."
        yield _if_columns(f"GRANT SELECT ({_list(qualified)}) ON {full} {to}", everything)
    if possible and not sure and not qualified:
        # Its rows can be read with a privilege on at least one column.
        names = _comment(", ".join(sorted(possible)))
        yield f"-- All columns if one of these is not of this table; write TABLE.COLUMN for {names}."
        yield _if_columns(f"GRANT SELECT ({_list(possible)}) ON {full} {to}", everything)
    elif possible:
        yield "-- Only if there is such a column."
        for name in sorted(possible):
            yield _if_columns(f"GRANT SELECT ({identifier(name)}) ON {full} {to}", "NULL;")


def _if_columns(grant: str, otherwise: str) -> str:
    """`grant`, or `otherwise` if the table lacks a column that it names."""
    body = f"BEGIN {grant} EXCEPTION WHEN undefined_column THEN {otherwise} END"
    quote = "$$"
    while quote in body:
        quote = f"{quote[:-1]}x$"
    return f"DO {quote}{body}{quote};"


def _list(names: Iterable[str]) -> str:
    return ", ".join(identifier(name) for name in sorted(names))


def _comment(text: str) -> str:
    """Return `text` on one line, so that no part of it leaves the comment."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
