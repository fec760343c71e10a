"""Pages of a conversation: the commands that read its end, what is shown beside it, and how much is read at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from msgspec.structs import replace

from jaf_memory_core import codec
from jaf_memory_core.records import Page, Tail
from jaf_memory_redis import layout
from jaf_memory_redis.errors import TransportError
from jaf_memory_redis.layout import Keys, Known
from jaf_memory_redis.pool import Topology
from jaf_memory_redis.scripts import Command, Form, command

HEAVY = 128 << 10
"""Bytes of messages that one command reads."""

LONG = 200
"""Messages of a page beyond which it is read in such steps, and the header before it."""

ABREAST = 6
"""Such commands that are under way together: below the least that hosters let a server keep for a client, 1 MB."""

BULKY = 16 << 10
"""Bytes of a message, on average, from which a conversation is remembered as one whose pages are read in steps."""

SINGLY = 2
"""Connections lost over a conversation after which its messages are read one by one; before, small ones by a few."""

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


class Sizes:
    """What is known of large conversations, so that they are read in steps that keep nobody waiting.

    That is the size of their messages, and the connections that they have cost.
    """

    def __init__(self, keys: Keys, topology: Topology) -> None:
        self._keys = keys
        self._topology = topology
        self._bulky: Known[int] = Known()
        self._choking: Known[tuple[int, int]] = Known()
        self._lengths: Known[tuple[int, int]] = Known()

    def note(self, conversation_id: str, size: int, count: int) -> None:
        """Remember how large the messages of a conversation are, where they are so large that it matters."""
        each = size // max(1, count)
        self._bulky.learn(conversation_id, each if each > BULKY else None)

    def note_length(self, conversation_id: str, size: int, count: int) -> None:
        """Remember how long a conversation is, where the next load may bring more of it in its first step."""
        each = max(1, size // max(1, count))
        many = count > LONG and each <= BULKY
        # By no more in a command than a page may have: larger ones may stand there by then.
        known = min(count, ABREAST * HEAVY // each), min(LONG, HEAVY // each)
        self._lengths.learn(conversation_id, known if many else None)

    def _together(self, conversation_id: str, few: int) -> tuple[int, int]:
        """How many messages the first step of a load may bring, and how many one command of it."""
        most = self._at_once(conversation_id)
        known = self._lengths.guess(conversation_id) if most > few else None
        return known or (min(few, most), few)

    def note_bulky(self, conversation_id: str, size: int, count: int) -> None:
        """The same for what is about to be added, where that is large; whether all is, a read tells."""
        if size > BULKY * count:
            self.note(conversation_id, size, count)

    def _at_once(self, conversation_id: str) -> int:
        """How many messages may be read by one command; before anything is known of a conversation, all."""
        if self._choking.guess(conversation_id):
            return 1
        each = self._bulky.guess(conversation_id)
        return LONG if each is None else max(1, ABREAST * HEAVY // each)

    def _cut_off(self, conversation_id: str, error: TransportError) -> TransportError:
        """What a lost connection means to a read, and to the next attempt.

        A server closes the connection if it would have to keep more than `client-output-buffer-limit` for it. The next
        attempt is careful, and the one behind that reads a message at a time; where that was so already, what to set is
        told.
        """
        if not error.closed:
            return error
        cuts, size = self._choking.guess(conversation_id) or (0, 0)
        self._choking.learn(conversation_id, (min(cuts + 1, SINGLY), size))
        if cuts < SINGLY or size <= HEAVY:
            return error
        advice = "perhaps a message is larger than its client-output-buffer-limit (normal) allows; raise that"
        return TransportError(f"{error}; {advice}", sent=error.sent)

    async def _gauge(self, conversation_id: str) -> None:
        """Where connections were lost over it, look whether its messages can have been the reason."""
        known = self._choking.guess(conversation_id)
        if known is None:
            return
        header = self._keys.conversation(conversation_id)[0]
        (size,) = await self._topology.run_all([command("HGET", header, "s")])
        size = int(size) if size is not None and size.isdigit() else 0
        self._choking.learn(conversation_id, (known[0], size) if size > HEAVY else None)
