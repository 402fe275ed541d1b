CREATE INDEX responses_settings ON responses (settings_hash);
DROP INDEX responses_owner_settings;
