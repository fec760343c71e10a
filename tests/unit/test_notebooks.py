"""What a notebook shows of a conversation: nothing in it is taken for HTML, and it is never long."""

from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from jaf_memory_core import ConversationMemory, Message

HOSTILE = [
    "<script>alert(1)</script>",
    "</td></tr></table><img src=x onerror=alert(1)>",
    '"><iframe src="https://example.com">',
    "'onmouseover='alert(1)",
    "&lt;script&gt;",
    "a\x00b\x1b[31m\ud800",
    "\u202eevil\u2066",
    "{0} {} %s",
]


class Seen(HTMLParser):
    """The tags and attributes of a page, and what is read there."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.names, self.open, self.text = set(), set(), [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Note it."""
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}
        self.open.append(tag)

    def handle_endtag(self, tag):
        """It ends what began last."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Note it."""
        self.text += data


def seen(conversation):
    """What stands in it, once it is known to hold our own tags only, and to be sendable."""
    page = conversation._repr_html_()
    page.encode()
    found = Seen(page)
    assert found.tags <= {"div", "b", "bdi", "table", "tr", "td"}
    assert found.names <= {"style", "dir"}
    assert found.open == []
    return found.text


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_is_taken_for_html(text):
    """Whatever stands in an id, a title, a message or a call is shown as text."""
    key = text.replace("\x00", "").replace("\ud800", "")
    call = {"id": text, "type": text, "function": {"name": text, "arguments": text}}
    whole = ConversationMemory(
        key,
        key,
        [
            Message(role="user", content=text, name=text),
            Message(role="user", content=[{"type": "text", "text": text}, {"type": text, "data": text}]),
            Message(role="assistant", tool_calls=[call, {"type": text}]),
            Message(role="assistant", tool_calls=[{"function": {"name": text, "arguments": {text: [text]}}}]),
            Message(role="user", content="", attachments=[{"kind": text, "name": text, "url": text}]),
            Message(type=text),
        ],
        {"title": text},
    )
    shown = seen(whole)
    assert shown.count(text.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")) >= 10


def test_what_is_told_beside_the_messages():
    """Id, title, owner, count and times; no other metadata, which may hold anything."""
    moment = datetime(2026, 5, 15, 14, 2, tzinfo=UTC)
    listed = ConversationMemory(
        "chat", "ann", metadata={"title": "My order", "key": "secret"}, message_count=1200, active_at=moment
    )
    assert seen(listed) == "chat · My order · of ann · 1,200 messages, 0 of them here · active 2026-05-15 14:02 UTC"
    assert seen(ConversationMemory("chat", messages=[Message(role="user", content="Hi")])) == "chat · 1 messageuserHi"


def test_it_is_never_long():
    """Of many messages the first and last are shown, of a long one its beginning."""
    many = ConversationMemory("chat", messages=[Message(role="user", content=f"-{n}-") for n in range(5_000)])
    shown = seen(many)
    assert "… 4,980 more …" in shown
    assert [n for n in range(5_000) if f"-{n}-" in shown] == [*range(4), *range(4984, 5000)]
    few = replace(many, messages=many.messages[:21], message_count=21)
    assert all(f"-{n}-" in seen(few) for n in range(21))
    long = ConversationMemory("chat", messages=[Message(role="user", content="<" * 2_000_000)] * 1)
    assert len(long._repr_html_()) < 10_000
    assert "2,000,000 characters" in seen(long)
