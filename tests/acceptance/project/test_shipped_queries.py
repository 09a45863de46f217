"""The shipped queries return the documented values on every released schema of the server."""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
import yaml
from psycopg import sql

from poller.config.queries.files import files_of
from poller.config.queries.schema.query import DeclaredQuery
from poller.config.queries.sql_ast import called_functions
from poller.model.query import QueryDefinition
from poller.model.result import Skip
from poller.model.rows import Column, Rows
from poller.polling.mapping import Mapped, to_samples
from poller.postgres.server_facts import facts_query, read_facts, unmet_requirement
from tests.bed.postgres import Database
from tests.bed.process import ROOT, Process

MIGRATION = ROOT / "deploy/migrations/attachments_size_bytes.sql"
SCHEMAS = {file.stem: file for file in sorted(Path(__file__).with_name("schemas").glob("v*.sql"))}
SCHEMAS["demo"] = ROOT / "poller/demo/schema.sql"
MICROSECOND = timedelta(microseconds=1)


def definitions(folder: str) -> list[QueryDefinition]:
    return [
        DeclaredQuery.model_validate(query).definition()
        for file in files_of(ROOT / folder)
        for query in yaml.safe_load(file.read_text())["queries"]
    ]


SHIPPED = {query.name: query for query in definitions("queries")}
EXTENDED = {query.name: query for query in definitions("queries/extended")}
EVERY = SHIPPED | EXTENDED


class Site(Protocol):
    """The part of the fixture `site` that these tests use."""

    @property
    def primary(self) -> str: ...


@pytest.fixture
def connection(site: Site) -> Iterator[psycopg.Connection[Any]]:
    """A transaction on the primary that is never committed; its now() is constant.

    So no test needs its own database, which takes longer to create than the test to run.
    """
    with psycopg.connect(site.primary) as connection:
        yield connection
        connection.rollback()


class Server:
    """A server's tables at a release, and rows that fit the tables of every release."""

    def __init__(self, connection: psycopg.Connection[Any], release: str | None) -> None:
        self.connection = connection
        connection.execute("CREATE SCHEMA released")
        connection.execute("SET LOCAL search_path TO released")
        if release is not None:
            connection.execute(SCHEMAS[release].read_bytes())
        self.now: datetime = self.scalar("SELECT now()")
        self.by_device = bool(self.scalar("SELECT to_regclass('devices') IS NOT NULL"))

    def scalar(self, statement: str) -> Any:
        row = self.connection.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]

    def insert(self, table: str, **values: object) -> None:
        """Insert a row; values for columns that this release does not have are omitted."""
        columns = {
            name
            for (name,) in self.connection.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0", (table,)
            )
        }
        row = {name: value for name, value in values.items() if name in columns}
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(sql.Placeholder() * len(row)),
        )
        self.connection.execute(statement, list(row.values()))

    def owner(self) -> uuid.UUID:
        """Insert a user, with a device of the same id if the release has devices; return the id."""
        owner = uuid.uuid4()
        self.insert("users", id=owner, username=f"user_{owner.hex}", password_hash="none")
        if self.by_device:
            self.insert("devices", id=owner, user_id=owner)
        return owner

    def message(self, owner: uuid.UUID, expires_at: datetime, created_at: datetime | None = None) -> None:
        self.insert(
            "messages", sender_id=owner, sender_device_id=owner, recipient_id=owner, device_id=owner,
            submission_id=uuid.uuid4(), content=b"sealed", created_at=created_at, expires_at=expires_at,
        )  # fmt: skip

    def identity(self, keys: int) -> None:
        owner = self.owner()
        self.insert("identity_keys", user_id=owner, device_id=owner, identity_key=b"k", registration_id=1)
        for number in range(keys):
            self.insert("one_time_pre_keys", id=number, user_id=owner, device_id=owner, public_key=b"k")

    def unmet_requirement(self, query: QueryDefinition) -> Skip | None:
        """Return the poller's reason to skip `query` here, if any."""
        facts = self.scalar(f"SELECT ({facts_query([query])})::text")
        return unmet_requirement(query.requires, read_facts(facts.encode()))

    def fetch(self, query: QueryDefinition) -> Mapped:
        """Run a query as the poller does (extended protocol, text results) and map its rows."""
        cursor = self.connection.execute(query.sql.encode(), prepare=True)
        result = cursor.pgresult
        assert result is not None
        columns = tuple(
            Column((result.fname(at) or b"").decode(), result.ftype(at)) for at in range(result.nfields)
        )
        values = [
            tuple(result.get_value(row, at) for at in range(result.nfields)) for row in range(result.ntuples)
        ]
        return to_samples(query, Rows(columns, values), at=0.0)

    def values(self, name: str) -> dict[str, int | float]:
        """Return the results of a query: `metric` or `metric{attribute}` and its value."""
        return {
            sample.metric + "".join(f"{{{value}}}" for value in sample.attributes.values()): sample.value
            for sample in self.fetch(EVERY[name]).samples
        }

    def value_of(self, metric: str) -> dict[str, int | float]:
        """Return the series of a metric, from the query that feeds it at this release."""
        feeding = [
            query
            for query in EVERY.values()
            if any(definition.name == metric for definition in query.metrics)
            and self.unmet_requirement(query) is None
        ]
        (query,) = feeding
        return {
            name: value for name, value in self.values(query.name).items() if name.split("{")[0] == metric
        }


