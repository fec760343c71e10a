"""The two protocols: the six methods of the user's document, and everything that our own providers offer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from jaf_memory_core.conversations import (
    CondensedConversation,
    ConversationMemory,
    Lease,
    MemoryHealth,
    MemoryQuery,
    MemoryStats,
    MessagePage,
    Summary,
)
from jaf_memory_core.damage import OnDamaged
from jaf_memory_core.hits import MessageHits, MessageSearch
from jaf_memory_core.messages import Message
from jaf_memory_core.results import Result


@runtime_checkable
class MemoryProvider(Protocol):
    """Six methods, no base class: what an application may always rely on."""

    async def store_messages(
        self, conversation_id: str, messages: Sequence[Message], metadata: Mapping[str, Any] | None = None
    ) -> Result:
        """Create the conversation, or replace all its messages."""

    async def get_conversation(self, conversation_id: str) -> ConversationMemory | None:
        """The whole conversation, or `None`."""

    async def append_messages(
        self, conversation_id: str, messages: Sequence[Message], metadata: Mapping[str, Any] | None = None
    ) -> Result:
        """Add messages to an existing conversation."""

    async def get_recent_messages(self, conversation_id: str, limit: int = 50) -> list[Message]:
        """The last `limit` messages, oldest first."""

    async def delete_conversation(self, conversation_id: str) -> bool:
        """Delete the conversation; `True` if it was there."""

    async def health_check(self) -> Mapping[str, Any]:
        """How the provider and its store are."""


@runtime_checkable
class ManagedMemoryProvider(MemoryProvider, Protocol):
    """All that a provider over a `Backend` offers; `BackendProvider` documents each method."""

    async def store_messages(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        metadata: Mapping[str, Any] | None = None,
        *,
        user_id: str | None = None,
        expected_version: int | None = None,
    ) -> Result:
        """Create the conversation, or replace all its messages."""

    async def append_messages(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        metadata: Mapping[str, Any] | None = None,
        *,
        user_id: str | None = None,
        expected_version: int | None = None,
        create: bool = False,
        ttl: float | None = None,
    ) -> Result:
        """Add messages; with `create=True` the conversation is made where it is missing."""

    async def health_check(self) -> MemoryHealth:
        """How the provider and its store are."""

    async def get_messages(
        self,
        conversation_id: str,
        before: int | None = None,
        limit: int = 50,
        *,
        leading: int = 0,
        after: int | None = None,
    ) -> MessagePage:
        """A page of messages by position: backwards, or with `after` forwards."""

    async def get_last_messages(
        self, conversation_ids: Sequence[str], *, on_damaged: OnDamaged = "raise"
    ) -> dict[str, Message]:
        """The last message of each of these conversations that has one."""

    async def find_conversations(
        self, query: MemoryQuery, *, on_damaged: OnDamaged = "raise"
    ) -> list[ConversationMemory]:
        """Conversations that match, the most recently written first."""

    def iter_conversations(
        self, query: MemoryQuery | None = None, *, on_damaged: OnDamaged = "raise"
    ) -> AsyncIterator[ConversationMemory]:
        """Conversations that match, oldest first, in bounded memory."""

    async def search_messages(self, search: MessageSearch, *, on_damaged: OnDamaged = "raise") -> MessageHits:
        """Messages that say what is searched for, newest first."""

    def iter_users(self, *, on_damaged: OnDamaged = "raise") -> AsyncIterator[str]:
        """Every owner of a conversation, once."""

    async def clear_user_conversations(self, user_id: str) -> int:
        """Delete all conversations of a user; how many."""

    async def get_stats(self, user_id: str | None = None) -> MemoryStats:
        """Counts over all conversations, or one user's."""

    async def delete_conversation(self, conversation_id: str, *, expected_version: int | None = None) -> bool:
        """Delete the conversation; `True` if it was there."""

    async def truncate_conversation_after(
        self, conversation_id: str, message_id: str, *, expected_version: int | None = None
    ) -> int:
        """Remove that message and all after it; how many."""

    async def delete_messages(
        self, conversation_id: str, message_ids: Collection[str], *, expected_version: int | None = None
    ) -> int:
        """Remove these messages and nothing else; how many of them there were."""

    async def get_conversation_until_message(self, conversation_id: str, message_id: str) -> ConversationMemory | None:
        """The conversation up to, without, that message."""

    async def fork_conversation(self, conversation_id: str, new_id: str, until_message_id: str | None = None) -> int:
        """Copy to a new id, up to, without, that message; how many messages the copy holds."""

    async def revise_messages(self, conversation_id: str, revised: Mapping[str, Message]) -> int:
        """Put messages into the places of others, by their ids; the version."""

    async def mark_regeneration_point(
        self, conversation_id: str, message_id: str, regeneration_metadata: Mapping[str, Any] | None = None
    ) -> int:
        """Note in the metadata that the conversation was regenerated from a message; the new version."""

    async def acquire_lease(
        self, conversation_id: str, seconds: float, *, user_id: str | None = None, token: str | None = None
    ) -> Lease:
        """Take the right to run the next turn, for so many seconds."""

    async def renew_lease(self, held: Lease, seconds: float) -> Lease:
        """Keep a lease for so many seconds from now."""

    async def release_lease(self, held: Lease) -> bool:
        """Give a lease back; whether it was still theirs."""

    async def get_condensed_conversation(
        self, conversation_id: str, limit: int | None = None, *, leading: int = 0
    ) -> CondensedConversation | None:
        """The conversation without the messages that a stored summary covers."""

    async def store_summary(
        self, conversation_id: str, summary: Summary, incarnation: str, *, expected_version: int | None = None
    ) -> bool:
        """Keep a summary beside the conversation's messages; whether it was of use."""

    async def update_metadata(
        self,
        conversation_id: str,
        patch: Mapping[str, Any],
        remove: Collection[str] = (),
        expected_version: int | None = None,
    ) -> int:
        """Merge into the metadata, and take keys out; the new version."""

    async def set_expiry(self, conversation_id: str, ttl: float | None) -> int:
        """Seconds from now, or `None` for never; the new version."""

    async def purge_expired(self) -> int:
        """Remove what has expired; how many."""

    async def import_conversation(self, conversation: ConversationMemory) -> Result:
        """Append a conversation's messages, making it with its own times where it is missing."""

    async def import_conversations(
        self, conversations: Sequence[ConversationMemory], *, only_missing: bool = False
    ) -> Sequence[Result]:
        """The same with many; one result each."""

    def for_user(self, user_id: str) -> ManagedMemoryProvider:
        """A provider that sees and writes that user's conversations only."""

    async def close(self) -> None:
        """Let go of the store."""

    async def __aenter__(self) -> Self:
        """Open the provider, where it is not open yet."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Close it."""
