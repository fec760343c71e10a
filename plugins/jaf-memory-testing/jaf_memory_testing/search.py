"""Searching messages, against the rule written a second time; cursors as texts; and who owns conversations."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from jaf_memory_core.conversations import ConversationMemory, MemoryQuery, Summary
from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.hits import MessageHits, MessageSearch
from jaf_memory_core.messages import Message
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.records import Record, Tail
from jaf_memory_testing.checks import Checks, examples, needs
from jaf_memory_testing.expectations import done, let_expire, whole
from jaf_memory_testing.samples import FAR, at, kept, put, said, talk
from jaf_memory_testing.target import Store

Place = tuple[str, int]

WORDS = (
    *(
        "hello",
        "Hello",
        "HELLO",
        "hell",
        "héllo",
        "he\u0301llo",
        "world",
        "ﬁne",
        "fine",
        "straße",
        "STRASSE",
        "ΣΑΣ",
        "σας",
    ),
    *(
        "東京",
        "東京都",
        "京",
        "서울에서",
        "서울",
        "กรุงเทพ",
        "हिन्दी",
        "🎉",
        "🎉🎉",
        "👍🏽",
        "👍",
        "foo_bar",
        "foo-bar",
        "bar",
    ),
    *(
        "50%",
        "%",
        "_",
        "a\\b",
        "\\",
        "'",
        "it's",
        "x*",
        "*",
        "(AND",
        "NEAR/2",
        "-hello",
        "12",
        "1２",
        "co\u00adop",
        "\0",
        "\ud800",
    ),
)
"""What texts and queries are made of: words that are alike, and what other languages of queries take for a sign."""

texts = st.lists(st.sampled_from(WORDS), max_size=4).flatmap(
    lambda words: st.sampled_from((" ", "\n", ", ", "", "\u3000")).map(lambda between: between.join(words))
)
queries = st.one_of(
    texts,
    st.tuples(texts, texts).map(lambda two: f'{two[0]} "{two[1]}"'),
    texts.map(lambda text: f'"{text}'),
    st.sampled_from(('"', '""', '" "', "", 'hello "world hello" ')),
)


def _folded(text: str) -> str:
    seen = "".join(one for one in text if one not in "\u00ad\ufe0f\u200d")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())


def _alone(character: str) -> bool:
    """Whether it is a word by itself: of a script without spaces, or a picture."""
    name = unicodedata.name(character, "")
    scripts = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "EMOJI MODIFIER")
    return unicodedata.category(character) == "So" or name.startswith(scripts)


def _words(text: str) -> list[str]:
    kinds = groupby(
        _folded(text), lambda one: "one" if _alone(one) else "word" if unicodedata.category(one)[0] in "LNM" else ""
    )
    found: list[str] = []
    for kind, run in kinds:
        found += run if kind == "one" else ["".join(run)] if kind == "word" else []
    return found


def asked_for(query: str) -> list[str]:
    """What a query asks for, each as a text that the words of a message, each between two NULs, must hold."""
    asked: list[list[str]] = []
    pieces = query.split('"')
    for quoted, piece in zip([False, True] * len(pieces), pieces, strict=False):
        if quoted:
            asked.append(_words(piece))
            continue
        for chunk in piece.split():
            runs = groupby(_words(chunk), lambda word: len(word) == 1 and _alone(word))
            asked += [one for alone, run in runs for one in ([list(run)] if alone else [[word] for word in run])]
    needles = ["\0" + "\0".join(words) + "\0" for words in asked if words]
    closed = len(pieces) > 1 and len(pieces) % 2 and not _words(pieces[-1])
    return needles if closed else [*needles[:-1], *(last[:-1] for last in needles[-1:])]


def says(message: Message, query: str) -> bool:
    """Whether a text says all that a query asks for."""
    text = "\0" + "".join(f"{word}\0" for word in _words(str(message.content)))
    return all(needle in text for needle in asked_for(query))


async def searched(provider: BackendProvider, search: MessageSearch) -> list[Place]:
    """Where the messages stand that a search finds, page by page."""
    places: list[Place] = []
    while True:
        hits = await provider.search_messages(search)
        assert len(hits) <= search.limit
        assert hits.complete or hits.cursor is not None, "what is not complete goes on somewhere"
        places += [(hit.conversation_id, hit.position) for hit in hits]
        assert len(places) == len(set(places)), "a page repeats what was found before"
        if hits.cursor is None:
            return places
        search = replace(search, cursor=hits.cursor)


async def said_where(provider: BackendProvider, text: str, **fields: Any) -> list[Place]:
    """The same for a text."""
    return await searched(provider, MessageSearch(text, **fields))


def expected_places(records: Sequence[Record], query: str, user: str | None) -> list[Place]:
    """Where they must stand: newest conversation first, ties by id descending, and the newest message first."""
    by_id = sorted(records, key=lambda record: record.conversation_id, reverse=True)
    newest_first = sorted(by_id, key=lambda record: record.active_at, reverse=True)
    return [
        (record.conversation_id, record.first_position + index)
        for record in newest_first
        if user in (None, record.user_id)
        for index in reversed(range(len(record.messages)))
        if says(record.messages[index], query)
    ]


CHANGES = ("add", "add", "replace", "cut", "thin", "revise", "copy", "bring", "erase", "forget")
"""What may be done to a conversation."""


async def _change(provider: BackendProvider, change: str, key: str, message: Message) -> None:
    """Do it, where there is something to do it to."""
    there = await provider.get_conversation(key)
    user, first = f"u-{key}", None if there is None or not there.messages else there.messages[0].message_id
    if change == "add":
        done(await provider.append_messages(key, [message], user_id=user, create=True))
    elif change == "replace":
        done(await provider.store_messages(key, [message, said("fine", message_id="second")], user_id=user))
    elif change == "cut" and there is not None and there.messages:
        await provider.truncate_conversation_after(key, there.messages[-1].message_id)
    elif change == "thin" and there is not None and there.messages:
        await provider.delete_messages(key, [there.messages[len(there.messages) // 2].message_id])
    elif change == "revise" and first is not None:
        await provider.revise_messages(key, {first: said(str(message.content), message_id=first)})
    elif change == "copy" and there is not None:
        await provider.delete_conversation(f"copy of {key}")
        await provider.fork_conversation(key, f"copy of {key}")
    elif change == "bring":
        brought = ConversationMemory(f"brought {message.message_id}", user, [message], {})
        done(await provider.import_conversation(brought))
    elif change == "erase":
        await provider.delete_conversation(key)
    elif change == "forget":
        await provider.clear_user_conversations(user)


async def _id_at(provider: BackendProvider, conversation_id: str, position: int) -> str:
    """The message that stands there, if any."""
    page = await provider.get_messages(conversation_id, before=position + 1, limit=1) if position >= 0 else []
    return page[0].message_id if page else "none"


class SearchChecks(Checks):
    """`search_messages`, `iter_users`, and cursors as texts."""

    @needs("backend")
    def test_search_by_the_rule(self, store: Store) -> None:
        """Any search finds what the rule says, in the order of the list, whatever the size of its pages."""
        provider = store.run(store.open())
        contents = st.lists(texts, max_size=5)
        conversations = st.lists(st.tuples(contents, st.sampled_from((None, "u", "v")), st.integers(0, 2)), max_size=4)

        @examples(60)
        @given(conversations, st.lists(queries, min_size=1, max_size=4), st.integers(1, 3))
        def agree(made: list[tuple[list[str], str | None, int]], asked: list[str], limit: int) -> None:
            records = [
                kept(
                    f"c{n}",
                    # The first once more, so that a page may end within a conversation.
                    messages=[said(text, message_id=f"m{i}") for i, text in enumerate((*one, *one[:1]))],
                    created=n,
                    updated=5 + moved,
                )
                for n, (one, _, moved) in enumerate(made)
            ]
            # Some as a cap has left them, so that a position is not a place.
            owned = [
                replace(record, user_id=user, first_position=7 * moved, trimmed=moved > 0)
                for record, (_, user, moved) in zip(records, made, strict=True)
            ]
            # Words of others seldom meet; what was said does, whole and without its end.
            known = [text[:end] for one, _, _ in made[:2] for text in one[-2:] for end in (None, -1)]
            store.run(self._compare_searches(store, provider, owned, [*asked, *known], limit))

        agree()

    async def _compare_searches(
        self, store: Store, provider: BackendProvider, records: list[Record], asked: list[str], limit: int
    ) -> None:
        await store.empty(provider)
        await put(provider, *records)
        for query in asked:
            for user in (None, "u"):
                search = MessageSearch(query, user_id=user, limit=limit)
                if not asked_for(query):
                    with pytest.raises(MemoryInvalidInputError):
                        await provider.search_messages(search)
                    continue
                assert await searched(provider, search) == expected_places(records, query, user), repr(query)

    @needs("backend")
    async def test_search_each_word(self, store: Store) -> None:
        """A word of any script is found by itself, by its beginning, and in none of its parts that is no word."""
        provider = await store.open()
        records = [kept(f"c{n:02}", messages=[said(word, message_id="m")], created=n) for n, word in enumerate(WORDS)]
        await put(provider, *records)
        for word in WORDS:
            for query in (f'"{word}"', word, word[:-1], word[1:]):
                if asked_for(query):
                    assert await said_where(provider, query) == expected_places(records, query, None), repr(query)

    @needs("backend")
    def test_search_behind_changes(self, store: Store) -> None:
        """Whatever was added, replaced, cut off, deleted, revised, copied or erased: a search finds what stands."""
        provider = store.run(store.open())
        said_texts = texts.filter(asked_for)
        changes = st.tuples(st.sampled_from(CHANGES), st.sampled_from("ab"), said_texts)

        @examples(40)
        @given(st.lists(changes, min_size=1, max_size=9), queries.filter(asked_for))
        def agree(steps: list[tuple[str, str, str]], asked: str) -> None:
            store.run(self._compare_behind(store, provider, steps, asked))

        agree()

    async def _compare_behind(
        self, store: Store, provider: BackendProvider, steps: list[tuple[str, str, str]], asked: str
    ) -> None:
        await store.empty(provider)
        for number, (change, key, text) in enumerate(steps):
            await _change(provider, change, key, said(text, message_id=f"n{number}"))
            # In between, too: what an index was given then has to be taken out of it.
            for query in dict.fromkeys((text, *(old for _, _, old in steps[max(0, number - 2) : number]), asked)):
                standing = [one async for one in provider.iter_conversations()]
                for user in (None, "u-a"):
                    told = sorted(
                        (one.conversation_id, message.message_id)
                        for one in standing
                        if user in (None, one.user_id)
                        for message in one.messages
                        if says(message, query)
                    )
                    places = await said_where(provider, query, user_id=user, limit=2)
                    assert {key for key, _ in places} <= {one.conversation_id for one in standing}, f"shows {places}"
                    found = [(key, await _id_at(provider, key, position)) for key, position in places]
                    assert sorted(found) == told, f"{query!r} behind {steps[: number + 1]}"

    async def test_hits(self, store: Store) -> None:
        """A hit says where it stands, whose it is, and shows the message and its surroundings."""
        provider = await store.open()
        text = "many words before it " * 20 + "the needle" + " and many behind it" * 20
        messages = [said("no hay"), Message(role="user", content=[{"type": "text", "text": text}], message_id="hit")]
        done(await provider.store_messages("c", messages, user_id="u"))
        (hit,) = hits = await provider.search_messages(MessageSearch("Needle"))
        assert isinstance(hits, MessageHits)
        assert (hits.cursor, hits.complete) == (None, True)
        assert (hit.conversation_id, hit.user_id, hit.position, hit.message) == ("c", "u", 1, messages[1])
        assert "the needle and" in hit.excerpt
        assert len(hit.excerpt) < 200
        around = await provider.get_messages("c", before=hit.position + 1, limit=1)
        assert list(around) == [hit.message]

    async def test_search_is_isolated(self, store: Store) -> None:
        """Filters hold together, and one user's view finds nothing of another's, nor of nobody's."""
        provider = await store.open()
        for key, owner in (("a", "u"), ("b", "v"), ("c", None), ("d", "u")):
            done(await provider.store_messages(key, talk(2, f"word {key}"), user_id=owner))
        assert {key for key, _ in await said_where(provider, "word")} == {"a", "b", "c", "d"}
        assert {key for key, _ in await said_where(provider, "word", user_id="u")} == {"a", "d"}
        assert await said_where(provider, "word", user_id="u", conversation_id="b") == []
        assert await said_where(provider, "word", conversation_id="a", roles=["assistant"]) == [("a", 1)]
        mine = provider.for_user("u")
        assert {key for key, _ in await said_where(mine, "word")} == {"a", "d"}
        assert await said_where(mine, "word", user_id="v") == []
        assert await said_where(mine, "word", conversation_id="c") == []
        cursor = (await provider.search_messages(MessageSearch("word", user_id="v", limit=1))).cursor
        stolen = await mine.search_messages(MessageSearch("word", cursor=cursor))
        assert {hit.user_id for hit in stolen} <= {"u"}

    @needs("backend")
    async def test_search_by_activity(self, store: Store) -> None:
        """`since` and `until` are about when a conversation was active, from inclusive, to exclusive."""
        provider = await store.open()
        await put(provider, *(kept(f"c{n}", messages=[said("word")], created=n, updated=10 + n) for n in range(4)))
        found = await said_where(provider, "word", since=at(11), until=at(13))
        assert found == [("c2", 0), ("c1", 0)]

    async def test_nothing_that_is_gone(self, store: Store) -> None:
        """What has expired, was deleted, cut off, capped or revised, or stands only in a summary, is not found."""
        provider = await store.open(max_messages=4)
        for key in ("stays", "expires", "goes", "cut", "capped", "revised"):
            done(await provider.store_messages(key, [said(f"secret {key}", message_id=f"m{n}") for n in range(2)]))
        done(await provider.store_messages("summed", talk(2)))
        summary = Summary("secret summed", "m1")
        assert await provider.store_summary("summed", summary, (await whole(provider, "summed")).incarnation)
        assert await provider.delete_conversation("goes")
        await provider.truncate_conversation_after("cut", "m0")
        done(await provider.append_messages("capped", talk(4, "n")))
        await provider.revise_messages("revised", {"m0": said("public", message_id="m0")})
        assert await provider.fork_conversation("stays", "fork") == 2
        await let_expire(provider, "expires")
        found = await said_where(provider, "secret", limit=1)
        assert sorted(found) == [("fork", 0), ("fork", 1), ("revised", 1), ("stays", 0), ("stays", 1)]
        assert await said_where(provider, "public") == [("revised", 0)]

    @pytest.mark.parametrize("cursor", ["", "x", "W10", "a" * 5000, "é", "bnVsbA"])
    async def test_no_cursor(self, store: Store, cursor: str) -> None:
        """What no page has given is no cursor, of a search or of a list; nor is that of the other."""
        provider = await store.open()
        for n in range(3):
            done(await provider.store_messages(f"c{n}", talk(2, "word ")))
        (first, *_) = await provider.find_conversations(MemoryQuery())
        hits = await provider.search_messages(MessageSearch("word", limit=1))
        assert first.cursor is not None
        assert hits.cursor is not None
        for wrong in (cursor, first.cursor):
            with pytest.raises(MemoryInvalidInputError):
                await provider.search_messages(MessageSearch("word", cursor=wrong))
        for wrong in (cursor, hits.cursor):
            with pytest.raises(MemoryInvalidInputError):
                MemoryQuery().after(wrong)

    @needs("backend")
    async def test_pages_by_text(self, store: Store) -> None:
        """A conversation's `cursor`, a text, leads to the page behind it, as the conversation itself does."""
        provider = await store.open()
        await put(provider, *(kept(f"c{n} 😀:é", created=n // 2, updated=5 + n // 3) for n in range(7)))
        listed = await provider.find_conversations(MemoryQuery())
        query = MemoryQuery(limit=2)
        paged: list[ConversationMemory] = []
        while page := await provider.find_conversations(query):
            assert len(paged) < 7, "the pages do not end"
            paged += page
            assert isinstance(page[-1].cursor, str)
            query = query.after(page[-1].cursor)
        assert paged == listed
        passed = [one async for one in provider.iter_conversations()]
        behind = MemoryQuery().after(str(passed[3].cursor))
        assert [one async for one in provider.iter_conversations(behind)] == passed[4:]

    @needs("backend")
    async def test_last_messages(self, store: Store) -> None:
        """`get_last_messages` has the last message of each that has one, of this user, whatever stands between."""
        provider = await store.open()
        talks = {"a": talk(3), "b": [], "c": talk(60, "n"), "d": [said("x" * 70_000, message_id="long")]}
        talks["thinned"] = talk(5, "t")
        records = [kept(key, messages=messages, user_id="u") for key, messages in talks.items()]
        await put(provider, *records, kept("v's", messages=talk(2), user_id="v"))
        await put(provider, kept("gone", messages=talk(1), user_id="u", expires_at=at(1)))
        assert await provider.delete_messages("thinned", ["t1"]) == 1
        asked = ["c", "missing", "thinned", "b", "v's", "gone", "a", "d", "c"]
        expected = {key: talks[key][-1] for key in ("c", "thinned", "a", "d")}
        assert await provider.get_last_messages(asked) == {**expected, "v's": talk(2)[-1]}
        assert await provider.for_user("u").get_last_messages(asked) == expected
        assert await provider.get_last_messages([]) == {}
        for room in (1, 1_000, 1 << 20):
            tails = [Tail(key, 2, None, "u") for key in ("a", *asked[1:])]
            found: list[Any] = []
            while len(found) < len(tails):
                more = await provider.backend.tails(tails[len(found) :], room)
                assert more, "none is answered"
                found += more
            assert [one and one.messages for one in found] == [
                one and one.messages for one in [await provider.backend.tail(tail) for tail in tails]
            ]

    @needs("backend")
    async def test_users(self, store: Store) -> None:
        """`iter_users` passes every owner of what has not expired, once; a view passes its own."""
        provider = await store.open()
        owners = ["u", "U", "v", "u", "é", "😀", "v", "u:*"]
        records = [replace(kept(f"c{n}", created=n), user_id=owner) for n, owner in enumerate(owners)]
        gone = replace(kept("gone", created=50), user_id="gone", expires_at=at(60))
        stays = replace(kept("stays", created=50), user_id="stays", expires_at=FAR)
        also = replace(kept("also gone", created=52), user_id="stays", expires_at=at(60))
        await put(provider, *records, gone, stays, also, kept("nobody's", created=51))
        found: list[str] = []
        async for user in provider.iter_users():
            found.append(user)
            assert len(found) <= len(owners), f"it goes round: {found}"
        assert found == sorted({*owners, "stays"})
        if await provider.backend.owners("", 1) is not None:
            for limit in (1, 2, 10):
                for after in ("", *found, "t", "uu"):
                    behind = [user for user in found if user > after][:limit]
                    assert await provider.backend.owners(after, limit) == behind, f"behind {after!r}, {limit} at most"
        for user, told in (("v", ["v"]), ("gone", []), ("nobody", [])):
            assert [one async for one in provider.for_user(user).iter_users()] == told
        assert await provider.clear_user_conversations("u") == 2
        assert "u" not in [user async for user in provider.iter_users()]
