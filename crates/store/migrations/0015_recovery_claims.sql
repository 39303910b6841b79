-- Hosts that a restored control plane knows by what they brought alone, until somebody has decided on them.
CREATE TABLE recovery_claims (
    number INTEGER NOT NULL PRIMARY KEY,
    host BLOB NOT NULL UNIQUE, -- its id, which may be in no other table
    name TEXT NOT NULL,
    enrolled_at INTEGER NOT NULL,
    receipt BLOB NOT NULL,
    rotations BLOB NOT NULL, -- each behind an empty name
    on_record INTEGER, -- epoch of its keys on record, if there were any
    host_epoch INTEGER NOT NULL,
    identity_key BLOB NOT NULL,
    is_receipted INTEGER NOT NULL,
    is_by_dropped_key INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    heard_at INTEGER NOT NULL,
    high INTEGER NOT NULL,
    report_sequence INTEGER NOT NULL,
    report_sha256 BLOB NOT NULL,
    head_log BLOB,
    head_size INTEGER,
    head_root BLOB,
    refused_at INTEGER
);