ARGUMENTS = (
    "bigint", "integer", "numeric", "double precision", "text", "varchar", "timestamptz", "interval", "uuid"
)  # fmt: skip
"""Types of the arguments in the shipped queries, including the types that constants may have."""


@pytest.mark.parametrize("name", EVERY)
def test_no_function_or_operator_of_another_role_matches_a_shipped_query_better_than_postgresqls_own(
    connection: psycopg.Connection[Any], name: str
) -> None:
    """PostgreSQL prefers an exact match of the types, regardless of its place in the search_path."""
    query = EVERY[name]
    server = Server(connection, "v0.6.1" if name.endswith("_by_user") else "demo")
    assert server.unmet_requirement(query) is None
    functions = {call.name for call in called_functions(query.sql) if not call.of_row}
    assert functions, "the query calls nothing"
    pairs = list(itertools.product(ARGUMENTS, repeat=2))
    plant = [
        f'CREATE FUNCTION "{function}"({types}) RETURNS bigint LANGUAGE sql RETURN 1'
        for function in functions
        for types in (*ARGUMENTS, *(f"{left}, {right}" for left, right in pairs))
    ]
    for number, (left, right) in enumerate(pairs):
        plant.append(
            f"CREATE FUNCTION trap{number}({left}, {right}) RETURNS boolean LANGUAGE sql RETURN true"
        )
        plant += [
            f"CREATE OPERATOR {operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = trap{number})"
            for operator in ("=", "<>", "<", ">", "<=", ">=", "-")
        ]
    connection.execute(";".join(plant).encode())
    connection.execute(f"CREATE VIEW asked AS {query.sql}".encode())
    used = connection.execute(
        "SELECT pg_describe_object(refclassid, refobjid, 0) FROM pg_depend "
        "WHERE objid = (SELECT oid FROM pg_rewrite WHERE ev_class = 'released.asked'::pg_catalog.regclass) "
        "AND refclassid IN ('pg_proc'::pg_catalog.regclass, 'pg_operator'::pg_catalog.regclass)"
    ).fetchall()
    assert used == []


def test_the_four_gauges_are_those_of_the_design_document() -> None:
    gauges = {
        metric.name: (metric.description, metric.unit, metric.attribute_columns, dict(metric.attributes))
        for query in SHIPPED.values()
        for metric in query.metrics
    }
    assert gauges == {
        "users_total": ("Total registered users.", "{user}", (), {}),
        "pending_messages_total": ("Messages waiting for delivery.", "{message}", (), {}),
        "attachments_total_count": ("Total non-expired attachments.", "{attachment}", (), {}),
        "attachments_total_bytes": ("Total size of stored data.", "By", (), {}),
    }


