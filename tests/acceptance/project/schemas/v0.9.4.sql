-- The tables of the messaging server as its release v0.9.4 has them: identifiers, types, keys and indexes.
-- New: messages.sender_device_id, and submissions are unique by it.
-- The server's ids default to uuidv7(), which PostgreSQL 18 brought; no query looks at an id's bits,
-- so gen_random_uuid() stands here and the file loads on older servers too.

CREATE TABLE users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    username varchar(50) NOT NULL UNIQUE,
    password_hash varchar(255) NOT NULL,
    created_at timestamptz DEFAULT now(),
    CONSTRAINT users_username_check CHECK (username ~ '^[a-z0-9_]{3,50}$')
);

CREATE TABLE devices (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name varchar(100),
    created_at timestamptz DEFAULT now()
);
CREATE INDEX idx_devices_user_id ON devices (user_id);

CREATE TABLE refresh_tokens (
    token_hash varchar PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    device_id uuid REFERENCES devices (id) ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_refresh_tokens_user_id ON refresh_tokens (user_id);
CREATE INDEX idx_refresh_tokens_expires_at ON refresh_tokens (expires_at);

CREATE TABLE identity_keys (
    device_id uuid PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    identity_key bytea NOT NULL,
    registration_id integer NOT NULL
);

CREATE TABLE signed_pre_keys (
    id integer NOT NULL,
    device_id uuid NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    public_key bytea NOT NULL,
    signature bytea NOT NULL,
    created_at timestamptz DEFAULT now(),
    PRIMARY KEY (device_id, id)
);

CREATE TABLE one_time_pre_keys (
    id integer NOT NULL,
    device_id uuid NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    public_key bytea NOT NULL,
    created_at timestamptz DEFAULT now(),
    PRIMARY KEY (device_id, id)
);

CREATE TABLE messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    sender_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    sender_device_id uuid NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    device_id uuid NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    submission_id uuid NOT NULL,
    content bytea NOT NULL,
    created_at timestamptz DEFAULT now(),
    expires_at timestamptz NOT NULL,
    UNIQUE (sender_device_id, submission_id)
);
CREATE INDEX idx_messages_fetch ON messages (device_id, created_at);
CREATE INDEX idx_messages_expires_at ON messages (expires_at);

CREATE TABLE attachments (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX idx_attachments_expires_at ON attachments (expires_at);

CREATE TABLE push_tokens (
    device_id uuid PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    token text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_push_tokens_updated_at ON push_tokens (updated_at);
CREATE INDEX idx_push_tokens_token ON push_tokens (token);

CREATE TABLE backups (
    device_id uuid PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    current_version integer NOT NULL DEFAULT 0,
    pending_version integer,
    state varchar NOT NULL DEFAULT 'ACTIVE',
    updated_at timestamptz NOT NULL DEFAULT now(),
    pending_at timestamptz
);
CREATE INDEX idx_backups_state_pending_at ON backups (state, pending_at);
