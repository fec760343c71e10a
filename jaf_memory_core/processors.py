"""`Processor`: a step that everything passes on its way into the store, and back out of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.messages import Message


class Processor:
    """Redaction, encryption, tagging: override what is needed; the defaults change nothing.

    A processor must be deterministic: a retried append sends the same message again, and only an equal one is known to
    be the same. It must keep `message_id`. An exception stops the operation before anything is stored.
    """

    def outgoing(self, message: Message) -> Message:
        """The message as it is to be stored."""
        return message

    def incoming(self, message: Message) -> Message:
        """The message as the application is to see it."""
        return message

    def outgoing_metadata(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """The metadata as it is to be stored; a query's `metadata` filter comes through here too."""
        return metadata

    def incoming_metadata(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """The metadata as the application is to see it."""
        return metadata


class Chain:
    """Processors in their order on the way in, and in the reverse order on the way out."""

    def __init__(self, processors: Iterable[Processor]) -> None:
        self._processors = tuple(processors)

    def __bool__(self) -> bool:
        return bool(self._processors)

    def outgoing(self, message: Message) -> Message:
        """The message as it is to be stored."""
        after = message
        for processor in self._processors:
            after = processor.outgoing(after)
        if after.message_id != message.message_id:
            raise MemoryConfigurationError("a processor changed a message_id; it must keep it, retries depend on it")
        return after

    def incoming(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages as the application is to see them."""
        for processor in reversed(self._processors):
            messages = tuple(map(processor.incoming, messages))
        return messages

    def outgoing_metadata(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """The metadata as it is to be stored."""
        for processor in self._processors:
            metadata = processor.outgoing_metadata(metadata)
        return metadata

    def incoming_metadata(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """The metadata as the application is to see it."""
        for processor in reversed(self._processors):
            metadata = processor.incoming_metadata(metadata)
        return metadata
