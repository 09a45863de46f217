-- Give attachments a size, so that attachments_total_bytes has a source.
--
-- Run on the primary, as the owner of the table:
--
--     psql -v ON_ERROR_STOP=1 -f attachments_size_bytes.sql "$DATABASE_URL"
--
-- It can be run again at any time: what is there already is left alone. The server's own migrations do not
-- know the column; a database that is rebuilt at an upgrade of the server needs this file again.
--
-- To undo it (the sizes are lost; the poller goes back to skipping the query):
--
--     ALTER TABLE attachments DROP COLUMN IF EXISTS size_bytes;

-- Part 1: the column ------------------------------------------------------------------------------------

-- Operators are written with their schema: one that another role created in the search_path could fit better
-- than PostgreSQL's own, and would run with the rights of the user who runs it.
BEGIN;

-- Adding a nullable column without a default changes the catalogue only, no row is rewritten. It needs an
-- ACCESS EXCLUSIVE lock for that instant, and other transactions wait for a transaction that requests one:
-- stop after two seconds, so that a long transaction does not block the server. Then run it again.
SET LOCAL lock_timeout = '2s';

ALTER TABLE attachments ADD COLUMN IF NOT EXISTS size_bytes bigint;

-- NOT VALID: new rows are checked from now on, the old ones are not read under this lock.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_constraint
        WHERE conrelid OPERATOR(pg_catalog.=) 'attachments'::pg_catalog.regclass::pg_catalog.oid
          AND conname OPERATOR(pg_catalog.=) 'attachments_size_bytes_check'
    ) THEN
        ALTER TABLE attachments ADD CONSTRAINT attachments_size_bytes_check
            CHECK (size_bytes OPERATOR(pg_catalog.>=) 0) NOT VALID;
    END IF;
END
$$;

COMMENT ON COLUMN attachments.size_bytes IS 'Bytes of the stored object; NULL where the size is not known.';

COMMIT;

-- Reads the table once while the server goes on reading and writing (SHARE UPDATE EXCLUSIVE). Validated
-- already: does nothing.
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE attachments VALIDATE CONSTRAINT attachments_size_bytes_check;
COMMIT;

-- Part 2: the sizes, by hand -----------------------------------------------------------------------------
--
-- Leave a size NULL where it is not known: the poller exports no total as long as one live attachment has
-- none, because a sum over the others would be too small and look right. A guess, or 0, hides that.
--
-- a) The attachments that exist. Only the object storage knows their sizes. List it (object keys are
--    `attachments/<id>` from v0.5.0 on; before, the bare id at the bucket's root: then leave --prefix away);
--    that reads no object, and takes one request for a thousand of them:
--
--        aws s3api list-objects-v2 --bucket "$OBSCURA_STORAGE_BUCKET" --prefix attachments/ \
--            --query 'Contents[].[Key, Size]' --output text > sizes.tsv
--
--    and, in one psql session on the primary, join the listing to the rows by the id the key ends in, a
--    thousand a second, until it says UPDATE 0 (then Ctrl-C). So no transaction is long, no replica falls
--    behind, and a row that the server holds just now is left to the next round:
--
--        CREATE TEMPORARY TABLE listing (key text, size_bytes bigint);
--        \copy listing FROM 'sizes.tsv'
--        CREATE INDEX ON listing (substring(key FROM '[^/]+$'));
--        ANALYZE listing;
--        WITH batch AS (
--            SELECT id, listing.size_bytes
--            FROM attachments JOIN listing ON substring(key FROM '[^/]+$') = id::text
--            WHERE attachments.size_bytes IS NULL
--            LIMIT 1000
--            FOR UPDATE OF attachments SKIP LOCKED
--        )
--        UPDATE attachments SET size_bytes = batch.size_bytes FROM batch WHERE attachments.id = batch.id;
--        \watch 1
--
--    Only rows without a size are touched, so this can be run as often as needed. What is still without a
--    size has no object in the storage:
--
--        SELECT id, expires_at FROM attachments WHERE size_bytes IS NULL AND expires_at >= now();
--
-- b) The attachments to come. The server counts the bytes it streams to the object storage; it should hand
--    that count to the statement that inserts the row, which comes after the upload:
--
--        INSERT INTO attachments (id, expires_at, size_bytes) VALUES ($1, $2, $3)
--
--    A server that does not do so leaves NULL: run a) on a schedule, more often than the poller's interval,
--    or expect the total to be absent between an upload and the next run.
