"""Group commit in the client: what waits at the same moment travels together, in one statement and one commit.

A statement is executed for all members of a group at once. So a group stands as a whole, or not at all; where it does
not, each member asks alone, as if there were no groups. Whoever is alone goes alone, at once.

A group waits for no row that somebody holds: its statement skips it (`SKIP LOCKED`), and whose row that was asks alone.
What is asked of one and the same conversation while a group, or one alone, is at it, waits for their end, and then
travels together, too.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, TypeVar

from jaf_memory_core.deadline import never_sent
from jaf_memory_core.errors import MemoryError
from jaf_memory_postgres import errors
from jaf_memory_postgres.connection.execution import Connection, Run

Q = TypeVar("Q")

MEMBERS = 64
"""Members of a group at most."""

BYTES = 100_000
"""Bytes of a group's arguments at most."""

EACH = 500
"""Bytes that a member may take beside its messages: the ids, and what the protocol adds."""

FULL = 16
"""Members, each of something else, with which a group goes at once where there is a place.

The server then does it while here the next are made ready, or those of the one before are read.
"""

ABREAST = 4
"""Groups of a statement at once, each on a connection, and on no more than half of all of them.

While one is committed, the next is executed.
"""

OVERDUE = 0.05
"""Seconds after which a group holds no place any more, and nobody back from its conversation.

Its connection may be dead, and others have theirs; or somebody else holds the row.
"""

ALONE = 2
"""Operations that go alone at the same time; from then on they look whether others come with them."""

FAILURES: tuple[type[Exception], ...] = (MemoryError, *errors.DRIVER_ERRORS)


class _Member(Generic[Q]):
    """One who waits for a group.

    Attributes:
        key: of what it asks for, where no two groups may be at that.
        late: whether it has waited for that long enough.
    """

    __slots__ = ("answer", "group", "key", "late", "request", "size")

    def __init__(self, request: Q, size: int, key: Hashable, answer: asyncio.Future[Any]) -> None:
        self.request = request
        self.size = size
        self.key = key
        self.answer = answer
        self.late = False
        self.group: _Group[Q] | None = None


class _Group(Generic[Q]):
    """Who travels together.

    Attributes:
        keys: of what they are at, each with the first who is.
        sent: whether the server may have heard of it.
        holds: whether it has one of the places.
    """

    __slots__ = ("holds", "keys", "members", "overdue", "sent", "task")

    def __init__(self) -> None:
        self.members: list[_Member[Q]] = []
        self.keys: dict[Hashable, _Member[Q]] = {}
        self.sent = False
        self.holds = True
        self.task: asyncio.Task[None] | None = None
        self.overdue: asyncio.TimerHandle | None = None


