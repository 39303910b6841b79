-- Standing orders of hosts, what was ordered about each, and how far the numbers of each host are. How a step ended stands with
-- its operation's commands, and is kept nowhere else.
CREATE TABLE standing_orders (
    number INTEGER NOT NULL PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    host INTEGER NOT NULL REFERENCES hosts (number),
    action TEXT NOT NULL,
    action_version INTEGER NOT NULL,
    schedule TEXT NOT NULL,
    zone TEXT NOT NULL,
    valid_until INTEGER NOT NULL,
    alone_for_ms INTEGER NOT NULL,
    requested_by TEXT NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX standing_orders_by_host ON standing_orders (host);
CREATE TABLE standing_steps (
    number INTEGER NOT NULL PRIMARY KEY,
    standing INTEGER NOT NULL REFERENCES standing_orders (number),
    kind TEXT NOT NULL, -- install, renew, drop
    operation INTEGER NOT NULL REFERENCES operations (number),
    at INTEGER NOT NULL,
    -- What was signed for it, if anything was.
    revision INTEGER,
    key BLOB,
    host_epoch INTEGER,
    epoch INTEGER,
    envelope BLOB -- encrypted
);
CREATE INDEX standing_steps_by_order ON standing_steps (standing);
CREATE TABLE standing_revisions (
    host INTEGER NOT NULL PRIMARY KEY REFERENCES hosts (number),
    revision INTEGER NOT NULL -- the highest given out
);
