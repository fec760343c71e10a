"""Everything that a provider promises, on files."""

from contextlib import asynccontextmanager
from functools import partial
from json import dumps

import pytest
from jaf_memory_files import FilesBackend, FilesConfig, folder
from jaf_memory_files.folder import Folder
from jaf_memory_testing import ProviderConformance, Target

from jaf_memory_core import BackendProvider

WAYS = {
    "a message": (b'"role":"user"', b'"role":5'),
    "cut off": (b"}}", b""),
    "a newer format": (b'"format":1', b'"format":2'),
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

    def sync(self, path):
        """Look at what is put on the disk."""
        if path.is_dir():
            self.names = {file.name: file.stat().st_ino for file in path.iterdir()}
        else:
            self.contents[path.stat().st_ino] = path.read_bytes()

    async def cut(self):
        """Lose the rest."""
        for file in self.path.iterdir():
            file.unlink()
        written = {name: self.contents.get(number, b"") for name, number in self.names.items()}
        for name, content in written.items():
            (self.path / name).write_bytes(content)
            self.sync(self.path / name)
        self.sync(self.path)


async def open_files(path, **settings):
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
        monkeypatch.setattr(folder, "_sync", disk.sync)

        @asynccontextmanager
        async def stall():
            with Folder(str(path)).locked():
                yield

        async def dump():
            return {file.name: file.read_bytes() for file in path.glob("*")}

        return Target(
            open=partial(open_files, str(path)),
            stall=stall,
            dump=dump,
            damage={way: partial(replaced, path, *texts) for way, texts in WAYS.items()},
            power_cut=disk.cut,
            newer=partial(replaced, path, *WAYS["a newer format"]),
            declares={"outage": "files are there, or the machine is not"},
        )
