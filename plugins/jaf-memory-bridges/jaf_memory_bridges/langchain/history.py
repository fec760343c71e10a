"""`JafMemoryChatMessageHistory`: LangChain's chat message history over a provider."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from langchain_core.runnables.config import run_in_executor

from jaf_memory_bridges.langchain.messages import to_langchain, to_message
from jaf_memory_bridges.providers import appended, checked
from jaf_memory_core import ManagedMemoryProvider, MemoryInvalidInputError, MemoryProvider, SyncMemoryProvider

T = TypeVar("T")


class JafMemoryChatMessageHistory(BaseChatMessageHistory):
    """A chat message history of LangChain: one conversation of a jaf-memory provider.

    Over an async provider the methods of asyncio code do (`ainvoke` and its kin call these). Over a
    `SyncMemoryProvider` all of them do; those of asyncio code then wait in a thread.

    Args:
        session_id: the conversation's id.
        provider: an async provider over any backend, or a `SyncMemoryProvider`.
        user_id: the owner. With it the history sees and writes that user's conversation only, and an erasure of the
            user takes it along.

    Raises:
        MemoryInvalidInputError: this is no provider of jaf-memory, or no user id.
        MemoryConfigurationError: the provider lacks what is needed.
    """

    def __init__(
        self, session_id: str, provider: MemoryProvider | SyncMemoryProvider, *, user_id: str | None = None
    ) -> None:
        super().__init__()
        self.session_id = session_id
        self._waits = not isinstance(provider, SyncMemoryProvider)
        self._provider: ManagedMemoryProvider
        if isinstance(provider, SyncMemoryProvider):
            self._provider = _AtOnce(provider if user_id is None else provider.for_user(user_id))
        else:
            self._provider = checked(provider, user_id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._provider!r}>"

    @property
    def messages(self) -> list[BaseMessage]:
        """The messages, oldest first."""
        return self._now(self._read())

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages: all or nothing, side by side; one with an `id` that is held already is not added again.

        Raises:
            MemoryConflictError: a message of the same `id` says something else.
            MemoryError: the store refused, or could not be reached.
        """
        self._now(self._add(messages))

    def clear(self) -> None:
        """Delete the conversation; nothing of it remains."""
        self._now(self._delete())

    async def aget_messages(self) -> list[BaseMessage]:
        """The messages, oldest first."""
        return await self._read() if self._waits else await run_in_executor(None, lambda: self.messages)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages, as `add_messages` does."""
        await (self._add(messages) if self._waits else run_in_executor(None, self.add_messages, messages))

    async def aclear(self) -> None:
        """Delete the conversation; nothing of it remains."""
        await (self._delete() if self._waits else run_in_executor(None, self.clear))

    async def _read(self) -> list[BaseMessage]:
        found = await self._provider.get_conversation(self.session_id)
        return to_langchain(found.messages) if found is not None else []

    async def _add(self, messages: Sequence[BaseMessage]) -> None:
        if messages:
            await appended(self._provider, self.session_id, [to_message(message) for message in messages])

    async def _delete(self) -> None:
        await self._provider.delete_conversation(self.session_id)

    def _now(self, work: Coroutine[Any, Any, T]) -> T:
        """Run what does not wait: over a synchronous provider each step has ended when it answers."""
        if self._waits:
            work.close()
            raise MemoryInvalidInputError(
                "code without asyncio needs a SyncMemoryProvider; over an async provider use aget_messages, "
                "aadd_messages and aclear, which ainvoke calls"
            )
        try:
            work.send(None)
        except StopIteration as ended:
            answer: T = ended.value
            return answer
        raise AssertionError  # something waited


class _AtOnce:
    """A synchronous provider in the form of an async one, whose answers are there at once."""

    def __init__(self, provider: SyncMemoryProvider) -> None:
        self._provider = provider

    def __repr__(self) -> str:
        return repr(self._provider)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._provider, name)

        async def call(*given: Any, **named: Any) -> Any:
            return method(*given, **named)

        return call
