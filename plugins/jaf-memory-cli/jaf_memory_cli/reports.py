"""What a command has come to, told to people and to machines: imports, copies, and damaged conversations left out."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.text import Text

from jaf_memory_cli.errors import FAILED, OK
from jaf_memory_cli.output import Output, count
from jaf_memory_core import digest
from jaf_memory_core.conversations import ConversationMemory
from jaf_memory_core.damage import OnDamaged
from jaf_memory_core.errors import MemoryError, MemoryStorageError
from jaf_memory_core.transfer.reports import Copied, Imported, Problems

DAMAGED = "damaged, left out"
"""The title under which damaged conversations are told, which `--keep-going` passes over."""


def noting(damaged: Problems, *, keep_going: bool) -> OnDamaged:
    """What a listing does with a damaged conversation: it ends, or notes each once, however often it is met."""

    def note(error: MemoryStorageError) -> None:
        damaged.add(error.conversation_id or f"one without a readable id ({damaged.count + 1})", str(error))

    return note if keep_going else "raise"


def told(damaged: Problems) -> int:
    """Tell of what is damaged, beside JSON, too, each line of which is a conversation; the command's exit status."""
    Output(as_json=False).problems(damaged, DAMAGED)
    return FAILED if damaged else OK


class Bad(Problems):
    """What an import has passed over: lines of a file, by number, or rows of another program's data, by place."""

    def __init__(self, what: Literal["lines", "rows"] = "lines") -> None:
        super().__init__()
        self.title = f"bad {what}, passed over"
        self._what = what

    def document(self) -> dict[str, Any]:
        """What a program reads of it."""
        if self._what == "rows":
            first: list[dict[str, Any]] = [{"place": place, "reason": reason} for place, reason in self]
        else:
            first = [{"line": int(number), "reason": reason} for number, reason in self]
        return {f"bad_{self._what}": self.count, f"bad_{self._what}_first": first}


@dataclass
class Read:
    """What was read of another program's data.

    Attributes:
        count: conversations.
        digest: SHA-256 of their ids and digests, in the order in which they were read: who reads the same again, by
            whatever store, has the same.
        verified: how many stand in the store with an equal digest; `None` where nobody looked.
        differing: those that do not.
    """

    count: int = 0
    verified: int | None = None
    differing: Problems = field(default_factory=Problems)
    _sum: Any = field(default_factory=hashlib.sha256)

    def add(self, conversation: ConversationMemory) -> None:
        """Count one more."""
        self.count += 1
        self._sum.update(f"{conversation.conversation_id}\0{digest(conversation)}\n".encode("utf-8", "surrogatepass"))

    @property
    def digest(self) -> str:
        """64 hexadecimal digits."""
        made: str = self._sum.hexdigest()
        return made

    def document(self) -> dict[str, Any]:
        """What a program reads of it."""
        return {
            "read": self.count,
            "read_digest": self.digest,
            "verified": self.verified,
            "differing": self.differing.count,
            "differing_first": _pairs(self.differing),
        }


def left_out(damaged: Problems) -> dict[str, Any]:
    """What a program reads of conversations that could not be read."""
    return {"damaged": damaged.count, "damaged_first": _pairs(damaged)}


@contextmanager
def telling(output: Output, done: str, report: Imported, bad: Bad | None = None) -> Iterator[None]:
    """Say how far the work came, and what was refused, if an error or an interruption ends it."""
    try:
        yield
    # `SystemExit` is a signal that came where nothing could be cancelled (`Ended`).
    except (MemoryError, OSError, asyncio.CancelledError, SystemExit):
        if bad is not None:
            Output.unfinished = {**_described(report), **bad.document()}
        output.note(f"{_counted(report)} {done} before that; run the same command again to go on")
        if bad is not None:
            output.problems(bad, bad.title)
        output.problems(report.refused, "refused")
        raise


def tell_of_import(output: Output, report: Imported, bad: Bad, store: str, read: Read | None = None) -> None:
    """Tell of an import.

    Args:
        output: the command's.
        report: what was done.
        bad: what was passed over.
        store: the provider's name.
        read: what was read of another program's data.
    """
    output.done(
        {**_described(report), **bad.document(), **(read.document() if read is not None else {})},
        f"imported {_counted(report)}",
    )
    if read is not None and not output.as_json:
        output.show(Text(f"  read {count(read.count, 'conversation')}, sha256 {read.digest}", style="dim"))
        if read.verified is not None:
            output.show(Text.assemble(("✓ ", "green"), f"verified: {count(read.verified, 'digest')} equal"))
    _remark(output, report, store)
    output.problems(bad, bad.title)
    output.problems(report.refused, "refused")
    if read is not None:
        output.problems(_without(read.differing, report.refused), "different in the store")


def tell_of_copy(output: Output, report: Copied, damaged: Problems, way: str, store: str, *, verified: bool) -> None:
    """Tell of a copy.

    Args:
        output: the command's.
        report: what was done.
        damaged: conversations of the source that could not be read.
        way: from where to where, and how long it took.
        store: the name of the provider that it went to.
        verified: whether the digests were compared.
    """
    document = {
        **_described(report),
        "already_copied": report.unchanged,
        "verified": report.verified if verified else None,
        "differing": report.differing.count,
        "differing_first": _pairs(report.differing),
        **left_out(damaged),
    }
    output.done(document, f"copied {_counted(report)}, {way}")
    if output.as_json:
        return
    if report.unchanged:
        output.show(Text(f"  {count(report.unchanged, 'conversation')} had been copied before", style="dim"))
    if verified:
        output.show(Text.assemble(("✓ ", "green"), f"verified: {count(report.verified, 'digest')} equal"))
    _remark(output, report, store)
    output.problems(report.refused, "conflicts, left as they are")
    output.problems(_without(report.differing, report.refused), "different in the destination")
    output.problems(damaged, DAMAGED)


def _without(differing: Problems, refused: Problems) -> Problems:
    """What differs and was not refused: that is different, of course, and has been told."""
    found = Problems()
    for key, reason in differing:
        if key not in refused:
            found.add(key, reason)
    return found


def _counted(report: Imported) -> str:
    """`100 conversations (2,658 messages added, 12 there already)`."""
    there = f", {report.messages_held:,} there already" if report.messages_held else ""
    return f"{count(report.conversations, 'conversation')} ({count(report.messages_added, 'message')} added{there})"


def _remark(output: Output, report: Imported, store: str) -> None:
    if report.expired:
        output.note(f"{count(report.expired, 'conversation')} had expired, and stayed behind")
    if report.messages_trimmed:
        output.note(
            f"{count(report.messages_trimmed, 'message')} left out: the store {store!r} is set to keep fewer of each "
            "conversation (max_messages)"
        )
    if not report.times_kept:
        output.note(f"the provider {store!r} cannot keep when conversations were made, nor when they expire")


def _described(report: Imported) -> dict[str, Any]:
    return {
        "conversations": report.conversations,
        "messages_added": report.messages_added,
        "messages_already_there": report.messages_held,
        "messages_left_out": report.messages_trimmed,
        "expired": report.expired,
        "times_kept": report.times_kept,
        "refused": report.refused.count,
        "refused_first": _pairs(report.refused),
    }


def _pairs(problems: Problems) -> list[dict[str, str]]:
    return [{"conversation_id": key, "reason": reason} for key, reason in problems]
