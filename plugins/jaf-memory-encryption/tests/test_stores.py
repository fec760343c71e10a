"""On SQLite, Redis and PostgreSQL: shredding, rotation beside writers, and what somebody has moved in the store."""

import asyncio
import base64
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from cryptography.exceptions import InvalidTag
from jaf_memory_encryption import DataKeys, Encryption, KeyFile, KeyRing
from jaf_memory_encryption.encryption import _bound
from jaf_memory_testing.samples import talk
from msgspec.structs import replace
from services import postgres_servers, redis_servers

from jaf_memory_core import (
    MemoryStorageError,
    Message,
    create_memory_provider,
    create_memory_provider_from_env,
)
from jaf_memory_core.processors import Context
from jaf_memory_core.registry import load as load_spec
from jaf_memory_core.settings import load

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
CANARY, PLAIN = "CANARY-8d21-of", "PLAIN-TEXT-8d21"
WRITERS, TURNS, USERS = 8, 20, 5


class Sqlite:
    """A file, and what lies beside it."""

    def __init__(self, folder):
        self.folder = folder / "store"
        self.folder.mkdir()
        self.environ = {"JAF_MEMORY_TYPE": "sqlite", "JAF_SQLITE_PATH": str(self.folder / "chat.db")}

    def flush(self):
        """Write down what is still on its way."""
        with closing(sqlite3.connect(self.folder / "chat.db")) as db:
            db.execute("PRAGMA wal_checkpoint(FULL)").fetchall()

    def dump(self):
        """A dump."""
        with closing(sqlite3.connect(self.folder / "chat.db")) as db:
            return "\n".join(db.iterdump())

    def contents(self):
        """Everything that stands in files."""
        return {str(file): file.read_bytes() for file in self.folder.rglob("*") if file.is_file()}


class Redis(Sqlite):
    """A server with both kinds of persistence."""

    def __init__(self, server):
        self._server, self.folder = server, server.folder
        self.environ = {"JAF_MEMORY_TYPE": "redis", "JAF_REDIS_URL": f"redis://127.0.0.1:{server.port}/0"}

    def flush(self):
        """Write the RDB; the AOF is written already."""
        assert self._server.command("SAVE") == b"OK"

    def dump(self):
        """The RDB, which is what people copy."""
        self.flush()
        return (self.folder / "dump.rdb").read_bytes().decode("latin-1")


class Postgres(Sqlite):
    """A server with its heap and WAL."""

    def __init__(self, server):
        self._server, self.folder = server, server.data
        self.environ = {"JAF_MEMORY_TYPE": "postgres", "JAF_POSTGRES_CONNECTION_STRING": server.url()}

    def flush(self):
        """Write the heap down."""
        self._server.sql("CHECKPOINT")

    def dump(self):
        """pg_dump."""
        return self._server.dump()


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def store(request, tmp_path):
    """A store whose files this test alone fills."""
    if request.param == "sqlite":
        yield Sqlite(tmp_path)
    elif request.param == "redis":
        # What is compressed could hide what is looked for.
        settings = {"appendonly": "yes", "appendfsync": "always", "save": "3600 1", "rdbcompression": "no"}
        with redis_servers.single(settings) as server:
            yield Redis(server)
    else:
        with postgres_servers.serving(postgres_servers.machine()) as server:
            yield Postgres(server)


def sealed(environ, folder):
    """The same store with encryption switched on."""
    KeyFile(folder / "data-keys.db").make()
    return {
        **environ,
        "JAF_MEMORY_PLUGINS": "encryption",
        "JAF_ENCRYPTION_KEYS": f"old:{base64.b64encode(OLD).decode()}",
        "JAF_ENCRYPTION_DATA_KEYS": str(folder / "data-keys.db"),
    }


def shred(environ, user):
    """What an operator calls."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("JAF_")}
    line = [sys.executable, "-m", "jaf_memory_cli", "forget-user", user, "--shred", "--yes"]
    ran = subprocess.run(line, env={**kept, **environ}, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def found_in(contents, text):
    """In which files a text stands."""
    return [name for name, content in contents.items() if text.encode() in content]


def opened_by(keys, conversation, user):
    """By which of the keys that are left a conversation's messages open."""
    context = Context(conversation.conversation_id, user, None, "get_conversation")
    found = []
    for kept in keys.file.others("no ring"):
        key = keys.by_id(kept.id)
        for message in conversation.messages:
            _, key_id, body = message.content.split(":")
            # As if it had been sealed by that key, and as it was.
            for named in (key, key._replace(id=key_id)):
                try:
                    key.siv.decrypt(base64.b64decode(body), _bound(named, context, ("message", message.message_id)))
                    found.append(kept.user)
                except InvalidTag:
                    continue
    return found


