"""What an import or a copy came to, for people and for programs."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from jaf_memory_cli.output import Output
from jaf_memory_cli.rendering import count
from jaf_memory_core.transfer.reports import Copied, Imported, Problems


def imported(output: Output, report: Imported, bad: Problems, store: str) -> None:
    """Tell of an import.

    Args:
        output: the command's.
        report: what was done.
        bad: lines that were passed over, by number.
        store: the provider's name.
    """
    lines = [{"line": int(number), "reason": reason} for number, reason in bad]
    document = {**_described(report), "bad_lines": bad.count, "bad_lines_first": lines}
    output.done(document, f"imported {counted(report)}")
    _remark(output, report, store)
    output.problems(bad, "bad lines, passed over")
    output.problems(report.refused, "refused")


def copied(output: Output, report: Copied, way: str, store: str, *, verified: bool) -> None:
    """Tell of a copy.

    Args:
        output: the command's.
        report: what was done.
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
    }
    output.done(document, f"copied {counted(report)}, {way}")
    if output.as_json:
        return
    if report.unchanged:
        output.show(Text(f"  {count(report.unchanged, 'conversation')} had been copied before", style="dim"))
    if verified:
        output.show(Text.assemble(("✓ ", "green"), f"verified: {count(report.verified, 'digest')} equal"))
    _remark(output, report, store)
    output.problems(report.refused, "conflicts, left as they are")
    differing = Problems()
    for key, reason in report.differing:
        if key not in report.refused:
            differing.add(key, reason)
    output.problems(differing, "different in the destination")


def counted(report: Imported) -> str:
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
