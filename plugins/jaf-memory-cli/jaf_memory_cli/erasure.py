"""`delete`, `delete-message`, `forget-user`, `purge`: what cannot be undone, and therefore asks."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jaf_memory_cli.errors import FAILED, Stop
from jaf_memory_cli.execution import confirm
from jaf_memory_cli.keys import data_keys
from jaf_memory_cli.options import Id, Json, Yes
from jaf_memory_cli.output import Output, count
from jaf_memory_cli.stores import chosen
from jaf_memory_cli.terminal import safe
from jaf_memory_core.errors import MemoryNotFoundError
from jaf_memory_core.transfer import require

UserId = Annotated[str, typer.Argument(metavar="USER", help="A user's id.", show_default=False)]

MessageIds = Annotated[
    list[str], typer.Argument(metavar="MESSAGE…", help="Ids of messages, as `search` shows them.", show_default=False)
]

Shred = Annotated[
    bool, typer.Option("--shred", metavar="", help="Destroy the user's data key, too (plugin `encryption`).")
]


async def delete(context: typer.Context, conversation_id: Id, *, yes: Yes = False, as_json: Json = False) -> None:
    """Delete a conversation for good."""
    output = Output(as_json=as_json)
    async with chosen(context).opened() as provider:
        confirm(f"Delete conversation {conversation_id} for good?", yes=yes)
        if not await provider.delete_conversation(conversation_id):
            raise MemoryNotFoundError(conversation_id)
    output.done({"deleted": 1, "conversation_id": conversation_id}, f"deleted {conversation_id}")


async def delete_message(
    context: typer.Context,
    conversation_id: Id,
    message_ids: MessageIds,
    *,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete single messages of a conversation for good.

    The others stay, in their order. A summary that covers one of them
    goes, too. Either all of them are deleted, or none.
    """
    output = Output(as_json=as_json)
    async with chosen(context).opened() as provider:
        require(provider, "delete_messages", "`delete-message`")
        named = list(dict.fromkeys(message_ids))
        what = f"message {named[0]}" if len(named) == 1 else count(len(named), "message")
        confirm(f"Delete {what} of conversation {conversation_id} for good?", yes=yes)
        deleted = await provider.delete_messages(conversation_id, named)
    if not deleted:
        missing = f"conversation {safe(conversation_id)} holds no message {safe(', '.join(named))}"
        raise Stop(f"{missing}; `search` and `show --json` tell the ids", FAILED)
    left = len(named) - deleted
    done = f"deleted {count(deleted, 'message')} of {conversation_id}"
    output.done(
        {"deleted": deleted, "conversation_id": conversation_id},
        f"{done}; {left} of those named it does not hold" if left else done,
    )


async def forget_user(
    context: typer.Context, user: UserId, *, shred: Shred = False, yes: Yes = False, as_json: Json = False
) -> None:
    """Delete all conversations of a user for good.

    With `--shred` the user's data key is destroyed, too: what is left of the text in backups is never read again.
    """
    output, store = Output(as_json=as_json), chosen(context)
    keys = data_keys(store) if shred else None  # before anything is asked: without them nothing is done
    async with store.opened() as provider:
        require(provider, "clear_user_conversations", "`forget-user`")
        what = "all conversations"
        if not yes and sys.stdin.isatty() and callable(getattr(provider, "get_stats", None)):
            # Counted for the question only: others may write until it is answered.
            found = await provider.get_stats(user)
            messages = count(found["total_messages"], "message")
            what = f"all {count(found['total_conversations'], 'conversation')} ({messages})"
        confirm(f"Delete {what} of user {user} for good?", yes=yes)
        deleted = await provider.clear_user_conversations(user)
        done = f"deleted {count(deleted, 'conversation')} of user {user}"
        more = {}
        if keys is not None:
            more["shredded"] = keys.forget(user)
            keys.file.close()
            # What was written in between was sealed by the key that is gone.
            deleted += await provider.clear_user_conversations(user)
            done += ", and the user's data key" if more["shredded"] else "; the user had no data key"
    output.done({"deleted": deleted, "user_id": user, **more}, done)


async def purge(context: typer.Context, *, yes: Yes = False, as_json: Json = False) -> None:
    """Remove expired conversations for good.

    Nobody can see them any more, but they take room.
    """
    output = Output(as_json=as_json)
    async with chosen(context).opened() as provider:
        require(provider, "purge_expired", "`purge`")
        confirm("Remove all expired conversations for good?", yes=yes)
        removed = await provider.purge_expired()
    output.done({"removed": removed}, f"removed {count(removed, 'expired conversation')}")
