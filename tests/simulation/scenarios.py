"""What is tried: a few processes and tasks at once, over a line that fails, each call cancelled at any await.

Every scenario takes a `World` and leaves behind a history that its model has to explain, and what it asserts itself.
"""

import asyncio
import contextlib

from jaf_memory_core import MemoryConfig, MemorySession
from jaf_memory_core.errors import MemoryError
from simulation import engine
from simulation.model import ABSENT

SCENARIOS = {}

TRIES = 8
"""So often a caller repeats what was not acknowledged."""


def scenario(*, cut=0.04, silence=0.004, explained=True):
    """Take a function up under its name, with the line that it is tried over.

    Args:
        cut: how probable it is that the line is cut, for each of three moments of a message.
        silence: the same for a line that falls silent.
        explained: whether the model has to explain the history; where calls are repeated many times, that takes too
            long, and the scenario compares what it finds itself.
    """

    def taken(function):
        SCENARIOS[function.__name__] = function
        function.cut, function.silence, function.explained = cut, silence, explained
        return function

    return taken


async def _until_done(world, name, provider, what, *arguments):
    """Repeat a call that is safe to repeat, until somebody acknowledges it."""
    for _ in range(TRIES):
        output = await world.call(name, provider, what, *arguments, patient=False)
        if output is not None:
            return output
    return None


def _rough(world, function):
    world.faults.cut, world.faults.silence = function.cut * world.store.roughness, function.silence


