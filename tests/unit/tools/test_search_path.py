"""Schemas of a search_path that PostgreSQL ignores."""

from __future__ import annotations

import json

import pytest

from poller.tools.check.search_path import MOST_SCHEMAS, ignored_schemas

USABLE = b'{"public": true, "pg_catalog": true, "Tenant, A": true, "a\\"b": true, "closed": false}'
OTHER_ENCODING = b'{"\xc4rger": true}'


def test_no_schema_of_an_incomplete_list_is_reported() -> None:
    usable = json.dumps(dict.fromkeys(map(str, range(MOST_SCHEMAS)), True)).encode()
    assert list(ignored_schemas("tenant", usable)) == []


def test_a_name_in_another_encoding_is_no_obstacle() -> None:
    assert list(ignored_schemas("public", OTHER_ENCODING)) == [
        "the schema 'public' does not exist in this database, so no table is looked up in it"
    ]


@pytest.mark.parametrize(
    "path", ["public", " PUBLIC ,pg_temp", '"Tenant, A", public', '"a""b"', '"$user", $user, pg_catalog', ""]
)
def test_a_schema_is_read_as_in_sql(path: str) -> None:
    assert list(ignored_schemas(path, USABLE)) == []


def test_each_schema_that_is_ignored_is_reported_with_the_reason() -> None:
    assert list(ignored_schemas('"PUBLIC", closed, public', USABLE)) == [
        "the schema 'PUBLIC' does not exist in this database, so no table is looked up in it",
        (
            "the schema 'closed' may not be used by the role, so no table is looked up in it; "
            "run GRANT USAGE ON SCHEMA closed TO the role"
        ),
    ]
