"""Check for schemas of a query's search_path that PostgreSQL ignores: missing or not granted."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator, Mapping

from poller.config.queries.sql_ast import identifier
from poller.model.text import did_you_mean, quote

MOST_SCHEMAS = 10_000
USABLE_SCHEMAS = f"""\
SELECT coalesce(pg_catalog.json_object_agg(
    nspname, pg_catalog.has_schema_privilege(oid, 'USAGE')), '{{}}')
FROM (SELECT nspname, oid FROM pg_catalog.pg_namespace LIMIT {MOST_SCHEMAS}) AS listed
"""
"""Statement whose value says for each schema whether the role may use it, as JSON."""
_NAME = re.compile(r'"((?:[^"]|"")+)"|([^\s,"]+)')
_FOLDED = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
"""PostgreSQL folds other letters only in encodings of one byte (downcase_identifier in scansup.c)."""
_ALWAYS = ("$user", "pg_temp", "pg_catalog")


def ignored_schemas(search_path: str, usable: bytes) -> Iterator[str]:
    """Yield a message for each schema that PostgreSQL ignores; `usable` is the value of USABLE_SCHEMAS."""
    schemas: Mapping[str, bool] = json.loads(usable.decode(errors="replace"))
    if len(schemas) >= MOST_SCHEMAS:
        return  # the others are unknown
    for quoted, plain in _NAME.findall(search_path):
        name = quoted.replace('""', '"') or plain.translate(_FOLDED)
        if name in _ALWAYS or schemas.get(name):
            continue
        if name in schemas:
            problem = "may not be used by the role"
            advice = f"; run GRANT USAGE ON SCHEMA {identifier(name)} TO the role"
        else:
            problem, advice = "does not exist in this database", did_you_mean(name, schemas)
        yield f"the schema {quote(name)} {problem}, so no table is looked up in it{advice}"