class Groups(Generic[Q]):
    """The groups of one statement.

    Args:
        ask: executes it for all members at once, and gives an answer for each; `None` for one for which nothing was
            changed, and which has to be asked alone.
        fits: the bytes of a request; `None` if it has to go alone.
        run: gives a connection of its own to what sends a group.
        translate: makes an error of ours of the driver's.
        connections: how many there are for everybody.
        key: that of a request, by which no two groups are at the same; `None` if they may.
        joins: whether two requests of one key may travel in one group.

    Attributes:
        sent, carried: how many groups were answered, and their members.
    """

    def __init__(
        self,
        ask: Callable[[Connection, Sequence[Q]], Awaitable[Sequence[Any]]],
        fits: Callable[[Q], int | None],
        run: Run,
        translate: Callable[[Exception, str], MemoryError],
        *,
        connections: int,
        key: Callable[[Q], Hashable] | None = None,
        joins: Callable[[Q, Q], bool] | None = None,
    ) -> None:
        self._ask = ask
        self._fits = fits
        self._run = run
        self._translate = translate
        self._key = key
        self._joins = joins
        self.sent = self.carried = 0
        self._alone = 0
        self._waiting: deque[_Member[Q]] = deque()
        self._busy: dict[Hashable, int] = {}
        self._parked: dict[Hashable, tuple[list[_Member[Q]], asyncio.TimerHandle]] = {}
        self._under_way: set[_Group[Q]] = set()
        self._places = max(1, min(ABREAST, connections // 2))
        self._comes = False
        self._crowded = False
        self._sending = False

    @property
    def waiting(self) -> int:
        """How many wait for a group."""
        parked = sum(not member.answer.done() for members, _ in self._parked.values() for member in members)
        return parked + sum(not member.answer.done() for member in self._waiting)

    def is_busy(self, key: Hashable = None) -> bool:
        """Whether others are about, so that whoever asks now, and `join`s them, waits for next to nothing."""
        return bool(self._crowded or self._alone >= ALONE or self._waiting or self._under_way or key in self._busy)

    async def join(self, request: Q) -> Any:
        """Ask with others; the answer, or `None` if it has to be asked alone."""
        size = self._fits(request)
        if size is None:
            return None
        key = None if self._key is None else self._key(request)
        member = _Member(request, size + EACH, key, asyncio.get_running_loop().create_future())
        self._waiting.append(member)
        if len(self._waiting) >= FULL:
            # Now: the server begins while the next of those who are ready are still being read here.
            self._send()
        self._expect()
        try:
            return await member.answer
        except asyncio.CancelledError as error:
            self._left(member, error)
            raise

    def begin(self, key: Hashable = None) -> None:
        """Take notice of one who asks alone; `end` follows."""
        self._alone += 1
        if key is not None:
            self._busy[key] = self._busy.get(key, 0) + 1

    def end(self, key: Hashable = None) -> None:
        """One who asked alone has been answered, or has given up."""
        self._alone -= 1
        if key is not None:
            self._leave(key)

    def _expect(self) -> None:
        """Send what waits; not now, for whoever is ready to ask, too, comes along."""
        if self._places and self._waiting and not self._comes:
            self._comes = True
            asyncio.get_running_loop().call_soon(self._arrived)

    def _left(self, member: _Member[Q], error: asyncio.CancelledError) -> None:
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
        # A group that ends as it begins, as on a closed pool, comes back here: within each other many are too deep.
        if self._sending:
            return
        self._sending = True
        try:
            while self._places and self._waiting:
                group = self._next()
                self._crowded = len(group.members) > 1
                if self._crowded:
                    self._begin(group)
                elif group.members:
                    group.members[0].answer.set_result(None)
        finally:
            self._sending = False

    def _next(self) -> _Group[Q]:
        """Those who come next, as many as a group may have; whoever has given up has left its place."""
        group: _Group[Q] = _Group()
        members, keys = group.members, group.keys
        room = BYTES
        # Who joins another costs the server next to nothing, and so does not count.
        most = max(FULL, -(-len(self._waiting) // self._places))
        while self._waiting and len(members) < MEMBERS and most:
            member = self._waiting[0]
            if not member.answer.done():
                key = member.key
                first = None if key is None else keys.get(key)
                if (first is None and key in self._busy and not member.late) or (
                    first is not None and not (self._joins and self._joins(first.request, member.request))
                ):
                    self._park(self._waiting.popleft())
                    continue
                if members and member.size > room:
                    break
                room -= member.size
                members.append(member)
                if first is None:
                    most -= 1
                    if key is not None:
                        keys[key] = member
            self._waiting.popleft()
        return group

    def _park(self, member: _Member[Q]) -> None:
        """Let one wait until nobody is at what it asks for, but not for long."""
        parked = self._parked.get(member.key)
        if parked is None:
            timer = asyncio.get_running_loop().call_later(OVERDUE, self._too_long, member.key)
            self._parked[member.key] = [member], timer
        else:
            parked[0].append(member)

    def _too_long(self, key: Hashable) -> None:
        members, _ = self._parked.pop(key)
        for member in members:
            member.late = True
        self._return(members)

    def _leave(self, key: Hashable) -> None:
        """One less is at it."""
        left = self._busy[key] - 1
        if left:
            self._busy[key] = left
            return
        del self._busy[key]
        if key in self._parked:
            members, timer = self._parked.pop(key)
            timer.cancel()
            self._return(members)

    def _return(self, members: list[_Member[Q]]) -> None:
        self._waiting.extendleft(reversed(members))
        self._expect()

    def _begin(self, group: _Group[Q]) -> None:
        for member in group.members:
            member.group = group
        for key in group.keys:
            self._busy[key] = self._busy.get(key, 0) + 1
        self._places -= 1
        self._under_way.add(group)
        group.overdue = asyncio.get_running_loop().call_later(OVERDUE, self._give_up_place, group)
        group.task = _begun(self._travel(group))

    def _give_up_place(self, group: _Group[Q]) -> None:
        if group.holds:
            group.holds = False
            self._places += 1
            self._send()

    async def _travel(self, group: _Group[Q]) -> None:
        try:
            await self._run(lambda connection: self._together(connection, group))
        except FAILURES as error:
            self._failed(group, error)
        finally:
            if group.overdue is not None:
                group.overdue.cancel()
            self._under_way.discard(group)
            # Whoever is still without an answer asks alone, where it learns what is the matter.
            _tell(group, [None] * len(group.members))
            for key in group.keys:
                self._leave(key)
            self._give_up_place(group)

    async def _together(self, connection: Connection, group: _Group[Q]) -> None:
        members = group.members = [member for member in group.members if not member.answer.done()]
        if not members:
            return
        group.sent = True
        answers = await self._ask(connection, [member.request for member in members])
        self.sent += 1
        self.carried += len(members)
        _tell(group, answers)

    def _failed(self, group: _Group[Q], error: Exception) -> None:
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


def _tell(group: _Group[Any], answers: Sequence[Any]) -> None:
    for member, answer in zip(group.members, answers, strict=True):
        if not member.answer.done():
            member.answer.set_result(answer)


def _begun(travel: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that has begun, and has sent what it sends; before Python 3.12 it begins a turn of the loop later."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(travel, loop=loop, eager_start=True)
    return loop.create_task(travel)
