"""`RegenerationPoints`: notes in the metadata of where a conversation was regenerated from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jaf_memory_core import validation
from jaf_memory_core.provider.base import ProviderBase
from jaf_memory_core.records import Record
from jaf_memory_core.values import FrozenDict, freeze


class RegenerationPoints(ProviderBase):
    """The list of them, which grows without losing one to somebody else's."""

    async def mark_regeneration_point(
        self, conversation_id: str, message_id: str, regeneration_metadata: Mapping[str, Any] | None = None
    ) -> int:
        """Note in the metadata that the conversation was regenerated from a message; the new version. Atomic.

        `regeneration_points` lists all such notes, `last_regeneration` is the newest, `regeneration_count` counts.

        Raises:
            MemoryNotFoundError: there is no such conversation.
        """
        given = freeze(dict(regeneration_metadata or {}), where="regeneration_metadata", datetimes=True)
        validation.check_shape(given.values(), "regeneration_metadata", self.config)
        key = validation.checked_id(message_id, "message_id")

        def change(header: Record, now: datetime) -> Mapping[str, Any]:
            point = FrozenDict({"message_id": key, "timestamp": now.isoformat(), **given})
            stored = header.metadata.get("regeneration_points")
            points = [*(stored if isinstance(stored, list) else ()), point]
            return {"regeneration_points": points, "last_regeneration": point, "regeneration_count": len(points)}

        return (await self._annotated("mark_regeneration_point", conversation_id, change)).version
