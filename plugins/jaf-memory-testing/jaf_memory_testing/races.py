"""What happens between the steps: others who write, delete and renew meanwhile, other processes, one that is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from jaf_memory_core.codec import digest
from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.errors import MemoryConflictError, MemoryNotFoundError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_testing.checks import Checks, in_full, needs
from jaf_memory_testing.expectations import absent, done, let_expire, renewed_in_time, whole
from jaf_memory_testing.processes import Process, at_once
from jaf_memory_testing.samples import ids, kept, put, rich, said, talk
from jaf_memory_testing.target import Store

RENEWALS: dict[str, Callable[[BackendProvider, str], Awaitable[Any]]] = {
    "set_expiry to stay": lambda provider, key: provider.set_expiry(key, None),
    "set_expiry to later": lambda provider, key: provider.set_expiry(key, 600),
    "append": lambda provider, key: provider.append_messages(key, talk(1, "n")),
    "store": lambda provider, key: provider.store_messages(key, talk(1, "n")),
    "update_metadata": lambda provider, key: provider.update_metadata(key, {"a": 2}),
    "revise": lambda provider, key: provider.revise_messages(key, {"m0": said("x", message_id="m0")}),
    "truncate": lambda provider, key: provider.truncate_conversation_after(key, "m1"),
    "delete_messages": lambda provider, key: provider.delete_messages(key, ["m1"]),
    "import": lambda provider, key: provider.import_conversation(ConversationMemory(key, messages=talk(3))),
}
"""Every write that moves an expiry away, of a conversation that renews."""


async def _put_off(
    provider: BackendProvider, key: str, renew: Callable[[BackendProvider, str], Awaitable[Any]]
) -> None:
    if key not in ("set_expiry to stay", "set_expiry to later"):
        await provider.set_expiry(key, 600)
    await renew(provider, key)


ENDS = 1.5
"""Seconds after which the conversations would have expired."""


class RaceChecks(Checks):
    """Others act between two steps."""

    @needs("backend")
    async def test_renewed_is_not_purged(self, store: Store) -> None:
        """A conversation that any write has renewed outlives its former end, a purge at that moment, and a search."""
        provider = await store.open()
        await provider.open()
        for name in RENEWALS:
            done(await provider.store_messages(name, talk(3), {"a": 1}, user_id="u"))
        done(await provider.store_messages("ends", talk(1), user_id="u"))
        await provider.set_expiry("ends", ENDS)
        for name, renew in RENEWALS.items():
            await renewed_in_time(provider, name, ENDS, partial(_put_off, provider, name, renew))
        # Beyond the former end of all of them.
        await asyncio.sleep(ENDS + 0.1)
        assert await provider.purge_expired() == 1, "a purge must remove what has expired, and nothing that was renewed"
        found = {one.conversation_id for one in await provider.find_conversations(MemoryQuery(user_id="u"))}
        assert found == set(RENEWALS)
        assert (await provider.get_stats("u"))["user_conversations"] == len(RENEWALS)
        for name in RENEWALS:
            await whole(provider, name)

    @needs("backend")
    async def test_renewed_by_its_ttl(self, store: Store) -> None:
        """Each write renews the expiry by the conversation's own ttl; a purge that comes then leaves it alone."""
        provider = await store.open()
        await provider.open()
        writes = {name: write for name, write in RENEWALS.items() if not name.startswith("set_expiry")}
        for name in writes:
            done(await provider.store_messages(name, talk(3), {"a": 1}))
            await provider.set_expiry(name, 600)
        before = {name: (await whole(provider, name)).expires_at for name in writes}
        await asyncio.sleep(0.02)
        for name, write in writes.items():
            await write(provider, name)
            # Importing what is there already is no write, and so renews nothing.
            if name == "import":
                continue  # all of it was there: nothing was written
            after = (await whole(provider, name)).expires_at
            was = before[name]
            assert after is not None
            assert was is not None
            assert after > was, f"{name} renews no expiry"

    @needs("backend")
    async def test_deleted_behind_an_iteration(self, store: Store) -> None:
        """An iteration whose conversations are deleted as soon as they were seen passes all others, each once."""
        provider, other = await store.open(), await store.open()
        await provider.open()
        # More than a page of any store of ours, so that the iteration has to go on behind what is gone.
        count = 280
        await put(provider, *(kept(f"c{n:03}", created=n // 3, messages=talk(1)) for n in range(count)))
        seen: list[str] = []
        async for one in provider.iter_conversations():
            seen.append(one.conversation_id)
            await other.delete_conversation(one.conversation_id)
        missed = [f"c{n:03}" for n in range(count) if f"c{n:03}" not in seen]
        assert not missed, f"an iteration ended, or skipped, where what it had seen was deleted: {missed[:5]}"
        assert len(seen) == count

    @needs("backend")
    async def test_moments_are_not_mixed(self, store: Store) -> None:
        """Beside appends and truncations every read shows one moment: count, messages and version belong together."""
        provider, other = await store.open(), await store.open()
        done(await provider.store_messages("c", [], user_id="u"))
        writing = True

        async def write() -> None:
            number = 0
            while writing:
                done(await other.append_messages("c", talk(2, f"w{number}-"), metadata={"count": number}))
                number += 1
                await asyncio.sleep(0)

        writer = asyncio.ensure_future(write())
        try:
            for _ in range(40):
                await asyncio.sleep(0)
                found = list(await provider.find_conversations(MemoryQuery(user_id="u")))
                found.append(await whole(provider))
                found += [one async for one in provider.iter_conversations()]
                for one in found:
                    assert one.message_count == len(one.messages), "the header is of another moment than the messages"
                    assert one.version == 1 + len(one.messages) // 2, "the version is of another moment"
                    assert one.metadata.get("count", -1) == len(one.messages) // 2 - 1, "metadata of another moment"
        finally:
            writing = False
            await writer

    @needs("backend")
    async def test_no_fork_outlives_an_erasure(self, store: Store) -> None:
        """Of forks that run beside their user's erasure none is left when both have ended."""
        provider, other = await store.open(), await store.open()
        for number in range(12):
            done(await provider.store_messages("c", talk(20), user_id="u"))
            forks = [other.fork_conversation("c", f"f{n}") for n in range(4)]
            clearing = provider.clear_user_conversations("u")
            # The erasure at each place among the forks.
            order = [*forks[: number % 5], clearing, *forks[number % 5 :]]
            answers = await asyncio.gather(*order, return_exceptions=True)
            for answer in answers:
                fine = isinstance(answer, int | MemoryNotFoundError | MemoryConflictError)
                assert fine, f"a fork beside an erasure raised {answer!r}"
            left = [one.conversation_id async for one in provider.iter_conversations()]
            assert left == [], f"copies of an erased user's messages are left: {left}"

    @needs("processes", "reopen")
    async def test_killed_and_retried(self, store: Store) -> None:
        """After a kill at any moment the store is whole, and what was not acknowledged is done by a retry."""
        provider = await store.open()
        rounds = 24 if in_full() else 6
        done(await provider.store_messages("c", [], user_id="u"))
        with Process(store.target, "killed_in_rounds", conversation_id="c", rounds=rounds) as process:
            process.wait_until_ready()
            process.go()
            acknowledged = process.result()
        found = await whole(provider)
        assert len(set(ids(found.messages))) == len(found.messages) == found.message_count
        lost = [one for batch in acknowledged for one in batch if one not in ids(found.messages)]
        assert not lost, f"acknowledged, or retried with success after a kill, and not there: {lost[:5]}"
        await self._whole_store(provider)

    async def _whole_store(self, provider: BackendProvider) -> None:
        everything = [one async for one in provider.iter_conversations()]
        names = {one.conversation_id for one in everything}
        for one in everything:
            assert one.message_count == len(one.messages)
            assert await provider.get_conversation(one.conversation_id) == one
        by_user = {one.conversation_id for one in await provider.find_conversations(MemoryQuery(user_id="u"))}
        assert by_user == {one.conversation_id for one in everything if one.user_id == "u"}, "an index lost its record"
        assert {one.conversation_id for one in await provider.find_conversations(MemoryQuery())} == names
        stats = await provider.get_stats("u")
        mine = [one for one in everything if one.user_id == "u"]
        assert stats["user_conversations"] == len(mine)
        assert stats["user_messages"] == sum(len(one.messages) for one in mine)
        cleared = await provider.clear_user_conversations("u")
        assert cleared == len(mine)
        assert await provider.find_conversations(MemoryQuery(user_id="u")) == []


class ProcessChecks(Checks):
    """What holds between processes."""

    @needs("processes")
    async def test_read_by_another_process(self, store: Store) -> None:
        """What is acknowledged here is at once there for another process, equal in every value."""
        provider = await store.open()
        done(await provider.store_messages("c", rich(), {"a": [1, 1.0, -0.0]}, user_id="u"))
        there = at_once(store.target, [("read_digest", {"conversation_id": "c"})])
        assert there == [digest(await whole(provider))]

    @needs("processes")
    async def test_appends_of_many_processes(self, store: Store) -> None:
        """Appends by 16 tasks in each of 4 processes all stay, once, each batch contiguous and in order."""
        provider = await store.open()
        done(await provider.store_messages("c", []))
        work = {"conversation_id": "c", "tasks": 16, "batches": 3, "size": 3}
        added = at_once(store.target, [("append_many", {**work, "name": f"p{n}"}) for n in range(4)])
        assert added == [16 * 3 * 3] * 4
        conversation = await whole(provider)
        found = ids(conversation.messages)
        assert len(found) == len(set(found)) == 4 * 16 * 3 * 3
        assert conversation.version == 1 + 4 * 16 * 3
        for start in range(0, len(found), 3):
            batch = found[start].removesuffix("0")
            assert found[start : start + 3] == [f"{batch}{n}" for n in range(3)], "a batch is torn"

    @needs("processes")
    async def test_sixteen_start_at_once(self, store: Store) -> None:
        """Sixteen processes may start at once on an empty store, and all that they store is there (by default six)."""
        number = 16 if in_full() else 6
        jobs = [("store_one", {"conversation_id": f"c{n}", "user_id": "u"}) for n in range(number)]
        assert at_once(store.target, jobs) == [1] * number
        provider = await store.open()
        found = await provider.find_conversations(MemoryQuery(user_id="u"))
        assert sorted(one.conversation_id for one in found) == sorted(f"c{n}" for n in range(number))

    @needs("processes", "reopen")
    async def test_killed_while_appending(self, store: Store) -> None:
        """When a writing process is killed, every acknowledged append is there, once and whole."""
        provider = await store.open()
        done(await provider.store_messages("c", []))
        acknowledged: list[str] = []
        for n in range(3):
            with Process(store.target, "append_until_killed", conversation_id="c", name=f"p{n}") as process:
                process.wait_until_ready()
                process.go()
                # Killed at another moment each time.
                for _ in range(20 + 7 * n):
                    told = process.next()
                    assert told is not None, "the process ended by itself"
                    acknowledged += told[1]
                process.kill()
                # What it told before it died was acknowledged, though nobody had read it yet.
                while (told := process.next()) is not None:
                    acknowledged += told[1]
            found = ids((await whole(provider)).messages)
            assert len(found) == len(set(found))
            assert set(acknowledged) <= set(found)
            assert all(found[i : i + 3] == [f"{found[i][:-1]}{k}" for k in range(3)] for i in range(0, len(found), 3))
        done(await provider.append_messages("c", talk(1)))

    @needs("processes")
    async def test_purged_by_many_processes(self, store: Store) -> None:
        """Any number of processes may purge at once: each expired conversation is counted once."""
        provider = await store.open()
        for n in range(30):
            done(await provider.store_messages(f"c{n}", talk(1)))
        await let_expire(provider, *(f"c{n}" for n in range(20)))
        assert sum(at_once(store.target, [("purge", {})] * 4)) == 20
        assert (await provider.get_stats())["total_conversations"] == 10

    @needs("processes")
    async def test_cleared_by_many_processes(self, store: Store) -> None:
        """When several processes clear one user at once, each conversation is counted once, and none is left."""
        provider = await store.open()
        for n in range(30):
            done(await provider.store_messages(f"c{n}", talk(1), user_id="u" if n % 3 else "v"))
        assert sum(at_once(store.target, [("clear_user", {"user_id": "u"})] * 4)) == 20
        await absent(provider, "c1")
        assert (await provider.get_stats("v"))["user_conversations"] == 10
