"""How the engine's whole lists become appends: the writing half of the bridge."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from jaf_memory_bridges.jaf.callers import CHECKPOINT, REGENERATION, notes_regeneration
from jaf_memory_bridges.jaf.history import BOUNDARY, INDEX, News, identified, nameless, news
from jaf_memory_bridges.jaf.loads import Loaded, loaded_here
from jaf_memory_bridges.jaf.messages import is_message, merged, named, to_core
from jaf_memory_bridges.jaf.results import written
from jaf_memory_core import (
    Failure,
    ManagedMemoryProvider,
    MemoryConfigurationError,
    MemoryConflictError,
    MemoryInvalidInputError,
    MemoryNotFoundError,
    MemoryQuery,
    Message,
    Result,
    WriteResult,
    validation,
)

logger = logging.getLogger("jaf_memory_bridges")

KEPT_BY_US = frozenset({"regeneration_points", "regeneration_count", "last_regeneration"})
"""Metadata that the engine reads and writes back, while others may add to it; `mark_regeneration_point` writes it."""

DERIVED = frozenset({"created_at", "updated_at", "last_activity", "total_messages"})
"""Metadata that jaf-py's providers keep beside the messages; the bridge reads it off the conversation."""

_STORED: ContextVar[tuple[str, str, tuple[str, ...] | None] | None] = ContextVar("jaf_memory_stored", default=None)
"""The list that this task stored last, behind its conversation and its last id: the engine says next how much of it the
model's server knows."""


def lacking(provider: object, *names: str) -> MemoryConfigurationError:
    """What is said of a provider that does not offer a method."""
    return MemoryConfigurationError(f"{type(provider).__name__} does not offer {', '.join(names)}")


