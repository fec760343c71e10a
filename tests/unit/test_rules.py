"""The rules, as pure functions."""

from datetime import timedelta

import pytest
from jaf_memory_testing.samples import at, ids, kept, said, talk
from msgspec.structs import replace

from jaf_memory_core import MemoryConflictError, MemoryNotFoundError, MemoryQuery, WriteResult, codec, pages, rules
from jaf_memory_core.records import Amend, Origin, Tail, Truncate, Write
from jaf_memory_core.values import freeze

NOW = at(100)


def write(messages=(), **fields):
    """A request for conversation `c`."""
    fields["metadata"] = freeze(fields.get("metadata", {}))
    bodies = tuple(map(codec.encode, messages))
    return Write("c", tuple(messages), bodies, **fields)


def append(record, messages=(), **fields):
    """The record after an append, and its result."""
    return rules.written(record, write(messages, **fields), NOW)


class TestLive:
    """Whether a record is there."""

    def test_up_to_the_moment(self):
        """It is absent from the very moment of its expiry on."""
        record = kept("c", expires_at=at(50))
        assert rules.live(record, at(50) - timedelta(microseconds=1)) is record
        assert rules.live(record, at(50)) is None
        assert rules.live(kept("c"), at(10**9)) is not None
        assert rules.live(None, NOW) is None

    def test_seen(self):
        """One user sees that user's records only; without a scope all are seen."""
        mine, nobodys = kept("c", user_id="u"), kept("c")
        assert rules.seen(mine, NOW, "u") is mine
        assert rules.seen(mine, NOW, "v") is rules.seen(nobodys, NOW, "u") is None
        assert rules.seen(nobodys, NOW, None) is nobodys


