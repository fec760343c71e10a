"""Copies between providers: safe to run again, and compared by digest."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from jaf_memory_core import codec
from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.damage import OnDamaged
from jaf_memory_core.protocol import ManagedMemoryProvider, MemoryProvider
from jaf_memory_core.results import Result, Success
from jaf_memory_core.transfer.exports import iterated, require
from jaf_memory_core.transfer.imports import Step, at_once, failed_from, import_one, in_batches, note, same, tell
from jaf_memory_core.transfer.jsonlines import TIMES
from jaf_memory_core.transfer.reports import Copied


async def copy(
    source: ManagedMemoryProvider,
    destination: MemoryProvider,
    *,
    query: MemoryQuery | None = None,
    verify: bool = False,
    resume: bool = True,
    report: Copied | None = None,
    on_step: Step | None = None,
    on_damaged: OnDamaged = "raise",
) -> Copied:
    """Copy conversations with their times from one provider to another, in bounded memory.

    Run again after an interruption it goes on: a conversation whose digest is equal already is counted as done, one
    that stands there in part gets the rest. One of the same id with other content is refused, and nothing of it is
    changed. Nobody else should write to the destination meanwhile.

    Args:
        source: where they are.
        destination: where they go, any provider; without `import_conversation` times and expiry are not kept.
        query: which; all when `None`.
        verify: `compare` the two in the end.
        resume: `False` refuses every conversation that stands in the destination already.
        report: filled as the work goes on, batch by batch, so that it tells how far it came even if an error ends it.
        on_step: called with each conversation, once its batch is done.
        on_damaged: what happens about a conversation of the source that cannot be read, as `iter_conversations` has it.

    Returns:
        the report; conflicts stand in it, and are not raised.

    Raises:
        MemoryConfigurationError: the source does not offer `iter_conversations`.
        MemoryConnectionError: a store could not be reached; run the copy again later.
        MemoryStorageError: the destination failed for all of a batch, since it is full, for one.
    """
    report = report if report is not None else Copied()
    require(source, "iter_conversations", "copy")
    async with (
        aclosing(iterated(source, query, on_damaged)) as conversations,
        aclosing(in_batches(conversations, at_once(destination))) as batches,
    ):
        async for batch in batches:
            await _copy_batch(destination, batch, report, resume=resume)
            tell(on_step, batch)
    # A second walk: it sees what a cap or an eviction has taken since (docs/decisions/0008).
    return await compare(source, destination, query=query, report=report, on_damaged=on_damaged) if verify else report


async def compare(
    source: ManagedMemoryProvider,
    destination: MemoryProvider,
    *,
    query: MemoryQuery | None = None,
    report: Copied | None = None,
    on_step: Step | None = None,
    on_damaged: OnDamaged = "raise",
) -> Copied:
    """Compare the digests and times of all conversations of a source with those in a destination.

    Args:
        source: where to look for conversations.
        destination: where each of them should stand; what it holds beyond them does not matter.
        query: which; all when `None`.
        report: its `verified` and `differing` are filled.
        on_step: called after each conversation.
        on_damaged: what happens about a conversation of the source that cannot be read, as `iter_conversations` has it.

    Returns:
        the report.
    """
    report = report if report is not None else Copied()
    require(source, "iter_conversations", "verifying")
    keeps = callable(getattr(destination, "import_conversation", None))
    async with aclosing(iterated(source, query, on_damaged)) as conversations:
        async for conversation in conversations:
            standing = await _standing(destination, conversation.conversation_id)
            if standing is None:
                report.differing.add(conversation.conversation_id, "it is not in the destination")
            elif codec.digest(standing) != codec.digest(conversation):
                reason = _difference(conversation, standing) or "it lacks messages in the destination"
                report.differing.add(conversation.conversation_id, reason)
            elif keeps and (other := _other_times(conversation, standing)):
                report.differing.add(conversation.conversation_id, f"it has another {other} in the destination")
            else:
                report.verified += 1
            if on_step:
                on_step(conversation)
    return report


async def _copy_batch(
    destination: MemoryProvider, batch: Sequence[ConversationMemory], report: Copied, *, resume: bool
) -> None:
    """Make those that are missing, all at once; look at each of the others."""
    results: dict[str, Result] = {}
    failed: dict[str, Result] = {}
    if at_once(destination) > 1:
        many: Any = destination
        # An empty one that is made, and one that stands there, cannot be told apart.
        asked = [conversation for conversation in batch if conversation.messages]
        # Unread: a copy into an empty store costs no more than an import (docs/decisions/0008).
        done = await many.import_conversations(asked, only_missing=True)
        results = {one.conversation_id: result for one, result in zip(asked, done, strict=True)}
        failed = dict(list(results.items())[failed_from(done) :])
    for conversation in batch:
        if conversation.conversation_id in failed:
            continue
        result = results.get(conversation.conversation_id)
        if isinstance(result, Success) and result.data.added:
            _note_trimmed(report, conversation, note(report, conversation, result))
        else:
            await _copy_one(destination, conversation, report, resume=resume)
    for broken in failed.values():
        broken.unwrap()  # what the store said the first time


async def _copy_one(
    destination: MemoryProvider, conversation: ConversationMemory, report: Copied, *, resume: bool
) -> None:
    key = conversation.conversation_id
    standing = await _standing(destination, key)
    if standing is not None:
        if resume and codec.digest(standing) == codec.digest(conversation):
            report.conversations += 1
            report.unchanged += 1
            report.messages_held += len(conversation.messages)
            return
        conflict = _difference(conversation, standing) if resume else "it stands in the destination already"
        if conflict:
            report.refused.add(key, conflict)
            return
    trimmed = report.messages_trimmed
    await import_one(destination, conversation, report)
    _note_trimmed(report, conversation, report.messages_trimmed - trimmed)


def _note_trimmed(report: Copied, conversation: ConversationMemory, trimmed: int) -> None:
    if trimmed:
        given = len(conversation.messages)
        report.differing.add(
            conversation.conversation_id,
            f"the destination keeps only {given - trimmed} of {given} messages, as its settings say",
        )


async def _standing(provider: MemoryProvider, conversation_id: str) -> ConversationMemory | None:
    found = await provider.get_conversation(conversation_id)
    if found is None or found.user_id is not None:
        return found
    # A provider with the six documented methods may know the owner from the metadata alone.
    owner = found.metadata.get("user_id")
    return replace(found, user_id=owner) if isinstance(owner, str) else found


ROUNDED = timedelta(milliseconds=2)
"""Times that are no further apart are equal: a store may keep no more than milliseconds."""


def _other_times(source: ConversationMemory, standing: ConversationMemory) -> str | None:
    """The first time that differs; a store that is not ours may not tell all of them."""
    for name in TIMES:
        ours, theirs = getattr(source, name), getattr(standing, name)
        if ours is None or theirs is None:
            if name == "expires_at" and ours is not theirs:
                return name
            continue
        # What got the rest by a later copy was changed there, and then.
        later_is_right = standing.version > 1 and name != "created_at"
        if ours - theirs > ROUNDED or (theirs - ours > ROUNDED and not later_is_right):
            return name
    return None


def _difference(source: ConversationMemory, standing: ConversationMemory) -> str | None:
    """Why the one in the destination is another; `None` if only messages at the end are missing there."""
    if standing.user_id not in (None, source.user_id):
        return "it belongs to somebody else in the destination"
    ours, theirs = source.messages, standing.messages
    # The beginning of the source's is what an interrupted copy leaves, and may be gone on with.
    shared = min(len(ours), len(theirs))
    if not all(map(same, ours[:shared], theirs[:shared])):
        return "it holds other messages in the destination"
    if len(theirs) > len(ours):
        return f"it holds {len(theirs) - len(ours)} more messages in the destination"
    if len(theirs) == len(ours):
        return "it holds the same messages, but other metadata or no owner, in the destination"
    return None if _within(standing, source) else "it holds other metadata in the destination"


def _within(standing: ConversationMemory, source: ConversationMemory) -> bool:
    ours, theirs = source.metadata, {**standing.metadata}
    # The owner was compared already.
    theirs.pop("user_id", None)
    return all(key in ours and codec.canonical(ours[key]) == codec.canonical(theirs[key]) for key in theirs)
