"""`Reads`: one conversation, pages of its messages, and many conversations, on every provider over a `Backend`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from jaf_memory_core import rules, validation
from jaf_memory_core.conversations import ConversationMemory, MemoryQuery, MessagePage
from jaf_memory_core.damage import Listing, OnDamaged
from jaf_memory_core.errors import MemoryNotFoundError, MemoryStorageError
from jaf_memory_core.messages import Message
from jaf_memory_core.provider.base import ProviderBase, ends, shown
from jaf_memory_core.records import Page, Record, Tail

if TYPE_CHECKING:
    from jaf_memory_core.backend import Backend

BEFORE_ALL = -1
"""The position before the first: what stands behind it is the whole conversation."""


ROOM = 16 << 20
"""Characters of messages that are asked for at once."""


async def _pages(backend: Backend, tails: Sequence[Tail]) -> list[Page | MemoryStorageError | None]:
    """All of them, in as few steps as it takes; with headers, where they are asked for."""
    found: list[Page | MemoryStorageError | None] = []
    while len(found) < len(tails):
        found += await backend.tails(tails[len(found) :], ROOM)
    for index, (tail, page) in enumerate(zip(tails, found, strict=True)):
        if tail.with_header and isinstance(page, Page) and page.header is None:
            found[index] = await ends(backend, tail)
    return found


class Reads(ProviderBase):
    """Reading never writes, and never renews an expiry."""

    async def get_conversation(self, conversation_id: str) -> ConversationMemory | None:
        """The whole conversation, or `None`.

        Example:
            conversation = await provider.get_conversation("user-123:chat")
            print(conversation.user_id, conversation.version, len(conversation.messages))  # user-123 1 2
        """
        record = await self._read("get_conversation", conversation_id)
        return await self._shown(record, "get_conversation") if record else None

    async def get_conversation_until_message(self, conversation_id: str, message_id: str) -> ConversationMemory | None:
        """The conversation up to, without, that message; `None` if there is no such conversation or message.

        Example:
            before = await provider.get_conversation_until_message("user-123:chat", "m2")
            print([message.message_id for message in before.messages])  # ['m1']
        """
        validation.checked_id(message_id, "message_id")
        operation = "get_conversation_until_message"
        record = await self._read(operation, conversation_id)
        for index, message in enumerate(record.messages if record else ()):
            if message.message_id == message_id and record is not None:
                before = replace(record, messages=record.messages[:index], message_count=index)
                return await self._shown(before, operation)
        return None

    async def _read(self, operation: str, conversation_id: str) -> Record | None:
        key = validation.checked_id(conversation_id, "conversation_id")
        record = await self._guard.run(operation, lambda: self.backend.read(key), key)
        return rules.seen(record, self.backend.now(), self._scope)

    async def get_recent_messages(self, conversation_id: str, limit: int = 50) -> list[Message]:
        """The last `limit` messages, oldest first.

        Raises:
            MemoryNotFoundError: there is no such conversation.

        Example:
            (newest,) = await provider.get_recent_messages("user-123:chat", limit=1)
        """
        if self._chain.steps:
            page = await self._page("get_recent_messages", conversation_id, None, limit)
            return list(await self._passed(page.messages, "get_recent_messages", conversation_id, page))
        # The same without processors, in one step less: nothing is read more often.
        key = validation.checked_id(conversation_id, "conversation_id")
        tail = Tail(key, validation.checked_count(limit, "limit"), None, self._scope)
        found = await self._guard.run("get_recent_messages", partial(self.backend.tail, tail), tail)
        if found is None:
            raise MemoryNotFoundError(key, provider=self.name)
        return list(found.messages)

    async def get_last_messages(
        self, conversation_ids: Sequence[str], *, on_damaged: OnDamaged = "raise"
    ) -> dict[str, Message]:
        """The last message of each of these conversations, as a list shows them, in one question to the store.

        Args:
            conversation_ids: which. One that is not there, or has no messages, is left out of the answer.
            on_damaged: what becomes of one that cannot be read, as for `find_conversations`.

        Raises:
            MemoryStorageError: one is damaged; `conversation_id` says which.

        Example:
            lasts = await provider.get_last_messages(["user-123:chat", "no such one"])
            print({key: message.content for key, message in lasts.items()})  # {'user-123:chat': 'On its way.'}
        """
        operation, listing = "get_last_messages", Listing(on_damaged, self.name)
        keys = validation.checked_ids(conversation_ids, "conversation_ids")
        tails = [Tail(key, 1, None, self._scope, with_header=self._chain.needs_owner) for key in keys]
        if not tails:
            self._guard.check()
            return {}
        about = MemoryQuery(user_id=self._scope)
        pages = await self._guard.run(operation, partial(_pages, self.backend, tails), about)
        lasts: dict[str, Message] = {}
        for key, page in zip(keys, pages, strict=True):
            try:
                if isinstance(page, MemoryStorageError):
                    raise page
                if page is not None and page.messages:
                    (lasts[key],) = await self._passed(page.messages, operation, key, page)
            except MemoryStorageError as error:
                listing.unread(error)
        listing.end()
        return lasts

    async def get_messages(
        self,
        conversation_id: str,
        before: int | None = None,
        limit: int = 50,
        *,
        leading: int = 0,
        after: int | None = None,
    ) -> MessagePage:
        """A page of at most `limit` messages, oldest first: the last ones, or the last before position `before`.

        Positions count from 0 at the first message ever stored; a page's `before` leads to the page before it, and its
        `after` to the page behind it, now or when something has come.

        Args:
            conversation_id: 1 to 255 characters.
            before: a position.
            limit: how many at most.
            after: a position, or -1 for the beginning: the first messages behind it. Where a cap has removed these, the
                page begins behind the gap; where the conversation was cut off before it, the page is empty, and its
                `after` is where the conversation ends now.
            leading: also the conversation's first messages, those before this position that do not stand in the page:
                the page's `leading` has them.

        Raises:
            MemoryNotFoundError: there is no such conversation.

        Example:
            page = await provider.get_messages("user-123:chat", limit=1)
            while page.before is not None:
                page = await provider.get_messages("user-123:chat", page.before, limit=1)
            print(page[0].message_id)  # m1
        """
        if before is not None:
            validation.checked_count(before, "before")
        validation.checked_count(leading, "leading")
        if after is not None and after != BEFORE_ALL:
            validation.checked_count(after, "after")
        page = await self._page("get_messages", conversation_id, before, limit, leading=leading, after=after)
        messages = await self._passed(page.messages, "get_messages", conversation_id, page)
        first = await self._passed(page.leading, "get_messages", conversation_id, page) if page.leading else ()
        return MessagePage(messages, page.first if page.more else None, first, page.last)

    async def _passed(
        self, messages: tuple[Message, ...], operation: str, conversation_id: str, page: Page
    ) -> tuple[Message, ...]:
        if not self._chain:
            return messages
        owner = self._scope
        if page.header is not None:
            owner = page.header.user_id
            await self._prepared(operation, page.header)
        return self._chain.within(operation, conversation_id, owner).incoming(messages)

    async def _page(
        self,
        operation: str,
        conversation_id: str,
        before: int | None,
        limit: int,
        *,
        leading: int = 0,
        after: int | None = None,
    ) -> Page:
        key = validation.checked_id(conversation_id, "conversation_id")
        most, header = validation.checked_count(limit, "limit"), self._chain.needs_owner
        tail = Tail(key, most, before, self._scope, leading, with_header=header, after=after)
        beside = leading or header or after is not None
        call = partial(ends, self.backend, tail) if beside else partial(self.backend.tail, tail)
        page = await self._guard.run(operation, call, tail)
        if page is None:
            raise MemoryNotFoundError(key, provider=self.name)
        return page

    async def find_conversations(
        self, query: MemoryQuery, *, on_damaged: OnDamaged = "raise"
    ) -> list[ConversationMemory]:
        """Conversations that pass every filter, newest `active_at` first, ties by id descending.

        Args:
            query: the filters.
            on_damaged: what becomes of a conversation whose stored form cannot be read: "raise" its error, "skip" it
                and log a warning that names each, or a function that is called with the error of each. One that is
                left out still takes its place in a page.

        Raises:
            MemoryStorageError: one is damaged; `conversation_id` says which.

        Example:
            query = MemoryQuery(user_id="user-123", limit=20, include_messages=False)
            page = await provider.find_conversations(query)
            following = await provider.find_conversations(query.after(page[-1]))
        """
        listing = Listing(on_damaged, self.name)
        operation = "find_conversations"
        scoped = self._scoped(validation.checked_query(query), operation)
        if scoped is None or scoped.limit == 0:
            self._guard.check()
            return []
        found = await self._guard.run(operation, lambda: self.backend.find(scoped), scoped)
        conversations = []
        for record in map(listing.readable, found):
            # A store that let another user's conversation through must not show it.
            if record is not None and rules.matches(record, scoped):
                asked = _asked_for(record, scoped)
                one = await self._listed(asked, operation, listing) if self._chain.steps else shown(asked)
                if one is not None:
                    conversations.append(one)
        listing.end()
        return conversations

    async def iter_conversations(
        self, query: MemoryQuery | None = None, *, on_damaged: OnDamaged = "raise"
    ) -> AsyncGenerator[ConversationMemory, None]:
        """Conversations that pass every filter, in (`created_at`, id) order, in bounded memory.

        Misses nothing that stood throughout, and passes none twice; one that is deleted and made again meanwhile is
        another, and may come again. The deadline counts for each conversation.

        Args:
            query: the filters; all conversations when absent.
            on_damaged: as for `find_conversations`; the warning comes at the end.

        Raises:
            MemoryStorageError: one is damaged; `conversation_id` says which.

        Example:
            async for conversation in provider.iter_conversations(MemoryQuery(user_id="user-123")):
                print(conversation.conversation_id, conversation.message_count)
        """
        listing = Listing(on_damaged, self.name)
        operation = "iter_conversations"
        scoped = self._scoped(validation.checked_query(query if query is not None else MemoryQuery()), operation)
        if scoped is None:
            return
        skip, left = scoped.offset, scoped.limit
        # Whoever stops early, stops the store's scan too, and not when somebody collects it.
        async with aclosing(self._guard.iterate(operation, replace(scoped, offset=0, limit=None))) as scan:
            async for found in scan:
                if left == 0:
                    break
                record = listing.readable(found)
                # A scan may give more than what matches, and gives what has expired as well.
                if record is None or not rules.live(record, self.backend.now()) or not rules.matches(record, scoped):
                    continue
                if skip:
                    skip -= 1
                    continue
                asked = _asked_for(record, scoped)
                conversation = await self._listed(asked, operation, listing) if self._chain.steps else shown(asked)
                if conversation is None:
                    continue
                left = None if left is None else left - 1
                yield conversation
        listing.end()

    async def _listed(self, record: Record, operation: str, listing: Listing) -> ConversationMemory | None:
        """A conversation as it is shown; `None` for one that a processor cannot read, and that is left out."""
        try:
            return await self._shown(record, operation)
        except MemoryStorageError as error:
            listing.unread(error)
            return None


def _asked_for(record: Record, query: MemoryQuery) -> Record:
    # A scan may give more than was asked for.
    return record if query.include_messages or not record.messages else replace(record, messages=())
