"""The Lua scripts, and the commands that run them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple, cast

import hiredis

Part = bytes | str | int | float


def pack(parts: tuple[Part, ...]) -> bytes:
    """A command as bytes."""
    packed: bytes = hiredis.pack_command(cast("Any", parts))  # its stub knows tuples of one part only
    return packed


class Script(NamedTuple):
    """A script, with what it begins with."""

    name: str
    source: bytes
    sha: str


class Command(NamedTuple):
    """One command.

    Attributes:
        slot_key: the key that decides which node of a Cluster gets it.
        parts: what is sent, `EVALSHA` for a script.
        script: the script, to be sent whole where the server does not know it.
    """

    slot_key: bytes
    parts: tuple[Part, ...]
    script: Script | None = None

    def packed(self) -> bytes:
        """The bytes to send."""
        return pack(self.parts)

    def whole(self) -> Command:
        """The same with the script's source: after a restart or a failover the server has lost its scripts."""
        if self.script is None:
            return self
        return self._replace(parts=("EVAL", self.script.source, *self.parts[2:]), script=None)


def command(name: str, key: bytes, *parts: Part) -> Command:
    """A plain command on one key."""
    return Command(key, (name, key, *parts))


def call(script: Script, keys: Sequence[bytes], *arguments: Part) -> Command:
    """A script on its keys, all in one slot where there are slots."""
    return Command(keys[0], ("EVALSHA", script.sha, len(keys), *keys, *arguments), script)


def _load(*names: str) -> Script:
    folder = resources.files(__package__) / "scripts"
    source = b"\n".join((folder / f"{name}.lua").read_bytes() for name in names)
    # Redis names scripts by their SHA-1; it protects nothing here.
    return Script(names[-1], source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


WRITE = _load("opening", "write")
PUT = _load("opening", "put")
AMEND = _load("opening", "amend")
TRUNCATE = _load("opening", "truncate")
REMOVE = _load("opening", "remove")
SWEEP = _load("opening", "sweep")
PAGE = _load("opening", "page")
FORK = _load("opening", "fork")
REVISE = _load("opening", "revise")
DROP = _load("drop")
FORGET = _load("forget")
