-- Roots of full subtrees of the audit log's tree: of every 64 leaves, every 64 of those, and so on, so that
-- opening and proofs read a few rows whatever the log's length. They follow from the leaves; those of a log
-- that is there already are filled in when the database is opened.
CREATE TABLE audit_nodes (
    level INTEGER NOT NULL, -- a multiple of 6, the subtree has 2^level leaves
    node INTEGER NOT NULL, -- its place among those of its level
    hash BLOB NOT NULL,
    PRIMARY KEY (level, node)
) WITHOUT ROWID;
