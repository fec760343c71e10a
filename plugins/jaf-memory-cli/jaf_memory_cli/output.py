"""Where a command's words go, and how they look: answers to standard output, all about them to standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Any, ClassVar, Protocol

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from jaf_memory_cli.terminal import console, safe, say, say_error, to_json
from jaf_memory_core.errors import MemoryConnectionError, MemoryStorageError
from jaf_memory_core.transfer.reports import Problems

SHOWN = 20
"""Problems that people get to see one by one."""


class _Trimmed:
    """What another renderable shows, without spaces at the end of lines: nobody sees them, but who copies has them."""

    def __init__(self, part: RenderableType) -> None:
        self._part = part

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self._part, options, pad=False):
            while line and not line[-1].text.strip():
                line.pop()
            if line:
                text, style, control = line.pop()
                line.append(Segment(text.rstrip(), style, control))
            yield from line
            yield Segment.line()


class Output:
    """What one command writes.

    Args:
        as_json: whether the answer is for a machine: one JSON document on standard output, an error on standard
            error as one too, and nothing else on either.
        warnings: whether the library's warnings are shown.
    """

    unfinished: ClassVar[Mapping[str, Any]] = {}
    """What the work had come to when an error or a signal ended it; a program finds it beside the error."""

    def __init__(self, *, as_json: bool, warnings: bool = True) -> None:
        self.as_json = as_json
        self.console = console(sys.stdout)
        self.messages = console(sys.stderr)
        logger = logging.getLogger("jaf_memory_core")
        logger.handlers[:] = [_Notes(self) if warnings else logging.NullHandler()]
        # Shown here already; another handler would say it a second time.
        logger.propagate = False

    def show(self, *parts: RenderableType) -> None:
        """Write for people."""
        for part in parts:
            self.console.print(_Trimmed(part))

    def document(self, value: Mapping[str, Any]) -> None:
        """Write one JSON document, on one line."""
        sys.stdout.write(to_json(value, plain) + "\n")

    def done(self, document: Mapping[str, Any], text: str) -> None:
        """Say what was done: a document for machines, a sentence for people."""
        if self.as_json:
            self.document(document)
        else:
            self.console.print(Text.assemble(("✓ ", "green"), safe(text)), soft_wrap=True)

    def raw(self, text: str) -> None:
        """Write a text as it is, for other programs to read."""
        sys.stdout.write(text if text.endswith("\n") else text + "\n")

    def problems(self, problems: Problems, title: str) -> None:
        """List what went wrong, on standard error; in JSON it is part of the document."""
        if not problems or self.as_json:
            return
        self._say(Text.assemble(("✗ ", "bold red"), f"{title} ({problems.count:,}):"))
        for key, reason in islice(problems, SHOWN):
            self._say(Text.assemble(f"  {safe(key)}: ", (safe(reason), "dim")))
        if problems.count > SHOWN:
            self._say(Text(f"  … and {problems.count - SHOWN:,} more; --json tells of the first 1,000"))

    def note(self, text: str, *, mark: str = "note:", style: str = "yellow") -> None:
        """Say something about the work, on standard error; machines do not get it."""
        if not self.as_json:
            self._say(Text.assemble((f"{mark} ", style), safe(text)))

    def _say(self, text: Text) -> None:
        say(self.messages, text)

    def error(self, error: BaseException, status: int) -> None:
        """Say why the command ends, on standard error."""
        # A copy has two stores.
        store = getattr(error, "provider", "") if isinstance(error, (MemoryConnectionError, MemoryStorageError)) else ""
        where = f"{store}: " if store and store not in str(error) and not self.as_json else ""
        say_error(f"{where}{error}", type(error).__name__, status, as_json=self.as_json, **self.unfinished)


def plain(value: object) -> str:
    """What JSON has no form for, as a text; times are ISO 8601."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


