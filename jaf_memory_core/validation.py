"""What a caller gives, checked against the limits before any I/O, the same for every backend."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from jaf_memory_core import codec, rules
from jaf_memory_core.conversations import LONGEST_TTL, ConversationMemory, Lease, MemoryQuery, Summary
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError
from jaf_memory_core.hits import MessageSearch
from jaf_memory_core.messages import Message, plain_from_start
from jaf_memory_core.processors import Chain
from jaf_memory_core.settings import ProviderConfig
from jaf_memory_core.values import EMPTY, FrozenDict, checked, freeze, identifier, is_exact, remade

_SCALARS = frozenset({str, bool, float, type(None)})


class Batch(Struct, frozen=True):
    """Messages ready to be written: distinct ids, encoded, cut to `max_messages`."""

    messages: tuple[Message, ...]
    bodies: tuple[bytes, ...]
    dropped: int


class Labels(NamedTuple):
    """Metadata without the owner, and the owner that the caller states."""

    metadata: FrozenDict
    user_id: str | None


NO_LABELS = Labels(EMPTY, None)


def checked_id(value: Any, what: str) -> str:
    """An id, or a `MemoryInvalidInputError` that says what is allowed."""
    # As `is_plain_id` has it, without a call: every operation comes through here.
    if type(value) is str and 0 < len(value) <= 255 and value.isascii() and "\0" not in value:
        return value
    try:
        return identifier(value)
    except ValueError as error:
        raise MemoryInvalidInputError(f"{what} {error}") from None


def checked_ids(values: Any, what: str, most: int | None = None) -> tuple[str, ...]:
    """Ids, each once, in the order in which they were given; `most` are allowed, `max_append_messages` of a call."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Collection):
        raise MemoryInvalidInputError(f"{what} must be a list of ids, not a {type(values).__name__}")
    if most is not None and len(values) > most:
        raise MemoryInvalidInputError(
            f"{len(values)} {what} in one call, allowed are {most}; make several calls", limit="max_append_messages"
        )
    return tuple(dict.fromkeys(checked_id(value, what.removesuffix("s")) for value in values))


def checked_count(value: Any, what: str) -> int:
    """A whole number from 0, or a `MemoryInvalidInputError`."""
    if type(value) is int and value >= 0:
        return value
    raise MemoryInvalidInputError(f"{what} must be a whole number from 0, not {_described(value)}")


def checked_version(value: Any) -> int | None:
    """An `expected_version`, or `None` for none, or a `MemoryInvalidInputError`."""
    return None if value is None else checked_count(value, "expected_version")


def checked_ttl(value: Any) -> float | None:
    """Seconds, or `None` for never; a `MemoryInvalidInputError` for anything that is no time to live."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST_TTL:
        return float(value)
    raise MemoryInvalidInputError(
        f"ttl must be seconds above 0 and up to {LONGEST_TTL}, or None for never, not {_described(value)}"
    )


def checked_query(value: Any) -> MemoryQuery:
    """A `MemoryQuery`, checked however it came to be, or a `MemoryInvalidInputError`."""
    if isinstance(value, MemoryQuery):
        return checked(MemoryQuery, value)
    raise MemoryInvalidInputError(f"query must be a MemoryQuery, not a {type(value).__name__}")


def checked_search(value: Any) -> MessageSearch:
    """A `MessageSearch`, checked however it came to be, or a `MemoryInvalidInputError`."""
    if isinstance(value, MessageSearch):
        return checked(MessageSearch, value)
    raise MemoryInvalidInputError(f"search must be a MessageSearch, not a {type(value).__name__}")


def checked_conversation(value: Any) -> ConversationMemory:
    """A `ConversationMemory`, or a `MemoryInvalidInputError`; its messages are checked with their batch."""
    if not isinstance(value, ConversationMemory):
        raise MemoryInvalidInputError(f"a ConversationMemory is needed, not a {type(value).__name__}")
    header = checked(ConversationMemory, replace(value, messages=(), message_count=0))
    return replace(header, messages=value.messages)


def checked_conversations(value: Any) -> Sequence[ConversationMemory]:
    """A list, each of whose items is checked when it is its turn, or a `MemoryInvalidInputError`."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return value
    raise MemoryInvalidInputError(f"conversations must be a list of ConversationMemory, not a {type(value).__name__}")


