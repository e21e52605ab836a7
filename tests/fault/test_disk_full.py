"""The disk of the data directory, or of PostgreSQL, is full for a while, again and again."""
