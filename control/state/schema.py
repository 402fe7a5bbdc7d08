"""The tables, and how an older database becomes a current one.

A migration is never changed once it is released; what must be different is a new one at the end. All tables are STRICT,
so that a bug in the codec is refused instead of stored. `tailnet_id` is on every table of facts; ids of users and nodes
are unique over all tailnets and never used again, so `sequences`, like `meta`, belongs to the server.

    users  nodes  auth_keys  tombstones  settings     the facts (model.py), a column a field
    sequences                                         the last id given to a user and to a node
    log                                               every commit: who, when, what; the newest row is the state's seq
    volatile  primaries                               what may be lost, written behind
    meta                                              about the database itself
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from control.state.store import StoreUnusable

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

# In the file's header: `file state.db` and we ourselves know whose it is. "Home" in ASCII.
APPLICATION_ID = 0x486F6D65

Snapshot = Callable[[str], None]


def m0001_first_light(db: Database) -> None:
    for statement in FIRST_LIGHT:
        db.execute(statement)


FIRST_LIGHT = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    """CREATE TABLE users (
        id INTEGER PRIMARY KEY,
        tailnet_id INTEGER NOT NULL,
        name TEXT NOT NULL,
        created_at REAL NOT NULL,
        display_name TEXT NOT NULL,
        email TEXT NOT NULL,
        role TEXT NOT NULL,
        UNIQUE (tailnet_id, name)
    ) STRICT""",
    """CREATE TABLE nodes (
        id INTEGER PRIMARY KEY,
        tailnet_id INTEGER NOT NULL,
        machine_key BLOB NOT NULL CHECK (length(machine_key) = 32),
        node_key BLOB NOT NULL UNIQUE CHECK (length(node_key) = 32),
        name TEXT NOT NULL,
        ipv4 TEXT NOT NULL,
        ipv6 TEXT NOT NULL,
        created_at REAL NOT NULL,
        user_id INTEGER REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED,
        nl_key BLOB CHECK (length(nl_key) = 32),
        name_frozen INTEGER NOT NULL,
        hostname TEXT NOT NULL,
        tags TEXT NOT NULL,
        expires_at REAL,
        ephemeral INTEGER NOT NULL,
        announced INTEGER NOT NULL,
        advertised TEXT NOT NULL,
        approved TEXT NOT NULL,
        auth_key_id TEXT NOT NULL,
        requested_tags TEXT NOT NULL,
        UNIQUE (tailnet_id, name),
        UNIQUE (tailnet_id, ipv4),
        UNIQUE (tailnet_id, ipv6)
    ) STRICT""",
    "CREATE INDEX nodes_by_user ON nodes (user_id)",  # SQLite looks here when a user goes
    """CREATE TABLE auth_keys (
        id TEXT PRIMARY KEY,
        tailnet_id INTEGER NOT NULL,
        mac BLOB NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        user_id INTEGER REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED,
        reusable INTEGER NOT NULL,
        ephemeral INTEGER NOT NULL,
        tags TEXT NOT NULL,
        used_at REAL,
        revoked_at REAL
    ) STRICT""",
    "CREATE INDEX auth_keys_by_user ON auth_keys (user_id)",
    """CREATE TABLE tombstones (
        node_key BLOB PRIMARY KEY CHECK (length(node_key) = 32),
        tailnet_id INTEGER NOT NULL,
        machine_key BLOB NOT NULL CHECK (length(machine_key) = 32),
        node_id INTEGER NOT NULL,
        deleted_at REAL NOT NULL
    ) STRICT""",
    """CREATE TABLE settings (
        tailnet_id INTEGER NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (tailnet_id, name)
    ) STRICT""",
    "CREATE TABLE sequences (name TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT",
    """CREATE TABLE log (
        seq INTEGER PRIMARY KEY,
        tailnet_id INTEGER NOT NULL,
        at REAL NOT NULL,
        "by" TEXT NOT NULL,
        kind TEXT NOT NULL,
        payload TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX log_by_kind ON log (kind)",
    """CREATE TABLE volatile (
        node_id INTEGER PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
        tailnet_id INTEGER NOT NULL,
        endpoints TEXT NOT NULL,
        disco_key BLOB CHECK (length(disco_key) = 32),
        home_derp INTEGER NOT NULL,
        capver INTEGER NOT NULL,
        last_seen REAL NOT NULL,
        online INTEGER NOT NULL,
        hostinfo BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE primaries (
        tailnet_id INTEGER NOT NULL,
        prefix TEXT NOT NULL,
        node_id INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
        PRIMARY KEY (tailnet_id, prefix)
    ) STRICT""",
    "CREATE INDEX primaries_by_node ON primaries (node_id)",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
)

MIGRATIONS: tuple[Callable[[Database], None], ...] = (m0001_first_light,)


def migrate(
    connection: sqlite3.Connection,
    snapshot: Snapshot,
    steps: tuple[Callable[[Database], None], ...] = MIGRATIONS,
) -> None:
    """Bring the database up to date; `snapshot(name)` copies it first, unless it is new. Raises StoreUnusable."""
    new = not _ours(connection)
    applied = () if new else _applied(connection)
    known = [step.__name__ for step in steps]
    future = [name for name in applied if name not in known]
    if future:
        raise StoreUnusable(
            f"the database was written by a newer version ({future[-1]})",
            "start that version again, or restore the copy that it made before it changed the database (before-*.db)",
        )
    missing = [name for name in known if name not in applied]
    if not missing:
        return
    if not new:
        snapshot(f"before-{missing[0]}.db")
    from sqlite_utils import Database  # takes 60 ms to import: not at a usual start

    _set(steps).apply(Database(connection, recursive_triggers=False, execute_plugins=False))


@cache
def _set(steps: tuple[Callable[[Database], None], ...]) -> Migrations:
    from sqlite_utils import Migrations

    migrations = Migrations("control")
    for step in steps:
        migrations()(step)
    return migrations


def _ours(connection: sqlite3.Connection) -> bool:
    """Whether there is anything yet. Raises StoreUnusable for a database of another program."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    if owner == APPLICATION_ID:
        return True
    # A start that was killed between the table of migrations and the first of them.
    if tables == 0 or (owner == 0 and not _other_tables(connection)):
        return False
    raise StoreUnusable("this is the database of another program", "name another file, or move this one away")


def _other_tables(connection: sqlite3.Connection) -> bool:
    names = connection.execute("SELECT tbl_name FROM sqlite_master")
    return any(name not in {"_sqlite_migrations", "sqlite_sequence"} for (name,) in names)


def _applied(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT name FROM _sqlite_migrations WHERE migration_set = 'control' ORDER BY id"
    )
    return [name for (name,) in rows]
