"""Search: the rule by examples, its bounds, and what stands between it and a store."""

import asyncio
from base64 import b64decode, b64encode
from time import process_time

import pytest
from jaf_memory_testing.samples import said

from jaf_memory_core import (
    BackendProvider,
    MemoryConfig,
    MemoryInvalidInputError,
    MemoryQuery,
    MemorySession,
    MemoryStorageError,
    Message,
    MessageHits,
    MessageSearch,
    Processor,
    codec,
    create_in_memory_provider,
    provider,
    stretches,
)
from jaf_memory_core.backend import Backend
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.records import Damaged
from jaf_memory_core.search import EXCERPT, excerpt, phrases

SAYS = [
    ("hello", "Hello, World!", True),
    ("world hel", "Hello, World!", True),
    ("hel world", "Hello, World!", False),
    ("wor", "sword", False),
    ('"hello world"', "hello, world", True),
    ('"world hello"', "hello, world", False),
    ('"hello wor"', "hello world", False),
    ('"hello wor', "hello world", True),
    ('"hello" wor', "hello my world", True),
    ("caf", "café", True),
    ("cafe", "café", False),
    ("CAFÉ", "cafe\u0301", True),
    ("strasse", "STRAẞE", True),
    ("σας", "ΣΑΣ", True),
    ("fine", "ﬁne", True),
    ("12", "１２", True),
    ("coop", "co\u00adop", True),
    ("京", "東京都に", True),
    ("東京", "東の京", False),
    ("서울", "서울에서", True),
    ("กรุง", "ไปกรุงเทพ", True),
    ("हिन्दी", "हिन्दी में", True),
    ("🎉", "party🎉🎉", True),
    ("👍", "👍🏽", True),
    ("👍🏽", "👍 🎉", False),
    ("50%", "50 percent", True),
    ("foo_bar", "bar foo", True),
    ('"foo_bar"', "bar foo", False),
    ("a\\b", "a/b", True),
    ("x*", "xyz", True),
    ("it's", "IT'S", True),
    ("not NEAR(x)", "near x, not y", True),
    ("%", "50%", False),
    ('""', '""', False),
    ("", "", False),
    ("a\0b", "a b", True),
    ("\ud800x", "x", True),
]


@pytest.mark.parametrize(("query", "text", "found"), SAYS)
def test_rule(query, text, found):
    """What a text says, by one example each."""
    asked = phrases(query)
    assert (excerpt(asked, Message(role="user", content=text)) is not None) is found


def test_parts_and_calls():
    """Text parts are searched, each by itself; arguments of calls where that is asked for; nothing else."""
    message = Message(
        role="assistant",
        content=[
            {"type": "text", "text": "one two"},
            {"type": "image_url", "image_url": {"url": "hidden"}},
            {"type": "text", "text": "three"},
        ],
        tool_calls=[
            {"id": "c", "function": {"name": "hidden", "arguments": '{"city": "Paris"}'}},
            {"id": "d", "function": {"name": "f", "arguments": {"city": "Zürich"}}},
        ],
        name="hidden",
        note="hidden",
    )
    assert excerpt(phrases("two thr"), message) == "one two"
    for nowhere in ('"two three"', "hidden", "paris", "one hidden"):
        assert excerpt(phrases(nowhere), message) is None
    for city in ("paris", "Zürich"):
        assert excerpt(phrases(city), message, in_calls=True) is not None
    assert excerpt(phrases("hidden"), message, in_calls=True) is None


def test_excerpt():
    """An excerpt is on one line, shows the first of what was found, and is marked where the text goes on."""
    long = "hay\n" * 100 + "a needle" + "\thay" * 100
    shown = excerpt(phrases("needle"), Message(role="user", content=long))
    assert shown is not None
    assert "needle" in shown
    assert "\n" not in shown
    assert shown.startswith("… ")
    assert shown.endswith(" …")
    assert len(shown) <= EXCERPT + 4
    assert excerpt(phrases("x"), Message(role="user", content="  x ")) == "x"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        pytest.param("éa", "é" * 1_000_000, id="one long word"),
        pytest.param("ab", "a" + "\u0315\u0300\u0327" * 40_000 + " ab", id="marks on a letter"),
        pytest.param("ab", "ab " + "\u0301\uff9e" * 60_000, id="letters that become marks"),
        pytest.param(" ".join(f"w{n:03d}" for n in range(190)), "w" * 99 + " b" * 200_000, id="many words"),
    ],
)
def test_hostile(query, text):
    """What a text costs grows with its length, whatever stands in it, and no faster."""
    asked = phrases(query)
    before = process_time()
    excerpt(asked, Message(role="user", content=text + query.replace(" ", "x")))
    assert process_time() - before < 4


