"""`import`, `export`, `copy`: conversations on the move. All of it can be interrupted, and run again."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Annotated

import typer

from jaf_memory_cli.errors import FAILED, OK, USAGE, Stop
from jaf_memory_cli.execution import interruption
from jaf_memory_cli.files import STANDARD, Counted, reading, same_file, writing
from jaf_memory_cli.options import Json, KeepGoing, User, local, moment
from jaf_memory_cli.output import Advance, Output, count, progress, wanted
from jaf_memory_cli.reports import DAMAGED, Bad, Read, left_out, noting, tell_of_copy, tell_of_import, telling
from jaf_memory_cli.stores import Store, choose, chosen, own_files, warn_if_gone_at_end
from jaf_memory_core import digest
from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.errors import MemoryInvalidInputError
from jaf_memory_core.hooks import ReaderSpec
from jaf_memory_core.protocol import ManagedMemoryProvider
from jaf_memory_core.registry import load_reader
from jaf_memory_core.transfer import compare, copy, export, import_conversations, read_lines, require
from jaf_memory_core.transfer.imports import one_by_one
from jaf_memory_core.transfer.reports import Copied, Imported, Problems


async def import_file(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON Lines, or - for standard input.")],
    *,
    reader: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="READER",
            help="What FILE is instead, or an address, with - for one on standard input: openai-agents-sqlite, "
            "langchain-postgres, pydantic-ai, adk, chatgpt-export, or a reader of another plugin.",
        ),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="With --from: whose conversations they are.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", metavar="", help="With --from: read again, and compare digests, in the end.")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", metavar="", help="Pass over what is bad, instead of stopping at the first.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Import conversations from JSON Lines, or another program's data.

    One conversation a line: conversation_id, user_id, metadata, and
    messages in the chat form. Times, expiry and digest, as `export`
    writes them, are kept and verified. Importing again adds nothing.
    """
    output, store = Output(as_json=as_json), chosen(context)
    if reader is not None:
        return await import_from(output, store, load_reader(reader), file, user, verify=verify, keep_going=keep_going)
    if user is not None or verify:
        raise Stop("--user and --verify go with --from; a line says itself whose it is, and brings its digest", USAGE)
    report, bad = Imported(), Bad()
    with reading(file) as (stream, size):
        # An import may make the store; who reads or erases never does.
        async with store.opened(create=True) as provider:
            with (
                progress(output, "importing", size, things="conversations") as advance,
                telling(output, "imported", report, bad),
            ):
                lines = read_lines(
                    Counted(stream, advance),
                    on_error=(lambda error: bad.add(str(error.line), _reason(error))) if keep_going else None,
                )
                await import_conversations(provider, lines, report=report, on_step=lambda _one: advance(0, things=1))
    tell_of_import(output, report, bad, store.name)
    await warn_if_gone_at_end(output, store)
    return FAILED if report.refused or bad else OK


def _reason(error: Exception) -> str:
    return str(error).partition(": ")[2]


async def export_file(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to, or - for standard output.")] = STANDARD,
    *,
    user: User = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what was changed at that time or later, in any way.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", metavar="", help="Replace what is no export, and an export by an empty one."),
    ] = False,
    keep_going: KeepGoing = False,
    as_json: Json = False,
) -> int:
    """Export conversations as JSON Lines, with digests.

    The file appears once it is whole; only its owner may read it. It may
    take the place of an older export, but of nothing else.
    """
    output, store = Output(as_json=as_json), chosen(context)
    query = MemoryQuery(user_id=user, updated_since=moment(since, "--since"))
    damaged, conversations, messages = Problems(), 0, 0

    def step(conversation: ConversationMemory) -> None:
        nonlocal conversations, messages
        conversations, messages = conversations + 1, messages + len(conversation.messages)
        advance(1)

    # An export in the place of the store, or of the file that describes it, would end both.
    spared = [*await store.files(), *own_files(context)]
    async with store.opened() as provider:
        require(provider, "iter_conversations", "`export`")
        total = await _total(output, provider, user) if since is None else None
        with (
            writing(file, spared=spared, force=force) as target,
            progress(output, "exporting", total) as advance,
        ):
            lines = export(provider, query, on_step=step, on_damaged=noting(damaged, keep_going=keep_going))
            async for line in lines:
                target.write(line)
    document = {"conversations": conversations, "messages": messages, "file": file, **left_out(damaged)}
    said = f"exported {count(conversations, 'conversation')}, {count(messages, 'message')}"
    if file == STANDARD:
        output.note(said, mark="✓", style="green")
    else:
        output.done(document, f"{said} to {file}")
    output.problems(damaged, DAMAGED)
    return FAILED if damaged else OK


async def copy_store(
    context: typer.Context,
    *,
    to: Annotated[
        str | None, typer.Option(metavar="NAME", help="Provider to copy to; its settings come from the environment.")
    ] = None,
    to_set: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help="A setting of that provider; may be repeated.")
    ] = None,
    to_env_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="A file of variables that describes it, secrets included.")
    ] = None,
    user: User = None,
    verify: Annotated[bool, typer.Option("--verify", metavar="", help="Compare digests and times in the end.")] = False,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", metavar="", help="Refuse all that stands there, even if it is equal.")
    ] = False,
    keep_going: KeepGoing = False,
    as_json: Json = False,
) -> int:
    """Copy conversations to another store.

    They keep their times and expiry. Nothing is overwritten: what stands
    there with other content is a conflict, and reported. After an
    interruption, run it again to go on.
    """
    if to is None and to_set is None and to_env_file is None:
        raise Stop("say where to copy: --to NAME, --to-set FIELD=VALUE or --to-env-file FILE", USAGE)
    output, source = Output(as_json=as_json), chosen(context)
    target = choose(to, to_set or (), to_env_file, option="--to-")
    if await _same_store(source, target):
        raise Stop("source and destination are the same store; say with --to, --to-set or --to-env-file", USAGE)
    report, damaged, started = Copied(), Problems(), time.monotonic()
    query, on_damaged = MemoryQuery(user_id=user), noting(damaged, keep_going=keep_going)
    async with source.opened() as old, target.opened(create=True) as new:
        require(old, "iter_conversations", "`copy`")
        total = await _total(output, old, user)
        with progress(output, "copying", total) as advance, telling(output, "copied", report):
            step = _stepping(advance)
            await copy(old, new, query=query, resume=not no_resume, report=report, on_step=step, on_damaged=on_damaged)
        if verify:
            with progress(output, "verifying", total) as advance, telling(output, "copied", report):
                step = _stepping(advance)
                await compare(old, new, query=query, report=report, on_step=step, on_damaged=on_damaged)
    way = f"{source.name} to {target.name}, in {time.monotonic() - started:.1f} s"
    tell_of_copy(output, report, damaged, way, target.name, verified=verify)
    return FAILED if report.refused or report.differing or damaged else OK


async def _same_store(one: Store, other: Store) -> bool:
    if (one.name, one.config()) == (other.name, other.config()):
        return True
    # Two settings may lead to one file, by a link or another way to write its path.
    theirs = await other.files()
    return any(same_file(ours, file) for ours in await one.files() for file in theirs)


def _stepping(advance: Advance) -> Callable[[ConversationMemory], None]:
    return lambda _conversation: advance(1)


async def _total(output: Output, provider: ManagedMemoryProvider, user: str | None) -> int | None:
    if not wanted(output) or not callable(getattr(provider, "get_stats", None)):
        return None
    return (await provider.get_stats(user))["total_conversations"]


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
