"""Everything that a provider promises, on files."""

from contextlib import asynccontextmanager
from functools import partial

import pytest
from jaf_memory_files import FilesBackend, FilesConfig
from jaf_memory_files.folder import Folder
from jaf_memory_testing import ProviderConformance, Target

from jaf_memory_core import BackendProvider


async def open_files(path, **settings):
    """Open a provider on a folder; the kit's other processes call this too."""
    config = FilesConfig(path=path, **settings)
    return BackendProvider(FilesBackend(config), config)


class TestFiles(ProviderConformance):
    """The whole kit."""

    @pytest.fixture
    def target(self, tmp_path):
        """A new folder for each check."""
        path = tmp_path / "conversations"
        path.mkdir()

        @asynccontextmanager
        async def stall():
            with Folder(str(path)).locked():
                yield

        async def dump():
            return {file.name: file.read_bytes() for file in path.iterdir()}

        return Target(
            open=partial(open_files, str(path)),
            stall=stall,
            dump=dump,
            declares={"outage": "files are there, or the machine is not"},
        )
