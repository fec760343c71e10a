"""Group commit in the client: what waits at the same moment travels together, in one pipelined series and one commit.

A statement is bound and executed once for each member of a group, and one Sync behind the last of them ends the
transaction that the server made of it. So a group stands as a whole, or not at all; where it does not, each member
asks alone, as if there were no groups. Whoever is alone goes alone, at once.

A group waits for no row that somebody holds: its statements skip it (`SKIP LOCKED`), and whose row that was asks alone.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from jaf_memory_core.deadline import never_sent
from jaf_memory_core.errors import MemoryError
from jaf_memory_postgres import errors
from jaf_memory_postgres.connection.execution import Connection, Work

T = TypeVar("T")

MEMBERS = 64
"""Members of a group at most."""

BYTES = 100_000
"""Bytes of a group's arguments at most.

Up to 128 KiB the driver sends all in one go. With more it waits in between, and would swallow a cancellation there.
"""

EACH = 500
"""Bytes that a member may take beside its messages: the ids, and what the protocol adds."""

FULL = 8
"""Members from which on a group is divided where there are places: one is read here while the server does the next."""

ABREAST = 4
"""Groups of a statement at once, each on a connection, and on no more than half of all of them.

While one is committed, the next is executed.
"""

OVERDUE = 0.05
"""Seconds after which a group holds no place any more: its connection may be dead, and others have theirs."""

ALONE = 2
"""Operations that go alone at the same time; from then on they look whether others come with them."""

FAILURES: tuple[type[Exception], ...] = (MemoryError, *errors.DRIVER_ERRORS)

Values = Sequence[Any]
"""The arguments of a member's statement but the last, its number, which its row says again as the last column."""


class _Member:
    """One who waits for a group."""

    __slots__ = ("answer", "group", "size", "values")

    def __init__(self, values: Values, size: int, answer: asyncio.Future[Any]) -> None:
        self.values = values
        self.size = size
        self.answer = answer
        self.group: _Group | None = None


class _Group:
    """Who travels together.

    Attributes:
        sent: whether the server may have heard of it.
        holds: whether it has one of the places.
    """

    __slots__ = ("holds", "members", "overdue", "sent", "task")

    def __init__(self, members: list[_Member]) -> None:
        self.members = members
        self.sent = False
        self.holds = True
        self.task: asyncio.Task[None] | None = None
        self.overdue: asyncio.TimerHandle | None = None


