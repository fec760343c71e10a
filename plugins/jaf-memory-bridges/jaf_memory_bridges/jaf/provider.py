"""jaf-py's `MemoryProvider` over one of ours, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, cast

from jaf.memory import types as jaf

from jaf_memory_bridges.jaf.history import History
from jaf_memory_bridges.jaf.messages import to_jaf
from jaf_memory_bridges.jaf.results import answered, failure
from jaf_memory_bridges.jaf.writes import Writer
from jaf_memory_core import (
    ConversationMemory,
    ManagedMemoryProvider,
    MemoryConfigurationError,
    MemoryConnectionError,
    MemoryInvalidInputError,
    MemoryProvider,
    MemoryQuery,
)
from jaf_memory_core import create_memory_provider_from_env as _create_from_env
from jaf_memory_core.values import thaw


def jaf_provider(provider: MemoryProvider, user_id: str | None = None) -> JafProvider:
    """The provider that jaf-py's engine expects, over any of ours.

    Args:
        provider: a jaf-memory provider. One with just the six documented methods will do for plain runs; what it does
            not offer answers with jaf-py's `Failure`.
        user_id: the owner of every conversation of this bridge, which then sees and writes that user's only. **Give it
            whenever your context is a `dict`**: the engine looks for an attribute.

    Raises:
        MemoryInvalidInputError: this is no provider, or no user id.
    """
    if isinstance(provider, JafProvider):
        provider = provider.provider
    if not isinstance(provider, MemoryProvider):
        raise MemoryInvalidInputError(f"a jaf-memory provider is needed, not a {type(provider).__name__}")
    if user_id is not None and hasattr(provider, "for_user"):
        provider = cast("MemoryProvider", provider.for_user(user_id))
    return JafProvider(provider, user_id=user_id)


async def create_memory_provider_from_env(
    environ: Mapping[str, str] | None = None, *, user_id: str | None = None
) -> JafProvider:
    """Create and open the provider that the environment describes, ready for a `RunConfig`; `JAF_MEMORY_TYPE` chooses.

    Args:
        environ: the variables; `os.environ` when `None`.
        user_id: the owner of every conversation; see `jaf_provider`.

    Raises:
        MemoryConfigurationError: a setting, a plugin or a driver is wrong or missing.
        MemoryConnectionError: the store cannot be reached.
    """
    whole = await _create_from_env(environ)
    bridge = jaf_provider(whole, user_id)
    bridge.owned = whole
    return bridge


class JafProvider:
    """jaf-py's `MemoryProvider` over one of ours; its methods answer with jaf-py's `Success` and `Failure`.

    Attributes:
        provider: ours, for one user if the bridge was given a user.
        owned: what `close` closes: the whole provider, where this one is a view of it.
    """

    def __init__(
        self,
        provider: MemoryProvider,
        *,
        user_id: str | None = None,
        ttl: float | None = None,
        threshold: int | None = None,
    ) -> None:
        self.provider = cast("ManagedMemoryProvider", provider)
        self.owned: Any = provider
        self._user_id = user_id
        self._ttl = ttl
        self._threshold = threshold
        self._writer = Writer(self.provider, user_id, ttl)

    def __repr__(self) -> str:
        return f"<JafProvider over {type(self.provider).__name__}>"

    def configured(self, ttl: float | None, threshold: int | None) -> JafProvider:
        """This bridge with a conversation's ttl in seconds, and a number of messages above which views leave out."""
        if (ttl, threshold) == (self._ttl, self._threshold):
            return self
        bridge = JafProvider(self.provider, user_id=self._user_id, ttl=ttl, threshold=threshold)
        bridge.owned = self.owned
        return bridge

    async def _answer(self, operation: str, work: Callable[[], Coroutine[Any, Any, Any]], *needed: str) -> Any:
        lacking = [name for name in needed if not hasattr(self.provider, name)]
        if lacking:
            text = f"{type(self.provider).__name__} does not offer {', '.join(lacking)}"
            return failure(MemoryConfigurationError(text), operation)
        return await answered(operation, work())

    # Writing.

    async def store_messages(
        self, conversation_id: str, messages: Sequence[Any], metadata: dict[str, Any] | None = None
    ) -> Any:
        """Add what is new in the engine's whole list; nothing that the list lacks is deleted."""
        return await self._answer("store_messages", lambda: self._writer.store(conversation_id, messages, metadata))

    async def append_messages(
        self, conversation_id: str, messages: Sequence[Any], metadata: dict[str, Any] | None = None
    ) -> Any:
        """Add messages to an existing conversation."""

        async def append() -> None:
            found = self._writer.appended(messages)
            await self._writer.append(conversation_id, found, self._writer.labels(metadata))

        return await self._answer("append_messages", append)

    async def truncate_conversation_after(self, conversation_id: str, message_id: str) -> Any:
        """Remove that message and all after it; how many."""
        return await self._answer(
            "truncate_conversation_after",
            lambda: self.provider.truncate_conversation_after(conversation_id, str(message_id)),
            "truncate_conversation_after",
        )

    async def mark_regeneration_point(
        self, conversation_id: str, message_id: str, regeneration_metadata: dict[str, Any]
    ) -> Any:
        """Note a regeneration in the metadata, atomically."""

        async def mark() -> None:
            await self.provider.mark_regeneration_point(conversation_id, str(message_id), regeneration_metadata)

        return await self._answer("mark_regeneration_point", mark, "mark_regeneration_point")

    # Reading.

    async def get_conversation(self, conversation_id: str) -> Any:
        """The whole conversation, or `None`; the last so many of its messages are a valid view."""

        async def get() -> Any:
            return self._conversation(await self.provider.get_conversation(conversation_id))

        return await self._answer("get_conversation", get)

    async def get_conversation_until_message(self, conversation_id: str, message_id: str) -> Any:
        """The conversation up to, without, that message, or `None`."""

        async def get() -> Any:
            return self._conversation(
                await self.provider.get_conversation_until_message(conversation_id, str(message_id))
            )

        return await self._answer("get_conversation_until_message", get, "get_conversation_until_message")

    async def get_recent_messages(self, conversation_id: str, limit: int = 50) -> Any:
        """The last messages, oldest first."""

        async def get() -> list[Any]:
            return [to_jaf(one) for one in await self.provider.get_recent_messages(conversation_id, limit)]

        return await self._answer("get_recent_messages", get)

    async def find_conversations(self, query: Any) -> Any:
        """Conversations that match jaf-py's query, the most recently written first."""

        async def find() -> list[Any]:
            given: dict[str, Any] = {
                name: str(value) if name.endswith("_id") else value
                for name in ("conversation_id", "user_id", "trace_id", "limit", "offset", "since", "until")
                if (value := getattr(query, name)) is not None
            }
            found = await self.provider.find_conversations(MemoryQuery(**given))
            return [self._conversation(one) for one in found]

        return await self._answer("find_conversations", find, "find_conversations")

    def _conversation(self, found: ConversationMemory | None) -> Any:
        if found is None:
            return None
        metadata: dict[str, Any] = thaw(found.metadata)
        conversation = jaf.ConversationMemory(found.conversation_id, found.user_id, [], metadata)
        # jaf-py would make a plain tuple of it.
        object.__setattr__(conversation, "messages", History.of(found, metadata, self._threshold))
        return conversation

    # Erasing, and the rest.

    async def delete_conversation(self, conversation_id: str) -> Any:
        """Delete the conversation; whether it was there."""
        return await self._answer("delete_conversation", lambda: self.provider.delete_conversation(conversation_id))

    async def clear_user_conversations(self, user_id: str) -> Any:
        """Delete all conversations of a user; how many."""
        return await self._answer(
            "clear_user_conversations",
            lambda: self.provider.clear_user_conversations(user_id),
            "clear_user_conversations",
        )

    async def get_stats(self, user_id: str | None = None) -> Any:
        """Counts over all conversations, or one user's."""

        async def get() -> dict[str, Any]:
            return dict(await self.provider.get_stats(user_id))

        return await self._answer("get_stats", get, "get_stats")

    async def health_check(self) -> Any:
        """How the store is; jaf-py's `Failure` when it is not well."""

        async def check() -> dict[str, Any]:
            health = dict(await self.provider.health_check())
            if not health.get("healthy"):
                raise MemoryConnectionError(str(health.get("error")), provider=str(health.get("provider", "")))
            return health

        return await self._answer("health_check", check)

    async def close(self) -> Any:
        """Close what the bridge stands on."""

        async def close() -> None:
            if hasattr(self.owned, "close"):
                await self.owned.close()

        return await self._answer("close", close)

    # The Responses interface.

    async def _noted(self, conversation_id: str, name: str) -> Any:
        header = await self._writer.header(conversation_id)
        return None if header is None else header.metadata.get(name)

    async def get_previous_response_id(self, conversation_id: str) -> Any:
        """Id of the newest response, or `None`."""
        return await self._answer(
            "get_previous_response_id", lambda: self._noted(conversation_id, "previous_response_id")
        )

    async def get_previous_response_message_id(self, conversation_id: str) -> Any:
        """Id of the message that the newest response belongs to, or `None`."""
        return await self._answer(
            "get_previous_response_message_id",
            lambda: self._noted(conversation_id, "previous_response_message_id"),
        )

    async def get_prior_response_id(self, conversation_id: str) -> Any:
        """Id of the response before the newest, or `None`."""
        return await self._answer("get_prior_response_id", lambda: self._noted(conversation_id, "prior_response_id"))

    async def get_previous_response_message_index(self, conversation_id: str) -> Any:
        """How many messages of the engine's list the newest response knew, or `None`."""
        return await self._answer(
            "get_previous_response_message_index",
            lambda: self._noted(conversation_id, "previous_response_message_index"),
        )

    async def set_previous_response_id(  # noqa: PLR0917
        self,
        conversation_id: str,
        response_id: str,
        message_id: str | None = None,
        message_index: int | None = None,
        user_id: str | None = None,
        shift: bool = True,  # noqa: FBT001, FBT002  (jaf-py's signature)
    ) -> Any:
        """Keep the newest response's id; `shift` makes the newest so far the one before. Atomic."""
        response = {
            "response_id": response_id,
            "message_id": None if message_id is None else str(message_id),
            "message_index": message_index,
            "user_id": user_id,
        }
        return await self._answer(
            "set_previous_response_id",
            lambda: self._writer.set_response(conversation_id, response, shift=shift),
        )
