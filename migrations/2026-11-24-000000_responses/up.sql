CREATE TABLE settings (
    owner TEXT NOT NULL,
    hash TEXT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (owner, hash)
);

CREATE TABLE responses (
    id TEXT NOT NULL PRIMARY KEY,
    previous_response_id TEXT,
    owner TEXT NOT NULL,
    model TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    completed_at BIGINT,
    expires_at BIGINT,
    deleted_at BIGINT,
    input_items TEXT NOT NULL,
    response TEXT NOT NULL,
    settings_hash TEXT NOT NULL,
    schema_version INTEGER NOT NULL
);

CREATE INDEX responses_previous ON responses (previous_response_id);