class Groups:
    """The groups of one statement.

    Args:
        statement: its text.
        run: gives a connection of its own to what sends a group.
        translate: makes an error of ours of the driver's.
        connections: how many there are for everybody.
        order: gives that of a member, by its arguments, by which they are executed; `None` leaves them as they came.

    Attributes:
        sent, carried: how many groups were answered, and their members.
    """

    def __init__(
        self,
        statement: str,
        run: Callable[[Work[Any]], Awaitable[Any]],
        translate: Callable[[Exception, str], MemoryError],
        *,
        connections: int,
        order: Callable[[Values], Any] | None = None,
    ) -> None:
        self._statement = statement
        self._run = run
        self._translate = translate
        self._order = order
        self.sent = self.carried = 0
        self._alone = 0
        self._waiting: deque[_Member] = deque()
        self._under_way: set[_Group] = set()
        self._places = max(1, min(ABREAST, connections // 2))
        self._comes = False
        self._crowded = False

    @property
    def waiting(self) -> int:
        """How many wait for a group."""
        return sum(not member.answer.done() for member in self._waiting)

    async def call(
        self,
        values: Callable[[], tuple[Values, int] | None],
        read: Callable[[Any], T | None],
        alone: Callable[[], Awaitable[T]],
    ) -> T:
        """Ask with others, or alone.

        Args:
            values: gives the arguments, and how many bytes they have beside the ids; `None` for what has to go alone.
            read: makes an answer of the member's row, or of `None` where the statement had none for it; `None` if it
                has to be asked alone. Nothing was changed where there is no row.
            alone: asks alone, on a connection of its own.
        """
        if self._crowded or self._alone >= ALONE or self._waiting or self._under_way:
            given = values()
            if given is not None:
                answered, row = await self._joined(*given)
                found = read(row) if answered else None
                if found is not None:
                    return found
        self._alone += 1
        try:
            return await alone()
        finally:
            self._alone -= 1

    async def _joined(self, values: Values, size: int) -> tuple[bool, Any]:
        """Whether a group answered, and with which row."""
        loop = asyncio.get_running_loop()
        member = _Member(values, size + EACH, loop.create_future())
        self._waiting.append(member)
        if self._places and not self._comes:
            # Not now: whoever is ready to ask, too, comes along.
            self._comes = True
            loop.call_soon(self._arrived)
        try:
            answer: tuple[bool, Any] = await member.answer
        except asyncio.CancelledError as error:
            self._left(member, error)
            raise
        return answer

    def _left(self, member: _Member, error: asyncio.CancelledError) -> None:
        """Take notice of one who gives up. A group of which nobody is left ends, on the server, too."""
        group = member.group
        if group is None or not group.sent:
            never_sent(error)
        if group is not None and group.task is not None and all(one.answer.done() for one in group.members):
            group.task.cancel()

    def _arrived(self) -> None:
        self._comes = False
        self._send()

    def _send(self) -> None:
        while self._places and self._waiting:
            members = self._next()
            self._crowded = len(members) > 1
            if self._crowded:
                self._begin(_Group(members))
            elif members:
                members[0].answer.set_result(_NONE)

    def _next(self) -> list[_Member]:
        """Those who come next, as many as a group may have; whoever has given up has left its place."""
        members: list[_Member] = []
        room = BYTES
        most = min(MEMBERS, max(FULL, -(-len(self._waiting) // self._places)))
        while self._waiting and len(members) < most:
            member = self._waiting[0]
            if not member.answer.done():
                if members and member.size > room:
                    break
                room -= member.size
                members.append(member)
            self._waiting.popleft()
        return members

    def _begin(self, group: _Group) -> None:
        for member in group.members:
            member.group = group
        self._places -= 1
        self._under_way.add(group)
        loop = asyncio.get_running_loop()
        group.overdue = loop.call_later(OVERDUE, self._give_up_place, group)
        group.task = loop.create_task(self._travel(group))

    def _give_up_place(self, group: _Group) -> None:
        if group.holds:
            group.holds = False
            self._places += 1
            self._send()

    async def _travel(self, group: _Group) -> None:
        try:
            await self._run(lambda connection: self._series(connection, group))
        except FAILURES as error:
            self._failed(group, error)
        finally:
            if group.overdue is not None:
                group.overdue.cancel()
            self._under_way.discard(group)
            # Whoever is still without an answer asks alone, where it learns what is the matter.
            _tell(group, [_NONE] * len(group.members))
            self._give_up_place(group)

    async def _series(self, connection: Connection, group: _Group) -> None:
        members = group.members = [member for member in group.members if not member.answer.done()]
        if self._order is not None:
            order = self._order
            members.sort(key=lambda member: order(member.values))
        arguments = [(*member.values, number) for number, member in enumerate(members)]
        if not arguments:
            return
        group.sent = True
        found = await connection.fetchmany(self._statement, arguments)
        self.sent += 1
        self.carried += len(members)
        answers: list[tuple[bool, Any]] = [_NO_ROW] * len(members)
        for row in found:
            answers[row[-1]] = (True, row)
        _tell(group, answers)

    def _failed(self, group: _Group, error: Exception) -> None:
        """Tell each member what it would have been told alone, unless it is known that nothing of the group stands."""
        for member in group.members:
            # One for each: whoever gets it may write into it.
            if isinstance(error, MemoryError):
                problem = copy.copy(error)
                problem.__cause__ = error.__cause__
            else:
                problem = self._translate(error, "")
                problem.__cause__ = error
            if problem.outcome == "not_applied":
                return
            if not member.answer.done():
                member.answer.set_exception(problem)


_NONE: tuple[bool, Any] = (False, None)
_NO_ROW: tuple[bool, Any] = (True, None)


def _tell(group: _Group, answers: Sequence[tuple[bool, Any]]) -> None:
    for member, answer in zip(group.members, answers, strict=True):
        if not member.answer.done():
            member.answer.set_result(answer)
