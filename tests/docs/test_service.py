"""The service of docs/recipes/fastapi.md: the file of the page, in the process and behind a real server."""

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
from page_code import ROOT, files_of
from services.ports import free_port
from services.stores import BACKENDS, settings_of

from jaf_memory_core import MemorySession, create_memory_provider_from_env
from jaf_memory_core.session import MemoryConfig

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

TEXT = files_of(ROOT / "docs" / "recipes" / "fastapi.md")["service.py"]
ANN, BOB = ({"Authorization": f"Bearer token-of-{name}"} for name in ("ann", "bob"))
PATIENCE = 60


@pytest.fixture
def service(tmp_path, monkeypatch):
    """The page's file as a module, over a store in memory; its model does not wait, and notes what it is shown."""
    (tmp_path / "service.py").write_text(TEXT, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("service", tmp_path / "service.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "service", module)
    spec.loader.exec_module(module)
    module.shown = []

    async def model(view):
        module.shown.append([message.content for message in view])
        for word in view[-1].content.split():
            if word == "fail":
                raise RuntimeError("the model is away")
            yield f"{word} "

    monkeypatch.setattr(module, "model", model)
    return module


@contextlib.asynccontextmanager
async def clients(service):
    """Ann, Bob, and somebody unknown, each at a client of their own, as long as the service lives."""
    async with service.lifespan(service.app), contextlib.AsyncExitStack() as stack:
        # An error behind the status ends the stream, as a server would.
        transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://service", headers=headers)
            )
            for headers in (ANN, BOB, {})
        ]


async def made(client, title=""):
    """A new conversation."""
    answer = await client.post("/conversations", json={"title": title})
    assert answer.status_code == 201
    return f"/conversations/{answer.json()['id']}"


async def asked(client, place, content, message_id="q", *, edits=None):
    """A turn; what was streamed, and the id of the answer."""
    question = {"message_id": message_id, "content": content}
    method, path = ("POST", "turns") if edits is None else ("PUT", f"messages/{edits}")
    answer = await client.request(method, f"{place}/{path}", json=question)
    assert answer.status_code == 200, answer.text
    *pieces, done = map(json.loads, answer.text.splitlines())
    return "".join(piece["piece"] for piece in pieces), done["done"]


async def said(client, place):
    """All that stands in a conversation."""
    answer = await client.get(f"{place}/messages")
    assert answer.status_code == 200, answer.text
    return answer.json()["messages"]


def contents(messages):
    """What they say."""
    return [message["content"] for message in messages]


def test_lists_go_on_by_cursors(service):
    """Conversations come by pages, the latest first, and messages the newest page first; nothing is left out."""

    async def scenario():
        async with clients(service) as (ann, _, _):
            places = [await made(ann, f"chat {number}") for number in range(5)]
            await asked(ann, places[0], "a b c")
            titles, cursor = [], None
            while True:
                given = {"limit": 2} | ({"cursor": cursor} if cursor else {})
                page = (await ann.get("/conversations", params=given)).json()
                titles += [one["title"] for one in page["conversations"]]
                cursor = page["next"]
                if cursor is None:
                    break
            assert titles == ["chat 0", "chat 4", "chat 3", "chat 2", "chat 1"]
            newest = (await ann.get(f"{places[0]}/messages", params={"limit": 1})).json()
            assert contents(newest["messages"]) == ["a b c "]
            older = (await ann.get(f"{places[0]}/messages", params={"limit": 1, "before": newest["before"]})).json()
            assert contents(older["messages"]) == ["a b c"]
            assert older["before"] is None

    asyncio.run(scenario())


def test_users_do_not_meet(service):
    """Whatever Bob asks of Ann's conversation, there is none, and nothing of it has changed afterwards."""

    async def scenario():
        async with clients(service) as (ann, bob, unknown):
            place = await made(ann)
            await asked(ann, place, "a secret", "q")
            stood = await service.app.state.provider.get_conversation(place.rpartition("/")[2])
            question = {"message_id": "q", "content": "what?"}
            for method, path, body in (
                ("GET", "/messages", None),
                ("POST", "/turns", question),
                ("PUT", "/messages/q", question),
                ("POST", "/regenerate", None),
                ("POST", "/forks", {"until_message_id": "q"}),
                ("DELETE", "", None),
            ):
                assert (await bob.request(method, place + path, json=body)).status_code == 404, path
                assert (await unknown.request(method, place + path, json=body)).status_code == 401, path
            assert (await bob.get("/conversations")).json() == {"conversations": [], "next": None}
            assert await service.app.state.provider.get_conversation(stood.conversation_id) == stood

    asyncio.run(scenario())


