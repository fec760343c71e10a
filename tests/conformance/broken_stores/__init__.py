"""Stores that are broken on purpose, one fault each, and the sound ones that they are made of."""

from __future__ import annotations

from broken_stores import appends, erasure, imports, lifecycle, reads, values, versions
from broken_stores.sound import BROKEN, Filed, Plain, Provider, Six

SOUND = (Plain, Provider, Filed, Six)

__all__ = ["BROKEN", "SOUND", "appends", "erasure", "imports", "lifecycle", "reads", "values", "versions"]
