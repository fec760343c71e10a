"""`list`, `show`, `stats`: what is in the store; `rename`: the title that people give a conversation."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from msgspec.structs import replace
from rich.console import RenderableType
from rich.text import Text

from jaf_memory_cli.errors import FAILED, USAGE, Stop
from jaf_memory_cli.options import Id, Json, KeepGoing, User, moment
from jaf_memory_cli.output import Output, count, heading, number, pairs, shortened, size, table, text_or_dash
from jaf_memory_cli.output import moment as shown_moment
from jaf_memory_cli.reports import noting, told
from jaf_memory_cli.stores import chosen, said_before
from jaf_memory_cli.terminal import safe
from jaf_memory_cli.transcript import header, transcript
from jaf_memory_core.codec import digest, encode
from jaf_memory_core.conversations import ConversationMemory, MemoryQuery
from jaf_memory_core.damage import OnDamaged
from jaf_memory_core.errors import MemoryNotFoundError, MemoryStorageError
from jaf_memory_core.messages import Message
from jaf_memory_core.protocol import ManagedMemoryProvider
from jaf_memory_core.search import texts_of
from jaf_memory_core.transfer import require
from jaf_memory_core.transfer.reports import Problems
from jaf_memory_core.values import thaw

TITLE = "title"
"""The key of the metadata under which a title stands."""


async def rename(
    context: typer.Context,
    conversation_id: Id,
    title: Annotated[str | None, typer.Argument(metavar="TITLE", help="What to call it.", show_default=False)] = None,
    *,
    remove: Annotated[bool, typer.Option("--remove", metavar="", help="Take its title away.")] = False,
    as_json: Json = False,
) -> None:
    """Give a conversation a title, which `list` shows.

    It stands in the metadata as `title`; the id stays what it is.
    """
    if (title is None) != remove:
        raise Stop("give a title, or --remove", USAGE)
    output = Output(as_json=as_json)
    async with chosen(context).opened() as provider:
        require(provider, "update_metadata", "`rename`")
        if title is None:
            version = await provider.update_metadata(conversation_id, {}, [TITLE])
        else:
            version = await provider.update_metadata(conversation_id, {TITLE: title})
    done = {"conversation_id": conversation_id, TITLE: title, "version": version}
    output.done(
        done, f"{conversation_id} has no title now" if title is None else f"{conversation_id} is called {title}"
    )


PAGE = 500
"""Conversations that one question to the store asks for."""

WIDEST = 120
"""Columns beyond which a table gains nothing."""

PREVIEW = 80
"""Characters of a title, and of a message's beginning."""

AROUND = 5
"""Messages that `show --around` shows before and behind one."""

Previews = dict[str, Message | None]
"""Conversations' last messages, by their ids."""

NARROWEST = 60
"""Columns below which a table would tear ids apart, and each conversation gets lines of its own."""


async def list_conversations(
    context: typer.Context,
    *,
    user: User = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Created at that time or later.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Created before that time.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 20,
    every: Annotated[bool, typer.Option("--all", metavar="", help="All of them, whatever --limit says.")] = False,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on behind that one, the last of the page before.")
    ] = None,
    preview: Annotated[bool, typer.Option("--preview", metavar="", help="Show how the last message begins.")] = False,
    keep_going: KeepGoing = False,
    as_json: Json = False,
) -> int:
    """List conversations, the most recently written first.

    A TIME is 2024-05-15, 2024-05-15T15:00, or 90m, 24h, 7d, 2w for so
    long ago. With --json, one conversation a line.
    """
    output, store = Output(as_json=as_json), chosen(context)
    query = MemoryQuery(
        user_id=user, since=moment(since, "--since"), until=moment(until, "--until"), include_messages=False
    )
    async with store.opened() as provider:
        require(provider, "find_conversations", "`list`")
        query = await _behind(provider, query, after)
        shown, more, damaged = 0, None, Problems()
        on_damaged = noting(damaged, keep_going=keep_going)
        async for page, behind in _pages(provider, query, None if every else limit, on_damaged):
            lasts = await _lasts(provider, page, on_damaged) if preview else {}
            _show_page(output, page, lasts, first=shown == 0, expand=every)
            shown, more = shown + len(page), behind
    if not shown:
        output.note("no conversations" + (" match" if user or since or until or after else " yet"), mark="·")
    elif not as_json:
        output.show(Text(""), Text(count(shown, "conversation") + ("; more:" if more else ""), style="dim"))
        if more:
            options = {"--user": user, "--since": since, "--until": until, "--limit": str(limit), "--after": more}
            given = [word for name, text in options.items() if text for word in (name, text)]
            given += [word for word, chosen_ in (("--preview", preview), ("--keep-going", keep_going)) if chosen_]
            said = shlex.join(["jaf-memory", *said_before(context), "list", *given])
            output.console.print(Text(f"  {safe(said)}", style="cyan"), soft_wrap=True)
    return told(damaged)


