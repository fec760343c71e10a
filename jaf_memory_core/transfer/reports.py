"""What an import or a copy has done so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

MOST = 1_000
"""Problems that a report tells one by one; all of them are counted."""


class Problems:
    """What went wrong with which conversation: each counted once, the first 1,000 kept; of the rest a number each.

    Iterating gives pairs of conversation id and reason.

    Attributes:
        count: how many conversations there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._reasons: dict[str, str] = {}
        # A number for each id: ids and reasons would take many times that.
        self._others: set[int] = set()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._reasons.items())

    def __contains__(self, conversation_id: object) -> bool:
        return conversation_id in self._reasons or (bool(self._others) and hash(conversation_id) in self._others)

    def __repr__(self) -> str:
        return f"<{self.count} problems>"

    def add(self, conversation_id: str, reason: str) -> None:
        """Note one more; a conversation that comes again keeps its first reason."""
        if conversation_id in self:
            return
        self.count += 1
        if len(self._reasons) < MOST:
            self._reasons[conversation_id] = reason
        else:
            self._others.add(hash(conversation_id))


@dataclass
class Imported:
    """What an import has done so far.

    Attributes:
        conversations: how many stand in the destination now, whole, or as whole as its caps allow.
        messages_added: how many messages were written.
        messages_held: how many the destination held already.
        messages_trimmed: how many its cap on messages left out.
        expired: conversations passed over, because they have expired.
        refused: conversations that the destination did not take.
        times_kept: `False` if the destination cannot keep times and expiry.
    """

    conversations: int = 0
    messages_added: int = 0
    messages_held: int = 0
    messages_trimmed: int = 0
    expired: int = 0
    refused: Problems = field(default_factory=Problems)
    times_kept: bool = True


@dataclass
class Copied(Imported):
    """What a copy has done so far.

    Attributes:
        unchanged: those of `conversations` whose digest was equal already, so that nothing was written.
        verified: conversations whose digest was found equal after the copy, and their times, where those are kept.
        differing: conversations that are missing or different in the destination after the copy.
    """

    unchanged: int = 0
    verified: int = 0
    differing: Problems = field(default_factory=Problems)
