-- The first rows of the demo: 1,000 users with their devices and keys, 600 waiting messages, 200 sessions and
-- 100 backups. There are no attachments, because the object store has no file for them.

INSERT INTO users (username, password_hash)
    SELECT 'user_' || number, 'not a password' FROM generate_series(0, 999) AS number;
INSERT INTO devices (user_id)
    SELECT id FROM users UNION ALL SELECT id FROM users WHERE random() < 0.3;
INSERT INTO identity_keys (device_id, identity_key, registration_id)
    SELECT id, uuid_send(id), 1 FROM devices;
INSERT INTO signed_pre_keys (id, device_id, public_key, signature)
    SELECT 1, id, uuid_send(id), uuid_send(id) FROM devices;
INSERT INTO one_time_pre_keys (id, device_id, public_key)
    SELECT number, id, uuid_send(id) FROM devices, generate_series(1, 10) AS number;
INSERT INTO push_tokens (device_id, token)
    SELECT id, md5(id::text) FROM devices WHERE random() < 0.8;
INSERT INTO messages (sender_id, sender_device_id, device_id, submission_id, content, expires_at)
    SELECT sender.user_id, sender.id, recipient.id, gen_random_uuid(),
        convert_to(repeat('x', 100 + (900 * random())::int), 'UTF8'),
        -- A few are for devices that do not connect in time.
        now() + CASE WHEN random() < 0.02 THEN interval '1 minute' ELSE interval '30 days' END
    FROM (SELECT *, row_number() OVER (ORDER BY random()) AS number FROM devices) AS sender
    JOIN (SELECT *, row_number() OVER (ORDER BY random()) AS number FROM devices) AS recipient USING (number)
    LIMIT 600;
INSERT INTO refresh_tokens (token_hash, user_id, device_id, expires_at)
    SELECT md5(id::text), user_id, id, now() + (30 + 150 * random()) * interval '1 second' FROM devices LIMIT 200;
INSERT INTO backups (device_id, pending_version, state, pending_at)
    SELECT id, 1, 'UPLOADING', now() FROM devices LIMIT 100;
