"""LangChain on any jaf-memory provider: a `BaseChatMessageHistory` for code with and without asyncio.

    history = JafMemoryChatMessageHistory("user-123:chat", provider, user_id="user-123")
    chain = RunnableWithMessageHistory(model, lambda session_id: history)

Messages come back as they were given, with calls, artifacts, usage and ids, and are messages of ours as well. A message
with an `id` is stored once, however often it is added; one without is another one each time, as with LangChain's own.

LangChain calls `BaseChatMessageHistory` deprecated from langchain-core 1.6.4 on, in favour of LangGraph's short-term
memory, and means to remove it with 2.0. What JSON cannot hold, an artifact that is an object for one, is refused.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

from jaf_memory_bridges import extras

extras.require("langchain", module="langchain_core", distribution="langchain-core", versions=">=1,<2")

from langchain_core.chat_history import BaseChatMessageHistory  # without it, the line above says what to do
from langchain_core.messages import BaseMessage, convert_to_messages, message_to_dict, messages_from_dict
from langchain_core.runnables.config import run_in_executor

from jaf_memory_bridges.given import ROLES, given_of, said, translated
from jaf_memory_bridges.providers import appended, checked
from jaf_memory_core import ManagedMemoryProvider, MemoryInvalidInputError, MemoryProvider, Message, SyncMemoryProvider

__all__ = ["JafMemoryChatMessageHistory", "to_langchain", "to_message"]


ENGINE = "langchain"

SPEAKERS = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "function"}
"""LangChain's type → our role."""


def to_message(message: BaseMessage) -> Message:
    """A message that says what LangChain's says, and from which `to_langchain` makes it again.

    What LangChain's own stores keep of a message stays beside ours, without the content where that is the very same.

    Raises:
        MemoryInvalidInputError: it holds what JSON cannot.
    """
    given = message_to_dict(message)
    data = given["data"]
    fields = _fields(message, given["type"])
    known = {} if message.id is None else {"message_id": message.id}
    least = {**known, "role": fields["role"], "content": str(message.text)}
    without = {**given, "data": {name: value for name, value in data.items() if name != "content"}}
    whole = said(ENGINE, without, {**known, **fields, "content": data["content"]}, least)
    if (_given(whole) or {}).get("data") == data:
        return whole
    return said(ENGINE, given, {**known, **fields, "content": str(message.text)}, least)


def _fields(message: BaseMessage, kind: str) -> dict[str, Any]:
    """Who speaks, what is called, and which call is answered."""
    kind = kind.removesuffix("MessageChunk").lower()
    role = getattr(message, "role", None) if kind == "chat" else SPEAKERS.get(kind)
    fields: dict[str, Any] = {"role": role if role in ROLES else "user"}
    if message.name:
        fields["name"] = message.name
    if fields["role"] == "tool":
        fields["tool_call_id"] = getattr(message, "tool_call_id", None)
    # What Anthropic's blocks call already, is not called a second time.
    parts = [part for part in message.content if isinstance(part, Mapping)]
    blocks = {part.get("id") for part in parts if part.get("type") == "tool_use"}
    calls = [call for call in getattr(message, "tool_calls", ()) if call["id"] not in blocks]
    if calls:
        fields["tool_calls"] = [
            {"id": call["id"], "function": {"name": call["name"], "arguments": call["args"]}} for call in calls
        ]
    return fields


def _given(message: Message) -> dict[str, Any] | None:
    """What LangChain's own stores keep of a message, whole; `None` of another engine's."""
    given = given_of(ENGINE, message)
    data = given.get("data") if given is not None else None
    if given is None or not isinstance(data, dict):
        return None
    if "content" not in data:
        content = message.content
        data["content"] = content if content is None or isinstance(content, str) else message.dict()["content"]
    return given


def to_langchain(messages: Iterable[Message]) -> list[BaseMessage]:
    """The messages of LangChain that ours were made of; those of another engine as LangChain would have them."""
    made: list[BaseMessage] = []
    pairs = [(_given(message), message) for message in messages]
    for own, run in groupby(pairs, lambda pair: pair[0] is not None):
        if own:
            made.extend(messages_from_dict([given for given, _ in run if given is not None]))
        else:
            made.extend(convert_to_messages(translated((message for _, message in run), "chat")))
    return made


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
