"""Conversations out of a provider, as lines; and what a provider has to offer for that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.damage import OnDamaged
from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.protocol import ManagedMemoryProvider
from jaf_memory_core.transfer.imports import Step
from jaf_memory_core.transfer.jsonlines import write_line


def require(provider: object, method: str, purpose: str) -> None:
    """Say clearly what a provider does not offer.

    Args:
        provider: any provider.
        method: what is needed beyond the six documented methods.
        purpose: what needs it, as it stands in the error.

    Raises:
        MemoryConfigurationError: the provider has no such method.
    """
    if not callable(getattr(provider, method, None)):
        name = provider_name(provider)
        raise MemoryConfigurationError(
            f"provider {name!r} does not offer {method}, which {purpose} needs", provider=name
        )


def provider_name(provider: object) -> str:
    """A provider's name; one without any is called by its class."""
    name = getattr(provider, "name", None)
    return name if isinstance(name, str) else type(provider).__name__


async def export(
    provider: ManagedMemoryProvider,
    query: MemoryQuery | None = None,
    *,
    on_step: Step | None = None,
    on_damaged: OnDamaged = "raise",
) -> AsyncIterator[bytes]:
    """Write conversations as lines, oldest first, in bounded memory.

    Args:
        provider: where they are.
        query: which; all when `None`.
        on_step: called with each conversation before its line is yielded.
        on_damaged: what happens about a conversation that cannot be read, as `iter_conversations` has it.

    Yields:
        one line a conversation, as `read_lines` takes it.

    Raises:
        MemoryConfigurationError: the provider does not offer `iter_conversations`.
        MemoryStorageError: a conversation is damaged, and `on_damaged` is `"raise"`.
    """
    require(provider, "iter_conversations", "export")
    async with aclosing(iterated(provider, query, on_damaged)) as conversations:
        async for conversation in conversations:
            if on_step:
                on_step(conversation)
            yield write_line(conversation)


def iterated(provider: ManagedMemoryProvider, query: MemoryQuery | None, on_damaged: OnDamaged) -> Any:
    """All conversations that match, as an iterator that can be closed, whatever the provider gave."""
    # A provider of somebody else's need not know of damage.
    options: Any = {} if on_damaged == "raise" else {"on_damaged": on_damaged}
    conversations = provider.iter_conversations(query, **options)
    return conversations if hasattr(conversations, "aclose") else (one async for one in conversations)
