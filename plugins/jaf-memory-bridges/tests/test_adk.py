"""Google ADK, from PyPI, keeps its sessions in any backend of ours."""

import asyncio

import pytest
from google.adk.agents import LlmAgent
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events import Event, EventActions
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.tools import ToolContext
from google.genai import types
from jaf_memory_bridges.adk import JafMemorySessionService, to_event, to_message
from services.stores import CountingBackend

from jaf_memory_core import (
    BackendProvider,
    MemoryConfig,
    MemoryConnectionError,
    MemoryInvalidInputError,
    MemorySession,
    Message,
    SyncMemoryProvider,
    create_in_memory_provider,
    create_memory_provider_from_env,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend

ME = {"app_name": "app", "user_id": "u"}
IMAGE = types.Part(inline_data=types.Blob(data=b"\x01\xfe", mime_type="image/png"))


class Script(BaseLlm):
    """A model that calls the tool for a text, and answers its result."""

    async def generate_content_async(self, llm_request, **_rest):
        """One answer."""
        if llm_request.contents[-1].parts[-1].function_response:
            yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text="18")]), partial=True)
            yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text="18 °C")]))
            return
        call = types.FunctionCall(id=f"f{len(llm_request.contents)}", name="weather", args={"city": "Paris"})
        thought = types.Part(text="hm", thought=True, thought_signature=b"\x00\xff")
        yield LlmResponse(content=types.Content(role="model", parts=[thought, types.Part(function_call=call)]))


def weather(city: str, tool_context: ToolContext) -> dict:
    """Say how the weather is."""
    state = tool_context.state
    state["asked"] = [*state.get("asked", []), city]
    state["user:lang"], state["app:version"], state["temp:x"] = "fr", 2, 1
    return {"city": city, "degrees": 18}


def runner(service):
    """An agent with a model that follows a script, a tool, and a session service."""
    agent = LlmAgent(name="bot", model=Script(model="script"), tools=[weather], output_key="last")
    return Runner(app_name="app", agent=agent, session_service=service)


async def turn(service, *parts, session_id="s"):
    """One turn; the events that came."""
    content = types.Content(role="user", parts=[types.Part(text=one) if isinstance(one, str) else one for one in parts])
    return [one async for one in runner(service).run_async(user_id="u", session_id=session_id, new_message=content)]


def shown(session):
    """What a session holds, but for times and ids, which differ from run to run."""
    if session is None:
        return None
    kept = {"content", "author", "partial", "turn_complete", "actions"}
    events = [event.model_dump(mode="json", include=kept, exclude_none=True) for event in session.events]
    return session.id, session.user_id, session.state, events


async def raised(coroutine):
    """The error that it raises, or what it answers."""
    try:
        return await coroutine
    except (AlreadyExistsError, SessionNotFoundError) as error:
        return type(error).__name__


async def life(service):
    """All that a service is asked for, and what it answers, without times and ids."""
    state = {"k": [1, None], "user:name": "Mia", "app:kind": "x", "temp:gone": 1}
    seen = [shown(await service.create_session(**ME, session_id=" s ", state=state))]
    seen.append(await raised(service.create_session(**ME, session_id="s")))
    await turn(service, "Weather?")
    await turn(service, "And this?", IMAGE)
    whole = await service.get_session(**ME, session_id="s")
    seen.append(shown(whole))
    for number in (0, 1, 3, 99):
        config = GetSessionConfig(num_recent_events=number)
        seen.append(shown(await service.get_session(**ME, session_id="s", config=config)))
    for place in (0, 3, -1):
        config = GetSessionConfig(after_timestamp=whole.events[place].timestamp)
        seen.append(shown(await service.get_session(**ME, session_id="s", config=config)))
        config = GetSessionConfig(after_timestamp=whole.events[place].timestamp, num_recent_events=2)
        seen.append(shown(await service.get_session(**ME, session_id="s", config=config)))
    seen.append(shown(await service.get_session(**ME, session_id="t")))
    seen.append(shown(await service.get_session(app_name="app", user_id="another", session_id="s")))
    other = await service.create_session(app_name="app", user_id="u/s", session_id="", state={"user:name": "Ben"})
    seen.append(shown(other)[1:])
    await service.create_session(**ME, session_id="t")
    for user in ("u", "u/s", "nobody", None):
        listed = (await service.list_sessions(app_name="app", user_id=user)).sessions
        seen.append(sorted(str((one.user_id, sorted(one.state.items()), one.events)) for one in listed))
    seen.append((await service.list_sessions(app_name="another")).sessions)
    seen += [await service.get_user_state(**ME), await service.get_user_state(app_name="app", user_id="nobody")]
    await service.append_event(other, Event(author="bot", partial=True))
    await service.delete_session(**ME, session_id="s")
    await service.delete_session(**ME, session_id="s")
    seen += [
        await service.get_session(**ME, session_id="s"),
        await raised(service.append_event(whole, Event(author="x"))),
    ]
    return seen


