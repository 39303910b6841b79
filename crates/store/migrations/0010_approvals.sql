-- How many people must approve what an operation changes (0: none), and the approver key of whoever asked.
ALTER TABLE operations ADD COLUMN approvals INTEGER NOT NULL DEFAULT 0;
ALTER TABLE operations ADD COLUMN requester BLOB;

-- An account's approver key: whose it is. Whether it counts is root metadata's to say.
ALTER TABLE users ADD COLUMN approver_key BLOB;
ALTER TABLE users ADD COLUMN approver_key_at INTEGER;
CREATE UNIQUE INDEX users_approver_key ON users (approver_key) WHERE approver_key IS NOT NULL;

-- Signed envelopes, which hold ids and hashes only.
CREATE TABLE command_approvals (
    command INTEGER NOT NULL REFERENCES commands (number),
    approver BLOB NOT NULL, -- id of the key
    envelope BLOB NOT NULL,
    stored_at INTEGER NOT NULL,
    PRIMARY KEY (command, approver)
) WITHOUT ROWID;

-- What is held waits too long as well.
DROP INDEX commands_deadline;
CREATE INDEX commands_deadline ON commands (deliver_by) WHERE status IN ('queued', 'held');
