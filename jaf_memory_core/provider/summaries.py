"""`Summaries`: what stands, for the model, in the place of older messages, kept beside them."""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from jaf_memory_core import codec, rules, validation
from jaf_memory_core.conversations import CondensedConversation, Summary
from jaf_memory_core.errors import MemoryConflictError, MemoryNotFoundError
from jaf_memory_core.messages import Message
from jaf_memory_core.processors import Chain
from jaf_memory_core.provider.base import ProviderBase, ends, jitter
from jaf_memory_core.records import Amend, Page, Record, Tail, Truncate
from jaf_memory_core.rules import SUMMARY
from jaf_memory_core.values import EMPTY, FrozenDict, thaw

CONDENSED = "get_condensed_conversation"


class Summaries(ProviderBase):
    """Reading past what a summary covers, and keeping a summary that comes late from doing harm."""

    async def get_condensed_conversation(
        self, conversation_id: str, limit: int | None = None, *, leading: int = 0
    ) -> CondensedConversation | None:
        """The conversation without the messages that a stored summary covers, or `None`; these are not read.

        Args:
            conversation_id: 1 to 255 characters.
            limit: of those that are left, the newest so many; all of them when absent.
            leading: where a limit leaves some out, also the conversation's first messages: those before this position,
                whether a summary covers them or not.
        """
        key = validation.checked_id(conversation_id, "conversation_id")
        first = validation.checked_count(leading, "leading")
        most = None if limit is None else validation.checked_count(limit, "limit")
        work = partial(self._condensed, key) if most is None else partial(self._newest, key, most, first)
        return await self._guard.run(CONDENSED, work, key, repeatable=True)

    async def _newest(self, key: str, limit: int, leading: int) -> CondensedConversation | None:
        """The newest of what is left, in one call of a backend that brings a header along."""
        page = await ends(self.backend, Tail(key, limit, None, self._scope, leading, with_header=True))
        if page is None or page.header is None:
            return None
        header, end = page.header, page.last + 1
        reach = await self._reach(header, page)
        start = max(-1 if reach is None else reach + 1, header.first_position)
        messages = _from(start, page)
        before = max(start, page.first) if messages else end
        unread = await self._unread(header, start, before) if header.gaps else before - start
        return await self._condensed_form(header, reach, messages, (unread, before), page.leading or ())

    async def _unread(self, header: Record, start: int, end: int) -> int:
        """How many messages stand from one position to below another, between which some may have been deleted."""
        count = 0
        while end > start:
            page = await self.backend.tail(Tail(header.conversation_id, 1_000, end, self._scope))
            if page is None or not page.messages:
                break
            count += len(_from(start, page))
            end = page.first
        return count

    async def _condensed(self, key: str) -> CondensedConversation | None:
        header = await self.backend.header(key, scope=self._scope)
        reach = None if header is None else await self._reach(header)
        if header is not None and reach is not None:
            end, start = header.end, max(reach + 1, header.first_position)
            left = end - start
            # Up to the end that the header has shown: what is appended meanwhile belongs to the next read.
            page = await self.backend.tail(Tail(key, left, end, self._scope))
            if page is not None:
                messages = _from(start, page)
                unread = 0 if header.gaps else left - len(messages)
                return await self._condensed_form(header, reach, messages, (unread, end - len(messages)), ())
        record = None if header is None else await self.backend.read(key)
        record = rules.seen(record, self.backend.now(), self._scope)
        return CondensedConversation(await self._shown(record, CONDENSED)) if record else None

    async def _condensed_form(
        self,
        header: Record,
        reach: int | None,
        page: tuple[Message, ...],
        older: tuple[int, int],
        leading: tuple[Message, ...],
    ) -> CondensedConversation:
        unread, before = older
        conversation = await self._shown(replace(header, messages=page), CONDENSED)
        chain = self._chain.within(CONDENSED, header.conversation_id, header.user_id)
        summary = None if reach is None else loaded(header.metadata, chain)
        shown = before if unread > 0 else None
        return CondensedConversation(conversation, summary, max(0, unread), shown, chain.incoming(leading))

    async def store_summary(
        self, conversation_id: str, summary: Summary, incarnation: str, *, expected_version: int | None = None
    ) -> bool:
        """Keep a summary beside the conversation's messages, of which none is touched.

        Args:
            conversation_id: 1 to 255 characters.
            summary: what it says, and how far it reaches.
            incarnation: of the conversation whose messages were read: one that was made again since is another one.
            expected_version: refuse unless the conversation is at this version: whoever has seen that all of what the
                summary says still stands gives the version at which that was seen.

        Returns:
            `False`, and nothing is changed, if a summary that reaches as far is there already, or if the last covered
            message is not: what somebody removed meanwhile does not come back.

        Raises:
            MemoryNotFoundError: the conversation was deleted meanwhile.
            MemoryConflictError: it is not at `expected_version`, where one is given.
            MemoryInvalidInputError: the summary is larger than metadata may be.

        Example:
            condensed = await provider.get_condensed_conversation("user-123:chat")
            summary = Summary("They ask for an order.", message_id="m1")
            print(await provider.store_summary("user-123:chat", summary, condensed.conversation.incarnation))  # True
        """
        key = validation.checked_id(conversation_id, "conversation_id")
        summary = validation.checked_summary(summary, self.config)
        validation.checked_text(incarnation, "incarnation")
        version = validation.checked_version(expected_version)
        if self._chain.needs_owner:
            await self._chain.prepare("store_summary", key, self._scope, writing=True)
        self._check_size(stored_form(summary, 0, self._passing("store_summary", key, None, None)), "the summary")
        return await self._guard.run("store_summary", lambda: self._summarise(key, summary, incarnation, version), key)

    async def _summarise(self, key: str, summary: Summary, incarnation: str, version: int | None) -> bool:
        while True:
            header = await self.backend.header(key, scope=self._scope)
            # Made again under the same id it holds other messages.
            if header is None or header.incarnation != incarnation:
                raise MemoryNotFoundError(key)
            position = await self._position(header, summary.message_id)
            reach = await self._reach(header)
            if position is None or (reach is not None and position <= reach):
                return False
            rules.expect_version(key, version, header.version)
            await self._prepared("store_summary", header, writing=True)
            chain = self._chain.within("store_summary", key, header.user_id)
            value = stored_form(summary, position, chain)
            patch = FrozenDict({rules.SUMMARY: value})
            try:
                await self.backend.amend(Amend(key, patch, scope=self._scope, expected=header.stamp))
            except MemoryConflictError:
                await jitter()
            else:
                return True

    async def _reach(self, header: Record, page: Page | None = None) -> int | None:
        """Position of the last message that the stored summary covers, or `None` without a summary that makes sense.

        Args:
            header: of the conversation.
            page: of the same moment, which may hold that message.
        """
        position = stored_position(header.metadata)
        if not 0 <= position < header.end:
            return None
        if position < header.first_position:
            return position  # a cap has removed all that it covers
        stored = header.metadata[rules.SUMMARY]["message_id"]
        if page is not None and page.first <= position <= page.last:
            there = _from(position, page)[:1]
        else:
            found = await self.backend.tail(Tail(header.conversation_id, 1, position + 1, self._scope))
            there = found.messages if found is not None else ()
        # Another message in that place: the conversation was stored anew, or cut, and has grown again.
        return position if _ids(there) == [stored] else None

    async def _truncate(self, truncate: Truncate) -> int:
        removed = await self.backend.truncate(truncate)
        if removed:
            # What was removed must not live on in a summary, also where the store's own form leaves that to us.
            header = await self.backend.header(truncate.conversation_id, scope=self._scope)
            stale = header is not None and header.metadata.get(rules.SUMMARY) and await self._reach(header) is None
            if header is not None and stale:
                patch = FrozenDict({rules.SUMMARY: None})
                # Somebody was faster; a summary whose last message is gone is shown to nobody (`_reach`).
                with contextlib.suppress(MemoryConflictError, MemoryNotFoundError):
                    await self.backend.amend(Amend(header.conversation_id, patch, expected=header.stamp))
        return removed

    async def _position(self, header: Record, message_id: str) -> int | None:
        """Where a message stands, looked for from the end, in pages."""
        end = header.end
        while end > header.first_position:
            page = await self.backend.tail(Tail(header.conversation_id, 1_000, end, self._scope))
            if page is None or not page.messages:
                return None
            for index, message in enumerate(page.messages):
                if message.message_id == message_id:
                    return page.position(index)
            end = page.first
        return None


