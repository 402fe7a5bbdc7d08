"""Configuration: only what is needed to start. Everything that changes while running lives in the database.

schema.py    every setting in one row: kind, default, one sentence of help
kinds.py     how a value is written, and what it becomes
load.py      TOML texts and environment → Config, or all problems at once
draft.py     what has been read so far, and what is wrong with it
check.py     what settings say about each other: server_url, tls.mode, base_domain …
files.py     which files are read, and whether certificate files can be (the one module here that does I/O)
"""
