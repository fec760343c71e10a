"""Damaged files, rows and values: one kind of error, which names the conversation, and no wrong answer."""

import asyncio
import contextlib
import json
import random
import re
import sqlite3

import pytest
from jaf_memory_sqlite import SqliteConfig, create_sqlite_provider, migrations
from jaf_memory_testing.expectations import done
from jaf_memory_testing.samples import talk

from jaf_memory_core import MemoryError, MemoryQuery, MemoryStorageError, Message, Success
from jaf_memory_core import provider as provider_parts
from jaf_memory_core import test_memory_provider_connection as check_connection

NAMES = [f"c{n}" for n in range(12)]
CONTENT = "CONTENT"
BODY_OF_C3 = (
    "UPDATE message SET body = {} WHERE id = (SELECT id << 32 FROM conversation WHERE conversation_id = 'c3') + 2"
)
HEADER_OF_C3 = "UPDATE conversation SET {} WHERE conversation_id = 'c3'"


@pytest.fixture
def stored(path, use):
    """Twelve conversations of six messages, of two users; each message tells whose it is, and which."""

    async def fill(provider):
        for name in NAMES:
            messages = [
                Message("user", f"{CONTENT} {name} {n} {'x' * 150}", message_id=f"{name}-{n}") for n in range(6)
            ]
            done(
                await provider.store_messages(
                    name, messages, {"name": name, "n": 1}, user_id="uv"[NAMES.index(name) % 2]
                )
            )

    use(fill)
    return path


async def answers(provider):
    """Every way of reading, and each way of writing, tried: what came of it."""
    every = MemoryQuery()
    calls = {
        "find": lambda: provider.find_conversations(every, on_damaged="skip"),
        "find headers": lambda: provider.find_conversations(MemoryQuery(include_messages=False), on_damaged="skip"),
        "find by metadata": lambda: provider.find_conversations(MemoryQuery(metadata={"n": 1}), on_damaged="skip"),
        "find strictly": lambda: provider.find_conversations(every),
        "iterate": lambda: listed(provider.iter_conversations(every, on_damaged="skip")),
        "iterate strictly": lambda: listed(provider.iter_conversations(every)),
        "stats": provider.get_stats,
        "health": provider.health_check,
        **{f"get {name}": lambda name=name: provider.get_conversation(name) for name in NAMES},
        **{f"recent {name}": lambda name=name: provider.get_recent_messages(name, 3) for name in NAMES},
        "append": lambda: provider.append_messages("c3", talk(1, "new-")),
        "held": lambda: provider.append_messages("c3", [Message("user", "other", message_id="c3-2")]),
        "amend": lambda: provider.update_metadata("c3", {"a": 1}),
        "fork": lambda: provider.fork_conversation("c3", "copy"),
        "truncate": lambda: provider.truncate_conversation_after("c3", "c3-4"),
        "store": lambda: provider.store_messages("c4", talk(1)),
        "delete": lambda: provider.delete_conversation("c3"),
        "clear": lambda: provider.clear_user_conversations("u"),
    }
    found = {}
    for name, call in calls.items():
        try:
            found[name] = await call()
        except MemoryError as error:
            found[name] = error
    return found


async def listed(conversations):
    """All of them."""
    return [one async for one in conversations]


def check(found):
    """Nothing is shown that was not stored, nothing of a conversation is left out, and no text holds content."""
    for name, answer in found.items():
        error = answer if isinstance(answer, MemoryError) else getattr(answer, "error", None)
        if error is not None:
            assert isinstance(error, MemoryError), name
            while error is not None:
                assert CONTENT not in str(error), name
                assert CONTENT not in repr(getattr(error, "args", "")), name
                error = error.__cause__
        if name.startswith(("find", "iterate")) and isinstance(answer, list):
            ids = [one.conversation_id for one in answer]
            assert len(set(ids)) == len(ids), name
            for one in answer:
                check_whole(name, one)
        if name.startswith("get ") and not isinstance(answer, MemoryError) and answer is not None:
            check_whole(name, answer)


