"""jaf-py's `MemoryProvider` over one of ours, and how it is made."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar, cast

from jaf.memory import types as jaf

from jaf_memory_bridges.jaf.callers import LOADS, cutting, forget_regeneration, remember_regeneration
from jaf_memory_bridges.jaf.history import to_core_query, to_jaf_conversation
from jaf_memory_bridges.jaf.loads import forget_loads, note_load, origin_of
from jaf_memory_bridges.jaf.messages import NAMES, named, to_jaf
from jaf_memory_bridges.jaf.results import answered, failure
from jaf_memory_bridges.jaf.window import Window, newest
from jaf_memory_bridges.jaf.writes import Writer, lacking
from jaf_memory_core import (
    ConversationMemory,
    ManagedMemoryProvider,
    MemoryConnectionError,
    MemoryInvalidInputError,
    MemoryProvider,
    SyncMemoryProvider,
)

logger = logging.getLogger("jaf_memory_bridges")

QUIET = frozenset({"get_recent_messages", "health_check", "close"})
"""Operations that an application asks for itself; of all others jaf-py's engine only prints that they failed."""


def jaf_provider(provider: MemoryProvider, user_id: str | None = None) -> JafProvider:
    """The provider that jaf-py's engine expects, over any of ours.

    Args:
        provider: a jaf-memory provider. One with just the six documented methods will do for runs, approvals included;
            what it does not offer answers with jaf-py's `Failure`.
        user_id: the owner of every conversation of this bridge, which then sees and writes that user's only. Give it
            whenever your context is a `dict`: the engine looks for an attribute.

    Raises:
        MemoryInvalidInputError: this is no provider, or no user id.
        MemoryConfigurationError: a user is named, and the provider has no `for_user`, so that nothing would keep the
            users apart.
        MemoryError: this is jaf-py's `Failure` to make a provider; its cause.
    """
    given: Any = provider
    if isinstance(given, jaf.Failure):
        raise given.error.cause or MemoryConnectionError(str(given.error.message), provider=str(given.error.provider))
    origin = None
    if isinstance(given, JafProvider):
        given, origin = given.provider, given.origin
    if isinstance(given, jaf.Success):
        return jaf_provider(given.data, user_id)
    if jaf.MemoryProvider in type(given).__mro__:
        raise MemoryInvalidInputError(
            f"{type(given).__name__} is jaf-py's own provider, which its engine takes as it is; the bridge is for "
            "providers of jaf-memory, such as create_memory_provider_from_env() of jaf_memory_bridges.jaf gives"
        )
    _check(given)
    origin = origin or origin_of(given)
    if user_id is not None:
        if not hasattr(given, "for_user"):
            raise lacking(given, "for_user (without it user_id=... would not keep users apart)")
        given = given.for_user(user_id)
    return JafProvider(given, user_id=user_id, origin=origin)


def _check(provider: object) -> None:
    """Refuse what is no provider, or one whose answers cannot be awaited, before anything is written."""
    if isinstance(provider, SyncMemoryProvider):
        raise MemoryInvalidInputError("an async provider is needed, not a SyncMemoryProvider; give the one within it")
    if isinstance(provider, type) or not isinstance(provider, MemoryProvider):
        given = f"the class {provider.__name__}" if isinstance(provider, type) else f"a {type(provider).__name__}"
        raise MemoryInvalidInputError(f"a jaf-memory provider is needed, not {given}")


