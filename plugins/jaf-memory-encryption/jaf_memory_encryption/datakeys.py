"""`DataKeys`: a data key for each user, wrapped by the ring; rotation, and forgetting."""

from __future__ import annotations

import json
import os
import threading
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from jaf_memory_core.validation import checked_id
from jaf_memory_encryption.keyfile import KeyFile, WrappedKey
from jaf_memory_encryption.masterkeys import KeyRing

NOBODY = ""
"""The user of conversations that belong to nobody; no id is empty."""

MOST = 10_000
"""Data keys that are held in memory."""


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
        self._lock = threading.RLock()
        self._of_user: dict[str, DataKey] = {}
        self._by_id: dict[str, DataKey] = {}
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
            return self._of_user.get(name) or self._held(self.file.of_user(name) or self._new(name))

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

    def _look_for_changes(self) -> None:
        """Hold nothing that another process has forgotten: what is sealed by it could never be opened."""
        version = self.file.version()
        if version != self._version or len(self._by_id) > MOST:
            self._of_user.clear()
            self._by_id.clear()
            self._version = version

    def _new(self, user: str) -> WrappedKey:
        key_id = os.urandom(8).hex()
        ring, wrapped = self.ring.wrap(AESSIV.generate_key(512), _about(key_id, user))
        return self.file.add(WrappedKey(key_id, user, ring, wrapped))

    def _held(self, kept: WrappedKey) -> DataKey:
        key = self.ring.unwrap(kept.ring, kept.wrapped, _about(kept.id, kept.user))
        held = DataKey(kept.id, kept.user, AESSIV(key))
        self._of_user[kept.user] = self._by_id[kept.id] = held
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
            return self.file.forget(user)


def _about(key_id: str, user: str) -> bytes:
    """What a wrapped key is bound to: it opens for no other user."""
    return json.dumps(["jaf-memory data key 1", key_id, user]).encode()
