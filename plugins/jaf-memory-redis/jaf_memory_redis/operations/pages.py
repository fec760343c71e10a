"""Pages of a conversation: the commands that read its end, and what is shown beside the messages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from msgspec.structs import replace

from jaf_memory_core import codec
from jaf_memory_core.records import Page, Tail
from jaf_memory_redis import layout
from jaf_memory_redis.scripts import Command, Form, command

_TAIL = ("f", "inc", "v", "x", "o", "p", "n", "s", "id")


@lru_cache(maxsize=64)
def tail_form(length: int, limit: int, leading: int, whole: bool) -> Form:  # noqa: FBT001  (a key of the cache)
    """The commands that read the last `limit` messages, with the header of that moment and the time.

    Args:
        length: of what the names of the keys begin with.
        limit: how many of the last messages.
        leading: how many of the first, too.
        whole: whether all of the header is read.
    """
    return Form(
        length,
        lambda start: (
            command("HGETALL", start + b"h") if whole else command("HMGET", start + b"h", *_TAIL),
            command("LRANGE", start + b"m", -limit, -1),
            *([command("LRANGE", start + b"m", 0, leading - 1)] if leading else []),
            command("LLEN", start + b"m"),
            command("HMGET", start + b"h", "inc", "v"),
            Command(start, ("TIME",)),
        ),
    )


def fields_of(flat: Sequence[bytes]) -> list[Any]:
    """The fields that a page needs, of a header that was read whole."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return [fields.get(name.encode()) for name in _TAIL]


def beside(tail: Tail, page: Page, fields: Sequence[Any], whole: Sequence[bytes], first: Sequence[bytes]) -> Page:
    """The page with the header and the first messages, as far as they were asked for."""
    if tail.with_header:
        page = replace(page, header=layout.record_of(tail.conversation_id, whole))
    if not tail.leading:
        return page
    lead = max(0, min(tail.leading, page.first) - int(fields[5]))
    return replace(page, leading=codec.decode_messages(first[:lead], tail.conversation_id))
