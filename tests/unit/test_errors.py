"""The one exception tree."""

import inspect
import pickle
import re

import pytest

from jaf_memory_core import Failure, Success, WriteResult, errors
from jaf_memory_core.errors import (
    MemoryConfigurationError,
    MemoryConflictError,
    MemoryConnectionError,
    MemoryInvalidInputError,
    MemoryNotFoundError,
    MemoryStorageError,
)

EXAMPLES = [
    errors.MemoryError("text", provider="p", retryable=True, outcome="unknown"),
    MemoryConnectionError("text", provider="p", retryable=False),
    MemoryStorageError("text", operation="read", provider="p", retryable=True),
    MemoryNotFoundError("c", provider="p"),
    MemoryConflictError("text", expected_version=1, actual_version=2, provider="p"),
    MemoryInvalidInputError("text"),
    MemoryConfigurationError("text", distribution="d", version="1", install="pip install d"),
]
KINDS = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]


def test_tree_is_as_drawn():
    """The tree in the docstring is the tree that there is."""
    drawn = re.findall(r"(Memory\w+)  ", errors.__doc__)
    assert drawn[0] == "MemoryError"
    assert sorted(drawn) == sorted(kind.__name__ for kind in KINDS)
    assert {kind.__base__ for kind in KINDS if kind.__name__ not in {"MemoryError", "MemoryInvalidInputError"}} == {
        errors.MemoryError
    }
    assert MemoryInvalidInputError.__mro__[1:3] == (errors.MemoryError, ValueError)


def test_examples_are_all():
    """These tests know every kind."""
    assert {type(example) for example in EXAMPLES} == set(KINDS)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_pickle(error):
    """Every error travels between processes, with all that it tells."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_attributes(error):
    """Every error tells provider, whether a retry may help, and what became of the operation."""
    assert isinstance(error.provider, str)
    assert isinstance(error.retryable, bool)
    assert error.outcome in {"not_applied", "unknown"}


def test_defaults():
    """A lost connection may be tried again; nothing else may by itself."""
    assert MemoryConnectionError("x").retryable is True
    assert not any(
        error.retryable for error in (MemoryStorageError("x"), MemoryNotFoundError("c"), MemoryConflictError("x"))
    )
    assert all(error("x").outcome == "not_applied" for error in KINDS)


def test_own_attributes():
    """Each kind tells what belongs to it."""
    assert MemoryNotFoundError("c").conversation_id == "c"
    assert MemoryStorageError("x", operation="read").operation == "read"
    conflict = MemoryConflictError("x", expected_version=1, actual_version=2)
    assert (conflict.expected_version, conflict.actual_version) == (1, 2)
    assert MemoryConfigurationError("x", install="pip install d").install == "pip install d"


def test_ids_are_quoted():
    """An id in an error is quoted, so that white space and quotes in it can be seen."""
    assert str(MemoryNotFoundError("a b'\n")) == r'''there is no conversation "a b'\n"'''


class TestResults:
    """`Success` and `Failure`."""

    def test_are_frozen(self):
        """A result cannot be changed."""
        for result, field in ((Success(1), "data"), (Failure(EXAMPLES[0]), "error"), (WriteResult(1, 2, 3), "added")):
            with pytest.raises(AttributeError):
                setattr(result, field, None)

    def test_travel(self):
        """A result travels between processes."""
        assert pickle.loads(pickle.dumps(Success(WriteResult(1, 2, 3)))) == Success(WriteResult(1, 2, 3))
        assert pickle.loads(pickle.dumps(Failure(EXAMPLES[3]))).error.conversation_id == "c"