def _from(position: int, page: Page) -> tuple[Message, ...]:
    """Those of a page's messages that stand at a position, or behind it."""
    start = bisect_left(page.positions, position) if page.positions else max(0, position - page.first)
    return page.messages[start:]


def _ids(messages: Sequence[Message]) -> list[str]:
    return [message.message_id for message in messages]


def stored_form(summary: Summary, position: int, chain: Chain) -> FrozenDict:
    """What the conversation's metadata keeps; all text passes the chain, as messages do."""
    said = Message(role="system", content=summary.text, message_id=summary.message_id)
    said, *kept = chain.outgoing((said, *summary.kept))
    return FrozenDict(
        position=position,
        message_id=summary.message_id,
        message=_frozen(said.dict()),
        kept=_frozen([message.dict() for message in kept]),
    )


def _frozen(value: Any) -> Any:
    return codec.decode_object(codec.encode({"value": value}))["value"]


def stored_position(metadata: FrozenDict) -> int:
    """Position of the last message that the stored summary covers; -1 without one."""
    stored = metadata.get(SUMMARY)
    return int(stored["position"]) if isinstance(stored, dict) else -1


def loaded(metadata: FrozenDict, chain: Chain) -> Summary:
    """The stored summary, which must be there."""
    stored = metadata[SUMMARY]
    said, *kept = chain.incoming(
        (Message(**thaw(stored["message"])), *(Message(**thaw(message)) for message in stored.get("kept", EMPTY)))
    )
    text = said.content if isinstance(said.content, str) else ""
    return Summary(text, stored["message_id"], tuple(kept))
