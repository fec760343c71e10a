"""What a scenario works with: providers that are processes of their own, and every call written down."""

import asyncio
import contextlib
import itertools
import json

from jaf_memory_core import Message
from jaf_memory_core.errors import MemoryConflictError, MemoryError, MemoryNotFoundError
from simulation import engine
from simulation.model import ABSENT, CONFLICT, Conversations

POINTS = 14
"""Awaits of a call at which it may be cancelled; 8 of 10 calls have no more."""

RECOVERED = 2.0
"""Seconds that what is done over a calm line may take, once a connection that fell silent has been found out."""

DEADLINE, PATIENCE = 30.0, 15.0
"""Seconds that a call may take on a silent line, and on one that was cut: there it is tried again for five."""

LATE = 1.0
"""Seconds of virtual time by which a call may overrun its deadline: what it does to tell its outcome takes its time."""

_schedules = itertools.count()


class World:
    """One schedule of one scenario on one store.

    Attributes:
        history: every call and what came of it.
        faults: what happens on the way to the store, and did.
        user: an owner that no other schedule has.
        closes: the provider that is closed before its work is done, and may refuse it, or `None`.
    """

    def __init__(self, store):
        self.store = store
        self.history = store.history = engine.History()
        self._number = f"{next(_schedules):08}"  # of one length, so that a token means the same for each
        self.user = f"user-{self._number}"
        self._open = []
        self._messages = itertools.count()
        self._conversations = {}
        self.closes = None

    @property
    def faults(self):
        """What happens on the way to the store."""
        return self.store.faults

    def conversation(self, name="c"):
        """A conversation's id that no other schedule has."""
        one = f"{name}-{self._number}"
        self._conversations.setdefault(one)
        return one

    def messages(self, count=1, name="m"):
        """New messages, as the model keeps them: pairs of id and content."""
        return tuple((f"{name}{next(self._messages)}", "first") for _ in range(count))

    async def process(self, *, repeating=True):
        """A provider of its own, as another process would have it.

        Args:
            repeating: whether it sends an append again whose answer was lost. Where others remove messages, that may
                add what they have removed meanwhile; so the model, which knows no repetitions, is not asked then.
        """
        provider = await self.store.provider(**({} if repeating else {"reconnect_timeout": 0.0}))
        self._open.append(provider)
        return provider

    async def close(self):
        """Over a calm line every provider works again; then erase all, let go of all, and nothing of it is left."""
        self.faults.calm()
        for provider in [one for one in self._open if one is not self.closes]:
            if self.faults.silences:  # the first ones may meet such a line, which nobody can tell before it is used
                await asyncio.gather(*(self._works(provider, place) for place in range(6)), return_exceptions=True)
            await asyncio.gather(*(self._works(provider, place) for place in range(6, 12)))
        await self._erase_all()
        for provider in self._open:
            begun = engine.now()
            await provider.close()
            self._in_time("close", engine.now() - begun)
        for _ in range(50):  # what is closed on one side arrives on the other a while later
            if not self.store.connections:
                break
            await engine.pause(0.05)
        assert not self.store.connections, f"{self.store.connections} connections are left behind close()"

    async def _erase_all(self):
        """Nobody holds anything when nothing is asked any more, and nothing of what was erased stays in the store."""
        await self.store.settled()
        for provider in [one for one in self._open if one is not self.closes]:
            await asyncio.gather(*(provider.delete_conversation(one) for one in self._conversations for _ in range(2)))
            held = self.store.held(provider)
            assert not held, f"nothing is asked any more, and {held} are still held"
        left = self.store.left()
        assert not left, f"all is erased, and the store still holds {left}"

    async def _works(self, provider, place):
        """What a fault left behind must not outlive it."""
        conversation_id, before = f"after{place}-{self._number}", engine.now()
        try:
            (await provider.append_messages(conversation_id, [Message(role="user", content="")], create=True)).unwrap()
            assert await provider.get_conversation(conversation_id) is not None
            assert await provider.delete_conversation(conversation_id)
        except MemoryError as error:
            raise AssertionError(f"a provider does not recover from what is over: {error!r}") from error
        took = engine.now() - before
        assert took < RECOVERED, f"over a calm line it took {took:.1f} s of virtual time"

    async def look(self, conversation_id, name="reader"):
        """Read a conversation through a provider that has taken no part, over a calm line."""
        self.faults.calm()
        provider = await self.process()
        return await self.call(name, provider, "read", conversation_id)

    async def call(self, name, provider, what, *arguments, patient=True):
        """Do one operation, write it down with what came of it, and hand over the outcome.

        Returns:
            what the operation gave; `ABSENT` or `CONFLICT` for a refusal; `None` where it was not done or nobody knows.
        """
        operation = self.history.invoke(name, what, arguments)
        begun, work = engine.now(), _OPERATIONS[what](provider, *arguments)
        try:
            output = await (work if patient else self.impatient(work))
        except (TimeoutError, engine.Cancelled):
            self.history.info(operation)
            return None
        except MemoryError as error:
            output = self._refused(operation, error)
            if output is None:
                return None
        finally:
            self._in_time(what, engine.now() - begun)
        self.history.ok(operation, output)
        return output

    async def impatient(self, work, points=POINTS):
        """Wait for something, but perhaps be cancelled meanwhile; that is counted."""
        try:
            return await engine.impatient(work, points=points)
        except engine.Cancelled:
            self.store.counted["cancelled"] += 1
            raise

    async def erase(self, name, provider, conversation_ids):
        """Erase everything of the schedule's user; to the model, each conversation is erased by itself."""
        written = [self.history.invoke(name, "erase", (one, self.user)) for one in conversation_ids]
        try:
            await self.impatient(provider.clear_user_conversations(self.user))
        except (TimeoutError, engine.Cancelled, MemoryError):
            # Of several conversations an earlier one may be gone, whatever a later one says.
            for operation in written:
                self.history.info(operation)
            return
        for operation in written:
            self.history.ok(operation)

    def _in_time(self, what, took):
        """Who waits for a silent server has a deadline; anybody else is told at once, or tries again for a while."""
        # Whoever is led on is answered by each who leads, so that a lost line behind that begins another while.
        most = DEADLINE if self.faults.silences or self.store.leads_on else PATIENCE
        assert took <= most + LATE, f"{what} took {took:.1f} s of virtual time, where {most} are allowed"

    def _refused(self, operation, error):
        """What a refusal is to the model; what was not done, or nobody knows, is written down at once."""
        answered = isinstance(error, MemoryNotFoundError | MemoryConflictError)
        fair = answered or self.closes is not None or (error.retryable and self.store.has_line)
        assert fair, f"{operation.f}: {error!r} is no fault of the line's"
        if error.outcome == "unknown":
            self.history.info(operation)
            return None
        if isinstance(error, MemoryNotFoundError):
            return ABSENT
        if isinstance(error, MemoryConflictError):
            return CONFLICT
        self.history.fail(operation)
        return None

    def check(self):
        """Is there an order of the calls, each at one moment between its beginning and its end, that explains all?"""
        self._explain(self.history.operations)

    def _explain(self, operations):
        if not engine.explained(operations, Conversations()):
            self.store.counted["undecided"] += 1

    async def examine(self, *, explained):
        """Each image that was taken of the disk is a sound file, and holds what was acknowledged until then."""
        named = dict.fromkeys(one.arg[0] for one in self.history.operations)
        for moment, path in self.store.images:
            async with await self.store.at(path) as provider:
                found = {one: await _read(provider, one) for one in named}
            self.store.examine(path)
            if explained:
                calls = engine.until(self.history.operations, moment)
                last = len(self.history.operations)
                calls += [
                    engine.seen(last + place, moment, "read", (one,), read)
                    for place, (one, read) in enumerate(found.items())
                ]
                self._explain(calls)