class Writer:
    """Writes what the engine hands over into one provider."""

    def __init__(self, provider: ManagedMemoryProvider, user_id: str | None, ttl: float | None, origin: str) -> None:
        self._provider = provider
        self._user_id = user_id
        self._ttl = ttl
        self._origin = origin
        self._keywords = frozenset(inspect.signature(provider.append_messages).parameters)
        self._warned = False

    def labels(self, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
        """The engine's metadata, with the owner that this bridge was given, and without what is kept by us."""
        given = {name: value for name, value in _given(metadata).items() if name not in KEPT_BY_US | DERIVED}
        if given.get("user_id") is None:
            given.pop("user_id", None)
        else:
            given["user_id"] = named(given["user_id"], "user_id")  # a number or a UUID names somebody, too
        if self._user_id is not None:
            given.setdefault("user_id", self._user_id)
        if "user_id" not in given and not self._warned:
            self._warned = True
            logger.warning(
                "a run's conversation belongs to nobody, and an erasure by user will not find it: the engine reads the "
                "owner from an attribute user_id of the context; give jaf_provider(provider, user_id=...)"
            )
        return given

    async def store(
        self,
        conversation_id: str,
        messages: Sequence[Any],
        metadata: Mapping[str, Any] | None,
        cuts: frozenset[str] = frozenset(),
    ) -> None:
        """Add what is new in the engine's whole list, revise what has become of held messages, and leave the rest.

        Args:
            conversation_id: made if there is none, and none was deleted meanwhile.
            messages: the engine's list.
            metadata: to be merged.
            cuts: what of the engine's has asked that cuts a conversation back (`callers.CUTS`).

        Raises:
            MemoryNotFoundError: the list goes back to a conversation that was deleted meanwhile.
            MemoryConfigurationError: a held message was edited, or is to be cut off, and the provider cannot do that;
                in the former case what is new was stored.
            MemoryError: as `append_messages`.
        """
        conversation_id = validation.checked_id(conversation_id, "conversation_id")
        given = _given(metadata)
        noted = REGENERATION in cuts and notes_regeneration(conversation_id, given)
        found = await self._news(conversation_id, _listed(messages), noted=noted)
        # Before the answer is there: the list counts as stored, unless the conversation is known to be gone.
        self._remember(conversation_id, messages, stored=True)
        try:
            # A process that is killed behind this leaves the conversation cut, and without what the run has added.
            await self._cut_back(conversation_id, found, given, cuts)
            if found.revised:
                await self._provider.revise_messages(conversation_id, found.revised)
            await self.append(conversation_id, found, self.labels(given))
        except MemoryNotFoundError:
            self._remember(conversation_id, messages, stored=False)
            raise
        # Behind the append: an edit that the provider cannot make must not keep out what is new.
        if found.rebuilt:
            await self._revised(conversation_id, found.rebuilt, found.loaded)

    async def _news(self, conversation_id: str, messages: Sequence[Any], *, noted: bool) -> News:
        place = (self._origin, conversation_id)
        if noted:
            return News(loaded_here(place) or Loaded())
        in_place = hasattr(self._provider, "revise_messages")
        if not nameless(messages):
            found = news(messages, {}, place, in_place=in_place)
        else:
            conversation = await self._provider.get_conversation(conversation_id)
            stored = () if conversation is None else conversation.messages
            found = news(messages, identified(messages, conversation_id, stored), place, in_place=in_place)
        _warn_of_cuts(conversation_id, messages, found)
        return found

    async def append(self, conversation_id: str, found: News, metadata: dict[str, Any]) -> None:
        """Append new messages; where one of them is held with other content, revise that, and append the rest."""
        # What was loaded and is gone was deleted meanwhile, and is not made again (docs/decisions/0009).
        create = found.loaded is None
        result = await self._append(conversation_id, found.fresh, metadata, create=create)
        if isinstance(result, Failure) and isinstance(result.error, MemoryConflictError):
            result = await self._reconciled(conversation_id, found, metadata, result)
        await self._expiring(conversation_id, found, written(result))

    async def _append(
        self, conversation_id: str, messages: Sequence[Message], metadata: dict[str, Any], *, create: bool
    ) -> Result:
        keywords: dict[str, Any] = {"create": create} if "create" in self._keywords else {}
        if self._ttl is not None and "ttl" in self._keywords:
            keywords["ttl"] = self._ttl
        result = await self._provider.append_messages(conversation_id, list(messages), metadata, **keywords)
        missing = isinstance(result, Failure) and isinstance(result.error, MemoryNotFoundError)
        if missing and create and "create" not in keywords:  # a provider with the six documented methods
            result = await self._provider.store_messages(conversation_id, list(messages), metadata)
        return result

    async def _reconciled(
        self, conversation_id: str, found: News, metadata: dict[str, Any], refused: Failure
    ) -> Result:
        given = {one.message_id: one for one in found.fresh}
        held = await self._revised(conversation_id, given, found.loaded)
        if not held:
            return refused  # the conflict was another one: the owner's, or a version's
        rest = [one for key, one in given.items() if key not in held]
        return await self._append(conversation_id, rest, metadata, create=False)

    async def _revised(
        self, conversation_id: str, after: Mapping[str, Message], loaded: Loaded | None
    ) -> frozenset[str]:
        """Put into place what was edited of these messages; ids of those that the conversation holds."""
        conversation = await self._provider.get_conversation(conversation_id)
        held = {} if conversation is None else {one.message_id: one for one in conversation.messages}
        strangers = [key for key, one in after.items() if key in held and one.role != held[key].role]
        if strangers:  # no edit makes an answer of a question: a callback gave one message the id of another
            raise MemoryConflictError(
                f"conversation {conversation_id!r} holds the message {strangers[0]!r} with another role; a callback "
                "must leave each message its own id"
            )
        shown = {} if loaded is None else loaded.shown
        merges = {key: merged(held[key], one, shown.get(key)) for key, one in after.items() if key in held}
        changed = {key: new for key, new in merges.items() if new != held[key]}
        if changed and not hasattr(self._provider, "revise_messages"):
            raise lacking(self._provider, "revise_messages")
        if changed:
            await self._provider.revise_messages(conversation_id, changed)
        return frozenset(held.keys() & after.keys())

    async def _expiring(self, conversation_id: str, found: News, result: WriteResult) -> None:
        if self._ttl is None or (found.loaded is not None and found.loaded.ttl == self._ttl):
            return
        # At version 1 this append has made it, and given it the ttl.
        if result.version > 1 or "ttl" not in self._keywords:
            await self._provider.set_expiry(conversation_id, self._ttl)

    # Regeneration and checkpoints: the only lists that mean that the rest of the conversation is to go.

    async def _cut_back(
        self, conversation_id: str, found: News, metadata: Mapping[str, Any], cuts: frozenset[str]
    ) -> None:
        # These notes stay in the metadata, which any list may bring along: only who hands it over tells what it means.
        regenerates = REGENERATION in cuts and metadata.get("regeneration_truncated")
        regenerated = metadata.get("regeneration_point") if regenerates else None
        goes_back = CHECKPOINT in cuts and metadata.get("checkpoint_truncated")
        checkpoint = metadata.get("checkpoint_point") if goes_back else None
        if regenerated is None and checkpoint is None:
            return
        conversation = await self._provider.get_conversation(conversation_id)
        ids = [] if conversation is None else [message.message_id for message in conversation.messages]
        held = [key for key in found.known if key in ids]
        ends_here = not found.fresh and held[-1:] == [checkpoint]
        # The engine's last note of a regeneration, whose point is gone, comes from the same function.
        if not ends_here and (regenerated not in ids or regenerated in found.known):
            return
        first = ids.index(held[-1]) + 1 if held else ids.index(str(regenerated))
        if first < len(ids):
            if not hasattr(self._provider, "truncate_conversation_after"):
                raise lacking(self._provider, "truncate_conversation_after")
            await self._provider.truncate_conversation_after(conversation_id, ids[first])

    # The Responses interface: the model's own server keeps what it was sent.

    def _remember(self, conversation_id: str, messages: Sequence[Any], *, stored: bool) -> None:
        if messages:
            ids = tuple(str(message.message_id) for message in messages)
            _STORED.set((conversation_id, ids[-1], ids if stored else None))

    async def set_response(self, conversation_id: str, response: Mapping[str, Any], *, shift: bool) -> None:
        """Keep the newest response's id, and the one before it; atomic where the provider knows versions.

        Args:
            conversation_id: made if there is none.
            response: `response_id`, `message_id`, `message_index` and `user_id`, as the engine gives them.
            shift: whether the newest so far becomes the one before.

        Raises:
            MemoryNotFoundError: the list that it belongs to goes back to a conversation that was deleted meanwhile: the
                model's server still knows what was said there, and nothing must lead back to it.
            MemoryError: as `append_messages`.
        """
        last, message_id = _STORED.get(), response["message_id"]
        key = None if message_id is None else named(message_id, "message_id")
        ids = last[2] if last is not None and key is not None and last[:2] == (conversation_id, key) else ()
        if ids is None:
            raise MemoryNotFoundError(conversation_id)
        index = response["message_index"]
        if index is not None:
            validation.checked_count(index, "message_index")
        boundary = ids[index - 1] if index is not None and 0 < index <= len(ids) else key
        # Until nobody came in between: which response was the one before depends on the newest so far.
        while True:
            header = await self.header(conversation_id)
            before = {} if header is None else header.metadata
            patch = {
                "prior_response_id": before.get("previous_response_id") if shift else None,
                "previous_response_id": response["response_id"],
                "previous_response_message_id": key,
                INDEX: index,
                BOUNDARY: boundary,
            }
            owner = response["user_id"] if header is None else header.user_id
            keywords: dict[str, Any] = {"create": True} if "create" in self._keywords else {}
            if "expected_version" in self._keywords:
                keywords["expected_version"] = 0 if header is None else header.version
            labels = self.labels({**patch, "user_id": owner})
            result = await self._provider.append_messages(conversation_id, [], labels, **keywords)
            conflict = isinstance(result, Failure) and isinstance(result.error, MemoryConflictError)
            if not (conflict and isinstance(result, Failure) and _of_versions(result.error)):
                written(result)
                return

    async def header(self, conversation_id: str) -> Any:
        """The conversation without its messages, or `None`."""
        if not hasattr(self._provider, "find_conversations"):
            return await self._provider.get_conversation(conversation_id)
        query = MemoryQuery(conversation_id=conversation_id, limit=1, include_messages=False)
        found = await self._provider.find_conversations(query)
        return found[0] if found else None

    def appended(self, messages: Sequence[Any]) -> News:
        """A list that is to be appended as it is, to a conversation that must be there."""
        return News(Loaded(), fresh=tuple(to_core(message) for message in _listed(messages)))


def _given(metadata: Any) -> Mapping[Any, Any]:
    return {} if metadata is None else validation.checked_mapping(metadata, "metadata")


def _of_versions(error: Exception) -> bool:
    return isinstance(error, MemoryConflictError) and error.expected_version is not None


def _listed(messages: Any) -> Sequence[Any]:
    if isinstance(messages, list | tuple):
        wrong = [type(one) for one in messages if not is_message(one)]
        if not wrong:
            return messages
        text = f"messages must hold jaf.Message objects, not a {wrong[0].__module__}.{wrong[0].__qualname__}"
    else:
        text = f"messages must be a list of jaf.Message objects, not a {type(messages).__name__}"
    raise MemoryInvalidInputError(text)


def _warn_of_cuts(conversation_id: str, messages: Sequence[Any], found: News) -> None:
    """Tell when the engine has cut calls out of the list, as its own compression does: they are lost, and not by us."""
    calls = {call.id for message in messages for call in message.tool_calls or ()}
    orphans = [one for one in found.fresh if one.tool_call_id is not None and one.tool_call_id not in calls]
    if orphans:
        logger.warning(
            "the engine handed over results without their calls for conversation %r: something cut its list before it "
            "was stored; jaf-py's own MemoryConfig(compression_threshold=...) does, that of jaf_memory_bridges.jaf "
            "does not",
            conversation_id,
        )
