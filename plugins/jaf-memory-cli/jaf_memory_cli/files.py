"""The files of `import` and `export`; `-` is standard input or output."""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from jaf_memory_cli.errors import FAILED, USAGE, Stop
from jaf_memory_cli.execution import interruption
from jaf_memory_cli.options import local

STANDARD = "-"

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,4})")
_NAMED = {"/dev/stdout": 1, "/dev/stderr": 2}

_BEGIN = b'{"conversation_id":'
_END = re.compile(rb'"digest":"[0-9a-f]{64}"}\n?\Z')


class Counted:
    """A file that tells how many bytes of it have been read."""

    def __init__(self, file: IO[bytes], on_read: Callable[[float], None]) -> None:
        self._file = file
        self._on_read = on_read

    def readline(self, size: int, /) -> bytes:
        """The next line, cut to `size`."""
        with interruption.blocking():
            line = self._file.readline(size)
        self._on_read(len(line))
        return line


@contextmanager
def reading(name: str) -> Iterator[tuple[IO[bytes], int | None]]:
    """Open a file to be read.

    Yields:
        the file, and its size in bytes if it has one.
    """
    if name == STANDARD:
        with _named("standard input"):
            yield sys.stdin.buffer, None
        return
    with _opened(name, "rb") as file, _named(name):
        about = os.fstat(file.fileno())
        yield file, about.st_size if stat.S_ISREG(about.st_mode) else None


@contextmanager
def writing(name: str, *, spared: Sequence[Path] = (), force: bool = False) -> Iterator[IO[bytes]]:
    """Open a file to be written: it gets its name once it is whole, so that no half of an export is taken for one.

    Its owner alone may read it. Devices, pipes and what is open already are written as they are.

    Args:
        name: the file.
        spared: files that are never written to: the store's own.
        force: replace what is no export, and an export by an empty one.

    Raises:
        Stop: what stands there must not be replaced.
        OSError: it cannot be written.
    """
    local(name)
    descriptor = _descriptor(name)
    if descriptor is not None:
        with _named("standard output" if descriptor == 1 else name):
            _spare(name, os.fstat(descriptor), spared)
            with _open_already(descriptor) as file:
                yield file
        return
    about = _status(name)
    _spare(name, about, spared)
    if about is not None and not stat.S_ISREG(about.st_mode):
        with _named(name), _opened(name, "wb") as file:
            yield file
        return
    # An empty file may be replaced by anything.
    if about is not None and about.st_size and not force and not is_export(name):
        raise Stop(
            f"{name} is no export of conversations, and stays as it is; name another file, or add --force", USAGE
        )
    with _replacing(name, keep=bool(about and about.st_size) and not force) as file:
        yield file


def _opened(name: str, mode: Literal["rb", "wb"]) -> IO[bytes]:
    # A pipe at whose other end nobody is yet is waited for, and only a signal ends that.
    with interruption.blocking():
        return local(name).open(mode)


def is_export(name: str) -> bool:
    """Whether each line of a file is one that an export has written."""
    with Path(name).open("rb") as file:
        return all(line.startswith(_BEGIN) and _END.search(line) for line in file)


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, by links of either kind, or would if it were there."""
    try:
        return one.samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def _descriptor(name: str) -> int | None:
    """The number of an open file that a name stands for: replaced, whoever opened it would be left with the old one."""
    match = _DESCRIPTOR.fullmatch(name)
    return int(match[1]) if match else 1 if name == STANDARD else _NAMED.get(name)


@contextmanager
def _open_already(descriptor: int) -> Iterator[IO[bytes]]:
    if descriptor == 1:
        # What was written as text before comes before these bytes.
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        # Another number for the same file: whoever opened it keeps it open.
        with os.fdopen(os.dup(descriptor), "wb") as file:
            yield file


def _status(name: str) -> os.stat_result | None:
    try:
        return Path(name).stat()  # `exists` would take a loop of links for nothing
    except FileNotFoundError:
        return None


def _spare(name: str, about: os.stat_result | None, spared: Sequence[Path]) -> None:
    for file in spared:
        if same_file(Path(name), file) or (about is not None and _is(about, file)):
            raise Stop(f"{name} belongs to the store ({file}); export to another file", USAGE)


def _is(about: os.stat_result, file: Path) -> bool:
    try:
        return os.path.samestat(about, file.stat())
    except OSError:
        return False


@contextmanager
def _replacing(name: str, *, keep: bool) -> Iterator[IO[bytes]]:
    # A link stays a link, and what it leads to is replaced.
    path = Path(os.path.realpath(name))
    folder = (path if os.path.islink(name) else Path(name)).parent  # noqa: PTH114  (that raises for a name too long)
    try:
        # Beside its place, since a rename is one step within a file system only; with mode 0600 (docs/decisions/0008).
        made = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:50]}.", delete=False)  # noqa: SIM115
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    # Around the closing too, which writes once more what a full disk has not taken.
    with _named(name), made as file:
        try:
            yield file
            file.flush()
            # Before it gets its name: after a power failure no empty file may stand where the old export stood.
            os.fsync(file.fileno())
            _refuse_empty(name, file, keep=keep)
        except BaseException:
            # Also when a signal has cancelled it: no half export is left under a name that nobody knows.
            Path(file.name).unlink()
            raise
    with _named(name):
        Path(file.name).replace(path)


def _refuse_empty(name: str, file: IO[bytes], *, keep: bool) -> None:
    if keep and not file.tell():
        raise Stop(f"there is nothing to export; {name} keeps what it holds (--force would empty it)", FAILED)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Name the file in errors that do not, a full disk for one, or that name a temporary one."""
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(os.fspath(error.filename)).name.startswith("."):
            raise OSError(error.errno, error.strerror, name) from error
        raise
