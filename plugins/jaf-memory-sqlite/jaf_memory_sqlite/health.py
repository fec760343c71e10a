"""What `health_check` tells of the file."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from jaf_memory_core.records import Ping
from jaf_memory_core.values import FrozenDict
from jaf_memory_sqlite import migrations
from jaf_memory_sqlite.connection import size_of
from jaf_memory_sqlite.operations import search
from jaf_memory_sqlite.rows import SQL
from jaf_memory_sqlite.settings import MEMORY, SqliteConfig

NETWORK = frozenset({"9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"})
"""File systems whose locks and shared memory SQLite cannot rely on. https://sqlite.org/useovernet.html"""

MANY = 0.5
"""Share of free pages from which on it is worth saying that VACUUM would give them back."""

WARN_FROM = 64 << 20
"""Bytes below which nobody minds free pages, or a long write-ahead log."""

WARN_BELOW = 64 << 20
"""Bytes that are left on the disk, below which it is worth saying."""

LEVELS = {"FULL": "every commit is on the disk", "NORMAL": "a power failure can lose the last commits"}


def ping(db: sqlite3.Connection, config: SqliteConfig, path: str, connections: int) -> Ping:
    """Look at the file, with the connection that writes, inside a transaction that writes a page."""
    db.execute(SQL["write_nothing"])
    # A page is written, though nothing changes: a full disk is told by nothing less.
    db.execute(f"PRAGMA user_version = {migrations.CURRENT}")
    pages, free, page_size, mode, schema = (
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size", "journal_mode", "user_version")
    )
    log = size_of(f"{path}-wal")
    metrics = {
        "active_connections": connections,
        "memory_usage": pages * page_size,
        "wal_size": log,
        "free_size": free * page_size,
    }
    details = {
        "durability": "none" if path == MEMORY else LEVELS[config.synchronous],
        "journal_mode": mode,
        "path": path,
        "schema": schema,
        "search": search.described(db),
        "sqlite_version": sqlite3.sqlite_version,
        "synchronous": config.synchronous,
    }
    unsearched = config.search == "index" and not search.is_of_use(db)
    warnings = [f"searches go through all messages: {details['search']}"] if unsearched else []
    warnings += [*config.notes(), *_warnings(path, pages * page_size, free * page_size, log)]
    return Ping(f"{path} answers", tuple(warnings), FrozenDict(metrics), FrozenDict(details))


def _warnings(path: str, size: int, free: int, log: int) -> list[str]:
    found = []
    kind = file_system(path) if path != MEMORY else ""
    if kind in NETWORK:
        found.append(
            f"the file is on a network file system ({kind}), where SQLite can lose or damage it; use a local disk"
        )
    left = room(path) if path != MEMORY else None
    if left is not None and left < WARN_BELOW:
        found.append(f"the disk is nearly full: {left >> 20} MiB are left")
    if free > max(WARN_FROM, size * MANY):
        found.append("most of the file is free; SQLite's VACUUM would make it smaller")
    if log > max(WARN_FROM, size):
        found.append("the write-ahead log is longer than the database: some reader does not let go of an old state")
    return found


def room(path: str) -> int | None:
    """Bytes that are left on the disk for this process, where the system tells."""
    try:
        return shutil.disk_usage(Path(path).parent).free
    except OSError:
        return None


def file_system(path: str) -> str:
    """Kind of the file system that a path is on, where the system tells cheaply (Linux); else `""`."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    best = ("", "")
    for line in mounts:
        _, place, kind, *_ = line.split(" ")
        if (path == place or path.startswith(place.rstrip("/") + "/")) and len(place) >= len(best[0]):
            best = (place, kind)
    return best[1]
