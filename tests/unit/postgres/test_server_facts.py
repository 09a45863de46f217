"""The server's catalogs decide whether a query may be sent, and a message gives the reason."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import psycopg
import pytest

from poller.model.query import Requirements
from poller.model.result import Skip, SkipReason
from poller.postgres.server_facts import ServerFacts, facts_query, read_facts, unmet_requirement
from tests.bed.definitions import a_query
from tests.bed.postgres import Database
from tests.bed.process import eventually

STANDBY = ServerFacts(True, 150018, {"users": frozenset({"id", "name"})}, frozenset({"plpgsql"}))
PRIMARY = ServerFacts(False, 90624, {}, frozenset())


def needs(**requires: Any) -> Requirements:
    return Requirements(**requires)


def test_a_query_without_requirements_is_always_accepted() -> None:
    assert unmet_requirement(needs(), PRIMARY) is None


def test_available_requirements_are_met() -> None:
    requirements = needs(
        role="standby", server_version=">=15,<16", extensions=["plpgsql"], columns={"users": ["id"]}
    )
    assert unmet_requirement(requirements, STANDBY) is None


@pytest.mark.parametrize(
    ("requires", "facts", "reason", "detail"),
    [
        ({"role": "primary"}, STANDBY, "role", "needs a primary, this server is a standby"),
        ({"role": "standby"}, PRIMARY, "role", "needs a standby, this server is a primary"),
        ({"server_version": ">=16"}, STANDBY, "version", "needs server version >=16, this server has 15.18"),
        ({"extensions": ["pg_trgm"]}, STANDBY, "extension", "extension pg_trgm is not installed"),
        ({"columns": {"messages": []}}, STANDBY, "relation", "relation messages does not exist"),
        ({"columns": {"messages": ["id"]}}, STANDBY, "relation", "relation messages does not exist"),
        ({"columns": {"users": ["id", "size"]}}, STANDBY, "column", "column users.size does not exist"),
    ],
)
def test_an_unmet_requirement_is_reported(
    requires: dict[str, Any], facts: ServerFacts, reason: SkipReason, detail: str
) -> None:
    assert unmet_requirement(needs(**requires), facts) == Skip(reason, detail)


@pytest.mark.parametrize(
    ("required", "version", "met"),
    [
        (">=15", 150000, True), (">=15", 149999, False), (">15", 150018, False), (">15", 160000, True),
        ("<15", 149999, True), ("<15", 150000, False), ("<=15", 150018, True), ("<=15", 160000, False),
        ("==15", 150018, True), ("==15", 160018, False), ("==15.18", 150018, True),
        ("==15.18", 150017, False),
        (">=15.2", 150001, False), (">=15.2", 150002, True), ("<15.10", 150009, True),
        (">= 14 , < 16", 150018, True), (">=14,<15", 150018, False),
    ],
)  # fmt: skip
def test_a_version_without_a_minor_means_every_minor(required: str, version: int, met: bool) -> None:
    facts = ServerFacts(True, version, {}, frozenset())
    assert (unmet_requirement(needs(server_version=required), facts) is None) is met


def test_names_in_another_encoding_can_be_read() -> None:
    row = {
        "standby": True, "version": 150018, "extensions": [], "columns": {"t": [["Stra?e"], []]},
        "member_of": [], "active": None, "excess": [], "server": "", "session": "",
    }  # fmt: skip
    facts = read_facts(json.dumps(row).encode().replace(b"?", b"\xdf"))
    assert facts.columns == {"t": frozenset({"Stra\ufffde"})}


NO_NAMES = ["a.b.c", "a.b.c.d", "", " ", ".", "x'y", '"', '""', "1", "'; DROP TABLE t; --", "\\"]


def facts_of(database: Database, *relations: str, user: str | None = None) -> ServerFacts:
    query = a_query(requires={"columns": {relation: [] for relation in relations}})
    with psycopg.connect(database.primary_dsn, autocommit=True) as connection:
        if user is not None:
            connection.execute(f"SET ROLE {user}".encode())
        row = connection.execute(facts_query([query]).encode()).fetchone()
        assert row is not None
        return read_facts(json.dumps(row[0]).encode())


@pytest.mark.every_version
def test_the_facts_are_those_of_the_server(database: Database) -> None:
    facts = facts_of(database)
    ((version,),) = database.execute("SHOW server_version_num")
    assert (facts.standby, facts.version) == (False, int(version))


@pytest.mark.parametrize(
    ("requires", "looked_at"),
    [
        ({}, []),
        ({"role": "standby", "server_version": ">=14"}, []),
        ({"extensions": ["plpgsql"]}, ["pg_extension"]),
        ({"member_of": ["pg_monitor"]}, ["pg_roles"]),
        ({"columns": {"t": []}}, ["pg_attribute", "pg_class"]),
    ],
)
def test_only_the_catalogs_that_a_requirement_needs_are_read(
    requires: dict[str, Any], looked_at: list[str]
) -> None:
    """Each of them costs the server work at every tick."""
    sql = facts_query([a_query("first"), a_query("second", requires=requires)])
    tables = ("pg_attribute", "pg_class", "pg_extension", "pg_roles", "pg_stat_activity")
    assert [table for table in tables if f"pg_catalog.{table}" in sql] == looked_at


@pytest.mark.every_version
def test_names_are_resolved_as_in_postgresql(database: Database) -> None:
    database.execute(
        """
        CREATE TABLE plain (a int, "B" int, gone int); ALTER TABLE plain DROP COLUMN gone;
        CREATE TABLE "Mixed.Case" ("it's" int); CREATE TABLE "a ""b"" c" (h int);
        CREATE SCHEMA "Other"; CREATE TABLE "Other".t (o int); CREATE VIEW v AS SELECT a FROM plain;
        CREATE SCHEMA hidden; CREATE TABLE hidden.only_here (x int)
        """
    )
    columns_of = facts_of(
        database, "PLAIN", '"Mixed.Case"', '"a ""b"" c"', '"Other".t', "v", "public.Plain", "pg_class"
    ).columns
    assert columns_of["PLAIN"] == columns_of["public.Plain"] == {"a", "B"}
    assert columns_of['"Mixed.Case"'] == {"it's"}
    assert columns_of['"a ""b"" c"'] == {"h"}
    assert columns_of['"Other".t'] == {"o"}
    assert columns_of["v"] == {"a"}
    assert "relname" in columns_of["pg_class"]
    absent = ("Mixed.Case", "Other.t", '"PLAIN"', "only_here", "gone", "nowhere.t")
    assert facts_of(database, *absent).columns == {}


@pytest.mark.every_version
def test_the_first_schema_of_the_search_path_wins(database: Database) -> None:
    database.execute(
        f"""
        CREATE SCHEMA first; CREATE TABLE first.t (in_first int); CREATE TABLE t (in_public int);
        ALTER DATABASE {database.name} SET search_path = first, public
        """
    )
    assert facts_of(database, "t").columns == {"t": {"in_first"}}


@pytest.mark.every_version
@pytest.mark.parametrize("name", NO_NAMES)
def test_an_invalid_name_is_a_relation_that_does_not_exist(database: Database, name: str) -> None:
    database.execute("CREATE TABLE t (n int)")
    assert facts_of(database, name, "t").columns == {"t": {"n"}}


@pytest.mark.every_version
def test_a_schema_without_the_usage_privilege_is_not_an_error(database: Database) -> None:
    role = f"reader_{database.name}"
    database.execute(f"CREATE ROLE {role}; CREATE SCHEMA private; CREATE TABLE private.t (n int)")
    try:
        assert facts_of(database, "private.t", user=role).columns == {"private.t": {"n"}}
    finally:
        database.execute(f"DROP ROLE {role}")


@pytest.mark.every_version
def test_active_backends_are_counted_if_the_role_may_see_them(database: Database) -> None:
    role = f"blind_{database.name}"
    database.execute(f"CREATE ROLE {role}")
    asking = facts_query([], count_active=True)
    try:
        with (
            closing(psycopg.connect(database.primary_dsn, autocommit=True)) as sleeper,
            psycopg.connect(database.primary_dsn, autocommit=True) as connection,
        ):
            sleeper.pgconn.send_query(b"SELECT pg_sleep(60)")

            def active() -> int:
                row = connection.execute(asking.encode()).fetchone()
                return read_facts(json.dumps(row[0] if row else None).encode()).active or 0

            assert eventually(lambda: active() >= 1)
            connection.execute(f"SET ROLE {role}".encode())
            row = connection.execute(asking.encode()).fetchone()
            assert row is not None
            assert read_facts(json.dumps(row[0]).encode()).active is None
            sleeper.cancel_safe()
    finally:
        database.execute(f"DROP ROLE {role}")


@pytest.mark.every_version
def test_a_missing_privilege_is_reported_by_column_and_by_schema(database: Database) -> None:
    role = f"partial_{database.name}"
    database.execute(
        f"CREATE ROLE {role}; CREATE TABLE t (open int, closed int); GRANT SELECT (open) ON t TO {role};"
        f"CREATE TABLE shut (n int); CREATE SCHEMA hidden; CREATE TABLE hidden.h (n int);"
        f"GRANT SELECT ON hidden.h TO {role}"
    )
    try:
        facts = facts_of(database, "t", "shut", "hidden.h", user=role)

        def lacking(**columns: list[str]) -> str | None:
            skip = unmet_requirement(
                needs(columns={name.replace("__", "."): list_ for name, list_ in columns.items()}), facts
            )
            assert skip is None or skip.reason == "privilege"
            return skip.detail.partition(";")[0] if skip else None

        assert lacking(t=["open"]) is None
        assert lacking(t=[]) is None, "some of its columns may be read"
        assert lacking(t=["open", "closed"]) == "column t.closed may not be read"
        assert lacking(shut=[]) == "no column of shut may be read"
        assert lacking(hidden__h=["n"]) == "column hidden.h.n may not be read", "its schema may not be used"
        elsewhere = unmet_requirement(needs(columns={"shut": [], "t": ["closed", "absent"]}), facts)
        assert elsewhere == Skip("column", "column t.absent does not exist"), "no GRANT would fix it"
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.every_version
def test_a_required_role_is_checked_with_inherited_memberships(database: Database) -> None:
    roles = ("pg_read_all_stats", "pg_signal_backend", "no'such")
    query = a_query(requires={"member_of": roles})
    role = f"member_{database.name}"
    database.execute(f"CREATE ROLE {role}; GRANT pg_monitor TO {role}")
    try:
        with psycopg.connect(database.primary_dsn, autocommit=True) as connection:
            connection.execute(f"SET ROLE {role}".encode())
            row = connection.execute(facts_query([query]).encode()).fetchone()
            assert row is not None
            facts = read_facts(json.dumps(row[0]).encode())
    finally:
        database.execute(f"DROP ROLE {role}")
    assert facts.member_of == {"pg_read_all_stats"}
    assert unmet_requirement(needs(member_of=roles[:1]), facts) is None
    assert unmet_requirement(query.requires, facts) == Skip(
        "privilege",
        "the role does not have the privileges of pg_signal_backend; GRANT pg_signal_backend to it",
    )
