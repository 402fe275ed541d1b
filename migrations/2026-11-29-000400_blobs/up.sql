-- Large data of conversations, such as pictures: once per content and owner, in chunks of at most 1 MiB.
CREATE TABLE blobs (
    owner TEXT NOT NULL,
    hash TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    unused INTEGER NOT NULL,
    PRIMARY KEY (owner, hash)
);

-- Those that may be removed.
CREATE INDEX blobs_unused ON blobs (owner, hash) WHERE unused = 1;

CREATE TABLE blob_chunks (
    owner TEXT NOT NULL,
    hash TEXT NOT NULL,
    position INTEGER NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (owner, hash, position)
);

-- Which responses refer to them.
CREATE TABLE blob_uses (
    response TEXT NOT NULL,
    owner TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (response, hash)
);

CREATE INDEX blob_uses_blob ON blob_uses (owner, hash);