def test_twice_is_once(service):
    """A repeated question gets the answer that it had, without the model; with another text it is a conflict."""

    async def scenario():
        async with clients(service) as (ann, _, _):
            place = await made(ann)
            first = await asked(ann, place, "one two", "q")
            assert await asked(ann, place, "one two", "q") == first
            await asked(ann, place, "three", "r")
            assert await asked(ann, place, "one two", "q") == first
            assert service.shown == [["one two"], ["one two", "one two ", "three"]]
            other = await ann.post(f"{place}/turns", json={"message_id": "q", "content": "else"})
            assert (other.status_code, other.json()["outcome"]) == (409, "not_applied")
            assert contents(await said(ann, place)) == ["one two", "one two ", "three", "three "]

    asyncio.run(scenario())


def test_edited_and_answered_again(service):
    """An edit takes the question and all behind it away; a regenerated answer is another one; a fork keeps the old."""

    async def scenario():
        async with clients(service) as (ann, _, _):
            place = await made(ann)
            _, before = await asked(ann, place, "one", "q")
            await asked(ann, place, "two", "r")
            copy = (await ann.post(f"{place}/forks", json={"until_message_id": "r"})).json()
            assert copy["messages"] == 2
            _, edited = await asked(ann, place, "three", "s", edits="q")
            assert contents(await said(ann, place)) == ["three", "three "]
            assert await asked(ann, place, "three", "s", edits="q") == ("three ", edited)
            answer = await ann.post(f"{place}/regenerate")
            assert json.loads(answer.text.splitlines()[-1])["done"] not in (before, edited)
            assert contents(await said(ann, place)) == ["three", "three "]
            assert contents(await said(ann, f"/conversations/{copy['id']}")) == ["one", "one "]
            missing = await ann.put(f"{place}/messages/q", json={"message_id": "t", "content": "four"})
            assert missing.status_code == 404
            assert contents(await said(ann, place)) == ["three", "three "]

    asyncio.run(scenario())


def test_errors_are_told(service, monkeypatch):
    """Each kind of error has its status; what is the store's own affair is not told, and what is busy says how long."""
    monkeypatch.setenv("JAF_MEMORY_MAX_MESSAGE_BYTES", "1000")

    async def scenario():
        async with clients(service) as (ann, _, _):
            place = await made(ann)
            turns = f"{place}/turns"
            large = await ann.post(turns, json={"message_id": "q", "content": "x" * 1000})
            assert (large.status_code, "allowed are 1000" in large.json()["error"]) == (413, True)
            assert (await ann.post(turns, json={"message_id": "", "content": "x"})).status_code == 422
            assert (await ann.get("/conversations", params={"cursor": "none"})).status_code == 422
            assert (await ann.post(f"{place}/regenerate")).status_code == 409
            provider = service.app.state.provider
            key = place.rpartition("/")[2]
            held = await provider.acquire_lease(key, 12)
            busy = await ann.post(turns, json={"message_id": "q", "content": "x"})
            assert (busy.status_code, int(busy.headers["Retry-After"]) in range(10, 13)) == (409, True)
            await provider.release_lease(held)
            assert await said(ann, place) == []
            assert (await ann.get("/ready")).json()["ready"]
            await provider.close()
            gone = await ann.post(turns, json={"message_id": "q", "content": "x"})
            assert (gone.status_code, gone.headers["Retry-After"]) == (503, "2")
            assert gone.json()["error"] == "the store cannot be reached"
            assert ((await ann.get("/ready")).status_code, (await ann.get("/live")).status_code) == (503, 200)

    asyncio.run(scenario())


def test_a_model_that_fails(service):
    """What had come stands there as unfinished, and the same request makes the answer anew."""

    async def scenario():
        async with clients(service) as (ann, _, _):
            place = await made(ann)
            cut = await ann.post(f"{place}/turns", json={"message_id": "q", "content": "one fail"})
            assert cut.text.splitlines() == ['{"piece": "one "}']
            question, half = await said(ann, place)
            assert (half["content"], half["unfinished"]) == ("one ", True)

            async def better(_view):
                yield "all well"

            service.model = better
            text, _ = await asked(ann, place, "one fail", "q")
            assert text == "all well"
            assert contents(await said(ann, place)) == [question["content"], "all well"]
            assert "unfinished" not in (await said(ann, place))[1]

    asyncio.run(scenario())


