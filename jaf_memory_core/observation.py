"""Observers: what they are told when an operation begins, and when it has ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from msgspec import Struct

from jaf_memory_core import codec
from jaf_memory_core.deadline import is_never_sent
from jaf_memory_core.errors import MemoryConflictError, MemoryError
from jaf_memory_core.processors import checked_observers
from jaf_memory_core.records import Page, Record, Revise, Tail, Usage, Write
from jaf_memory_core.results import WriteResult

if TYPE_CHECKING:
    from jaf_memory_core.backend import Backend

logger = logging.getLogger("jaf_memory_core")

REMOVED_CONVERSATIONS = frozenset({"delete_conversation", "clear_user_conversations", "purge_expired"})
"""Operations that answer how many conversations they have removed."""

COUNTED_MESSAGES = frozenset({"truncate_conversation_after", "delete_messages", "fork_conversation"})
"""Operations that answer how many messages they have removed or copied."""


class Operation(Struct, frozen=True):
    """An operation that begins, as an observer with a beginning is told of it.

    Attributes:
        provider, operation: names.
        encloses: whether all of the operation happens before its end is told, in the task that was told of its
            beginning. An iteration is not so: whoever iterates does other things in between.
        conversation_id: of which conversation, or `None`. It is the only id that observers get, for those who were
            asked to tell it; `repr` leaves it out.
    """

    provider: str
    operation: str
    encloses: bool = True
    conversation_id: str | None = None

    def __repr__(self) -> str:
        return f"Operation({self.provider!r}, {self.operation!r}, encloses={self.encloses})"


class OperationEvent(Struct, frozen=True):
    """One operation of a provider that has ended; it never holds content, ids or secrets.

    Attributes:
        provider, operation: names.
        seconds: how long it took, retries included; of an iteration, how long the store took for it.
        attempts: how often it was sent.
        error: name of the exception that ended it, or `None`.
        outcome: "done"; of what has failed, whether nothing was applied, or that is "unknown".
        conflict: whether it was refused because of what somebody else had written.
        waited: seconds of `seconds` between attempts, in which nothing was under way.
        conversations: how many were found or removed; `None` where the operation is about one.
        messages: how many were handed over or read; `None` where the operation has none to do with.
        size: bytes of the encoded messages that were handed over.
    """

    provider: str
    operation: str
    seconds: float
    attempts: int
    error: str | None
    outcome: Literal["done", "not_applied", "unknown"] = "done"
    conflict: bool = False
    waited: float = 0.0
    conversations: int | None = None
    messages: int | None = None
    size: int | None = None

    @property
    def retries(self) -> int:
        """How often it was sent again."""
        return max(0, self.attempts - 1)


End = Callable[[OperationEvent], None]


@runtime_checkable
class Beginning(Protocol):
    """An observer that is told of the beginning, too, and may open a span around the operation."""

    def begin(self, operation: Operation) -> End | None:
        """Called before anything is sent, in the caller's task; what it returns is called once, in the end."""


@runtime_checkable
class Watching(Protocol):
    """An observer that can be asked for measures, and wants to know of whom to ask them."""

    def watch(self, provider: str, usage: Callable[[], Usage]) -> None:
        """Called once a provider is made. `usage` is a bound method of its backend: hold it weakly (`WeakMethod`)."""


Observer = End | Beginning
"""A callable that is told of the end, or an object with a `begin`."""


class Tally(Struct):
    """What an iteration has given so far.

    Attributes:
        conversations, messages: how many.
        seconds: how long the store took for them.
        waited: seconds of these between attempts.
        attempts: how often it was begun.
        error: what has ended it.
    """

    conversations: int = 0
    messages: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    attempts: int = 1
    error: BaseException | None = None

    def end(
        self, seconds: float, attempts: int, _error: BaseException | None, _answer: Any = None, *, waited: float = 0.0
    ) -> None:
        """Take notice of a step that has ended."""
        self.seconds += seconds
        self.waited += waited
        self.attempts += max(0, attempts - 1)


