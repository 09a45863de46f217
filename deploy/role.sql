-- Create the role that the poller logs in with. The role may read only the columns that the queries read.
--
-- Run this file with psql on the primary, because a standby gets its roles by replication. Run it as a
-- superuser, or as the owner of the tables with CREATEROLE:
--
--     psql -v role=poller -v database=app -f deploy/role.sql
--
-- You can run it again at any time: an existing role keeps its password and its rights. Run it again after a
-- migration that adds a table or a column to read (deploy/migrations/attachments_size_bytes.sql).
--
-- The script sets no password, so that no file, shell history or server log contains one. Set the password in
-- psql, which sends it hashed. Or log in with a certificate or a token of your cloud provider:
--
--     \password poller
--
-- Variables, each with -v name=value:
--
--     role      poller   name of the role
--     database  (the one that psql connects to)
--     schema    public   schema of the tables; a schema other than public also becomes the role's search_path
--     access    columns  columns: SELECT on the columns that the queries read, and on no other column
--                        all: member of pg_read_all_data, for custom queries on any table. The role can
--                        then also read every password hash and every message
--     extended  off      on: also SELECT on the columns that queries/extended reads
--     monitor   off      on: member of pg_monitor. The role can then read the state of the connection to the
--                        primary (so that the lag shows a silent primary) and the other sessions
--                        (POLLER_MAX_ACTIVE_BACKENDS), but also the texts of their queries
--
-- To undo it, run DROP OWNED in each database in which this file was run, then DROP ROLE once:
--
--     DROP OWNED BY poller;
--     DROP ROLE poller;
--
-- Limits: the role also has every right of PUBLIC. Up to PostgreSQL 14, PUBLIC may create tables in the
-- schema public (REVOKE CREATE ON SCHEMA public FROM PUBLIC). On every version, PUBLIC may create large
-- objects and temporary tables (REVOKE TEMPORARY ON DATABASE app FROM PUBLIC). A standby rejects these.
-- `poller doctor --strict` checks the resulting rights of the role.

\set ON_ERROR_STOP on
\set QUIET on
\if :{?role} \else \set role poller
\endif
\if :{?schema} \else \set schema public
\endif
\if :{?access} \else \set access columns
\endif
\if :{?extended} \else \set extended off
\endif
\if :{?monitor} \else \set monitor off
\endif
\if :{?database}
    \connect :"database"
\endif

BEGIN;
-- Another role may have created a function or an operator in the schema public that matches a call below
-- better than PostgreSQL's own. The server would run it with the rights of the user who runs this script.
SET LOCAL search_path = pg_catalog;
SET LOCAL client_min_messages = warning;
-- A GRANT waits for a transaction that changes the table, and other transactions would wait for the GRANT.
SET LOCAL lock_timeout = '2s';

-- A DO block cannot read psql's variables.
SELECT set_config('role_sql.role', :'role', true), set_config('role_sql.schema', :'schema', true),
    set_config('role_sql.access', :'access', true) \g /dev/null

DO $$
DECLARE
    wanted text := current_setting('role_sql.role');
    power text;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'this is a standby; run this on its primary, from where the role is replicated';
    END IF;
    IF current_setting('role_sql.access') NOT IN ('columns', 'all') THEN
        RAISE EXCEPTION 'access is %; write columns or all', current_setting('role_sql.access');
    END IF;
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = current_setting('role_sql.schema')) THEN
        RAISE EXCEPTION 'there is no schema % in database %', current_setting('role_sql.schema'),
            current_database();
    END IF;
    -- The role probably belongs to another program, which could fail without these rights.
    SELECT concat_ws(', ', CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
        CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
        CASE WHEN rolbypassrls THEN 'BYPASSRLS' END) INTO power FROM pg_roles WHERE rolname = wanted;
    IF power <> '' THEN
        RAISE EXCEPTION 'role % exists already and has %; choose another name with -v role=NAME', wanted, power;
    END IF;
END
$$;

-- The role -------------------------------------------------------------------------------------------------

SELECT format('CREATE ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE', :'role')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec

