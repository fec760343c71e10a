"""A progress bar on standard error, where somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

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

from jaf_memory_cli.output import Output


class Advance(Protocol):
    """Says how much more has been done, and, once it is known, how much there is to do."""

    def __call__(self, amount: float, /, total: float | None = None) -> None:
        """Move the bar."""


def wanted(output: Output) -> bool:
    """Whether anybody would see a bar; what only a bar needs, a count for one, can be spared otherwise."""
    return output.messages.is_terminal and not output.as_json


@contextmanager
def progress(output: Output, doing: str, total: float | None, *, parts: bool = True) -> Iterator[Advance]:
    """Show how far the work is; the bar goes when it is done.

    Args:
        output: the command's.
        doing: what is done: `importing`.
        total: how much there is to do, `None` if nobody knows.
        parts: whether the amounts are a number of things (and not of bytes, say), and worth showing.

    Yields:
        what moves the bar.
    """
    if not wanted(output):
        yield _nowhere
        return
    amount: ProgressColumn = MofNCompleteColumn() if parts else TaskProgressColumn()
    bar = Progress(
        *(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(complete_style="cyan", finished_style="green"),
            amount,
            TimeRemainingColumn(compact=True),
        ),
        console=output.messages,
        transient=True,
    )
    with bar:
        task = bar.add_task(doing, total=total)
        yield lambda amount, total=None: bar.update(task, advance=amount, total=total)


def _nowhere(_amount: float, /, total: float | None = None) -> None:
    """The bar that nobody sees."""
