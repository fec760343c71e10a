"""Stores that are broken on purpose, one fault each, and the sound ones that they are made of."""

from __future__ import annotations

from typing import Any

from broken_stores import (
    activity,
    appends,
    clocks,
    copies,
    damage,
    deletion,
    disks,
    drivers,
    erasure,
    filters,
    imports,
    keys,
    lifecycle,
    merges,
    pages,
    races,
    reads,
    search,
    search_index,
    settings,
    six,
    states,
    upkeep,
    values,
    versions,
)
from broken_stores.damage import Documents
from broken_stores.disks import Disked
from broken_stores.search_index import Indexed
from broken_stores.sound import BROKEN, Filed, Paged, Plain, Provider, Six

SOUND = (Disked, Documents, Indexed, Paged, Plain, Provider, Filed, Six)


def sound_base(store: type[Any]) -> type[Any]:
    """The sound store that a broken one is made of."""
    return next(kind for kind in store.__mro__ if kind in SOUND)


__all__ = [
    "BROKEN",
    "SOUND",
    "activity",
    "appends",
    "clocks",
    "copies",
    "damage",
    "deletion",
    "disks",
    "drivers",
    "erasure",
    "filters",
    "imports",
    "keys",
    "lifecycle",
    "merges",
    "pages",
    "races",
    "reads",
    "search",
    "search_index",
    "settings",
    "six",
    "sound_base",
    "states",
    "upkeep",
    "values",
    "versions",
]
