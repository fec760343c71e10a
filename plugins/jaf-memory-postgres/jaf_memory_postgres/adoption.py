"""Moving in: the conversations of a table that stands under our name in an older layout.

One transaction sets the older table aside under another name and makes our layout. Small ones follow, each of which
copies a few conversations, reads them back, compares digests, and notes how far it came; so that this can be stopped
anywhere and goes on there. The provider refuses to start until the last is done, so that nobody writes meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import asyncpg

from jaf_memory_core import codec, validation
from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.errors import (
    MemoryConfigurationError,
    MemoryError,
    MemoryInvalidInputError,
    MemoryStorageError,
)
from jaf_memory_core.maintenance import Adopted
from jaf_memory_core.messages import Message
from jaf_memory_core.processors import Chain
from jaf_memory_core.records import Record, new_incarnation
from jaf_memory_core.settings import ProviderConfig
from jaf_memory_core.statements import quoted
from jaf_memory_core.transfer.jsonlines import derived_id
from jaf_memory_postgres import migrations, remains
from jaf_memory_postgres.connection.execution import Connection, transaction
from jaf_memory_postgres.migrations import rights
from jaf_memory_postgres.migrations.older import is_older
from jaf_memory_postgres.names import Names
from jaf_memory_postgres.operations.reads import Reader
from jaf_memory_postgres.operations.writes import Writer

STEP = 50
"""Conversations that one transaction moves."""

Apart = Callable[[Callable[[Connection], Awaitable[Any]]], Awaitable[Any]]


class Progress(NamedTuple):
    """How far an adoption came; the row of the table `adoption`."""

    source: str
    total: int
    last: str | None
    moved: int
    refused: int
    done: bool


class Adoption:
    """The steps, each to be run in a transaction of its own.

    Args:
        names: our names.
        config: limits for what is moved in.

    Attributes:
        notes: what the operator has to know of what was set aside.
    """

    def __init__(self, names: Names, config: ProviderConfig) -> None:
        self._names = names
        self._sql = names.sql
        # A cap would leave out what the older table holds.
        self._config = config.model_copy(update={"max_messages": None})
        self._aside = names.plain("before")
        self.notes: list[str] = []

    async def begin(self, connection: Connection) -> Progress | None:
        """Set the older table aside and make our layout, or find how far an earlier run came; `None`: nothing older."""
        # The lock of the migrations: of two runs that begin at once, the second finds what the first has noted.
        await connection.execute(migrations.locking(self._names))
        progress = await self._progress(connection)
        if progress is not None:
            await connection.execute(self._sql["identify_adoption"])
            removed = progress.done and not await self._stands(connection, self._aside)
            return None if removed else progress
        found = await migrations.look(connection, self._names)
        if found.version or found.standing is None:
            return None
        older = is_older(json.loads(found.columns or "{}")) if found.standing in ("r", "p") else None
        if older is None:
            raise MemoryConfigurationError(
                f"what stands under {self._names.table!r} is in no layout that jaf-memory knows; nothing was changed",
                provider="postgres",
            )
        if await self._stands(connection, self._aside):
            raise MemoryConfigurationError(
                f"{self._aside!r}, under which the older table would be kept, stands already; rename that one",
                provider="postgres",
            )
        await self._set_aside(connection)
        await migrations.apply(connection, self._names)
        await self._grant(connection)
        await connection.execute(self._sql["create_adoption"])
        await connection.execute(self._sql["grant_adoption"])
        await connection.execute(self._sql["insert_adoption"], older)
        return await self._progress(connection)

    async def _set_aside(self, connection: Connection) -> None:
        await connection.execute(self._sql["lock_timeout"])
        try:
            await connection.execute(self._sql["set_aside"])
        except asyncpg.LockNotAvailableError:
            raise MemoryStorageError(
                f"the table {self._names.table!r} is in use, and was left as it is; adopt it when nobody reads it",
                operation="adopt",
                retryable=True,
            ) from None

    async def _grant(self, connection: Connection) -> None:
        """Give who had rights on the older table those that are like them on ours."""
        before = quoted(self._names.schema, self._aside)
        for one in await rights.carry(connection, self._names, "before"):
            can = "write conversations" if one.writes else "read the view"
            self.notes.append(f"{one.grantee} had rights on the older table, and may {can} now")
        for row in await connection.fetch(self._sql["older_followers"], before):
            self.notes.append(f"the {row['follower']} follows the older table, now {self._aside!r}; let it use another")

    async def _stands(self, connection: Connection, relation: str) -> bool:
        stands: bool = await connection.fetchval(self._sql["adoption_stands"], self._names.schema, relation)
        return stands

    async def _progress(self, connection: Connection) -> Progress | None:
        if not await self._stands(connection, self._names.plain("adoption")):
            return None
        return Progress(*await connection.fetchrow(self._sql["adoption_progress"]))

    async def step(self, connection: Connection) -> tuple[Progress, list[Adopted]]:
        """Move the next few."""
        progress = await self._progress(connection)
        assert progress is not None  # `begin` made it
        older = self._sql["older_documented" if progress.source == "documented" else "older_jaf_py"]
        listed = await connection.fetch(older, progress.last, STEP)
        now = await connection.fetchval("SELECT clock_timestamp()")
        steps = [await self._one(connection, row, now, progress.total) for row in listed]
        last = listed[-1]["conversation_id"] if listed else None
        done = len(listed) < STEP
        moved = sum(step.outcome == "moved" for step in steps)
        if done:
            steps += [_repeated(row, progress.total) for row in await connection.fetch(self._sql["older_repeated"])]
        # In the transaction of the copies: a run that is killed leaves both or neither.
        await connection.execute(self._sql["advance_adoption"], last, moved, len(steps) - moved, done)
        after = await self._progress(connection)
        assert after is not None  # it stands
        return after, steps

    async def _one(self, connection: Connection, row: Any, now: datetime, total: int) -> Adopted:
        key = row["conversation_id"]
        try:
            record = self._record(row, now)
        except (MemoryError, *_ODD) as error:
            return Adopted("refused", key, _plainly(error), total)
        # A row that the server refuses ends the transaction, and would take those before it along.
        await connection.execute("SAVEPOINT one")
        try:
            put = await Writer(connection, self._sql).put(record, None)
        except _REFUSALS as error:
            await connection.execute("ROLLBACK TO one")
            return Adopted("refused", key, f"the server refused it ({error.sqlstate})", total)
        if not put:
            return Adopted("refused", key, "a conversation of that id stands in the new tables already", total)
        found = await Reader(self._sql).read(connection, key)
        if found is None or _digest(found.record) != _digest(record):
            # Raised, so that all of this transaction is undone.
            raise MemoryStorageError(f"conversation {key!r} reads back otherwise than it was moved", operation="adopt")
        return Adopted("moved", key, total=total)

    def _record(self, row: Any, now: datetime) -> Record:
        """A row of the older table as ours.

        Raises:
            MemoryInvalidInputError: it holds what the contract forbids; the text repeats no content.
        """
        key = validation.checked_id(row["conversation_id"], "conversation_id")
        bodies, given = json.loads(row["messages"] or "[]"), json.loads(row["metadata"] or "{}")
        if not isinstance(bodies, list) or not isinstance(given, dict):
            raise MemoryInvalidInputError("messages must be an array and metadata an object")
        if row.get("has_odd_time"):
            raise MemoryInvalidInputError("created_at or updated_at lies before Christ or after the year 9999")
        messages = [_message(key, position, body) for position, body in enumerate(bodies)]
        batch = validation.batch(messages, self._config, Chain(()))
        labels = validation.labels(given, row["user_id"], self._config, Chain(()))
        created = row.get("created_at") or _moment(given.get("created_at")) or now
        updated = row.get("updated_at") or _moment(given.get("updated_at")) or created
        return Record(
            conversation_id=key,
            incarnation=new_incarnation(),
            version=1,
            created_at=created,
            updated_at=max(created, updated),
            user_id=labels.user_id,
            messages=batch.messages,
            metadata=labels.metadata,
            message_count=len(batch.messages),
        )

    @property
    def aside(self) -> str:
        """The name under which the older table is kept."""
        return self._aside


_REFUSALS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
"""What the server answers where the trouble is the row itself."""

_ODD = (ValueError, OverflowError, RecursionError, TypeError)
"""What reading an odd row may come to: numbers and nesting beyond Python, dates beyond its calendar, a field `self`."""


def _plainly(error: Exception) -> str:
    """Why a row was refused, without its content: what is not ours may quote it."""
    return str(error) if isinstance(error, MemoryError) else f"its content cannot be read ({type(error).__name__})"


def _repeated(row: Any, total: int) -> Adopted:
    """What is told of the rows of an older table that no key holds apart."""
    key, count = row["conversation_id"], row["rows"]
    if key is None:
        return Adopted("refused", "", f"{count} rows have no conversation_id", total)
    return Adopted("refused", key, f"{count} rows have that conversation_id, of which one was looked at", total)


def _message(key: str, position: int, body: Any) -> Message:
    if not isinstance(body, dict):
        raise MemoryInvalidInputError(f"messages[{position}] must be an object")
    given = body if body.get("message_id") is not None else {**body, "message_id": derived_id(key, position)}
    return Message(**given)


def _moment(text: Any) -> datetime | None:
    """A time that jaf-py wrote into the metadata, local where it says no zone."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def _digest(record: Record) -> str:
    return codec.digest(
        ConversationMemory.trusted(
            conversation_id=record.conversation_id,
            user_id=record.user_id,
            messages=record.messages,
            metadata=record.metadata,
        )
    )