def checked_summary(value: Any, config: ProviderConfig) -> Summary:
    """A `Summary`, checked however it came to be, or a `MemoryInvalidInputError`."""
    if not isinstance(value, Summary):
        raise MemoryInvalidInputError(f"summary must be a Summary, not a {type(value).__name__}")
    checked_text(value.text, "summary.text")
    return Summary(value.text, checked_id(value.message_id, "summary.message_id"), checked_messages(value.kept, config))


def checked_lease(value: Any) -> Lease:
    """A `Lease`, checked however it came to be, or a `MemoryInvalidInputError`."""
    if not isinstance(value, Lease):
        raise MemoryInvalidInputError(f"a Lease is needed, not a {type(value).__name__}")
    checked_id(value.conversation_id, "lease.conversation_id")
    checked_text(value.token, "lease.token")
    checked_count(value.number, "lease.number")
    return value


def checked_text(value: Any, what: str) -> str:
    """A str, or a `MemoryInvalidInputError`."""
    if isinstance(value, str):
        return value
    raise MemoryInvalidInputError(f"{what} must be a str, not a {type(value).__name__}")


def checked_mapping(value: Any, what: str) -> Mapping[Any, Any]:
    """A dict, or a `MemoryInvalidInputError`."""
    if isinstance(value, Mapping):
        return value
    raise MemoryInvalidInputError(f"{what} must be a dict, not a {type(value).__name__}")


def _described(value: Any) -> str:
    return repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"


def batch(
    messages: Any, config: ProviderConfig, processors: Chain, *, longest: int | None = None, whole: bool = True
) -> Batch:
    """Check, process and encode the messages of one call.

    Args:
        messages: what the caller gave.
        config: limits and cap.
        processors: the provider's chain, within this operation.
        longest: how many messages are allowed, where that is limited.
        whole: whether all of it travels in one call, whose size is limited.

    Raises:
        MemoryInvalidInputError: no messages, too many, too large, or too deep.
        MemoryConflictError: two contents under one id.
    """
    given = checked_messages(messages, config)
    if longest is not None and len(given) > longest:
        raise MemoryInvalidInputError(
            f"{len(given)} messages in one append, allowed are {longest}; append in parts", limit="max_append_messages"
        )
    if processors.steps:
        given = _valid(processors.outgoing(given), config)
    bodies = codec.encode_all(given)
    _check_sizes(bodies, config, whole=whole)
    given, bodies = _distinct(given, bodies)
    # Cut here, before any store: none gets what it would drop at once (docs/decisions/0003).
    if config.max_messages is None or len(given) <= config.max_messages:
        return Batch(given, bodies, 0)
    dropped = len(given) - config.max_messages
    return Batch(given[dropped:], bodies[dropped:], dropped)


def checked_messages(messages: Any, config: ProviderConfig) -> tuple[Message, ...]:
    """A list of `Message`s, each checked however it came to be, or a `MemoryInvalidInputError`."""
    kind = type(messages)
    if (
        kind is not list
        and kind is not tuple
        and (not isinstance(messages, Sequence) or isinstance(messages, str | bytes))
    ):
        raise MemoryInvalidInputError(f"messages must be a list of Message, not a {type(messages).__name__}")
    return _valid(tuple(messages), config)


def _valid(messages: tuple[Any, ...], config: ProviderConfig) -> tuple[Message, ...]:
    """The messages, each of which is what its constructor would make of it."""
    plain = plain_from_start(messages)
    # Most batches are texts only, and are handed back as they are.
    if plain == len(messages):
        return messages
    rest = (_valid_message(messages[index], index, config) for index in range(plain, len(messages)))
    return (*messages[:plain], *rest)


def _foreign(item: Any) -> str:
    """What something is that is no message of ours, and what makes one of it."""
    if isinstance(item, Mapping):
        return f"{type(item).__name__}; make one with Message(**data)"
    if callable(getattr(type(item), "model_dump", None)):
        return f"{type(item).__name__}; make one with Message(**data.model_dump(exclude_unset=True))"
    if type(item).__name__ != Message.__name__:
        return type(item).__name__
    return f"{type(item).__module__}.Message; a bridge of jaf_memory_bridges takes those of an agent engine"


