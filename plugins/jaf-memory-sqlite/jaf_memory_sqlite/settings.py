"""Settings of the SQLite provider."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from jaf_memory_core.settings import ProviderConfig

MEMORY = ":memory:"
"""The path of a database that is in no file."""

URL = re.compile(r"\s*(?:[a-z][a-z0-9+.-]+:/|file:|sqlite:|jdbc:|\S*://|[^\s/@:]+:[^\s/@]+@)", re.IGNORECASE)
"""What looks like a URL, also after somebody took it for a path; a drive (`C:/`) has one letter."""

GONE_WITH_PROCESS = f"{MEMORY} is in no file: conversations are gone when the provider is closed"
LAST_MAY_BE_LOST = "synchronous=NORMAL: a power failure can lose the last commits (a crash of the process cannot)"


class SqliteConfig(ProviderConfig):
    """Settings of the SQLite provider.

    Example:
        config = SqliteConfig(path="chat.db", search="index", operation_timeout=5.0)
    """

    env_prefix = "JAF_SQLITE_"

    path: str = Field(default="jaf-memory.db", min_length=1)
    """The database's file; `~` is the home folder, `:memory:` is no file at all. Its folder must be there."""

    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    """FULL: a commit is on the disk when it is acknowledged. NORMAL: a power failure can lose the last ones."""

    search: Literal["scan", "index"] = "scan"
    """index: searches go by a full-text index (FTS5), which is made where there is none, and kept at each write."""

    @field_validator("path", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    @field_validator("path")
    @classmethod
    def _plain(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("a path holds no NUL")
        if URL.match(value):
            raise ValueError(
                "give a plain path, not a URL: conversations.db or /var/lib/app/chat.db, "
                "without file: or sqlite:/// before it, and without a ? and what follows it"
            )
        return value

    @field_validator("synchronous", mode="before")
    @classmethod
    def _in_capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @property
    def in_memory(self) -> bool:
        """Whether there is no file."""
        return self.path == MEMORY

    def notes(self) -> Sequence[str]:
        """What weakens the promise of durability."""
        if self.in_memory:
            return (GONE_WITH_PROCESS,)
        return (LAST_MAY_BE_LOST,) if self.synchronous != "FULL" else ()


def persistence(config: SqliteConfig) -> str:
    """How durable a provider with that configuration is, in one sentence."""
    notes = config.notes()
    return notes[0] if notes else "Kept in one SQLite file (WAL, synchronous=FULL): on the disk when acknowledged."
