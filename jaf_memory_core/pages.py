"""Where a page of messages lies in a conversation, and what it is made of."""

from __future__ import annotations

from bisect import bisect_left

from msgspec.structs import replace

from jaf_memory_core.records import Page, Record, Tail


def page(record: Record, tail: Tail) -> Page:
    """The asked-for page of a whole record."""
    if record.gaps:
        return _page_with_gaps(record, tail)
    first, end = bounds(record, tail)
    oldest = record.first_position
    leading = record.messages[: lead(record, tail, first)] if tail.leading else None
    header = replace(record, messages=()) if tail.with_header else None
    return Page(
        record.messages[first - oldest : end - oldest], first, first > oldest, leading, header, known_end(record, tail)
    )


def _page_with_gaps(record: Record, tail: Tail) -> Page:
    positions, oldest = record.positions, record.first_position
    lowest, highest = reach(record, tail)
    stop = bisect_left(positions, highest)
    start = bisect_left(positions, lowest)
    if tail.after is None:
        start = max(start, stop - tail.limit)
    else:
        stop = min(stop, start + tail.limit)
    within = positions[start:stop]
    first = within[0] if within else nowhere(record, tail)
    leading = record.messages[: bisect_left(positions, min(tail.leading, first))] if tail.leading else None
    header = replace(record, messages=(), positions=()) if tail.with_header else None
    return Page(record.messages[start:stop], first, first > oldest, leading, header, known_end(record, tail), within)


def reach(header: Record, tail: Tail) -> tuple[int, int]:
    """Between which positions (inclusive, exclusive) the messages of a page lie: its limit aside."""
    oldest, end = header.first_position, header.end
    if tail.before is not None:
        end = max(oldest, min(end, tail.before))
    return (oldest if tail.after is None else min(max(oldest, tail.after + 1), end)), end


def nowhere(header: Record, tail: Tail) -> int:
    """Where the first message of a page would stand that has none."""
    lowest, end = reach(header, tail)
    return end if tail.after is None else lowest


def known_end(header: Record, tail: Tail) -> int | None:
    """What a page tells of the conversation's end: it does where the request looks forwards."""
    return None if tail.after is None else header.end


def lead(header: Record, tail: Tail, first: int) -> int:
    """How many of the conversation's first messages were asked for beside a page that begins at position `first`."""
    return max(0, min(tail.leading, first) - header.first_position)


def bounds(header: Record, tail: Tail) -> tuple[int, int]:
    """From which position (inclusive) to which (exclusive) a page reaches, of a conversation without gaps."""
    return bounds_within(header.first_position, header.first_position + header.message_count, tail)


def bounds_within(oldest: int, end: int, tail: Tail) -> tuple[int, int]:
    """The same, of a conversation whose messages stand from one position to below another."""
    if tail.before is not None:
        end = max(oldest, min(end, tail.before))
    if tail.after is None:
        return max(oldest, end - tail.limit), end
    first = min(max(oldest, tail.after + 1), end)
    return first, min(end, first + tail.limit)


# Queries: the plain-Python meaning of `MemoryQuery`.
