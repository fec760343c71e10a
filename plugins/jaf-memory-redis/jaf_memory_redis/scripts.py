"""The Lua scripts, and the commands that run them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple, cast

import hiredis
import msgspec

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
        name = "EVAL_RO" if self.parts[0] == "EVALSHA_RO" else "EVAL"
        return self._replace(parts=(name, self.script.source, *self.parts[2:]), script=None)

    def only_reading(self) -> Command:
        """The same script as one that only reads (Redis 7.0): a server whose writes are paused goes on with those."""
        return self._replace(parts=("EVALSHA_RO", *self.parts[1:]))


def command(name: str, key: bytes, *parts: Part) -> Command:
    """A plain command on one key."""
    return Command(key, (name, key, *parts))


def call(script: Script, keys: Sequence[bytes], *arguments: Part) -> Command:
    """A script on its keys, all in one slot where there are slots."""
    return Command(keys[0], ("EVALSHA", script.sha, len(keys), *keys, *arguments), script)


def asked(script: Script, keys: Sequence[bytes], request: Mapping[str, Any], messages: Sequence[Part] = ()) -> Command:
    """A script over one conversation, with what `header.lua` takes.

    Args:
        script: which.
        keys: that conversation's, and those of the indexes where it may touch them.
        request: what is asked; members that are `None` are left out.
        messages: the ids of messages, and then as many bodies.
    """
    sent = _encoder.encode({name: value for name, value in request.items() if value is not None})
    return Command(keys[0], ("EVALSHA", script.sha, len(keys), *keys, sent, *messages), script)


_encoder = msgspec.msgpack.Encoder()


class Packed(NamedTuple):
    """Plain commands on the keys of one conversation, as bytes."""

    slot_key: bytes
    data: bytes
    replies: int

    def commands(self) -> list[Command]:
        """The same, one by one: on a Cluster each may have to be sent elsewhere."""
        reader = hiredis.Reader()
        reader.feed(self.data)
        return [Command(self.slot_key, tuple(reader.gets())) for _ in range(self.replies)]


class Form:
    """Commands on the keys of one conversation, packed but for the name of it, which is as long for every one.

    Args:
        length: how long the names are, as `Keys.start` gives them.
        commands: makes the commands for one of them.
    """

    def __init__(self, length: int, commands: Callable[[bytes], Sequence[Command]]) -> None:
        # NULs stand nowhere else in these commands, so that splitting finds the gaps and nothing but them.
        blank = b"\0" * length
        made = commands(blank)
        self._pieces = b"".join([one.packed() for one in made]).split(blank)
        self._count = len(made)

    def of(self, start: bytes) -> Packed:
        """The commands for the conversation whose keys begin so."""
        return Packed(start, start.join(self._pieces), self._count)


_CONSTANTS = re.compile(rb"^local ([A-Z]+(?:, [A-Z]+)*) = ((?:'[^'\n]*'|\d+)(?:, \d+)*)(?: --.*)?\n", re.MULTILINE)


def _in_place(source: bytes) -> bytes:
    """A script with its constants where they are used: what a function takes from around it costs Lua in every call."""
    for names, values in _CONSTANTS.findall(source):
        for name, value in zip(names.split(b", "), values.split(b", "), strict=True):
            source = re.sub(rb"\b%b\b" % name, value.replace(b"\\", rb"\\"), source)
    return re.sub(rb"^local (?:'|\d).*\n", b"", source, flags=re.MULTILINE)


def _load(*names: str) -> Script:
    folder = resources.files(__package__) / "scripts"
    source = _in_place(b"\n".join((folder / f"{name}.lua").read_bytes() for name in names))
    # Redis names scripts by their SHA-1; it protects nothing here.
    return Script(names[-1], source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


WRITE = _load("header", "append", "prelude", "write")
MAKE = _load("make")
PUT = _load("header", "prelude", "put")
AMEND = _load("header", "prelude", "amend")
TRUNCATE = _load("header", "prelude", "truncate")
THIN = _load("header", "prelude", "thin")
REMOVE = _load("header", "prelude", "remove")
SWEEP = _load("header", "prelude", "sweep")
PAGE = _load("header", "prelude", "page")
FORK = _load("header", "prelude", "copy", "fork")
REVISE = _load("header", "prelude", "revise")
DROP = _load("drop")
ANNOUNCE = _load("announce")
PROBE = _load("probe")
STAGE = _load("header", "prelude", "copy", "stage")
FORGET = _load("forget")
