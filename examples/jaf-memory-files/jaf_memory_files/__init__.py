"""The provider `files` of jaf-memory: conversations as JSON files, one each.

A backend says where conversations are kept, and nothing else. Four methods are asked for; all other operations of a
provider (append, search, statistics, expiry, …) have a correct default over them. `write` and `delete` act only on the
very state that their caller has seen, and that is what makes the defaults safe among tasks, threads and processes.

Lines that begin with `Replace` say what is to be put in place of the files when conversations are kept elsewhere.
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import AsyncIterator
from datetime import datetime
from operator import itemgetter

from jaf_memory_core import MemoryQuery, ProviderConfig, rules
from jaf_memory_core.backend import Backend
from jaf_memory_core.documents import decode_record, encode_record, listed_record
from jaf_memory_core.hooks import ProviderSpec, hookimpl
from jaf_memory_core.records import Damaged, Record, Stamp

from .folder import Folder


class FilesConfig(ProviderConfig):
    """Settings: `path` is `JAF_FILES_PATH`; what every provider can be told is inherited."""

    env_prefix = "JAF_FILES_"

    # Replace: what your driver has to be told. Each field is a variable; what is secret is a `SecretStr`.
    path: str = "conversations"
    """The folder of the files; it is made when it is missing."""


class FilesBackend(Backend):
    """One file a conversation, in a folder that any number of processes may share."""

    name = "files"
    # Replace: `driver_errors = (…,)` names what your driver raises, and `translate` turns it into our errors. The
    # defaults are right for files. A driver that awaits needs no `to_thread`: no method may block the event loop.

    def __init__(self, config: FilesConfig) -> None:
        self._folder = Folder(config.path)

    # Replace: connect in `open`, let go of everything in `close`; files need no more than their folder.
    async def open(self) -> None:
        """Make the folder."""
        await to_thread(self._folder.make)

    async def read(self, conversation_id: str) -> Record | None:
        """The record."""
        return await to_thread(self._load, conversation_id)

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        """Put the record in the place of the one at `expected`."""
        return await to_thread(self._swap, record.conversation_id, expected, encode_record(record))

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        """Remove the record at `expected`."""
        return await to_thread(self._swap, conversation_id, expected, None)

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record | Damaged]:
        """What is damaged, then records in order of creation, one in memory at a time; the provider filters them."""
        above = rules.creation_cursor(query)
        for key, damaged in await to_thread(self._places):
            found = damaged or await self.read(key[1]) if above is None or key > above else None
            if found and rules.creation_key(found) == key:  # otherwise it was deleted, and made again
                yield found

    # Replace: an index by (`created_at`, `conversation_id`), so that a scan does not read everything before it begins.
    def _places(self) -> list[tuple[tuple[datetime, str], Damaged | None]]:
        listed = (listed_record(content, key) for key, content in self._folder.contents())
        places = ((rules.creation_key(one), one if isinstance(one, Damaged) else None) for one in listed)
        return sorted(places, key=itemgetter(0))

    def _load(self, conversation_id: str) -> Record | None:
        content = self._folder.get(conversation_id)
        return None if content is None else decode_record(content, conversation_id)

    # Replace: compare and swap by your store's own means (a transaction, `UPDATE … WHERE version = …`), and by no lock.
    def _swap(self, conversation_id: str, expected: Stamp | None, content: bytes | None) -> bool:
        with self._folder.locked():
            standing = self._load(conversation_id)
            if (standing and standing.stamp) != expected:
                return False
            self._folder.put(conversation_id, content)
            return True


@hookimpl
def jaf_memory_provider() -> ProviderSpec:
    """Describe the provider named `files`; the entry point in `pyproject.toml` leads here."""
    return ProviderSpec(
        "files",
        FilesConfig,
        FilesBackend,
        # Replace: what an operator should know of your store before trusting it.
        persistence="in files, on disk when a write has succeeded: they survive a crash of the machine",
        summary="one JSON file a conversation",
    )