class Observers:
    """The observers of a provider."""

    __slots__ = ("_ends", "_failed", "_spans")

    def __init__(self, observers: Sequence[Observer], backend: Backend) -> None:
        checked = checked_observers(observers)
        for observer in checked:
            if isinstance(observer, Watching):
                observer.watch(backend.name, backend.usage)
        self._spans = [observer.begin for observer in checked if isinstance(observer, Beginning)]
        self._ends = [observer for observer in checked if not isinstance(observer, Beginning)]
        self._failed: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._spans or self._ends)

    def begun(self, provider: str, operation: str, request: Any, *, encloses: bool = True) -> Observation:
        """Tell of an operation that begins."""
        return Observation(
            provider, operation, request, self._spans, self._ends, failed=self._failed, encloses=encloses
        )


class Observation:
    """One operation under its observers, from its beginning to its end."""

    __slots__ = ("_ends", "_failed", "_operation", "_provider", "_request")

    def __init__(
        self,
        provider: str,
        operation: str,
        request: Any,
        spans: Sequence[Callable[[Operation], End | None]],
        ends: Sequence[End],
        *,
        failed: set[str],
        encloses: bool,
    ) -> None:
        self._provider, self._operation, self._request = provider, operation, request
        self._ends, self._failed = ends, failed
        if not spans:
            return
        self._ends = [*ends]
        told = Operation(
            provider,
            operation,
            encloses,
            request if type(request) is str else getattr(request, "conversation_id", None),
        )
        for begin in spans:
            try:
                end = begin(told)
            except Exception as error:  # noqa: BLE001  (it is not ours, and harms nothing)
                _tell_failed(error, failed)
                continue
            if end is not None:
                self._ends.insert(0, end)  # what was opened last is closed first

    def end(
        self, seconds: float, attempts: int, error: BaseException | None, answer: Any = None, *, waited: float = 0.0
    ) -> None:
        """Tell how the operation has ended; an observer that fails harms nothing."""
        conversations, read = _counted(self._operation, answer)
        messages, size = _handed_over(self._request)
        event = OperationEvent(
            self._provider,
            self._operation,
            seconds,
            attempts,
            None if error is None else type(error).__name__,
            "done" if error is None else _outcome(error),
            error is not None and isinstance(error, MemoryConflictError),
            waited,
            conversations,
            read if messages is None else messages,
            size,
        )
        for end in self._ends:
            try:
                end(event)
            except Exception as failure:  # noqa: BLE001  (as above)
                _tell_failed(failure, self._failed)


def _tell_failed(error: Exception, told: set[str]) -> None:
    """Tell the log of an observer that failed, once for each place in its code.

    Its text stays away: it may hold the conversation's id, which observers get.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" in {trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}"
    what = f"{type(error).__name__}{place}"
    if what not in told:
        told.add(what)
        logger.warning("an observer failed, and no operation with it: %s; this is said once", what)


def _outcome(error: BaseException) -> Literal["not_applied", "unknown"]:
    if isinstance(error, MemoryError):
        return error.outcome
    return "not_applied" if is_never_sent(error) else "unknown"


def _handed_over(request: Any) -> tuple[int | None, int | None]:
    """How many messages a request brings, and their bytes."""
    kind = type(request)
    if kind is Tail or kind is str or request is None:  # most of them
        return None, None
    if kind is Write or kind is Revise:
        return len(request.bodies), codec.size(request.bodies)
    if kind is list:  # the appends of an import
        return sum(len(one.bodies) for one in request), sum(codec.size(one.bodies) for one in request)
    return None, None


def _counted(operation: str, answer: Any) -> tuple[int | None, int | None]:
    """How many conversations and messages an answer holds, or tells of."""
    kind = type(answer)
    if kind is Page or kind is Record:  # most of them
        return None, len(answer.messages)
    if answer is None or kind is WriteResult:
        return None, None
    if kind is Tally:
        return answer.conversations, answer.messages
    if isinstance(answer, int):
        removed = int(answer) if operation in REMOVED_CONVERSATIONS else None
        return removed, int(answer) if operation in COUNTED_MESSAGES else None
    if isinstance(answer, list) and operation in {"find_conversations", "search_messages"}:
        found = len(answer)
        read = sum(len(getattr(one, "messages", ())) for one in answer)
        return (found, read) if operation == "find_conversations" else (None, found)
    messages = getattr(getattr(answer, "conversation", answer), "messages", None)
    return None, len(messages) if isinstance(messages, tuple) else None
