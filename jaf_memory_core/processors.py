"""`Processor`: a step that everything passes on its way into the store, and back out of it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from msgspec import Struct
from msgspec.structs import replace

from jaf_memory_core.errors import MemoryConfigurationError, MemoryInvalidInputError
from jaf_memory_core.messages import Message
from jaf_memory_core.values import FrozenDict, checked, freeze, thaw

METHODS = ("outgoing", "incoming", "outgoing_metadata", "incoming_metadata")


class Context(Struct, frozen=True):
    """Where what a processor is given belongs; a processor cannot change any of it.

    Attributes:
        conversation_id: of which conversation; `None` for the filter of a query over many.
        user_id: its owner, where the operation knows it: a read of whole conversations does, a write as far as it
            says so itself, and a view made by `for_user` always.
        message_id: of which message; `None` for metadata.
        operation: name of the provider's method.
    """

    conversation_id: str | None
    user_id: str | None
    message_id: str | None
    operation: str


class Processor:
    """Redaction, encryption, tagging: override what is needed; the defaults change nothing.

    A processor must be deterministic: a retried append sends the same message again, and only an equal one is known to
    be the same. It must keep `message_id`. It is never given an owner inside metadata, nor what the provider keeps
    there for itself. What it returns is checked like what a caller gives. An exception stops the operation before
    anything is stored. A method that has no use for the context may leave it out of its arguments.

    Attributes:
        needs_owner: whether it must be told a conversation's owner also where the caller does not state one. The
            provider then looks first, and the write holds only while that owner stands.

    Example:
        class Shouting(Processor):
            def outgoing(self, message: Message, context: Context) -> Message:
                return Message(**{**message.dict(), "content": str(message.content).upper()})

        provider = await create_memory_provider("memory", processors=[Shouting()])
    """

    needs_owner: ClassVar[bool] = False

    async def prepare(self, context: Context, *, writing: bool) -> None:
        """Fetch what has to be waited for: awaited before something of a conversation passes, with its owner.

        Only where `needs_owner` is true. What it raises ends the operation.

        Args:
            context: of the conversation, its owner included.
            writing: whether it passes on its way in.
        """

    def within(self, context: Context) -> Processor:
        """What the messages of one call pass, all without a pause: the place for what they have in common."""
        return self

    def outgoing(self, message: Message, context: Context) -> Message:  # for those who override it
        """The message as it is to be stored."""
        return message

    def incoming(self, message: Message, context: Context) -> Message:
        """The message as the application is to see it."""
        return message

    def outgoing_metadata(self, metadata: dict[str, Any], context: Context) -> dict[str, Any]:
        """The metadata as it is to be stored; a query's `metadata` and `trace_id` come through here, too."""
        return metadata

    def incoming_metadata(self, metadata: dict[str, Any], context: Context) -> dict[str, Any]:
        """The metadata as the application is to see it."""
        return metadata


class Plugins(Struct, frozen=True):
    """What cross-cutting plugins offer, in the order of their names.

    Attributes:
        processors: change what is stored and read.
        observers: are told of every operation.
    """

    processors: Sequence[Processor] = ()
    observers: Sequence[Any] = ()


class _Step(Struct, frozen=True):
    """One processor, and which of its methods take no context."""

    processor: Processor
    without_context: frozenset[str]
    prepares: bool = False
    narrows: bool = False

    def within(self, context: Context) -> _Step:
        """The same for the messages of one call."""
        return replace(self, processor=self.processor.within(context)) if self.narrows else self

    def apply(self, method: str, value: Any, context: Context) -> Any:
        """What the method makes of a message or of metadata."""
        act = getattr(self.processor, method)
        return act(value) if method in self.without_context else act(value, context)


