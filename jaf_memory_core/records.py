"""What passes between a provider and its backend: records, and the requests that ask for a change.

All of it is frozen and already checked. A request may grow a field without breaking any backend.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from msgspec import UNSET, Struct, UnsetType, field
from msgspec.structs import force_setattr

from jaf_memory_core.errors import MemoryStorageError
from jaf_memory_core.messages import Message
from jaf_memory_core.values import EMPTY, FrozenDict

if TYPE_CHECKING:
    from jaf_memory_core.conversations import MemoryQuery
    from jaf_memory_core.cursors import Position
    from jaf_memory_core.search import Phrase


def new_incarnation() -> str:
    """16 random hexadecimal digits: what tells a conversation from an earlier one of the same id."""
    return os.urandom(8).hex()


class Stamp(NamedTuple):
    """Which state of which conversation: what a compare-and-swap expects to find."""

    incarnation: str
    version: int


_NEVER_LATER = datetime.max.replace(tzinfo=UTC)


class Record(Struct, frozen=True, omit_defaults=True):
    """A conversation as it is kept.

    Attributes:
        conversation_id, user_id, messages, metadata: as the application gave them (metadata without the owner).
        incarnation, version: together the `stamp`.
        created_at, updated_at, active_at: UTC, by the store's clock: when it was made, when anything of it changed
            last, and when its messages did, which is never later (and `updated_at`, where nothing says it). Neither of
            the two runs backwards.
        expires_at: from this moment on the conversation is absent; `None` for never.
        ttl: seconds by which each write renews `expires_at`; `None`: writes leave it alone.
        first_position: position of the oldest message kept; a cap has removed what was before it.
        trimmed: whether a cap ever left out a message, or one was deleted by itself.
        message_count: how many messages are kept, also in a record that was read without them.
        gaps: how many positions between the first and the `end` have no message, because it was deleted by itself.
            Without messages there are none.
        positions: where there are gaps, the position of each of `messages`; else they follow each other. Listings may
            leave it empty, `Backend.read` must not.
    """

    conversation_id: str
    incarnation: str
    version: int
    created_at: datetime
    updated_at: datetime
    user_id: str | None = None
    messages: tuple[Message, ...] = ()
    metadata: FrozenDict = EMPTY
    expires_at: datetime | None = None
    ttl: float | None = None
    first_position: int = 0
    trimmed: bool = False
    message_count: int = 0
    active_at: datetime = _NEVER_LATER
    gaps: int = 0
    positions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.active_at > self.updated_at:
            force_setattr(self, "active_at", self.updated_at)

    @property
    def stamp(self) -> Stamp:
        """The state that this record shows."""
        return Stamp(self.incarnation, self.version)

    @property
    def end(self) -> int:
        """The position of the next message that comes."""
        return self.first_position + self.message_count + self.gaps

    @property
    def cursor(self) -> Position:
        """The place behind it, as a query has it, in either order."""
        return self.created_at, self.active_at, self.conversation_id


class Damaged(Struct, frozen=True):
    """Stands in the place of a record whose stored form cannot be read, so that a listing can go on behind it.

    Attributes:
        error: what `codec.damaged` gives; it names the conversation.
        created_at: when the conversation was made, where that can be told.
    """

    error: MemoryStorageError
    created_at: datetime | None = None


class Origin(Struct, frozen=True):
    """Times that an import keeps for a conversation that it makes; one of them that is absent is the store's own.

    Attributes:
        active_at, updated_at: one may be given without the other, and stands for both then.
    """

    created_at: datetime | None = None
    expires_at: datetime | None = None
    ttl: float | None = None
    active_at: datetime | None = None
    updated_at: datetime | None = None


class Write(Struct, frozen=True):
    """A store (`replace`) or an append.

    Attributes:
        messages, bodies: distinct ids, cut to `max_messages`; each body is its message as `codec.encode` writes it.
        metadata: merged by top-level key; holds no owner.
        user_id: the owner that the caller states. It is given to a conversation without one; another's is a conflict.
        scope: set by `for_user`: a conversation of anybody else, or of nobody, does not exist for this request.
        create: whether a missing conversation is made.
        expected_version: a conflict unless the conversation stands at this version (0: does not exist).
        ttl: seconds, for a conversation that this write makes.
        max_messages: the cap; the newest stay.
        max_metadata_bytes: how large the whole metadata may be afterwards, as `rules.check_metadata_size` counts.
        dropped: how many messages the cut to `max_messages` took from the batch.
        incarnation: for a conversation that this write makes; not used without `create`.
        origin: times for a conversation that this write makes.
    """

    conversation_id: str
    messages: tuple[Message, ...] = ()
    bodies: tuple[bytes, ...] = ()
    metadata: FrozenDict = EMPTY
    user_id: str | None = None
    scope: str | None = None
    replace: bool = False
    create: bool = False
    expected_version: int | None = None
    ttl: float | None = None
    max_messages: int | None = None
    max_metadata_bytes: int | None = None
    dropped: int = 0
    incarnation: str = field(default_factory=new_incarnation)
    origin: Origin | None = None


class Amend(Struct, frozen=True):
    """A change of metadata, or of the expiry, of a conversation that must be there.

    Attributes:
        metadata: merged by top-level key.
        removed: top-level keys that go; none of them is in `metadata`.
        ttl: seconds from now, `None` for never, `UNSET` to leave the expiry as it is (but renewed).
        expected: a conflict unless the conversation stands in exactly this state; `None` takes any.
        max_metadata_bytes: as of a `Write`.
        expected_version: a conflict unless the conversation stands at this version.
    """

    conversation_id: str
    metadata: FrozenDict = EMPTY
    user_id: str | None = None
    scope: str | None = None
    ttl: float | UnsetType | None = UNSET
    expected: Stamp | None = None
    max_metadata_bytes: int | None = None
    removed: tuple[str, ...] = ()
    expected_version: int | None = None


class Truncate(Struct, frozen=True):
    """Remove a message and all after it.

    Attributes:
        expected_version: a conflict unless the conversation stands at this version.
    """

    conversation_id: str
    message_id: str
    scope: str | None = None
    expected_version: int | None = None


class DeleteMessages(Struct, frozen=True):
    """Remove some messages, and leave the others where they stand.

    Attributes:
        ids: which; distinct. Those that the conversation does not hold are passed over.
        expected_version: a conflict unless the conversation stands at this version.
    """

    conversation_id: str
    ids: tuple[str, ...]
    scope: str | None = None
    expected_version: int | None = None


class Revise(Struct, frozen=True):
    """Put messages into the places of others, all or nothing.

    Attributes:
        ids: which messages go; distinct.
        messages, bodies: what comes into their places, in the same order; distinct ids, which may be the old ones.
    """

    conversation_id: str
    ids: tuple[str, ...]
    messages: tuple[Message, ...]
    bodies: tuple[bytes, ...]
    scope: str | None = None


class Fork(Struct, frozen=True):
    """Copy a conversation to a new id, up to, without, a message; `None` copies all of it.

    Attributes:
        incarnation: the new conversation's.
    """

    conversation_id: str
    new_id: str
    until_message_id: str | None = None
    scope: str | None = None
    incarnation: str = field(default_factory=new_incarnation)


class Tail(Struct, frozen=True):
    """Read the last `limit` messages, or the last before a position; with `after`, the first behind a position.

    Attributes:
        before: below this position.
        after: above this position, and then the oldest of them come.
        leading: also the conversation's first messages: those before this position that do not stand in the page.
        with_header: also the header, of the same moment.
    """

    conversation_id: str
    limit: int
    before: int | None = None
    scope: str | None = None
    leading: int = 0
    with_header: bool = False
    after: int | None = None


class Page(Struct, frozen=True):
    """Messages, oldest first.

    Attributes:
        first: position of the first of them (of where it would stand, when there are none).
        more: whether older messages stand before it.
        leading: the conversation's first messages, where some were asked for. `None` from a backend that does not know
            of them: the provider then asks again.
        header: the conversation without its messages, where it was asked for; `None` as above.
        end: the position behind the conversation's newest message, where the request says `after`. `None` from a
            backend that does not know of that, and has looked backwards: the provider then asks again.
        positions: of each of the messages; empty where they follow each other from `first` on.
    """

    messages: tuple[Message, ...]
    first: int
    more: bool
    leading: tuple[Message, ...] | None = None
    header: Record | None = None
    end: int | None = None
    positions: tuple[int, ...] = ()

    def position(self, index: int) -> int:
        """Where a message of the page stands."""
        return self.positions[index] if self.positions else self.first + index

    @property
    def last(self) -> int:
        """Position of the last message; the one before `first` where there is none."""
        return self.positions[-1] if self.positions else self.first + len(self.messages) - 1


class Place(NamedTuple):
    """Where a search goes on: within a conversation below a position, and then behind that conversation.

    Attributes:
        created_at, active_at, conversation_id: the conversation's place in the order of `find`.
        position: 0 where nothing of the conversation is left.
    """

    created_at: datetime
    active_at: datetime
    conversation_id: str
    position: int

    @property
    def cursor(self) -> Position:
        """The place behind the conversation, as a query has it."""
        return self.created_at, self.active_at, self.conversation_id


class Look(Struct, frozen=True):
    """Read a stretch of messages, for a search.

    Attributes:
        query: of which conversations, in the order of `find`; without messages, limit, offset and cursor.
        place: where to begin; `None` with the newest.
        messages: about how many at most; a conversation without any counts as one.
        asked: what each hit says, so that a store may leave out messages that cannot say it; empty where what stands
            in the store does not tell.
    """

    query: MemoryQuery
    place: Place | None = None
    messages: int = 1_000
    asked: tuple[Phrase, ...] = ()


class Stretch(Struct, frozen=True):
    """What was read.

    Attributes:
        parts: pages, each with its conversation's header: newest conversation first, newest page first. `Damaged`
            stands in the place of a conversation that cannot be read.
        place: where the next stretch begins; `None` where nothing is left.
    """

    parts: tuple[tuple[Record, Page] | Damaged, ...]
    place: Place | None = None


class Stats(Struct, frozen=True):
    """Counts over conversations that have not expired.

    Attributes:
        size: bytes of encoded messages.
        oldest, newest: the first and the last time at which one of them was made (`created_at`).
    """

    conversations: int = 0
    messages: int = 0
    size: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None


class Usage(Struct, frozen=True):
    """What a provider has in hand at this moment, told without asking the store; `None`: there is no such thing.

    Attributes:
        connections, most: how many are open, and how many may be.
        busy: those that somebody uses.
        waiting: operations that wait for a connection, or under way on one that many share.
        commits, committed: group commits since the start, and the operations that travelled in them.
    """

    connections: int | None = None
    most: int | None = None
    busy: int | None = None
    waiting: int | None = None
    commits: int | None = None
    committed: int | None = None


class Ping(Struct, frozen=True):
    """How the store is, for `health_check`."""

    message: str
    warnings: tuple[str, ...] = ()
    metrics: FrozenDict = EMPTY
    details: FrozenDict = EMPTY