def test_a_service_answers_as_adks_own(environ):
    """Turns with tools, states of all scopes, windows, listings and deletions are as in ADK's own service."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        ours, theirs = await life(JafMemorySessionService(provider)), await life(InMemorySessionService())
        for one, other in zip(ours, theirs, strict=True):
            assert one == other
        await provider.close()

    asyncio.run(use())


def test_sessions_are_read_by_others(environ):
    """Events come back equal, times and ids too; calls and results stand in a view, and an erasure takes all along."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        service = JafMemorySessionService(provider)
        await service.create_session(**ME, session_id="s")
        came = await turn(service, "Weather?", IMAGE)
        session = await service.get_session(**ME, session_id="s")
        assert session.events[1:] == [event for event in came if not event.partial]
        assert session.last_update_time == came[-1].timestamp
        view = await MemorySession(
            MemoryConfig(provider=provider), conversation_id="adk/app/u/s", view_format="chat"
        ).load()
        assert [message.role for message in view] == ["user", "assistant", "tool", "assistant"]
        assert view[1].tool_calls[0].function.name == "weather"
        assert view[2].content == '{"city": "Paris", "degrees": 18}'
        assert await provider.clear_user_conversations("u") == 2  # the session, and the user's state
        assert await service.get_user_state(**ME) == {}
        await provider.close()

    asyncio.run(use())


def test_a_stale_session(environ):
    """Who holds an older session is told so, and nothing is stored; repeating an event adds nothing."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        service, another = JafMemorySessionService(provider), JafMemorySessionService(provider)
        first = await service.create_session(**ME, session_id="s")
        second = await another.get_session(**ME, session_id="s")
        event = Event(author="bot", actions=EventActions(state_delta={"n": 1, "user:n": 1}))
        await service.append_event(first, event)
        with pytest.raises(StaleSessionError):
            await another.append_event(
                second, Event(author="bot", actions=EventActions(state_delta={"n": 2, "user:n": 2}))
            )
        by_hand = Session(id="s", **ME)
        with pytest.raises(StaleSessionError):
            await another.append_event(by_hand, Event(author="bot"))
        await service.append_event(first, event.model_copy(deep=True))
        await service.append_event(first, Event(author="bot", id=event.id, timestamp=1.5))  # another of the same id
        found = await another.get_session(**ME, session_id="s")
        assert (found.state, len(found.events)) == ({"n": 1, "user:n": 1}, 2)
        assert [one.author for one in first.events] == ["bot", "bot"]
        by_hand.events.extend(found.events)
        with pytest.raises(SessionNotFoundError):
            await another.append_event(Session(id="none", **ME), Event(author="bot"))
        await provider.close()

    asyncio.run(use())


def test_two_at_once(environ):
    """Branches that share a session append side by side; of two processes' turns at once one goes on, whole."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        service = JafMemorySessionService(provider)
        session = await service.create_session(**ME, session_id="s")
        events = [Event(author="bot", actions=EventActions(state_delta={f"k{n}": n, f"app:k{n}": n})) for n in range(6)]
        await asyncio.gather(*(service.append_event(session, event) for event in events))
        found = await service.get_session(**ME, session_id="s")
        assert sorted(found.state) == sorted([f"{scope}k{n}" for n in range(6) for scope in ("", "app:")])
        assert len(found.events) == len(session.events) == 6
        loaded = [await JafMemorySessionService(provider).get_session(**ME, session_id="s") for _ in range(2)]
        both = (JafMemorySessionService(provider).append_event(one, Event(author="x")) for one in loaded)
        ended = await asyncio.gather(*both, return_exceptions=True)
        assert sorted(type(one).__name__ for one in ended) == ["Event", "StaleSessionError"]
        await provider.close()

    asyncio.run(use())


TURNS = """
from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import Runner
from google.genai import types
from jaf_memory_bridges.adk import JafMemorySessionService
from jaf_memory_core import create_memory_provider_from_env

class Stopping(BaseLlm):
    async def generate_content_async(self, llm_request, stream=False):
        if llm_request.contents[-1].parts[-1].text == "Stop!":
            await stop()
        yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text="Hello!")]))

async def turns(environ):
    service = JafMemorySessionService(await create_memory_provider_from_env(environ))
    await service.create_session(app_name="app", user_id="u", session_id="s")
    runner = Runner(app_name="app", agent=LlmAgent(name="bot", model=Stopping(model="x")), session_service=service)
    for text in ("Hello?", "Stop!"):
        said = types.Content(role="user", parts=[types.Part(text=text)])
        async for _ in runner.run_async(user_id="u", session_id="s", new_message=said):
            pass
"""


def test_another_process_goes_on(killed):
    """A process that is killed in mid-turn leaves whole events, and another one goes on with the session."""

    async def use(environ):
        provider = await create_memory_provider_from_env(environ)
        service = JafMemorySessionService(provider)
        before = (await service.get_session(**ME, session_id="s")).events
        assert [one.content.parts[0].text for one in before] == ["Hello?", "Hello!", "Stop!"]
        await turn(service, "Still there?")
        after = (await service.get_session(**ME, session_id="s")).events
        assert (after[:3], len(after)) == (before, 7)
        await provider.close()

    for environ in killed(TURNS):
        asyncio.run(use(environ))


