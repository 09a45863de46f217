-- The tables of the messaging server as its release v0.6.0 has them: identifiers, types, keys and indexes.
-- messages: submission_id is new, message_type is gone, the index by recipient became idx_messages_fetch.
-- The server's ids default to uuidv7(), which PostgreSQL 18 brought; no query looks at an id's bits,
-- so gen_random_uuid() stands here and the file loads on older servers too.

CREATE TABLE users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    username varchar(50) NOT NULL UNIQUE,
    password_hash varchar(255) NOT NULL,
    created_at timestamptz DEFAULT now()
);

CREATE TABLE refresh_tokens (
    token_hash varchar PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_refresh_tokens_user_id ON refresh_tokens (user_id);

CREATE TABLE identity_keys (
    user_id uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    identity_key bytea NOT NULL,
    registration_id integer NOT NULL
);

CREATE TABLE signed_pre_keys (
    id integer NOT NULL,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    public_key bytea NOT NULL,
    signature bytea NOT NULL,
    created_at timestamptz DEFAULT now(),
    PRIMARY KEY (id, user_id)
);

CREATE TABLE one_time_pre_keys (
    id integer NOT NULL,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    public_key bytea NOT NULL,
    created_at timestamptz DEFAULT now(),
    PRIMARY KEY (id, user_id)
);

CREATE TABLE messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    sender_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    recipient_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    submission_id uuid NOT NULL,
    content bytea NOT NULL,
    created_at timestamptz DEFAULT now(),
    expires_at timestamptz NOT NULL,
    UNIQUE (sender_id, submission_id)
);
CREATE INDEX idx_messages_fetch ON messages (recipient_id, created_at);

CREATE TABLE attachments (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX idx_attachments_expires_at ON attachments (expires_at);

CREATE TABLE push_tokens (
    user_id uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    token text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_push_tokens_updated_at ON push_tokens (updated_at);

CREATE TABLE backups (
    user_id uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    current_version integer NOT NULL DEFAULT 0,
    pending_version integer,
    state varchar NOT NULL DEFAULT 'ACTIVE',
    updated_at timestamptz NOT NULL DEFAULT now(),
    pending_at timestamptz
);
CREATE INDEX idx_backups_state_pending_at ON backups (state, pending_at);
