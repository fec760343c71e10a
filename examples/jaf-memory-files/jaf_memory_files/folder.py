"""The store itself, as a driver would bring it: bytes under keys, in a folder that processes share.

A file has its key in its first line, so that the key is known even where what stands behind it is damaged.

Replace: the whole module, by your driver.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path


class Folder:
    """A folder with one file a key. All of it waits for the disk.

    Args:
        path: the folder; `make` makes it when it is missing.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def make(self) -> None:
        """Make the folder, and those above it."""
        self._path.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep out everyone else who asks for the lock, in this process or another, until the block is left."""
        with (self._path / "lock").open("w") as lock:  # closing it unlocks, and so does the end of the process
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def get(self, key: str) -> bytes | None:
        """What stands under the key, or `None`. A file is replaced in one step, so nobody reads half of one."""
        content = _content(self._file(key))
        return None if content is None else _parted(content)[1]

    def put(self, key: str, content: bytes | None) -> None:
        """Replace what stands under the key, or remove it; on disk when this returns. Call it under the lock."""
        file, fresh = self._file(key), self._path / "fresh"
        if content is None:
            file.unlink()
        else:
            fresh.write_bytes(json.dumps(key).encode() + b"\n" + content)
            _sync(fresh)
            fresh.replace(file)
        _sync(self._path)

    def contents(self) -> Iterator[tuple[str | None, bytes]]:
        """Each key, `None` where the file does not tell it any more, and what stands under it, one after the other."""
        with self.locked():  # some file systems leave a file out of a listing while it is replaced
            files = list(self._path.glob("*.json"))
        return (_parted(content) for content in map(_content, files) if content is not None)

    def _file(self, key: str) -> Path:
        # A digest, because a key may hold what no file's name can, and be longer.
        return self._path / f"{sha256(key.encode()).hexdigest()}.json"


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _parted(content: bytes) -> tuple[str | None, bytes]:
    line, _, rest = content.partition(b"\n")
    try:
        key = json.loads(line)
    except ValueError:
        key = None
    return key if isinstance(key, str) else None, rest


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
