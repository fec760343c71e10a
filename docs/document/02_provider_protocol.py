from jaf_memory_core import MemoryProvider, MemoryQuery, ConversationMemory
from typing import List, Optional, Dict, Any

class MyCustomProvider:
    async def store_messages(
        self,
        conversation_id: str,
        messages: List[Message],
        metadata: Optional[Dict[str, Any]] = None
    ) -> Result:
        """Store messages for a conversation."""

    async def get_conversation(self, conversation_id: str) -> Optional[ConversationMemory]:
        """Retrieve complete conversation history."""

    async def append_messages(
        self,
        conversation_id: str,
        messages: List[Message],
        metadata: Optional[Dict[str, Any]] = None
    ) -> Result:
        """Add new messages to existing conversation."""

    async def get_recent_messages(
        self,
        conversation_id: str,
        limit: int = 50
    ) -> List[Message]:
        """Get recent messages from conversation."""

    async def delete_conversation(self, conversation_id: str) -> bool:
        """Delete conversation and return success status."""

    async def health_check(self) -> Dict[str, Any]:
        """Check provider health and connectivity."""
