"""Backups: the rows of a database in one file that knows nothing of which database it was, and back from it.

`format.py` is the file, `dump.py` writes one beside a running server, `restore.py` fills an empty database with it, and
`afterlife.py` ends what lived when the backup was made.
"""