def test_query_names_are_unique_and_each_metric_has_a_single_definition() -> None:
    queries = [*definitions("queries"), *definitions("queries/extended")]
    names = [query.name for query in queries]
    assert len(set(names)) == len(names)
    ways: dict[str, set[tuple[str, str]]] = {}
    for query in queries:
        for metric in query.metrics:
            ways.setdefault(metric.name, set()).add((metric.unit, metric.description))
    assert {name: variants for name, variants in ways.items() if len(variants) > 1} == {}


PROMETHEUS_UNITS = {
    "By": "bytes",
    "s": "seconds",
    "%": "percent",
    "d": "days",
    "h": "hours",
    "min": "minutes",
}


def in_prometheus(name: str, unit: str) -> str:
    """Name a gauge as Prometheus' default translation does (prometheus/otlptranslator, metric_namer.go)."""
    tokens = [token for token in re.split(r"[^A-Za-z0-9:]", name) if token]
    bare = re.sub(r"\{[^}]*\}", "", unit)
    if bare == "1":
        tokens = [token for token in tokens if token != "ratio"] + ["ratio"]
    elif bare and (suffix := PROMETHEUS_UNITS.get(bare, bare)) not in tokens:
        tokens.append(suffix)
    return "_".join(tokens)


@pytest.mark.parametrize("unit", ["1", "s"])
def test_the_translation_shows_a_unit_that_adds_a_suffix(unit: str) -> None:
    assert in_prometheus("users_total", unit) != "users_total"


def test_prometheus_changes_no_name() -> None:
    for query in EVERY.values():
        for metric in query.metrics:
            assert in_prometheus(metric.name, metric.unit) == metric.name


@pytest.mark.parametrize("release", [*SCHEMAS, None])
def test_a_query_runs_only_on_releases_that_meet_its_requirements(
    connection: psycopg.Connection[Any], release: str | None
) -> None:
    server = Server(connection, release)
    ran, met = set(), set()
    for query in EVERY.values():
        if server.unmet_requirement(query) is None:
            met.add(query.name)
        try:
            with connection.transaction():
                server.fetch(query)
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            continue
        ran.add(query.name)
    assert met == ran


@pytest.mark.parametrize("release", SCHEMAS)
def test_each_release_runs_the_three_counts_and_exactly_a_query_of_each_pair(
    connection: psycopg.Connection[Any], release: str
) -> None:
    server = Server(connection, release)
    met = {query.name for query in EVERY.values() if server.unmet_requirement(query) is None}
    assert {"users", "pending_messages", "attachments", "refresh_tokens", "oldest_pending_message"} <= met
    assert ("attachments_bytes" in met) is (release == "demo")
    assert ("inbox_depth_by_device" in met) is server.by_device
    assert ("inbox_depth_by_user" in met) is not server.by_device
    assert ("one_time_pre_keys_by_device" in met) is server.by_device
    assert ("one_time_pre_keys_by_user" in met) is not server.by_device


def test_before_attachments_existed_users_and_messages_are_still_counted(
    connection: psycopg.Connection[Any],
) -> None:
    server = Server(connection, "v0.3.0")
    connection.execute("DROP TABLE attachments")
    assert {name: server.unmet_requirement(query) for name, query in SHIPPED.items()} == {
        "users": None,
        "pending_messages": None,
        "attachments": Skip("relation", "relation attachments does not exist"),
        "attachments_bytes": Skip("relation", "relation attachments does not exist"),
    }


