"""What a caller gives, checked against the limits before any I/O, the same for every backend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from jaf_memory_core import codec, rules
from jaf_memory_core.conversations import LONGEST_TTL, MemoryQuery
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError
from jaf_memory_core.messages import Message
from jaf_memory_core.processors import Chain
from jaf_memory_core.settings import ProviderConfig
from jaf_memory_core.values import EMPTY, FrozenDict, freeze, identifier


class Batch(NamedTuple):
    """Messages ready to be written: distinct ids, encoded, cut to `max_messages`."""

    messages: tuple[Message, ...]
    bodies: tuple[bytes, ...]
    dropped: int


class Labels(NamedTuple):
    """Metadata without the owner, and the owner that the caller states."""

    metadata: FrozenDict
    user_id: str | None


def checked_id(value: Any, what: str) -> str:
    """An id, or a `MemoryInvalidInputError` that says what is allowed."""
    try:
        return identifier(value)
    except ValueError as error:
        raise MemoryInvalidInputError(f"{what} {error}") from None


def checked_count(value: Any, what: str) -> int:
    """A whole number from 0, or a `MemoryInvalidInputError`."""
    if type(value) is int and value >= 0:
        return value
    raise MemoryInvalidInputError(f"{what} must be a whole number from 0, not {_described(value)}")


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
    """A `MemoryQuery`, or a `MemoryInvalidInputError`."""
    if isinstance(value, MemoryQuery):
        return value
    raise MemoryInvalidInputError(f"query must be a MemoryQuery, not a {type(value).__name__}")


def _described(value: Any) -> str:
    return repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"


def batch(
    messages: Any, config: ProviderConfig, processors: Chain, *, longest: int | None = None, whole: bool = True
) -> Batch:
    """Check, process and encode the messages of one call.

    Args:
        messages: what the caller gave.
        config: limits and cap.
        processors: the provider's chain.
        longest: how many messages are allowed, where that is limited.
        whole: whether all of it travels in one call, whose size is limited.

    Raises:
        MemoryInvalidInputError: no messages, too many, too large, or too deep.
        MemoryConflictError: two contents under one id.
    """
    given = _messages(messages)
    if longest is not None and len(given) > longest:
        raise MemoryInvalidInputError(f"{len(given)} messages in one append, allowed are {longest}; append in parts")
    if processors:
        given = tuple(map(processors.outgoing, given))
    for index, message in enumerate(given):
        if not _is_plain(message):
            check_shape(message.dict().values(), f"messages[{index}]", config)
    bodies = tuple(map(codec.encode, given))
    _check_sizes(bodies, config, whole=whole)
    given, bodies = _distinct(given, bodies)
    dropped = max(0, len(given) - config.max_messages) if config.max_messages is not None else 0
    return Batch(given[dropped:], bodies[dropped:], dropped)


def _messages(messages: Any) -> tuple[Message, ...]:
    kind = type(messages)
    if (
        kind is not list
        and kind is not tuple
        and (not isinstance(messages, Sequence) or isinstance(messages, str | bytes))
    ):
        raise MemoryInvalidInputError(f"messages must be a list of Message, not a {type(messages).__name__}")
    for item in messages:
        if not isinstance(item, Message):
            hint = "; make one with Message(**data)" if isinstance(item, Mapping) else ""
            raise MemoryInvalidInputError(f"messages must hold Message objects, not a {type(item).__name__}{hint}")
    return tuple(messages)


def _is_plain(message: Message) -> bool:
    return (
        message.further is EMPTY
        and message.tool_calls is None
        and message.attachments is None
        and not isinstance(message.content, tuple)
    )


def _check_sizes(bodies: tuple[bytes, ...], config: ProviderConfig, *, whole: bool) -> None:
    total = codec.size(bodies)
    if total <= config.max_message_bytes and total <= config.max_call_bytes:
        return
    for index, body in enumerate(bodies):
        if len(body) > config.max_message_bytes:
            raise MemoryInvalidInputError(
                f"messages[{index}] has {len(body)} bytes, allowed are {config.max_message_bytes}; "
                "store large files elsewhere and keep their URL"
            )
    if whole and total > config.max_call_bytes:
        raise MemoryInvalidInputError(
            f"the messages of this call have {total} bytes, allowed are {config.max_call_bytes}; write in parts"
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
    if len({message.message_id for message in messages}) == len(messages):
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
    """Refuse what some reader of JSON could not read back: too deep, or integers too long.

    Raises:
        MemoryInvalidInputError: with the limit.
    """
    too_large = _power(config.max_integer_digits)
    level = list(values)
    for _ in range(config.max_nesting + 1):
        for value in level:
            if type(value) is int and not -too_large < value < too_large:
                raise MemoryInvalidInputError(
                    f"{where} holds an integer of more than {config.max_integer_digits} digits; store it as a string"
                )
        containers = [value for value in level if isinstance(value, dict | list)]
        if not containers:
            return
        level = [item for container in containers for item in _items(container)]
    raise MemoryInvalidInputError(
        f"{where} is nested more than {config.max_nesting} deep; flatten it, or store it as a string"
    )


@cache
def _power(digits: int) -> int:
    # 25 µs to work out for 4,000 digits: as much as all other checks of a write together.
    return int(10**digits)


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def labels(
    metadata: Any, user_id: Any, config: ProviderConfig, processors: Chain, *, scope: str | None = None
) -> Labels:
    """Check metadata, and take the owner out of it.

    Raises:
        MemoryInvalidInputError: no JSON object, too large, too deep, or two different owners.
    """
    owner = checked_id(user_id, "user_id") if user_id is not None else None
    if metadata is None:
        return Labels(EMPTY, _agreed(owner, scope))
    if not isinstance(metadata, Mapping):
        raise MemoryInvalidInputError(f"metadata must be a dict, not a {type(metadata).__name__}")
    if processors:
        metadata = processors.outgoing_metadata(dict(metadata))
    frozen = freeze(metadata, where="metadata", datetimes=True)
    check_shape(frozen.values(), "metadata", config)
    size = len(codec.encode(frozen))
    if size > config.max_metadata_bytes:
        raise MemoryInvalidInputError(f"metadata has {size} bytes, allowed are {config.max_metadata_bytes}")
    if frozen.get("user_id") is not None:
        said = checked_id(frozen["user_id"], 'metadata["user_id"]')
        owner = _agreed(owner, said)
        frozen = FrozenDict({key: value for key, value in frozen.items() if key != "user_id"})
    if rules.applications(frozen) is not frozen:
        raise MemoryInvalidInputError(f"metadata keys that begin with {rules.RESERVED!r} are the provider's own")
    return Labels(frozen, _agreed(owner, scope))


def _agreed(one: str | None, other: str | None) -> str | None:
    if one is not None and other is not None and one != other:
        raise MemoryInvalidInputError("two different owners are given for one conversation; give one")
    return one or other
