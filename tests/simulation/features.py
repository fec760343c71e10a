"""What is tried beside a conversation's messages: forks, expiry, summaries, imports, search, and several at once."""

import asyncio
import contextlib
import json
import os
from importlib.util import find_spec

from jaf_memory_core import ConversationMemory, MemoryQuery, MessageSearch, Summary
from jaf_memory_core.errors import MemoryConflictError, MemoryError
from simulation import cycles, engine
from simulation.scenarios import SCENARIOS, _clients, _rough, _until_done, run_of, scenario
from simulation.world import as_message

__all__ = ["SCENARIOS", "run_of"]  # those of `scenarios`, too


@scenario()
async def fork(world):
    """Two fork a conversation that others append to and cut: each copy is what stood there at one moment, whole."""
    one, two, chat = await world.process(repeating=False), await world.process(repeating=False), world.conversation()
    first = world.messages(3)
    await world.call("setup", one, "store", chat, first)
    _rough(world, fork)
    copied = []

    async def forker(name, provider):
        for turn in range(3):
            new = world.conversation(f"{name}{turn}")
            seen, outcome = world.history.invoke(name, "shown", (chat,)), None
            try:
                outcome = await world.impatient(provider.fork_conversation(chat, new))
                world.history.ok(seen)
            except MemoryConflictError as error:
                raise AssertionError("nobody else makes that conversation") from error
            except (TimeoutError, engine.Cancelled, MemoryError):
                world.history.info(seen)
            copied.append((seen, new, outcome))

    async def writer(name, provider):
        for _ in range(3):
            await world.call(name, provider, "append", chat, world.messages(2, name), patient=False)

    async def cutter(provider):
        await world.call("t", provider, "truncate", chat, engine.choice(first)[0], patient=False)

    await _clients(forker("f", one), forker("g", two), writer("a", one), writer("b", two), cutter(two))
    await world.look(chat)
    reader = await world.process()
    for seen, new, outcome in copied:
        _compare(seen, await reader.get_conversation(new), outcome)


def _compare(seen, found, outcome):
    """Have the history tell what a copy shows of its parent.

    Args:
        seen: the call that looked at the parent.
        found: the copy.
        outcome: how many messages it was said to have, or `None` where nobody knows whether it was made.
    """
    assert found is not None or outcome is None, "a fork was acknowledged, and is not there"
    if found is not None:
        assert outcome in {None, len(found.messages)}, f"a copy of {outcome} messages has {len(found.messages)}"
        if outcome is None:  # it was made at any moment until now
            seen.status, seen.ret = "ok", seen.call + 1_000_000
        seen.output = tuple((each.message_id, each.content) for each in found.messages)


@scenario()
async def expiry(world):
    """One lets expire what others write to, and another purges: what has expired is gone, and nothing else is."""
    one, two, chat = await world.process(repeating=False), await world.process(repeating=False), world.conversation()
    await world.call("setup", one, "store", chat, world.messages(2))
    _rough(world, expiry)

    async def writer(name, provider):
        for _ in range(3):
            await world.call(name, provider, "make", chat, world.messages(1, name), patient=False)
            await world.call(name, provider, "read", chat, patient=False)

    async def ender(provider):
        for _ in range(2):
            await world.call("e", provider, "expire", chat, patient=False)

    async def purger(provider):
        for _ in range(3):
            await world.call("p", provider, "purge", chat, patient=False)

    await _clients(writer("a", one), writer("b", two), ender(two), purger(one))
    await world.look(chat)


@scenario()
async def summary(world):
    """Two summarise what others append to, delete and make anew: summary and messages together are the conversation."""
    one, two, chat = await world.process(repeating=False), await world.process(repeating=False), world.conversation()
    await world.call("setup", one, "store", chat, world.messages(4))
    _rough(world, summary)

    async def summariser(name, provider):
        for _ in range(2):
            try:
                found = await world.impatient(provider.get_conversation(chat))
            except (TimeoutError, engine.Cancelled, MemoryError):
                continue
            if found is not None and found.messages:
                covered = found.messages[: engine.randint(1, len(found.messages))]
                said = json.dumps([(one.message_id, one.content) for one in covered])
                told = Summary(said, covered[-1].message_id)
                await world.call(name, provider, "summarise", chat, told, found.incarnation, patient=False)
            await world.call(name, provider, "condensed", chat, patient=False)

    async def writer(provider):
        for _ in range(4):
            await world.call("w", provider, "make", chat, world.messages(2, "w"), patient=False)

    async def eraser(provider):
        await world.call("d", provider, "delete", chat, patient=False)
        await world.call("d", provider, "make", chat, world.messages(1, "d"), patient=False)

    await _clients(summariser("s", one), summariser("t", two), writer(one), eraser(two))
    await world.look(chat)
    await world.call("reader", one, "condensed", chat)


