"""Every volatile function of PostgreSQL and contrib is either rejected or listed as read-only."""

from __future__ import annotations

import pytest

from poller.config.queries.sql_functions import acting, is_harmless
from tests.bed.postgres import Database

pytestmark = pytest.mark.every_version

_CALLABLE = """\
SELECT DISTINCT proname::text, provolatile::text FROM pg_proc
LEFT JOIN pg_depend ON pg_depend.classid = 'pg_proc'::regclass AND pg_depend.objid = pg_proc.oid
    AND pg_depend.deptype = 'e'
LEFT JOIN pg_extension ON pg_extension.oid = pg_depend.refobjid
WHERE prokind <> 'p' AND NOT 'internal'::regtype = ANY (proargtypes)
    AND prorettype <> ALL (ARRAY['trigger', 'event_trigger', 'internal', 'language_handler', 'fdw_handler',
        'index_am_handler', 'table_am_handler', 'tsm_handler']::regtype[])
    AND coalesce(extname, 'plpgsql') = ANY (%s::text[])"""
"""Functions that a SELECT can call, of PostgreSQL and of the extensions in the list."""
CONTRIB = {
    "adminpack", "amcheck", "autoinc", "bloom", "btree_gin", "btree_gist", "citext", "cube", "dblink",
    "dict_int", "dict_xsyn", "earthdistance", "file_fdw", "fuzzystrmatch", "hstore", "insert_username",
    "intagg", "intarray", "isn", "lo", "ltree", "moddatetime", "old_snapshot", "pageinspect",
    "pg_buffercache", "pg_freespacemap", "pg_logicalinspect", "pg_overexplain", "pg_prewarm",
    "pg_stat_statements", "pg_surgery", "pg_trgm", "pg_visibility", "pg_walinspect", "pgcrypto",
    "pgrowlocks", "pgstattuple", "plpgsql", "postgres_fdw", "refint", "seg", "sslinfo", "tablefunc", "tcn",
    "tsm_system_rows", "tsm_system_time", "unaccent", "uuid-ossp", "xml2",
}  # fmt: skip


@pytest.fixture
def functions(database: Database) -> dict[str, set[str]]:
    """The volatilities of each function by name, including every contrib module of the server."""
    available = {name for (name,) in database.execute("SELECT name FROM pg_available_extensions")}
    installed = sorted(available & CONTRIB)
    for extension in installed:
        database.execute(f'CREATE EXTENSION IF NOT EXISTS "{extension}" CASCADE')
    assert {"dblink", "pg_surgery", "tablefunc", "pageinspect"} <= set(installed)
    listed = "ARRAY[" + ", ".join(f"'{name}'" for name in installed) + "]"
    functions: dict[str, set[str]] = {}
    for name, volatility in database.execute(_CALLABLE.replace("%s", listed)):
        functions.setdefault(name, set()).add(volatility)
    return functions


def test_a_volatile_function_is_either_rejected_or_on_the_list_of_harmless_ones(
    functions: dict[str, set[str]],
) -> None:
    volatile = {name for name, kinds in functions.items() if "v" in kinds}
    assert len(volatile) > 200
    assert sorted(name for name in volatile if not acting(name) and not is_harmless(name)) == []


def test_of_the_other_functions_only_those_that_run_text_or_assign_a_transaction_are_rejected(
    functions: dict[str, set[str]],
) -> None:
    rejected = {name for name, kinds in functions.items() if "v" not in kinds and acting(name)}
    # xpath_table is missing in some releases and builds; isn_weak is volatile since 16.
    assert rejected - {"xpath_table", "isn_weak"} == {
        "txid_current",
        "connectby", "crosstab", "crosstab2", "crosstab3", "crosstab4", "pg_current_xact_id",
        "database_to_xml", "database_to_xml_and_xmlschema", "database_to_xmlschema",
        "schema_to_xml", "schema_to_xml_and_xmlschema", "schema_to_xmlschema",
        "table_to_xml", "table_to_xml_and_xmlschema", "table_to_xmlschema",
    }  # fmt: skip
