"""What is sealed, what opens it, and what is refused."""

import asyncio
import base64
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from jaf_memory_encryption import DataKeys, Encryption, EncryptionSettings, KeyFile, KeyRing, WrappedKey
from jaf_memory_encryption.settings import ring_of
from jaf_memory_testing.samples import talk
from msgspec.structs import replace

from jaf_memory_core import (
    BackendProvider,
    ConversationMemory,
    Failure,
    InMemoryConfig,
    MemoryConfigurationError,
    MemoryConflictError,
    MemoryInvalidInputError,
    MemoryQuery,
    MemoryStorageError,
    Message,
    MessageSearch,
    create_memory_provider_from_env,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.settings import load

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
CANARY = "CANARY-19e2"


def over(backend, encryption):
    """A provider that seals."""
    return BackendProvider(backend, InMemoryConfig(), processors=[encryption])


def said(text=CANARY):
    """A message."""
    return Message(role="user", content=text)


class TestSealing:
    """What stands in the store, and what comes back."""

    def test_everything_comes_back(self, encryption):
        """All of a message and of metadata comes back equal; stored stand ids, owners, roles, and names of metadata."""

        async def main():
            backend = InMemoryBackend()
            provider = over(backend, encryption)
            whole = Message(
                role="assistant",
                content=None,
                tool_calls=[{"id": "1", "type": "function", "function": {"name": CANARY, "arguments": "{}"}}],
                further_field={CANARY: [1, 1.0, -0.0, 2**70, "\ud800", None]},
            )
            metadata = {"title": CANARY, "n": 1, "none": None}
            await provider.store_messages("c", [said(), whole], metadata, user_id="u")
            found = await provider.get_conversation("c")
            assert found.messages[1] == whole
            assert found.messages[0].content == CANARY
            assert dict(found.metadata) == {**metadata, "user_id": "u"}
            kept = await backend.read("c")
            assert CANARY not in repr(kept)
            assert [message.role for message in kept.messages] == ["user", "assistant"]
            assert set(kept.metadata) == set(metadata)
            assert all(value.startswith("jaf1:") for value in kept.metadata.values())

        asyncio.run(main())

    def test_what_was_sealed_before(self, keys):
        """What 0.1.0 has sealed opens, and the same is sealed to the same text."""
        key_id, name, user = "3489a8819e8fc54e", "c \u00e9\u2028/\U0001f600", "u \u00e9"
        wrapped = (
            "5fe869858f8dce1d379dabdceb03da7ee4209cc03bc4bd434056af4526583591f7ba33f45959b3ea818d7a6a1f41f3da95f4427a941"
            "83b312ea7bccc3585bbfdf90563b0b6b6ada90a9e0e92f5fdad40"
        )
        sealed = "YrtFp7fFrOxbGwECAa6+DoV3aInWbpgEMy9UX+9RFihDb/Tbv0P4ii2a3x/2xyrcuG5KLWPGY+tjVY5GnT4c7r1Gkm8="
        keys.file.add(WrappedKey(key_id, user, "old", bytes.fromhex(wrapped)))

        async def main():
            backend = InMemoryBackend()
            provider = over(backend, Encryption(keys))
            message = Message(role="user", content="said", message_id="m \u00e9")
            await provider.store_messages(name, [message], {"t\u00e9": 1}, user_id=user)
            kept = await backend.read(name)
            assert kept.messages[0].content == f"jaf1:{key_id}:{sealed}"
            assert dict(kept.metadata) == {"t\u00e9": f"jaf1:{key_id}:4T0aImGc6fFCL+J6bYYsx0/N9WXTH3SIX4aK"}
            assert (await provider.get_conversation(name)).messages[0] == message

        asyncio.run(main())

    def test_appends_stay_idempotent(self, encryption):
        """A repeated message is recognised, with and without its owner; another content under its id is a conflict."""

        async def main():
            provider = over(InMemoryBackend(), encryption)
            message = said()
            await provider.append_messages("c", [message], user_id="u", create=True)
            assert (await provider.append_messages("c", [message])).unwrap().added == 0
            assert (await provider.append_messages("c", [message], user_id="u")).unwrap().added == 0
            other = await provider.append_messages("c", [replace(message, content="other")])
            assert isinstance(other, Failure)
            assert isinstance(other.error, MemoryConflictError)

        asyncio.run(main())

    def test_one_text_looks_different_everywhere(self, encryption):
        """Equal texts are not equal where they stand: in two conversations, of two users, under two ids."""

        async def main():
            backend = InMemoryBackend()
            provider = over(backend, encryption)
            for name, user in (("a", "u"), ("b", "u"), ("c", "v"), ("d", None)):
                await provider.store_messages(name, [said(), said()], {"t": 1}, user_id=user)
            kept = [await backend.read(name) for name in "abcd"]
            texts = [message.content for record in kept for message in record.messages]
            texts += [record.metadata["t"] for record in kept]
            assert len(set(texts)) == 12

        asyncio.run(main())

    def test_filters_on_sealed_values_are_refused(self, keys):
        """A filter by a sealed value is refused with that reason; by a plain one it works."""

        async def main():
            provider = over(InMemoryBackend(), Encryption(keys, plain_metadata=["topic"]))
            await provider.store_messages("c", [said()], {"topic": "x", "title": "y"})
            assert len(await provider.find_conversations(MemoryQuery(metadata={"topic": "x"}))) == 1
            for query in (MemoryQuery(metadata={"title": "y"}), MemoryQuery(trace_id="t")):
                with pytest.raises(MemoryInvalidInputError, match="JAF_ENCRYPTION_PLAIN_METADATA"):
                    await provider.find_conversations(query)

        asyncio.run(main())

    def test_a_plain_value_that_looks_sealed(self, keys):
        """A text of the application's that only looks sealed comes back as it was."""

        async def main():
            provider = over(InMemoryBackend(), Encryption(keys, plain_metadata="*"))
            await provider.store_messages("c", [said("jaf1:a:b")], {"t": "jaf1:a:b"})
            found = await provider.get_conversation("c")
            assert (found.messages[0].content, found.metadata["t"]) == ("jaf1:a:b", "jaf1:a:b")

        asyncio.run(main())

    def test_other_operations_know_the_owner(self, keys, encryption):
        """Whatever writes without stating the owner seals for the conversation's own: nothing is sealed for nobody."""

        async def main():
            provider = over(InMemoryBackend(), encryption)
            first, second = said(), said()
            await provider.store_messages("c", [first], user_id="u")
            await provider.append_messages("c", [second])
            await provider.update_metadata("c", {"title": CANARY})
            await provider.mark_regeneration_point("c", first.message_id, {"reason": CANARY})
            await provider.revise_messages("c", {second.message_id: said("new")})
            await provider.fork_conversation("c", "d")
            await provider.import_conversation(replace(await provider.get_conversation("c"), user_id="u"))
            for name in "cd":
                assert [m.content for m in await provider.get_recent_messages(name)] == [CANARY, "new"]
                assert [m.content for m in await provider.get_messages(name, leading=1)] == [CANARY, "new"]
                assert (await provider.get_condensed_conversation(name)).conversation.metadata["title"] == CANARY
            assert keys.file.of_user("") is None

        asyncio.run(main())

    def test_a_search_opens_what_it_looks_through(self, encryption):
        """What is said is found though the store cannot read it, and only the own of a user."""

        async def main():
            provider = over(InMemoryBackend(), encryption)
            await provider.store_messages("c", [said("the red fox")], user_id="u")
            await provider.store_messages("d", [said("the red hen")], user_id="v")
            hits = await provider.search_messages(MessageSearch("red", user_id="u"))
            assert [hit.message.content for hit in hits] == ["the red fox"]

        asyncio.run(main())

    def test_an_owner_that_comes_later(self, encryption):
        """What was sealed before a conversation belonged to somebody can still be read, beside what came after."""

        async def main():
            provider = over(InMemoryBackend(), encryption)
            await provider.store_messages("c", [said("before")])
            await provider.append_messages("c", [said("after")], user_id="u")
            assert [m.content for m in await provider.get_recent_messages("c")] == ["before", "after"]

        asyncio.run(main())


class TestMoved:
    """What was put elsewhere behind the store's back does not open there."""

    @pytest.mark.parametrize(
        "moved",
        [
            lambda kept: replace(kept["a"], messages=kept["b"].messages),
            lambda kept: replace(kept["a"], metadata=kept["b"].metadata),
            lambda kept: replace(kept["a"], user_id="v"),
            lambda kept: replace(kept["a"], user_id=None),
            lambda kept: replace(kept["a"], messages=kept["v"].messages),
            lambda kept: replace(
                kept["a"],
                messages=tuple(
                    replace(one, content=other.content)
                    for one, other in zip(kept["a"].messages, reversed(kept["a"].messages), strict=True)
                ),
            ),
            lambda kept: replace(
                kept["a"], metadata=type(kept["a"].metadata)(x=kept["a"].metadata["y"], y=kept["a"].metadata["x"])
            ),
            lambda kept: replace(kept["a"], messages=(said("plain"),), message_count=1),
        ],
        ids=["conversation", "metadata", "user", "nobody", "another user's", "message", "key", "plain"],
    )
    def test_is_refused(self, encryption, moved):
        """Rows swapped between conversations, owners, messages and keys, and text that is not sealed, are refused."""

        async def main():
            backend = InMemoryBackend()
            provider = over(backend, encryption)
            for name, user in (("a", "u"), ("b", "u"), ("v", "v")):
                await provider.store_messages(name, talk(2), {"x": 1, "y": 2}, user_id=user)
            kept = {name: await backend.read(name) for name in "abv"}
            after = moved(kept)
            assert await backend.write(after, expected=kept["a"].stamp)
            with pytest.raises(MemoryStorageError, match="of conversation 'a'") as refused:
                await provider.get_conversation("a")
            assert refused.value.conversation_id == "a"
            assert CANARY not in str(refused.value)
            if after.metadata == kept["a"].metadata:
                with pytest.raises(MemoryStorageError, match="of conversation 'a'"):
                    await provider.get_recent_messages("a")

        asyncio.run(main())

    @pytest.mark.parametrize("text", ["jaf1:{id}:\xe9", "jaf1:{id}:A", "jaf1:{id}:", "jaf1:\ud800:AAAA", "jaf1:\xe9:"])
    def test_what_was_never_sealed_is_refused(self, keys, encryption, text):
        """A text that nobody can have sealed is refused like one that was altered, and not by an error of Python's."""

        async def main():
            backend = InMemoryBackend()
            provider = over(backend, encryption)
            await provider.store_messages("a", [said()], {"x": 1}, user_id="u")
            kept = await backend.read("a")
            altered = replace(kept.messages[0], content=text.format(id=keys.of_user("u").id))
            assert await backend.write(replace(kept, messages=(altered,)), expected=kept.stamp)
            with pytest.raises(MemoryStorageError, match="of conversation 'a'"):
                await provider.get_conversation("a")

        asyncio.run(main())

    def test_plain_text_where_it_is_accepted(self, keys):
        """While older conversations are still plain, they are read where a setting says so."""

        async def main():
            backend = InMemoryBackend()
            await BackendProvider(backend).store_messages("c", [said()], {"t": 1})
            with pytest.raises(MemoryStorageError, match="JAF_ENCRYPTION_ACCEPT_PLAIN"):
                await over(backend, Encryption(keys)).get_conversation("c")
            found = await over(backend, Encryption(keys, accept_plain=True)).get_conversation("c")
            assert (found.messages[0].content, found.metadata["t"]) == (CANARY, 1)

        asyncio.run(main())


class Hanging:
    """A key service that takes its time, or does not answer until it is told to."""

    def __init__(self, hangs=""):
        self.hangs, self.seconds, self.asked = hangs, 0, 0
        self.answers = threading.Event()

    def wrap(self, data_key, about):
        """Wrap."""
        return self._answer("wrap", data_key)

    def unwrap(self, wrapped, about):
        """Unwrap."""
        return self._answer("unwrap", wrapped)

    def _answer(self, name, key):
        self.asked += 1
        if name == self.hangs:
            self.answers.wait(60)
        time.sleep(self.seconds)
        return key[::-1]


async def longest_pause(work):
    """The longest time in which the event loop served nobody while something ran, and what came of that."""
    running = asyncio.ensure_future(work)
    longest, last = 0, time.perf_counter()
    while not running.done():
        await asyncio.sleep(0.005)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return longest, await running


def bring_a_copy(file, path):
    """Put a copy of a file of data keys into its place at once, as the documentation says."""
    new = path.with_suffix(".new")
    with closing(sqlite3.connect(file)) as db:
        db.execute("VACUUM INTO ?", (str(new),))
    new.replace(path)


class TestKeys:
    """The ring, the data keys, and their file."""

    def ring(self, **keys):
        """A ring."""
        return KeyRing(keys)

    @pytest.mark.parametrize(
        ("ring", "reason"),
        [({"old": NEW}, "is not the one that wrapped"), ({"other": OLD}, "has no key 'old'")],
    )
    def test_a_wrong_or_missing_key_is_an_error(self, keys, ring, reason):
        """With another key, or without it, reading and writing are refused; no history looks empty."""

        async def main():
            backend = InMemoryBackend()
            await over(backend, Encryption(keys)).store_messages("c", [said()], user_id="u")
            wrong = over(backend, Encryption(DataKeys(KeyRing(ring), keys.file)))
            for read in (wrong.get_conversation("c"), wrong.get_recent_messages("c")):
                with pytest.raises(MemoryStorageError, match=reason):
                    await read
            with pytest.raises(MemoryStorageError, match=reason):
                await wrong.find_conversations(MemoryQuery())
            assert reason in str((await wrong.append_messages("c", [said("new")])).error)

        asyncio.run(main())

    def test_another_file_of_data_keys(self, keys, tmp_path):
        """With the right ring and another file of data keys nothing opens."""

        async def main():
            backend = InMemoryBackend()
            await over(backend, Encryption(keys)).store_messages("c", [said()], user_id="u")
            other = KeyFile(tmp_path / "other.db", make=True)
            with closing(other), pytest.raises(MemoryStorageError, match="another file of data keys"):
                await over(backend, Encryption(DataKeys(keys.ring, other))).get_conversation("c")

        asyncio.run(main())

    def test_a_wrapped_key_opens_for_its_user_only(self, keys):
        """In the file of data keys, one user's key in another's place does not open."""
        mine, theirs = keys.of_user("u"), keys.of_user("v")
        with closing(sqlite3.connect(keys.file.path)) as db:
            db.execute("UPDATE data_key SET wrapped = (SELECT wrapped FROM data_key WHERE id = ?)", (mine.id,))
            db.commit()
        assert keys.of_user("u").id == mine.id
        with pytest.raises(LookupError, match="is not the one that wrapped"):
            keys.by_id(theirs.id)

    def test_rotation(self, keys):
        """Rotating wraps data keys anew and leaves messages alone; then the new key suffices, and the old does not."""

        async def main():
            backend = InMemoryBackend()
            provider = over(backend, Encryption(keys))
            message = said()
            for user in ("u", "v", None):
                await provider.store_messages(f"c-{user}", [message], user_id=user)
            before = [(await backend.read(f"c-{user}")).messages for user in ("u", "v", None)]
            both = DataKeys(KeyRing({"new": NEW, "old": OLD}), keys.file)
            assert (both.rotate(), both.rotate()) == (3, 0)
            assert keys.file.counts() == {"new": 3}
            assert [(await backend.read(f"c-{user}")).messages for user in ("u", "v", None)] == before
            rotated = over(backend, Encryption(DataKeys(KeyRing({"new": NEW}), keys.file)))
            assert (await rotated.append_messages("c-u", [message])).unwrap().added == 0
            assert (await rotated.get_conversation("c-v")).messages == (message,)
            fresh = over(backend, Encryption(DataKeys(KeyRing({"old": OLD}), keys.file)))
            with pytest.raises(MemoryStorageError, match="has no key 'new'"):
                await fresh.get_conversation("c-u")

        asyncio.run(main())

    def test_an_interrupted_rotation_goes_on(self, keys):
        """What a rotation has wrapped before it was interrupted stays, and running it again does the rest."""
        for number in range(5):
            keys.of_user(f"u{number}")
        both = DataKeys(KeyRing({"new": NEW, "old": OLD}), keys.file)
        replaced, whole = 0, both.file.replace

        def interrupted(before, after):
            nonlocal replaced
            replaced += 1
            if replaced == 3:
                raise KeyboardInterrupt
            return whole(before, after)

        both.file.replace = interrupted
        with pytest.raises(KeyboardInterrupt):
            both.rotate()
        both.file.replace = whole
        assert keys.file.counts() == {"new": 2, "old": 3}
        assert both.rotate() == 3

    def test_a_key_that_is_gone_is_not_used_any_more(self, keys):
        """Once another process has forgotten a user, this one neither reads nor seals by the user's old key."""
        before = keys.of_user("u")
        other = KeyFile(keys.file.path)
        with closing(other):
            assert other.forget("u")
        assert keys.by_id(before.id) is None
        assert keys.of_user("u").id != before.id

    def test_a_key_that_another_forgot_over_the_same_file(self, keys):
        """What is forgotten through the same `KeyFile`, or while it was closed, is not used any more either."""
        before = keys.of_user("u")
        assert DataKeys(keys.ring, keys.file).forget("u")
        assert keys.by_id(before.id) is None
        again = keys.of_user("u")
        keys.file.close()
        with closing(KeyFile(keys.file.path)) as other:
            assert other.forget("u")
        assert keys.of_user("u").id not in (before.id, again.id)

    def test_a_file_that_takes_the_place_of_another(self, keys, tmp_path):
        """A file that was moved away is refused while none is there, and one that is put in its place is used."""
        before, path = keys.of_user("u"), keys.file.path
        path.rename(tmp_path / "moved.db")
        with pytest.raises(MemoryStorageError, match="is not there"):
            keys.of_user("u")
        with closing(KeyFile(path, make=True)) as other:
            assert DataKeys(keys.ring, other).of_user("v")
        assert keys.by_id(before.id) is None
        (tmp_path / "moved.db").replace(path)
        assert keys.of_user("u").id == before.id

    def test_a_copy_for_reading(self, keys, tmp_path):
        """With a copy of another machine's file users who are in it are served, and no key is made or destroyed."""

        async def main():
            backend = InMemoryBackend()
            whole = over(backend, Encryption(keys))
            await whole.store_messages("c", [said()], user_id="u")
            path = tmp_path / "copy.db"
            file = KeyFile(path, read_only=True)
            here = over(backend, Encryption(DataKeys(keys.ring, file)))
            with closing(file):
                bring_a_copy(keys.file.path, path)
                (await here.append_messages("c", [said("here")], user_id="u")).unwrap()
                assert [m.content for m in await whole.get_recent_messages("c")] == [CANARY, "here"]
                refused = (await here.store_messages("d", [said()], user_id="v")).error
                assert "JAF_ENCRYPTION_READ_ONLY" in str(refused)
                assert file.of_user("v") is None
                for change in (file.forget, lambda user: file.replace(file.of_user(user), file.of_user(user))):
                    with pytest.raises(MemoryStorageError, match="is a copy for reading"):
                        change("u")
                await whole.store_messages("e", [said()], user_id="w")
                with pytest.raises(MemoryStorageError, match="data key is gone"):
                    await here.get_conversation("e")
                keys.forget("u")
                bring_a_copy(keys.file.path, path)
                assert (await here.get_conversation("e")).messages[0].content == CANARY
                with pytest.raises(MemoryStorageError, match="data key is gone"):
                    await here.get_conversation("c")

        asyncio.run(main())

    def test_a_file_that_is_gone_is_not_made_anew(self, keys, tmp_path):
        """Where the file of data keys is not there nothing is sealed by a new key; made anew it is only when told."""

        async def main():
            backend = InMemoryBackend()
            await over(backend, Encryption(keys)).store_messages("c", [said()])
            keys.file.close()
            keys.file.path.unlink()
            for file in (keys.file, KeyFile(tmp_path / "no folder" / "data-keys.db")):
                provider = over(backend, Encryption(DataKeys(keys.ring, file)))
                refused = await provider.append_messages("c", [said()])
                assert "jaf-memory keys init" in str(refused.error)
                assert not file.path.exists()
            with pytest.raises(MemoryStorageError, match="FileNotFoundError"):
                KeyFile(tmp_path / "no folder" / "data-keys.db", make=True).of_user("u")

        asyncio.run(main())

    def test_two_processes_agree_on_a_new_key(self, keys):
        """Of two that make a user's key at once, both use the one that stands."""
        with closing(KeyFile(keys.file.path)) as file:
            second = DataKeys(keys.ring, file)
            assert file.of_user("u") is None
            first = keys.of_user("u")
            assert second.file.add(keys.file.of_user("u")._replace(id="0" * 16)).id == first.id
            assert second.of_user("u").id == first.id

    def test_a_key_service(self, keys):
        """A KMS wraps and unwraps; of each data key it is asked once."""
        calls = []

        class Service:
            def wrap(self, data_key, about):
                calls.append("wrap")
                return data_key[::-1]

            def unwrap(self, wrapped, about):
                calls.append("unwrap")
                return wrapped[::-1]

        async def main():
            encryption = Encryption(DataKeys(KeyRing({"kms": Service()}), keys.file))
            provider = over(InMemoryBackend(), encryption)
            for name in "abc":
                await provider.store_messages(name, talk(3), user_id="u")
                assert len((await provider.get_conversation(name)).messages) == 3

        asyncio.run(main())
        assert calls == ["wrap", "unwrap"]

    @pytest.mark.parametrize("hangs", ["wrap", "unwrap"])
    def test_a_key_service_that_hangs(self, keys, hangs):
        """A KMS that does not answer stops nobody but who needs it: the event loop goes on, a write ends in time."""
        service = Hanging(hangs)

        async def main():
            ring = KeyRing({"kms": service}, timeout=0.5)
            provider = over(InMemoryBackend(), Encryption(DataKeys(ring, keys.file)))
            late, refused = await longest_pause(provider.store_messages("c", [said()], user_id="u"))
            assert isinstance(refused.error, MemoryStorageError)
            assert "'kms' of the ring" in str(refused.error)
            assert "TimeoutError" in str(refused.error)
            assert late < 0.4
            # While it hangs nobody waits for it again.
            started = time.perf_counter()
            assert isinstance(await provider.store_messages("d", [said()], user_id="v"), Failure)
            assert time.perf_counter() - started < 0.4
            assert service.asked == (1 if hangs == "wrap" else 2)
            service.answers.set()
            await asyncio.sleep(1.1)
            assert (await provider.store_messages("c", [said()], user_id="u")).unwrap().added == 1

        asyncio.run(main())

    def test_a_key_service_that_leaves_one_question_unanswered(self, keys):
        """One question that is never answered is that one's loss: once the KMS answers others, all are served."""
        service = Hanging("wrap")
        ring = KeyRing({"kms": service}, timeout=0.3)
        with pytest.raises(LookupError, match="TimeoutError"):
            ring.wrap(bytes(64), b"")
        service.hangs = ""  # the first still hangs
        time.sleep(0.4)
        for _ in range(3):
            _, wrapped = ring.wrap(bytes(64), b"")
            assert ring.unwrap("kms", wrapped, b"") == bytes(64)
        service.answers.set()

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
    def test_a_key_service_that_ends_its_thread(self, error):
        """Whatever a KMS raises is a key that cannot be had, and neither ends the program nor cancels who asks."""

        class Ending(Hanging):
            def _answer(self, name, key):
                raise error

        with pytest.raises(LookupError, match="cannot wrap"):
            KeyRing({"kms": Ending()}).wrap(bytes(64), b"")

    @pytest.mark.parametrize(
        "read",
        [
            lambda provider: provider.get_conversation("c"),
            lambda provider: provider.get_conversation_until_message("c", "last"),
            lambda provider: provider.get_recent_messages("c"),
            lambda provider: provider.get_messages("c", leading=1),
            lambda provider: provider.get_condensed_conversation("c"),
            lambda provider: provider.get_condensed_conversation("c", 1, leading=1),
            lambda provider: provider.find_conversations(MemoryQuery()),
            lambda provider: anext(provider.iter_conversations()),
            lambda provider: provider.search_messages(MessageSearch(CANARY)),
            lambda provider: provider.fork_conversation("c", "d"),
            lambda provider: provider.append_messages("c", [said()]),
            lambda provider: provider.update_metadata("c", {"x": 2}),
            lambda provider: provider.revise_messages("c", {"last": said()}),
            lambda provider: provider.mark_regeneration_point("c", "last"),
            lambda provider: provider.import_conversations(
                [ConversationMemory(conversation_id="c", messages=(said(),))]
            ),
        ],
        ids=lambda read: read.__code__.co_names[0],
    )
    def test_nothing_waits_in_the_event_loop(self, keys, read):
        """Whatever needs a key that a KMS is slow to unwrap, others go on meanwhile."""

        async def main():
            backend = InMemoryBackend()
            service = Hanging()
            first = over(backend, Encryption(DataKeys(KeyRing({"kms": service}), keys.file)))
            last = replace(said(), message_id="last")
            (await first.store_messages("c", [said(), said(), last], {"x": 1}, user_id="u")).unwrap()
            service.seconds = 0.5
            provider = over(backend, Encryption(DataKeys(KeyRing({"kms": service}), keys.file)))
            late, _ = await longest_pause(read(provider))
            assert late < 0.4
            assert service.asked == 3

        asyncio.run(main())

    def test_a_key_service_is_not_asked_again(self, keys):
        """When another process makes a key, or forgets one, a KMS is asked for nothing that stays as it was."""
        service = Hanging()
        held = DataKeys(KeyRing({"kms": service}), keys.file)
        stays, goes = held.of_user("u"), held.of_user("v")
        with closing(KeyFile(keys.file.path)) as other:
            DataKeys(held.ring, other).of_user("w")
            asked = service.asked
            assert held.of_user("u") is stays
            assert held.by_id(goes.id) is goes
            assert other.forget("v")
            assert held.by_id(goes.id) is None
            assert held.by_id(stays.id) is stays
        assert service.asked == asked

    @pytest.mark.parametrize("fails", ["wrap", "unwrap", "short"])
    def test_a_key_service_that_fails(self, keys, fails):
        """What a KMS raises, or gives in place of a data key, is our error, and nothing of its text is told."""

        class Service:
            def wrap(self, data_key, about):
                if fails == "wrap":
                    raise RuntimeError(CANARY)
                return data_key

            def unwrap(self, wrapped, about):
                if fails == "unwrap":
                    raise RuntimeError(CANARY)
                return wrapped[:5]

        async def main():
            provider = over(InMemoryBackend(), Encryption(DataKeys(KeyRing({"kms": Service()}), keys.file)))
            refused = (await provider.store_messages("c", [said()], user_id="u")).error
            assert isinstance(refused, MemoryStorageError)
            assert "'kms' of the ring" in str(refused)
            assert CANARY not in str(refused)

        asyncio.run(main())

    @pytest.mark.parametrize(
        ("entries", "reason"),
        [
            ([], "is empty"),
            (["secret"], "is written id:key"),
            (["a b:c2VjcmV0"], "is written id:key"),
            (["a:!!!"], "'a' of the ring is not base64"),
            (["a:c2VjcmV0"], "'a' has 6 bytes, and needs 32"),
            ([f"a:{base64.b64encode(OLD).decode()}"] * 2, "two keys of the id 'a'"),
        ],
    )
    def test_a_wrong_ring(self, entries, reason):
        """A ring that is not as it has to be is refused, and nothing of its keys is shown."""
        with pytest.raises(MemoryConfigurationError, match=reason) as refused:
            KeyRing.read(entries)
        assert "secret" not in str(refused.value)
        assert "c2VjcmV0" not in str(refused.value)

    def test_nobodys_key_is_not_destroyed(self, keys):
        """Without a user nothing is forgotten: the key that conversations of nobody share stays."""
        kept = keys.of_user(None)
        for nobody in ("", None):
            with pytest.raises(MemoryInvalidInputError, match="user_id"):
                keys.forget(nobody)
        assert keys.of_user(None).id == kept.id

    def test_settings_as_they_are_written(self, tmp_path):
        """A ring's file that begins with a byte order mark is read, and names after commas may have spaces before."""
        ring = tmp_path / "ring"
        ring.write_bytes(b"\xef\xbb\xbfold:" + base64.b64encode(OLD) + b"\r\n")
        named = {"JAF_ENCRYPTION_KEY_FILE": str(ring), "JAF_ENCRYPTION_PLAIN_METADATA": "topic, title,"}
        settings = load(EncryptionSettings, named)
        assert ring_of(settings).current == "old"
        assert settings.plain_metadata == ("topic", "title")

    def test_the_file_is_its_owners(self, keys):
        """The file of data keys can be read by its owner only."""
        keys.of_user("u")
        assert os.name == "nt" or keys.file.path.stat().st_mode & 0o777 == 0o600
        assert repr(OLD) not in repr(keys)


def variables(folder, **more):
    """Variables of a sealed SQLite store, whose file of data keys is there."""
    KeyFile(folder / "data-keys.db").make()
    return {
        "JAF_MEMORY_TYPE": "sqlite",
        "JAF_SQLITE_PATH": str(folder / "chat.db"),
        "JAF_MEMORY_PLUGINS": "encryption",
        "JAF_ENCRYPTION_KEYS": f"old:{base64.b64encode(OLD).decode()}",
        "JAF_ENCRYPTION_DATA_KEYS": str(folder / "data-keys.db"),
        **more,
    }


def command(environ, *words, status=0):
    """Run `jaf-memory`, and return what it says."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("JAF_")}
    line = [sys.executable, "-m", "jaf_memory_cli", *words]
    ran = subprocess.run(line, env={**kept, **environ}, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == status, ran.stdout + ran.stderr
    return " ".join((ran.stdout + ran.stderr).split()) if status else ran.stdout


async def filled(environ, users):
    """A store with a conversation for each user."""
    async with await create_memory_provider_from_env(environ) as provider:
        for user in users:
            (await provider.store_messages(f"c-{user}", [said(f"{CANARY} of {user}")], user_id=user)).unwrap()


class TestCommands:
    """`jaf-memory keys`, and `forget-user --shred`."""

    def test_rotate(self, tmp_path):
        """`keys rotate` wraps all data keys by the first of the ring, after which the old one may go."""
        environ = variables(tmp_path)
        asyncio.run(filled(environ, "uv"))
        made = command({}, "keys", "new").strip()
        assert "1" in command({**environ, "JAF_ENCRYPTION_KEYS": f"{made},{environ['JAF_ENCRYPTION_KEYS']}"}, "keys")
        again = command({}, "keys", "new").strip()  # on the same day, and both may stand in a ring
        both = {**environ, "JAF_ENCRYPTION_KEYS": f"{made},{again},{environ['JAF_ENCRYPTION_KEYS']}"}
        assert f"2 data keys wrapped anew by {made.partition(':')[0]}" in command(both, "keys", "rotate")
        assert f"{CANARY} of v" in command({**environ, "JAF_ENCRYPTION_KEYS": made}, "show", "c-v")
        ring = tmp_path / "ring"
        ring.write_text(f"# rotated\n{made}\n")
        by_file = {name: text for name, text in environ.items() if name != "JAF_ENCRYPTION_KEYS"}
        assert f"{CANARY} of u" in command({**by_file, "JAF_ENCRYPTION_KEY_FILE": str(ring)}, "show", "c-u")

    def test_shred(self, tmp_path):
        """A shredded user's text is in no file, and in a backup from before it is not to be had with all other keys."""
        environ = variables(tmp_path)
        asyncio.run(filled(environ, "uv"))
        backup = tmp_path / "backup.db"
        with closing(sqlite3.connect(tmp_path / "chat.db")) as db:
            db.execute("VACUUM INTO ?", (str(backup),))
        key = DataKeys(KeyRing({"old": OLD}), KeyFile(tmp_path / "data-keys.db"))
        wrapped = key.file.of_user("u").wrapped
        key.file.close()
        assert "and the user's data key" in command(environ, "forget-user", "u", "--shred", "--yes")
        files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        assert not [name for name, content in files.items() if wrapped in content]
        assert not [name for name, content in files.items() if CANARY.encode() in content]
        old = {**environ, "JAF_SQLITE_PATH": str(backup)}

        async def read():
            async with await create_memory_provider_from_env(old) as provider:
                assert (await provider.get_conversation("c-v")).messages[0].content == f"{CANARY} of v"
                with pytest.raises(MemoryStorageError, match="its data key is gone"):
                    await provider.get_conversation("c-u")

        asyncio.run(read())

    def test_without_the_file_of_data_keys_nothing_starts(self, tmp_path):
        """Where that file is not there no process starts, and no command makes one but `keys init`, once."""
        environ = variables(tmp_path)
        asyncio.run(filled(environ, "u"))
        (tmp_path / "data-keys.db").unlink()
        with pytest.raises(MemoryConfigurationError, match="jaf-memory keys init"):
            asyncio.run(create_memory_provider_from_env(environ))
        without = {**environ, "JAF_MEMORY_PLUGINS": ""}
        assert "keys init" in command(without, "forget-user", "u", "--shred", "--yes", status=2)
        assert not (tmp_path / "data-keys.db").exists()
        assert "made " in command(environ, "keys", "init")
        assert "is there already" in command(environ, "keys", "init", status=1)

    def test_without_a_ring_nothing_starts(self, tmp_path):
        """Where the ring is not set, or is set twice, the application does not start."""
        for change in ({"JAF_ENCRYPTION_KEYS": ""}, {"JAF_ENCRYPTION_KEY_FILE": "ring"}):
            with pytest.raises(MemoryConfigurationError, match="either JAF_ENCRYPTION_KEYS or"):
                asyncio.run(create_memory_provider_from_env(variables(tmp_path, **change)))


def test_on_every_store(environ, tmp_path):
    """On each store the text is sealed where it stands, and comes back."""
    if environ["JAF_MEMORY_TYPE"] == "memory":
        pytest.skip("nothing of it is stored anywhere")

    async def main():
        sealed = {name: text for name, text in variables(tmp_path).items() if "ENCRYPTION" in name or "PLUGINS" in name}
        async with await create_memory_provider_from_env({**environ, **sealed}) as provider:
            await provider.store_messages("c", [said()], {"title": CANARY}, user_id="u")
            assert (await provider.get_recent_messages("c"))[0].content == CANARY
        async with await create_memory_provider_from_env(environ) as plain:
            shown = await plain.get_conversation("c")
            assert CANARY not in repr(shown)
            assert shown.messages[0].content.startswith("jaf1:")

    asyncio.run(main())
    assert Path(tmp_path / "data-keys.db").is_file()
