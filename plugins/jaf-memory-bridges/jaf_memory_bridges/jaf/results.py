"""jaf-py's own results and errors, made from ours."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from jaf.memory import types as jaf

from jaf_memory_core import (
    Failure,
    MemoryConnectionError,
    MemoryError,
    MemoryNotFoundError,
    Result,
    WriteResult,
)


def failure(error: MemoryError, operation: str) -> Any:
    """jaf-py's `Failure` with an error of its own; ours is its `cause`."""
    given = {"message": str(error), "provider": error.provider or "jaf-memory", "cause": error}
    if isinstance(error, MemoryConnectionError):
        return jaf.Failure(jaf.MemoryConnectionError(**given))
    if isinstance(error, MemoryNotFoundError):
        return jaf.Failure(jaf.MemoryNotFoundError(**given, conversation_id=error.conversation_id))
    return jaf.Failure(jaf.MemoryStorageError(**given, operation=operation))


async def answered(operation: str, work: Awaitable[Any]) -> Any:
    """jaf-py's `Success` with what the work gives, or its `Failure` for an error of ours."""
    try:
        return jaf.Success(await work)
    except MemoryError as error:
        return failure(error, operation)


def written(result: Result) -> WriteResult:
    """What a write did.

    Raises:
        MemoryError: it was refused.
    """
    if isinstance(result, Failure):
        raise result.error
    return result.data
