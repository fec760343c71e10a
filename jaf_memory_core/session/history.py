"""What a session reads of its conversation: the end that a view can show, and what it must know beside.

Reading goes backwards, page by page, until the view is full, so that a load costs what it shows, however long the
conversation is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from jaf_memory_core.messages import Message
from jaf_memory_core.session import views
from jaf_memory_core.session.blocks import steps_of
from jaf_memory_core.session.formats import Form
from jaf_memory_core.session.plain import is_plain, plain_view
from jaf_memory_core.session.room import Room
from jaf_memory_core.session.storage import Excerpt, StoredConversation

LEADING = 4
"""Messages at the beginning of a conversation among which its instructions are looked for."""

FIRST_PAGE = 32
"""Messages of the first page where nothing but tokens limits a view."""

LARGEST_PAGE = 2_000


class Found(Struct, frozen=True):
    """What a load found.

    Attributes:
        kept: messages that stand before those that were read: a summary's, or the first instructions.
        read: the newest messages, without a gap.
        unread: how many stand between `kept` and `read` that no summary covers.
        summary: the summary's text, or `None`.
        count: how many messages are stored.
        incarnation, version: of the conversation.
        plain: the view, where nothing has to be brought into form.
        blocks: of all messages, where they were needed already.
    """

    kept: tuple[Message, ...] = ()
    read: tuple[Message, ...] = ()
    unread: int = 0
    summary: str | None = None
    count: int = 0
    incarnation: str = ""
    version: int = 0
    plain: list[Message] | None = None
    blocks: list[views.Block] | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages that were read."""
        return (*self.kept, *self.read) if self.kept else self.read


async def read_whole(stored: StoredConversation, *, condensed: bool) -> Found | None:
    """All of the conversation; `condensed`: without what a stored summary covers."""
    excerpt = await stored.read(condensed=condensed)
    return None if excerpt is None else _found(excerpt, ())


async def read_newest(stored: StoredConversation, room: Room, form: Form | None, *, condensed: bool) -> Found | None:
    """As much of the end of the conversation as a view within this room can show.

    Args:
        stored: the conversation.
        room: of the view.
        form: of the view; that of the messages where absent.
        condensed: whether a stored summary is asked for.
    """
    lead = LEADING if not condensed else LEADING + int(min(room.messages, LARGEST_PAGE)) // 5
    # One more than may be shown tells whether there is more.
    size = FIRST_PAGE if room.messages == math.inf else int(room.messages) + 1
    excerpt = await stored.newest(size, leading=lead, condensed=condensed)
    if excerpt is None:
        return None
    leading: tuple[Message, ...] = ()
    if excerpt.before is not None and excerpt.summary is None:
        first = excerpt.leading
        leading = ended(first) if condensed else tuple([one for one in first if one.role in views.STAYING])
    if not condensed and room.tokens == math.inf and len(excerpt.messages) > room.messages:
        plain = plain_view(leading, excerpt.messages, room) if is_plain(excerpt.messages) else None
        if plain is not None:
            return Found(leading, excerpt.messages, plain=plain)
    kept = _kept(excerpt, leading)
    blocks = views.blocks_of([*kept, *excerpt.messages], form)
    while excerpt.before is not None and not is_full(_behind(blocks, kept), room):
        # Doubled: few round trips, and not much more is read than is shown.
        size = min(2 * size, LARGEST_PAGE)
        page = await stored.page(excerpt.before, size if excerpt.unread is None else min(size, excerpt.unread))
        unread = None if excerpt.unread is None else max(0, excerpt.unread - len(page))
        before = page.before if page and unread != 0 else None
        excerpt = replace(excerpt, messages=(*page, *excerpt.messages), before=before, unread=unread)
        blocks = views.blocks_of([*kept, *excerpt.messages], form)
    if excerpt.before is None:
        leading = ()
    found = _found(excerpt, leading)
    return replace(found, blocks=blocks) if found.kept == kept else found


def ended(leading: Sequence[Message]) -> tuple[Message, ...]:
    """The first messages up to, without, a call whose results may stand behind them."""
    steps = steps_of(leading)
    if not steps or not steps[-1].calls:
        return tuple(leading)
    end = next(place for place, message in enumerate(leading) if message.message_id == steps[-1].key)
    return tuple(leading[:end])


def _behind(blocks: list[views.Block], kept: Sequence[Message]) -> list[views.Block]:
    """The blocks of what was read, and the instructions before it, which stay in every view."""
    ids = {message.message_id for message in kept if message.role not in views.STAYING}
    return [block for block in blocks if block.key not in ids] if ids else blocks


def _kept(excerpt: Excerpt, leading: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(leading) if excerpt.summary is None else excerpt.summary.kept


def _found(excerpt: Excerpt, leading: Sequence[Message]) -> Found:
    read = {message.message_id for message in excerpt.messages}
    return Found(
        kept=tuple(message for message in _kept(excerpt, leading) if message.message_id not in read),
        read=excerpt.messages,
        unread=max(0, (excerpt.unread or 0) - len(leading)),
        summary=None if excerpt.summary is None else excerpt.summary.text,
        count=excerpt.count,
        incarnation=excerpt.incarnation,
        version=excerpt.version,
    )


def is_full(blocks: Sequence[views.Block], room: Room) -> bool:
    """Whether a view within this room would show nothing that stands before the messages that were read.

    Args:
        blocks: of what stands before them, and takes room too, and of the newest messages, without a gap.
        room: of the view.
    """
    fit = views.fitted(blocks, room)
    if fit is None:
        return True
    turns = views.turns_of(fit.others)
    if not turns or turns[-1][0].role != "user":
        return False
    left = room.without(views.messages_of(fit.staying))
    for turn in reversed(turns[1:]):
        left = left.without(views.messages_of(turn))
        if left.short:
            return True
    # It may lack its beginning. Where as much of it as was read fits, all of it may fit, or may not.
    return left.without(views.messages_of(turns[0])).short
