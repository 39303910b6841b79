-- Changes of the control plane's own keys: public keys (of TLS keys the SHA-256 of their SubjectPublicKeyInfo) and how far
-- each change is. The private keys are elsewhere, as ever.
CREATE TABLE key_changes (
    number INTEGER NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    old_key BLOB NOT NULL,
    new_key BLOB NOT NULL,
    fresh_key BLOB NOT NULL, -- the one made for this change
    is_emergency INTEGER NOT NULL,
    state TEXT NOT NULL,
    begun_by TEXT NOT NULL,
    begun_at INTEGER NOT NULL,
    moved_at INTEGER NOT NULL, -- when it reached its state
    root_version INTEGER, -- under which it was published
    activated_at INTEGER,
    is_anyway INTEGER NOT NULL DEFAULT 0,
    is_open INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX key_changes_open ON key_changes (role) WHERE is_open;