@pytest.mark.parametrize("release", SCHEMAS)
def test_expiry_follows_the_rule_of_the_server(connection: psycopg.Connection[Any], release: str) -> None:
    server = Server(connection, release)
    owner = server.owner()
    server.owner()
    for expires_at in (server.now - MICROSECOND, server.now, server.now + MICROSECOND):
        server.message(owner, expires_at)
        server.insert("attachments", id=uuid.uuid4(), expires_at=expires_at, size_bytes=1)
        server.insert("refresh_tokens", token_hash=str(uuid.uuid4()), user_id=owner, expires_at=expires_at)
    assert server.values("users") == {"users_total": 2}
    assert server.values("pending_messages") == {"pending_messages_total": 1}
    assert server.values("attachments") == {"attachments_total_count": 2}
    assert server.values("refresh_tokens") == {"refresh_tokens_total": 2}
    if release == "demo":
        assert server.values("attachments_bytes") == {"attachments_total_bytes": 2}


@pytest.mark.parametrize("release", SCHEMAS)
def test_an_empty_table_is_zero_and_a_missing_value_is_absent(
    connection: psycopg.Connection[Any], release: str
) -> None:
    server = Server(connection, release)
    for query in EVERY.values():
        if server.unmet_requirement(query) is not None:
            continue
        mapped = server.fetch(query)
        assert {sample.value for sample in mapped.samples} <= {0}
        absent = {metric.name for metric in query.metrics} - {sample.metric for sample in mapped.samples}
        assert absent <= {"inbox_depth", "pending_messages_oldest_age_seconds"}
        assert mapped.rejected == ({"null": 4 if "inbox_depth" in absent else 1} if absent else {})


def test_a_total_of_bytes_is_exact_beyond_the_precision_of_a_float(
    connection: psycopg.Connection[Any],
) -> None:
    server = Server(connection, "demo")
    for size in (2**60, 1):
        server.insert("attachments", size_bytes=size, expires_at=server.now)
    (sample,) = server.fetch(SHIPPED["attachments_bytes"]).samples
    assert (sample.value, type(sample.value)) == (2**60 + 1, int)


def test_an_unknown_size_makes_the_total_absent_and_is_counted(connection: psycopg.Connection[Any]) -> None:
    server = Server(connection, "demo")
    for size, expires_at in ((500, server.now), (None, server.now), (70, server.now - MICROSECOND)):
        server.insert("attachments", size_bytes=size, expires_at=expires_at)
    mapped = server.fetch(SHIPPED["attachments_bytes"])
    assert (mapped.samples, mapped.rejected) == ((), {"null": 1})
    assert server.values("attachments_known_sizes") == {
        "attachments_known_bytes": 500,
        "attachments_unknown_size_count": 1,
    }


def test_an_unknown_size_that_has_expired_does_not_matter(connection: psycopg.Connection[Any]) -> None:
    server = Server(connection, "demo")
    for size, expires_at in ((500, server.now), (None, server.now - MICROSECOND)):
        server.insert("attachments", size_bytes=size, expires_at=expires_at)
    assert server.values("attachments_bytes") == {"attachments_total_bytes": 500}


@pytest.mark.parametrize("release", SCHEMAS)
def test_inbox_depth_is_exported_per_recipient(connection: psycopg.Connection[Any], release: str) -> None:
    server = Server(connection, release)
    server.owner()  # a user without messages has no inbox
    for depth in (1, 2, 3, 1000):
        owner = server.owner()
        for _ in range(depth):
            server.message(owner, server.now + MICROSECOND)
        server.message(owner, server.now)
    assert server.value_of("inboxes_total") == {"inboxes_total": 4}
    assert server.value_of("inboxes_full_total") == {"inboxes_full_total": 1}
    assert server.value_of("inbox_depth") == {
        "inbox_depth{0.5}": 2,
        "inbox_depth{0.95}": 1000,
        "inbox_depth{0.99}": 1000,
        "inbox_depth{1}": 1000,
    }