async def _behind(provider: ManagedMemoryProvider, query: MemoryQuery, after: str | None) -> MemoryQuery:
    if after is None:
        return query
    found = await provider.find_conversations(MemoryQuery(conversation_id=after, include_messages=False))
    if not found:
        raise MemoryNotFoundError(after)
    return query.after(found[0])


async def _pages(
    provider: ManagedMemoryProvider, query: MemoryQuery, limit: int | None, on_damaged: OnDamaged
) -> AsyncIterator[tuple[Sequence[ConversationMemory], str | None]]:
    """Pages, each with the id to go on behind, `None` at the end."""
    left = limit
    while left is None or left > 0:
        step = PAGE if left is None else min(PAGE, left)
        # One more than is shown tells whether there is more.
        met = 0

        def note(error: MemoryStorageError) -> None:
            nonlocal met
            met += 1
            if callable(on_damaged):
                on_damaged(error)

        going_on: dict[str, Any] = {"on_damaged": note} if callable(on_damaged) else {}
        found = await provider.find_conversations(replace(query, limit=step + 1), **going_on)
        # What is damaged takes its place in a page, and is not in it.
        page, more = found[:step], len(found) + met > step
        if page:
            yield page, page[-1].conversation_id if more else None
        if not more:
            return
        # Behind the last one, and not by an offset, which would shift with every write; where all of a page is damaged
        # there is no other way.
        query = query.after(page[-1]) if page else replace(query, offset=query.offset + step + 1)
        left = None if left is None else left - len(page)


async def _lasts(
    provider: ManagedMemoryProvider, page: Sequence[ConversationMemory], on_damaged: OnDamaged
) -> Previews:
    """The last message of each, or `None` where there is none (any more), or none that can be read."""
    require(provider, "get_last_messages", "`list --preview`")
    keys = [conversation.conversation_id for conversation in page]
    lasts = await provider.get_last_messages(keys, on_damaged=on_damaged)
    return {key: lasts.get(key) for key in keys}


def _show_page(
    output: Output, page: Sequence[ConversationMemory], lasts: Previews, *, first: bool, expand: bool
) -> None:
    if output.as_json:
        for conversation in page:
            last = lasts.get(conversation.conversation_id)
            shown = {"last_message": None if last is None else last.dict()} if lasts else {}
            output.document({**described(conversation), **shown})
        return
    if output.console.width < NARROWEST:
        output.show(*(_lines(conversation, lasts) for conversation in page))
        return
    wide = output.console.width >= WIDEST - 20
    columns: list[tuple[str, dict[str, Any]]] = [
        ("Conversation", {"overflow": "fold", "ratio": 3}),
        ("User", {"overflow": "fold", "ratio": 2}),
        ("Messages", {"justify": "right", "min_width": 8}),
        ("Last written", {"no_wrap": True, "width": 16}),
    ]
    if wide:
        columns.append(("Created", {"no_wrap": True, "width": 16, "style": "dim"}))
    made = table(*columns, rows=[_row(conversation, lasts, wide=wide) for conversation in page], head=first)
    if expand:  # each page is a table of its own, and all have to have the same columns
        made.width = min(output.console.width, WIDEST)
    output.show(made)


def _named(conversation: ConversationMemory, lasts: Previews) -> Text:
    """The id, and under it the title and how the last message begins, where there is such."""
    named = Text(safe(conversation.conversation_id), style="cyan")
    title = conversation.metadata.get(TITLE)
    if isinstance(title, str) and title:
        named.append(f"\n{safe(shortened(title, PREVIEW))}", style="bold default")
    last = lasts.get(conversation.conversation_id)
    if last is not None:
        said = " ".join(" ".join(texts_of(last)).split()) or "…"
        named.append(f"\n{last.role or 'item'}: {safe(shortened(said, PREVIEW))}", style="dim default")
    return named


def _lines(conversation: ConversationMemory, lasts: Previews) -> Text:
    whose = safe(conversation.user_id) if conversation.user_id is not None else "nobody's"
    facts = [whose, count(conversation.message_count or 0, "message"), str(shown_moment(_active(conversation)))]
    return Text.assemble(_named(conversation, lasts), *(f"\n  {fact}" for fact in facts))


def _active(conversation: ConversationMemory) -> datetime | None:
    """What lists go by; a store that is not ours may tell of the last write only."""
    return conversation.active_at or conversation.updated_at


def _row(conversation: ConversationMemory, lasts: Previews, *, wide: bool) -> list[RenderableType]:
    cells: list[RenderableType] = [
        _named(conversation, lasts),
        text_or_dash(conversation.user_id),
        number(conversation.message_count or 0),
        shown_moment(_active(conversation)),
    ]
    return [*cells, shown_moment(conversation.created_at)] if wide else cells


def described(conversation: ConversationMemory) -> dict[str, Any]:
    """A conversation without its messages, for JSON."""
    return {
        "conversation_id": conversation.conversation_id,
        "user_id": conversation.user_id,
        "message_count": conversation.message_count,
        "created_at": conversation.created_at,
        "active_at": conversation.active_at,
        "updated_at": conversation.updated_at,
        "expires_at": conversation.expires_at,
        "ttl": conversation.ttl,
        "version": conversation.version,
        "metadata": thaw(conversation.metadata),
    }