def test_many_marks():
    """A word with more marks on it than anybody reads is found with as many, and with fewer of those too many."""
    for marks in (30, 31, 500):
        text = Message(role="user", content="a" + "\u0301" * marks + "b c")
        assert (excerpt(phrases('"a' + "\u0301" * 40 + 'b"'), text) is not None) is (marks > 29)
    assert excerpt(phrases('"ab"'), Message(role="user", content="a" + "\u0301" * 40 + "b")) is None


async def filled(store, conversations=4, messages=5):
    """Fill a store, and return it."""
    for n in range(conversations):
        some = [said(f"word {n} {i}", message_id=f"m{i}") for i in range(messages)]
        await store.store_messages(f"c{n}", some, user_id="u")
    return store


async def all_hits(store, **fields):
    """All hits, and how many of the pages were not complete."""
    places, short, cursor = [], 0, None
    while True:
        hits = await store.search_messages(MessageSearch("word", cursor=cursor, **fields))
        places += [(hit.conversation_id, hit.position) for hit in hits]
        short += not hits.complete
        cursor = hits.cursor
        if cursor is None:
            return places, short


class Abreast(InMemoryBackend):
    """Reads several conversations at once."""

    name = "abreast"
    abreast = 3


@pytest.mark.parametrize("kind", [InMemoryBackend, Abreast])
def test_bound(monkeypatch, kind):
    """A search that has looked at so many messages stops, says so, and goes on at its cursor."""

    async def use():
        store = await filled(BackendProvider(kind()))
        whole, short = await all_hits(store)
        assert (len(whole), short) == (20, 0)
        monkeypatch.setattr(provider.search, "STRETCH", 3)
        assert await all_hits(store, limit=7) == (whole, 0)
        monkeypatch.setattr(provider.search, "MOST", 6)
        found, short = await all_hits(store)
        assert found == whole
        assert short > 1
        nothing = await store.search_messages(MessageSearch("nothing"))
        assert (list(nothing), nothing.complete) == ([], False)
        assert nothing.cursor is not None

    asyncio.run(use())


def test_active_meanwhile():
    """A conversation that gets messages between two pages brings nothing twice that was looked through before it."""

    async def use():
        store = await filled(create_in_memory_provider())
        places, cursor = [], None
        for turn in range(9):
            hits = await store.search_messages(MessageSearch("word", limit=3, cursor=cursor))
            places += [(hit.conversation_id, hit.position) for hit in hits]
            cursor = hits.cursor
            if cursor is None:
                break
            await store.append_messages(hits[-1].conversation_id, [said(f"more {turn}")])
        assert places == [(f"c{n}", i) for n in (3, 2, 1, 0) for i in (4, 3, 2, 1, 0)]

    asyncio.run(use())


def test_long_id():
    """Cursors of a conversation with the longest id lead on, whatever it is written in."""

    async def use():
        store = create_in_memory_provider()
        for n in "ab":
            await store.store_messages("😀" * 254 + n, [said("word"), said("word")])
        page = await store.search_messages(MessageSearch("word", limit=1))
        assert len(await store.search_messages(MessageSearch("word", cursor=page.cursor))) == 3
        newest = (await store.find_conversations(MemoryQuery(limit=1)))[0]
        assert len(await store.find_conversations(MemoryQuery().after(newest.cursor))) == 1

    asyncio.run(use())


class Sealed(Processor):
    """A processor that leaves nothing legible in the store."""

    def outgoing(self, message, _context):
        """Seal the text."""
        return Message(**{**message.dict(), "content": b64encode(message.content.encode()).decode()})

    def incoming(self, message, _context):
        """Open it."""
        return Message(**{**message.dict(), "content": b64decode(message.content).decode()})


def test_what_is_sealed():
    """Where a processor seals what is stored, the provider opens it and looks; the store's form is not searched."""

    async def use():
        backend = InMemoryBackend()
        store = BackendProvider(backend, processors=[Sealed()])
        await filled(store, 1, 2)
        (hit,) = await store.search_messages(MessageSearch("word 1"))
        assert hit.message.content == "word 0 1"
        sealed = b64encode(b"word 0 1").decode()
        assert await store.search_messages(MessageSearch(sealed)) == []

    asyncio.run(use())


class Torn(Abreast):
    """One of its conversations cannot be read."""

    name = "torn"

    async def tail(self, tail):
        """Refuse the page of one conversation."""
        if tail.conversation_id == "c1":
            raise codec.damaged("c1")
        return await super().tail(tail)

    async def find(self, query):
        """List another one as damaged."""
        found = await super().find(query)
        return [Damaged(codec.damaged("c2")) if one.conversation_id == "c2" else one for one in found]


