"""deploy/role.sql creates a role that can read the tables of the queries, and can do nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.bed.process import ROOT, Process
from tests.bed.role import Role

MIGRATION = ROOT / "deploy/migrations/attachments_size_bytes.sql"
Start = Callable[..., Process]
pytestmark = pytest.mark.every_version


def test_running_the_script_twice_changes_nothing(role: Role) -> None:
    first = role.made(extended="on", monitor="on").state()
    assert role.made(extended="on", monitor="on").state() == first


def test_the_role_polls_the_shipped_queries_on_the_standby(role: Role, poller_process: Start) -> None:
    role.made(extended="on")
    process = poller_process(
        "poll", "--format", "json",
        env={"POLLER_DATABASE_URL": role.standby_dsn, "POLLER_QUERIES": "shipped:extended"},
    )  # fmt: skip
    code = process.wait()
    polled = {query["query"]: query for query in json.loads(process.stdout)["queries"]}

    assert code == 0, (process.stdout, process.stderr)
    assert polled["users"]["samples"][0]["value"] == 37
    skipped = {name: query["reason"] for name, query in polled.items() if query["state"] != "ok"}
    # Those queries are for earlier releases of the server.
    assert skipped == {"inbox_depth_by_user": "column", "one_time_pre_keys_by_user": "column"}


def test_doctor_accepts_the_role(role: Role, poller_process: Start) -> None:
    role.made()
    process = poller_process("doctor", "--strict", env={"POLLER_DATABASE_URL": role.standby_dsn})
    code = process.wait()

    assert code == 0, process.stdout + process.stderr
    assert f"{role.name} may only read" in process.stdout
    assert "1 in use of the role's 2" in process.stdout
    assert "0 failed, 0 warnings" in process.stdout


@pytest.mark.parametrize("access", ["columns", "all"])
def test_every_write_is_refused(role: Role, access: str) -> None:
    """The role is read-only by default, and has no privilege to write if a session disables that."""
    role.made(access=access)
    role.database.execute("CREATE SEQUENCE counter; CREATE VIEW everyone AS SELECT * FROM users")
    writes = [
        "INSERT INTO attachments VALUES (gen_random_uuid(), now())",
        "UPDATE attachments SET size_bytes = 0",
        "UPDATE users SET password_hash = ''",
        "DELETE FROM users",
        "DELETE FROM everyone",
        "TRUNCATE messages",
        "SELECT nextval('counter')",
        "CREATE TABLE mine (id int)",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "ALTER TABLE users ADD COLUMN mine int",
        "DROP TABLE users",
        "COMMENT ON TABLE users IS 'mine'",
        "COPY attachments FROM PROGRAM 'cat'",
    ]
    # Some are refused earlier, because of a missing privilege.
    assert {role.refusal(write) for write in writes} <= {"25006", "42501"}
    refused = {write: role.refusal(write, may_write=True) for write in writes}
    assert set(refused.values()) == {"42501"}, refused


def test_objects_that_no_query_needs_are_not_readable(role: Role) -> None:
    role.made(extended="on", monitor="on")
    statements = [
        "SELECT password_hash FROM users",
        "SELECT * FROM users",
        "SELECT content FROM messages",
        "SELECT token FROM push_tokens",
        "SELECT token_hash FROM refresh_tokens",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY users TO PROGRAM 'cat'",
        "SET ROLE postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'",
    ]
    refused = {statement: role.refusal(statement) for statement in statements}
    assert set(refused.values()) == {"42501"}, refused


def test_a_third_connection_is_refused(role: Role) -> None:
    role.made()
    with (
        psycopg.connect(role.standby_dsn),
        psycopg.connect(role.standby_dsn),
        pytest.raises(psycopg.OperationalError, match="too many connections for role"),
    ):
        psycopg.connect(role.standby_dsn)


def test_a_login_with_the_role_is_limited(role: Role) -> None:
    role.made()
    bounds = {
        "default_transaction_read_only": "on",
        "statement_timeout": "1min",
        "lock_timeout": "1s",
        "idle_in_transaction_session_timeout": "30s",
        "temp_file_limit": "1GB",
        "max_parallel_workers_per_gather": "0",
        "hash_mem_multiplier": "1",
    }
    with psycopg.connect(role.primary_dsn, autocommit=True) as connection:
        if connection.info.server_version >= 170000:
            bounds["transaction_timeout"] = "5min"
        assert {
            name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in bounds
        } == {name: (value,) for name, value in bounds.items()}


def test_a_column_added_later_is_readable_after_another_run(role: Role) -> None:
    role.database.execute("ALTER TABLE attachments DROP COLUMN size_bytes")
    role.made()
    assert role.run(MIGRATION, "-v", "ON_ERROR_STOP=1").returncode == 0
    assert role.refusal("SELECT sum(size_bytes) FROM attachments") == "42501"
    role.made()
    assert role.refusal("SELECT sum(size_bytes) FROM attachments") is None


def test_with_access_to_all_every_table_is_readable(role: Role) -> None:
    role.made(access="all")
    assert role.refusal("SELECT * FROM users") is None
    assert role.database.execute(
        f"SELECT pg_has_role('{role.name}', 'pg_read_all_data', 'USAGE'), "
        f"pg_has_role('{role.name}', 'pg_monitor', 'USAGE')"
    ) == [(True, False)]


def test_queries_read_another_schema_if_the_script_sets_it(role: Role, poller_process: Start) -> None:
    role.database.execute('CREATE SCHEMA "Chat"')
    for table in ("users", "messages"):
        role.database.execute(f'ALTER TABLE {table} SET SCHEMA "Chat"')
    role.made(schema="Chat")
    process = poller_process("poll", "--query", "users", env={"POLLER_DATABASE_URL": role.standby_dsn})
    assert process.wait() == 0, process
    assert process.stdout.splitlines()[1].split()[3] == "37"


def test_the_owner_of_the_database_can_run_the_script_without_being_superuser(role: Role) -> None:
    """In a managed service no role is a superuser."""
    owner, database = f"owner_{role.name}", role.database
    database.execute(f"CREATE ROLE {owner} LOGIN CREATEROLE; ALTER DATABASE {database.name} OWNER TO {owner}")
    try:
        tables = database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in tables:
            database.execute(f"ALTER TABLE {table} OWNER TO {owner}")
        for may_limit_files in (False, True):
            if may_limit_files:
                database.execute(f"GRANT SET ON PARAMETER temp_file_limit TO {owner}")
            done = role.make(dsn=make_conninfo(database.primary_dsn, user=owner))
            assert (done.returncode, done.stderr) == (0, ""), done.stderr
            settings = f"SELECT rolconfig FROM pg_roles WHERE rolname = '{role.name}'"
            set_for_role = str(role.database.execute(settings))
            assert ("temp_file_limit=1GB" in set_for_role) is may_limit_files
            assert ("temp_file_limit is not set: only a superuser" in done.stdout) is not may_limit_files
            assert "max_parallel_workers_per_gather=0" in set_for_role
        assert role.refusal("SELECT count(*) FROM users") is None
        assert role.refusal("SELECT * FROM users") == "42501"
    finally:
        database.execute(
            f"ALTER DATABASE {database.name} OWNER TO postgres; REASSIGN OWNED BY {owner} TO postgres;"
            f"DROP OWNED BY {owner}; DROP OWNED BY {role.name}; DROP ROLE {role.name}; DROP ROLE {owner}"
        )


def test_an_impossible_request_is_reported_and_changes_nothing(role: Role) -> None:
    def refused(message: str, dsn: str | None = None, **variables: str) -> None:
        done = role.make(dsn=dsn, **variables)
        assert done.returncode == 3, done
        assert message in done.stderr
        assert not role.database.execute(f"SELECT FROM pg_roles WHERE rolname = '{role.name}'")

    refused("access is everything; write columns or all", access="everything")
    refused("there is no schema elsewhere", schema="elsewhere")
    refused("role postgres exists already and has SUPERUSER", role="postgres")
    refused("this is a standby", role.database.standby_dsn)
    assert role.database.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'postgres'") == [(True,)]


TRAP = "LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'HIJACKED'; END$$"


def test_functions_and_operators_that_others_created_in_public_are_not_called(role: Role) -> None:
    """Each of them matches its call better than the function of PostgreSQL."""
    role.database.execute(
        "".join(
            f"CREATE FUNCTION public.{function} RETURNS {returned} {TRAP};"
            for function, returned in {
                "quote_ident(name)": "text",
                "format(text, name)": "text",
                "format(text, text)": "text",
                "format(text, name, text)": "text",
                "format(text, text, name, name, text)": "text",
                "concat_ws(text, text, text, text, text, text)": "text",
                "same(name, text)": "boolean",
                "more(integer, integer)": "boolean",
            }.items()
        )
        + "CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.same);"
        "CREATE OPERATOR public.>= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = public.more)"
    )
    for path in ('"$user", public', "public, pg_catalog"):
        role.database.execute(f"ALTER DATABASE {role.database.name} SET search_path = {path}")
        role.made(extended="on")
    assert role.refusal("SELECT count(*) FROM users") is None


@pytest.mark.parametrize("path", ["public", "public, pg_catalog"])
def test_the_migration_calls_no_operator_that_others_created_in_public(role: Role, path: str) -> None:
    role.database.execute("ALTER TABLE attachments DROP COLUMN size_bytes")
    for number, types in enumerate(("oid, regclass", "oid, oid", "name, text", "bigint, integer")):
        left, right = types.split(", ")
        for operator in ("=", ">="):
            function = f"trap_{number}_{'same' if operator == '=' else 'more'}"
            role.database.execute(
                f"CREATE FUNCTION public.{function}({types}) RETURNS boolean {TRAP};"
                f"CREATE OPERATOR public.{operator} "
                f"(LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.{function})"
            )
    role.database.execute(f"ALTER DATABASE {role.database.name} SET search_path = {path}")
    done = role.run(MIGRATION, "-v", "ON_ERROR_STOP=1")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_database_is_chosen_by_a_variable(role: Role) -> None:
    """The database that psql connects to first does not matter."""
    role.made(database=role.database.name, dsn=role.database.site.primary)
    assert role.refusal("SELECT count(*) FROM users") is None
