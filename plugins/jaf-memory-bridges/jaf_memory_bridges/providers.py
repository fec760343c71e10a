"""What bridges ask of a provider: that it can do what is needed, for one owner where there is one; and appends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from jaf_memory_core import (
    Failure,
    ManagedMemoryProvider,
    MemoryConfigurationError,
    MemoryInvalidInputError,
    MemoryNotFoundError,
    MemoryProvider,
    Message,
    SyncMemoryProvider,
    WriteResult,
)


def checked(provider: Any, user_id: str | None, *needed: str) -> ManagedMemoryProvider:
    """The provider that a bridge works with: for a user, one that sees and writes that user's conversations only.

    Args:
        provider: what the application gave.
        user_id: the owner, or `None` for conversations of nobody.
        needed: methods that the bridge calls beside the six documented ones.

    Raises:
        MemoryInvalidInputError: this is no async provider of jaf-memory, or no user id.
        MemoryConfigurationError: it lacks what is needed.
    """
    if isinstance(provider, SyncMemoryProvider):
        raise MemoryInvalidInputError("an async provider is needed, not a SyncMemoryProvider; give the one within it")
    if isinstance(provider, type) or not isinstance(provider, MemoryProvider):
        raise MemoryInvalidInputError(f"a jaf-memory provider is needed, not a {type(provider).__name__}")
    names = [*needed, *(() if user_id is None else ("for_user",))]
    lacking = [name for name in names if not callable(getattr(provider, name, None))]
    if lacking:
        raise MemoryConfigurationError(f"{type(provider).__name__} lacks {', '.join(lacking)}, which the bridge needs")
    whole = cast("ManagedMemoryProvider", provider)
    return whole if user_id is None else whole.for_user(user_id)


async def appended(
    provider: ManagedMemoryProvider,
    conversation_id: str,
    messages: Sequence[Message],
    metadata: Mapping[str, Any] | None = None,
    user_id: str | None = None,
) -> WriteResult:
    """Append, and make the conversation only where it is missing.

    Whoever asks for a conversation to be made gets no repetition of a try whose answer was lost, because that could
    bring back what was erased meanwhile. So that is asked for only where nothing is there.

    Raises:
        MemoryError: the store refused, or could not be reached.
    """
    result = await provider.append_messages(conversation_id, messages, metadata, user_id=user_id)
    if isinstance(result, Failure) and isinstance(result.error, MemoryNotFoundError):
        result = await provider.append_messages(conversation_id, messages, metadata, user_id=user_id, create=True)
    return result.unwrap()
