"""The files of `import` and `export`; `-` is standard input or output."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

STANDARD = "-"


class Counted:
    """A file that tells how many bytes of it have been read."""

    def __init__(self, file: IO[bytes], on_read: Callable[[float], None]) -> None:
        self._file = file
        self._on_read = on_read

    def readline(self, size: int, /) -> bytes:
        """The next line, cut to `size`."""
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
        yield sys.stdin.buffer, None
        return
    with Path(name).open("rb") as file:
        about = os.fstat(file.fileno())
        yield file, about.st_size if stat.S_ISREG(about.st_mode) else None


@contextmanager
def writing(name: str) -> Iterator[IO[bytes]]:
    """Open a file to be written: it gets its name once it is whole, so that no half of an export is taken for one.

    Its owner alone may read it. Devices and pipes are written as they are.
    """
    path = Path(name)
    if name == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
    else:
        with _replacing(path.resolve()) as file:
            yield file


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:100]}.", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            Path(file.name).unlink()
            raise
    Path(file.name).replace(path)
