-- Responses that were deleted and whose rows are gone: a copy of the database that was made before may
-- still have them.
CREATE TABLE deletions (
    id TEXT NOT NULL PRIMARY KEY,
    gone_at BIGINT NOT NULL
);

-- Those that may be forgotten.
CREATE INDEX deletions_age ON deletions (gone_at);