@scenario(explained=False)
async def transfer(world):
    """Two import the same conversations, and go on where they were cut; a third appends to what came: all, once."""
    one, two = await world.process(), await world.process()
    given = {world.conversation(f"i{place}"): world.messages(3, f"{place}-") for place in range(5)}
    moved = [ConversationMemory(chat, world.user, tuple(map(as_message, each))) for chat, each in given.items()]
    _rough(world, transfer)
    mine = {chat: [] for chat in given}

    async def mover(provider):
        for _ in range(8):
            try:
                results = await world.impatient(provider.import_conversations(moved), points=30)
                [each.unwrap() for each in results]
            except (TimeoutError, engine.Cancelled, MemoryError):
                continue
            return True
        return False

    async def writer(provider):
        for chat, done in mine.items():
            new = world.messages(1, "w")
            if await _until_done(world, "w", provider, "make", chat, new, world.user) is True:
                done.extend(new)

    async with asyncio.TaskGroup() as group:
        movers = [group.create_task(mover(each)) for each in (one, two)]
        group.create_task(writer(two))
    world.faults.calm()
    reader = await world.process()
    for chat, messages in given.items():
        found = await reader.get_conversation(chat)
        names = [each.message_id for each in found.messages] if found is not None else []
        assert len(set(names)) == len(names), f"doubled: {names}"
        whole = [name for name, _ in messages]
        came = [each for each in names if each in whole]
        assert came in ([], whole), f"torn: {names}"
        assert came or not any(one.result() for one in movers), f"acknowledged, and lost: {chat}"
        assert {name for name, _ in mine[chat]} <= set(names), f"acknowledged, and lost: {names}"


@scenario()
async def deletion(world):
    """Single messages are removed beside appends, their repetition, revisions and truncations: those, and no others."""
    one, two, chat = await world.process(repeating=False), await world.process(repeating=False), world.conversation()
    seen = list(world.messages(4))
    await world.call("setup", one, "store", chat, tuple(seen))
    _rough(world, deletion)

    async def remover(name, provider):
        for _ in range(2):
            names = tuple({engine.choice(seen)[0] for _ in range(2)})
            await world.call(name, provider, "drop", chat, names, patient=False)

    async def writer(name, provider):
        for _ in range(2):
            new = world.messages(2, name)
            seen.extend(new)
            await world.call(name, provider, "append", chat, new, patient=False)
            await world.call(name, provider, "read", chat, patient=False)

    async def editor(provider):
        await world.call("e", provider, "revise", chat, (engine.choice(seen)[0], "otherwise"), patient=False)
        await world.call("e", provider, "truncate", chat, engine.choice(seen)[0], patient=False)

    await _clients(remover("a", one), remover("b", two), writer("c", one), writer("d", two), editor(two))
    await world.look(chat)


@scenario(explained=False)
async def paging(world):
    """Pages of lists, scans and searches beside writers: what nobody writes to is in them once, and nothing twice."""
    one, two = await world.process(), await world.process()
    quiet = [world.conversation(f"q{place}") for place in range(4)]
    busy = [world.conversation(f"b{place}") for place in range(3)]
    for chat in (*quiet, *busy):
        await world.call("setup", one, "make", chat, world.messages(2), world.user)
    _rough(world, paging)

    async def writer(name, provider):
        for place in range(6):
            chat = engine.choice(busy)
            what = engine.choice(("make", "delete")) if place % 2 else "make"
            new = (world.messages(1, name), world.user) if what == "make" else ()
            await world.call(name, provider, what, chat, *new, patient=False)

    async def looker(look, provider):
        for _ in range(2):
            try:
                await look(provider, world.user, quiet)
            except MemoryError as error:
                if not error.retryable:
                    raise AssertionError(f"{error!r} is no fault of the line's") from error

    watching = looker(_listed, one), looker(_scanned, two), looker(_searched, one)
    await _clients(writer("a", one), writer("b", two), *watching)


async def _listed(provider, user, quiet):
    found, query = [], MemoryQuery(user_id=user, limit=2, include_messages=False)
    while page := await provider.find_conversations(query):
        found += [one.conversation_id for one in page]
        query = query.after(page[-1])
    _once(found, quiet, "a list")


