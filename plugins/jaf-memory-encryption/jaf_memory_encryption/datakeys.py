"""`DataKeys`: a data key for each user, wrapped by the ring; rotation, and forgetting."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from jaf_memory_core.validation import checked_id
from jaf_memory_encryption.keyfile import KeyFile, WrappedKey
from jaf_memory_encryption.masterkeys import KeyRing

NOBODY = ""
"""The user of conversations that belong to nobody; no id is empty."""

MOST = 10_000
"""Data keys that are held in memory."""

PAUSE = 1.0
"""Seconds for which a key service is not asked again for what it has refused."""


class DataKey(NamedTuple):
    """A user's key, ready to be used."""

    id: str
    user: str
    siv: AESSIV


class DataKeys:
    """The data keys of all users.

    Args:
        ring: wraps them.
        file: keeps them.
    """

    def __init__(self, ring: KeyRing, file: KeyFile) -> None:
        self.ring, self.file = ring, file
        # For what is held alone: nobody may wait here for a key service that somebody else has asked.
        self._lock = threading.RLock()
        self._of_user: dict[str, DataKey] = {}
        self._by_id: dict[str, DataKey] = {}
        self._kept: dict[str, WrappedKey] = {}
        self._refused: dict[str, tuple[float, str]] = {}
        self._version: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"<DataKeys {self.ring!r} {self.file!r}>"

    def of_user(self, user: str | None) -> DataKey:
        """A user's key, which is made where there is none.

        Raises:
            LookupError: the ring cannot unwrap it.
        """
        name = user or NOBODY
        with self._lock:
            self._look_for_changes()
            held = self._of_user.get(name)
        return held or self._held(self.file.of_user(name) or self._new(name))

    def by_id(self, key_id: str) -> DataKey | None:
        """The key of an id; `None` if there is none, or no more.

        Raises:
            LookupError: the ring cannot unwrap it.
        """
        with self._lock:
            self._look_for_changes()
            held = self._by_id.get(key_id)
        if held is None:
            kept = self.file.by_id(key_id)
            held = None if kept is None else self._held(kept)
        return held

    def fetch(self, user: str | None, *, make: bool) -> None:
        """Hold what a conversation of a user needs, in a thread that may wait for a key service.

        What cannot be had is told by `of_user` and `by_id`, to whoever needs it.
        """
        for name in dict.fromkeys((user or NOBODY, NOBODY)):
            try:
                kept = self.file.of_user(name)
                if kept is not None:
                    self.by_id(kept.id)
                elif make and name == (user or NOBODY):
                    self.of_user(user)
            except LookupError as error:
                with self._lock:
                    if len(self._refused) > MOST:
                        self._refused.clear()
                    self._refused[name] = time.monotonic() + PAUSE, str(error)

    def _look_for_changes(self) -> None:
        """Hold nothing that another process has forgotten: what is sealed by it could never be opened."""
        version = self.file.version()
        if version != self._version or len(self._by_id) > MOST:
            # What has to be asked of somebody is asked again only where it is another one.
            same = self.file.those(self._kept) if self.ring.waits and len(self._by_id) <= MOST else []
            held = [self._by_id[kept.id] for kept in same if self._kept[kept.id] == kept]
            self._of_user = {one.user: one for one in held}
            self._by_id = {one.id: one for one in held}
            self._kept = {one.id: self._kept[one.id] for one in held}
            self._version = version

    def _check_refused(self, user: str) -> None:
        """Do not ask in the event loop what was refused just now, beside it."""
        until, reason = self._refused.get(user, (0.0, ""))
        if time.monotonic() < until:
            raise LookupError(reason)

    def _new(self, user: str) -> WrappedKey:
        self._check_refused(user)
        key_id = os.urandom(8).hex()
        ring, wrapped = self.ring.wrap(AESSIV.generate_key(512), _about(key_id, user))
        return self.file.add(WrappedKey(key_id, user, ring, wrapped))

    def _held(self, kept: WrappedKey) -> DataKey:
        self._check_refused(kept.user)
        key = self.ring.unwrap(kept.ring, kept.wrapped, _about(kept.id, kept.user))
        held = DataKey(kept.id, kept.user, AESSIV(key))
        with self._lock:
            self._look_for_changes()
            # Forgotten while it was unwrapped: good for what was read before, and not to be held.
            if self.file.by_id(kept.id) == kept:
                self._of_user[kept.user] = self._by_id[kept.id] = held
                self._kept[kept.id] = kept
        return held

    def rotate(self) -> int:
        """Wrap all data keys by the ring's first key; how many were wrapped anew. No message is touched.

        Any number of processes may read and write meanwhile, whose rings hold both keys. What was interrupted goes on
        when it is run again.

        Raises:
            LookupError: the ring lacks a key.
        """
        rotated = 0
        for kept in self.file.others(self.ring.current):
            about = _about(kept.id, kept.user)
            ring, wrapped = self.ring.wrap(self.ring.unwrap(kept.ring, kept.wrapped, about), about)
            rotated += self.file.replace(kept, kept._replace(ring=ring, wrapped=wrapped))
        return rotated

    def forget(self, user: str) -> bool:
        """Destroy a user's key: what was sealed by it can never be read again. Whether there was one.

        Raises:
            MemoryInvalidInputError: this is no user; conversations of nobody share a key, which is never destroyed.
        """
        checked_id(user, "user_id")
        with self._lock:
            held = self._of_user.pop(user, None)
            if held is not None:
                self._by_id.pop(held.id, None)
                self._kept.pop(held.id, None)
            return self.file.forget(user)


class AtOnce:
    """Data keys as they stand at one moment: each is looked for once."""

    def __init__(self, keys: DataKeys) -> None:
        self._keys = keys
        self._of_user: dict[str | None, DataKey] = {}
        self._by_id: dict[str, DataKey | None] = {}

    def of_user(self, user: str | None) -> DataKey:
        """A user's key."""
        held = self._of_user.get(user)
        if held is None:
            held = self._of_user[user] = self._keys.of_user(user)
        return held

    def by_id(self, key_id: str) -> DataKey | None:
        """The key of an id."""
        if key_id not in self._by_id:
            self._by_id[key_id] = self._keys.by_id(key_id)
        return self._by_id[key_id]


def _about(key_id: str, user: str) -> bytes:
    """What a wrapped key is bound to: it opens for no other user."""
    return json.dumps(["jaf-memory data key 1", key_id, user]).encode()
