"""Export, import and copies between providers, as a library."""

import asyncio
import io
import json
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from jaf_memory_core import (
    ConversationMemory,
    InMemoryConfig,
    MemoryConfigurationError,
    MemoryQuery,
    Message,
    create_in_memory_provider,
    digest,
)
from jaf_memory_core.transfer import LineError, compare, copy, export, import_conversations, read_lines, write_line

LONG_AGO = datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
HOSTILE = {
    "nul": "a\0b",
    "lone surrogate": "\ud800 and \udfff",
    "emoji": "👩‍👩‍👧 ¡hola!",
    "integer": 2**70,
    "float": 1e22,
    "negative zero": -0.0,
    "order": {"b": 1, "a": [None, True, 1, 1.0]},
    "line feeds": "a\nb\r\nc\u2028d",
}


def talk(key="talk", count=4, *, word="hello", user="ada", **fields):
    """Return a conversation whose messages have ids of their own."""
    messages = [
        Message("user" if number % 2 == 0 else "assistant", f"{word} {number}", message_id=f"{key}-{number}")
        for number in range(count)
    ]
    return ConversationMemory(key, user, messages, {"topic": "tests"}, **fields)


def line(**fields):
    """Return a line of a file, with what a conversation needs."""
    return json.dumps({"conversation_id": "talk", "messages": [], **fields}).encode() + b"\n"


def read(*lines):
    """Return the conversations of a file."""
    return list(read_lines(io.BytesIO(b"".join(lines))))


async def provider_with(*conversations, **settings):
    """Return an in-memory provider that holds conversations."""
    provider = create_in_memory_provider(InMemoryConfig(**settings))
    report = await import_conversations(provider, conversations)
    assert not report.refused
    return provider


async def everything(provider):
    """Return the digest of each conversation of a provider."""
    return {one.conversation_id: digest(one) async for one in provider.iter_conversations(MemoryQuery())}


# Lines.


def test_a_line_keeps_every_value():
    """A conversation with hostile values comes back from its line equal in every value, times and expiry included."""
    message = Message(
        "assistant",
        None,
        tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1e400'}}],
        **HOSTILE,
    )
    given = ConversationMemory(
        'a:b/{*}"\u2028',
        "ada",
        [message, Message("user", HOSTILE["lone surrogate"])],
        HOSTILE,
        created_at=LONG_AGO,
        expires_at=LONG_AGO + timedelta(days=36500),
        ttl=12.5,
    )
    written = write_line(given)
    assert written.count(b"\n") == 1
    assert written.endswith(b"\n")
    (found,) = read(written)
    assert found == given
    assert json.loads(written)["digest"] == digest(given) == digest(found)


def test_a_text_file_is_read_as_a_binary_one():
    """A file that was opened as text, or begins with a byte order mark, or has empty lines, gives the same."""
    written = write_line(talk())
    assert list(read_lines(io.StringIO(written.decode()))) == read(written) == read(b"\xef\xbb\xbf\n  \n" + written)


def test_messages_without_an_id_get_the_same_one_each_time():
    """An id that is derived depends on the conversation and the position only, and differs for each of both."""
    bare = [{"role": "user", "content": "hi"}, {"role": "user", "content": "hi"}]
    once, again, other = read(
        line(messages=bare),
        line(messages=[{**bare[0], "content": "ho"}, {**bare[1], "message_id": None}]),
        line(conversation_id="b", messages=bare),
    )
    ids = [message.message_id for one in (once, again, other) for message in one.messages]
    assert ids[:2] == ids[2:4]
    assert len(set(ids)) == 4
    assert ids[0] == "7c64138b0b9c5452b2c00985484a596a"


