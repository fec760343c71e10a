"""`jaf-memory`: all its commands, and the options before them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from jaf_memory_cli import conversations, diagnosis, erasure, migration, transfer
from jaf_memory_cli.errors import command
from jaf_memory_cli.stores import Choice

app = typer.Typer(
    name="jaf-memory",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Work = Callable[..., Coroutine[Any, Any, "int | None"]]

PANELS: dict[str, dict[str, Work]] = {
    "Look": {
        "list": conversations.list_conversations,
        "show": conversations.show,
        "stats": conversations.stats,
    },
    "Check": {
        "doctor": diagnosis.doctor,
        "info": diagnosis.info,
        "providers": diagnosis.providers,
    },
    "Move": {
        "import": transfer.import_file,
        "export": transfer.export_file,
        "copy": transfer.copy_store,
    },
    "Erase": {
        "delete": erasure.delete,
        "forget-user": erasure.forget_user,
        "purge": erasure.purge,
    },
    "Set up": {
        "schema": migration.schema,
        "adopt": migration.adopt,
    },
}

for panel, commands in PANELS.items():
    for name, work in commands.items():
        app.command(name, rich_help_panel=panel)(command(work))


def _show_version(wanted: bool) -> None:  # noqa: FBT001  (typer calls it so)
    if wanted:
        from importlib_metadata import version

        typer.echo(f"jaf-memory {version('jaf-memory-core')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    *,
    kind: Annotated[
        str | None, typer.Option("--type", metavar="NAME", help="Provider, instead of JAF_MEMORY_TYPE.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A setting of the provider, over the environment's."),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file of JAF_ variables, instead of those of the environment."),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Conversation memory: look at it, move it, erase it, check it.

    The environment chooses the store, as it does for applications:
    JAF_MEMORY_TYPE=sqlite JAF_SQLITE_PATH=chat.db jaf-memory list
    """
    context.obj = Choice(kind, tuple(settings or ()), env_file)


def run() -> int:
    """Run with this process's arguments; the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # What the terminal's encoding lacks is shown as it can be, and never ends the program.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        app(prog_name="jaf-memory")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