def check_whole(name, conversation):
    """All six messages, in order, each its own conversation's; a single letter may differ: no sum is kept of it."""
    ids = [message.message_id for message in conversation.messages]
    if conversation.conversation_id in NAMES and ids:
        assert len(ids) == conversation.message_count == 6, name
        differing = sum(one != f"{conversation.conversation_id}-{n}" for n, one in enumerate(ids))
        assert differing <= 1, name


def opened_and_asked(path):
    """What all that comes to, from opening the file to closing it."""

    async def work():
        try:
            provider = await create_sqlite_provider(SqliteConfig(path=path, operation_timeout=5))
        except MemoryError as error:
            return {"open": error}
        async with provider:
            return await answers(provider)

    found = asyncio.run(work())
    health = asyncio.run(check_connection({"JAF_MEMORY_TYPE": "sqlite", "JAF_SQLITE_PATH": str(path)}))
    assert CONTENT not in str(health)
    return found


def flipped(content, chance):
    """One bit in some place is another."""
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


def cut(content, chance):
    """The file ends early."""
    return content[: chance.randrange(len(content))]


def zeroed(content, chance):
    """A stretch of the file was lost by the disk."""
    start, length = chance.randrange(len(content)), chance.choice([1, 16, 512, 4096, 9000])
    return content[:start] + bytes(min(length, len(content) - start)) + content[start + length :]


def spoilt(content, chance):
    """A stretch of the file was written over."""
    start, length = chance.randrange(len(content)), chance.choice([1, 16, 512, 4096])
    return content[:start] + chance.randbytes(min(length, len(content) - start)) + content[start + length :]


@pytest.mark.parametrize("damage", [flipped, cut, zeroed, spoilt])
def test_damaged_files(stored, damage):
    """Whatever happens to bytes of the file, every answer is a right one or an error of ours."""
    content = stored.read_bytes()
    for seed in range(12):
        stored.write_bytes(damage(content, random.Random(seed)))
        for name in ("-wal", "-shm"):
            stored.with_name(stored.name + name).unlink(missing_ok=True)
        check(opened_and_asked(stored))


VALUES = ["NULL", "5", "-1", "1.5", "'x'", "''", "x'ff00'", "9223372036854775807", "CAST(x'c3' AS TEXT)"]
COLUMNS = [
    *("conversation_id", "user_id", "incarnation", "version", "created_at", "updated_at", "listed_at"),
    "amended_at",
    *("expires_at", "ttl", "first_position", "message_count", "trimmed", "size", "largest", "trace_id", "metadata"),
]


@pytest.mark.parametrize("column", COLUMNS)
def test_damaged_rows(stored, column):
    """Whatever stands in a column of one conversation, all others are found, and only that one is told as damaged."""
    content = stored.read_bytes()
    for value in VALUES:
        stored.write_bytes(content)
        db = sqlite3.connect(stored)
        db.execute("PRAGMA foreign_keys = OFF")
        with contextlib.suppress(sqlite3.IntegrityError):
            db.execute(HEADER_OF_C3.format(f"{column} = {value}"))
        db.commit()
        db.close()
        found = opened_and_asked(stored)
        if column != "first_position":  # positions are kept nowhere else
            check(found)
        others = {one.conversation_id for one in found["iterate"]}
        assert others >= set(NAMES) - {"c3"}, value
        assert {one.conversation_id for one in found["find"]} >= set(NAMES) - {"c3"}, value
        assert isinstance(found["delete"], bool), value


