"""How things look on a terminal: tables, pairs, numbers, times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jaf_memory_cli.output import safe

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