async def _clients(*works):
    """Some at once; the first that fails takes the others along."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as several:
        raise several.exceptions[0] from None


@scenario(explained=False)
async def append(world):
    """Four writers in two processes repeat each batch until it is acknowledged: whole, in order, and once."""
    one, two, chat = await world.process(), await world.process(), world.conversation()
    await world.call("setup", one, "store", chat, ())
    _rough(world, append)
    batches = {name: [world.messages(2, name) for _ in range(3)] for name in "abcd"}

    async def writer(name, provider):
        return [batch for batch in batches[name] if await _until_done(world, name, provider, "append", chat, batch)]

    async with asyncio.TaskGroup() as group:
        done = [group.create_task(writer(*each)) for each in (("a", one), ("b", one), ("c", one), ("d", two))]
    found, _ = await world.look(chat)
    names = [name for name, _ in found]
    assert len(set(names)) == len(names), f"doubled: {names}"
    for name, task in zip("abcd", done, strict=True):
        mine = [one for one in names if one[0] == name]
        assert mine == sorted(mine, key=lambda one: int(one[1:])), f"out of order: {names}"
        assert all(
            names.index(second) == names.index(first) + 1 for first, second in zip(mine[::2], mine[1::2], strict=True)
        )
        lost = [one for batch in task.result() for one, _ in batch if one not in names]
        assert not lost, f"acknowledged, and lost: {lost}"


@scenario()
async def anything(world):
    """Two processes, two tasks in each, do whatever comes: append, replace, revise, truncate, delete, read."""
    providers, chat = [await world.process(repeating=False), await world.process(repeating=False)], world.conversation()
    seen = list(world.messages(2))
    await world.call("setup", providers[0], "store", chat, tuple(seen))
    _rough(world, anything)

    async def client(name, provider):
        for _ in range(4):
            what = engine.choice(("append", "make", "read", "store", "revise", "truncate", "delete"))
            if what in {"append", "make", "store"}:
                new = world.messages(engine.randint(1, 3), name)
                seen.extend(new)
                arguments = chat, new
            elif what == "revise":
                arguments = chat, (engine.choice(seen)[0], f"by {name}")
            elif what == "truncate":
                arguments = chat, engine.choice(seen)[0]
            else:
                arguments = (chat,)
            await world.call(name, provider, what, *arguments, patient=False)

    await _clients(*(client(name, providers[place % 2]) for place, name in enumerate("abcd")))
    await world.look(chat)


@scenario()
async def versions(world):
    """Three append on the condition of the version that they have read: one wins each, and nobody is overwritten."""
    one, two, chat = await world.process(), await world.process(), world.conversation()
    await world.call("setup", one, "store", chat, ())
    _rough(world, versions)

    async def client(name, provider):
        for _ in range(3):
            read = await world.call(name, provider, "read", chat, patient=False)
            if read is not None and read != ABSENT:
                await world.call(name, provider, "append_at", chat, world.messages(1, name), read[1], patient=False)

    await _clients(client("a", one), client("b", two), client("c", two))
    await world.look(chat)


@scenario()
async def recreation(world):
    """One deletes and makes anew what others append to: nothing of the former conversation comes back."""
    one, two, chat = await world.process(repeating=False), await world.process(repeating=False), world.conversation()
    await world.call("setup", one, "store", chat, world.messages(2))
    _rough(world, recreation)

    async def writer(name, provider):
        for _ in range(3):
            await world.call(name, provider, "make", chat, world.messages(1, name), patient=False)

    async def eraser(provider):
        for _ in range(2):
            await world.call("d", provider, "delete", chat, patient=False)
            await world.call("d", provider, "make", chat, world.messages(1, "d"), patient=False)

    await _clients(writer("a", one), writer("b", two), eraser(two))
    await world.look(chat)


@scenario()
async def erasure(world):
    """One erases a user whose conversations others write: what stood when it began is gone when it is acknowledged."""
    one, two = await world.process(repeating=False), await world.process(repeating=False)
    chats = [world.conversation("x"), world.conversation("y")]
    for chat in chats:
        await world.call("setup", one, "store", chat, world.messages(2), world.user)
    _rough(world, erasure)

    async def writer(name, provider):
        for place in range(4):
            chat, what = chats[place % 2], engine.choice(("make", "store"))
            await world.call(name, provider, what, chat, world.messages(1, name), world.user, patient=False)

    async def eraser(provider):
        for _ in range(2):
            await world.erase("e", provider, chats)

    await _clients(writer("a", one), writer("b", two), eraser(two))
    for chat in chats:
        await world.look(chat)


@scenario()
async def death(world):
    """A process dies in the middle of its work, and another goes on: what was acknowledged stands."""
    dying, living, chat = await world.process(), await world.process(), world.conversation()
    await world.call("setup", living, "store", chat, ())
    _rough(world, death)

    async def writer(name, provider):
        for _ in range(4):
            await world.call(name, provider, "append", chat, world.messages(2, name))

    doomed = engine.spawn(writer("a", dying))
    await _clients(writer("b", living), _killed(doomed))
    await world.look(chat)


@scenario()
async def closing(world):
    """A provider is closed while its tasks are at work: each of them ends, and nothing is left of it."""
    closed, living, chat = (
        await world.process(repeating=False),
        await world.process(repeating=False),
        world.conversation(),
    )
    await world.call("setup", living, "store", chat, ())
    _rough(world, closing)
    world.closes = closed

    async def writer(name, provider):
        for _ in range(3):
            await world.call(name, provider, "append", chat, world.messages(1, name), patient=False)

    async def closer():
        await asyncio.sleep(engine.randint(0, 60) / 1000)
        await closed.close()

    await _clients(*(writer(name, closed) for name in "abc"), writer("d", living), closer())
    await world.look(chat)


@scenario()
async def revision(world):
    """Three put other words into the same messages, while one appends: no revision is lost, and none comes back."""
    one, two, chat = await world.process(), await world.process(), world.conversation()
    first = world.messages(3)
    await world.call("setup", one, "store", chat, first)
    _rough(world, revision)

    async def editor(name, provider):
        for turn in range(3):
            new = engine.choice(first)[0], f"{turn} by {name}"
            await world.call(name, provider, "revise", chat, new, patient=False)

    async def writer(provider):
        for _ in range(3):
            await world.call("w", provider, "append", chat, world.messages(1, "w"), patient=False)

    await _clients(editor("a", one), editor("b", two), writer(two))
    await world.look(chat)


@scenario()
async def truncation(world):
    """Two replace all messages and two remove some: how many were removed is told once, for what stood there."""
    one, two, chat = await world.process(), await world.process(), world.conversation()
    first = world.messages(3)
    await world.call("setup", one, "store", chat, first)
    _rough(world, truncation)

    async def writer(name, provider):
        for _ in range(2):
            await world.call(name, provider, "store", chat, world.messages(1, name) + first, patient=False)

    async def cutter(name, provider):
        for _ in range(3):
            await world.call(name, provider, "truncate", chat, engine.choice(first)[0], patient=False)

    await _clients(writer("a", one), writer("b", two), cutter("c", one), cutter("d", two))
    await world.look(chat)


@scenario()
async def absence(world):
    """Appends that must not make a conversation, beside one who deletes it and makes it anew."""
    one, two, chat = await world.process(repeating=False), await world.process(repeating=False), world.conversation()
    await world.call("setup", one, "store", chat, world.messages(1))
    _rough(world, absence)

    async def writer(name, provider):
        for _ in range(3):
            await world.call(name, provider, "append", chat, world.messages(1, name), patient=False)

    async def eraser(provider):
        await world.call("d", provider, "delete", chat, patient=False)
        await world.call("d", provider, "store", chat, world.messages(1, "d"), patient=False)
        await world.call("d", provider, "delete", chat, patient=False)

    await _clients(writer("a", one), writer("b", two), eraser(two))
    await world.look(chat)


@scenario()
async def repetition(world):
    """A conditional append is repeated as it was: what stands is recognised, and the condition does not matter then."""
    one, two, chat = await world.process(), await world.process(), world.conversation()
    await world.call("setup", one, "store", chat, ())
    _rough(world, repetition)

    async def client(name, provider):
        for _ in range(2):
            read = await world.call(name, provider, "read", chat, patient=False)
            if read is not None:
                new = world.messages(1, name)
                for _ in range(3):
                    await world.call(name, provider, "append_at", chat, new, read[1], patient=False)

    await _clients(client("a", one), client("b", two))
    await world.look(chat)


@scenario()
async def restart(world):
    """The server forgets what it keeps for connections, as behind a restart or a failover; nobody notices."""
    one, two, chat = await world.process(), await world.process(), world.conversation()
    await world.call("setup", one, "store", chat, ())
    _rough(world, restart)

    async def writer(name, provider):
        for _ in range(3):
            await world.call(name, provider, "append", chat, world.messages(1, name), patient=False)
            await world.call(name, provider, "read", chat, patient=False)

    async def forgetting():
        for _ in range(3):
            await asyncio.sleep(engine.randint(0, 20) / 1000)
            world.store.forget()

    await _clients(writer("a", one), writer("b", two), forgetting())
    await world.look(chat)


@scenario(explained=False)
async def lease(world):
    """Three want the same turn: at no moment two hold it, and whoever is cancelled leaves nothing behind."""
    one, two, chat = await world.process(), await world.process(), world.conversation()
    await world.call("setup", one, "store", chat, ())
    _rough(world, lease)
    holders = []

    async def client(name, provider):
        for _ in range(2):
            session = MemorySession(MemoryConfig(provider=provider), conversation_id=chat, lease=3600)
            try:
                async with session:
                    holders.append(name)
                    try:
                        assert len(holders) == 1, f"two hold the turn: {holders}"
                        await asyncio.sleep(0.01)
                    finally:
                        holders.remove(name)
            except MemoryError:
                await asyncio.sleep(0.005)

    async def impatient(name, provider):
        with contextlib.suppress(TimeoutError, engine.Cancelled):
            await world.impatient(client(name, provider), points=30)

    await _clients(impatient("a", one), impatient("b", two), impatient("c", two))


@scenario(explained=False)
async def groups(world):
    """Six in one process, each in a conversation of its own, all at once: what travels together stands for each."""
    one, other = await world.process(), await world.process()
    names = "abcdef"
    chats = {name: world.conversation(name) for name in names}
    for chat in chats.values():
        await world.call("setup", one, "store", chat, ())
    _rough(world, groups)
    told = {name: [] for name in names}

    async def writer(name):
        for _ in range(3):
            batch = world.messages(2, name)
            if await _until_done(world, name, one, "append", chats[name], batch):
                told[name] += batch
            before = set(told[name])
            found = await world.call(name, one, "tail", chats[name], patient=False)
            assert found is None or before <= set(found), f"{name} was told {before}, and has {found}"

    async def stranger(name):
        batch = world.messages(1, "x")
        if await _until_done(world, "x", other, "append", chats[name], batch):
            told[name] += batch

    await _clients(*map(writer, names), stranger("a"), stranger("b"))
    for name, chat in chats.items():
        found, _ = await world.look(chat)
        ids = [one for one, _ in found]
        assert len(set(ids)) == len(ids), f"doubled: {ids}"
        assert set(told[name]) <= set(found), f"acknowledged, and lost: {set(told[name]) - set(found)}"
        assert all(one[0] in {name, "x"} for one in ids), f"another's: {ids}"


async def _killed(task):
    """End a task after a while, wherever it is."""
    for _ in range(engine.randint(0, 40)):
        await asyncio.sleep(0.002)
    task.cancel()
    await asyncio.wait([task])


def run_of(function, store):
    """A scenario on a store, as the engine runs it."""
    from simulation.world import world_of

    async def schedule():
        async with world_of(store) as world:
            await function(world)
            await world.close()
            await world.examine(explained=function.explained)
        if function.explained:
            world.check()

    schedule.__qualname__ = f"{function.__name__} on {store.name}"
    return schedule