@pytest.mark.parametrize("release", SCHEMAS)
def test_an_identity_without_keys_counts_as_having_none_left(
    connection: psycopg.Connection[Any], release: str
) -> None:
    server = Server(connection, release)
    server.owner()  # a user that never published a key is not an identity
    for keys in (0, 0, 1, 9, 10, 49, 50):
        server.identity(keys)
    assert server.value_of("one_time_pre_keys_total") == {"one_time_pre_keys_total": 119}
    assert server.value_of("identities_by_pre_keys_left") == {
        "identities_by_pre_keys_left{0}": 2,
        "identities_by_pre_keys_left{1-9}": 2,
        "identities_by_pre_keys_left{10-49}": 2,
        "identities_by_pre_keys_left{50+}": 1,
    }


@pytest.mark.parametrize("release", SCHEMAS)
def test_the_oldest_message_is_the_oldest_pending_message(
    connection: psycopg.Connection[Any], release: str
) -> None:
    server = Server(connection, release)
    owner = server.owner()
    server.message(owner, server.now, server.now - timedelta(days=9))
    server.message(owner, server.now + MICROSECOND, server.now - timedelta(seconds=90.5))
    server.message(owner, server.now + MICROSECOND, server.now - timedelta(seconds=1))
    server.message(owner, server.now + MICROSECOND, None)
    assert server.values("oldest_pending_message") == {"pending_messages_oldest_age_seconds": 90.5}


@pytest.mark.parametrize("release", [name for name in SCHEMAS if name == "demo" or name >= "v0.5.0"])
def test_backups_push_tokens_and_devices_are_counted(
    connection: psycopg.Connection[Any], release: str
) -> None:
    server = Server(connection, release)
    for state in ("ACTIVE", "ACTIVE", "FAILED"):
        owner = server.owner()
        server.insert("backups", user_id=owner, device_id=owner, state=state)
        server.insert("push_tokens", user_id=owner, device_id=owner, token="t")
    assert server.values("backups") == {
        "backups_total{ACTIVE}": 2,
        "backups_total{UPLOADING}": 0,
        "backups_total{FAILED}": 1,
    }
    assert server.values("push_tokens") == {"push_tokens_total": 3}
    if server.by_device:
        assert server.values("devices") == {"devices_total": 3}


@pytest.mark.parametrize("release", [name for name in SCHEMAS if name == "demo" or name >= "v0.6.1"])
@pytest.mark.parametrize(
    ("name", "index"),
    [("pending_messages", "idx_messages_expires_at"), ("attachments", "idx_attachments_expires_at")],
)
def test_the_count_needs_only_the_index(
    connection: psycopg.Connection[Any], release: str, name: str, index: str
) -> None:
    server = Server(connection, release)
    connection.execute("SET LOCAL enable_seqscan = off")
    connection.execute("SET LOCAL enable_bitmapscan = off")
    plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {SHIPPED[name].sql}".encode()))
    assert f"Index Only Scan using {index}" in plan
    assert server.unmet_requirement(SHIPPED[name]) is None


def test_the_demo_has_the_newest_schema_and_the_size_column(connection: psycopg.Connection[Any]) -> None:
    statement = (
        "SELECT array_agg(concat_ws(' ', table_name, column_name, data_type, is_nullable) ORDER BY 1)::text[]"
        " FROM information_schema.columns WHERE table_schema = current_schema()"
    )
    columns = []
    for release in ("v0.9.4", "demo"):
        with connection.transaction(force_rollback=True):
            columns.append(set(Server(connection, release).scalar(statement)))
    released, demo = columns
    assert demo - released == {"attachments size_bytes bigint YES"}
    assert released - demo == set()