@pytest.mark.parametrize("column", ["metadata", "listed_at", "updated_at", "size"])
@pytest.mark.parametrize("value", ["5", "1.5", "NULL", "x'7b7d'"])
def test_values_of_another_type(stored, use, column, value):
    """A damaged page can hold what the column would not take: lists and scans tell of it, and go on behind it."""
    with contextlib.closing(sqlite3.connect(stored)) as db:
        definition = "UPDATE sqlite_master SET sql = ? WHERE name = 'conversation'"
        (exact,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'conversation'").fetchone()
        db.execute("PRAGMA writable_schema = ON")
        db.execute(definition, (re.sub(rf"({column} +)(TEXT|INTEGER) +NOT NULL", r"\1BLOB", exact),))
        db.commit()
    with contextlib.closing(sqlite3.connect(stored)) as db:
        db.execute(HEADER_OF_C3.format(f"{column} = {value}"))
        db.execute("PRAGMA writable_schema = ON")
        db.execute(definition, (exact,))
        db.commit()

    async def work(provider):
        for query in (MemoryQuery(include_messages=whole, limit=n) for whole in (True, False) for n in (None, 20)):
            told, told_by_scan = [], []
            found = await provider.find_conversations(query, on_damaged=told.append)
            passed = await listed(provider.iter_conversations(query, on_damaged=told_by_scan.append))
            for conversations, errors in ((found, told), (passed, told_by_scan)):
                damaged = {error.conversation_id for error in errors}
                assert damaged <= {"c3"}
                assert {one.conversation_id for one in conversations} >= set(NAMES) - {"c3"}
                assert "c3" in damaged or value == "5"

    use(work)


BODIES = [
    "NULL",
    "5",
    "''",
    "'null'",
    "'[]'",
    "'{}'",
    """'{"role":"user"'""",
    """'{"role":5,"content":"CONTENT"}'""",
    "x'7bff'",
    "x'00'",
    "substr(body, 1, 40)",
    "replace(body, '\"', '')",
    "body || body",
    "body || ',' || body",
]


@pytest.mark.parametrize("body", BODIES)
def test_damaged_bodies(stored, body, caplog):
    """A body that cannot be read is told with its conversation's id by each read, and listings go on behind it."""
    db = sqlite3.connect(stored)
    with contextlib.suppress(sqlite3.IntegrityError):
        db.execute(BODY_OF_C3.format(body))
    db.commit()
    changed = db.total_changes
    db.close()
    found = opened_and_asked(stored)
    check(found)
    if not changed:
        return
    for name in ("get c3", "find strictly", "iterate strictly", "held", "fork"):
        error = getattr(found[name], "error", found[name])
        if name in ("held", "fork"):
            continue
        assert isinstance(error, MemoryStorageError), name
        assert error.conversation_id == "c3", name
        assert "conversation 'c3' is damaged" in str(error), name
        assert "delete it" in str(error), name
        assert error.provider == "sqlite", name
    for name in ("find", "iterate"):
        assert {one.conversation_id for one in found[name]} == set(NAMES) - {"c3"}, name
    assert "1 damaged conversations were left out: 'c3'" in caplog.text
    assert found["delete"] is True
    assert CONTENT not in caplog.text


PAGE = 4096
"""Bytes of a page of SQLite's."""


def test_a_damaged_page(path, use):
    """Where a page of the file is lost, lists and scans tell of whose it was, and go on behind it."""

    async def fill(provider):
        for key in "abc":
            texts = [Message("user", f"of-{key} " * 150, message_id=f"{key}{n}") for n in range(20)]
            assert await provider.store_messages(key, texts)

    use(fill)
    content = bytearray(path.read_bytes())
    starts = range(0, len(content), PAGE)
    lost = [start for start in starts if b"of-b of-b" in content[start : start + PAGE]]
    pages = [content[start : start + PAGE] for start in lost]
    assert pages
    for start in (
        start for start, page in zip(lost, pages, strict=True) if b"of-a" not in page and b"of-c" not in page
    ):
        content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)

    async def work(provider):
        for query in (MemoryQuery(limit=10), MemoryQuery(), MemoryQuery(limit=2)):
            told = []
            found = await provider.find_conversations(query, on_damaged=told.append)
            see(found, told)
        told = []
        see(await listed(provider.iter_conversations(on_damaged=told.append)), told)

    def see(found, told):
        # Where a's messages end is seen on b's page.
        assert [one.conversation_id for one in found] == ["c"]
        assert len(found[0].messages) == 20
        assert {error.conversation_id for error in told} <= {"a", "b"}
        assert "b" in {error.conversation_id for error in told}

    use(work)


