-- Keys that hosts had before those on record. An identity key is never used again, by any host.
CREATE TABLE host_keys (
    number INTEGER NOT NULL PRIMARY KEY,
    host INTEGER NOT NULL REFERENCES hosts (number),
    host_epoch INTEGER NOT NULL,
    identity_key BLOB NOT NULL UNIQUE,
    sealing_key BLOB NOT NULL,
    replaced_at INTEGER NOT NULL,
    rotation BLOB NOT NULL, -- by which they were replaced, as both identity keys signed it
    last_report INTEGER -- the last report it may have signed, NULL until the host has used the key after it
);
CREATE UNIQUE INDEX host_keys_host ON host_keys (host, host_epoch);
CREATE INDEX hosts_identity_key ON hosts (identity_key);
