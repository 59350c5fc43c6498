"""A hub in one file: its rows and its blobs, for a hub of the same version on any database and storage."""
