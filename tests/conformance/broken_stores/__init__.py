"""Stores that are broken on purpose, one fault each, and the sound ones that they are made of."""

from __future__ import annotations

from broken_stores import appends, drivers, erasure, imports, lifecycle, races, reads, states, values, versions
from broken_stores.sound import BROKEN, Filed, Paged, Plain, Provider, Six

SOUND = (Paged, Plain, Provider, Filed, Six)

__all__ = [
    "BROKEN",
    "SOUND",
    "appends",
    "drivers",
    "erasure",
    "imports",
    "lifecycle",
    "races",
    "reads",
    "states",
    "values",
    "versions",
]
