"""The suggested expression for a value column works on a server for every type of column."""

from __future__ import annotations

import psycopg
import pytest

from poller.model.casts import not_a_number
from poller.model.numbers import NUMBERS
from tests.bed.postgres import Database

pytestmark = pytest.mark.every_version

VALUES = {
    "true::bool": "1",
    "'42'::text": "42",
    "'4'::\"char\"": "4",
    "'7'::xid": "7",
    "'18446744073709551615'::xid8": "18446744073709551615",
    "'1/A'::pg_lsn": "4294967306",
    "'1.5'::json": "1.5",
    "'\"15\"'::jsonb": "15",
    "'(3,4)'::point": "3",
    "B'101'": "5",
    "'[2,9)'::int4range": "7",
    "interval '1.5s'": "1.500000",
    "'1.25'::money": "1.25",
}
"""Values, and the result of the suggested expression for each."""


def advised(column: str, oid: int) -> str:
    return not_a_number(column, oid).rpartition("write ")[2]


@pytest.mark.parametrize("column", ["n", 'The "n"'])
def test_for_every_type_the_advice_is_an_expression_of_a_numeric_type(
    database: Database, column: str
) -> None:
    """All types of PostgreSQL are tested; arrays and user-defined types have the general advice."""
    database.execute("CREATE TYPE mood AS ENUM ('glad')")
    types = database.execute(
        "SELECT oid::int, format_type(oid, NULL) FROM pg_type WHERE typname = 'mood' "
        "OR (typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm'))"
    )
    assert len(types) > 80
    quoted = '"' + column.replace('"', '""') + '"'
    with psycopg.connect(database.primary_dsn, autocommit=True) as connection:
        wrong = {}
        for oid, name in types:
            if oid in NUMBERS:
                continue
            sql = f"SELECT {advised(column, oid)} FROM (SELECT NULL::{name} AS {quoted}) AS t"
            try:
                description = connection.execute(sql.encode()).description or []
            except psycopg.Error as error:
                wrong[name] = str(error)
            else:
                if description[0].type_code not in NUMBERS:
                    wrong[name] = sql
    assert wrong == {}


@pytest.mark.parametrize(("value", "number"), VALUES.items())
def test_the_advised_expression_keeps_the_number(database: Database, value: str, number: str) -> None:
    with psycopg.connect(database.primary_dsn) as connection:
        oid = (connection.execute(f"SELECT {value} AS n".encode()).description or [])[0].type_code
        sql = f"SELECT ({advised('n', oid)})::text FROM (SELECT {value} AS n) AS t"
        assert connection.execute(sql.encode()).fetchone() == (number,)
