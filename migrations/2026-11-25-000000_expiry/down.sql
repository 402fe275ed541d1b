DROP INDEX responses_settings;
DROP INDEX responses_expiry;