def _valid_message(item: Any, index: int, config: ProviderConfig) -> Message:
    if is_exact(Message, item):
        return item  # type: ignore[no-any-return]
    if not isinstance(item, Message):
        raise MemoryInvalidInputError(f"messages must hold Message objects, not a {_foreign(item)}")
    try:
        message = remade(Message, item)
    except MemoryInvalidInputError as error:
        raise MemoryInvalidInputError(f"messages[{index}]: {error}") from None
    check_shape(_items(message), f"messages[{index}]", config)
    return message


def _check_sizes(bodies: tuple[bytes, ...], config: ProviderConfig, *, whole: bool) -> None:
    total = codec.size(bodies)
    # One sum for all of them: nearly always it is below either limit.
    if total <= config.max_message_bytes and total <= config.max_call_bytes:
        return
    for index, body in enumerate(bodies):
        if len(body) > config.max_message_bytes:
            raise MemoryInvalidInputError(
                f"messages[{index}] has {len(body)} bytes, allowed are {config.max_message_bytes}; "
                "store large files elsewhere and keep their URL",
                limit="max_message_bytes",
            )
    if whole and total > config.max_call_bytes:
        raise MemoryInvalidInputError(
            f"the messages of this call have {total} bytes, allowed are {config.max_call_bytes}; write in parts",
            limit="max_call_bytes",
        )


def parts(batch: Batch, config: ProviderConfig) -> Iterator[Batch]:
    """Cut a batch into ones that fit into a call each; an empty batch is one part."""
    if len(batch.bodies) <= config.max_append_messages and codec.size(batch.bodies) <= config.max_call_bytes:
        yield batch
        return
    start = total = 0
    for index, body in enumerate(batch.bodies):
        total += len(body)
        if index > start and (total > config.max_call_bytes or index - start == config.max_append_messages):
            yield Batch(batch.messages[start:index], batch.bodies[start:index], batch.dropped)
            start, total = index, len(body)
    yield Batch(batch.messages[start:], batch.bodies[start:], batch.dropped)


def _distinct(
    messages: tuple[Message, ...], bodies: tuple[bytes, ...]
) -> tuple[tuple[Message, ...], tuple[bytes, ...]]:
    if len(messages) < 2 or len({message.message_id for message in messages}) == len(messages):
        return messages, bodies
    first: dict[str, tuple[Message, bytes]] = {}
    for message, body in zip(messages, bodies, strict=True):
        known = first.setdefault(message.message_id, (message, body))
        if known[1] != body and not codec.same_body(known[1], body):
            raise MemoryConflictError(
                f"two of the messages given have the id {message.message_id!r}, and different content; "
                "give each message an id of its own"
            )
    return tuple(message for message, _ in first.values()), tuple(body for _, body in first.values())


def check_shape(values: Iterable[Any], where: str, config: ProviderConfig) -> None:
    """Refuse what some reader of JSON could not read back: frozen values too deep, or integers too long.

    Raises:
        MemoryInvalidInputError: with the limit.
    """
    too_large = _power(config.max_integer_digits)
    level = list(values)
    for _ in range(config.max_nesting + 1):
        containers = []
        for value in level:
            kind = type(value)
            if kind is int:
                if not -too_large < value < too_large:
                    digits = config.max_integer_digits
                    raise MemoryInvalidInputError(
                        f"{where} holds an integer of more than {digits} digits; store it as a string",
                        limit="max_integer_digits",
                    )
            elif kind not in _SCALARS:
                containers.append(value)
        if not containers:
            return
        level = [item for container in containers for item in _items(container)]
    raise MemoryInvalidInputError(
        f"{where} is nested more than {config.max_nesting} deep; flatten it, or store it as a string",
        limit="max_nesting",
    )


@cache
def _power(digits: int) -> int:
    # 25 µs to work out for 4,000 digits: as much as all other checks of a write together.
    return int(10**digits)


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Struct):
        fields = [getattr(value, name) for name in value.__struct_fields__ if name != "further"]
        return [*fields, *getattr(value, "further", EMPTY).values()]
    return value.values() if isinstance(value, dict) else value


