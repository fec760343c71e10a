"""`ConversationMemory`, what is asked of conversations (`MemoryQuery`), and what the answers look like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import make_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Self, TypedDict

import msgspec
from pydantic import AfterValidator, Field

from jaf_memory_core import cursors
from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.messages import Message
from jaf_memory_core.values import EMPTY, Count, Identifier, Items, Json, Text, Value, is_plain_id


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except (OverflowError, ValueError):  # datetime.min and datetime.max have no neighbouring time zones
        return moment.replace(tzinfo=UTC)


def _is_kept_in_utc(moment: Any) -> bool:
    return moment is None or (type(moment) is datetime and moment.tzinfo is UTC)


def _is_count(number: Any) -> bool:
    return type(number) is int and number >= 0


Moment = Annotated[datetime, AfterValidator(_utc)]
"""A datetime; a naive one is local time. Kept in UTC."""


LONGEST_TTL = 100 * 366 * 86_400
"""Seconds: no conversation may be told to stay longer, unless for ever."""


class ConversationMemory(Value, frozen=True, omit_defaults=True):
    """A whole conversation, frozen all the way down.

    Attributes:
        conversation_id: its id, 1 to 255 characters.
        user_id: the owner, or `None`; `metadata["user_id"]` shows it too.
        messages: a tuple of `Message`s, oldest first.
        metadata: a read-only dict.
        created_at, active_at, updated_at, expires_at: UTC, by the store's clock; `None` before it is stored, or for no
            expiry. `active_at` is when its messages last changed, `updated_at` when anything of it did.
        ttl: seconds by which each write renews `expires_at`, or `None`.
        version: grows by one with each write; 0 before it is stored.
        incarnation: random at creation: a conversation made again under an old id is another one.
        message_count: how many messages are stored, also where they were not asked for.

    Example:
        conversation = ConversationMemory("user-123:old", "user-123", [Message("user", "Hello!")], {"topic": "orders"})
    """

    conversation_id: Identifier
    user_id: Identifier | None = None
    messages: Items[Message] = ()
    metadata: Json = EMPTY
    created_at: Moment | None = None
    updated_at: Moment | None = None
    expires_at: Moment | None = None
    ttl: Annotated[float, Field(gt=0, le=LONGEST_TTL)] | None = None
    version: Count = 0
    incarnation: str = ""
    message_count: Count | None = None
    active_at: Moment | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            conversation_id: str,
            user_id: str | None = None,
            messages: Sequence[Message] = (),
            metadata: Mapping[str, Any] = EMPTY,
            **rest: Any,
        ) -> None: ...

    def __post_init__(self) -> None:
        if self.message_count is None:
            msgspec.structs.force_setattr(self, "message_count", len(self.messages))

    @classmethod
    def _is_exact(cls, given: Any) -> bool:
        # An import looks at each: without messages, which are checked by themselves, and without free JSON.
        return (
            type(given) is cls
            and given.messages == ()
            and given.metadata is EMPTY
            and is_plain_id(given.conversation_id)
            and (given.user_id is None or is_plain_id(given.user_id))
            and all(map(_is_kept_in_utc, (given.created_at, given.updated_at, given.expires_at, given.active_at)))
            and given.ttl is None
            and _is_count(given.version)
            and _is_count(given.message_count)
            and type(given.incarnation) is str
        )

    @property
    def cursor(self) -> str | None:
        """Its place in a list, for `MemoryQuery.after`: an opaque text, which a web client may keep and hand back.

        `None` before it is stored.
        """
        place = _place_of(self)
        return None if place is None else cursors.written("list", place)

    def _repr_html_(self) -> str:
        """What a notebook shows of it; all text is escaped, and what is long is shortened."""
        from jaf_memory_core.notebooks import html_of  # late: only notebooks need it

        return html_of(self)


# The document calls it a dataclass: so `dataclasses.replace`, `asdict` and `fields` take it as one.
type.__setattr__(
    ConversationMemory,
    "__dataclass_fields__",
    vars(make_dataclass("_Fields", [(name, Any, None) for name in ConversationMemory.__struct_fields__]))[
        "__dataclass_fields__"
    ],
)


class MemoryQuery(Value, frozen=True, omit_defaults=True):
    """Which conversations; all filters hold together, and `None` is no filter.

    Attributes:
        conversation_id: that one conversation.
        user_id: the owner.
        trace_id: equal to `metadata["trace_id"]`.
        metadata: top-level keys that must have exactly these JSON values (1, 1.0 and True differ).
        since, until: on `created_at`; from inclusive, to exclusive. A naive datetime is local time.
        active_since, active_until: the same on `active_at`, by which lists are ordered.
        updated_since, updated_until: the same on `updated_at`.
        limit: at most so many; `None` is all.
        offset: skip so many first; `after()` is faster and does not repeat.
        include_messages: `False` leaves `messages` empty; `message_count` still tells how many there are.
        cursor: made by `after()`.

    Example:
        since = datetime.now(UTC) - timedelta(days=7)
        query = MemoryQuery(user_id="user-123", metadata={"topic": "orders"}, active_since=since, limit=20)
    """

    conversation_id: Identifier | None = None
    user_id: Identifier | None = None
    trace_id: Text | None = None
    metadata: Json | None = None
    since: Moment | None = None
    until: Moment | None = None
    active_since: Moment | None = None
    active_until: Moment | None = None
    updated_since: Moment | None = None
    updated_until: Moment | None = None
    limit: Annotated[int, Field(ge=0)] | None = None
    offset: Count = 0
    include_messages: bool = True
    cursor: tuple[datetime, datetime, str] | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            conversation_id: str | None = None,
            user_id: str | None = None,
            trace_id: str | None = None,
            metadata: Mapping[str, Any] | None = None,
            since: datetime | None = None,
            until: datetime | None = None,
            **rest: Any,
        ) -> None: ...

    @classmethod
    def _is_exact(cls, given: Any) -> bool:
        return (
            type(given) is cls
            and given.metadata is None
            and given.trace_id is None
            and given.cursor is None
            and all(key is None or is_plain_id(key) for key in (given.conversation_id, given.user_id))
            and all(map(_is_kept_in_utc, (given.since, given.until, given.active_since, given.active_until)))
            and all(map(_is_kept_in_utc, (given.updated_since, given.updated_until)))
            and (given.limit is None or _is_count(given.limit))
            and _is_count(given.offset)
            and type(given.include_messages) is bool
        )

    def after(self, last: ConversationMemory | str | None) -> MemoryQuery:
        """The same query for what comes after `last`: a conversation that this query returned, or its `cursor`.

        Raises:
            MemoryInvalidInputError: if `last` was never stored, and so has no place in the order (then its `cursor` is
                `None`), or is no cursor.
        """
        if isinstance(last, str):
            return msgspec.structs.replace(self, cursor=cursors.read("list", last)[0], offset=0)
        if not isinstance(last, ConversationMemory):
            raise MemoryInvalidInputError(
                f"after() takes a ConversationMemory or its cursor, not a {type(last).__name__}"
            )
        place = _place_of(last)
        if place is None:
            raise MemoryInvalidInputError(
                "after() takes a conversation that a query returned; this one was never stored"
            )
        # The offset was counted on the first page.
        return msgspec.structs.replace(self, cursor=place, offset=0)


def _place_of(stored: ConversationMemory) -> cursors.Position | None:
    # Both times, since one cursor serves both orders. What another provider made may know of no activity.
    active = stored.active_at or stored.updated_at
    if stored.created_at is None or active is None:
        return None
    return stored.created_at, active, stored.conversation_id


class MessagePage(tuple[Message, ...]):  # noqa: SLOT001  (`before` needs a `__dict__`)
    """A page of messages, oldest first, as a tuple that knows its place.

    Attributes:
        before: give this to `get_messages(id, before=…)` for the page before; `None` when there is nothing older.
        leading: the conversation's first messages, where some were asked for; none that stand in the page.
        after: give this to `get_messages(id, after=…)` for what comes behind the page, now or later: the position of
            its last message. -1 before the first message of a conversation.
    """

    before: int | None
    leading: tuple[Message, ...]
    after: int

    def __new__(
        cls,
        messages: Iterable[Message] = (),
        before: int | None = None,
        leading: tuple[Message, ...] = (),
        after: int = -1,
    ) -> Self:
        """Make a page of these messages."""
        page = super().__new__(cls, messages)
        page.before = before
        page.leading = leading
        page.after = after
        return page

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.before, self.leading, self.after


class Summary(msgspec.Struct, frozen=True):
    """A text that covers a conversation's messages from the first to a certain one.

    Attributes:
        text: the summary.
        message_id: the last message that it covers.
        kept: system and developer messages among those that it covers, which stay as they are.
    """

    text: str
    message_id: str
    kept: tuple[Message, ...] = ()


class CondensedConversation(msgspec.Struct, frozen=True):
    """A conversation with its older messages left out where a summary covers them.

    Attributes:
        conversation: its `messages` are those that the summary does not cover; `message_count` counts all.
        summary: what covers the others, or `None`, and then all messages are there.
        unread: where no more than so many were asked for: how many stand between the summary and those that are there.
        before: where there are such: give this to `get_messages(id, before=…)` for the page before.
        leading: the conversation's first messages, where some were asked for; none of those that are there.
    """

    conversation: ConversationMemory
    summary: Summary | None = None
    unread: int = 0
    before: int | None = None
    leading: tuple[Message, ...] = ()


class Lease(msgspec.Struct, frozen=True):
    """The right to run the next turn of a conversation, for a while.

    Attributes:
        conversation_id: of which conversation.
        token: random; what tells the holder from others. Keep it to yourself.
        number: grows with each holder of the conversation's lease. Hand it to other systems that the turn changes, so
            that they can refuse a holder who came earlier (a fencing number).
        expires_at: from this moment on others may have it; UTC.
    """

    conversation_id: str
    token: str
    number: int
    expires_at: datetime


class _UserStats(TypedDict, total=False):
    user_conversations: int
    user_messages: int


class MemoryStats(_UserStats):
    """What `get_stats` answers; with a user, all of it is about that user's conversations."""

    total_conversations: int
    total_messages: int
    avg_messages_per_conversation: float
    total_storage_size: int
    """Bytes of the encoded messages."""
    oldest_conversation: datetime | None
    newest_conversation: datetime | None


class _StoreMetrics(TypedDict, total=False):
    conversations: int
    """In memory: conversations held."""
    connected_clients: int
    """Redis: clients of the server, everybody's."""
    server_connections: int
    """PostgreSQL: connections to the server, everybody's."""
    database_connections: int
    """PostgreSQL: connections to this database, everybody's."""


class HealthMetrics(_StoreMetrics):
    """The figures of `health_check`; a store that is not ours may add others."""

    active_connections: int
    memory_usage: int
    """Bytes; 0 where the store does not tell."""
    avg_response_time: float
    """Milliseconds, over the provider's latest operations."""


class _HealthDetails(TypedDict, total=False):
    message: str
    error: str


class MemoryHealth(_HealthDetails):
    """What `health_check` answers; `message` when healthy, `error` when not."""

    healthy: bool
    provider: str
    latency_ms: float
    warnings: list[str]
    """Where data can be lost or seen, in plain sentences."""
    metrics: HealthMetrics
    details: dict[str, Any]
    """What else the store tells of itself: versions, durability, settings."""
