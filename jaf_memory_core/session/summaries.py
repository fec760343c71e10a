"""Compression: what leaves a conversation's view is covered by a summary that the application's function makes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import math
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from jaf_memory_core.conversations import Summary
from jaf_memory_core.errors import MemoryConflictError, MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.messages import Message
from jaf_memory_core.session import history, views
from jaf_memory_core.session.formats import FORMS, Form, ViewFormat, form_of
from jaf_memory_core.session.formats.contents import arguments_text, is_bare, spoken
from jaf_memory_core.session.history import Found
from jaf_memory_core.session.room import Room, shortened
from jaf_memory_core.session.storage import StoredConversation

logger = logging.getLogger("jaf_memory_core")

Summarize = Callable[[Sequence[Message]], str | Awaitable[str]]
"""The application's function: from older messages, an earlier summary first, to a text."""

SLACK = 4 / 5
"""Part of the room that is filled after a summary, so that not every turn asks for the next one."""

TRIES = 5
"""How often it is looked again whether all that a summary covers still stands, beside others who write."""

SHORT = 200
"""Characters that a summary may have whatever it covers."""

FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3_600.0
"""Seconds for which a summariser that was of no use is not asked again; they double each time."""


class Unusable(Exception):  # noqa: N818  (it never leaves this module)
    """Why there is no summary; `final` where asking at once again would only cost again."""

    def __init__(self, why: str, *, final: bool) -> None:
        super().__init__(why)
        self.final = final


class Pause(Struct):
    """How often a summariser was of no use for a conversation, and until when it is left alone."""

    failures: int = 0
    until: float = 0.0


class Pauses:
    """What is known of failing summarisers, by provider, conversation and function, over many sessions."""

    LARGEST = 10_000

    def __init__(self) -> None:
        self._by_provider: weakref.WeakKeyDictionary[Any, dict[Any, Pause]] = weakref.WeakKeyDictionary()

    def of(self, provider: object, conversation_id: str, summarize: object) -> Pause:
        """The pause of this conversation and this function, which a function made anew in the same place shares."""
        try:
            pauses = self._by_provider.setdefault(provider, {})
        except TypeError:  # a provider that nothing can refer to weakly
            return Pause()
        function = getattr(summarize, "__func__", summarize)
        key = (conversation_id, getattr(function, "__code__", function if _hashable(function) else id(function)))
        while len(pauses) >= self.LARGEST and key not in pauses:
            # The oldest: at worst a summariser that fails is asked once more than need be.
            pauses.pop(next(iter(pauses)))
        return pauses.setdefault(key, Pause())


_pauses = Pauses()


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


