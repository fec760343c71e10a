"""Layouts that are not ours: in which older one a table stands, if in any."""

from __future__ import annotations

from collections.abc import Mapping

JAF_PY = {"conversation_id", "user_id", "messages", "metadata"}
DOCUMENTED = JAF_PY | {"id", "created_at", "updated_at"}


def is_older(columns: Mapping[str, str]) -> str | None:
    """Which older layout a table's columns are of: `"documented"`, `"jaf-py"`, or `None` for neither.

    Args:
        columns: name → type.
    """
    if not columns.items() >= {"messages": "jsonb", "metadata": "jsonb"}.items():
        return None
    if set(columns) == DOCUMENTED and columns["conversation_id"].startswith(("character varying", "text")):
        return "documented"
    return "jaf-py" if set(columns) == JAF_PY else None
