"""Google ADK on any jaf-memory provider: a `BaseSessionService` whose events are messages.

    service = JafMemorySessionService(provider)
    runner = Runner(app_name="app", agent=agent, session_service=service)

A session is a conversation of its user's; what is the user's state or the app's stands in a conversation of its own
without messages. What ADK's own services promise and this one does otherwise, `JafMemorySessionService` says.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from jaf_memory_bridges import extras

extras.require("adk", module="google.adk", distribution="google-adk", versions=">=2.13,<3")

from google.adk.errors import StaleSessionError  # without it, the line above says what to do
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events import Event, EventActions
from google.adk.sessions import BaseSessionService, Session, State
from google.adk.sessions.base_session_service import GetSessionConfig, ListSessionsResponse
from msgspec.structs import replace

from jaf_memory_bridges.given import given_of, said
from jaf_memory_bridges.providers import appended, checked
from jaf_memory_core import (
    ConversationMemory,
    Failure,
    MemoryConflictError,
    MemoryNotFoundError,
    MemoryProvider,
    MemoryQuery,
    Message,
    Result,
)
from jaf_memory_core.values import thaw

__all__ = ["JafMemorySessionService", "to_event", "to_message"]


STATE = "state:"
"""Beginning of the metadata keys that hold state, a key each: writers of different keys do not meet."""


def key_of(*names: str) -> str:
    """The conversation of an app's state, a user's, or a session; no two of them ever meet."""
    return "/".join(["adk", *(name.replace("%", "%25").replace("/", "%2F") for name in names)])


def keys_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state as metadata."""
    return {STATE + name: value for name, value in state.items()}


def state_of(header: ConversationMemory | None) -> dict[str, Any]:
    """The state in a conversation's metadata, as plain dicts and lists; none where there is no conversation."""
    metadata = header.metadata if header is not None else {}
    return {name.removeprefix(STATE): thaw(value) for name, value in metadata.items() if name.startswith(STATE)}


def delta_of(actions: EventActions) -> dict[str, Any]:
    """The change of state that actions bring, as ADK writes it into JSON; it warns of what JSON cannot hold."""
    delta: dict[str, Any] = actions.model_dump(mode="json", include={"state_delta"}).get("state_delta") or {}
    return delta