@pytest.fixture
def migrated(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the tables of v0.9.4 with an attachment, in a separate schema."""
    options = "-c search_path=migrated -c client_min_messages=warning"
    with psycopg.connect(database.primary_dsn, autocommit=True, options=options) as connection:
        connection.execute("CREATE SCHEMA migrated")
        try:
            connection.execute(SCHEMAS["v0.9.4"].read_bytes())
            connection.execute("INSERT INTO attachments (expires_at) VALUES (now() + interval '1 day')")
            yield connection
        finally:
            connection.execute("DROP SCHEMA migrated CASCADE")


def the_column(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT format_type(atttypid, atttypmod), attnotnull, atthasdef, convalidated,"
        " pg_relation_filenode(attrelid) FROM pg_attribute JOIN pg_constraint ON conrelid = attrelid"
        " WHERE attrelid = 'attachments'::regclass AND attname = 'size_bytes'"
        " AND conname = 'attachments_size_bytes_check'"
    ).fetchall()


def test_the_migration_adds_the_column_and_can_be_repeated(migrated: psycopg.Connection[Any]) -> None:
    before = migrated.execute("SELECT pg_relation_filenode('attachments')").fetchone()
    assert before is not None
    for _ in range(2):
        migrated.execute(MIGRATION.read_bytes())
        # The table has the same file as before, so it was not rewritten.
        assert the_column(migrated) == [("bigint", False, False, True, before[0])]
    with pytest.raises(psycopg.errors.CheckViolation):
        migrated.execute("UPDATE attachments SET size_bytes = -1")


def test_the_migration_fails_quickly_if_a_long_transaction_holds_the_lock(
    migrated: psycopg.Connection[Any], database: Database
) -> None:
    with psycopg.connect(database.primary_dsn) as reader:
        reader.execute("SELECT count(*) FROM migrated.attachments")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            migrated.execute(MIGRATION.read_bytes())
        migrated.execute("ROLLBACK")
        reader.rollback()
    migrated.execute(MIGRATION.read_bytes())
    assert len(the_column(migrated)) == 1


def by_hand(start: str) -> bytes:
    """Return a statement that the comments of the migration ask the operator to run."""
    text = re.sub(r"^-- {0,8}", "", MIGRATION.read_text(), flags=re.MULTILINE)
    return text[text.index(start) : text.index(";", text.index(start))].encode()


def test_the_sizes_can_be_loaded_from_a_storage_listing_and_dropped_again(
    migrated: psycopg.Connection[Any],
) -> None:
    migrated.execute(MIGRATION.read_bytes())
    bare = uuid.uuid4()
    migrated.execute("INSERT INTO attachments (id, expires_at) VALUES (%s, now())", (bare,))
    migrated.execute(by_hand("CREATE TEMPORARY TABLE listing"))
    migrated.execute(
        "INSERT INTO listing"
        " SELECT CASE WHEN id = %s THEN '' ELSE 'attachments/' END || id, 7 FROM attachments"
        " UNION ALL SELECT 'backups/' || gen_random_uuid() || '/v1', 100",
        (bare,),
    )
    migrated.execute(by_hand("CREATE INDEX ON listing"))
    row_by_row = by_hand("WITH batch").replace(b"LIMIT 1000", b"LIMIT 1")
    assert [migrated.execute(row_by_row).rowcount for _ in range(3)] == [1, 1, 0]
    assert migrated.execute(by_hand("SELECT id, expires_at FROM attachments")).fetchall() == []
    migrated.execute(by_hand("ALTER TABLE attachments DROP COLUMN"))
    assert the_column(migrated) == []


def test_a_users_table_of_another_application_is_not_counted(
    database: Database, poller_process: Callable[..., Process]
) -> None:
    """On a database that is not the messaging server's, every shipped query is skipped."""
    database.execute(
        "CREATE TABLE users (id int, email text); INSERT INTO users VALUES (1, 'a'), (2, 'b');"
        "CREATE TABLE devices (id int); CREATE TABLE messages (id int, body text);"
        "CREATE TABLE attachments (expires_at timestamptz, size_bytes int)"
    )
    database.replayed()
    process = poller_process(
        "poll", "--format", "json",
        env={"POLLER_DATABASE_URL": database.standby_dsn, "POLLER_QUERIES": "shipped:extended"},
    )  # fmt: skip
    assert process.wait() == 0, process
    polled = json.loads(process.stdout)["queries"]

    assert len(polled) == len(EVERY)
    assert {(query["state"], len(query["samples"])) for query in polled} == {("skipped", 0)}