class Chain:
    """Processors in their order on the way in, and in the reverse order on the way out, for one operation.

    Raises:
        MemoryConfigurationError: one of them is no processor.
    """

    def __init__(self, processors: Iterable[Processor]) -> None:
        self.steps = tuple(_step(one) for one in checked_processors(processors))
        self.needs_owner = any(getattr(step.processor, "needs_owner", False) for step in self.steps)
        self._context = Context(None, None, None, "")

    def __bool__(self) -> bool:
        return bool(self.steps)

    async def prepare(self, operation: str, conversation_id: str, user_id: str | None, *, writing: bool) -> None:
        """Let those that need the owner fetch what has to be waited for."""
        context = Context(conversation_id, user_id, None, operation)
        for step in self.steps:
            if step.prepares:
                await step.processor.prepare(context, writing=writing)

    def within(self, operation: str, conversation_id: str | None, user_id: str | None = None) -> Chain:
        """The same processors, for an operation on a conversation."""
        if not self.steps:
            return self
        # A copy: one chain serves operations that are under way at the same time.
        inner = copy.copy(self)
        inner._context = Context(conversation_id, user_id, None, operation)  # noqa: SLF001  (our own copy)
        return inner

    def outgoing(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages as they are to be stored."""
        return self._passed(messages, "outgoing", self.steps)

    def incoming(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages as the application is to see them."""
        return self._passed(messages, "incoming", self.steps[::-1])

    def _passed(self, messages: tuple[Message, ...], method: str, steps: Sequence[_Step]) -> tuple[Message, ...]:
        if not (steps and messages):
            return messages
        within = [step.within(self._context) for step in steps]
        return tuple(self._passed_one(message, method, within) for message in messages)

    def _passed_one(self, message: Message, method: str, steps: Sequence[_Step]) -> Message:
        context = replace(self._context, message_id=message.message_id)
        for step in steps:
            processor, after = step.processor, step.apply(method, message, context)
            if not isinstance(after, Message):
                raise _wrong(processor, method, f"returned a {type(after).__name__}, not a Message")
            try:
                # Checked however it came to be: `replace`, for one, passes no constructor.
                after = checked(Message, after)
            except MemoryInvalidInputError as error:
                raise _wrong(processor, method, f"returned what cannot be stored: {error}") from None
            if after.message_id != message.message_id:
                raise _wrong(processor, method, "changed a message_id; it must keep it, retries depend on it")
            message = after
        return message

    def outgoing_metadata(self, metadata: Mapping[str, Any]) -> FrozenDict:
        """The metadata as it is to be stored."""
        return self._passed_metadata(metadata, "outgoing_metadata", self.steps)

    def incoming_metadata(self, metadata: Mapping[str, Any]) -> FrozenDict:
        """The metadata as the application is to see it."""
        return self._passed_metadata(metadata, "incoming_metadata", self.steps[::-1])

    def _passed_metadata(self, metadata: Mapping[str, Any], method: str, steps: Sequence[_Step]) -> FrozenDict:
        after: Any = metadata
        for step in steps:
            processor = step.processor
            # A copy that it may change in place; the caller's own, or what a store keeps, stays as it is.
            after = step.apply(method, thaw(after), self._context)
            if not isinstance(after, Mapping):
                raise _wrong(processor, method, f"returned a {type(after).__name__}, not a dict")
            try:
                after = freeze(after, where="metadata", datetimes=True)
            except MemoryInvalidInputError as error:
                raise _wrong(processor, method, f"returned what cannot be stored: {error}") from None
            if "user_id" in after:
                raise _wrong(processor, method, "returned metadata with a user_id; owners are not its business")
        return FrozenDict(after)


def _wrong(processor: object, method: str, text: str) -> MemoryConfigurationError:
    return MemoryConfigurationError(f"{method} of the processor {type(processor).__name__} {text}")


def checked_processors(given: Any) -> tuple[Processor, ...]:
    """Processors, or a `MemoryConfigurationError` before anything was stored past one that does not work."""
    return _checked_all(given, "processors", lambda _: METHODS, ("message or metadata", "context"))


def checked_observers(given: Any) -> tuple[Any, ...]:
    """Observers, or a `MemoryConfigurationError`: one that is never heard would be missed too late."""

    def methods(item: object) -> Sequence[str]:
        return ("begin",) if hasattr(item, "begin") else ("__call__",)

    return _checked_all(given, "observers", methods, ("event",))


def _checked_all(
    given: Any, what: str, methods: Callable[[object], Sequence[str]], arguments: Sequence[str]
) -> tuple[Any, ...]:
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        raise MemoryConfigurationError(f"{what} must be a list of {what}, not a {type(given).__name__}")
    items = tuple(given)
    for item in items:
        problem = _problem(item, methods(item), arguments)
        if problem:
            raise MemoryConfigurationError(f"{what} must hold {what}, and {_named(item)} {problem}")
    return items


def _named(item: object) -> str:
    named = item if inspect.isroutine(item) or isinstance(item, type) else type(item)
    return f"the {'class' if named is item and isinstance(item, type) else ''} {named.__name__}".replace("  ", " ")


def _problem(item: Any, methods: Sequence[str], arguments: Sequence[str]) -> str | None:
    """Why something cannot be one of the processors or observers; `None` if it can."""
    if isinstance(item, type):
        return "is not made yet; give an object of it"
    for name in methods:
        method = item if name == "__call__" and inspect.isroutine(item) else getattr(item, name, None)
        if not callable(method):
            return f"has no {name}" if name != "__call__" else "cannot be called"
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            return f"has an async {name}; nobody waits for it, so make it a plain function"
        if not (_takes(method, arguments) or _takes(method, arguments[:1])):
            return f"has a {name} that does not take ({', '.join(arguments)})"
    return None


def _takes(method: Callable[..., Any], arguments: Sequence[str]) -> bool:
    try:
        inspect.signature(method).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # a built-in without a signature
        return True
    return True


def _step(processor: Processor) -> _Step:
    prepares = getattr(processor, "needs_owner", False) and _overrides(processor, "prepare")
    return _Step(processor, _without_context(processor), prepares, _overrides(processor, "within"))


def _overrides(processor: Processor, name: str) -> bool:
    # One that is no child of ours, and has the four methods, does as well.
    return getattr(type(processor), name, None) not in (None, getattr(Processor, name))


def _without_context(processor: Processor) -> frozenset[str]:
    return frozenset(name for name in METHODS if not _takes(getattr(processor, name), ("value", "context")))