def test_shredded(store, tmp_path):
    """A user's text stands in no dump, log or file, before and after; once shredded no other key opens any copy."""
    environ = sealed(store.environ, tmp_path)

    async def fill():
        async with await create_memory_provider_from_env(environ) as provider:
            for user in ("u", "v", None):
                messages = [Message(role="user", content=f"{CANARY} {user}") for _ in range(3)]
                (await provider.store_messages(f"c-{user}", messages, {"t": CANARY}, user_id=user)).unwrap()
        async with await create_memory_provider_from_env(store.environ) as plain:
            await plain.store_messages("plain", [Message(role="user", content=PLAIN)])
            return await plain.get_conversation("c-u"), await plain.get_conversation("c-v")

    before, others = asyncio.run(fill())
    store.flush()
    contents = {**store.contents(), "dump": store.dump().encode("latin-1", "replace")}
    # What is looked for would be found: plain text is, and the sealed one.
    assert len(found_in(contents, PLAIN)) >= 2
    assert len(found_in(contents, before.messages[0].content[30:60])) >= 2
    assert not found_in(contents, CANARY)
    keys = DataKeys(KeyRing({"old": OLD}), KeyFile(tmp_path / "data-keys.db"))
    with closing(keys.file):
        wrapped = keys.file.of_user("u").wrapped
        assert opened_by(keys, before, "u") == ["u"] * 3 * 2
        shred(environ, "u")
        assert opened_by(keys, before, "u") == []
        assert opened_by(keys, others, "v") == ["v"] * 3 * 2
    assert wrapped not in (tmp_path / "data-keys.db").read_bytes()
    store.flush()
    assert not found_in({**store.contents(), "dump": store.dump().encode("latin-1", "replace")}, CANARY)

    async def restore():
        async with await create_memory_provider_from_env(store.environ) as plain:
            assert await plain.get_conversation("c-u") is None
            (await plain.import_conversation(before)).unwrap()
        async with await create_memory_provider_from_env(environ) as provider:
            assert (await provider.get_conversation("c-v")).messages[0].content == f"{CANARY} v"
            with pytest.raises(MemoryStorageError, match="its data key is gone"):
                await provider.get_conversation("c-u")

    asyncio.run(restore())


def test_rotation_beside_writers(shared_environ, tmp_path):
    """Eight writers go on while the ring is rotated, and lose nothing: each message is there, and can be read."""
    name = shared_environ["JAF_MEMORY_TYPE"]
    config = load(load_spec(name).config, shared_environ)
    both = {"new": NEW, "old": OLD}
    file = KeyFile(tmp_path / "data-keys.db", make=True)

    async def write(number):
        keys = DataKeys(KeyRing(both), KeyFile(file.path))
        async with await create_memory_provider(name, config, processors=[Encryption(keys)]) as provider:
            for turn in range(TURNS):
                user = f"u{(number + turn) % USERS}"
                message = Message(role="user", content=f"{number}.{turn}")
                (await provider.append_messages(f"c-{user}", [message], user_id=user, create=True)).unwrap()
        keys.file.close()

    async def main():
        DataKeys(KeyRing({"old": OLD}), file).of_user("u0")
        writers = [asyncio.ensure_future(write(number)) for number in range(WRITERS)]
        rotated = 0
        while not all(writer.done() for writer in writers):
            rotated += await asyncio.to_thread(DataKeys(KeyRing(both), file).rotate)
            await asyncio.wait(writers, timeout=0.01)
        await asyncio.gather(*writers)
        assert rotated >= 1
        DataKeys(KeyRing(both), file).rotate()
        only = Encryption(DataKeys(KeyRing({"new": NEW}), file))
        async with await create_memory_provider(name, config, processors=[only]) as provider:
            found = [
                m.content for user in range(USERS) for m in await provider.get_recent_messages(f"c-u{user}", 1_000)
            ]
        assert sorted(found) == sorted(f"{number}.{turn}" for number in range(WRITERS) for turn in range(TURNS))

    with closing(file):
        asyncio.run(main())


def swapped(messages):
    """The texts of messages under one another's ids."""
    return tuple(replace(one, content=other.content) for one, other in zip(messages, messages[::-1], strict=True))


MOVED = {
    "conversation": lambda of: replace(of["a"], messages=of["b"].messages),
    "user": lambda of: replace(of["a"], messages=of["v"].messages),
    "message": lambda of: replace(of["a"], messages=swapped(of["a"].messages)),
    "owner": lambda of: replace(of["a"], user_id="v", metadata={**of["a"].metadata, "user_id": "v"}),
    "metadata": lambda of: replace(of["a"], metadata=of["b"].metadata),
}
"""What somebody who can write to the store puts into the place of a conversation."""


@pytest.mark.parametrize("moved", MOVED)
def test_what_was_moved_is_refused(shared_environ, tmp_path, moved):
    """Rows swapped between conversations, users and messages by whoever can write to the store are refused."""
    environ = sealed(shared_environ, tmp_path)

    async def main():
        async with await create_memory_provider_from_env(environ) as provider:
            for name, user in (("a", "u"), ("b", "u"), ("v", "v")):
                await provider.store_messages(name, talk(2), {"x": name}, user_id=user)
            async with await create_memory_provider_from_env(shared_environ) as plain:
                after = MOVED[moved]({name: await plain.get_conversation(name) for name in "abv"})
                await plain.delete_conversation("a")
                (await plain.import_conversation(after)).unwrap()
            with pytest.raises(MemoryStorageError, match="of conversation 'a'"):
                await provider.get_conversation("a")
            assert len((await provider.get_conversation("b")).messages) == len(talk(2))

    asyncio.run(main())
