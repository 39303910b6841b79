-- Accounts as people have them: owners, disabled and deleted ones, sessions that can be named, API tokens.

ALTER TABLE users ADD COLUMN created_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN disabled_at INTEGER;
-- A deleted account leaves its row, so that its name in the audit log never means somebody else.
ALTER TABLE users ADD COLUMN deleted_at INTEGER;

-- Accounts so far were made with the fleet.
UPDATE users SET created_at = COALESCE((SELECT time FROM audit_leaves WHERE leaf = 0), 0);
-- Every fleet has an owner; so far its first administrator was that.
UPDATE users SET role = 'owner' WHERE number = (SELECT MIN(number) FROM users WHERE role = 'admin');

ALTER TABLE user_sessions ADD COLUMN id BLOB;
ALTER TABLE user_sessions ADD COLUMN peer TEXT NOT NULL DEFAULT '';
UPDATE user_sessions SET id = randomblob(16);
CREATE UNIQUE INDEX user_sessions_id ON user_sessions (id);

CREATE TABLE api_tokens (
    number INTEGER NOT NULL PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    user_number INTEGER NOT NULL REFERENCES users (number),
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    secret_sha256 BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    last_used_at INTEGER,
    revoked_at INTEGER
);
CREATE INDEX api_tokens_user ON api_tokens (user_number);
