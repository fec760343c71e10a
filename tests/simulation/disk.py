"""The disk under SQLite: every write, truncation and sync of the file passes here, so that its end can be put anywhere.

SQLite reaches files through a table of functions (a VFS). We put a few of our own into a copy of its table; the rest,
and each call itself, stay what they were. So Python's own `sqlite3` works as ever, and we know what a disk holds of it.
"""

import contextlib
import ctypes
import dataclasses
import functools
import os
from pathlib import Path

from simulation.engine import choice

INT, POINTER = ctypes.c_int, ctypes.c_void_p
FILE = ctypes.POINTER(POINTER)

# Names are pointers: SQLite keeps the one that it gives, and finds more behind the name's end.
OPEN = ctypes.CFUNCTYPE(INT, POINTER, POINTER, FILE, INT, POINTER)
DELETE = ctypes.CFUNCTYPE(INT, POINTER, POINTER, INT)
WRITE = ctypes.CFUNCTYPE(INT, FILE, POINTER, INT, ctypes.c_int64)
TRUNCATE = ctypes.CFUNCTYPE(INT, FILE, ctypes.c_int64)
SYNC = ctypes.CFUNCTYPE(INT, FILE, INT)

SECTOR = 512
"""Bytes that a disk writes whole or not at all."""


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`."""

    _fields_ = [
        ("version", INT),
        ("size", INT),
        ("longest", INT),
        ("next", POINTER),
        ("name", ctypes.c_char_p),
        ("data", POINTER),
        ("open", OPEN),
        ("delete", DELETE),
        *((f"rest{place}", POINTER) for place in range(14)),
    ]


class _Methods(ctypes.Structure):
    """`sqlite3_io_methods`."""

    _fields_ = [
        ("version", INT),
        ("close", POINTER),
        ("read", POINTER),
        ("write", WRITE),
        ("truncate", TRUNCATE),
        ("sync", SYNC),
        *((f"rest{place}", POINTER) for place in range(13)),
    ]


@dataclasses.dataclass
class _Held:
    """What a disk holds of a file.

    Attributes:
        synced: what stays, whatever happens.
        since: writes and truncations since the last sync, of which any may be there: functions that change bytes.
    """

    synced: bytearray
    since: list = dataclasses.field(default_factory=list)


class Disk:
    """What the disk holds of the files that SQLite has written below a folder.

    Args:
        folder: whose files are watched.
        before: called before each change of a file.
    """

    def __init__(self, folder, before):
        self._folder = str(folder)
        self._before = before
        self._files = {}

    def watches(self, path):
        """Whether it is one of its files."""
        return path.startswith(self._folder)

    def opened(self, path):
        """A file that may be there already."""
        if path not in self._files:
            self._files[path] = _Held(bytearray(Path(path).read_bytes()))

    def changes(self, path, change):
        """A file is about to be changed: before that, and within, all may end."""
        self._before(change=functools.partial(self._torn, path, change))
        self._files[path].since.append(change)

    def synced(self, path):
        """A file was synced: what was written stays."""
        held = self._files[path]
        for change in held.since:
            change(held.synced)
        held.since.clear()

    def deleted(self, path):
        """A file is gone."""
        self._before(change=None)
        self._files.pop(path, None)

    def image(self, folder, now, *, power):
        """Write what is there if all ends at this moment.

        Args:
            folder: where to.
            now: the change that is under way, as `before` got it.
            power: whether the power fails, which takes along what was not synced; else a process is killed.
        """
        for path, held in self._files.items():
            content = bytearray(held.synced)
            for change in held.since:
                if not power or (kept := choice(("whole", "lost", "torn"))) == "whole":
                    change(content)
                elif kept == "torn":
                    change(content, most=choice(range(0, 8 * SECTOR, SECTOR)))
            if now is not None:
                now(path, content)
            Path(folder, Path(path).name).write_bytes(content)

    @staticmethod
    def _torn(path, change, other, content):
        if other == path:
            change(content, most=choice((0, SECTOR, 4 * SECTOR)))


def _write(data, offset, content, most=None):
    data = data[:most]
    if len(content) < offset + len(data):
        content.extend(bytes(offset + len(data) - len(content)))
    content[offset : offset + len(data)] = data


def _truncate(size, content, most=None):
    if most is None or most:
        del content[size:]


class Shim:
    """Our functions in SQLite's table, for as long as this process lives; the disk that they tell changes.

    Raises:
        OSError, AttributeError: this Python hides its SQLite.
    """

    disk = None

    def __init__(self):
        import _sqlite3

        library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
        library.sqlite3_initialize()
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        self._theirs = library.sqlite3_vfs_find(None)
        self._ours = _Vfs.from_buffer_copy(self._theirs.contents)
        self._ours.name = b"watched"
        self._ours.open, self._ours.delete = OPEN(self._open), DELETE(self._delete)
        self._methods, self._paths = {}, {}
        library.sqlite3_vfs_register(ctypes.byref(self._ours), 1)

    def _open(self, _vfs, name, file, flags, given):
        code = self._theirs.contents.open(ctypes.cast(self._theirs, POINTER), name, file, flags, given)
        path = os.fsdecode(ctypes.string_at(name)) if name else ""
        if code == 0 and self.disk is not None and self.disk.watches(path):
            self.disk.opened(path)
            self._paths[ctypes.addressof(file.contents)] = path
            file[0] = ctypes.cast(self._watched(file[0]), POINTER)
        return code

    def _watched(self, methods):
        """A copy of a file's methods with ours among them."""
        if methods not in self._methods:
            theirs = ctypes.cast(methods, ctypes.POINTER(_Methods)).contents
            ours = _Methods.from_buffer_copy(theirs)
            ours.write = WRITE(functools.partial(self._write, theirs))
            ours.truncate = TRUNCATE(functools.partial(self._truncate, theirs))
            ours.sync = SYNC(functools.partial(self._sync, theirs))
            self._methods[methods] = ours
        return ctypes.pointer(self._methods[methods])

    def _write(self, theirs, file, data, size, offset):
        self._changes(file, functools.partial(_write, ctypes.string_at(data, size), offset))
        return theirs.write(file, data, size, offset)

    def _truncate(self, theirs, file, size):
        self._changes(file, functools.partial(_truncate, size))
        return theirs.truncate(file, size)

    def _sync(self, theirs, file, flags):
        code = theirs.sync(file, flags)
        path = self._paths[ctypes.addressof(file.contents)]
        if code == 0 and self.disk is not None and self.disk.watches(path):
            self.disk.synced(path)
        return code

    def _delete(self, _vfs, name, synced):
        path = os.fsdecode(ctypes.string_at(name))
        if self.disk is not None and self.disk.watches(path):
            self.disk.deleted(path)
        return self._theirs.contents.delete(ctypes.cast(self._theirs, POINTER), name, synced)

    def _changes(self, file, change):
        path = self._paths[ctypes.addressof(file.contents)]
        if self.disk is not None and self.disk.watches(path):
            self.disk.changes(path, change)


@functools.cache
def shim():
    """The one of this process."""
    return Shim()


@contextlib.contextmanager
def watched(disk):
    """Within, SQLite tells a disk what it does."""
    shim().disk = disk
    try:
        yield
    finally:
        shim().disk = None
