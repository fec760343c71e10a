"""What the writer knows of headers is what stands in the file, whoever has changed it."""

import sqlite3

import pytest
from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider
from jaf_memory_sqlite.connection import writer
from jaf_memory_sqlite.operations import headers, writes
from jaf_memory_testing.expectations import done
from jaf_memory_testing.samples import ids, talk

from jaf_memory_core import Success

BETWEEN = {
    "metadata": lambda one: one.update_metadata("c", {"a": 1}),
    "expiry": lambda one: one.set_expiry("c", 3600),
    "end": lambda one: one.set_expiry("c", 1e-6),
    "truncation": lambda one: one.truncate_conversation_after("c", "m1"),
    "deletion": lambda one: one.delete_messages("c", ["m1"]),
    "erasure": lambda one: one.delete_conversation("c"),
    "replacement": lambda one: one.store_messages("c", talk(1, "other")),
    "owner": lambda one: one.append_messages("c", talk(1, "owned"), user_id="u"),
    "labels": lambda one: one.append_messages("c", talk(1, "labelled"), {"b": 2}),
    "append": lambda one: one.append_messages("c", talk(2, "more")),
    "erasure of all": lambda one: one.clear_user_conversations("somebody"),
}


@pytest.fixture(params=["here", "in the thread"], autouse=True)
def place(request, monkeypatch):
    """Where small writes are done."""
    monkeypatch.setattr(writer, "QUICK", 60 if request.param == "here" else -60)


def holds(path, provider_record):
    """Whether the row of a conversation says what its messages are."""
    with sqlite3.connect(path) as db:
        row = db.execute(
            "SELECT version, message_count, size, gaps FROM conversation WHERE conversation_id = 'c'"
        ).fetchone()
        (size,) = db.execute(
            "SELECT sum(length(CAST(body AS BLOB))) FROM message JOIN conversation ON conversation.id = conversation "
            "WHERE conversation_id = 'c'"
        ).fetchone()
    db.close()
    return row[:3] == (provider_record.version, len(provider_record.messages), size)


def test_who_appends_again_reads_no_header(use, monkeypatch):
    """The header that an append has left is there for the next."""
    read = []
    original = writes.look_up
    monkeypatch.setattr(writes, "look_up", lambda *given, **how: read.append(given[1]) or original(*given, **how))

    async def work(provider):
        for n in range(4):
            done(await provider.append_messages("c", talk(2, start=2 * n), create=True))
        assert read == ["c"]
        assert ids((await provider.get_conversation("c")).messages) == [f"m{n}" for n in range(8)]

    use(work)


@pytest.mark.parametrize("whose", ["ours", "another's"])
@pytest.mark.parametrize("between", BETWEEN)
def test_whatever_changes_between(path, use, between, whose):
    """Between two appends anything may be changed, here or by another connection: the next goes on from there."""

    async def work(provider):
        done(await provider.append_messages("c", talk(3), create=True, user_id="u"))
        done(await provider.append_messages("c", talk(1, start=3)))
        if whose == "ours":
            await BETWEEN[between](provider)
        else:
            async with await create_sqlite_provider(SqliteConfig(path=path)) as other:
                await BETWEEN[between](other)
        before = await provider.get_conversation("c")
        result = done(await provider.append_messages("c", talk(2, "last"), create=True))
        after = await provider.get_conversation("c")
        kept = before.messages if before else ()
        assert after.messages == (*kept, *talk(2, "last"))
        assert (result.version, result.message_count) == (after.version, len(after.messages))
        assert after.version == (before.version + 1 if before else 1)
        assert after.metadata == (before.metadata if before else {})
        assert (after.ttl, after.user_id) == ((before.ttl, before.user_id) if before else (None, None))
        assert holds(path, after)

    use(work)


def test_what_was_rolled_back(path, use, monkeypatch):
    """What a transaction did that was undone is known no longer."""
    original, failures = writes.write, []

    def write(*given, **how):
        result = original(*given, **how)
        if failures:
            raise failures.pop()
        return result

    async def work(provider):
        done(await provider.append_messages("c", talk(2), create=True))
        monkeypatch.setattr(writes, "write", write)
        failures.append(sqlite3.OperationalError("database or disk is full"))
        # Where it was asked for it is done anew, in the thread.
        again = isinstance(await provider.append_messages("c", talk(2, start=2)), Success)
        result = done(await provider.append_messages("c", talk(2, start=4)))
        assert (result.version, result.message_count) == ((3, 6) if again else (2, 4))
        assert holds(path, await provider.get_conversation("c"))

    use(work)


def test_many_conversations(use, monkeypatch):
    """Of more conversations than are kept, all go on where they are."""
    monkeypatch.setattr(headers, "MOST", 3)

    async def work(provider):
        for n in range(4):
            for key in "abcdef"[: 6 - n]:
                done(await provider.append_messages(key, talk(1, start=n), create=True))
        assert [len((await provider.get_conversation(key)).messages) for key in "abcdef"] == [4, 4, 4, 3, 2, 1]
        assert len(provider.backend._writer.headers._kept) == 3

    use(work)
