-- Add a size to attachments, because attachments_total_bytes needs it.
--
-- Run on the primary, as the owner of the table:
--
--     psql -v ON_ERROR_STOP=1 -f attachments_size_bytes.sql "$DATABASE_URL"
--
-- You can run it again at any time: it does not change an existing column. The server's own migrations do not
-- contain the column. If an upgrade of the server rebuilds the database, run this file again.
--
-- To undo it (the sizes are lost; the poller goes back to skipping the query):
--
--     ALTER TABLE attachments DROP COLUMN IF EXISTS size_bytes;

-- Part 1: the column ------------------------------------------------------------------------------------

-- The operators have their schema, because another role may have created an operator in the search_path that
-- matches better. The server would run that one with the rights of the user who runs this script.
BEGIN;

-- A nullable column without a default changes only the catalogue and rewrites no row. The statement needs an
-- ACCESS EXCLUSIVE lock for an instant. While it waits for the lock, other transactions wait for it. It fails
-- after two seconds, so that a long transaction does not block the server. Then run it again.
SET LOCAL lock_timeout = '2s';

ALTER TABLE attachments ADD COLUMN IF NOT EXISTS size_bytes bigint;

-- NOT VALID: the server checks new rows from now on, and does not read the old rows under this lock.
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

COMMENT ON COLUMN attachments.size_bytes IS 'Bytes of the stored object; NULL if the size is unknown.';

COMMIT;

-- This reads the table once, under a lock that allows reads and writes (SHARE UPDATE EXCLUSIVE). It does
-- nothing if the constraint is already validated.
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE attachments VALIDATE CONSTRAINT attachments_size_bytes_check;
COMMIT;

-- Part 2: the sizes, by hand -----------------------------------------------------------------------------
--
-- Leave an unknown size NULL. The poller exports no total while a live attachment has no size, because the
-- sum of the others would be too small and look correct. A guess, or 0, hides that.
--
-- a) Existing attachments. Only the object storage has their sizes. List its objects. The listing reads no
--    object and needs one request for each thousand objects. From v0.5.0 on, object keys are
--    `attachments/<id>`. Before v0.5.0, the key is the bare id at the bucket's root: omit --prefix then.
--
--        aws s3api list-objects-v2 --bucket "$OBSCURA_STORAGE_BUCKET" --prefix attachments/ \
--            --query 'Contents[].[Key, Size]' --output text > sizes.tsv
--
--    Then, in one psql session on the primary, join the listing to the rows by the id at the end of the key.
--    The statement updates a thousand rows each second. Press Ctrl-C when psql prints UPDATE 0. The
--    transactions are short, so they cause no replay lag. A row that the server has locked waits for the next
--    round:
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
--    You can run this as often as needed, because it updates only rows without a size. Attachments that still
--    have no size have no object in the storage:
--
--        SELECT id, expires_at FROM attachments WHERE size_bytes IS NULL AND expires_at >= now();
--
-- b) Future attachments. The server counts the bytes that it streams to the object storage. It should pass
--    that count to the statement that inserts the row after the upload:
--
--        INSERT INTO attachments (id, expires_at, size_bytes) VALUES ($1, $2, $3)
--
--    A server without this change stores NULL. Run a) on a schedule then, more often than the poller's
--    interval. Otherwise, the total is absent between an upload and the next run.