BAD = {
    "no JSON": (b'{"geheim": ', "is not JSON"),
    "no UTF-8": (b'{"geheim": "\xff"}', "is not UTF-8, from byte 13 on"),
    "raw surrogates": ('{"a": "\ud800"}'.encode(errors="surrogatepass"), "is not UTF-8"),
    "deep": (b"[" * 100_000, "is nested too deep"),
    "NaN": (line(metadata={"geheim": float("nan")}), "holds NaN, which JSON cannot hold"),
    "infinite": (line(metadata={"geheim": 1}).replace(b": 1}", b": 1e400}"), "metadata holds inf"),
    "digits": (line(metadata={"geheim": 1}).replace(b": 1}", b": " + b"9" * 5000 + b"}"), "more than 4300 digits"),
    "an array": (b'["geheim"]', "must be a JSON object, not an array; give one conversation a line (jq -c '.[]'"),
    "a number": (b"5", "must be a JSON object, not a number"),
    "a whole export": (b'{"conversations": ["geheim"]}', "jq -c '.conversations[]'"),
    "an unknown field": (line(metdata={"geheim": 1}), "has the unknown field 'metdata'; allowed are conversation_id,"),
    "no id": (b'{"messages": []}', "conversation_id is missing; it must be a string"),
    "an id of another kind": (line(conversation_id=5), "conversation_id is a number; it must be a string"),
    "an empty id": (line(conversation_id=""), "conversation_id: must have 1 to 255 characters, not 0"),
    "no messages": (b'{"conversation_id": "a"}', "messages is missing; it must be an array"),
    "messages of another kind": (line(messages={"geheim": 1}), "messages is an object; it must be an array"),
    "no message": (line(messages=[{"role": "user", "content": "ok"}, "geheim"]), "messages[1] is a string"),
    "no role": (line(messages=[{"content": "geheim"}]), "messages[0]: role is missing"),
    "content of another kind": (line(messages=[{"role": "user", "content": {"geheim": 1}}]), "messages[0]: content"),
    "no metadata": (line(metadata=["geheim"]), "metadata is an array; it must be an object"),
    "no time": (line(created_at="geheim"), "created_at is no time; write it as 2024-"),
    "no offset": (line(expires_at="2024-05-15T15:00:00"), "expires_at has no offset from UTC"),
    "no ttl": (line(ttl=-1), "ttl: Input should be greater than 0"),
    "another digest": (line(digest="0" * 64), "conversation 'talk' is not what its digest says"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named_without_its_content(name):
    """The error of a bad line says its number and what is wrong, and neither repeats nor keeps anything of it."""
    bad, said = BAD[name]
    with pytest.raises(LineError) as caught:
        read(line(), b"\n", bad)
    assert caught.value.line == 3
    assert str(caught.value).startswith("line 3: ")
    assert said in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_bad_lines_can_be_passed_over():
    """With `on_error` a bad line is told, and what stands behind it is read."""
    told = []
    found = list(read_lines(io.BytesIO(line() + b"no\n" + line(conversation_id="b")), on_error=told.append))
    assert [one.conversation_id for one in found] == ["talk", "b"]
    assert [error.line for error in told] == [2]


def test_a_digest_counts_only_where_the_ids_came_too():
    """A digest, which covers ids, is not held against a line whose messages have none."""
    (found,) = read(line(messages=[{"role": "user", "content": "hi"}], digest="0" * 64))
    assert len(found.messages) == 1


# Import and export.


def test_an_export_can_be_imported():
    """What is exported and imported elsewhere is equal there, with its times, expiry and digests."""

    async def main():
        later = datetime.now(UTC) + timedelta(days=1)
        source = await provider_with(talk(created_at=LONG_AGO, expires_at=later, ttl=90.0), talk("b", user=None))
        lines = [one async for one in export(source)]
        target = create_in_memory_provider()
        report = await import_conversations(target, read(*lines))
        assert (report.conversations, report.messages_added, report.messages_held) == (2, 8, 0)
        assert await everything(target) == await everything(source)
        found = await target.get_conversation("talk")
        assert (found.created_at, found.expires_at, found.ttl) == (LONG_AGO, later, 90.0)
        assert [one async for one in export(target)] == lines

    asyncio.run(main())


OLDER = (
    '{"conversation_id":"chat","user_id":"ann","messages":[{"role":"user","content":"Grüße","message_id":"m0"},'
    '{"role":"assistant","content":"Hello!","message_id":"m1"}],"metadata":{"title":"A trip","user_id":"ann"},'
    '"created_at":"2026-11-29T13:19:05.243852+00:00","expires_at":"2121-12-23T18:39:05.243942+00:00",'
    '"ttl":3000000000.0,"digest":"296d032ac3e7eedfd31108f2d262e711aeb8fa5f81201c26b76b4e35c63c15be"}\n'
)
"""A line as version 0.1.0 wrote it. It never changes: files of such lines are out there."""


def test_an_older_line_is_read():
    """A line that knows no activity is imported with all that it has; its last activity is the import."""

    async def main():
        provider, now = await provider_with(*read(OLDER.encode())), datetime.now(UTC)
        found = await provider.get_conversation("chat")
        assert digest(found) == json.loads(OLDER)["digest"]
        assert found.created_at == datetime(2026, 11, 29, 13, 19, 5, 243852, UTC)
        assert (found.expires_at, found.ttl) == (datetime(2121, 12, 23, 18, 39, 5, 243942, UTC), 3e9)
        assert found.created_at != found.active_at == found.updated_at
        assert abs(now - found.active_at) < timedelta(minutes=5)

    asyncio.run(main())


def test_a_list_is_the_same_after_a_move():
    """A list stands in the same order, with the same times, after a restore of an export and after a copy."""

    async def main():
        hours = [LONG_AGO + timedelta(hours=hour) for hour in range(9)]
        given = [
            talk(key, created_at=hours[0], active_at=hours[active], updated_at=hours[updated])
            for key, active, updated in (("b", 3, 8), ("c", 1, 1), ("a", 2, 7))
        ]
        source = await provider_with(*given)
        restored = await provider_with(*read(*[one async for one in export(source)]))
        copied = create_in_memory_provider()
        assert (await copy(source, copied, verify=True)).verified == 3
        for provider in (source, restored, copied):
            listed = await provider.find_conversations(MemoryQuery())
            assert [(one.conversation_id, one.active_at, one.updated_at) for one in listed] == [
                ("b", hours[3], hours[8]),
                ("a", hours[2], hours[7]),
                ("c", hours[1], hours[1]),
            ]

    asyncio.run(main())


def test_an_import_adds_nothing_twice():
    """Importing again adds nothing; importing a file that has grown adds what is new, with ids or without."""

    async def main():
        provider = create_in_memory_provider()
        bare = [{"role": "user", "content": str(number)} for number in range(5)]
        for count, added, held in ((3, 3, 0), (3, 0, 3), (5, 2, 3)):
            report = await import_conversations(provider, read(line(messages=bare[:count], user_id="ada")))
            assert (report.conversations, report.messages_added, report.messages_held) == (1, added, held)
        found = await provider.get_conversation("talk")
        assert [message.content for message in found.messages] == list("01234")
        assert found.user_id == "ada"

    asyncio.run(main())


def test_what_has_expired_stays_behind():
    """A conversation that has expired is not imported, and counted."""

    async def main():
        provider = create_in_memory_provider()
        report = await import_conversations(provider, [talk(expires_at=LONG_AGO), talk("b")])
        assert (report.conversations, report.expired) == (1, 1)
        assert list(await everything(provider)) == ["b"]

    asyncio.run(main())


def test_a_refused_conversation_does_not_stop_an_import():
    """A conversation that conflicts is refused with its reason and stays as it is; the others are imported."""

    async def main():
        provider = await provider_with(talk(word="geheim"))
        before = await everything(provider)
        report = await import_conversations(provider, [talk(word="other"), talk("b"), talk("c", user="bob")])
        ((key, reason),) = report.refused
        assert key == "talk"
        assert "other content" in reason
        assert "geheim" not in reason
        assert report.conversations == 2
        assert (await everything(provider))["talk"] == before["talk"]

    asyncio.run(main())


def test_a_report_tells_how_far_an_import_came():
    """A bad line ends an import with its error, and the report that was handed in says what was done before."""

    async def main():
        from jaf_memory_core.transfer.reports import Imported

        report = Imported()
        lines = read_lines(io.BytesIO(write_line(talk()) + b"no\n"))
        with pytest.raises(LineError):
            await import_conversations(create_in_memory_provider(), lines, report=report)
        assert (report.conversations, report.messages_added) == (1, 4)

    asyncio.run(main())


def test_six_methods_suffice_for_an_import(six):
    """A provider with the six documented methods takes an import: owner in the metadata, nothing doubled."""

    async def main():
        for count, added, held in ((3, 3, 0), (5, 2, 3), (5, 0, 5)):
            report = await import_conversations(six, [talk(count=count, created_at=LONG_AGO)])
            assert (report.messages_added, report.messages_held, report.times_kept) == (added, held, False)
        report = await import_conversations(six, [talk(word="other")])
        assert len(report.refused) == 1
        found = await six.get_conversation("talk")
        assert found.messages == talk(count=5).messages
        assert found.metadata == {"topic": "tests", "user_id": "ada"}

    asyncio.run(main())


def test_what_a_provider_lacks_is_said(six):
    """Exporting or copying from a provider with six methods says which method is lacking."""

    async def main():
        with pytest.raises(
            MemoryConfigurationError, match="'SixProvider' does not offer iter_conversations, which export"
        ):
            await export(six).__anext__()
        with pytest.raises(MemoryConfigurationError, match="iter_conversations, which copy needs"):
            await copy(six, create_in_memory_provider())

    asyncio.run(main())


# Copies.


def test_a_copy_is_equal_and_can_be_repeated():
    """After a copy all digests and times are equal; copying again writes nothing."""

    async def main():
        source = await provider_with(talk(created_at=LONG_AGO), talk("b"), talk("c", 0))
        target = create_in_memory_provider()
        report = await copy(source, target, verify=True)
        assert (report.conversations, report.messages_added, report.unchanged) == (3, 8, 0)
        assert (report.verified, len(report.differing)) == (3, 0)
        before = await target.get_conversation("talk")
        assert before.created_at == LONG_AGO
        report = await copy(source, target, verify=True)
        assert (report.conversations, report.messages_held, report.unchanged, report.verified) == (3, 8, 3, 3)
        assert await target.get_conversation("talk") == before

    asyncio.run(main())


def test_a_copy_goes_on_with_what_has_grown():
    """Messages that the source got since the last copy are added to the copy, and only they."""

    async def main():
        source, target = await provider_with(talk(), talk("b")), create_in_memory_provider()
        await copy(source, target)
        await source.append_messages("talk", [Message("user", "more")], {"more": True})
        await asyncio.sleep(0.003)  # so that nothing is equal by being rounded
        report = await copy(source, target, verify=True)
        assert (report.messages_added, report.unchanged, report.verified) == (1, 1, 2)
        assert await everything(source) == await everything(target)

    asyncio.run(main())


CONFLICTS = {
    "other messages": (talk(word="geheim"), "it holds other messages"),
    "more messages": (talk(count=6), "it holds 2 more messages"),
    "another owner": (talk(user="bob"), "it belongs to somebody else"),
    "no owner": (talk(user=None), "it holds the same messages, but other metadata or no owner"),
    "other metadata": (
        ConversationMemory("talk", "ada", talk(count=3).messages, {"topic": "geheim"}),
        "it holds other metadata",
    ),
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_a_copy_overwrites_nothing(name):
    """A conversation of the same id with other content is a conflict with its reason, and stays as it is."""
    standing, said = CONFLICTS[name]

    async def main():
        source, target = await provider_with(talk(), talk("b")), await provider_with(standing)
        before = await target.get_conversation("talk")
        report = await copy(source, target, verify=True)
        ((key, reason),) = report.refused
        assert key == "talk"
        assert said in reason
        assert "geheim" not in reason
        assert report.conversations == report.verified == 1
        assert [key for key, _ in report.differing] == ["talk"]
        assert await target.get_conversation("talk") == before

    asyncio.run(main())


def test_a_copy_without_resume_takes_nothing_that_stands():
    """With `resume=False` a conversation that stands in the destination is a conflict, even an equal one."""

    async def main():
        source, target = await provider_with(talk(), talk("b")), await provider_with(talk())
        report = await copy(source, target, resume=False)
        assert list(report.refused) == [("talk", "it stands in the destination already")]
        assert report.conversations == 1

    asyncio.run(main())


def test_a_copy_of_one_user():
    """A query chooses what is copied and compared."""

    async def main():
        source, target = await provider_with(talk(), talk("b", user="bob")), create_in_memory_provider()
        report = await copy(source, target, query=MemoryQuery(user_id="bob"), verify=True)
        assert (report.conversations, report.verified) == (1, 1)
        assert list(await everything(target)) == ["b"]

    asyncio.run(main())


def test_comparing_finds_what_differs():
    """Comparing reports conversations that are missing, changed or shorter in the destination, and only those."""

    async def main():
        times = {"created_at": LONG_AGO, "active_at": LONG_AGO}
        source = await provider_with(talk(**times), talk("b"), talk("c"), talk("d"))
        target = await provider_with(talk(**times), talk("b", word="other"), talk("c", 3), talk("e"))
        report = await compare(source, target)
        assert report.verified == 1
        assert [key for key, _ in report.differing] == ["b", "c", "d"]

    asyncio.run(main())


@pytest.mark.parametrize("name", ["created_at", "active_at", "updated_at", "expires_at"])
def test_comparing_finds_another_time(name):
    """Comparing names the time of a conversation that is another one; what a store rounds to milliseconds is equal."""

    async def main():
        later = datetime.now(UTC) + timedelta(days=1)
        times = {"created_at": LONG_AGO, "active_at": LONG_AGO, "updated_at": later, "expires_at": later}
        source = await provider_with(talk(**times))
        rounded = {**times, name: times[name] - timedelta(milliseconds=1)}
        assert (await compare(source, await provider_with(talk(**rounded)))).verified == 1
        other = {**times, name: times[name] - timedelta(milliseconds=3)}
        report = await compare(source, await provider_with(talk(**other)))
        assert list(report.differing) == [("talk", f"it has another {name} in the destination")]
        assert report.verified == 0

    asyncio.run(main())


def test_comparing_finds_a_change_that_was_not_copied():
    """What was changed in the source after a copy, without a message, is told by its time."""

    async def main():
        source, target = await provider_with(talk(), talk("b")), create_in_memory_provider()
        await copy(source, target)
        await asyncio.sleep(0.003)
        await source.set_expiry("talk", None)
        report = await compare(source, target)
        assert list(report.differing) == [("talk", "it has another updated_at in the destination")]

    asyncio.run(main())


def test_comparing_finds_an_expiry_that_is_lost():
    """Comparing tells of a conversation that would stay for ever, or no longer does."""

    async def main():
        times = {"created_at": LONG_AGO, "active_at": LONG_AGO}
        ends = talk(**times, expires_at=datetime.now(UTC) + timedelta(days=1))
        for one, other in ((ends, talk(**times)), (talk(**times), ends)):
            report = await compare(await provider_with(one), await provider_with(other))
            assert [key for key, _ in report.differing] == ["talk"]

    asyncio.run(main())


def test_a_cap_of_the_destination_is_told():
    """Messages that the destination's cap leaves out are counted, and the conversation counts as different."""

    async def main():
        source, target = await provider_with(talk(count=10)), create_in_memory_provider(InMemoryConfig(max_messages=4))
        report = await copy(source, target, verify=True)
        assert (report.messages_added, report.messages_trimmed, report.verified) == (4, 6, 0)
        assert dict(report.differing)["talk"].startswith("the destination keeps only 4 of 10 messages")

    asyncio.run(main())


def test_a_copy_into_six_methods(six):
    """A provider with the six documented methods can be copied to, verified, and copied to again."""

    async def main():
        source = await provider_with(talk(), talk("b"))
        for unchanged in (0, 2):
            report = await copy(source, six, verify=True)
            assert (report.conversations, report.unchanged, report.verified) == (2, unchanged, 2)

    asyncio.run(main())


class Endless:
    """A source that makes conversations as they are asked for, 100 kB each."""

    async def iter_conversations(self, _query=None):
        """Make them."""
        for number in range(200):
            yield talk(f"talk-{number}", 20, word="x" * 5_000)


def test_the_memory_does_not_grow_with_the_store(tmp_path):
    """Exporting, importing and copying 20 MB takes less than 4 MB of memory, one conversation after the other."""
    file = tmp_path / "export.jsonl"

    class Forgetful:
        async def get_conversation(self, _conversation_id):
            return None

        async def store_messages(self, _conversation_id, messages, _metadata):
            assert messages

    async def main():
        with file.open("wb") as target:
            async for one in export(Endless()):
                target.write(one)
        with file.open("rb") as source:
            report = await import_conversations(Forgetful(), read_lines(source))
        assert report.conversations == 200
        await copy(Endless(), Forgetful())

    tracemalloc.start()
    try:
        asyncio.run(main())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert file.stat().st_size > 20_000_000
    assert peak < 4_000_000