async def adopt(apart: Apart, names: Names, config: ProviderConfig, *, remove: bool) -> AsyncGenerator[Adopted, None]:
    """Move everything, in steps.

    Args:
        apart: runs work on a connection that is made for it.
        names: our names.
        config: limits for what is moved in.
        remove: drop the older table in the end, if nothing was refused.

    Raises:
        MemoryConfigurationError: what stands there is in no known layout, or its later name is taken.
        MemoryStorageError: a conversation reads back otherwise than it was moved; its step was undone.
    """
    adoption = Adoption(names, config)
    progress = await apart(lambda connection: transaction(connection, lambda: adoption.begin(connection)))
    if progress is None:
        yield Adopted("note", text=f"no older table stands under {names.table!r}; there is nothing to move")
        return
    yield Adopted("note", text=_beginning(progress, names, adoption.aside), total=progress.total)
    for note in adoption.notes:
        yield Adopted("note", text=note)
    while not progress.done:
        progress, steps = await apart(lambda connection: transaction(connection, lambda: adoption.step(connection)))
        for step in steps:
            yield step
    if remove and not progress.refused:
        yield Adopted("note", text=await apart(lambda connection: remains.drop(connection, names)))
        return
    kept = f", because {progress.refused} of its conversations were refused" if remove else ""
    yield Adopted(
        "note",
        text=f"the older table is kept, as {adoption.aside!r} in schema {names.schema!r}{kept}; `jaf-memory adopt "
        "--finish` drops it when it is of no more use",
    )


def _beginning(progress: Progress, names: Names, aside: str) -> str:
    what = {"documented": "the documented layout", "jaf-py": "the layout of jaf-py 2.6"}[progress.source]
    text = f"{names.table!r} was a table in {what} with {progress.total} conversations; it is {aside!r} now"
    return f"{text}; {progress.moved} had been moved before" if progress.moved else text
