"""A database with the messaging server's schema and a few known rows, also on the standby."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bed.postgres import Database

MessagingServer = Database
"""A database in which `users`, `messages` and `attachments` have the rows below."""

SCHEMA = Path(__file__).parents[2] / "poller" / "demo" / "schema.sql"

# 37 users, 8 undelivered messages and 3 expired ones, 5 attachments with 15,120 bytes in all and 1 expired
# one.
ROWS = """
INSERT INTO users (id, username, password_hash)
    SELECT gen_random_uuid(), 'user_' || g, 'x' FROM generate_series(1, 37) g;
INSERT INTO devices (user_id, name) SELECT id, 'phone' FROM users;
INSERT INTO messages (sender_id, sender_device_id, device_id, submission_id, content, expires_at)
    SELECT d.user_id, d.id, d.id, gen_random_uuid(), 'x', now() + g * interval '1 day'
    FROM (SELECT * FROM devices LIMIT 1) d, generate_series(-3, 8) g WHERE g <> 0;
INSERT INTO attachments (id, expires_at, size_bytes)
    SELECT gen_random_uuid(), now() + g * interval '1 day', 1000 * g + 24 FROM generate_series(1, 5) g
    UNION ALL SELECT gen_random_uuid(), now() - interval '1 day', 5;
"""


@pytest.fixture
def server(database: Database) -> MessagingServer:
    database.execute(SCHEMA.read_text())
    database.execute(ROWS)
    database.replayed()
    return database
