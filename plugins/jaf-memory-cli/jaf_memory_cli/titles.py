"""`rename`: what people call a conversation, kept in its metadata as `title`."""

from __future__ import annotations

from typing import Annotated

import typer

from jaf_memory_cli.errors import USAGE, Stop
from jaf_memory_cli.options import Id, Json
from jaf_memory_cli.output import Output
from jaf_memory_cli.stores import chosen
from jaf_memory_core.transfer import require

TITLE = "title"
"""The key of the metadata under which it stands."""


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
