-- The tables of the messaging server as its release v0.3.0 has them: identifiers, types, keys and indexes.
-- The first release with attachments; recipients of messages are users.

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
    PRIMARY KEY (id, user_id)
);

CREATE TABLE messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    sender_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    recipient_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    message_type integer NOT NULL DEFAULT 2,
    content bytea NOT NULL,
    created_at timestamptz DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX idx_messages_recipient_id ON messages (recipient_id);

CREATE TABLE attachments (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX idx_attachments_expires_at ON attachments (expires_at);
