"""Compression: what leaves a conversation's view is covered by a summary that the application's function makes."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from jaf_memory_core.conversations import CondensedConversation, Summary
from jaf_memory_core.errors import MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.messages import Message
from jaf_memory_core.session import views
from jaf_memory_core.session.storage import StoredConversation
from jaf_memory_core.session.views import Room

Summarize = Callable[[Sequence[Message]], str | Awaitable[str]]
"""The application's function: from older messages, an earlier summary first, to a text."""

SLACK = 4 / 5
"""Part of the room that is filled after a summary, so that not every turn asks for the next one."""


class Found(Struct, frozen=True):
    """What a load found.

    Attributes:
        kept: messages that the summary covers and that stay as they are.
        uncovered: all messages behind the summary; all of the conversation's without one.
        summary: the summary's text, or `None`.
        count: how many messages are stored.
        incarnation: of the conversation.
    """

    kept: tuple[Message, ...] = ()
    uncovered: tuple[Message, ...] = ()
    summary: str | None = None
    count: int = 0
    incarnation: str = ""

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages that were read."""
        return (*self.kept, *self.uncovered)


class SummarizedHistory:
    """Makes views of one conversation, and summaries where they are due."""

    def __init__(
        self, stored: StoredConversation, room: Room, threshold: int | None, summarize: Summarize | None
    ) -> None:
        self._stored = stored
        self._room = room
        self._threshold = threshold
        self._summarize = summarize
        self._own: Summary | None = None  # where the provider keeps no summaries

    async def read(self) -> Found:
        """The conversation, with a summary made first if one is due; at most one, however often others make some."""
        found = await self._stand()
        cut = self._due(found)
        if cut is None:
            return found
        earlier = () if found.summary is None else views.summary(found.summary).messages
        summary = Summary(await self._ask([*earlier, *cut.covered]), cut.message_id, cut.kept)
        if not self._stored.offers("store_summary"):
            self._own = summary
        else:
            # Deleted meanwhile, the summary goes with the conversation; the next read shows what stands.
            with contextlib.suppress(MemoryNotFoundError):
                await self._stored.provider.store_summary(self._stored.conversation_id, summary, found.incarnation)
        return await self._stand()

    async def _stand(self) -> Found:
        condensed = await self._stored.read(condensed=self._threshold is not None)
        if condensed is None:
            return Found()
        return _found(condensed if self._own is None else _behind(condensed, self._own))

    def _due(self, found: Found) -> views.Cut | None:
        if self._summarize is None or self._threshold is None or found.count <= self._threshold:
            return None
        if self._compressed_room(0 if found.summary is None else 1).takes(views.blocks_of(found.messages)):
            return None
        room = self._compressed_room(1)
        filled = Room(max(1, math.floor(room.messages * SLACK)), room.tokens * SLACK, room.count)
        return views.cut(found.kept, found.uncovered, filled)

    def view(self, found: Found, unsaved: Sequence[Message]) -> list[Message]:
        """The valid view of what was found, and of what is to be stored yet."""
        blocks = views.blocks_of([*found.messages, *unsaved])
        if found.summary is not None:
            within = views.limited(blocks, self._compressed_room(1))
            return views.shown(views.with_summary(within, found.kept, found.summary))
        if self._threshold is not None and found.count + len(unsaved) > self._threshold:
            return views.shown(views.first_and_newest(blocks, self._compressed_room(0)))
        return views.shown(views.limited(blocks, self._room))

    def _compressed_room(self, made_up: int) -> Room:
        most = min(self._room.messages, math.inf if self._threshold is None else self._threshold)
        return Room(most - made_up, self._room.tokens, self._room.count)

    async def _ask(self, messages: Sequence[Message]) -> str:
        assert self._summarize is not None  # noqa: S101  (looked at before)
        if inspect.iscoroutinefunction(self._summarize):
            answer = await self._summarize(messages)
        else:
            # A client that blocks must not hold up the other conversations.
            answer = await asyncio.to_thread(self._summarize, messages)
            if inspect.isawaitable(answer):
                answer = await answer
        if not isinstance(answer, str):
            raise MemoryInvalidInputError(f"summarize must give a str, not a {type(answer).__name__}")
        return answer


def _found(condensed: CondensedConversation) -> Found:
    conversation, summary = condensed.conversation, condensed.summary
    return Found(
        kept=() if summary is None else summary.kept,
        uncovered=conversation.messages,
        summary=None if summary is None else summary.text,
        count=conversation.message_count or 0,
        incarnation=conversation.incarnation,
    )


def _behind(condensed: CondensedConversation, summary: Summary) -> CondensedConversation:
    messages = condensed.conversation.messages
    ends = [index for index, message in enumerate(messages) if message.message_id == summary.message_id]
    if not ends:
        return condensed
    return CondensedConversation(replace(condensed.conversation, messages=messages[ends[-1] + 1 :]), summary)
