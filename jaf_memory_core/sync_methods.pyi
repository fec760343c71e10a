# Made by tests/sync_stub.py from the protocols; not to be edited.

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from jaf_memory_core.conversations import CondensedConversation, ConversationMemory, Lease, MemoryQuery, MemoryStats, MessagePage, Summary
from jaf_memory_core.damage import OnDamaged
from jaf_memory_core.hits import MessageHits, MessageSearch
from jaf_memory_core.messages import Message
from jaf_memory_core.results import Result

class SyncMethods:
    def store_messages(self, conversation_id: str, messages: Sequence[Message], metadata: Mapping[str, Any] | None=None, *, user_id: str | None=None, expected_version: int | None=None) -> Result:
        """Create the conversation, or replace all its messages."""
    def get_conversation(self, conversation_id: str) -> ConversationMemory | None:
        """The whole conversation, or `None`."""
    def append_messages(self, conversation_id: str, messages: Sequence[Message], metadata: Mapping[str, Any] | None=None, *, user_id: str | None=None, expected_version: int | None=None, create: bool=False, ttl: float | None=None) -> Result:
        """Add messages; with `create=True` the conversation is made where it is missing."""
    def get_recent_messages(self, conversation_id: str, limit: int=50) -> list[Message]:
        """The last `limit` messages, oldest first."""
    def delete_conversation(self, conversation_id: str, *, expected_version: int | None=None) -> bool:
        """Delete the conversation; `True` if it was there."""
    def get_messages(self, conversation_id: str, before: int | None=None, limit: int=50, *, leading: int=0, after: int | None=None) -> MessagePage:
        """A page of messages by position: backwards, or with `after` forwards."""
    def get_last_messages(self, conversation_ids: Sequence[str], *, on_damaged: OnDamaged='raise') -> dict[str, Message]:
        """The last message of each of these conversations that has one."""
    def find_conversations(self, query: MemoryQuery, *, on_damaged: OnDamaged='raise') -> list[ConversationMemory]:
        """Conversations that match, the most recently written first."""
    def iter_conversations(self, query: MemoryQuery | None=None, *, on_damaged: OnDamaged='raise') -> Iterator[ConversationMemory]:
        """Conversations that match, oldest first, in bounded memory."""
    def search_messages(self, search: MessageSearch, *, on_damaged: OnDamaged='raise') -> MessageHits:
        """Messages that say what is searched for, newest first."""
    def iter_users(self, *, on_damaged: OnDamaged='raise') -> Iterator[str]:
        """Every owner of a conversation, once."""
    def clear_user_conversations(self, user_id: str) -> int:
        """Delete all conversations of a user; how many."""
    def get_stats(self, user_id: str | None=None) -> MemoryStats:
        """Counts over all conversations, or one user's."""
    def truncate_conversation_after(self, conversation_id: str, message_id: str, *, expected_version: int | None=None) -> int:
        """Remove that message and all after it; how many."""
    def delete_messages(self, conversation_id: str, message_ids: Collection[str], *, expected_version: int | None=None) -> int:
        """Remove these messages and nothing else; how many of them there were."""
    def get_conversation_until_message(self, conversation_id: str, message_id: str) -> ConversationMemory | None:
        """The conversation up to, without, that message."""
    def fork_conversation(self, conversation_id: str, new_id: str, until_message_id: str | None=None) -> int:
        """Copy to a new id, up to, without, that message; how many messages the copy holds."""
    def revise_messages(self, conversation_id: str, revised: Mapping[str, Message]) -> int:
        """Put messages into the places of others, by their ids; the version."""
    def mark_regeneration_point(self, conversation_id: str, message_id: str, regeneration_metadata: Mapping[str, Any] | None=None) -> int:
        """Note in the metadata that the conversation was regenerated from a message; the new version."""
    def acquire_lease(self, conversation_id: str, seconds: float, *, user_id: str | None=None, token: str | None=None) -> Lease:
        """Take the right to run the next turn, for so many seconds."""
    def renew_lease(self, held: Lease, seconds: float) -> Lease:
        """Keep a lease for so many seconds from now."""
    def release_lease(self, held: Lease) -> bool:
        """Give a lease back; whether it was still theirs."""
    def get_condensed_conversation(self, conversation_id: str, limit: int | None=None, *, leading: int=0) -> CondensedConversation | None:
        """The conversation without the messages that a stored summary covers."""
    def store_summary(self, conversation_id: str, summary: Summary, incarnation: str, *, expected_version: int | None=None) -> bool:
        """Keep a summary beside the conversation's messages; whether it was of use."""
    def update_metadata(self, conversation_id: str, patch: Mapping[str, Any], remove: Collection[str]=(), expected_version: int | None=None) -> int:
        """Merge into the metadata, and take keys out; the new version."""
    def set_expiry(self, conversation_id: str, ttl: float | None) -> int:
        """Seconds from now, or `None` for never; the new version."""
    def purge_expired(self) -> int:
        """Remove what has expired; how many."""
    def import_conversation(self, conversation: ConversationMemory) -> Result:
        """Append a conversation's messages, making it with its own times where it is missing."""
    def import_conversations(self, conversations: Sequence[ConversationMemory], *, only_missing: bool=False) -> Sequence[Result]:
        """The same with many; one result each."""