class TestWrite:
    """What a store or an append comes to."""

    def test_makes(self):
        """A new conversation is at version 1, with the request's incarnation, owner and ttl."""
        request = write(talk(2), create=True, user_id="u", ttl=60.0, metadata={"a": 1})
        record, result = rules.written(None, request, NOW)
        assert result == WriteResult(1, 2, 2)
        assert record.incarnation == request.incarnation
        assert (record.created_at, record.updated_at, record.expires_at) == (NOW, NOW, NOW + timedelta(seconds=60))
        assert (record.user_id, record.metadata, record.message_count) == ("u", {"a": 1}, 2)

    def test_makes_with_its_origin(self):
        """An import brings its own times; its expiry is not renewed at once."""
        origin = Origin(created_at=at(1), expires_at=at(150), ttl=600.0)
        record, _ = rules.written(None, write(create=True, ttl=5.0, origin=origin), NOW)
        assert (record.created_at, record.updated_at) == (at(1), NOW)
        assert (record.expires_at, record.ttl) == (at(150), 600.0)
        later, _ = rules.written(record, write(talk(1)), at(120))
        assert later.expires_at == at(720)

    def test_makes_with_an_origin_that_has_a_ttl_only(self):
        """An import with a ttl and no expiry begins it now."""
        record, _ = rules.written(None, write(create=True, origin=Origin(ttl=600.0)), NOW)
        assert record.expires_at == NOW + timedelta(seconds=600)

    def test_refuses_a_missing_one(self):
        """An append without `create` finds nothing, whatever version it expects."""
        for expected in (None, 0, 3):
            with pytest.raises(MemoryNotFoundError):
                append(None, talk(1), expected_version=expected)

    def test_time_never_runs_backwards(self):
        """`updated_at` stays where a clock is behind it, and the version grows all the same."""
        record, _ = append(kept("c", updated=500), talk(1))
        assert record.updated_at == at(500)
        assert record.version == 2

    def test_activity(self):
        """Messages move both times, and what stands beside them `updated_at` alone; each where its own clock stood."""
        before = kept("c", active=1, updated=2, messages=talk(3))
        for after in (
            append(before, talk(1, "n"))[0],
            append(before, [*talk(3), *talk(1, "n")], max_messages=3)[0],
            rules.written(before, write(talk(3), replace=True), NOW)[0],
            rules.truncated(before, Truncate("c", "m1"), NOW)[0],
        ):
            assert (after.active_at, after.updated_at) == (NOW, NOW)
        for after in (append(before, metadata={"a": 1})[0], rules.amended(before, Amend("c", ttl=5.0), NOW)):
            assert (after.active_at, after.updated_at) == (at(1), NOW)
        late = kept("c", active=1, updated=500)
        assert (append(late, talk(1))[0].active_at, append(late, talk(1))[0].updated_at) == (NOW, at(500))
        assert replace(late, updated_at=at(0)).active_at == kept("c").active_at == at(0)

    def test_all_held(self):
        """Where all is held, the very same record comes back."""
        record = kept("c", messages=talk(3))
        after, result = append(record, talk(2), metadata={"a": 1}, expected_version=77)
        assert after is record
        assert result == WriteResult(1, 3, 0)

    def test_nothing_given(self):
        """Nothing to write is nothing written; metadata or a first owner is something."""
        record = kept("c")
        assert append(record)[0] is record
        assert append(record, user_id="u")[0].user_id == "u"
        assert append(record, metadata={"a": 1})[0].metadata == {"a": 1}
        owned = kept("c", user_id="u")
        assert append(owned, user_id="u")[0] is owned

    @pytest.mark.parametrize(
        ("owner", "fields", "error"),
        [
            (None, {"user_id": "u"}, None),
            ("u", {"user_id": "u"}, None),
            ("u", {}, None),
            ("u", {"user_id": "v"}, MemoryConflictError),
            ("u", {"scope": "u", "user_id": "u"}, None),
            ("u", {"scope": "v", "user_id": "v"}, MemoryNotFoundError),
            (None, {"scope": "v", "user_id": "v"}, MemoryNotFoundError),
            ("u", {"scope": "v", "user_id": "v", "create": True}, MemoryConflictError),
            (None, {"scope": "v", "user_id": "v", "create": True}, MemoryConflictError),
        ],
    )
    def test_owners(self, owner, fields, error):
        """An owner is given once and never changed; to a view, another's conversation is not there."""
        record = kept("c", user_id=owner)
        if error is None:
            assert append(record, talk(1), **fields)[0].user_id == (owner or "u")
        else:
            with pytest.raises(error):
                append(record, talk(1), **fields)

    def test_conflict_of_contents(self):
        """Other content under a held id is a conflict before anything is decided."""
        with pytest.raises(MemoryConflictError, match="'m1' with other content"):
            append(kept("c", messages=talk(2)), [said("new", message_id="n"), said("other", message_id="m1")])

    def test_cap(self):
        """Under a cap the oldest go, positions go on, and the conversation is known as trimmed."""
        record, result = append(kept("c", messages=talk(4)), talk(2, "n"), max_messages=5)
        assert result == WriteResult(2, 5, 2)
        assert ids(record.messages) == ["m1", "m2", "m3", "n0", "n1"]
        assert (record.first_position, record.trimmed, record.message_count) == (1, True, 5)
        assert append(kept("c"), talk(1), max_messages=5)[0].trimmed is False
        assert append(kept("c"), talk(1), max_messages=5, dropped=2)[0].trimmed is True

    def test_cap_when_replacing(self):
        """Replacing starts positions anew, and forgets that a cap ever cut."""
        record = kept("c", messages=talk(2), first_position=9, trimmed=True)
        after, result = append(record, talk(2, "n"), replace=True, create=True, max_messages=2)
        assert (after.first_position, after.trimmed) == (0, False)
        assert result == WriteResult(2, 2, 2)

    def test_old_before_held(self):
        """On a trimmed conversation what stands before a held message is old, what stands behind it is new."""
        batch = [*talk(2), *talk(1, start=5), *talk(2, "n")]
        trimmed = kept("c", messages=talk(3, start=4), trimmed=True, first_position=4)
        assert ids(append(trimmed, batch)[0].messages) == ["m4", "m5", "m6", "n0", "n1"]
        assert len(append(replace(trimmed, trimmed=False), batch)[0].messages) == 7
        assert len(append(trimmed, talk(2))[0].messages) == 5


class TestAmend:
    """Changes of metadata and expiry."""

    def test_expiry(self):
        """A ttl counts from now, `None` is for ever, and nothing said renews what there is."""
        record = kept("c", ttl=50.0, expires_at=at(110))
        assert rules.amended(record, Amend("c", ttl=600.0), NOW).expires_at == at(700)
        forever = rules.amended(record, Amend("c", ttl=None), NOW)
        assert (forever.expires_at, forever.ttl) == (None, None)
        assert rules.amended(record, Amend("c", metadata=freeze({"a": 1})), NOW).expires_at == at(150)
        without = kept("c", expires_at=at(110))
        assert rules.amended(without, Amend("c"), NOW).expires_at == at(110)

    def test_who_may(self):
        """Another owner is a conflict, another's view finds nothing."""
        record = kept("c", user_id="u")
        with pytest.raises(MemoryConflictError):
            rules.amended(record, Amend("c", user_id="v"), NOW)
        for amend, header in ((Amend("c", scope="v"), record), (Amend("c"), None)):
            with pytest.raises(MemoryNotFoundError):
                rules.amended(header, amend, NOW)
        assert rules.amended(kept("c"), Amend("c", user_id="v"), NOW).user_id == "v"


