-- Lists are read in the order of a key, a page at a time, so each order that can be asked for has an
-- index; hosts get labels to be selected by. An index ends with the row's number by itself.

-- Who asked, beside each command: a filter that an index of this table serves.
ALTER TABLE commands ADD COLUMN requested_by TEXT NOT NULL DEFAULT '';
UPDATE commands SET requested_by = (SELECT requested_by FROM operations WHERE operations.number = commands.operation);

DROP INDEX commands_host;
CREATE INDEX commands_host ON commands (host, proposed_at);
CREATE INDEX commands_proposed ON commands (proposed_at);
CREATE INDEX commands_app ON commands (app, proposed_at) WHERE app IS NOT NULL;
CREATE INDEX commands_action ON commands (action, proposed_at);
CREATE INDEX commands_requester ON commands (requested_by, proposed_at);
-- By status: ends once, when they come; what is open by its time alone, so that a command's way
-- through its life rewrites no index.
CREATE INDEX commands_ended ON commands (status, proposed_at) WHERE settled_at IS NOT NULL;
CREATE INDEX commands_waiting ON commands (proposed_at) WHERE settled_at IS NULL;
-- What waits too long is found without reading all that waits.
CREATE INDEX commands_deadline ON commands (deliver_by) WHERE status = 'queued';

-- What the hosts of an operation were selected by; null when they were named.
ALTER TABLE operations ADD COLUMN selector TEXT;
CREATE INDEX operations_created ON operations (created_at);
CREATE INDEX operations_requester ON operations (requested_by, created_at);

CREATE INDEX hosts_by_name ON hosts (name);
CREATE INDEX hosts_by_enrolment ON hosts (enrolled_at);
CREATE TABLE host_labels (
    host INTEGER NOT NULL REFERENCES hosts (number),
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (host, key)
) WITHOUT ROWID;

CREATE INDEX app_instances_host ON app_instances (host);

CREATE INDEX audit_leaves_time ON audit_leaves (time);
CREATE INDEX audit_leaves_kind ON audit_leaves (kind, time);
CREATE INDEX audit_leaves_actor ON audit_leaves (actor, time);