-- The poller uses one connection. It needs the second to reconnect before the server notices that the first
-- is closed. `poller doctor` needs the second while the daemon runs.
ALTER ROLE :"role" LOGIN INHERIT CONNECTION LIMIT 2;

-- Limits for other clients that log in with this role. The poller sets lower ones for each query.
ALTER ROLE :"role" SET default_transaction_read_only = on;
ALTER ROLE :"role" SET statement_timeout = '60s';
ALTER ROLE :"role" SET lock_timeout = '1s';
ALTER ROLE :"role" SET idle_in_transaction_session_timeout = '30s';
SELECT current_setting('server_version_num')::int >= 170000 AS has_transaction_timeout \gset
\if :has_transaction_timeout
    ALTER ROLE :"role" SET transaction_timeout = '5min';
\endif

-- Resource limits per query. The poller does not override them, so they apply to its queries.
ALTER ROLE :"role" SET max_parallel_workers_per_gather = 0;
SELECT current_setting('hash_mem_multiplier', true) IS NOT NULL AS has_hash_mem_multiplier \gset
\if :has_hash_mem_multiplier
    ALTER ROLE :"role" SET hash_mem_multiplier = 1;
\endif
-- Only a superuser may set temp_file_limit. From PostgreSQL 15 on, a role with a GRANT for it may, too.
SELECT current_setting('is_superuser')::bool AS may_limit_files,
    current_setting('server_version_num')::int >= 150000 AS has_parameter_privileges \gset
\if :has_parameter_privileges
    SELECT :'may_limit_files'::bool OR has_parameter_privilege('temp_file_limit', 'SET') AS may_limit_files \gset
\endif
\if :may_limit_files
    ALTER ROLE :"role" SET temp_file_limit = '1GB';
\else
    \echo 'temp_file_limit is not set: only a superuser may run ALTER ROLE' :"role" 'SET temp_file_limit = 1048576'
\endif

-- Its rights -----------------------------------------------------------------------------------------------

SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'role') \gexec
GRANT USAGE ON SCHEMA :"schema" TO :"role";
SELECT format('ALTER ROLE %I IN DATABASE %I SET search_path = %I', :'role', current_database(), :'schema')
WHERE :'schema' <> 'public' \gexec

\if :monitor
    GRANT pg_monitor TO :"role";
\endif

SELECT :'access' = 'all' AS read_all \gset
\if :read_all
    GRANT pg_read_all_data TO :"role";
\else
    -- Skip tables and columns that do not exist (another release of the server, a later migration). The
    -- poller skips their queries and reports the reason. A query that counts rows needs a right on one column
    -- only, so the list has a column without sensitive data.
    SELECT format('GRANT SELECT (%s) ON %I.%I TO %I',
        string_agg(quote_ident(attname), ', ' ORDER BY attnum), :'schema', relname, :'role')
    FROM (VALUES
        (false, 'users', 'id'),
        (false, 'messages', 'expires_at'),
        (false, 'attachments', 'expires_at'),
        (false, 'attachments', 'size_bytes'),
        (true, 'messages', 'created_at'),
        (true, 'messages', 'device_id'),
        (true, 'messages', 'recipient_id'),
        (true, 'devices', 'id'),
        (true, 'identity_keys', 'device_id'),
        (true, 'identity_keys', 'user_id'),
        (true, 'one_time_pre_keys', 'device_id'),
        (true, 'one_time_pre_keys', 'user_id'),
        (true, 'push_tokens', 'updated_at'),
        (true, 'refresh_tokens', 'expires_at'),
        (true, 'backups', 'state')
    ) AS wanted (of_extended, relation, name)
    JOIN pg_class ON relname = relation AND relkind IN ('r', 'p', 'v', 'm', 'f')
    JOIN pg_namespace ON pg_namespace.oid = relnamespace AND nspname = :'schema'
    JOIN pg_attribute ON attrelid = pg_class.oid AND attname = name AND NOT attisdropped
    WHERE :'extended'::bool OR NOT of_extended
    GROUP BY relname \gexec
\endif

COMMIT;

\echo 'The role' :"role" 'is ready. If it logs in by password, set one in psql: \\password' :"role"
