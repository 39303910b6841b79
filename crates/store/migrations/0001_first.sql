-- The first schema. Times are Unix milliseconds. Ids are 16-byte blobs and appear once; rows refer to
-- each other by integers, so that the indexes of busy tables grow at one end or stay per host.
-- "sealed" in a comment: encrypted with the data key, bound to table, column and row.

-- Facts about the database itself; 'key_check' is a known text, sealed.
CREATE TABLE facts (
    name TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
);

CREATE TABLE root_chain (
    version INTEGER NOT NULL PRIMARY KEY,
    envelope BLOB NOT NULL
);

CREATE TABLE users (
    number INTEGER NOT NULL PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    password_hash TEXT NOT NULL
);

CREATE TABLE user_sessions (
    number INTEGER NOT NULL PRIMARY KEY,
    token_sha256 BLOB NOT NULL UNIQUE,
    user_number INTEGER NOT NULL REFERENCES users (number),
    created_at INTEGER NOT NULL,
    expires INTEGER NOT NULL
);
CREATE INDEX user_sessions_user ON user_sessions (user_number);

CREATE TABLE join_tokens (
    number INTEGER NOT NULL PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    secret_sha256 BLOB NOT NULL,
    host_name TEXT NOT NULL,
    roles TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    spent_by BLOB
);

-- What seldom changes about a host.
CREATE TABLE hosts (
    number INTEGER NOT NULL PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    roles TEXT NOT NULL,
    identity_key BLOB NOT NULL,
    sealing_key BLOB NOT NULL,
    host_epoch INTEGER NOT NULL,
    quarantine_why TEXT,
    revoked_at INTEGER,
    boots BLOB NOT NULL,
    actions TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    root_version INTEGER NOT NULL,
    enrolled_at INTEGER NOT NULL,
    last_seen INTEGER,
    receipt BLOB NOT NULL
);
-- A revoked host gives its name back.
CREATE UNIQUE INDEX hosts_name ON hosts (name) WHERE revoked_at IS NULL;

-- What changes with each of its commands: short rows, so that a busy host rewrites little.
CREATE TABLE host_state (
    host INTEGER NOT NULL PRIMARY KEY REFERENCES hosts (number),
    allocated INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL,
    report_sequence INTEGER NOT NULL,
    report_sha256 BLOB NOT NULL,
    head_log BLOB,
    head_size INTEGER,
    head_root BLOB
);

CREATE TABLE operations (
    number INTEGER NOT NULL PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    request_sha256 BLOB NOT NULL,
    queue_for_ms INTEGER NOT NULL,
    dry_run INTEGER NOT NULL,
    detail BLOB NOT NULL -- sealed
);

-- Parameters once per distinct text of one transaction: an order to ten thousand hosts holds them once.
CREATE TABLE parameters (
    number INTEGER NOT NULL PRIMARY KEY,
    body BLOB NOT NULL -- sealed
);

CREATE TABLE commands (
    number INTEGER NOT NULL PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    host INTEGER NOT NULL REFERENCES hosts (number),
    operation INTEGER NOT NULL REFERENCES operations (number),
    status TEXT NOT NULL,
    action TEXT NOT NULL,
    app TEXT,
    sealed_last INTEGER NOT NULL, -- sequence of its last sealed version; 0 before the first
    delivered_at INTEGER,
    accepted_at INTEGER,
    started_at INTEGER,
    settled_at INTEGER, -- set if and only if the status is an end
    fleet BLOB NOT NULL,
    proposed_at INTEGER NOT NULL,
    deliver_by INTEGER NOT NULL,
    start_within_ms INTEGER NOT NULL,
    action_version INTEGER NOT NULL,
    schema_sha256 BLOB NOT NULL,
    requester BLOB,
    dry_run INTEGER NOT NULL,
    parameters INTEGER NOT NULL REFERENCES parameters (number),
    sealed_refs BLOB NOT NULL,
    sealed_values BLOB NOT NULL, -- HPKE ciphertexts; only the host can open them
    message BLOB -- sealed
);
CREATE INDEX commands_open ON commands (host, number) WHERE settled_at IS NULL;
CREATE INDEX commands_host ON commands (host, number);
CREATE INDEX commands_operation ON commands (operation, number);

CREATE TABLE command_seals (
    number INTEGER NOT NULL PRIMARY KEY,
    command INTEGER NOT NULL REFERENCES commands (number),
    sequence INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    payload_sha256 BLOB NOT NULL,
    envelope BLOB NOT NULL -- sealed
);
CREATE UNIQUE INDEX command_seals_command ON command_seals (command, sequence);

CREATE TABLE command_reports (
    command INTEGER NOT NULL PRIMARY KEY REFERENCES commands (number),
    envelope BLOB NOT NULL -- sealed
);

CREATE TABLE app_instances (
    number INTEGER NOT NULL PRIMARY KEY,
    app TEXT NOT NULL,
    host INTEGER NOT NULL REFERENCES hosts (number),
    release BLOB NOT NULL,
    deployed_at INTEGER NOT NULL,
    result BLOB NOT NULL -- sealed
);
CREATE UNIQUE INDEX app_instances_app ON app_instances (app, host);

-- One leaf of the Merkle tree (RFC 6962) per row. The record is sealed here, or is an envelope that
-- stands in command_seals (by number) or command_reports (by command).
CREATE TABLE audit_leaves (
    leaf INTEGER NOT NULL PRIMARY KEY,
    time INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    actor TEXT NOT NULL,
    subject TEXT NOT NULL,
    record_sha256 BLOB NOT NULL,
    leaf_sha256 BLOB NOT NULL,
    record BLOB, -- sealed
    record_seal INTEGER,
    record_report INTEGER
);

CREATE TABLE audit_heads (
    size INTEGER NOT NULL PRIMARY KEY,
    log BLOB NOT NULL,
    root BLOB NOT NULL,
    envelope BLOB NOT NULL
);
