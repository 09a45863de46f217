"""Queries that conflict with a standby's recovery: one for each kind of conflict, and its preparations."""

from __future__ import annotations

PRIMARY = {
    "autovacuum": "off",  # otherwise it could run before the test's own VACUUM
    "max_prepared_transactions": "2",
    "allow_in_place_tablespaces": "on",
}
STANDBY = {"deadlock_timeout": "10ms"}

SETUP = """
    CREATE TABLE gate (n int);
    CREATE TABLE dead (n int); INSERT INTO dead SELECT generate_series(1, 20);
    CREATE TABLE locked (n int); INSERT INTO locked VALUES (1);
    CREATE TABLE held (n int);
    CREATE TABLE pinned (n int); INSERT INTO pinned VALUES (1);
    CREATE FUNCTION count_held() RETURNS bigint LANGUAGE plpgsql VOLATILE
        AS 'BEGIN RETURN (SELECT count(*) FROM held); END';
    CREATE FUNCTION count_held_later() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$BEGIN
        WHILE NOT pg_try_advisory_xact_lock(1) LOOP PERFORM pg_sleep(0.005); END LOOP;
        RETURN count_held();
    END$$;
    CREATE TABLE flushed (n int); INSERT INTO flushed VALUES (0);
"""
AFTER_SETUP = "BEGIN; INSERT INTO pinned SELECT generate_series(1, 100); ROLLBACK"
"""Rows that are dead from the beginning: older than every later snapshot, they conflict with none."""

# The gate opens before each conflict: when the poller runs the query again, in a new snapshot, it is short.
_SLEEP = "CASE WHEN EXISTS (SELECT FROM gate) THEN '' ELSE pg_sleep(60)::text END IS NOT NULL"
SLOW = {
    "snapshot": f"SELECT count(*) AS n FROM flushed WHERE {_SLEEP}",
    "lock": f"SELECT count(*) AS n FROM locked WHERE {_SLEEP}",
    # The scan holds its pin on the page while it evaluates the condition for a row of the page.
    "buffer_pin": f"SELECT count(*) AS n FROM pinned WHERE {_SLEEP}",
    "deadlock": "SELECT count(*) AS n FROM pinned WHERE count_held() IS NOT NULL",
    # More than work_mem, so that the server writes the rows to a temporary file before it evaluates the
    # condition.
    "tablespace": f"SELECT count(*) AS n FROM generate_series(1, 50000) WHERE {_SLEEP}",
    "database": f"SELECT count(*) AS n FROM flushed WHERE {_SLEEP}",
}
"""For each kind, a query that conflicts with recovery while it runs."""
LATER = "SELECT count(*) AS n FROM pinned WHERE count_held_later() IS NOT NULL"
"""Like the query for a deadlock, but it waits for advisory lock 1 before it requests its table lock."""
DETAIL = {
    "snapshot": "User query might have needed to see row versions that must be removed.",
    "lock": "User was holding a relation lock for too long.",
    "buffer_pin": "User was holding shared buffer pin for too long.",
    "deadlock": "User transaction caused buffer deadlock with recovery.",
    "tablespace": "User was or might have been using tablespace that must be dropped.",
    "database": "User was connected to a database that must be dropped.",
}
"""PostgreSQL's message detail for each kind (`errdetail_recovery_conflict` in its postgres.c)."""