def test_damaged():
    """A search that meets what cannot be read names it, or goes on behind it where the caller asks for that."""

    async def use():
        store = await filled(BackendProvider(Torn()))
        with pytest.raises(MemoryStorageError) as caught:
            await store.search_messages(MessageSearch("word"))
        assert caught.value.conversation_id == "c2"
        told = []
        hits = await store.search_messages(MessageSearch("word"), on_damaged=told.append)
        assert {hit.conversation_id for hit in hits} == {"c0", "c3"}
        assert [error.conversation_id for error in told] == ["c2", "c1"]

    asyncio.run(use())


class MadeAgain(Abreast):
    """One of its conversations is deleted, and made again by somebody else, between a list and its messages."""

    name = "made again"

    async def find(self, query):
        """List them, and then let that happen."""
        found = await super().find(query)
        if await self.remove("c1", scope="u"):
            await BackendProvider(self).store_messages("c1", [said("word")], user_id="v")
        return found


def test_made_again():
    """Nobody's messages are told as those of another who had a conversation of the same id."""

    async def use():
        store = await filled(BackendProvider(MadeAgain()), 3, 2)
        hits = await store.search_messages(MessageSearch("word"))
        assert [(hit.conversation_id, hit.user_id) for hit in hits] == [(f"c{n}", "u") for n in (2, 2, 0, 0)]

    asyncio.run(use())


class TornAtFirst(InMemoryBackend):
    """Has more than a page of conversations that cannot be read, which the default of `find` puts before each page."""

    name = "torn at first"
    find = Backend.find

    async def scan(self, query):
        """Tell of them before the others."""
        for n in range(stretches.HEADERS + 1):
            yield Damaged(codec.damaged(f"torn {n}"))
        async for one in super().scan(query):
            yield one


def test_many_damaged(monkeypatch):
    """A search ends behind any number of conversations that cannot be read, and names each once."""
    monkeypatch.setattr(stretches, "HEADERS", 2)

    async def use():
        store = await filled(BackendProvider(TornAtFirst()))
        told = []
        hits = await asyncio.wait_for(
            store.search_messages(MessageSearch("word", limit=50), on_damaged=told.append), 20
        )
        assert len(hits) == 20
        assert sorted(error.conversation_id for error in told) == ["torn 0", "torn 1", "torn 2"]

    asyncio.run(use())


class Measured(InMemoryBackend):
    """Counts the characters that are read for a search before any of them is looked at."""

    name = "measured"
    abreast = 32

    def __init__(self):
        super().__init__()
        self.answers = []

    async def tails(self, tails, room):
        """Note how much an answer has."""
        found = await Backend.tails(self, tails, room)
        self.answers.append((sum(stretches.size_of(page) for page in found), room))
        return found


def test_bounded_in_characters():
    """Of many large conversations, not more is read at once than there is room for, and one page."""
    large = "x" * 1_000_000

    async def use():
        backend = Measured()
        store = BackendProvider(backend)
        for n in range(40):
            await store.store_messages(f"c{n}", [said(large), said(f"word{n}")])
        hits = await store.search_messages(MessageSearch('"word0"'))
        assert [hit.conversation_id for hit in hits] == ["c0"]
        assert len(backend.answers) > 3
        assert all(size <= room + len(large) + 10 for size, room in backend.answers)

    asyncio.run(use())


def test_many_owners(monkeypatch):
    """Where owners are picked from a scan, they come page by page, each once."""
    monkeypatch.setattr(provider.users, "PAGE", 3)

    class Scanned(InMemoryBackend):
        name = "scanned"

        async def owners(self, after, limit):
            return None

    async def use():
        for backend in (Scanned(), InMemoryBackend()):
            store = BackendProvider(backend)
            for n in range(20):
                await store.store_messages(f"c{n}", [], user_id=f"u{n * 7 % 10}")
            assert [user async for user in store.iter_users()] == [f"u{n}" for n in range(10)]

    asyncio.run(use())


def test_session():
    """A session searches its own conversation, or those of its user; without one it searches no other."""

    async def use():
        store = await filled(create_in_memory_provider(), 3, 2)
        await store.store_messages("other", [said("word")], user_id="v")
        async with MemorySession(MemoryConfig(provider=store), conversation_id="c1", user_id="u") as one:
            assert isinstance(await one.search("word"), MessageHits)
            assert {hit.conversation_id for hit in await one.search("word")} == {"c1"}
            page = await one.search("word", everywhere=True, limit=4)
            rest = await one.search("word", everywhere=True, cursor=page.cursor)
            assert [hit.conversation_id for hit in page + rest] == ["c2", "c2", "c1", "c1", "c0", "c0"]
        async with MemorySession(MemoryConfig(provider=store), conversation_id="c1") as nobodys:
            with pytest.raises(MemoryInvalidInputError):
                await nobodys.search("word", everywhere=True)

    asyncio.run(use())