def test_a_turn_that_is_left(environ):
    """A turn that is left in the middle keeps the events that came, and the session goes on."""

    async def use():
        provider = await create_memory_provider_from_env(environ)
        service = JafMemorySessionService(provider)
        await service.create_session(**ME, session_id="s")
        said = types.Content(role="user", parts=[types.Part(text="Weather?")])
        left = runner(service).run_async(user_id="u", session_id="s", new_message=said)
        event = await anext(left)
        await left.aclose()
        kept = (await service.get_session(**ME, session_id="s")).events
        assert [one.id for one in kept[1:]] == [event.id]
        await turn(service, "Still there?")
        assert len((await service.get_session(**ME, session_id="s")).events) == 6
        await provider.close()

    asyncio.run(use())


def test_a_state_that_fails_behind_its_event():
    """Where the user's state could not be written, the session holds what was stored, and a repetition completes it."""

    class Failing(InMemoryBackend):
        fails = False

        async def append(self, write):
            if self.fails and write.conversation_id == "adk/app/u":
                self.fails = False
                raise MemoryConnectionError("gone", retryable=False)
            return await super().append(write)

    async def main():
        backend = Failing()
        service = JafMemorySessionService(BackendProvider(backend))
        session = await service.create_session(**ME, session_id="s")
        event = Event(author="user", actions=EventActions(state_delta={"user:lang": "fr", "own": 2}))
        backend.fails = True
        with pytest.raises(MemoryConnectionError):
            await service.append_event(session, event)
        assert [one.id for one in session.events] == [event.id]
        await service.append_event(session, event)
        stored = await service.get_session(**ME, session_id="s")
        assert shown(stored) == shown(session)
        assert stored.state == {"user:lang": "fr", "own": 2}

    asyncio.run(main())


def test_a_listing_reads_each_state_once():
    """However many sessions there are, a listing reads the app's state once, and that of each user once."""

    async def use():
        done = []
        provider = create_in_memory_provider(observers=[lambda event: done.append(event.operation)])
        service = JafMemorySessionService(provider)
        for user in ("a", "b", "c"):
            for _ in range(2):
                await service.create_session(app_name="app", user_id=user, state={"app:k": 1, "user:k": user})
        done.clear()
        listed = (await service.list_sessions(app_name="app")).sessions
        assert {(one.user_id, one.state["user:k"], one.state["app:k"]) for one in listed} == {
            ("a", "a", 1),
            ("b", "b", 1),
            ("c", "c", 1),
        }
        assert (done.count("find_conversations"), len(listed)) == (4, 6)

    asyncio.run(use())


def test_windows_read_no_more_than_they_show():
    """A window of a long session reads as many events as it shows; one by time reads by pages."""

    async def use():
        backend = CountingBackend()
        service = JafMemorySessionService(BackendProvider(backend))
        session = await service.create_session(**ME, session_id="s")
        for number in range(350):
            await service.append_event(session, Event(author="bot", timestamp=1000.0 + number))
        backend.read_messages = 0
        found = await service.get_session(**ME, session_id="s", config=GetSessionConfig(num_recent_events=5))
        assert [event.timestamp for event in found.events] == [1345.0 + number for number in range(5)]
        assert backend.read_messages == 5
        found = await service.get_session(**ME, session_id="s", config=GetSessionConfig(after_timestamp=1230))
        assert [event.timestamp for event in found.events] == [1230.0 + number for number in range(120)]
        assert backend.read_messages == 205
        await service.append_event(found, Event(author="bot"))  # it is up to date

    asyncio.run(use())


def test_an_event_is_a_message_and_comes_back():
    """Whatever an event holds, a message is made of it under its id, and the same event of that."""
    response = types.FunctionResponse(id="f", name="weather", response={"a": [1, None]})
    file = types.Part(file_data=types.FileData(file_uri="gs://x", mime_type="a/b"))
    for parts in (
        [types.Part(text="")],
        [types.Part(function_response=response), types.Part(text="x")],
        [file],
        [],
        None,
    ):
        content = None if parts is None else types.Content(role="user", parts=parts)
        event = Event(
            author="user", content=content, invocation_id="i", branch="b.c", error_code="E", custom_metadata={"a": 1}
        )
        message = to_message(event)
        assert (to_event(message), message.message_id) == (event, event.id)
    assert to_event(Message(role="user", content="another engine's")) is None


def test_wrong_use_is_told():
    """What is no async provider is refused."""
    sync = SyncMemoryProvider(create_in_memory_provider())
    with pytest.raises(MemoryInvalidInputError, match="not a SyncMemoryProvider"):
        JafMemorySessionService(sync)
    sync.close()
