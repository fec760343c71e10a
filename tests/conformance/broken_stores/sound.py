"""Sound stores, as small as can be, and the table of the broken ones that are made of them."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from jaf_memory_testing import ProviderConformance, SixMethodConformance, Target

from jaf_memory_core import (
    BackendProvider,
    ConversationMemory,
    Failure,
    MemoryError,
    MemoryNotFoundError,
    MemoryQuery,
    Message,
    ProviderConfig,
    Result,
    Success,
    WriteResult,
    documents,
    pages,
    rules,
    validation,
)
from jaf_memory_core.backend import Backend
from jaf_memory_core.processors import Chain
from jaf_memory_core.records import Page, Record, Revise, Stamp, Tail, Write

BROKEN: dict[type[Any], str] = {}
"""Each broken store, and the check that names its fault."""

K = TypeVar("K", bound=type[Any])

Change = Callable[[Record | None, Write, datetime], tuple[Record, WriteResult]]


def caught_by(check: str) -> Callable[[K], K]:
    """Enter a broken store into the table."""

    def enter(store: K) -> K:
        BROKEN[store] = check
        return store

    return enter


class Plain(Backend):
    """A dict of records, and the defaults of `Backend` for the rest."""

    name = "plain"
    conformance: ClassVar[type[Any]] = ProviderConformance

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self._clock = datetime.fromtimestamp(0, UTC)
        self.stalled = self.away = False

    @classmethod
    def target(cls, _folder: Path) -> Target:
        """A fresh store."""
        store = cls()
        return Target(open=partial(cls._open, store), dump=store.dump, stall=store.stall, outage=store.outage)

    @staticmethod
    async def _open(backend: Plain, **settings: Any) -> BackendProvider:
        return BackendProvider(backend.connection(), ProviderConfig(**settings))

    async def dump(self) -> Any:
        """All that is kept."""
        return repr({name: value for name, value in vars(self).items() if isinstance(value, dict | list)})

    @asynccontextmanager
    async def stall(self) -> AsyncIterator[None]:
        """Answer nothing."""
        self.stalled = True
        yield
        self.stalled = False

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """Be away."""
        self.away = True
        yield
        self.away = False

    async def reach(self) -> None:
        """Go to the store, and come back."""
        await asyncio.sleep(0)
        while self.stalled:  # noqa: ASYNC110  (an event belongs to one loop)
            await asyncio.sleep(0.01)
        if self.away:
            raise ConnectionRefusedError

    def connection(self) -> Backend:
        """What one provider works with."""
        return self

    def now(self) -> datetime:
        self._clock = max(datetime.now(UTC), self._clock + timedelta(microseconds=1))
        return self._clock

    async def read(self, conversation_id: str) -> Record | None:
        await self.reach()
        return self.records.get(conversation_id)

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        await self.reach()
        standing = self.records.get(record.conversation_id)
        if (standing and standing.stamp) != expected:
            return False
        self.records[record.conversation_id] = record
        return True

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        await self.reach()
        standing = self.records.get(conversation_id)
        if standing is None or standing.stamp != expected:
            return False
        del self.records[conversation_id]
        return True

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        await self.reach()
        above = rules.creation_cursor(query)
        for key in sorted(map(rules.creation_key, self.records.values())):
            record = self.records.get(key[1])
            if record and rules.creation_key(record) == key and (above is None or key > above):
                yield record

    async def by(self, write: Write, change: Change) -> WriteResult:
        """A write by other rules than the right ones."""
        answers: list[WriteResult] = []

        def changed(record: Record | None, now: datetime) -> Record:
            after, answer = change(record, write, now)
            answers.append(answer)
            return after

        await self._change(write.conversation_id, changed)
        return answers[-1]


class Paged(Plain):
    """A plain store that has pages and revisions of its own."""

    async def revise(self, revise: Revise) -> int:
        return await super().revise(revise)

    async def tail(self, tail: Tail) -> Page | None:
        record = rules.seen(await self.read(tail.conversation_id), self.now(), tail.scope)
        return pages.page(record, tail) if record else None


class Provider(BackendProvider):
    """A provider over a plain store, to be broken above the backend."""

    conformance: ClassVar[type[Any]] = ProviderConformance

    @classmethod
    def target(cls, _folder: Path) -> Target:
        """A fresh store."""
        return Target(open=partial(cls._opened, Plain()))

    @classmethod
    async def _opened(cls, backend: Backend, **settings: Any) -> Provider:
        return cls(backend, ProviderConfig(**settings))


class Filed(Backend):
    """One file for all records, under a lock: a store that processes share."""

    name = "filed"
    conformance: ClassVar[type[Any]] = ProviderConformance

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    @classmethod
    def target(cls, folder: Path) -> Target:
        """A file in the folder."""
        return Target(open=partial(_open_filed, cls, str(folder / "records")))

    def load(self) -> dict[str, Record]:
        """All records."""
        lines = self.file.read_bytes().splitlines() if self.file.exists() else []
        return {record.conversation_id: record for record in map(documents.decode_record, lines)}

    def swap(self, conversation_id: str, expected: Stamp | None, record: Record | None) -> bool:
        """Put a record in the place of another, or nothing."""
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            records = self.load()
            standing = records.pop(conversation_id, None)
            if (standing and standing.stamp) != expected:
                return False
            self.save([*records.values(), *([record] if record else [])])
            return True

    def save(self, records: list[Record]) -> None:
        """Replace the file."""
        fresh = self.file.with_suffix(".fresh")
        fresh.write_bytes(b"\n".join(map(documents.encode_record, records)))
        fresh.replace(self.file)

    async def read(self, conversation_id: str) -> Record | None:
        return self.load().get(conversation_id)

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        return self.swap(record.conversation_id, expected, record)

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        return self.swap(conversation_id, expected, None)

    async def scan(self, query: MemoryQuery) -> AsyncIterator[Record]:
        above = rules.creation_cursor(query)
        for record in sorted(self.load().values(), key=rules.creation_key):
            if above is None or rules.creation_key(record) > above:
                yield record


async def _open_filed(kind: type[Filed], file: str, **settings: Any) -> BackendProvider:
    return BackendProvider(kind(file), ProviderConfig(**settings))


class Six:
    """A class with just the six documented methods, over a dict."""

    conformance: ClassVar[type[Any]] = SixMethodConformance

    def __init__(self) -> None:
        self.kept: dict[str, ConversationMemory] = {}

    @classmethod
    def target(cls, _folder: Path) -> Target:
        """A fresh store."""
        return Target(open=partial(cls._open, cls()))

    @staticmethod
    async def _open(provider: Six, **_settings: Any) -> Six:
        return provider

    async def store_messages(self, conversation_id: str, messages: Any, metadata: Any = None) -> Result:
        try:
            return self._put(validation.checked_id(conversation_id, "conversation_id"), messages, metadata, ())
        except MemoryError as error:
            return Failure(error)

    async def append_messages(self, conversation_id: str, messages: Any, metadata: Any = None) -> Result:
        try:
            if validation.checked_id(conversation_id, "conversation_id") not in self.kept:
                raise MemoryNotFoundError(conversation_id)
            return self._put(conversation_id, messages, metadata, self.kept[conversation_id].messages)
        except MemoryError as error:
            return Failure(error)

    def _put(self, conversation_id: str, given: Any, metadata: Any, held: tuple[Message, ...]) -> Result:
        batch = validation.batch([*held, *given], ProviderConfig(), Chain(()))
        labels = validation.labels(metadata, None, ProviderConfig(), Chain(()))
        known = self.kept.get(conversation_id, ConversationMemory(conversation_id))
        merged = {**known.metadata, **labels.metadata}
        added = len(batch.messages) - len(held)
        user = known.user_id or labels.user_id
        if labels.user_id not in (None, user):
            raise rules.other_owner(conversation_id)
        if held and given and not added:
            return Success(WriteResult(0, len(held), 0))  # a retry, which changes nothing
        if user is not None:
            merged["user_id"] = user
        self.kept[conversation_id] = ConversationMemory(conversation_id, user, batch.messages, merged)
        return Success(WriteResult(0, len(batch.messages), added))

    async def get_conversation(self, conversation_id: str) -> ConversationMemory | None:
        return self.kept.get(validation.checked_id(conversation_id, "conversation_id"))

    async def get_recent_messages(self, conversation_id: str, limit: int = 50) -> list[Message]:
        if validation.checked_id(conversation_id, "conversation_id") not in self.kept:
            raise MemoryNotFoundError(conversation_id)
        messages = self.kept[conversation_id].messages
        return list(messages[max(0, len(messages) - limit) :])

    async def delete_conversation(self, conversation_id: str) -> bool:
        return self.kept.pop(validation.checked_id(conversation_id, "conversation_id"), None) is not None

    async def health_check(self) -> dict[str, Any]:
        return {"healthy": True}