class _Notes(logging.Handler):
    """Shows the library's warnings, a misspelt variable for one, as notes; each once, though a copy has two stores."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._said:
            self._said.add(text)
            self._output.note(text)


# Tables, pairs, numbers, times.

GOOD, WARN, BAD = Text("✓", "green"), Text("!", "bold yellow"), Text("✗", "bold red")
MISSING = Text("-", "dim")


def table(*columns: tuple[str, dict[str, Any]], rows: Iterable[Sequence[RenderableType]], head: bool = True) -> Table:
    """A table: a header, a rule, and rows without lines between them.

    Args:
        columns: heading, and what rich's `add_column` takes.
        rows: cells, one for each column.
        head: whether to show the headings.
    """
    made = Table(
        box=box.SIMPLE_HEAD, header_style="bold", border_style="dim", pad_edge=False, show_edge=False, show_header=head
    )
    for heading, options in columns:
        made.add_column(heading, **options)
    for row in rows:
        made.add_row(*row)
    return made


def pairs(*rows: tuple[str, RenderableType]) -> RenderableType:
    """Names and values, one pair a line, indented."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, value)
    return Padding(grid, (0, 0, 0, 2))


def marked(rows: Iterable[tuple[Text, Text]]) -> RenderableType:
    """Sentences behind their marks."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column()
    grid.add_column(overflow="fold")
    for mark, text in rows:
        grid.add_row(mark, text)
    return grid


def heading(text: str, *rest: str) -> Text:
    """A title: the first part bold, the rest dim behind dots."""
    return Text.assemble((safe(text), "bold"), *((f"  ·  {safe(part)}", "dim") for part in rest))


def moment(value: datetime | None) -> RenderableType:
    """A time as the reader's clock has it, to the minute."""
    return MISSING if value is None else Text(f"{value.astimezone():%Y-%m-%d %H:%M}")


def number(value: float) -> str:
    """A number with commas; a whole one without decimals, any other with two."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def count(value: int, noun: str) -> str:
    """A number and its noun: `1 message`, `2,658 messages`."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def size(value: float) -> str:
    """Bytes in the largest unit that leaves a number above 1: `1.6 MB`."""
    step = 1000
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < step:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= step
    return f"{value:,.1f} TB"


def shortened(text: str, length: int) -> str:
    """A text on one line, cut to so many characters; the cut shows."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def text_or_dash(value: object) -> Text:
    """A value as text; nothing as a dash."""
    return MISSING.copy() if value in (None, "") else Text(safe(str(value)))


# The progress bar, on standard error, where somebody looks.


class Advance(Protocol):
    """Says how much more has been done, and, once it is known, how much there is to do."""

    def __call__(self, amount: float, /, total: float | None = None, *, things: int = 0) -> None:
        """Move the bar, and count so many more things."""


def wanted(output: Output) -> bool:
    """Whether anybody would see a bar; what only a bar needs, a count for one, can be spared otherwise."""
    return output.messages.is_terminal and not output.as_json


@contextmanager
def progress(output: Output, doing: str, total: float | None, *, things: str = "") -> Iterator[Advance]:
    """Show how far the work is; the bar goes when it is done.

    Args:
        output: the command's.
        doing: what is done: `importing`.
        total: how much there is to do, `None` if nobody knows.
        things: what is counted beside the bar, where its amounts are something else, bytes for one.

    Yields:
        what moves the bar.
    """
    if not wanted(output):
        yield _nowhere
        return
    # Slow to import, and seldom seen.
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    amounts: list[ProgressColumn] = [MofNCompleteColumn()]
    if things:
        amounts = [TaskProgressColumn(), TextColumn("{task.fields[things]:,} " + things)]
    bar = Progress(
        *(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(complete_style="cyan", finished_style="green"),
            *amounts,
            TimeRemainingColumn(compact=True),
        ),
        console=output.messages,
        transient=True,
    )
    with bar:
        task = bar.add_task(doing, total=total, things=0)

        def advance(amount: float, /, total: float | None = None, *, things: int = 0) -> None:
            bar.update(task, advance=amount, total=total, things=bar.tasks[task].fields["things"] + things)

        yield advance


def _nowhere(_amount: float, /, total: float | None = None, *, things: int = 0) -> None:
    """The bar that nobody sees."""
