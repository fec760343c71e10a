"""Everything that a provider promises, on the provider `files`."""

import os
import stat
from contextlib import asynccontextmanager
from functools import partial
from json import dumps

import pytest
from jaf_memory_core import BackendProvider
from jaf_memory_testing import ProviderConformance, Target

from jaf_memory_files import FilesBackend, FilesConfig
from jaf_memory_files.folder import Folder

# Replace: how your store is damaged, loses its power, stalls. All but `open` may be left out: what the kit is not told
# how to do it does not try, and lists at the end of a run.
WAYS = {
    "a message": (b'"role":"user"', b'"role":5'),
    "cut off": (b"}}", b""),
    "a newer format": (b'"format":', b'"format":3'),
}
"""What is replaced in a file, by what that damages."""


async def replaced(path, old, new, conversation_id):
    """Change a conversation's file behind everybody's back."""
    (file,) = (file for file in path.glob("*.json") if file.read_bytes().startswith(dumps(conversation_id).encode()))
    before, _, after = file.read_bytes().rpartition(old)
    file.write_bytes(before + new + after)


class Disk:
    """What is left of a folder after a power cut: what was synced of each file, by the names that were synced last."""

    def __init__(self, path):
        self.path = path
        self.names, self.contents = {}, {}

    def fsync(self, handle):
        """Look at what is put on the disk."""
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            self.names = {entry.name: entry.inode() for entry in os.scandir(self.path)}
        else:
            self.contents[status.st_ino] = os.pread(handle, status.st_size, 0)

    async def cut(self):
        """Lose the rest."""
        for file in self.path.iterdir():
            file.unlink()
        written = {name: self.contents.get(number, b"") for name, number in self.names.items()}
        for name, content in written.items():
            (self.path / name).write_bytes(content)
            self.names[name] = (self.path / name).stat().st_ino
            self.contents[self.names[name]] = content


async def open_provider(path, **settings):
    """Open a provider on a folder; the kit's other processes call this too."""
    config = FilesConfig(path=path, **settings)
    return BackendProvider(FilesBackend(config), config)


class TestFiles(ProviderConformance):
    """The whole kit."""

    @pytest.fixture
    def target(self, tmp_path, monkeypatch):
        """A new folder for each check."""
        path = tmp_path / "kept" / "conversations"  # the provider makes both
        disk = Disk(path)
        monkeypatch.setattr(os, "fsync", disk.fsync)

        @asynccontextmanager
        async def stall():
            with Folder(str(path)).locked():
                yield

        async def dump():
            return {file.name: file.read_bytes() for file in path.glob("*")}

        return Target(
            open=partial(open_provider, str(path)),
            stall=stall,
            dump=dump,
            damage={way: partial(replaced, path, *texts) for way, texts in WAYS.items()},
            power_cut=disk.cut,
            newer=partial(replaced, path, *WAYS["a newer format"]),
            declares={"outage": "files are there, or the machine is not"},
        )
