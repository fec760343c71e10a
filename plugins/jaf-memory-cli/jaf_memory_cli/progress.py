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
