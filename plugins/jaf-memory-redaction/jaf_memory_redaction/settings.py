"""Settings of the plugin `redaction`, and what is made of them."""

from __future__ import annotations

import json
import re
from typing import ClassVar

from pydantic import Field, SecretStr, field_validator

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.settings import Settings
from jaf_memory_redaction.kinds import KINDS, Kind
from jaf_memory_redaction.redaction import Redaction

NAME = re.compile(r"[a-z][a-z-]{0,30}")


class RedactionSettings(Settings):
    """What is looked for, and what stands in its place."""

    env_prefix: ClassVar[str] = "JAF_REDACTION_"

    kinds: tuple[str, ...] = ()
    """Which kinds are looked for, with commas; all of them when absent."""

    patterns: str | None = None
    """Kinds of your own: a JSON object of names (small letters and dashes) and regular expressions."""

    secret: SecretStr | None = None
    """Makes tokens that are the same for the same value, everywhere; 16 characters or more."""

    keep_metadata: tuple[str, ...] = ()
    """Metadata keys whose values are left as they are, with commas."""

    report_every: float = Field(default=60.0, ge=0)
    """Seconds between two lines in the log (INFO) that tell how much was found; 0 for none."""

    @field_validator("kinds", "keep_metadata", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("kinds")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = dict.fromkeys(kind.name for kind in KINDS)
        if set(value) - set(known):
            raise ValueError(f"allowed are {', '.join(known)}")
        return value


def own_kinds(text: str) -> tuple[Kind, ...]:
    """Kinds as a setting writes them.

    Raises:
        MemoryConfigurationError: it is no such JSON, or a pattern cannot be used; no text shows any of it but the name.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise MemoryConfigurationError(
            'JAF_REDACTION_PATTERNS must be a JSON object, such as {"badge": "B-[0-9]{6}"}, backslashes doubled'
        )
    taken = {kind.name for kind in KINDS}
    kinds = []
    for name, pattern in given.items():
        if not NAME.fullmatch(name) or name in taken:
            raise MemoryConfigurationError(
                "JAF_REDACTION_PATTERNS: a name has 1 to 31 small letters and dashes, and is none of our own kinds'"
            )
        try:
            compiled = re.compile(pattern)
        except (re.error, TypeError, OverflowError, RecursionError):
            raise MemoryConfigurationError(
                f"JAF_REDACTION_PATTERNS: the pattern {name!r} is no regular expression"
            ) from None
        if compiled.search(""):
            raise MemoryConfigurationError(f"JAF_REDACTION_PATTERNS: the pattern {name!r} finds an empty text")
        kinds.append(Kind(name, compiled))
    return tuple(kinds)


def from_settings(settings: RedactionSettings) -> Redaction:
    """The processor that settings describe."""
    own = () if settings.patterns is None else own_kinds(settings.patterns)
    return Redaction(
        (*own, *(kind for kind in KINDS if not settings.kinds or kind.name in settings.kinds)),
        secret=None if settings.secret is None else settings.secret.get_secret_value(),
        keep_metadata=settings.keep_metadata,
        report_every=settings.report_every,
    )
