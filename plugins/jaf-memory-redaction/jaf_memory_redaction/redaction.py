"""`Redaction`: the processor that puts tokens into the places of what must not be stored."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jaf_memory_core import codec
from jaf_memory_core.errors import MemoryConfigurationError, MemoryInvalidInputError
from jaf_memory_core.messages import Message
from jaf_memory_core.processors import Context, Processor
from jaf_memory_redaction.kinds import KINDS, Kind
from jaf_memory_redaction.tokens import Tokens
from jaf_memory_redaction.walk import Walk

logger = logging.getLogger("jaf_memory_redaction")

QUERIES = ("find_conversations", "iter_conversations", "search_messages")

SHORTEST = 16
"""Characters of a secret."""


class Redaction(Processor):
    """Card numbers, addresses, phone numbers and keys: tokens are stored in their places, and the values nowhere.

    Args:
        kinds: what is looked for; where two find the same place, the first has it.
        secret: makes tokens the same for the same value wherever it stands (HMAC-SHA256), so that conversations can be
            found by them; without it a token counts the values of its message.
        keep_metadata: metadata keys whose values are left as they are.
        found: is told how many of each kind a message or a change of metadata had, where it had any.
        report_every: seconds between two lines in the log that tell how many were found; 0 for none.

    Raises:
        MemoryConfigurationError: the secret is short.
    """

    def __init__(
        self,
        kinds: Sequence[Kind] = KINDS,
        *,
        secret: str | None = None,
        keep_metadata: Iterable[str] = (),
        found: Callable[[Mapping[str, int]], object] | None = None,
        report_every: float = 0.0,
    ) -> None:
        if secret is not None and len(secret) < SHORTEST:
            raise MemoryConfigurationError(f"the secret of the redaction has fewer than {SHORTEST} characters")
        self._walk = Walk(tuple(kinds))
        self._secret = None if secret is None else secret.encode()
        self._keep = frozenset(keep_metadata)
        self._found = found
        self._every = report_every
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._untold: Counter[str] = Counter()
        self._told = time.monotonic()

    def __repr__(self) -> str:
        return f"<Redaction {', '.join(kind.name for kind in self._walk.kinds)}>"

    def report(self) -> dict[str, int]:
        """How many of each kind were found since the start; what was sent again counts again."""
        with self._lock:
            return dict(self._counts)

    def outgoing(self, message: Message, context: Context) -> Message:
        """The message with tokens in the places of what was found; ids, roles and types stay."""
        given = message.dict()
        tokens = Tokens(self._secret, _Said(message))
        after = self._walk.structure(given, tokens)
        if after is given:
            return message
        self._count(tokens.counts)
        return Message(**after)

    def outgoing_metadata(self, metadata: dict[str, Any], context: Context) -> dict[str, Any]:
        """The metadata with tokens; a filter by a value that has none of its own is refused."""
        return {
            key: value if key in self._keep else self._value(key, value, context) for key, value in metadata.items()
        }

    def _value(self, key: str, value: Any, context: Context) -> Any:
        # Each for itself: a later write may bring one key, and not the others.
        tokens = Tokens(self._secret, _Said(value))
        after = self._walk.member(key, value, tokens)
        if context.operation not in QUERIES:
            self._count(tokens.counts)
        elif self._secret is None and tokens.counts:
            raise MemoryInvalidInputError(
                f"conversations cannot be found by this value of the metadata key {key!r}: what is stored in its place "
                "is not its own; set JAF_REDACTION_SECRET, or list the key in JAF_REDACTION_KEEP_METADATA"
            )
        return after

    def _count(self, counts: Mapping[str, int]) -> None:
        if not counts:
            return
        if self._found is not None:
            self._found(dict(counts))
        with self._lock:
            self._counts.update(counts)
            self._untold.update(counts)
            if not self._every or time.monotonic() - self._told < self._every:
                return
            untold, self._untold, self._told = self._untold, Counter(), time.monotonic()
        logger.info("redaction found %s", ", ".join(f"{name}: {count}" for name, count in sorted(untold.items())))


class _Said:
    """A message or value as one text, made where somebody asks for it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self) -> str:
        value = self._value if isinstance(self._value, Message) else {"value": self._value}
        return codec.encode(value).decode("utf-8", "surrogatepass")
