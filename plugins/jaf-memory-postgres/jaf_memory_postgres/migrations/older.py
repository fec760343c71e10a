"""Layouts that are not ours: in which older one a table stands, if in any."""

from __future__ import annotations

from collections.abc import Mapping

JAF_PY = {"conversation_id", "user_id", "messages", "metadata"}
DOCUMENTED = JAF_PY | {"id", "created_at", "updated_at"}

_TEXT = ("character varying", "text")
KINDS: Mapping[str, tuple[str, ...]] = {
    "conversation_id": _TEXT,
    "user_id": _TEXT,
    "messages": ("jsonb",),
    "metadata": ("jsonb",),
    "created_at": ("timestamp",),
    "updated_at": ("timestamp",),
}
"""Types of which the columns have to be: what is bound to them later is of these."""


def is_older(columns: Mapping[str, str]) -> str | None:
    """Which older layout a table's columns are of: `"documented"`, `"jaf-py"`, or `None` for neither.

    Args:
        columns: name → type.
    """
    if not all(columns[name].startswith(kinds) for name, kinds in KINDS.items() if name in columns):
        return None
    return {frozenset(DOCUMENTED): "documented", frozenset(JAF_PY): "jaf-py"}.get(frozenset(columns))
