"""Options that several commands share, and those before a command; how their texts are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from jaf_memory_cli.errors import USAGE, Stop

Json = Annotated[bool, typer.Option("--json", metavar="", help="Write JSON, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do not ask.")]
User = Annotated[str | None, typer.Option("--user", metavar="USER", help="Only this user's conversations.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="A conversation's id.", show_default=False)]

KeepGoing = Annotated[
    bool, typer.Option("--keep-going", metavar="", help="Pass over what is damaged, and tell of it in the end.")
]

_AGO = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Choice(NamedTuple):
    """What the options before the command say; looked into once a command needs a store."""

    kind: str | None
    settings: Sequence[str]
    file: str | None


def local(name: str) -> Path:
    """A file that somebody named.

    Raises:
        Stop: it looks like a URL, and is not repeated, because a URL may hold a password.
    """
    if "://" in name:
        raise Stop("what is given for a file looks like a URL; give the path of a file", USAGE)
    return Path(name)


def moment(text: str | None, option: str) -> datetime | None:
    """A time that somebody typed: `2024-05-15`, `2024-05-15T15:00`, with or without an offset, or `7d` for 7 days ago.

    Args:
        text: what was typed, if anything; without an offset it is local time.
        option: its name, for the error.

    Raises:
        Stop: it is none of these.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text.strip())).astimezone()
    except (ValueError, OverflowError):
        hint = "write 2024-05-15, 2024-05-15T15:00, or 90m, 24h, 7d, 2w for so long ago"
        from jaf_memory_core.settings.errors import quoted  # late: help and completion make do without the core

        raise Stop(f"{option}: {quoted(text)} is no time; {hint}", USAGE) from None
