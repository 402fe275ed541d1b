-- A deleted response expires when it is deleted, so that one index finds all that may be purged.
UPDATE responses SET expires_at = deleted_at
WHERE deleted_at IS NOT NULL AND (expires_at IS NULL OR expires_at > deleted_at);

CREATE INDEX responses_expiry ON responses (expires_at, id) WHERE expires_at IS NOT NULL;

-- Settings go with the last response that has them.
CREATE INDEX responses_settings ON responses (settings_hash);
