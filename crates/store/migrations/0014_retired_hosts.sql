-- Of revoked hosts, those that left by themselves when they were told to, and have dropped their secrets.
ALTER TABLE hosts ADD COLUMN is_retired INTEGER NOT NULL DEFAULT 0;
