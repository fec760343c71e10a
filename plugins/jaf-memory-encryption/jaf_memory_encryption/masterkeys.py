"""The key ring: keys with ids, of which the first wraps the users' data keys, and all open what they wrapped."""

from __future__ import annotations

import base64
import binascii
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from jaf_memory_core.errors import MemoryConfigurationError

KEY_BYTES = 32
DATA_KEY_BYTES = 64
ID = re.compile(r"[A-Za-z0-9_.-]{1,40}")


class KeyService(Protocol):
    """A key that somebody else keeps (a KMS). Called once for each user and process, in a thread of its own."""

    def wrap(self, data_key: bytes, about: bytes) -> bytes:
        """The data key, readable only with this key, and only for the same `about`."""

    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        """The data key again; any exception if that cannot be."""


class _LocalKey:
    """A key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        # AES-256-SIV takes two keys of 32 bytes.
        self._siv = AESSIV(HKDF(SHA512(), 64, None, b"jaf-memory key ring 1").derive(key))

    def wrap(self, data_key: bytes, about: bytes) -> bytes:
        return self._siv.encrypt(data_key, [about])

    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        return self._siv.decrypt(wrapped, [about])


class _InTime:
    """A key service that is given so many seconds, and is not asked again while it has answered nobody in that time."""

    def __init__(self, service: KeyService, timeout: float) -> None:
        self._service, self._timeout = service, timeout
        self._lock = threading.Lock()
        self._late: set[Future[bytes]] = set()
        self._again = 0.0

    def wrap(self, data_key: bytes, about: bytes) -> bytes:
        return self._answer(self._service.wrap, data_key, about)

    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        return self._answer(self._service.unwrap, wrapped, about)

    def _answer(self, ask: Callable[[bytes, bytes], bytes], key: bytes, about: bytes) -> bytes:
        with self._lock:
            if self._late and time.monotonic() < self._again:
                raise TimeoutError
            # Two that come at once ask both; after that one at a time finds out whether it answers again.
            self._again = time.monotonic() + self._timeout
        answer: Future[bytes] = Future()

        def run() -> None:
            try:
                answer.set_result(ask(key, about))
            except Exception as error:  # noqa: BLE001  (a service's errors are of any kind)
                answer.set_exception(error)
            except BaseException as error:  # noqa: BLE001  (here it ends a thread; there it would end the program)
                answer.set_exception(RuntimeError(type(error).__name__))

        # Of its own, and no part of a pool that Python waits for when it ends.
        threading.Thread(target=run, name="jaf-memory key service", daemon=True).start()
        try:
            return answer.result(self._timeout)
        finally:
            self._note(answer)

    def _note(self, answer: Future[bytes]) -> None:
        with self._lock:
            if answer.done():
                # It answers again, though what hangs may hang for ever.
                self._late.clear()
                return
            self._late.add(answer)
            self._again = time.monotonic() + self._timeout
        answer.add_done_callback(self._back)

    def _back(self, answer: Future[bytes]) -> None:
        with self._lock:
            self._late.discard(answer)


class KeyRing:
    """Keys by their ids.

    Args:
        keys: id → 32 bytes, or a `KeyService`. The first one wraps; the others only open.
        timeout: seconds in which a key service has to answer.

    Raises:
        MemoryConfigurationError: there is no key, or one is not as it has to be; no text shows any of it.
    """

    def __init__(self, keys: Mapping[str, bytes | KeyService], *, timeout: float = 5.0) -> None:
        if not keys:
            raise MemoryConfigurationError("the key ring is empty: give at least one id:key")
        for name in keys:
            if not ID.fullmatch(name):
                raise MemoryConfigurationError("a key's id has 1 to 40 letters, digits, dots, dashes or underscores")
        self._keys = {name: self._checked(name, key, timeout) for name, key in keys.items()}
        self.waits = any(not isinstance(key, bytes) for key in keys.values())
        self.current = next(iter(self._keys))

    def __repr__(self) -> str:
        return f"<KeyRing {', '.join(self._keys)}>"

    @staticmethod
    def _checked(name: str, key: bytes | KeyService, timeout: float) -> KeyService:
        if not isinstance(key, bytes):
            return _InTime(key, timeout)
        if len(key) != KEY_BYTES:
            raise MemoryConfigurationError(f"the key {name!r} has {len(key)} bytes, and needs {KEY_BYTES}")
        return _LocalKey(key)

    @classmethod
    def read(cls, entries: Iterable[str]) -> KeyRing:
        """A ring of texts `id:key`, each key in base64; empty ones, and those that begin with `#`, do not count."""
        keys: dict[str, bytes | KeyService] = {}
        for entry in (one.strip() for one in entries):
            if not entry or entry.startswith("#"):
                continue
            name, colon, text = entry.partition(":")
            if not colon or not ID.fullmatch(name):
                raise MemoryConfigurationError("each key of the ring is written id:key, the key in base64")
            if name in keys:
                raise MemoryConfigurationError(f"the key ring has two keys of the id {name!r}")
            try:
                keys[name] = base64.b64decode(text.strip(), validate=True)
            except (binascii.Error, ValueError):
                raise MemoryConfigurationError(f"the key {name!r} of the ring is not base64") from None
        return cls(keys)

    def wrap(self, data_key: bytes, about: bytes) -> tuple[str, bytes]:
        """The id of the first key, and the data key wrapped by it.

        Raises:
            LookupError: a key service has refused, or was not there.
        """
        try:
            return self.current, self._keys[self.current].wrap(data_key, about)
        except Exception as error:  # noqa: BLE001  (a service's errors are of any kind; their texts are not ours to tell)
            raise LookupError(f"the key {self.current!r} of the ring cannot wrap: {type(error).__name__}") from None

    def unwrap(self, name: str, wrapped: bytes, about: bytes) -> bytes:
        """A data key.

        Raises:
            LookupError: the ring has no key of that id, it is another key than the one that wrapped, or a key service
                has refused, or was not there.
        """
        key = self._keys.get(name)
        if key is None:
            raise LookupError(f"the key ring has no key {name!r}")
        try:
            data_key: object = key.unwrap(wrapped, about)
        except InvalidTag:
            raise LookupError(f"the key {name!r} of the ring is not the one that wrapped this data key") from None
        except Exception as error:  # noqa: BLE001  (as above)
            raise LookupError(f"the key {name!r} of the ring cannot unwrap: {type(error).__name__}") from None
        if not isinstance(data_key, bytes) or len(data_key) != DATA_KEY_BYTES:
            raise LookupError(f"what the key {name!r} of the ring has unwrapped is no data key")
        return data_key