async def _scanned(provider, user, quiet):
    found = [each async for each in provider.iter_conversations(MemoryQuery(user_id=user))]
    # What is erased and made again behind the scan's back is another conversation, and stands further on.
    _once([(each.conversation_id, each.incarnation) for each in found], (), "a scan")
    _once([each.conversation_id for each in found if each.conversation_id in quiet], quiet, "a scan")


async def _searched(provider, user, quiet):
    found, cursor = [], None
    while True:
        hits = await provider.search_messages(MessageSearch("first", user_id=user, limit=3, cursor=cursor))
        found += [(hit.conversation_id, hit.message.message_id) for hit in hits]
        cursor = hits.cursor
        if cursor is None:
            break
    assert len(set(found)) == len(found), f"a search shows a message twice: {found}"
    for chat in quiet:
        assert sum(each == chat for each, _ in found) == 2, f"a search misses what stands in {chat}: {found}"


def _once(found, all_of, what):
    twice = sorted({one for one in found if found.count(one) > 1})
    assert not twice, f"{what} shows twice: {twice}"
    missing = sorted(set(all_of) - set(found))
    assert not missing, f"{what} misses {missing}"


@scenario(explained=False, cut=0.01)
async def crowd(world):
    """Seven tasks of one process want the same conversation at once: who is cancelled takes nobody's place along."""
    provider, chat = await world.process(), world.conversation()
    await world.call("setup", provider, "store", chat, ())
    _rough(world, crowd)
    told = []

    async def client(name):
        for _ in range(3):
            new = world.messages(1, name)
            if engine.flip(0.5):
                await world.call(
                    name, provider, "revise", chat, (engine.choice(told) if told else "none", "again"), patient=False
                )
            elif await world.call(name, provider, "append", chat, new, patient=False):
                told.append(new[0][0])

    await _clients(*map(client, "abcdefg"))
    names = [name for name, _ in (await world.look(chat))[0]]
    assert len(set(names)) == len(names), f"doubled: {names}"
    assert set(told) <= set(names), f"acknowledged, and lost: {set(told) - set(names)}"


@scenario(explained=False)
async def lists(world):
    """Four append to three conversations and read them: no two of them see things happen in different orders."""
    one, two = await world.process(), await world.process()
    chats = [world.conversation(name) for name in "xyz"]
    for chat in chats:
        await world.call("setup", one, "store", chat, ())
    _rough(world, lists)

    async def client(name, provider):
        for _ in range(8):
            chat = engine.choice(chats)
            if engine.flip(0.5):
                await _until_done(world, name, provider, "append", chat, world.messages(1, name))
            else:
                await world.call(name, provider, "read", chat, patient=False)

    await _clients(client("a", one), client("b", one), client("c", two), client("d", two))
    last = {chat: (await world.look(chat))[0] for chat in chats}
    cycles.check(world.history.operations, last)


@scenario(explained=False)
async def runs(world):
    """Runs of JAF's engine in two processes: each loads, and hands all over with its turn; every turn stands once."""
    # Late, as jaf-py is large; and without asking for prices, which LiteLLM would do at its import.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    from jaf.core.types import ContentRole, Message
    from jaf.memory.types import Success
    from jaf_memory_bridges.jaf import jaf_provider

    one, two, chat = await world.process(), await world.process(), world.conversation()
    told = []

    async def engine_of(name, provider):
        memory = jaf_provider(provider, user_id=world.user)
        for turn in range(3):
            found = await memory.get_conversation(chat)
            if not isinstance(found, Success):
                continue
            held = found.data.messages if found.data is not None else []
            said = [f"{name}{turn} asks", f"{name}{turn} answers"]
            new = map(Message, (ContentRole.USER, ContentRole.ASSISTANT), said)
            with contextlib.suppress(TimeoutError, engine.Cancelled):
                done = await world.impatient(memory.store_messages(chat, [*held, *new], {}), points=30)
                if isinstance(done, Success):
                    told.append(said)

    _rough(world, runs)
    await _clients(engine_of("a", one), engine_of("b", one), engine_of("c", two))
    found, _ = await world.look(chat) or ((), 0)
    texts = [text for _, text in found]
    assert len(set(texts)) == len(texts), f"doubled: {texts}"
    for turn in texts[::2]:
        answer = turn.replace("asks", "answers")
        assert texts[texts.index(turn) + 1 :][:1] == [answer], f"torn: {texts}"
    lost = [said for said in told if not set(said) <= set(texts)]
    assert not lost, f"acknowledged, and lost: {lost} of {texts}"


if find_spec("jaf") is None:
    del SCENARIOS["runs"]
