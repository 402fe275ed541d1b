-- Whether settings are in use is asked by both; by the hash alone all owners that share it are read.
-- Gateways build it before, without a lock, where the table is large (see postgres_indexes.rs).
CREATE INDEX IF NOT EXISTS responses_owner_settings ON responses (owner, settings_hash);
DROP INDEX IF EXISTS responses_settings;
