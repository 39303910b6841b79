-- Restores from a backup. The last one is in force; as long as it is not confirmed, no order goes out.
CREATE TABLE recoveries (
    number INTEGER NOT NULL PRIMARY KEY,
    restored_at INTEGER NOT NULL,
    backup_made_at INTEGER NOT NULL,
    log BLOB NOT NULL,
    log_size INTEGER NOT NULL,
    log_root BLOB NOT NULL,
    confirmed_at INTEGER
);

-- What each host was heard to say since the last restore.
CREATE TABLE recovery_hosts (
    host INTEGER NOT NULL PRIMARY KEY REFERENCES hosts (number),
    allocated INTEGER NOT NULL, -- in the backup
    heard_at INTEGER,
    high INTEGER,
    report_sequence INTEGER,
    report_sha256 BLOB,
    head_log BLOB,
    head_size INTEGER,
    head_root BLOB,
    adopted_at INTEGER -- its numbers and reports go on where it stands
);
