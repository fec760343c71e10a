"""Summaries: what stands, for the model, in the place of older messages. Values, and their stored form."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from jaf_memory_core import codec
from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.messages import Message
from jaf_memory_core.processors import Chain
from jaf_memory_core.rules import SUMMARY
from jaf_memory_core.values import EMPTY, FrozenDict, thaw


class Summary(Struct, frozen=True):
    """A text that covers a conversation's messages from the first to a certain one.

    Attributes:
        text: the summary.
        message_id: the last message that it covers.
        kept: system and developer messages among those that it covers, which stay as they are.
    """

    text: str
    message_id: str
    kept: tuple[Message, ...] = ()


class CondensedConversation(Struct, frozen=True):
    """A conversation with its older messages left out where a summary covers them.

    Attributes:
        conversation: its `messages` are those that the summary does not cover; `message_count` counts all.
        summary: what covers the others, or `None`, and then all messages are there.
    """

    conversation: ConversationMemory
    summary: Summary | None = None


def stored_form(summary: Summary, position: int, chain: Chain) -> FrozenDict:
    """What the conversation's metadata keeps; all text passes the chain, as messages do."""
    said = Message(role="system", content=summary.text, message_id=summary.message_id)
    kept = [chain.outgoing(message).dict() for message in summary.kept]
    return FrozenDict(
        position=position,
        message_id=summary.message_id,
        message=_frozen(chain.outgoing(said).dict()),
        kept=_frozen(kept),
    )


def _frozen(value: Any) -> Any:
    return codec.decode_object(codec.encode({"value": value}))["value"]


def stored_position(metadata: FrozenDict) -> int:
    """Position of the last message that the stored summary covers; -1 without one."""
    stored = metadata.get(SUMMARY)
    return int(stored["position"]) if isinstance(stored, dict) else -1


def loaded(metadata: FrozenDict, chain: Chain) -> Summary:
    """The stored summary, which must be there."""
    stored = metadata[SUMMARY]
    said, *kept = chain.incoming(
        (Message(**thaw(stored["message"])), *(Message(**thaw(message)) for message in stored.get("kept", EMPTY)))
    )
    text = said.content if isinstance(said.content, str) else ""
    return Summary(text, stored["message_id"], tuple(kept))
