"""Several processes on one store."""

from __future__ import annotations

from jaf_memory_core.codec import digest
from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expect import absent, done, whole
from jaf_memory_testing.expiring import let_expire
from jaf_memory_testing.processes import Process, at_once
from jaf_memory_testing.samples import ids, rich, talk
from jaf_memory_testing.store import Store


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
        """Sixteen processes may start at once on an empty store, and all that they store is there."""
        jobs = [("store_one", {"conversation_id": f"c{n}", "user_id": "u"}) for n in range(16)]
        assert at_once(store.target, jobs) == [1] * 16
        provider = await store.open()
        found = await provider.find_conversations(MemoryQuery(user_id="u"))
        assert sorted(one.conversation_id for one in found) == sorted(f"c{n}" for n in range(16))

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
                for _ in range(20 + 7 * n):
                    told = process.next()
                    assert told is not None, "the process ended by itself"
                    acknowledged += told[1]
                process.kill()
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