async def show(
    context: typer.Context,
    conversation_id: Id,
    *,
    last: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the last N messages.")] = None,
    around: Annotated[
        str | None, typer.Option(metavar="MESSAGE", help="Only that message, by its id, and those beside it.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", metavar="", help="Unfold prompts, calls of tools and their results.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a conversation as a transcript.

    Prompts, calls of tools and their results are folded to a line each.
    """
    output, store = Output(as_json=as_json), chosen(context)
    if last is not None and around is not None:
        raise Stop("--last and --around say two different things; give one", USAGE)
    async with store.opened() as provider:
        conversation = await _read(provider, conversation_id, last)
    if conversation is None:
        raise MemoryNotFoundError(conversation_id)
    messages: Sequence[Message] = conversation.messages
    later = 0
    if around is not None:
        messages, later = _beside(conversation, around)
    earlier = (conversation.message_count or 0) - len(messages) - later
    if as_json:
        document = {**described(conversation), "messages": [message.dict() for message in messages]}
        output.document(document if earlier or later else {**document, "digest": digest(conversation)})
        return
    output.show(*header(conversation))
    if earlier > 0:
        output.show(Text(f"\n… {count(earlier, 'earlier message')}", style="dim"))
    output.show(*transcript(messages, width=output.console.width, full=full))
    if later:
        output.show(Text(f"\n… {count(later, 'later message')}", style="dim"))


def _beside(conversation: ConversationMemory, message_id: str) -> tuple[Sequence[Message], int]:
    """A message and those beside it, and how many come later.

    Raises:
        Stop: the conversation holds no such message.
    """
    ids = [message.message_id for message in conversation.messages]
    if message_id not in ids:
        named = f"conversation {safe(conversation.conversation_id)} holds no message {safe(message_id)}"
        raise Stop(f"{named}; `search` and `show --json` tell the ids", FAILED)
    at = ids.index(message_id)
    return conversation.messages[max(0, at - AROUND) : at + AROUND + 1], max(0, len(ids) - at - AROUND - 1)


async def _read(provider: ManagedMemoryProvider, conversation_id: str, last: int | None) -> ConversationMemory | None:
    if last is None or not callable(getattr(provider, "find_conversations", None)):
        found = await provider.get_conversation(conversation_id)
        if found is None or last is None:
            return found
        return replace(found, messages=found.messages[-last:], message_count=len(found.messages))
    headers = await provider.find_conversations(MemoryQuery(conversation_id=conversation_id, include_messages=False))
    if not headers:
        return None
    # Two reads, and so of two moments: what comes in between is among the messages, and not in the count.
    return replace(headers[0], messages=tuple(await provider.get_recent_messages(conversation_id, limit=last)))


async def stats(
    context: typer.Context, *, user: User = None, keep_going: KeepGoing = False, as_json: Json = False
) -> int:
    """Count conversations, messages and bytes.

    With --keep-going all are read, which takes as long as an export, and
    what cannot be read is not counted.
    """
    output, store, damaged = Output(as_json=as_json), chosen(context), Problems()
    async with store.opened() as provider:
        require(provider, "iter_conversations" if keep_going else "get_stats", "`stats`")
        if keep_going:
            found = await _counted(provider, user, noting(damaged, keep_going=True))
        else:
            found = dict(await provider.get_stats(user))
    if as_json:
        output.document({"user_id": user, **found})
        return told(damaged)
    stored = found["total_storage_size"]
    output.show(
        heading(store.name, user or "all users"),
        Text(""),
        pairs(
            ("conversations", number(found["total_conversations"])),
            ("messages", number(found["total_messages"])),
            ("messages a conversation", number(float(found["avg_messages_per_conversation"]))),
            ("stored", f"{size(stored)}" + (f"  ({stored:,} bytes)" if stored >= 1000 else "")),
            ("oldest", shown_moment(found["oldest_conversation"])),
            ("newest", shown_moment(found["newest_conversation"])),
        ),
    )
    return told(damaged)


async def _counted(provider: ManagedMemoryProvider, user: str | None, on_damaged: OnDamaged) -> dict[str, Any]:
    """What `get_stats` answers, counted over all that can be read."""
    conversations = messages = size = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    async for one in provider.iter_conversations(MemoryQuery(user_id=user), on_damaged=on_damaged):
        conversations, messages = conversations + 1, messages + len(one.messages)
        size += sum(len(encode(message)) for message in one.messages)
        oldest, newest = oldest or one.created_at, one.created_at
    return {
        "total_conversations": conversations,
        "total_messages": messages,
        "avg_messages_per_conversation": messages / conversations if conversations else 0.0,
        "total_storage_size": size,
        "oldest_conversation": oldest,
        "newest_conversation": newest,
    }
