"""Whether a query may be sent is decided from the server's catalogue, in words."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import psycopg
import pytest

from poller.model.query import Requirements
from poller.model.result import Skip, SkipReason
from poller.postgres.server_facts import ServerFacts, facts_query, read_facts, unmet
from tests.bed.definitions import a_query
from tests.bed.postgres import Database
from tests.bed.process import eventually

STANDBY = ServerFacts(True, 150018, {"users": frozenset({"id", "name"})}, frozenset({"plpgsql"}))
PRIMARY = ServerFacts(False, 90624, {}, frozenset())


def needs(**requires: Any) -> Requirements:
    return Requirements(**requires)


def test_nothing_required_is_always_met() -> None:
    assert unmet(needs(), PRIMARY) is None


def test_all_that_is_required_and_there_is_met() -> None:
    wanted = needs(
        role="standby", server_version=">=15,<16", extensions=["plpgsql"], columns={"users": ["id"]}
    )
    assert unmet(wanted, STANDBY) is None


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
def test_what_is_not_met_is_said(
    requires: dict[str, Any], facts: ServerFacts, reason: SkipReason, detail: str
) -> None:
    assert unmet(needs(**requires), facts) == Skip(reason, detail)


@pytest.mark.parametrize(
    ("wanted", "version", "met"),
    [
        (">=15", 150000, True), (">=15", 149999, False), (">15", 150018, False), (">15", 160000, True),
        ("<15", 149999, True), ("<15", 150000, False), ("<=15", 150018, True), ("<=15", 160000, False),
        ("==15", 150018, True), ("==15", 160018, False), ("==15.18", 150018, True),
        ("==15.18", 150017, False),
        (">=15.2", 150001, False), (">=15.2", 150002, True), ("<15.10", 150009, True),
        (">= 14 , < 16", 150018, True), (">=14,<15", 150018, False),
    ],
)  # fmt: skip
def test_a_version_without_a_minor_means_every_minor(wanted: str, version: int, met: bool) -> None:
    facts = ServerFacts(True, version, {}, frozenset())
    assert (unmet(needs(server_version=wanted), facts) is None) is met


def test_names_in_another_encoding_do_not_break_the_reading() -> None:
    told = {
        "standby": True, "version": 150018, "extensions": [], "columns": {"t": [["Stra?e"], []]},
        "member_of": [], "active": None, "excess": [], "server": "", "session": "",
    }  # fmt: skip
    facts = read_facts(json.dumps(told).encode().replace(b"?", b"\xdf"))
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
def test_only_the_catalogues_that_a_requirement_needs_are_looked_at(
    requires: dict[str, Any], looked_at: list[str]
) -> None:
    """Each costs the server something at every tick."""
    sql = facts_query([a_query("first"), a_query("second", requires=requires)])
    tables = ("pg_attribute", "pg_class", "pg_extension", "pg_roles", "pg_stat_activity")
    assert [table for table in tables if f"pg_catalog.{table}" in sql] == looked_at


@pytest.mark.every_version
def test_names_are_found_as_postgresql_finds_them(database: Database) -> None:
    database.execute(
        """
        CREATE TABLE plain (a int, "B" int, gone int); ALTER TABLE plain DROP COLUMN gone;
        CREATE TABLE "Mixed.Case" ("it's" int); CREATE TABLE "a ""b"" c" (h int);
        CREATE SCHEMA "Other"; CREATE TABLE "Other".t (o int); CREATE VIEW v AS SELECT a FROM plain;
        CREATE SCHEMA hidden; CREATE TABLE hidden.only_here (x int)
        """
    )
    told = facts_of(
        database, "PLAIN", '"Mixed.Case"', '"a ""b"" c"', '"Other".t', "v", "public.Plain", "pg_class"
    ).columns
    assert told["PLAIN"] == told["public.Plain"] == {"a", "B"}
    assert told['"Mixed.Case"'] == {"it's"}
    assert told['"a ""b"" c"'] == {"h"}
    assert told['"Other".t'] == {"o"}
    assert told["v"] == {"a"}
    assert "relname" in told["pg_class"]
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
def test_a_name_that_is_none_is_a_relation_that_does_not_exist(database: Database, name: str) -> None:
    database.execute("CREATE TABLE t (n int)")
    assert facts_of(database, name, "t").columns == {"t": {"n"}}


@pytest.mark.every_version
def test_a_schema_that_may_not_be_used_is_no_error(database: Database) -> None:
    role = f"reader_{database.name}"
    database.execute(f"CREATE ROLE {role}; CREATE SCHEMA private; CREATE TABLE private.t (n int)")
    try:
        assert facts_of(database, "private.t", user=role).columns == {"private.t": {"n"}}
    finally:
        database.execute(f"DROP ROLE {role}")


@pytest.mark.every_version
def test_active_backends_are_counted_by_those_who_may_see_them(database: Database) -> None:
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
def test_what_may_not_be_read_is_a_privilege_that_lacks_by_column_and_by_schema(database: Database) -> None:
    role = f"partial_{database.name}"
    database.execute(
        f"CREATE ROLE {role}; CREATE TABLE t (open int, closed int); GRANT SELECT (open) ON t TO {role};"
        f"CREATE TABLE shut (n int); CREATE SCHEMA hidden; CREATE TABLE hidden.h (n int);"
        f"GRANT SELECT ON hidden.h TO {role}"
    )
    try:
        facts = facts_of(database, "t", "shut", "hidden.h", user=role)

        def lacking(**columns: list[str]) -> str | None:
            skip = unmet(
                needs(columns={name.replace("__", "."): list_ for name, list_ in columns.items()}), facts
            )
            assert skip is None or skip.reason == "privilege"
            return skip.detail.partition(";")[0] if skip else None

        assert lacking(t=["open"]) is None
        assert lacking(t=[]) is None, "a part of it may be read"
        assert lacking(t=["open", "closed"]) == "column t.closed may not be read"
        assert lacking(shut=[]) == "no column of shut may be read"
        assert lacking(hidden__h=["n"]) == "column hidden.h.n may not be read", "its schema may not be used"
        elsewhere = unmet(needs(columns={"shut": [], "t": ["closed", "absent"]}), facts)
        assert elsewhere == Skip("column", "column t.absent does not exist"), "no GRANT would repair it"
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.every_version
def test_a_role_that_is_required_is_looked_up_with_what_it_inherits(database: Database) -> None:
    wanted = ("pg_read_all_stats", "pg_signal_backend", "no'such")
    query = a_query(requires={"member_of": wanted})
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
    assert unmet(needs(member_of=wanted[:1]), facts) is None
    assert unmet(query.requires, facts) == Skip(
        "privilege", "the role has not the privileges of pg_signal_backend; GRANT pg_signal_backend to it"
    )
