"""`RegenerationPoints`: notes in the metadata of where a conversation was regenerated from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jaf_memory_core import codec, rules, validation
from jaf_memory_core.processors import Chain
from jaf_memory_core.provider.base import ProviderBase
from jaf_memory_core.records import Record
from jaf_memory_core.values import FrozenDict, freeze


class RegenerationPoints(ProviderBase):
    """The list of them, which grows without losing one to somebody else's."""

    async def mark_regeneration_point(
        self, conversation_id: str, message_id: str, regeneration_metadata: Mapping[str, Any] | None = None
    ) -> int:
        """Note in the metadata that the conversation was regenerated from a message; the new version. Atomic.

        `regeneration_points` lists such notes, `last_regeneration` is the newest, `regeneration_count` counts all.
        Where the metadata would grow beyond `max_metadata_bytes`, the oldest notes go.

        Raises:
            MemoryNotFoundError: there is no such conversation.
        """
        given = regeneration_metadata if regeneration_metadata is not None else {}
        note = freeze(
            validation.checked_mapping(given, "regeneration_metadata"), where="regeneration_metadata", datetimes=True
        )
        validation.check_shape(note.values(), "regeneration_metadata", self.config)
        key = validation.checked_id(message_id, "message_id")
        await self._owner("mark_regeneration_point", conversation_id, None, None)  # so that what it needs is there

        def change(header: Record, now: datetime) -> FrozenDict:
            chain = self._chain.within("mark_regeneration_point", header.conversation_id, header.user_id)
            stood = chain.incoming_metadata(rules.applications(header.metadata))
            point = FrozenDict({"message_id": key, "timestamp": now.isoformat(), **note})
            return self._fitting(header.metadata, _points(stood), point, _count(stood) + 1, chain)

        return (await self._annotated("mark_regeneration_point", conversation_id, change)).version

    def _fitting(
        self, stored: FrozenDict, points: list[Any], point: FrozenDict, count: int, chain: Chain
    ) -> FrozenDict:
        """What is merged into the metadata: as many of the points as there is room for, the newest ones."""
        while True:
            patch = {
                "regeneration_points": [*points, point],
                "last_regeneration": point,
                "regeneration_count": count,
            }
            processed: FrozenDict = chain.outgoing_metadata(freeze(patch, where="metadata"))
            size = len(codec.encode(rules.applications(rules.merged(stored, processed))))
            if size <= self.config.max_metadata_bytes or not points:
                return processed
            # Many at a time: each try encodes all that stays.
            points = points[max(1, len(points) // 8) :]


def _points(metadata: FrozenDict) -> list[Any]:
    stored = metadata.get("regeneration_points")
    return [*stored] if isinstance(stored, list) else []


def _count(metadata: FrozenDict) -> int:
    stored = metadata.get("regeneration_count")
    return stored if type(stored) is int else len(_points(metadata))
