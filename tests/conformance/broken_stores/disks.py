"""A store on a disk that may lose its power, and what is not synced there in time."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from jaf_memory_testing import Target

from broken_stores.sound import Plain, caught_by
from jaf_memory_core.records import Record, Stamp


class Disked(Plain):
    """A dict of records, and what of it is on the disk."""

    def __init__(self) -> None:
        super().__init__()
        self.disk: dict[str, Record] = {}

    @classmethod
    def target(cls, _folder: Path) -> Target:
        store = cls()
        return Target(open=partial(cls._open, store), dump=store.dump, power_cut=store.power_cut)

    async def power_cut(self) -> None:
        """Lose what was not synced."""
        self.records = dict(self.disk)

    def sync(self) -> None:
        """Put everything on the disk."""
        self.disk = dict(self.records)

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        done = await super().write(record, expected=expected)
        self.sync()
        return done

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        done = await super().delete(conversation_id, expected=expected)
        self.sync()
        return done


@caught_by("test_power_cut[remove]")
class DeletesAreNotSynced(Disked):
    """What was deleted is there again after a power cut."""

    async def delete(self, conversation_id: str, *, expected: Stamp) -> bool:
        return await Plain.delete(self, conversation_id, expected=expected)


@caught_by("test_power_cut[append]")
class ReplacementsAreNotSynced(Disked):
    """Only a conversation that is made is synced, and not what is written over another."""

    def sync(self) -> None:
        self.disk = {**self.records, **{key: record for key, record in self.disk.items() if key in self.records}}


@caught_by("test_power_cut[amend]")
class SyncsTheOneBefore(Disked):
    """A write is synced when the next one comes."""

    async def write(self, record: Record, *, expected: Stamp | None) -> bool:
        self.sync()
        return await Plain.write(self, record, expected=expected)