class TestCut:
    """Pages and truncation."""

    @pytest.mark.parametrize("before", [None, 0, 9, 10, 11, 13, 14, 99])
    @pytest.mark.parametrize("limit", [0, 1, 2, 4, 9])
    def test_page(self, limit, before):
        """A page is a slice by position, whatever a cap has removed."""
        record = kept("c", messages=talk(4, start=10), first_position=10)
        positions = [n for n in range(10, 14) if before is None or n < before]
        expected = positions[max(0, len(positions) - limit) :]
        page = pages.page(record, Tail("c", limit, before))
        assert ids(page.messages) == [f"m{n}" for n in expected]
        assert page.more == (bool(expected or limit == 0) and page.first > 10)

    def test_truncated(self):
        """From a message on all goes; without it nothing is written."""
        record = kept("c", messages=talk(4), first_position=3)
        after, removed = rules.truncated(record, Truncate("c", "m1"), NOW)
        assert removed == 3
        assert (ids(after.messages), after.message_count, after.version, after.first_position) == (["m0"], 1, 2, 3)
        assert rules.truncated(record, Truncate("c", "x"), NOW) == (record, 0)
        for missing, scope in ((None, None), (record, "u")):
            with pytest.raises(MemoryNotFoundError):
                rules.truncated(missing, Truncate("c", "m1", scope), NOW)


class TestMatches:
    """What passes a query."""

    @pytest.mark.parametrize(
        ("query", "passes"),
        [
            (MemoryQuery(), True),
            (MemoryQuery(conversation_id="c"), True),
            (MemoryQuery(conversation_id="C"), False),
            (MemoryQuery(user_id="u"), True),
            (MemoryQuery(user_id="v"), False),
            (MemoryQuery(since=at(10)), True),
            (MemoryQuery(since=at(10.000001)), False),
            (MemoryQuery(until=at(10)), False),
            (MemoryQuery(until=at(10.000001)), True),
            (MemoryQuery(active_since=at(20)), True),
            (MemoryQuery(active_until=at(20)), False),
            (MemoryQuery(updated_since=at(30)), True),
            (MemoryQuery(updated_until=at(30)), False),
            (MemoryQuery(trace_id="t"), True),
            (MemoryQuery(trace_id="T"), False),
            (MemoryQuery(metadata={}), True),
            (MemoryQuery(metadata={"x": 1}), True),
            (MemoryQuery(metadata={"x": 1.0}), False),
            (MemoryQuery(metadata={"x": True}), False),
            (MemoryQuery(metadata={"n": None}), True),
            (MemoryQuery(metadata={"absent": None}), False),
            (MemoryQuery(metadata={"user_id": "u"}), True),
            (MemoryQuery(metadata={"x": 1, "n": 1}), False),
        ],
        ids=lambda value: "" if isinstance(value, bool) else repr(value)[:0],
    )
    def test_filters(self, query, passes):
        """Each filter alone, at its bounds."""
        metadata = {"x": 1, "n": None, "trace_id": "t"}
        record = kept("c", created=10, active=20, updated=30, user_id="u", metadata=metadata)
        assert rules.matches(record, query) is passes

    def test_reserved_keys(self):
        """The provider's own notes in metadata are not shown."""
        record = kept("c", metadata={f"{rules.RESERVED}x": 1, "y": 2}, user_id="u")
        assert rules.shown_metadata(record) == {"y": 2, "user_id": "u"}

    def test_keys(self):
        """Orders and cursors go by the same times."""
        record = kept("c", created=1, active=2, updated=3)
        query = replace(MemoryQuery(), cursor=(record.created_at, record.active_at, "c"))
        assert rules.activity_key(record) == rules.activity_cursor(query) == (at(2), "c")
        assert rules.creation_key(record) == rules.creation_cursor(query) == (at(1), "c")
        assert rules.activity_cursor(MemoryQuery()) is rules.creation_cursor(MemoryQuery()) is None
