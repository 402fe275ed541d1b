-- Calls that a client has approved, each once: whoever writes the row may make the call.
CREATE TABLE approvals (
    owner TEXT NOT NULL,
    request TEXT NOT NULL,
    origin TEXT NOT NULL,
    response TEXT NOT NULL,
    claimed_at BIGINT NOT NULL,
    PRIMARY KEY (owner, request)
);

CREATE INDEX approvals_claimed ON approvals (claimed_at);
