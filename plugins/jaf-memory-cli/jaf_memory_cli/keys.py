"""`keys`: the keys of the plugin `encryption`; what `forget-user --shred` destroys."""

from __future__ import annotations

import asyncio
import base64
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from jaf_memory_cli.errors import FAILED, USAGE, Stop
from jaf_memory_cli.options import Json
from jaf_memory_cli.output import Output, count, pairs
from jaf_memory_cli.stores import Store, chosen
from jaf_memory_cli.terminal import safe
from jaf_memory_core.registry import PLUGINS, find
from jaf_memory_core.settings import load
from jaf_memory_core.settings.errors import quoted

if TYPE_CHECKING:
    from jaf_memory_encryption import DataKeys

ACTIONS = ("rotate", "show", "new", "init")

Action = Annotated[
    str,
    typer.Argument(
        metavar="ACTION", help="rotate, show, new: make an entry for the ring, or init: make the file of data keys."
    ),
]


def data_keys(store: Store) -> DataKeys:
    """The users' data keys, as the store's variables name them.

    Raises:
        MemoryConfigurationError: the plugin is not installed, or its settings are wrong.
    """
    find("encryption", PLUGINS)  # says how to install it
    from jaf_memory_encryption.settings import EncryptionSettings, data_keys_of

    return data_keys_of(load(EncryptionSettings, store.environ))


def _init(output: Output, store: Store) -> None:
    """Make the file of data keys, once: where it was there before, it must be that one."""
    find("encryption", PLUGINS)
    from jaf_memory_encryption.settings import EncryptionSettings, key_file_of

    file = key_file_of(load(EncryptionSettings, store.environ))
    if not file.make():
        raise Stop(f"{file.path} is there already", FAILED)
    output.done({"made": str(file.path)}, f"made {file.path}; keep it apart from the backups of the store")


async def keys(context: typer.Context, action: Action = "show", *, as_json: Json = False) -> None:
    """Show or rotate the keys of the plugin `encryption`, or make a new one.

    Rotating wraps every user's data key by the first key of the ring, beside readers and writers. No message is
    touched. What was interrupted goes on when it is run again; then older keys may leave the ring.
    """
    output = Output(as_json=as_json)
    if action not in ACTIONS:
        raise Stop(f"{quoted(action)} is nothing that can be done with keys; say {', '.join(ACTIONS)}", USAGE)
    if action == "new":
        # Two of one moment have ids of their own, or a ring of both would be refused.
        output.raw(f"{datetime.now(UTC):%Y%m%d}-{os.urandom(2).hex()}:{base64.b64encode(os.urandom(32)).decode()}")
        return
    if action == "init":
        _init(output, chosen(context))
        return
    found = data_keys(chosen(context))
    try:
        if action == "rotate":
            rotated = await asyncio.to_thread(found.rotate)
            told = f"{count(rotated, 'data key')} wrapped anew by {found.ring.current}"
            output.done({"rotated": rotated, "current": found.ring.current}, told)
            return
        counts = found.file.counts()
    except LookupError as error:
        raise Stop(str(error.args[0]), FAILED) from None
    finally:
        found.file.close()
    if as_json:
        output.document({"file": str(found.file.path), "current": found.ring.current, "wrapped_by": counts})
        return
    # Their names stand in the file, and are whatever somebody wrote into it.
    rows = [(safe(name), Text(count(number, "data key"))) for name, number in counts.items()]
    output.show(pairs(("file", Text(safe(str(found.file.path)))), ("first key", Text(found.ring.current)), *rows))
