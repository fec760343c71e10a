"""`jaf-memory`: all its commands, and the options before them.

The module of a command, and the core with it, is imported once the command runs; help and completion make do with what
stands here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from io import StringIO
from typing import Annotated, Any, NamedTuple

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from jaf_memory_cli import terminal
from jaf_memory_cli.errors import OK, READER_GONE, USAGE
from jaf_memory_cli.options import Choice

NAME = "jaf-memory"
HELP = {"help_option_names": ["--help", "-h"]}

RefusedError: Any = typer.BadParameter.__mro__[2]
"""What the parser raises for arguments that it does not take; typer gives no name to it."""


class Entry(NamedTuple):
    """A command.

    Attributes:
        panel: the heading under which help lists it.
        work: module and function.
        about: the first line of the function's docstring.
    """

    panel: str
    work: str
    about: str


COMMANDS = {
    "list": Entry("Look", "conversations.list_conversations", "List conversations, the most recently written first."),
    "show": Entry("Look", "conversations.show", "Show a conversation as a transcript."),
    "search": Entry("Look", "inquiry.search", "Find messages by what they say, the most recent conversation first."),
    "users": Entry("Look", "inquiry.users", "List the users who own conversations."),
    "stats": Entry("Look", "conversations.stats", "Count conversations, messages and bytes."),
    "doctor": Entry("Check", "diagnosis.doctor", "Check settings, plugin and connection."),
    "info": Entry("Check", "diagnosis.info", "Tell which store is set, without connecting."),
    "providers": Entry("Check", "diagnosis.providers", "List the installed providers, each tried."),
    "rename": Entry("Label", "conversations.rename", "Give a conversation a title, which `list` shows."),
    "import": Entry("Move", "transfer.import_file", "Import conversations from JSON Lines, or another program's data."),
    "export": Entry("Move", "transfer.export_file", "Export conversations as JSON Lines, with digests."),
    "copy": Entry("Move", "transfer.copy_store", "Copy conversations to another store."),
    "delete": Entry("Erase", "erasure.delete", "Delete a conversation for good."),
    "delete-message": Entry("Erase", "erasure.delete_message", "Delete single messages of a conversation for good."),
    "forget-user": Entry("Erase", "erasure.forget_user", "Delete all conversations of a user for good."),
    "purge": Entry("Erase", "erasure.purge", "Remove expired conversations for good."),
    "keys": Entry("Set up", "keys.keys", "Show or rotate the keys of the plugin `encryption`, or make a new one."),
    "schema": Entry("Set up", "migration.schema", "Print the store's own definitions, or apply them."),
    "adopt": Entry("Set up", "migration.adopt", "Move data of an older layout into this one."),
    "new-provider": Entry(
        "Extend", "scaffold.new_provider", "Write the distribution of a new provider, for you to go on from."
    ),
}


class UnwritableError(Exception):
    """Standard output did not take a text of this module's; its cause says why."""


def write(text: str) -> None:
    """Write to standard output.

    Raises:
        UnwritableError: that did not work.
    """
    try:
        sys.stdout.write(f"{text.rstrip()}\n")
        sys.stdout.flush()
    except OSError as error:  # the parser would take a broken pipe into its own hands
        raise UnwritableError from error


class Command(TyperCommand):
    """A command whose help is drawn here: typer's own takes as long to import as all the rest."""

    def get_help(self, ctx: Any) -> str:
        """Write the page."""
        _write_page(self, ctx)
        return ""


class Commands(TyperGroup):
    """All commands, each imported once it is run, completed, or asked for help."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        # Stand-ins for the list: a command is imported when it is run (`resolve_command`).
        self.commands = {name: TyperCommand(name, help=entry.about) for name, entry in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of that name, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, _imported(name) if command is not None and name is not None else None, rest

    def get_help(self, ctx: Any) -> str:
        """Write the page."""
        _write_page(self, ctx)
        return ""


def _imported(name: str) -> Any:
    from jaf_memory_cli.execution import command

    module, _, function = COMMANDS[name].work.partition(".")
    work = getattr(import_module(f"jaf_memory_cli.{module}"), function)
    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    one.command(name, cls=Command)(command(work))
    return get_command(one)


def _write_page(command: Any, context: Any) -> None:
    """Usage, what the command does, and its arguments, options and commands."""
    about, _, more = (command.help or "").partition("\n\n")
    records = [(param, param.get_help_record(context)) for param in command.get_params(context)]
    arguments = [param for param, _ in records if param.param_type_name == "argument"]
    pieces = [f"{param.metavar or param.name}" if param.required else f"[{param.metavar}]" for param in arguments]
    pieces = ["[OPTIONS]", *pieces, *(["COMMAND [ARGS]..."] if isinstance(command, Commands) else [])]
    page = Table.grid()
    page.add_row(Text.assemble(("Usage: ", "bold yellow"), (context.command_path, "bold"), f" {' '.join(pieces)}"))
    page.add_row(Padding(Text(about), (1, 0, 0, 1)))
    if more:
        page.add_row(Padding(Text(more), (1, 0, 0, 1)))
    for title, rows in _sections(command, records, arguments):
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for left, right in rows:
            table.add_row(left, Text(right))
        page.add_row(Text(f"\n{title}", style="bold"))
        page.add_row(Padding(table, (0, 0, 0, 2)))
    drawn = StringIO()
    terminal.console(sys.stdout, drawn).print(page)
    write("\n".join(line.rstrip() for line in drawn.getvalue().splitlines()))


def _sections(command: Any, records: Any, arguments: Any) -> Iterator[tuple[str, Sequence[tuple[str, str]]]]:
    if arguments:
        yield "Arguments", [(param.metavar or param.name, param.help or "") for param in arguments]
    if isinstance(command, Commands):
        for panel in dict.fromkeys(entry.panel for entry in COMMANDS.values()):
            yield panel, [(name, entry.about) for name, entry in COMMANDS.items() if entry.panel == panel]
    yield "Options", [record for param, record in records if record and param not in arguments]


def _show_version(*, wanted: bool) -> None:
    if wanted:
        from importlib_metadata import version

        write(f"{NAME} {version('jaf-memory-core')}")
        raise typer.Exit


app = typer.Typer(name=NAME, cls=Commands, rich_markup_mode=None, context_settings=HELP)


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
        str | None,
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
    terminal.prepare()
    arguments = sys.argv[1:]
    # Looked for here, because the parser may refuse before it comes to it; behind `--` it is no option.
    as_json = "--json" in [*arguments, "--"][: [*arguments, "--"].index("--")]
    try:
        return get_command(app)(arguments or ["--help"], prog_name=NAME, standalone_mode=False) or _unasked(arguments)
    except RefusedError as error:
        terminal.say_error(_refusal(error), "UsageError", USAGE, as_json=as_json)
        return USAGE
    except typer.Abort:
        return 130
    except UnwritableError as error:
        cause = error.__cause__
        terminal.silence(sys.stdout)
        if isinstance(cause, BrokenPipeError):
            return READER_GONE
        text = terminal.os_error(cause) if isinstance(cause, OSError) else ""
        terminal.say_error(text, "OSError", USAGE, as_json=as_json)
        return USAGE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        terminal.leave()


def _unasked(arguments: Sequence[str]) -> int:
    """Help that nobody asked for is an answer to a wrong use."""
    return OK if arguments else USAGE


def _refusal(error: Any) -> str:
    path = error.ctx.command_path if error.ctx is not None else NAME
    text = error.format_message().rstrip(".")
    return f"{text}{' ' if text.endswith('?') else '; '}`{path} --help` shows what it takes"