@contextlib.asynccontextmanager
async def world_of(store):
    """A world, whose calls are counted at its end."""
    async with store.opened():
        world = World(store)
        try:
            yield world
        finally:
            world.faults.calm()
            calls = world.history.operations
            store.counted.update(calls=len(calls), unknown=sum(one.status == "info" for one in calls))


def as_message(pair):
    """A message of its id and content."""
    name, content = pair
    return Message(role="user", content=content, message_id=name)


async def _append(provider, conversation_id, messages):
    (await provider.append_messages(conversation_id, [as_message(one) for one in messages])).unwrap()
    return True


async def _make(provider, conversation_id, messages, user=None):
    messages = [as_message(one) for one in messages]
    (await provider.append_messages(conversation_id, messages, create=True, user_id=user)).unwrap()
    return True


async def _append_at(provider, conversation_id, messages, version):
    messages = [as_message(one) for one in messages]
    (await provider.append_messages(conversation_id, messages, expected_version=version)).unwrap()
    return True


async def _store(provider, conversation_id, messages, user=None):
    (await provider.store_messages(conversation_id, [as_message(one) for one in messages], user_id=user)).unwrap()
    return True


async def _revise(provider, conversation_id, message):
    await provider.revise_messages(conversation_id, {message[0]: as_message(message)})
    return True


async def _truncate(provider, conversation_id, name):
    return await provider.truncate_conversation_after(conversation_id, name)


async def _drop(provider, conversation_id, names):
    return await provider.delete_messages(conversation_id, names)


async def _delete(provider, conversation_id):
    return await provider.delete_conversation(conversation_id)


async def _tail(provider, conversation_id):
    return tuple((one.message_id, one.content) for one in await provider.get_recent_messages(conversation_id, 20))


async def _read(provider, conversation_id):
    found = await provider.get_conversation(conversation_id)
    if found is None:
        return None
    return tuple((one.message_id, one.content) for one in found.messages), found.version


async def _expire(provider, conversation_id):
    await provider.set_expiry(conversation_id, 0.000_001)
    await asyncio.sleep(0.001)  # a store without a server has our time, which stands still meanwhile
    return True


async def _purge(provider, _):
    await provider.purge_expired()
    return True


async def _summarise(provider, conversation_id, summary, incarnation):
    return await provider.store_summary(conversation_id, summary, incarnation)


async def _condensed(provider, conversation_id):
    found = await provider.get_condensed_conversation(conversation_id)
    if found is None:
        return None
    covered = [] if found.summary is None else map(tuple, json.loads(found.summary.text))
    left = [(one.message_id, one.content) for one in found.conversation.messages]
    return (*covered, *left), found.conversation.version


_OPERATIONS = {
    "condensed": _condensed,
    "expire": _expire,
    "purge": _purge,
    "summarise": _summarise,
    "append": _append,
    "append_at": _append_at,
    "make": _make,
    "store": _store,
    "revise": _revise,
    "truncate": _truncate,
    "drop": _drop,
    "delete": _delete,
    "read": _read,
    "tail": _tail,
}
