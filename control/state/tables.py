"""What stands in the tables: a batch is written, everything is read, and the log is asked."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from control.keys import DiscoPublic
from control.model import TAILNET, AuthKey, Node, Tombstone, User
from control.state.changes import (
    AnyChange,
    AuthKeyGone,
    AuthKeyPut,
    NodeGone,
    NodePut,
    SettingPut,
    TombstoneGone,
    UserGone,
    UserPut,
)
from control.state.facts import NODES, USERS, Facts
from control.state.rows import Table, texts_from_json, texts_to_json
from control.state.store import Commit, Loaded, decode_changes
from control.state.volatile import Volatile
from control.tailcfg.codec import DecodeError
from control.tailcfg.hostinfo import EMPTY, parse_hostinfo

LOG_ROWS = 1_000_000
LOG_AGE_S = 90 * 86400
# Old rows that one transaction removes: twice what it may add, so the log shrinks even under load, and never all at once.
LOG_TRIM_ROWS = 512

INT_MAX = 2**31 - 1  # what clients say in a number is a claim, and JSON has larger ones than SQLite

USERS_TABLE = Table("users", User, "id")
NODES_TABLE = Table("nodes", Node, "id")
AUTH_KEYS_TABLE = Table("auth_keys", AuthKey, "id")
TOMBSTONES_TABLE = Table("tombstones", Tombstone, "node_key")

PUT_SETTING = (
    "INSERT INTO settings (tailnet_id, name, value) VALUES (?, ?, ?) "
    "ON CONFLICT (tailnet_id, name) DO UPDATE SET value = excluded.value"
)
PUT_SEQUENCE = (
    "INSERT INTO sequences (name, last) VALUES (?, ?) "
    "ON CONFLICT (name) DO UPDATE SET last = max(last, excluded.last)"
)
PUT_LOG = 'INSERT INTO log (seq, tailnet_id, at, "by", kind, payload) VALUES (?, ?, ?, ?, ?, ?)'
LOG_COLUMNS = 'seq, at, "by", kind, payload'
VOLATILE_COLUMNS = "node_id, endpoints, disco_key, home_derp, capver, last_seen, online, hostinfo"
PUT_VOLATILE = (
    f"INSERT INTO volatile ({VOLATILE_COLUMNS}, tailnet_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
    "ON CONFLICT (node_id) DO UPDATE SET endpoints = excluded.endpoints, disco_key = excluded.disco_key, "
    "home_derp = excluded.home_derp, capver = excluded.capver, last_seen = excluded.last_seen, "
    "online = excluded.online, hostinfo = excluded.hostinfo"
)
# A node may have gone since it was elected.
PUT_PRIMARY = "INSERT INTO primaries (tailnet_id, prefix, node_id) SELECT ?, ?, id FROM nodes WHERE id = ?"
# So that there is something to write even when nothing changed: the transaction also asks whether the disk is back.
PUT_FLUSHED = (
    "INSERT INTO meta (name, value) VALUES ('flushed_at', strftime('%s')) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)


def write_batch(db: sqlite3.Connection, batch: Sequence[Commit]) -> None:
    """The changes of these commits, their rows in the log, and the ids they used up."""
    last: dict[str, int] = {}
    for commit in batch:
        for change in commit.changes:
            _write_change(db, change, last)
    db.executemany(PUT_SEQUENCE, list(last.items()))
    db.executemany(PUT_LOG, [_log_row(commit) for commit in batch])
    _trim_log(db, batch[-1].seq, batch[-1].at)


def write_volatile(
    db: sqlite3.Connection, records: Mapping[int, Volatile], primaries: Mapping[str, int] | None
) -> None:
    db.executemany(PUT_VOLATILE, [_volatile_row(ident, record) for ident, record in records.items()])
    if primaries is not None:
        db.execute("DELETE FROM primaries WHERE tailnet_id = ?", (TAILNET,))
        db.executemany(PUT_PRIMARY, [(TAILNET, prefix, ident) for prefix, ident in primaries.items()])
    db.execute(PUT_FLUSHED)


def _write_change(db: sqlite3.Connection, change: AnyChange, last: dict[str, int]) -> None:
    """What `Facts.apply` does, on the disk."""
    match change:
        case UserPut(user=user):
            db.execute(USERS_TABLE.put, USERS_TABLE.row(user))
            last[USERS] = max(last.get(USERS, 0), user.id)
        case UserGone(id=ident):
            db.execute(USERS_TABLE.delete, (ident,))
        case NodePut(node=node):
            db.execute(NODES_TABLE.put, NODES_TABLE.row(node))
            db.execute(TOMBSTONES_TABLE.delete, (bytes(node.node_key),))
            last[NODES] = max(last.get(NODES, 0), node.id)
        case NodeGone(id=ident, node_key=node_key, machine_key=machine_key, at=at):
            db.execute(NODES_TABLE.delete, (ident,))
            stone = Tombstone(node_key=node_key, machine_key=machine_key, node_id=ident, deleted_at=at)
            db.execute(TOMBSTONES_TABLE.put, TOMBSTONES_TABLE.row(stone))
        case AuthKeyPut(auth_key=auth_key):
            db.execute(AUTH_KEYS_TABLE.put, AUTH_KEYS_TABLE.row(auth_key))
        case AuthKeyGone(id=key_id):
            db.execute(AUTH_KEYS_TABLE.delete, (key_id,))
        case TombstoneGone(node_key=node_key):
            db.execute(TOMBSTONES_TABLE.delete, (bytes(node_key),))
        case SettingPut(name=name, value=value):
            db.execute(PUT_SETTING, (TAILNET, name, value))


def read_all(db: sqlite3.Connection) -> Loaded:
    facts = Facts()
    facts.apply(UserPut(user=USERS_TABLE.record(row)) for row in db.execute(USERS_TABLE.select))
    facts.apply(NodePut(node=NODES_TABLE.record(row)) for row in db.execute(NODES_TABLE.select))
    facts.apply(
        AuthKeyPut(auth_key=AUTH_KEYS_TABLE.record(row)) for row in db.execute(AUTH_KEYS_TABLE.select)
    )
    for row in db.execute(TOMBSTONES_TABLE.select):
        stone = TOMBSTONES_TABLE.record(row)
        facts.tombstones[stone.node_key] = stone
    facts.settings.update(db.execute("SELECT name, value FROM settings WHERE tailnet_id = ?", (TAILNET,)))
    facts.last_id.update(db.execute("SELECT name, last FROM sequences"))
    # Clocks go backwards, so the last commit need not be the newest; a thousand are enough to see past a correction.
    (facts.seq, newest) = db.execute(
        "SELECT coalesce(max(seq), 0), coalesce(max(at), 0) FROM (SELECT seq, at FROM log ORDER BY seq DESC LIMIT 1000)"
    ).fetchone()
    volatile = dict(map(_volatile, db.execute(f"SELECT {VOLATILE_COLUMNS} FROM volatile")))  # noqa: S608
    primaries = dict(db.execute("SELECT prefix, node_id FROM primaries WHERE tailnet_id = ?", (TAILNET,)))
    newest = max([newest, *(record.last_seen for record in volatile.values())])
    return Loaded(facts, volatile, primaries, newest)


def _volatile_row(ident: int, record: Volatile) -> tuple[Any, ...]:
    return (
        ident,
        texts_to_json(record.endpoints),
        None if record.disco_key is None else bytes(record.disco_key),
        min(max(record.home_derp, 0), INT_MAX),
        min(max(record.capver, 0), INT_MAX),
        record.last_seen,
        int(record.online),
        record.hostinfo_raw,
        TAILNET,
    )


def _volatile(row: tuple[Any, ...]) -> tuple[int, Volatile]:
    ident, endpoints, disco_key, home_derp, capver, last_seen, online, raw = row
    try:
        hostinfo = parse_hostinfo(raw) if raw else EMPTY
    except DecodeError:  # an older version took more; the client says it again
        hostinfo, raw = EMPTY, b""
    return ident, Volatile(
        endpoints=texts_from_json(endpoints),
        disco_key=None if disco_key is None else DiscoPublic(disco_key),
        home_derp=home_derp,
        capver=capver,
        last_seen=last_seen,
        online=bool(online),
        hostinfo=hostinfo,
        hostinfo_raw=raw,
    )


# the log


def log_since(db: sqlite3.Connection, seq: int) -> list[Commit] | None:
    """The commits after `seq`; None when the log begins later."""
    db.execute("BEGIN")  # both answers are of one moment
    (first, last) = db.execute("SELECT min(seq), max(seq) FROM log").fetchone()
    if not (first or 1) - 1 <= seq <= (last or 0):
        return None
    rows = db.execute(f"SELECT {LOG_COLUMNS} FROM log WHERE seq > ? ORDER BY seq", (seq,))  # noqa: S608
    return [_commit(row) for row in rows]


def log_before(db: sqlite3.Connection, kind: str | None, before_seq: int | None, limit: int) -> list[Commit]:
    """The newest `limit` commits before `before_seq`, newest first."""
    wanted = "" if kind is None else "AND kind = :kind"
    rows = db.execute(
        f"SELECT {LOG_COLUMNS} FROM log WHERE seq < :before {wanted} ORDER BY seq DESC LIMIT :limit",  # noqa: S608
        {"before": 2**63 - 1 if before_seq is None else before_seq, "kind": kind, "limit": limit},
    )
    return [_commit(row) for row in rows]


def _log_row(commit: Commit) -> tuple[Any, ...]:
    return commit.seq, TAILNET, commit.at, commit.by, commit.kind, commit.payload.decode()


def _commit(row: tuple[Any, ...]) -> Commit:
    seq, at, by, kind, payload = row
    return Commit(seq, at, by, kind, decode_changes(payload.encode()), payload.encode())


def _trim_log(db: sqlite3.Connection, last: int, now: float) -> None:
    """Remove some of the oldest rows that are too old or too many, without a gap. The newest, our seq, is neither."""
    upto = 0
    for seq, at in db.execute("SELECT seq, at FROM log ORDER BY seq LIMIT ?", (LOG_TRIM_ROWS,)):
        if seq > last - LOG_ROWS and at > now - LOG_AGE_S:
            break
        upto = seq
    if upto:
        db.execute("DELETE FROM log WHERE seq <= ?", (upto,))
