-- Accounts by the time they were made; the deleted ones, of which there may be any number, are on no list.
CREATE INDEX users_created ON users (created_at) WHERE deleted_at IS NULL;
