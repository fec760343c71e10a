"""Conversation memory for agent applications: one interface, whatever store is behind it.

provider = await create_memory_provider_from_env()      # JAF_MEMORY_TYPE chooses
await provider.store_messages("user-1:chat", [Message(role="user", content="Hello!")], {"user_id": "user-1"})
"""

from __future__ import annotations

import typing

from jaf_memory_core.backends.in_memory import InMemoryConfig, create_in_memory_provider
from jaf_memory_core.codec import digest
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
from jaf_memory_core.errors import (
    MemoryConfigurationError,
    MemoryConflictError,
    MemoryConnectionError,
    MemoryError,
    MemoryInvalidInputError,
    MemoryNotFoundError,
    MemoryStorageError,
)
from jaf_memory_core.factory import (
    create_memory_provider,
    create_memory_provider_from_env,
    get_memory_provider_info,
    test_memory_provider_connection,
)
from jaf_memory_core.hits import MessageHit, MessageHits, MessageSearch
from jaf_memory_core.messages import Attachment, ContentPart, FunctionCall, Message, ToolCall
from jaf_memory_core.observation import Operation, OperationEvent
from jaf_memory_core.processors import Context, Processor
from jaf_memory_core.protocol import ManagedMemoryProvider, MemoryProvider
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.results import Failure, Result, Success, WriteResult
from jaf_memory_core.settings import ProviderConfig
from jaf_memory_core.sync import SyncMemoryProvider

if typing.TYPE_CHECKING:
    from jaf_memory_core.session import MemoryConfig, MemorySession

__all__ = [
    "Attachment",
    "BackendProvider",
    "CondensedConversation",
    "ContentPart",
    "Context",
    "ConversationMemory",
    "Failure",
    "FunctionCall",
    "InMemoryConfig",
    "Lease",
    "ManagedMemoryProvider",
    "MemoryConfig",
    "MemoryConfigurationError",
    "MemoryConflictError",
    "MemoryConnectionError",
    "MemoryError",
    "MemoryHealth",
    "MemoryInvalidInputError",
    "MemoryNotFoundError",
    "MemoryProvider",
    "MemoryQuery",
    "MemorySession",
    "MemoryStats",
    "MemoryStorageError",
    "Message",
    "MessageHit",
    "MessageHits",
    "MessagePage",
    "MessageSearch",
    "Operation",
    "OperationEvent",
    "Processor",
    "ProviderConfig",
    "Result",
    "Success",
    "Summary",
    "SyncMemoryProvider",
    "ToolCall",
    "WriteResult",
    "create_in_memory_provider",
    "create_memory_provider",
    "create_memory_provider_from_env",
    "digest",
    "get_memory_provider_info",
    "test_memory_provider_connection",
]


if not typing.TYPE_CHECKING:  # a checker would take any name for one of the module's

    def __getattr__(name: str) -> typing.Any:
        # A twelfth of what this import takes, for who keeps sessions.
        if name in {"MemoryConfig", "MemorySession"}:
            from jaf_memory_core import session

            return getattr(session, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
