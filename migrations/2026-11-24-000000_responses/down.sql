DROP TABLE responses;
DROP TABLE settings;
