"""`import --from`: conversations of another program, by whichever reader is installed."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing

from jaf_memory_cli.errors import FAILED, OK, USAGE, Stop
from jaf_memory_cli.execution import interruption
from jaf_memory_cli.files import STANDARD
from jaf_memory_cli.options import local
from jaf_memory_cli.output import Advance, Output, progress
from jaf_memory_cli.reports import Bad, Read, tell_of_import, telling
from jaf_memory_cli.stores import Store, warn_if_gone_at_end
from jaf_memory_core import digest
from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.hooks import ReaderSpec
from jaf_memory_core.protocol import ManagedMemoryProvider
from jaf_memory_core.transfer import import_conversations
from jaf_memory_core.transfer.imports import one_by_one
from jaf_memory_core.transfer.reports import Imported

Source = Iterable[ConversationMemory] | AsyncIterable[ConversationMemory]

LONGEST = 10_000
"""Characters of an address."""


async def import_from(
    output: Output, store: Store, reader: ReaderSpec, source: str, user: str | None, *, verify: bool, keep_going: bool
) -> int:
    """Import what a reader reads.

    Args:
        output: the command's.
        store: where to.
        reader: what reads.
        source: a file, or an address; `-` for an address on standard input, where nobody else sees its password.
        user: the owner of what the reader gives no owner.
        verify: read again in the end, and compare digests.
        keep_going: pass over what cannot be read.

    Returns:
        the exit status.

    Raises:
        Stop: `user` or the source do not fit the reader.
    """
    if user is not None and reader.owned:
        raise Stop(f"the reader {reader.name!r} knows whose each conversation is; leave out --user", USAGE)
    source = _address(source) if reader.source == "address" else _file(source)
    report, bad, read = Imported(), Bad("rows"), Read()

    def on_bad(place: str, reason: str) -> None:
        if not keep_going:
            raise MemoryInvalidInputError(f"{place}: {reason}; --keep-going passes over it")
        bad.add(place, reason)

    async with store.opened(create=True) as provider:
        with (
            progress(output, "importing", None, things="conversations") as advance,
            telling(output, "imported", report, bad),
        ):
            found = _noted(reader.read(source, user, on_bad), read)
            await import_conversations(provider, found, report=report, on_step=lambda _one: advance(0, things=1))
        if verify:
            with progress(output, "verifying", read.count) as advance, telling(output, "imported", report, bad):
                await _verify(provider, reader.read(source, user, _nothing), read, advance)
    tell_of_import(output, report, bad, store.name, read)
    await warn_if_gone_at_end(output, store)
    return FAILED if report.refused or bad or read.differing else OK


def _nothing(_place: str, _reason: str) -> None:
    """What is bad has been told at the first reading."""


async def _noted(source: Source, read: Read) -> AsyncIterator[ConversationMemory]:
    """What is read, counted as it goes by."""
    async with aclosing(one_by_one(source)) as conversations:
        async for conversation in conversations:
            read.add(conversation)
            yield conversation


async def _verify(provider: ManagedMemoryProvider, source: Source, read: Read, advance: Advance) -> None:
    read.verified = 0
    async with aclosing(one_by_one(source)) as conversations:
        async for expected in conversations:
            held = await provider.get_conversation(expected.conversation_id)
            if held is not None and digest(held) == digest(expected):
                read.verified += 1
            else:
                reason = "missing" if held is None else "its digest is another one"
                read.differing.add(expected.conversation_id, reason)
            advance(1)


def _file(source: str) -> str:
    if source == STANDARD:
        raise Stop("this reader reads a file; give its path", USAGE)
    return str(local(source))


def _address(source: str) -> str:
    if source != STANDARD:
        return source
    with interruption.blocking():
        return sys.stdin.readline(LONGEST).strip()
