"""`Success` and `Failure`."""

import pytest

from jaf_memory_core import Failure, MemoryConflictError, Success, WriteResult


def test_unwrapping_gives_what_was_done():
    """`Success.unwrap()` is its data."""
    done = WriteResult(version=1, message_count=2, added=2)
    assert Success(done).unwrap() is done


def test_unwrapping_raises_what_was_refused():
    """`Failure.unwrap()` raises its very error, each time."""
    error = MemoryConflictError("no", expected_version=1, actual_version=2)
    for _ in range(2):
        with pytest.raises(MemoryConflictError) as caught:
            Failure(error).unwrap()
        assert caught.value is error
