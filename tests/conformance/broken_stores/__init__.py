"""Stores that are broken on purpose, one fault each, and the sound ones that they are made of."""

from __future__ import annotations

from broken_stores import (
    appends,
    damage,
    disks,
    drivers,
    erasure,
    imports,
    lifecycle,
    races,
    reads,
    settings,
    states,
    values,
    versions,
)
from broken_stores.damage import Documents
from broken_stores.disks import Disked
from broken_stores.sound import BROKEN, Filed, Paged, Plain, Provider, Six

SOUND = (Disked, Documents, Paged, Plain, Provider, Filed, Six)

__all__ = [
    "BROKEN",
    "SOUND",
    "appends",
    "damage",
    "disks",
    "drivers",
    "erasure",
    "imports",
    "lifecycle",
    "races",
    "reads",
    "settings",
    "states",
    "values",
    "versions",
]