class Compression:
    """Makes views of one conversation, and summaries where they are due.

    Args:
        stored: the conversation.
        room: of a view.
        threshold: number of messages above which older ones are summarised.
        summarize: the application's function.
        timeout: seconds that it may take.
        view_format: of views.
    """

    def __init__(
        self,
        stored: StoredConversation,
        room: Room,
        threshold: int | None,
        summarize: Summarize | None,
        *,
        timeout: float,
        view_format: ViewFormat | None,
    ) -> None:
        self._stored = stored
        self._room = room
        self._threshold = threshold
        self._summarize = summarize
        self._timeout = timeout
        self._format = view_format
        self._own: Summary | None = None  # where the provider keeps no summaries
        self._pause = Pause() if summarize is None else _pauses.of(stored.provider, stored.conversation_id, summarize)

    async def read(self) -> Found:
        """The conversation, with a summary made first if one is due; at most one, however often others make some."""
        found = await self._read(whole=False)
        if self._summarize is None or not self._due(found):
            return found
        if found.unread:
            # What was left unread is what the summary is about.
            found = await self._read(whole=True)
        cut = self._cut(found)
        if cut is None:
            return found
        earlier = () if found.summary is None else views.summary(found.summary).messages
        try:
            text = await self._ask([*earlier, *cut.covered])
            # With the incarnation that was read: one that was made again meanwhile gets no summary of the old one.
            await self._keep(Summary(text, cut.message_id, cut.kept), found)
        except Unusable as error:
            self._failed(error)
            return found
        self._pause.failures, self._pause.until = 0, 0.0
        # Once more: others may have written, or summarised, while the model wrote this.
        return await self._read(whole=False)

    async def _keep(self, summary: Summary, found: Found) -> None:
        if not self._stored.offers("store_summary"):
            self._own = summary
            return
        # Deleted meanwhile, the summary goes with the conversation; the next read shows what stands.
        with contextlib.suppress(MemoryNotFoundError):
            for _ in range(TRIES):
                # What was deleted or revised while the model wrote must not live on in what it wrote.
                standing = await self._read(whole=True)
                if _covered(standing, summary) != _covered(found, summary):
                    return
                try:
                    await self._stored.keep(summary, found.incarnation, standing.version)
                except MemoryConflictError:
                    continue
                except MemoryInvalidInputError as error:
                    raise Unusable("is larger than the provider keeps", final=True) from error
                return

    def _failed(self, error: Unusable) -> None:
        """Leave the summariser alone for a while; one that only failed is asked once more, at the next load."""
        self._pause.failures += 1
        doublings = self._pause.failures - (1 if error.final else 2)
        if doublings >= 0:
            self._pause.until = time.monotonic() + min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(doublings, 10))
        logger.warning(
            "no summary of conversation %r: summarize %s; the view is the one without a summary, and the next try is "
            "in %.0f s at the earliest",
            self._stored.conversation_id,
            error,
            max(0.0, self._pause.until - time.monotonic()),
        )

    async def _read(self, *, whole: bool) -> Found:
        condensed = self._threshold is not None
        room = self._compressed_room(0) if condensed else self._room
        if whole or room.unlimited or self._own is not None or not (self._stored.knows_leading or self._stored.pages):
            found = await history.read_whole(self._stored, condensed=condensed)
        else:
            form = form_of(self._format, ()) if self._format else None
            found = await history.read_newest(self._stored, room, form, condensed=condensed)
        if found is None:
            return Found()
        return found if self._own is None else _behind(found, self._own)

    def _due(self, found: Found) -> bool:
        if self._summarize is None or self._threshold is None or found.count <= self._threshold:
            return False
        if time.monotonic() < self._pause.until:
            return False
        room = self._beside_summary(found) if found.summary is not None else self._compressed_room(0)
        blocks = views.blocks_of(found.messages, self._form(found.messages))
        return bool(found.unread) or not room.takes(views.messages_of(blocks))

    def _cut(self, found: Found) -> views.Cut | None:
        room = self._compressed_room(1)
        filled = Room(max(1, math.floor(room.messages * SLACK)), room.tokens * SLACK, room.count)
        return views.cut(found.kept, found.read, filled, self._form(found.messages))

    def _form(self, messages: Sequence[Message]) -> Form:
        return form_of(self._format, messages)

    def view(self, found: Found, unsaved: Sequence[Message]) -> list[Message]:
        """The valid view of what was found, and of what is to be stored yet."""
        if found.plain is not None and not unsaved:
            if self._format in (None, "chat"):
                return found.plain
            # Where nothing is called, messages are the same in every form, and as many.
            if all(one.role in views.STAYING or is_bare(one) for one in found.plain):
                return FORMS[self._format].arranged(found.plain)
        messages = [*found.messages, *unsaved]
        form = self._form(messages)
        blocks = found.blocks if found.blocks is not None and not unsaved else views.blocks_of(messages, form)
        if found.summary is not None:
            text = self._fitting(found.summary)
            within = views.limited(blocks, self._beside_summary(found)) if text is not None else None
            if text is not None and (within or not blocks):
                return views.shown(views.with_summary(within or [], found.kept, text), form)
            return views.shown(views.limited(blocks, self._compressed_room(0)), form)
        if self._threshold is not None and found.count + len(unsaved) > self._threshold:
            return views.shown(views.first_and_newest(blocks, self._compressed_room(0), found.unread), form)
        return views.shown(views.limited(blocks, self._room), form)

    def _fitting(self, text: str) -> str | None:
        """The summary's text, shortened where it alone would take more than half of the room."""
        short = shortened(views.summary(text).messages, self._room.tokens / 2, self._room.count)
        content = short[0].content if short else None
        return content if isinstance(content, str) else None

    def _beside_summary(self, found: Found) -> Room:
        text = self._fitting(found.summary or "")
        room = self._compressed_room(0)
        return room if text is None else room.without(views.summary(text).messages)

    def _compressed_room(self, made_up: int) -> Room:
        most = min(self._room.messages, math.inf if self._threshold is None else self._threshold)
        return Room(most - made_up, self._room.tokens, self._room.count)

    async def _ask(self, messages: Sequence[Message]) -> str:
        """A usable summary.

        Raises:
            Unusable: the application's function failed, took too long, or gave none.
        """
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._answer(messages)
        except TimeoutError as error:
            raise Unusable(f"took longer than {self._timeout:g} s", final=True) from error
        except Exception as error:  # whatever the application's function raises: its view is what must not fail
            raise Unusable(f"raised {type(error).__name__}", final=False) from error
        if not isinstance(answer, str):
            raise Unusable(f"gave a {type(answer).__name__}, where a str is wanted", final=True)
        if not answer.strip():
            raise Unusable("gave an empty text", final=True)
        covered = sum(map(_length, messages))
        # Longer than what it stands for, it would cost the view more than it spares.
        if len(answer) > max(SHORT, covered):
            raise Unusable(f"gave {len(answer)} characters, more than the {covered} that they stand for", final=True)
        return answer

    async def _answer(self, messages: Sequence[Message]) -> Any:
        assert self._summarize is not None  # looked at before
        if inspect.iscoroutinefunction(self._summarize):
            return await self._summarize(messages)
        answer = await _in_thread(self._summarize, messages)
        return await answer if inspect.isawaitable(answer) else answer


def _length(message: Message) -> int:
    calls = message.tool_calls or ()
    return len(spoken(message)) + sum(len(arguments_text(call.function.arguments)) for call in calls if call.function)


async def _in_thread(function: Callable[[Sequence[Message]], Any], messages: Sequence[Message]) -> Any:
    """Run a function that may block in a thread of its own, for which nobody waits where it never ends.

    The threads of the event loop's executor are waited for at the end of the program: one that hangs would hold it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def tell(result: Any, error: BaseException | None) -> None:
        # Timed out or cancelled: a thread cannot be ended, and its answer is for nobody.
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = context.run(function, messages)
        except BaseException as raised:  # noqa: BLE001  (it is raised in the loop's thread)
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="jaf-memory-summarize", daemon=True).start()
    return await done


def _covered(found: Found, summary: Summary) -> tuple[str | None, Sequence[Message]]:
    """What a summary is about: the earlier one, and the messages up to its last."""
    messages = found.messages
    ends = [index for index, message in enumerate(messages) if message.message_id == summary.message_id]
    return found.summary, messages[: ends[-1] + 1] if ends else ()


def _behind(found: Found, summary: Summary) -> Found:
    ends = [index for index, message in enumerate(found.read) if message.message_id == summary.message_id]
    if not ends:
        return found
    return replace(found, kept=summary.kept, read=found.read[ends[-1] + 1 :], summary=summary.text)
