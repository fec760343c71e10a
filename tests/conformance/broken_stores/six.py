"""Classes with just the six documented methods that go wrong in one state of a conversation."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from broken_stores.sound import Six, caught_by
from jaf_memory_core import ConversationMemory, Result


@caught_by("test_table_of_six_methods[store]")
class SixThatForgetLabels(Six):
    """Six methods, of which `store_messages` takes away the metadata that stands."""

    async def store_messages(self, conversation_id: str, messages: Any, metadata: Any = None) -> Result:
        known = self.kept.get(conversation_id)
        if known is not None:
            self.kept[conversation_id] = replace(known, metadata={})
        return await super().store_messages(conversation_id, messages, metadata)


@caught_by("test_table_of_six_methods[append of v]")
class SixThatChangeOwners(Six):
    """Six methods that give a conversation to whoever writes."""

    async def append_messages(self, conversation_id: str, messages: Any, metadata: Any = None) -> Result:
        known = self.kept.get(conversation_id)
        if known is not None and (metadata or {}).get("user_id"):
            self.kept[conversation_id] = replace(known, user_id=None)
        return await super().append_messages(conversation_id, messages, metadata)


@caught_by("test_table_of_six_methods[append what is held]")
class SixThatLabelRetries(Six):
    """Six methods, of which `append_messages` merges metadata also where it adds nothing."""

    async def append_messages(self, conversation_id: str, messages: Any, metadata: Any = None) -> Result:
        answer = await super().append_messages(conversation_id, messages, metadata)
        known = self.kept.get(conversation_id)
        if known is not None and metadata:
            self.kept[conversation_id] = replace(known, metadata={**known.metadata, **metadata})
        return answer


@caught_by("test_table_of_six_methods[append]")
class SixThatRemember(Six):
    """Six methods, of which `delete_conversation` leaves the messages for whoever makes the conversation again."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: dict[str, ConversationMemory] = {}

    async def delete_conversation(self, conversation_id: str) -> bool:
        if conversation_id in self.kept:
            self.gone[conversation_id] = self.kept[conversation_id]
        return await super().delete_conversation(conversation_id)

    async def append_messages(self, conversation_id: str, messages: Any, metadata: Any = None) -> Result:
        gone, known = self.gone.pop(conversation_id, None), self.kept.get(conversation_id)
        if gone is not None and known is not None:
            self.kept[conversation_id] = replace(known, messages=(*gone.messages[:1], *known.messages))
        return await super().append_messages(conversation_id, messages, metadata)
