-- Since when a host is quarantined, whether because someone else signed for it, and what an admin said of its end.
ALTER TABLE hosts ADD COLUMN quarantined_at INTEGER;
ALTER TABLE hosts ADD COLUMN quarantine_is_alarm INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hosts ADD COLUMN quarantine_is_told INTEGER NOT NULL DEFAULT 0; -- its agent is to enter quarantine itself
ALTER TABLE hosts ADD COLUMN quarantine_release BLOB; -- the quarantine that shall end
-- Quarantines that agents say they are in: two at once are two machines that speak as one host.
CREATE TABLE host_quarantines (
    host INTEGER NOT NULL REFERENCES hosts (number),
    id BLOB NOT NULL,
    seen_at INTEGER NOT NULL,
    boot BLOB NOT NULL,
    host_epoch INTEGER NOT NULL,
    protocol INTEGER NOT NULL,
    high INTEGER NOT NULL,
    report_sequence INTEGER NOT NULL,
    PRIMARY KEY (host, id)
) WITHOUT ROWID;