def scopes_of(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What of a state is the app's, the user's, and the session's own; what is temporary is nobody's."""
    app: dict[str, Any] = {}
    user: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, value in state.items():
        if name.startswith(State.APP_PREFIX):
            app[name.removeprefix(State.APP_PREFIX)] = value
        elif name.startswith(State.USER_PREFIX):
            user[name.removeprefix(State.USER_PREFIX)] = value
        elif not name.startswith(State.TEMP_PREFIX):
            own[name] = value
    return app, user, own


ENGINE = "adk"


def to_message(event: Event) -> Message:
    """A message that says what an event says, under the event's id, and from which `to_event` makes it again.

    Calls and results stand in it as blocks, because one event may hold several. An event without content, which changes
    state only, says nothing to a model.
    """
    fields: dict[str, Any] = event.model_dump(mode="json", exclude_none=True)
    parts = [*_parts(event.id, (fields.get("content") or {}).get("parts") or ())]
    if not parts:
        role = "system"  # which a view leaves out where it is empty
    else:
        answers = any(part["type"] == "tool_result" for part in parts)
        role = "user" if event.author == "user" or answers else "assistant"
    plain = len(parts) == 1 and parts[0]["type"] == "text"
    known = {"role": role, "message_id": event.id}
    content = parts[0]["text"] if plain else parts or None
    return said(ENGINE, fields, {**known, "content": content}, known)


def _parts(event: str, parts: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, part in enumerate(parts):
        call, answer = part.get("function_call"), part.get("function_response")
        if call is not None:
            key = call.get("id") or f"{event}:{number}"
            yield {"type": "tool_use", "id": key, "name": call.get("name") or "", "input": call.get("args") or {}}
        elif answer is not None:
            text = json.dumps(answer.get("response"), ensure_ascii=False)
            yield {"type": "tool_result", "tool_use_id": answer.get("id") or "", "content": text}
        elif part.get("text") is not None:
            if not part.get("thought"):
                yield {"type": "text", "text": part["text"]}
        else:
            yield from ({"type": name} for name in part if name not in ("thought", "thought_signature"))


def to_event(message: Message) -> Event | None:
    """The event that a message was made of; `None` of another engine's message."""
    given = given_of(ENGINE, message)
    return None if given is None else Event.model_validate(given)


def since_of(events: Sequence[Event], moment: float) -> list[Event]:
    """The newest events, from behind the last that is older than a moment."""
    older = [place for place, event in enumerate(events) if event.timestamp < moment]
    return [*events[older[-1] + 1 if older else 0 :]]


def oldest_since(messages: Sequence[Message], moment: float) -> bool:
    """Whether none of the messages is an event from before a moment, so that there may be others before them."""
    return all((given_of(ENGINE, message) or {}).get("timestamp", moment) >= moment for message in messages)


PAGE = 100
"""Events that are read at once where it is not known how many are asked for."""

NEEDED = ("find_conversations", "get_condensed_conversation", "get_messages", "iter_conversations")


class JafMemorySessionService(BaseSessionService):
    """A `BaseSessionService` of Google ADK, over any backend of jaf-memory.

    An event and what it changes of the session's state are one atomic write, checked by compare-and-swap: whoever holds
    an older session gets ADK's `StaleSessionError`, among any number of processes. Repeating an event adds nothing.

    What ADK's own database service does otherwise:

    - State of the user and of the app are writes of their own, atomic and merged by key, which follow that of the
      event. A process that is killed between them leaves the change in the event only.
    - State that JSON cannot hold is kept as ADK keeps it in events. State of one session has at most
      `max_metadata_bytes` (1 MiB unless set otherwise), and the ids of app, user and session have at most some 250
      characters together.
    - `user_id` owns sessions and user state, so that `clear_user_conversations` erases both, in all apps.

    Args:
        provider: any provider over a backend, on whichever store.

    Raises:
        MemoryInvalidInputError: this is no async provider of jaf-memory.
        MemoryConfigurationError: the provider lacks what is needed.
    """

    def __init__(self, provider: MemoryProvider) -> None:
        self._provider = checked(provider, None, *NEEDED)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def create_session(
        self, *, app_name: str, user_id: str, state: dict[str, Any] | None = None, session_id: str | None = None
    ) -> Session:
        """Make a session, with what is given of its, the user's and the app's state.

        Raises:
            AlreadyExistsError: there is one of that id.
        """
        key = (session_id or "").strip() or str(uuid.uuid4())
        app, user, own = scopes_of(delta_of(EventActions(state_delta=state or {})))
        at = time.time()
        metadata = {"engine": ENGINE, "app": app_name, "session": key, "at": at, **keys_of(own)}
        result = await self._provider.store_messages(
            key_of(app_name, user_id, key), [], metadata, user_id=user_id, expected_version=0
        )
        if isinstance(result, Failure) and isinstance(result.error, MemoryConflictError):
            raise AlreadyExistsError(f"Session with id {key} already exists.") from result.error
        version = result.unwrap().version
        await self._store_scopes(app_name, user_id, app, user)
        shared = await self._shared(app_name, user_id)
        return _session((app_name, user_id, key), own | shared, at, version)

    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        """A session with its newest events as `config` says, and no more events read than those; or `None`."""
        key = session_id.strip()
        most = config.num_recent_events if config is not None else None
        since = config.after_timestamp if config is not None else None
        found, shared = await asyncio.gather(
            self._read(key_of(app_name, user_id, key), most, since), self._shared(app_name, user_id)
        )
        if found is None or found.metadata.get("engine") != ENGINE:
            return None
        events = [event for message in found.messages if (event := to_event(message)) is not None]
        if since is not None:
            events = since_of(events, since)
        at = found.metadata.get("at", 0.0)
        return _session((app_name, user_id, key), state_of(found) | shared, at, found.version, events)

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        """The sessions of an app, or of one of its users, with their state, the longest untouched first."""
        metadata = {"engine": ENGINE, "app": app_name}
        query = MemoryQuery(user_id=user_id, metadata=metadata, include_messages=False)
        found = [one async for one in self._provider.iter_conversations(query)]
        owners = {one.user_id for one in found if one.user_id is not None}
        app = await self._scope(State.APP_PREFIX, app_name)
        shared = {owner: app | await self._scope(State.USER_PREFIX, app_name, owner) for owner in owners}
        sessions = []
        for one in found:
            owner, labels = one.user_id or "", one.metadata
            state = state_of(one) | shared.get(owner, app)
            sessions.append(_session((app_name, owner, labels["session"]), state, labels["at"], one.version))
        return ListSessionsResponse(sessions=sorted(sessions, key=lambda s: (s.last_update_time, s.user_id, s.id)))

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session with its events and its own state; nothing of it remains."""
        await self._provider.delete_conversation(key_of(app_name, user_id, session_id.strip()))

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """What is kept for a user in all sessions of an app."""
        return state_of(await self._header(key_of(app_name, user_id)))

    async def append_event(self, session: Session, event: Event) -> Event:
        """Store an event and what it changes of the states, and bring the session up to date.

        Raises:
            StaleSessionError: somebody else has changed the session since it was loaded.
            SessionNotFoundError: there is no such session.
        """
        if event.partial:
            return event
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        key = key_of(session.app_name, session.user_id, session.id)
        # Branches of one invocation share a session object, and append to it side by side.
        async with self._turns.setdefault(key, asyncio.Lock()):
            app, user, own = scopes_of(delta_of(event.actions))
            added = await self._append(key, session, event, {"at": event.timestamp, **keys_of(own)})
            # Before the states: where those fail the event stands, and repeating it will not bring it here.
            session.last_update_time = event.timestamp
            shown = self._commit_event_to_session(session, event) if added else event
            await self._store_scopes(session.app_name, session.user_id, app, user)
            return shown

    async def _append(self, key: str, session: Session, event: Event, metadata: Mapping[str, Any]) -> bool:
        """Whether the event was new."""
        message = to_message(event)
        version = await self._version(key, session)
        result = await self._written(key, message, metadata, version)
        if _meets_another(result):
            # Another event of the same id, which ADK keeps as well.
            message = to_message(event.model_copy(update={"id": f"{event.id}:{uuid.uuid4()}"}))
            result = await self._written(key, message, metadata, version)
        if isinstance(result, Failure) and isinstance(result.error, MemoryNotFoundError):
            raise SessionNotFoundError(f"Session {session.id} not found.") from result.error
        if isinstance(result, Failure) and isinstance(result.error, MemoryConflictError):
            raise StaleSessionError(
                "The session has been modified in storage since it was loaded. Please reload the session before "
                "appending more events."
            ) from result.error
        written = result.unwrap()
        session._storage_update_marker = str(written.version)
        return written.added > 0

    async def _written(self, key: str, message: Message, metadata: Mapping[str, Any], version: int) -> Result:
        return await self._provider.append_messages(key, [message], metadata, expected_version=version)

    async def _version(self, key: str, session: Session) -> int:
        """The version that a session shows; of one that was made by hand, the store's if they end alike.

        Raises:
            SessionNotFoundError: there is no such session.
            StaleSessionError: the store has an event that the session lacks.
        """
        marker = session._storage_update_marker
        if marker is not None and marker.isdecimal():
            return int(marker)
        found = await self._provider.get_condensed_conversation(key, 1)
        if found is None:
            raise SessionNotFoundError(f"Session {session.id} not found.")
        stored = [message.message_id for message in found.conversation.messages]
        if stored != [event.id for event in session.events[-1:]]:
            raise StaleSessionError("The session lacks events that were stored since; reload it.")
        return found.conversation.version

    async def _read(self, key: str, most: int | None, since: float | None) -> ConversationMemory | None:
        """A conversation with the newest messages that are asked for, or more, and its state of that moment."""
        if most == 0:
            return await self._header(key)
        if most is None and since is None:
            return await self._provider.get_conversation(key)
        limit = PAGE if most is None else most
        found = await self._provider.get_condensed_conversation(key, limit)
        if found is None or found.summary is not None:  # which stands in the place of messages
            whole = await self._provider.get_conversation(key)
            return whole if whole is None or most is None else _cut(whole, whole.messages[-most:])
        if most is not None or since is None:
            return found.conversation
        messages, before = found.conversation.messages, found.before
        while before is not None and oldest_since(messages, since):
            page = await self._provider.get_messages(key, before, limit)
            messages, before = (*page, *messages), page.before
        return _cut(found.conversation, messages)

    async def _header(self, key: str) -> ConversationMemory | None:
        query = MemoryQuery(conversation_id=key, include_messages=False)
        return next(iter(await self._provider.find_conversations(query)), None)

    async def _shared(self, app_name: str, user_id: str) -> dict[str, Any]:
        """State of the app and of the user, as it stands in a session's."""
        app, user = await asyncio.gather(
            self._scope(State.APP_PREFIX, app_name), self._scope(State.USER_PREFIX, app_name, user_id)
        )
        return app | user

    async def _scope(self, prefix: str, *names: str) -> dict[str, Any]:
        return {prefix + name: value for name, value in state_of(await self._header(key_of(*names))).items()}

    async def _store_scopes(self, app_name: str, user_id: str, app: dict[str, Any], user: dict[str, Any]) -> None:
        writes = []
        if app:
            writes.append(appended(self._provider, key_of(app_name), [], keys_of(app)))
        if user:
            writes.append(appended(self._provider, key_of(app_name, user_id), [], keys_of(user), user_id=user_id))
        # Both have ended before a failure is told: nothing is written behind it.
        for result in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result


def _cut(conversation: ConversationMemory, messages: Sequence[Message]) -> ConversationMemory:
    return replace(conversation, messages=tuple(messages))


def _meets_another(result: Result) -> bool:
    """Whether another message stands under the same id; other conflicts are of versions."""
    error = result.error if isinstance(result, Failure) else None
    return isinstance(error, MemoryConflictError) and error.expected_version is None


def _session(
    names: tuple[str, str, str], state: dict[str, Any], at: float, version: int, events: Sequence[Event] = ()
) -> Session:
    app_name, user_id, key = names
    session = Session(id=key, app_name=app_name, user_id=user_id, state=state, events=list(events), last_update_time=at)
    session._storage_update_marker = str(version)
    return session
