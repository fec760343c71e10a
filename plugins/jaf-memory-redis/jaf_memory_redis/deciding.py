"""What is asked of the scripts, and what their answers mean."""

from __future__ import annotations

from typing import Any

from jaf_memory_core import codec, rules
from jaf_memory_core.errors import MemoryConflictError, MemoryNotFoundError
from jaf_memory_core.records import Amend, Stamp, Write
from jaf_memory_redis import headers
from jaf_memory_redis.indexes import older_data
from jaf_memory_redis.keys import moment
from jaf_memory_redis.reading import LARGEST


def request_of(write: Write) -> dict[str, Any]:
    """What `write.lua` takes of a store or an append."""
    origin = write.origin
    ttl = origin.ttl if origin else write.ttl
    return {
        "id": write.conversation_id,
        "replace": write.replace or None,
        "create": write.create or None,
        "user": write.user_id,
        "scope": write.scope,
        "expected": None if write.expected_version is None else min(write.expected_version, LARGEST),
        "cap": None if write.max_messages is None else min(write.max_messages, LARGEST),
        "dropped": write.dropped > 0 or None,
        "incarnation": write.incarnation if write.create else None,
        "ttl": repr(float(ttl)) if ttl is not None and write.create else None,
        "created": moment(origin.created_at) if origin and origin.created_at else None,
        "expires": moment(origin.expires_at) if origin and origin.expires_at else None,
        "metadata": headers.pairs(write.metadata) or None,
    }


def decided(conversation_id: str, reply: list[Any]) -> list[Any]:
    """Raise what a script decided; a status that its caller handles comes back.

    Raises:
        MemoryNotFoundError: there is no such conversation (for this user).
        MemoryConflictError: it is somebody else's, or jaf-py's own provider has it.
        MemoryStorageError: a newer version wrote it.
    """
    status = reply[0]
    if status == b"missing":
        raise MemoryNotFoundError(conversation_id)
    if status == b"foreign":
        raise rules.other_owner(conversation_id)
    if status == b"legacy":
        raise older_data(conversation_id)
    if status == b"format":
        headers.check_format(reply[1])
    return reply


def compare(write: Write, differing: list[Any]) -> None:
    """Refuse other contents under held ids; the same content may have other bytes.

    Args:
        write: the request.
        differing: index in the batch and stored body, in turn.

    Raises:
        MemoryConflictError: one of the contents differs.
    """
    for index, body in zip(differing[::2], differing[1::2], strict=True):
        if not codec.same_body(body, write.bodies[index]):
            raise rules.other_content(write.conversation_id, write.messages[index].message_id)


def version_conflict(write: Write, actual: int) -> MemoryConflictError:
    """The conflict of versions."""
    return MemoryConflictError(
        f"conversation {write.conversation_id!r} is at version {actual}, not at {write.expected_version}; "
        "read it again, and decide anew",
        expected_version=write.expected_version,
        actual_version=actual,
    )


def state_conflict(amend: Amend, actual: int) -> MemoryConflictError:
    """The conflict of states."""
    return MemoryConflictError(
        f"conversation {amend.conversation_id!r} has changed meanwhile; read it again, and decide anew",
        expected_version=amend.expected.version if amend.expected else None,
        actual_version=actual,
    )


def stamp_text(stamp: Stamp | None) -> str | None:
    """A stamp as the scripts compare it."""
    return None if stamp is None else f"{stamp.incarnation}:{stamp.version}"