class JafProvider(jaf.Success):
    """jaf-py's `MemoryProvider` over one of ours; its methods answer with jaf-py's `Success` and `Failure`.

    It is a `Success` itself, whose `data` it is: jaf-py's factories answer with a `Success` around the provider, and
    the document that jaf-memory was built against uses what they answer as the provider.

    Attributes:
        provider: ours, for one user if the bridge was given a user.
        owned: what `close` closes: the whole provider, where this one is a view of it.
        origin: a name of the whole provider, which all bridges over it share.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]] = {}  # or `asdict` would go round in circles

    def __init__(
        self,
        provider: MemoryProvider,
        *,
        user_id: str | None = None,
        ttl: float | None = None,
        window: Window | None = None,
        origin: str | None = None,
    ) -> None:
        _check(provider)
        self.provider = cast("ManagedMemoryProvider", provider)
        self.owned: Any = provider
        self._user_id = user_id
        self._ttl = ttl
        self._window = window or Window()
        self.origin = origin or origin_of(provider)
        self._writer = Writer(self.provider, user_id, ttl, self.origin)

    @property
    def data(self) -> JafProvider:
        """The provider, as in jaf-py's `Success`."""
        return self

    @property
    def has_owner(self) -> bool:
        """Whether all of its conversations are one user's."""
        return self._user_id is not None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {type(self.provider).__name__}>"

    def configured(self, ttl: float | None, window: Window) -> JafProvider:
        """This bridge with a conversation's ttl in seconds, and what a model may be shown.

        Raises:
            MemoryConfigurationError: a ttl is given, and the provider has no `set_expiry`.
        """
        if ttl is not None and not hasattr(self.provider, "set_expiry"):
            raise lacking(self.provider, "set_expiry (without it nothing would expire after ttl=...)")
        if (ttl, window) == (self._ttl, self._window):
            return self
        bridge = JafProvider(self.provider, user_id=self._user_id, ttl=ttl, window=window, origin=self.origin)
        # Else `close` would close a view for one user, which closes nothing.
        bridge.owned = self.owned
        return bridge

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JafProvider) and self.provider is other.provider and self._user_id == other._user_id

    def __hash__(self) -> int:
        return hash((id(self.provider), self._user_id))

    async def _answer(
        self, operation: str, conversation_id: Any, work: Callable[[], Coroutine[Any, Any, Any]], *needed: str
    ) -> Any:
        missing = [name for name in needed if not hasattr(self.provider, name)]
        answer = failure(lacking(self.provider, *missing), operation) if missing else await answered(operation, work())
        if isinstance(answer, jaf.Failure) and operation not in QUIET:
            # Something else in the place of an id, messages for one, is not for a log.
            shown = repr(conversation_id) if isinstance(conversation_id, str) else f"a {type(conversation_id).__name__}"
            where = "" if conversation_id is None else f" for conversation {shown}"
            logger.warning("%s failed%s: %s", operation, where, answer.error.message)
        return answer

    # Writing.

    def store_messages(
        self, conversation_id: str, messages: Sequence[Any], metadata: dict[str, Any] | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Add what is new in the engine's whole list; nothing that the list lacks is deleted.

        Only the engine's own regeneration and checkpoints cut a conversation back.
        """
        cuts = cutting()  # here, and not in the coroutine, which may become a task of its own
        return self._answer(
            "store_messages", conversation_id, lambda: self._writer.store(conversation_id, messages, metadata, cuts)
        )

    async def append_messages(
        self, conversation_id: str, messages: Sequence[Any], metadata: dict[str, Any] | None = None
    ) -> Any:
        """Add messages to an existing conversation."""

        async def append() -> None:
            found = self._writer.appended(messages)
            await self._writer.append(conversation_id, found, self._writer.labels(metadata))

        return await self._answer("append_messages", conversation_id, append)

    async def truncate_conversation_after(self, conversation_id: str, message_id: str) -> Any:
        """Remove that message and all after it; how many."""
        return await self._answer(
            "truncate_conversation_after",
            conversation_id,
            lambda: self._truncated(conversation_id, message_id),
            "truncate_conversation_after",
        )

    async def _truncated(self, conversation_id: str, message_id: Any) -> int:
        return await self.provider.truncate_conversation_after(conversation_id, named(message_id, "message_id"))

    async def mark_regeneration_point(
        self, conversation_id: str, message_id: str, regeneration_metadata: dict[str, Any]
    ) -> Any:
        """Note a regeneration in the metadata, atomically."""

        async def mark() -> None:
            key = named(message_id, "message_id")
            await self.provider.mark_regeneration_point(conversation_id, key, regeneration_metadata)

        # Also where it cannot be noted: the engine goes on to hand over its list.
        if isinstance(message_id, NAMES):
            remember_regeneration(conversation_id, str(message_id))
        return await self._answer("mark_regeneration_point", conversation_id, mark, "mark_regeneration_point")

    # Reading.

    def get_conversation(self, conversation_id: str) -> Coroutine[Any, Any, Any]:
        """The whole conversation, or `None`; the last so many of its messages are a valid view.

        The engine's own load is given the messages that its view can show, and no more are read.
        """
        asks = sys._getframe(1).f_code
        if LOADS is None or asks is not LOADS:
            return self._loaded(conversation_id, Window())
        forget_regeneration()
        return self._loaded(conversation_id, self._window)

    async def _loaded(self, conversation_id: str, window: Window) -> Any:
        async def get() -> Any:
            part = await newest(self.provider, conversation_id, window)
            found = None if part is None else self._conversation(part.conversation, part.unread)
            note_load((self.origin, conversation_id), None if found is None else found.messages.loaded)
            return found

        return await self._answer("get_conversation", conversation_id, get)

    async def get_conversation_until_message(self, conversation_id: str, message_id: str) -> Any:
        """The conversation up to, without, that message, or `None`."""

        async def get() -> Any:
            return self._conversation(
                await self.provider.get_conversation_until_message(conversation_id, named(message_id, "message_id"))
            )

        return await self._answer(
            "get_conversation_until_message", conversation_id, get, "get_conversation_until_message"
        )

    async def get_recent_messages(self, conversation_id: str, limit: int = 50) -> Any:
        """The last messages, oldest first."""

        async def get() -> list[Any]:
            return [to_jaf(one) for one in await self.provider.get_recent_messages(conversation_id, limit)]

        return await self._answer("get_recent_messages", conversation_id, get)

    async def find_conversations(self, query: Any) -> Any:
        """Conversations that match, the most recently written first.

        Args:
            query: jaf-py's `MemoryQuery`, or that of jaf_memory_core, all of whose filters hold.
        """

        async def find() -> list[Any]:
            return [self._conversation(one) for one in await self.provider.find_conversations(to_core_query(query))]

        return await self._answer("find_conversations", None, find, "find_conversations")

    def _conversation(self, found: ConversationMemory | None, unread: int = 0) -> Any:
        return None if found is None else to_jaf_conversation(found, self.origin, self._window.threshold, unread)

    # Erasing, and the rest.

    async def delete_conversation(self, conversation_id: str) -> Any:
        """Delete the conversation; whether it was there."""

        async def delete() -> bool:
            # This task knows that it is gone: what it stores from now on is another conversation.
            note_load((self.origin, conversation_id), None)
            return await self.provider.delete_conversation(conversation_id)

        return await self._answer("delete_conversation", conversation_id, delete)

    async def clear_user_conversations(self, user_id: str) -> Any:
        """Delete all conversations of a user; how many."""

        async def clear() -> int:
            forget_loads(self.origin, user_id)  # as in `delete_conversation`
            return await self.provider.clear_user_conversations(user_id)

        return await self._answer("clear_user_conversations", None, clear, "clear_user_conversations")

    async def get_stats(self, user_id: str | None = None) -> Any:
        """Counts over all conversations, or one user's."""

        async def get() -> dict[str, Any]:
            return dict(await self.provider.get_stats(user_id))

        return await self._answer("get_stats", None, get, "get_stats")

    async def health_check(self) -> Any:
        """How the store is; jaf-py's `Failure` when it is not well."""

        async def check() -> dict[str, Any]:
            health = dict(await self.provider.health_check())
            if not health.get("healthy"):
                raise MemoryConnectionError(str(health.get("error")), provider=str(health.get("provider", "")))
            return health

        return await self._answer("health_check", None, check)

    async def close(self) -> Any:
        """Close what the bridge stands on."""

        async def close() -> None:
            if hasattr(self.owned, "close"):
                await self.owned.close()

        return await self._answer("close", None, close)

    # The Responses interface.

    async def _noted(self, conversation_id: str, name: str) -> Any:
        header = await self._writer.header(conversation_id)
        return None if header is None else header.metadata.get(name)

    async def get_previous_response_id(self, conversation_id: str) -> Any:
        """Id of the newest response, or `None`."""
        return await self._answer(
            "get_previous_response_id", conversation_id, lambda: self._noted(conversation_id, "previous_response_id")
        )

    async def get_previous_response_message_id(self, conversation_id: str) -> Any:
        """Id of the message that the newest response belongs to, or `None`."""
        return await self._answer(
            "get_previous_response_message_id",
            conversation_id,
            lambda: self._noted(conversation_id, "previous_response_message_id"),
        )

    async def get_prior_response_id(self, conversation_id: str) -> Any:
        """Id of the response before the newest, or `None`."""
        return await self._answer(
            "get_prior_response_id", conversation_id, lambda: self._noted(conversation_id, "prior_response_id")
        )

    async def get_previous_response_message_index(self, conversation_id: str) -> Any:
        """How many messages of the engine's list the newest response knew, or `None`."""
        return await self._answer(
            "get_previous_response_message_index",
            conversation_id,
            lambda: self._noted(conversation_id, "previous_response_message_index"),
        )

    async def set_previous_response_id(
        self,
        conversation_id: str,
        response_id: str,
        message_id: str | None = None,
        message_index: int | None = None,
        user_id: str | None = None,
        shift: bool = True,
    ) -> Any:
        """Keep the newest response's id; `shift` makes the newest so far the one before. Atomic."""
        response = {
            "response_id": response_id,
            "message_id": message_id,
            "message_index": message_index,
            "user_id": user_id,
        }
        return await self._answer(
            "set_previous_response_id",
            conversation_id,
            lambda: self._writer.set_response(conversation_id, response, shift=shift),
        )