def labels(
    metadata: Any, user_id: Any, config: ProviderConfig, processors: Chain, *, scope: str | None = None
) -> Labels:
    """Check metadata, and take the owner out of it.

    Raises:
        MemoryInvalidInputError: no JSON object, too large, too deep, or two different owners.
    """
    owner = stated_owner(metadata, user_id, scope)
    if metadata is None or (metadata is EMPTY and not processors):
        return Labels(EMPTY, owner)
    frozen = freeze(metadata, where="metadata", datetimes=True)
    if frozen.get("user_id") is not None:
        # The owner has a place of its own beside the metadata (docs/decisions/0003).
        frozen = FrozenDict({key: value for key, value in frozen.items() if key != "user_id"})
    if processors:
        frozen = processed(frozen, processors)
    # Behind the processors, which must not make such keys either.
    if rules.applications(frozen) is not frozen:
        raise MemoryInvalidInputError(f"metadata keys that begin with {rules.RESERVED!r} are the provider's own")
    check_shape(frozen.values(), "metadata", config)
    rules.check_metadata_size(frozen, config.max_metadata_bytes)
    return Labels(frozen, owner)


def removed_keys(keys: Any, patch: Mapping[Any, Any], stored: FrozenDict, processors: Chain) -> tuple[str, ...]:
    """Keys of metadata that are to go, as they are stored.

    Args:
        keys: what the caller gave.
        patch: what is set beside, as the caller gave it.
        stored: the same as it is stored.
        processors: the provider's chain, within this operation.

    Raises:
        MemoryInvalidInputError: no list of keys, one that the patch sets, or one that is not theirs to remove.
    """
    if isinstance(keys, str | bytes) or not isinstance(keys, Collection):
        raise MemoryInvalidInputError(f"remove must be a list of keys, not a {type(keys).__name__}")
    for key in keys:
        checked_text(key, "a key to remove")
        if key == "user_id":
            raise MemoryInvalidInputError("an owner is never taken away; delete the conversation, or leave it")
        if key.startswith(rules.RESERVED):
            raise MemoryInvalidInputError(f"metadata keys that begin with {rules.RESERVED!r} are the provider's own")
    removed = tuple(dict.fromkeys(name for key in keys for name in _stored_keys(key, processors)))
    # As they are stored, too: a processor may bring two keys under one name.
    if any(key in patch for key in keys) or any(name in stored for name in removed):
        raise MemoryInvalidInputError("a key is to be set and to be removed; do one of the two")
    return removed


def _stored_keys(key: str, processors: Chain) -> Iterable[str]:
    """What a processor calls a key: itself, unless it is stored under other names."""
    stored = processors.outgoing_metadata(FrozenDict({key: None})) if processors else {key: None}
    if key in stored:
        return (key,)
    # What a processor adds to every write belongs to all keys.
    always = processors.outgoing_metadata(EMPTY)
    return [name for name in stored if name not in always]


def processed(metadata: FrozenDict, processors: Chain) -> FrozenDict:
    """Metadata, or the filter of a query, as it is stored; an owner in it passes beside the processors."""
    owner = {"user_id": metadata["user_id"]} if "user_id" in metadata else {}
    if owner:
        metadata = FrozenDict({key: value for key, value in metadata.items() if key != "user_id"})
    return FrozenDict({**processors.outgoing_metadata(metadata), **owner})


def owner_of(conversation: Any) -> tuple[Any, Any, Any]:
    """Id, metadata and owner of a conversation that is still to be checked."""
    return tuple(getattr(conversation, name, None) for name in ("conversation_id", "metadata", "user_id"))  # type: ignore[return-value]


def stated_owner(metadata: Any, user_id: Any, scope: str | None = None) -> str | None:
    """The owner that a caller states, by argument, in the metadata or by a view, or `None`.

    Raises:
        MemoryInvalidInputError: no id, no metadata, or two different owners.
    """
    owner = checked_id(user_id, "user_id") if user_id is not None else None
    said = None if metadata is None else checked_mapping(metadata, "metadata").get("user_id")
    if said is not None:
        owner = _agreed(owner, checked_id(said, 'metadata["user_id"]'))
    return _agreed(owner, scope)


def _agreed(one: str | None, other: str | None) -> str | None:
    if one is not None and other is not None and one != other:
        raise MemoryInvalidInputError("two different owners are given for one conversation; give one")
    return one or other
