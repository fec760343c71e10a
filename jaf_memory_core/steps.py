"""Operations in steps, each of which stands once it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jaf_memory_core import deadline
from jaf_memory_core.errors import MemoryError

if TYPE_CHECKING:
    from jaf_memory_core.backend import Backend


@contextmanager
def in_steps(backend: Backend, operation: str, done: Sized) -> Iterator[None]:
    """Do something in steps: what fails behind the first of them is not "not applied".

    Args:
        backend: whose errors they are.
        operation: the provider's method.
        done: what was done so far; empty as long as nothing was.
    """
    failures: tuple[type[Exception], ...] = (MemoryError, *backend.driver_errors)
    try:
        with deadline.steps():
            yield
    except failures as error:
        if not done:
            raise
        problem = error if isinstance(error, MemoryError) else backend.translate(error, operation)
        # Nor is it tried again by the guard: the answer would count what the last try has done.
        problem.outcome = "unknown"
        raise problem from problem.__cause__ if problem is error else error
