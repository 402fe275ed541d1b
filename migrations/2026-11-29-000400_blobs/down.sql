DROP TABLE blob_uses;
DROP TABLE blob_chunks;
DROP TABLE blobs;