def test_missing_messages(stored, use):
    """A conversation that lacks a row is damaged, and is not shown as a shorter one."""
    db = sqlite3.connect(stored)
    db.execute("DELETE FROM message WHERE message_id = 'c3-4'")
    db.commit()
    db.close()

    async def work(provider):
        for call in (
            provider.get_conversation("c3"),
            provider.get_recent_messages("c3", 3),
            provider.get_messages("c3", 5, 2),
            provider.find_conversations(MemoryQuery(conversation_id="c3")),
        ):
            with pytest.raises(MemoryStorageError, match="conversation 'c3' is damaged"):
                await call
        assert len(await provider.get_recent_messages("c3", 1)) == 1

    use(work)


def test_damage_ends_with_the_conversation(stored, use):
    """What is damaged can be deleted, and stored anew."""
    db = sqlite3.connect(stored)
    db.execute(HEADER_OF_C3.format("metadata = '{', version = 'x'"))
    db.commit()
    db.close()

    async def work(provider):
        refused = await provider.store_messages("c3", talk(1))
        assert "conversation 'c3' is damaged" in str(refused.error)
        assert await provider.delete_conversation("c3")
        assert isinstance(await provider.store_messages("c3", talk(1)), Success)

    use(work)


def test_a_view_of_one_user_tells_its_own_damage_only(stored, use):
    """Another user's damaged conversation is nobody's business."""
    db = sqlite3.connect(stored)
    db.execute(HEADER_OF_C3.format("metadata = '{'"))
    db.commit()
    db.close()

    async def work(provider):
        assert len(await provider.for_user("u").find_conversations(MemoryQuery())) == 6
        with pytest.raises(MemoryStorageError, match="'c3'"):
            await provider.for_user("v").find_conversations(MemoryQuery())

    use(work)


@pytest.mark.parametrize("read", ["get", "recent", "page", "find", "iterate", "stats", "append"])
def test_a_newer_version_is_refused_by_reads_too(stored, use, read):
    """What a newer version has upgraded while it was open is not misread: each read is refused, as each write is."""

    async def work(provider):
        calls = {
            "get": lambda: provider.get_conversation("c3"),
            "recent": lambda: provider.get_recent_messages("c3"),
            "page": lambda: provider.get_messages("c3", 4, 2),
            "find": lambda: provider.find_conversations(MemoryQuery()),
            "iterate": lambda: listed(provider.iter_conversations()),
            "stats": provider.get_stats,
            "append": lambda: provider.append_messages("c3", talk(1)),
        }
        await calls[read]()
        db = sqlite3.connect(stored)
        db.execute("PRAGMA user_version = 99")
        db.execute("UPDATE message SET body = ?", (json.dumps({"role": "user", "content": "misread"}),))
        db.commit()
        db.close()
        try:
            answer = await calls[read]()
            error = answer.error
        except MemoryStorageError as raised:
            error = raised
        assert f"has schema 99, this jaf-memory-sqlite knows schema {migrations.CURRENT}; upgrade" in str(error)

    use(work)


def test_no_owner(use, monkeypatch):
    """An owner that is no text is passed over, and the owners behind it are all told, on whichever page it stands."""
    monkeypatch.setattr(provider_parts.users, "PAGE", 2)

    async def work(provider):
        for n in range(6):
            done(await provider.store_messages(f"c{n}", talk(1), user_id=f"u{n}"))
        spoilt = "UPDATE conversation SET user_id = CAST(x'7531ff' AS TEXT) WHERE conversation_id = 'c2'"
        await provider.backend._write(lambda db: db.execute(spoilt))
        assert await listed(provider.iter_users()) == ["u0", "u1", "u3", "u4", "u5"]

    use(work)
