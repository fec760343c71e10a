"""`search` and `users`: who said what, and who there is."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer
from msgspec.structs import replace
from rich.text import Text

from jaf_memory_cli.options import Json, KeepGoing, User, moment
from jaf_memory_cli.output import Output, count
from jaf_memory_cli.reports import noting, told
from jaf_memory_cli.stores import chosen, said_before
from jaf_memory_cli.terminal import safe
from jaf_memory_cli.transcript import STYLES
from jaf_memory_core.hits import MessageHit, MessageHits, MessageSearch
from jaf_memory_core.protocol import ManagedMemoryProvider
from jaf_memory_core.transfer import require
from jaf_memory_core.transfer.reports import Problems

PAGE = 500
"""Hits that one question to the store asks for."""


async def search(
    context: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Words to look for.", show_default=False)],
    *,
    user: User = None,
    conversation: Annotated[str | None, typer.Option(metavar="ID", help="Only in this conversation.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Of conversations active then or later.")] = None,
    role: Annotated[list[str] | None, typer.Option(metavar="ROLE", help="Only of this role.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 20,
    cursor: Annotated[str | None, typer.Option(metavar="CURSOR", help="Go on where the page before says.")] = None,
    calls: Annotated[bool, typer.Option("--calls", metavar="", help="Also in the arguments of calls.")] = False,
    keep_going: KeepGoing = False,
    as_json: Json = False,
) -> int:
    """Find messages by what they say, the most recent conversation first.

    All words must stand in a message, the last one at least as a beginning;
    "words in quotes" must stand together. With --json, one message a line;
    where there is more, the last line has the cursor behind which to go on.
    """
    output, store, damaged = Output(as_json=as_json), chosen(context), Problems()
    asked = MessageSearch(
        text,
        user_id=user,
        conversation_id=conversation,
        roles=role,  # type: ignore[arg-type]  # it is checked there
        since=moment(since, "--since"),
        limit=min(limit, PAGE),
        cursor=cursor,
        in_calls=calls,
    )
    going_on: dict[str, Any] = {"on_damaged": noting(damaged, keep_going=True)} if keep_going else {}
    shown, more = 0, None
    async with store.opened() as provider:
        require(provider, "search_messages", "`search`")
        async for hits in _pages(provider, asked, limit, going_on):
            for index, hit in enumerate(hits, 1):
                _show(output, hit, hits.cursor if index == len(hits) else None, first=shown == 0)
                shown += 1
            more = hits.cursor
    if not shown:
        output.note("no messages say that", mark="·")
    if more is not None and shown == limit:
        options = [("--user", user), ("--conversation", conversation), ("--since", since), ("--limit", str(limit))]
        options += [*(("--role", one) for one in role or ()), ("--cursor", more)]
        said = ["jaf-memory", *said_before(context), "search"]
        said += [word for name, value in options if value is not None for word in (name, value)]
        said += [word for word, given in (("--calls", calls), ("--keep-going", keep_going)) if given]
        output.note(f"more: {shlex.join([*said, '--', text])}", mark="·", style="dim")
    return told(damaged)


async def _pages(
    provider: ManagedMemoryProvider, asked: MessageSearch, limit: int, going_on: dict[str, Any]
) -> AsyncIterator[MessageHits]:
    """Pages up to the limit; a search that met its bound goes on, for whoever waits at a terminal can stop it."""
    left = limit
    while left > 0:
        hits = await provider.search_messages(replace(asked, limit=min(PAGE, left)), **going_on)
        yield hits
        left -= len(hits)
        if hits.cursor is None:
            return
        asked = replace(asked, cursor=hits.cursor)


def _show(output: Output, hit: MessageHit, behind: str | None, *, first: bool) -> None:
    if output.as_json:
        output.document(
            {
                "conversation_id": hit.conversation_id,
                "user_id": hit.user_id,
                "position": hit.position,
                "excerpt": hit.excerpt,
                "message": hit.message.dict(),
                "cursor": behind,
            }
        )
        return
    role = hit.message.role or safe(str(hit.message.further.get("type")))
    whose = safe(hit.user_id) if hit.user_id is not None else "nobody's"
    head = Text.assemble((safe(hit.conversation_id), "cyan"), (f"  {whose}  {safe(hit.message.message_id)}", "dim"))
    body = Text.assemble((f"  {role}: ", STYLES.get(role, "")), safe(hit.excerpt))
    output.show(*([] if first else [Text("")]), head, body)


async def users(context: typer.Context, *, keep_going: KeepGoing = False, as_json: Json = False) -> int:
    """List the users who own conversations.

    With --json, one a line.
    """
    output, store, damaged = Output(as_json=as_json), chosen(context), Problems()
    going_on: dict[str, Any] = {"on_damaged": noting(damaged, keep_going=True)} if keep_going else {}
    shown = 0
    async with store.opened() as provider:
        require(provider, "iter_users", "`users`")
        async for user in provider.iter_users(**going_on):
            shown += 1
            if as_json:
                output.document({"user_id": user})
            else:
                output.show(Text(safe(user), style="cyan"))
    if not as_json:
        output.note(count(shown, "user") if shown else "no users", mark="·")
    return told(damaged)