def test_a_client_that_neither_reads_nor_stays(service):
    """Where it hangs up while a piece is on its way to it, the answer is closed before the request has ended."""

    async def scenario():
        async with clients(service) as (ann, _, _):
            place = await made(ann)
            stuck = asyncio.Event()
            body = json.dumps({"message_id": "q", "content": "one two"}).encode()
            events = [{"type": "http.request", "body": body, "more_body": False}]

            async def receive():
                if events:
                    return events.pop()
                await stuck.wait()
                return {"type": "http.disconnect"}

            async def send(event):
                if b"piece" in event.get("body", b""):
                    stuck.set()
                    await asyncio.Event().wait()

            headers = [(b"authorization", b"Bearer token-of-ann"), (b"content-type", b"application/json")]
            scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "query_string": b""}
            await service.app({**scope, "path": f"{place}/turns", "headers": headers}, receive, send)
            provider, key = service.app.state.provider, place.rpartition("/")[2]
            await provider.acquire_lease(key, 5)
            _, half = await provider.get_recent_messages(key)
            assert (half.content, half.unfinished) == ("one ", True)

    asyncio.run(scenario())


# Behind a real server, on the stores that processes share.


@pytest.fixture(params=[name for name in BACKENDS if name != "memory"])
def serving(request, tmp_path):
    """A uvicorn process with the page's file, its address, and the settings of its store."""
    settings = settings_of(request.param, request, tmp_path)
    (tmp_path / "service.py").write_text(TEXT, encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-W", "error", "-m", "uvicorn", "service:app", "--app-dir", str(tmp_path)]
    command += ["--port", str(port), "--timeout-graceful-shutdown", "1"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        ends = time.monotonic() + PATIENCE
        while not _ready(address):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < ends, (tmp_path / "log").read_text()
            time.sleep(0.05)
        yield process, address, settings
    finally:
        process.kill()
        process.wait()


def _ready(address):
    try:
        return urllib.request.urlopen(f"{address}/ready").status == 200
    except OSError:
        return False


async def cut_off(client, place, content, message_id, pieces):
    """Ask, listen to so many pieces of the answer, and hang up; what was heard."""
    heard = []
    question = {"message_id": message_id, "content": content}
    async with client.stream("POST", f"{place}/turns", json=question) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            heard.append(json.loads(line)["piece"])
            if len(heard) == pieces:
                break
    return heard


def test_behind_a_server(serving):
    """A client that hangs up leaves an answer that says that it is none, and the conversation free; so does SIGTERM."""
    process, address, settings = serving
    words = [f"word-{number}" for number in range(100)]

    async def hangs_up():
        async with httpx.AsyncClient(base_url=address, headers=ANN, timeout=PATIENCE) as ann:
            place = await made(ann)
            heard = await cut_off(ann, place, " ".join(words[:10]), "q", 3)
            # The lease is given back in the end; whoever asks meanwhile is told to wait.
            ends = time.monotonic() + PATIENCE
            other = {"message_id": "q", "content": "else"}
            while "Retry-After" in (await ann.post(f"{place}/turns", json=other)).headers:
                assert time.monotonic() < ends
                await asyncio.sleep(0.05)
            _, half = await said(ann, place)
            assert half["unfinished"]
            kept = half["content"].split()
            assert kept == words[: len(kept)]
            assert len(heard) <= len(kept) < 10
            text, _ = await asked(ann, place, " ".join(words[:10]), "q")
            assert text.split() == words[:10]
            assert [message.get("unfinished") for message in await said(ann, place)] == [None, None]
        async with httpx.AsyncClient(base_url=address, headers=BOB, timeout=PATIENCE) as bob:
            assert (await bob.get(f"{place}/messages")).status_code == 404
            assert (await bob.get("/conversations")).json()["conversations"] == []

    async def is_ended():
        heard = []
        async with httpx.AsyncClient(base_url=address, headers=ANN, timeout=PATIENCE) as ann:
            place = await made(ann)
            with contextlib.suppress(httpx.TransportError):  # the stream ends in the middle
                question = {"message_id": "q", "content": " ".join(words)}
                async with ann.stream("POST", f"{place}/turns", json=question) as answer:
                    async for line in answer.aiter_lines():
                        heard.append(json.loads(line)["piece"].strip())
                        if len(heard) == 2:
                            process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, PATIENCE)
        assert 2 <= len(heard) < 100
        async with await create_memory_provider_from_env(settings) as provider:
            key = place.rpartition("/")[2]
            _, half = await provider.get_recent_messages(key)
            assert half.unfinished
            kept = half.content.split()
            assert kept == words[: len(kept)]
            assert len(heard) <= len(kept), "what a client has read is not kept"
            session = MemorySession(MemoryConfig(provider=provider), conversation_id=key, user_id="ann", lease=5)
            async with session:  # the lease was given back
                pass

    asyncio.run(hangs_up())
    asyncio.run(is_ended())
