"""Erasing, under the header's lock: one conversation, those of a user, those that have expired."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from jaf_memory_core import rules
from jaf_memory_core.records import Record, Stamp
from jaf_memory_postgres import rows
from jaf_memory_postgres.connection.execution import Connection
from jaf_memory_postgres.names import Names

logger = logging.getLogger("jaf_memory_postgres")

STEP = 500
"""Conversations of a user that one transaction deletes."""


_KEEPS = (asyncpg.InsufficientPrivilegeError, asyncpg.IntegrityConstraintViolationError, asyncpg.RaiseError)
"""How the server says that the older table keeps a row: by its rights, its followers, or a trigger of its own."""


class Older:
    """The older table that an adoption has kept: what is erased goes from there in the same transaction.

    Args:
        names: our names.

    Attributes:
        stands: whether it is there.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self.stands = False

    async def erase(self, connection: Connection, name: str, *values: Any, lock: str | None = None) -> None:
        """Run one of its statements in a transaction; where that cannot be, say so.

        Args:
            connection: in a transaction.
            name: of the statement.
            values: whose, or which.
            lock: of the statement that locks what goes, in order, where that may be several.
        """
        if not self.stands:
            return
        # Its own owner may refuse us, which must not undo the rest.
        await connection.execute("SAVEPOINT older")
        try:
            if lock is not None:
                await self._lock(connection, lock, values)
            await connection.execute(self._names.sql[name], *values)
        except asyncpg.UndefinedTableError:
            self.stands = False
            await connection.execute("ROLLBACK TO older")
        except _KEEPS as error:
            await connection.execute("ROLLBACK TO older")
            logger.warning(
                "what is erased still stands in the older table %r, from which this role cannot delete it (%s); "
                "`jaf-memory adopt --finish` drops that table",
                self._names.plain("before"),
                error.sqlstate,
            )

    async def _lock(self, connection: Connection, name: str, values: Sequence[Any]) -> None:
        try:
            await connection.execute(self._names.sql[name], *values)
        except asyncpg.InsufficientPrivilegeError:
            # To lock it wants the right to UPDATE; to have gone matters more than in which order.
            await connection.execute("ROLLBACK TO older")


class Locked(NamedTuple):
    """A conversation under its lock.

    Attributes:
        key: id of its header row, or `None` where none stands.
        header: its header, expired or not, or `None`.
        now: the server's time, taken behind the lock.
    """

    key: int | None
    header: Record | None
    now: datetime

    @property
    def live(self) -> Record | None:
        """The header, or `None` if it has expired."""
        return rules.live(self.header, self.now)


class Eraser:
    """The removals of one transaction.

    Args:
        connection: in a transaction.
        sql: the statements.
        older: where what is erased may stand as well.
    """

    def __init__(self, connection: Connection, sql: Mapping[str, str], older: Older | None = None) -> None:
        self._connection = connection
        self._sql = sql
        self._older = older

    async def lock(self, conversation_id: str) -> Locked:
        """Take the header's lock, or find that there is none."""
        row = await self._connection.fetchrow(self._sql["lock"], conversation_id)
        if row["id"] is None:
            return Locked(None, None, row["now"])
        return Locked(row["id"], rows.header(row), row["now"])

    async def remove(self, conversation_id: str, scope: str | None, expected_version: int | None = None) -> bool:
        """Delete a conversation, damaged or not; whether it was there.

        Raises:
            MemoryConflictError: it is at another version than the expected one; nothing is deleted.
        """
        # Not by `lock`, which reads the header: one that cannot be read must be erasable.
        row = await self._connection.fetchrow(self._sql["lock"], conversation_id)
        alive = row["id"] is not None and (row["expires_at"] is None or row["expires_at"] > row["now"])
        if alive and scope in (None, row["user_id"]):
            rules.expect_version(conversation_id, expected_version, row["version"])
        # Also where nothing stands here: an adoption may have refused it, or it has expired and was purged since.
        if self._older is not None:
            await self._older.erase(self._connection, "erase_before", conversation_id, scope)
        if row["id"] is None or scope not in (None, row["user_id"]):
            return False
        await self.erase([row["id"]])
        return bool(alive)

    async def remove_at(self, conversation_id: str, expected: Stamp) -> bool:
        """Delete the conversation that stands at `expected`."""
        locked = await self.lock(conversation_id)
        if locked.key is None or locked.header is None or locked.header.stamp != expected:
            return False
        await self.erase([locked.key])
        return True

    async def remove_of_user(self, user_id: str, last: int, limit: int) -> tuple[int, int]:
        """Delete up to `limit` conversations of a user, up to that header row: how many, and how many were live."""
        found = await self._connection.fetch(self._sql["lock_of_user"], user_id, last, limit)
        await self.erase([row[0] for row in found])
        return len(found), sum(row[1] for row in found)

    async def purge(self, limit: int, scope: str | None) -> int:
        """Delete up to `limit` expired conversations that nobody is writing to."""
        found = await self._connection.fetch(self._sql["lock_expired"], scope, limit)
        await self.erase([row[0] for row in found])
        return len(found)

    async def erase(self, keys: list[int]) -> None:
        """Remove conversations whose headers are locked: messages first, in statements that see all of them."""
        if keys:
            await self._connection.execute(self._sql["delete_messages"], keys)
            gone = await self._connection.fetch(self._sql["delete_headers"], keys)
            if self._older is not None:
                ids, owners = [row[0] for row in gone], [row[1] for row in gone]
                await self._older.erase(self._connection, "erase_with", ids, owners, lock="lock_with")

    async def erase_older(self, user_id: str) -> None:
        """Remove what the older table holds of a user."""
        if self._older is not None:
            await self._older.erase(self._connection, "erase_user_before", user_id, lock="lock_user_before")

    async def _cut(self, key: int, first: int, end: int) -> int:
        removed: int = await self._connection.fetchval(self._sql["cut"], key, first, end)
        return removed
