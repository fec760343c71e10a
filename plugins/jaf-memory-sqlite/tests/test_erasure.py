"""What was erased is in no byte of the files, the write-ahead log included."""

import asyncio
import contextlib
import random
import sqlite3
import time

import pytest
from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider
from jaf_memory_sqlite.operations import erasure
from jaf_memory_testing.expectations import done
from jaf_memory_testing.samples import talk

from jaf_memory_core import Message

READ = """
    import pathlib, sys

    for file in pathlib.Path(sys.argv[1]).iterdir():
        content = file.read_bytes()
        for word in sys.argv[2:]:
            if word.encode() in content:
                print(word, "in", file.name)
"""
# In a process of its own: closing a file, here, would let go of the locks that SQLite has on it.


@pytest.fixture
def found(path, python):
    """Which words stand in the database's files."""
    return lambda *words: python(READ, path.parent, *words)


def secrets(user, start, count, size=300):
    """Messages of a user, each with two words to look for."""
    return [
        Message("user", f"TEXT-{user} " + "lorem ipsum " * (size // 12), message_id=f"ID-{user}-{n}")
        for n in range(start, start + count)
    ]


WORDS = ("TEXT-ann", "ID-ann", "META-ann", "ann@example.org", "CONV-ann")


async def fill(provider, rounds=30):
    """Conversations of three users that grow by turns, so that their rows lie among each other's."""
    for round_ in range(rounds):
        for user in ("ann", "ben", "cleo"):
            done(
                await provider.append_messages(
                    f"CONV-{user}-{round_ % 3}",
                    secrets(user, round_ * 10, 3, size=(60, 900, 6000)[round_ % 3]),
                    {"note": f"META-{user}", "trace_id": f"META-{user}-trace"},
                    user_id=f"{user}@example.org",
                    create=True,
                )
            )


def test_a_user(use, found):
    """Once a user's conversations are cleared, no word and no id of theirs is in the files; the others' are."""

    async def work(provider):
        await fill(provider)
        assert found("TEXT-ann")
        assert await provider.clear_user_conversations("ann@example.org") == 3
        assert not found("TEXT-ann", "META-ann")  # still open: nothing in the write-ahead log either
        assert found("TEXT-ben")

    use(work)
    assert not found(*WORDS)
    assert found("TEXT-ben")


@pytest.mark.parametrize("erase", ["delete", "purge", "replace", "truncate", "cap", "expired", "messages"])
def test_other_ways(use, found, erase):
    """Texts that were deleted, have expired, were replaced, cut off or capped are not in the files."""

    async def work(provider):
        await provider.store_messages("c", [*secrets("ann", 0, 3), *talk(2)])
        await provider.store_messages("other", talk(5))
        if erase == "delete":
            assert await provider.delete_conversation("c")
        elif erase == "purge":
            await provider.set_expiry("c", 0.001)
            await asyncio.sleep(0.01)
            assert await provider.purge_expired() == 1
        elif erase == "expired":
            await provider.set_expiry("c", 0.001)
            await asyncio.sleep(0.01)
            done(await provider.store_messages("c", talk(1)))
        elif erase == "replace":
            done(await provider.store_messages("c", talk(2)))
        elif erase == "truncate":
            assert await provider.truncate_conversation_after("c", "ID-ann-0") == 5
        elif erase == "messages":
            assert await provider.delete_messages("c", ["ID-ann-0", "ID-ann-1", "ID-ann-2"]) == 3
        else:
            done(await provider.append_messages("c", talk(3, start=2)))

    use(work, max_messages=5)
    assert not found("TEXT-ann", "ID-ann")


def test_single_messages_among_many(use, found):
    """Of a message that was deleted no copy is left in the unused space of a page that its row once left."""
    dice = random.Random(1)
    words = {f"c{number}": [] for number in range(30)}

    async def work(provider):
        # By turns, so that pages are split in the middle; one transaction is enough for those of a round.
        for round_ in range(70):
            for said in words.values():
                said.append(f"WORD-{round_}-{dice.getrandbits(40):x}-")
            await asyncio.gather(
                *(
                    provider.append_messages(
                        name, [Message("user", said[-1] + "x" * dice.randrange(900), message_id=said[-1])], create=True
                    )
                    for name, said in words.items()
                )
            )
        for name, said in words.items():
            assert await provider.delete_messages(name, said[::3]) == 24

    use(work)
    assert not found(*(word for said in words.values() for word in said[::3]))
    assert found(words["c0"][1])


def test_a_reader_that_holds_an_old_state(path, use, found):
    """A reader in another process may keep the log from being emptied; that is done as soon as it ends."""

    async def work(provider):
        await fill(provider, 4)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM message").fetchone()
            assert await provider.clear_user_conversations("ann@example.org") == 3
            assert found("TEXT-ann")
            reader.execute("COMMIT")
        end = time.monotonic() + 10
        while found("TEXT-ann", "META-ann"):
            assert time.monotonic() < end
            await asyncio.sleep(erasure.AGAIN)

    use(work)


def test_rewritten_in_a_quiet_moment(path, use, monkeypatch):
    """After conversations were deleted the file is written anew once, when it is quiet, and shrinks by that."""
    monkeypatch.setattr(erasure, "QUIET", 0.2)

    async def work(provider):
        await fill(provider)
        done(await provider.store_messages("large", secrets("large", 0, 300, 4000)))
        assert path.with_name(f"{path.name}-wal").stat().st_size > 1_000_000
        await provider.delete_conversation("large")  # which writes the log into the file
        end = time.monotonic() + 10
        while path.stat().st_size > 1_000_000:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        assert (await provider.health_check())["metrics"]["free_size"] == 0
        assert len((await provider.get_conversation("CONV-ann-0")).messages) == 30
        # Not again at once.
        await provider.delete_conversation("CONV-ann-2")
        await asyncio.sleep(0.5)
        assert (await provider.health_check())["metrics"]["free_size"] > 0

    use(work)


def test_large_files_are_not_rewritten(path, use, monkeypatch):
    """A file beyond some size is left to its owner's VACUUM: writing it anew would hold up others for too long."""
    monkeypatch.setattr(erasure, "SMALL", 100_000)

    async def work(provider):
        await fill(provider)
        await provider.clear_user_conversations("ann@example.org")

    before = use(work) or path.stat().st_size
    assert before > 100_000
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA freelist_count").fetchone()[0] > 0


def test_what_cannot_be_tidied_is_tried_again(path, use):
    """A lock that keeps the file from being written anew does not harm the erasure, nor `close`."""

    async def work(provider):
        await fill(provider, 3)
        await provider.clear_user_conversations("ann@example.org")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await provider.close()
        other.execute("ROLLBACK")
        other.close()

    use(work)


def test_nothing_is_written_beside_the_file(path):
    """Sorting and rewriting use no temporary files, and close leaves nothing but the database."""

    def names():
        return {file.name for file in path.parent.iterdir()}

    async def work():
        async with await create_sqlite_provider(SqliteConfig(path=path)) as provider:
            await fill(provider, 3)
            await provider.clear_user_conversations("ann@example.org")
            for worker in provider.backend._workers():
                assert worker.db.execute("PRAGMA temp_store").fetchone() == (2,)
            assert names() <= {path.name, f"{path.name}-wal", f"{path.name}-shm"}

    asyncio.run(work())
    assert names() == {path.name}
