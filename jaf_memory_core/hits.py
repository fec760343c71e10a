"""What is asked of messages (`MessageSearch`), and what the answers look like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from pydantic import AfterValidator, Field

from jaf_memory_core.conversations import Moment
from jaf_memory_core.messages import Message, Role
from jaf_memory_core.values import Identifier, Items, Text, Value

LONGEST_TEXT = 1_000
"""Characters of what may be searched for: each of its words is looked for in each message."""


def _short(text: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"must have at most {LONGEST_TEXT} characters, not {len(text)}")
    return text


class MessageSearch(Value, frozen=True, omit_defaults=True):
    """Which messages; all of it holds together, and `None` is no filter.

    Attributes:
        text: words that must all stand in a message, whatever their case, the last of them as the beginning of a word;
            `"words in quotes"` must stand together.
        user_id, conversation_id: only of this owner, only in this conversation.
        roles: only of these roles.
        since, until: of conversations that were active then; from inclusive, to exclusive. A naive datetime is local
            time.
        limit: at most so many.
        cursor: of the page before.
        in_calls: also in the arguments of calls.

    Example:
        search = MessageSearch('order "with you on"', user_id="user-123", roles=["assistant"])
    """

    text: Annotated[Text, AfterValidator(_short)]
    user_id: Identifier | None = None
    conversation_id: Identifier | None = None
    roles: Items[Role] | None = None
    since: Moment | None = None
    until: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=1_000)] = 20
    cursor: Text | None = None
    in_calls: bool = False

    if TYPE_CHECKING:

        def __init__(
            self,
            text: str,
            *,
            user_id: str | None = None,
            conversation_id: str | None = None,
            roles: Sequence[Role] | None = None,
            since: datetime | None = None,
            until: datetime | None = None,
            **rest: Any,
        ) -> None: ...


class MessageHit(msgspec.Struct, frozen=True):
    """A message that says what was searched for.

    Attributes:
        conversation_id, user_id: where it stands, and whose that is.
        position: its place in the conversation, for `get_messages(before=…)` and `get_messages(after=…)`.
        message: the message.
        excerpt: the surroundings of what was found, on one line.
    """

    conversation_id: str
    user_id: str | None
    position: int
    message: Message
    excerpt: str


class MessageHits(list[MessageHit]):
    """Hits: of the conversation that was active last first, the newest message first within it.

    Attributes:
        cursor: give it to the next search; `None` where there is nothing more.
        complete: `False` where so many messages were looked at that the search ended before it had all that it was
            asked for. It goes on at the cursor.
    """

    cursor: str | None
    complete: bool

    def __init__(self, hits: Iterable[MessageHit] = (), cursor: str | None = None, *, complete: bool = True) -> None:
        super().__init__(hits)
        self.cursor = cursor
        self.complete = complete
