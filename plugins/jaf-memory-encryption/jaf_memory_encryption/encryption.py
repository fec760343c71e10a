"""`Encryption`: the processor that seals messages and metadata by AES-SIV, each bound to where it stands."""

from __future__ import annotations

import asyncio
import binascii
import copy
import re
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, ClassVar

from cryptography.exceptions import InvalidTag

from jaf_memory_core import codec
from jaf_memory_core.errors import MemoryInvalidInputError, MemoryStorageError
from jaf_memory_core.messages import Message
from jaf_memory_core.processors import Context, Processor
from jaf_memory_encryption.datakeys import NOBODY, AtOnce, DataKey, DataKeys

MARK = "jaf1:"
"""What each sealed text begins with: the mark and the format's number, then the data key's id, then what is sealed."""

KEY_ID = re.compile("[0-9a-f]{16}")

QUERIES = ("find_conversations", "iter_conversations", "search_messages")


class Encryption(Processor):
    """Seals what is stored: all of a message but its id and role, and the values of metadata.

    AES-SIV gives equal texts for equal messages in one place, so that a repeated append is recognised; and what is
    sealed opens only in the conversation, for the owner and under the id that it was sealed for.

    Args:
        keys: the users' data keys.
        plain_metadata: metadata keys whose values are left as they are; `*` for all.
        accept_plain: whether what is not sealed may be read: while older conversations are still to be sealed.
    """

    needs_owner: ClassVar[bool] = True

    def __init__(self, keys: DataKeys, *, plain_metadata: Iterable[str] = (), accept_plain: bool = False) -> None:
        self.keys = keys
        self._at_once: DataKeys | AtOnce = keys
        self._plain = frozenset(plain_metadata)
        self._accept_plain = accept_plain

    async def prepare(self, context: Context, *, writing: bool) -> None:
        """Let a key service unwrap the user's data key while the event loop goes on."""
        if self.keys.ring.waits:
            await asyncio.to_thread(self.keys.fetch, context.user_id, make=writing)

    def within(self, context: Context) -> Encryption:
        """The same with keys that are looked for once for all messages of a call."""
        one = copy.copy(self)
        one._at_once = AtOnce(self.keys)  # noqa: SLF001  (our own copy)
        return one

    def outgoing(self, message: Message, context: Context) -> Message:
        """The message with everything but its id and role sealed."""
        content = self._sealed(codec.encode(message), context, ("message", message.message_id))
        return Message(role=message.role, content=content, message_id=message.message_id)

    def incoming(self, message: Message, context: Context) -> Message:
        """The message as it was given."""
        if not isinstance(message.content, str) or not _is_sealed(message.content):
            self._check_plain(context)
            return message
        body = self._opened(message.content, context, ("message", message.message_id))
        return codec.decode_message(body, context.conversation_id)

    def outgoing_metadata(self, metadata: dict[str, Any], context: Context) -> dict[str, Any]:
        """The metadata with sealed values; a filter by a sealed one is refused."""
        if context.operation in QUERIES:
            self._refuse_filters(metadata)
            return metadata
        return {
            # What only looks sealed is sealed all the same, so that it comes back as it was.
            key: value
            if self._is_plain(key) and not _is_sealed(value)
            else self._sealed(codec.encode({"value": value}), context, ("metadata", key))
            for key, value in metadata.items()
        }

    def incoming_metadata(self, metadata: dict[str, Any], context: Context) -> dict[str, Any]:
        """The metadata as it was given."""
        return {key: self._value(key, value, context) for key, value in metadata.items()}

    def _value(self, key: str, value: Any, context: Context) -> Any:
        if self._is_plain(key) and not _is_sealed(value):
            return value
        if not _is_sealed(value):
            self._check_plain(context)
            return value
        body = self._opened(value, context, ("metadata", key))
        return codec.decode_object(body, context.conversation_id)["value"]

    def _is_plain(self, key: str) -> bool:
        return key in self._plain or "*" in self._plain

    def _refuse_filters(self, metadata: dict[str, Any]) -> None:
        for key in metadata:
            if not self._is_plain(key):
                raise MemoryInvalidInputError(
                    f"conversations cannot be found by the metadata key {key!r}: its values are sealed, each for its "
                    "own conversation; list the key in JAF_ENCRYPTION_PLAIN_METADATA to filter by it"
                )

    def _check_plain(self, context: Context) -> None:
        if not self._accept_plain:
            raise _unreadable(
                context,
                "is not sealed: it was stored without encryption (JAF_ENCRYPTION_ACCEPT_PLAIN reads it), or put there "
                "by somebody else",
            )

    def _sealed(self, body: bytes, context: Context, place: tuple[str, str]) -> str:
        try:
            key = self._at_once.of_user(context.user_id)
        except LookupError as error:
            raise _unreadable(context, f"cannot be sealed: {error}") from None
        sealed = key.siv.encrypt(body, _bound(key, context, place))
        return f"{MARK}{key.id}:{binascii.b2a_base64(sealed, newline=False).decode()}"

    def _opened(self, text: str, context: Context, place: tuple[str, str]) -> bytes:
        _, key_id, sealed = text.split(":", 2)
        try:
            # An id of another form can be nobody's, and might be none that a file can be asked for.
            key = self._at_once.by_id(key_id) if KEY_ID.fullmatch(key_id) else None
        except LookupError as error:
            raise _unreadable(context, f"cannot be opened: {error}") from None
        if key is None:
            raise _unreadable(context, "cannot be opened: its data key is gone, or is in another file of data keys")
        # What was sealed for nobody may have got an owner since then; what was sealed for somebody is nobody else's.
        if key.user not in (NOBODY, context.user_id):
            raise _unreadable(context, "was sealed for another owner")
        try:
            return key.siv.decrypt(binascii.a2b_base64(sealed, strict_mode=True), _bound(key, context, place))
        except (InvalidTag, ValueError):  # `a2b_base64` has more than one kind of the latter
            raise _unreadable(context, "was altered, or was sealed for another place") from None


def _is_sealed(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(MARK) and value.count(":") == MARK.count(":") + 1


def _bound(key: DataKey, context: Context, place: tuple[str, str]) -> list[bytes]:
    """What a sealed text is bound to: data key (and so owner), conversation, and message or key of metadata."""
    # As `json.dumps` writes the list, at a tenth of its price: a load asks for it once a message.
    texts = (quoted(context.conversation_id or ""), quoted(place[0]), quoted(place[1]))
    return [f'["jaf-memory sealed 1", "{key.id}", {", ".join(texts)}]'.encode()]


def _unreadable(context: Context, reason: str) -> MemoryStorageError:
    what = "metadata" if context.message_id is None else f"message {context.message_id!r}"
    return MemoryStorageError(
        f"{what} of conversation {context.conversation_id!r} {reason}",
        operation=context.operation,
        conversation_id=context.conversation_id,
    )
