"""Spans and metrics of operations, as OpenTelemetry's SDK exports them."""

import asyncio
import contextlib
import json

import pytest
from jaf_memory_testing.samples import talk
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from jaf_memory_core import (
    BackendProvider,
    MemoryConfigurationError,
    MemoryConnectionError,
    MemoryError,
    MemoryQuery,
    Message,
    ProviderConfig,
    create_memory_provider_from_env,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend

CANARY = "CANARY-7f3a"


class Line(InMemoryBackend):
    """A store behind a line that is cut as the test says; its driver tells spans of its own."""

    name = "line"
    waits = True
    driver_errors = (OSError,)

    def __init__(self, tracer=None):
        super().__init__()
        self.fails = []
        self._tracer = tracer

    async def _sent(self, request):
        try:
            if self.fails:
                raise self.fails.pop(0)
            with self._tracer.start_as_current_span("driver") if self._tracer else contextlib.nullcontext():
                await asyncio.sleep(0)
                return await request
        finally:
            request.close()

    async def append(self, write):
        """Append."""
        return await self._sent(super().append(write))

    async def tail(self, tail):
        """Read the end."""
        return await self._sent(super().tail(tail))


def named(spans, name):
    """The spans of an operation."""
    return [span for span in spans if span.name == name]


def test_a_drivers_spans_stand_under_ours(collected):
    """The span of an operation lies under the caller's, covers its retries, and is the parent of the driver's spans."""

    async def main():
        tracer = collected.tracers.get_tracer("test")
        line = Line(tracer)
        provider = BackendProvider(line, observers=[collected.telemetry()])
        with tracer.start_as_current_span("request"):
            await provider.append_messages("c", talk(2), create=True)
            line.fails = [ConnectionResetError()]
            await asyncio.gather(*(provider.get_recent_messages("c") for _ in range(3)))

    asyncio.run(main())
    (request,) = named(collected.spans, "request")
    ours = {span.context.span_id: span for span in collected.spans if "db.operation.name" in span.attributes}
    assert [span.parent.span_id for span in ours.values()] == [request.context.span_id] * 4
    drivers = named(collected.spans, "driver")
    assert sorted(ours[span.parent.span_id].name for span in drivers) == ["append_messages"] + 3 * [
        "get_recent_messages"
    ]
    assert sorted(span.attributes.get("jaf.memory.attempts", 1) for span in ours.values()) == [1, 1, 1, 2]
    (append,) = named(collected.spans, "append_messages")
    assert append.kind is SpanKind.CLIENT
    assert {key: value for key, value in append.attributes.items() if key != "jaf.memory.size"} == {
        "db.system.name": "line",
        "db.operation.name": "append_messages",
        "db.operation.batch.size": 2,
        "gen_ai.operation.name": "upsert_memory",
        "gen_ai.memory.record.count": 2,
    }


def test_what_fails(collected):
    """A failed operation has the status of an error, the error's kind, and what became of it; never its text."""

    class Own(Exception):  # noqa: N818  (a name that we cannot know)
        pass

    async def main():
        line = Line()
        provider = BackendProvider(line, observers=[collected.telemetry()])
        await provider.append_messages("c", talk(1), create=True)
        await provider.append_messages("c", [Message(role="user", content=CANARY)], expected_version=5)
        line.fails = [MemoryConnectionError(CANARY, outcome="unknown")]
        with pytest.raises(MemoryConnectionError):
            await provider.append_messages("c", talk(1), create=True)
        line.fails = [Own(CANARY)]
        with pytest.raises(Own):
            await provider.get_recent_messages("c")

    asyncio.run(main())
    failed = [span for span in collected.spans if span.status.status_code is StatusCode.ERROR]
    assert [(span.attributes["error.type"], span.attributes["jaf.memory.outcome"]) for span in failed] == [
        ("MemoryConflictError", "not_applied"),
        ("MemoryConnectionError", "unknown"),
        ("_OTHER", "unknown"),
    ]
    assert [span.attributes.get("jaf.memory.conflict") for span in failed] == [True, None, None]
    assert not [span for span in collected.spans if span.events or span.status.description]
    assert collected.total("jaf.memory.operation.conflicts") == 1
    assert collected.total("db.client.operation.duration", error__type="MemoryConnectionError") == 1
    assert CANARY not in "".join(span.to_json() for span in collected.spans)


@pytest.mark.parametrize("asked", [False, True])
def test_ids_only_where_they_are_asked_for(collected, asked):
    """The conversation's id stands on spans where it is asked for, and never in metrics."""

    async def main():
        provider = BackendProvider(InMemoryBackend(), observers=[collected.telemetry(conversation_ids=asked)])
        await provider.store_messages(CANARY, talk(1), user_id=f"user-{CANARY}")
        await provider.find_conversations(MemoryQuery(user_id=f"user-{CANARY}"))

    asyncio.run(main())
    assert [span.attributes.get("gen_ai.conversation.id") for span in collected.spans] == [
        CANARY if asked else None,
        None,
    ]
    assert f"user-{CANARY}" not in "".join(span.to_json() for span in collected.spans)
    assert CANARY not in json.dumps(collected.metrics(), default=repr)


def test_counts(collected):
    """What is handed over, read, sent again and removed is counted; what failed is not counted as kept."""

    async def main():
        line = Line()
        provider = BackendProvider(line, observers=[collected.telemetry()])
        await provider.append_messages("a", talk(3), create=True)
        await provider.append_messages("b", talk(2), create=True, user_id="u")
        await provider.append_messages("missing", talk(2))
        line.fails = [ConnectionResetError(), ConnectionResetError()]
        await provider.get_recent_messages("a")
        await provider.delete_conversation("a")
        await provider.clear_user_conversations("u")
        await provider.purge_expired()

    asyncio.run(main())
    assert collected.total("jaf.memory.messages") == 5
    assert collected.total("jaf.memory.messages.size") > 100
    assert collected.total("jaf.memory.operation.retries", db__operation__name="get_recent_messages") == 2
    assert collected.total("jaf.memory.operation.waited") == 1
    assert collected.total("jaf.memory.conversations.removed") == 2
    assert collected.total("db.client.response.returned_rows", db__operation__name="get_recent_messages") == 1
    (point, *_) = collected.metrics()["db.client.operation.duration"]
    assert point.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


def test_an_iteration_is_one_span(collected):
    """An export is one span, which is nobody's parent."""

    async def main():
        tracer = collected.tracers.get_tracer("test")
        provider = BackendProvider(InMemoryBackend(), observers=[collected.telemetry()])
        for name in "abc":
            await provider.store_messages(name, talk(1))
        async for conversation in provider.iter_conversations():
            with tracer.start_as_current_span("shown"):
                await provider.get_conversation(conversation.conversation_id)

    asyncio.run(main())
    (iteration,) = named(collected.spans, "iter_conversations")
    assert iteration.attributes["db.response.returned_rows"] == 3
    assert [span.parent for span in named(collected.spans, "shown")] == [None] * 3


def test_every_store_by_the_environment(environ, monkeypatch, collected):
    """`JAF_MEMORY_PLUGINS=otel` brings it to every store, with the system's name, connections and commits."""
    monkeypatch.setattr("jaf_memory_otel.telemetry.get_tracer_provider", lambda: collected.tracers)
    monkeypatch.setattr("jaf_memory_otel.telemetry.get_meter_provider", lambda: collected.meters)

    async def main():
        named = {**environ, "JAF_MEMORY_PLUGINS": "otel", "JAF_OTEL_CONVERSATION_IDS": "true"}
        provider = await create_memory_provider_from_env(named)
        await asyncio.gather(*(provider.append_messages(f"c{n}", talk(1), create=True) for n in range(8)))
        metrics = collected.metrics()
        await provider.close()
        return metrics

    metrics = asyncio.run(main())
    name = {"postgres": "postgresql"}.get(environ["JAF_MEMORY_TYPE"], environ["JAF_MEMORY_TYPE"])
    spans = named(collected.spans, "append_messages")
    assert {span.attributes["db.system.name"] for span in spans} == {name}
    assert {span.attributes["gen_ai.conversation.id"] for span in spans} == {f"c{n}" for n in range(8)}
    told = {key: sum(point.value for point in points) for key, points in metrics.items() if "db.client.conn" in key}
    if name in ("postgresql", "redis"):
        assert 1 <= told["db.client.connection.count"] <= told["db.client.connection.max"]
        assert told["db.client.connection.pending_requests"] == 0
    if name == "sqlite":
        commits, operations = (metrics[key][0].value for key in ("jaf.memory.commits", "jaf.memory.commit.operations"))
        assert 1 <= commits <= operations
        assert operations == 8


def test_a_wrong_setting_stops_the_start():
    """A setting that is wrong names its variable."""
    named = {"JAF_MEMORY_PLUGINS": "otel", "JAF_OTEL_CONVERSATION_IDS": "maybe"}
    with pytest.raises(MemoryConfigurationError, match="JAF_OTEL_CONVERSATION_IDS"):
        asyncio.run(create_memory_provider_from_env(named))


async def _misuse(provider, line, turn):
    """Twelve operations that fail, or end, in as many ways; each with the canary wherever a caller can put one."""
    key, user = f"{CANARY}-{turn % 7}", f"user-{CANARY}"
    said = Message(role="user", content=CANARY, message_id=f"{CANARY}-{turn}")
    steps = (
        lambda: provider.append_messages(key, [said], {CANARY: CANARY}, user_id=user, create=True),
        lambda: provider.append_messages(key, [Message(role="user", content="x", message_id=said.message_id)]),
        lambda: provider.append_messages(key, [said], expected_version=10_000),
        lambda: provider.append_messages(f"{key}-missing", [said]),
        lambda: provider.store_messages(key, [said], user_id=f"other-{CANARY}"),
        lambda: provider.get_recent_messages(f"{key}-missing"),
        lambda: provider.revise_messages(key, {f"{CANARY}-gone": said}),
        lambda: provider.fork_conversation(key, key),
        lambda: provider.set_expiry(f"{key}-missing", 5),
        lambda: provider.find_conversations(MemoryQuery(user_id=user, metadata={CANARY: CANARY})),
        lambda: provider.append_messages(key, [Message(role="user", content=CANARY)]),
        lambda: provider.get_recent_messages(key),
    )
    for number, step in enumerate(steps):
        if number >= 10:
            line.fails = [(ConnectionRefusedError, ConnectionResetError, ValueError)[turn % 3](CANARY)] * (turn % 2 + 1)
        with contextlib.suppress(MemoryError, ValueError):
            await step()
        line.fails = []
    hurried = asyncio.ensure_future(provider.append_messages(key, [said]))
    await asyncio.sleep(0)
    hurried.cancel()
    await asyncio.gather(hurried, return_exceptions=True)


def test_no_canary_in_ten_thousand_operations(collected):
    """Of 10,000 operations that fail in many ways nothing is told of content, ids or owners; metrics stay bounded."""

    async def main():
        line = Line()
        config = ProviderConfig(reconnect_timeout=0)  # what is cut off is told at once
        async with BackendProvider(line, config, observers=[collected.telemetry()]) as provider:
            for turn in range(800):
                await _misuse(provider, line, turn)
            with contextlib.suppress(MemoryError):
                line.fails = [TimeoutError(CANARY)] * 3
                await provider.get_recent_messages(CANARY)

    asyncio.run(main())
    assert len(collected.spans) >= 10_000
    errors = {span.attributes.get("error.type") for span in collected.spans}
    assert errors >= {
        None,
        "MemoryConflictError",
        "MemoryNotFoundError",
        "MemoryConnectionError",
        "CancelledError",
        "_OTHER",
    }
    told = "".join(f"{span.name} {dict(span.attributes)} {span.status.description}" for span in collected.spans)
    assert CANARY not in told
    assert not [span for span in collected.spans if span.events]
    metrics = collected.metrics()
    assert CANARY not in repr(metrics)
    assert max(len(points) for points in metrics.values()) < 40


def test_no_canary_of_real_stores(environ, collected, caplog):
    """The same on each store, and on servers that refuse a password: no error of a driver's brings anything along."""
    caplog.set_level(0)

    async def main():
        provider = await create_memory_provider_from_env(environ, observers=[collected.telemetry()])
        async with provider:
            for turn in range(30):
                await _misuse(provider, Line(), turn)
        with contextlib.suppress(MemoryError):  # closed
            await provider.get_recent_messages(CANARY)
        for variables in _unreachable(environ):
            with pytest.raises(MemoryError):
                async with await create_memory_provider_from_env(variables, observers=[collected.telemetry()]) as away:
                    await away.get_recent_messages(CANARY)

    asyncio.run(main())
    assert len(collected.spans) >= 30 * 12
    assert CANARY not in "".join(span.to_json() for span in collected.spans)
    assert CANARY not in repr(collected.metrics())
    assert CANARY not in caplog.text


def _unreachable(environ):
    """Variables with a canary for a password, of a server that knows no such user, and of a port where nobody is."""
    name = environ["JAF_MEMORY_TYPE"]
    if name == "redis":
        port = environ["JAF_REDIS_URL"].rpartition(":")[2].partition("/")[0]
        for place in (f"127.0.0.1:{port}", "127.0.0.1:1"):
            yield {
                "JAF_MEMORY_TYPE": name,
                "JAF_REDIS_URL": f"redis://u:{CANARY}@{place}/0",
                "JAF_REDIS_RECONNECT_TIMEOUT": "0",
            }
    if name == "postgres":
        server = environ["JAF_POSTGRES_CONNECTION_STRING"].rpartition("@")[2]
        for place in (server, "127.0.0.1:1/jaf"):
            yield {
                "JAF_MEMORY_TYPE": name,
                "JAF_POSTGRES_CONNECTION_STRING": f"postgresql://nobody:{CANARY}@{place}",
                "JAF_POSTGRES_RECONNECT_TIMEOUT": "0",
            }


def test_the_canary_is_found_where_it_is_told(collected):
    """The search above finds the canary where ids are asked for: it does look."""

    async def main():
        provider = BackendProvider(Line(), observers=[collected.telemetry(conversation_ids=True)])
        await _misuse(provider, provider.backend, 0)

    asyncio.run(main())
    assert CANARY in "".join(str(dict(span.attributes)) for span in collected.spans)


def test_without_an_sdk_nothing_happens():
    """Where no SDK is set up, operations go on as without the plugin, and nothing is kept."""

    async def main():
        named = {"JAF_MEMORY_PLUGINS": "otel"}
        async with await create_memory_provider_from_env(named) as provider:
            await provider.store_messages("c", talk(1))
            return len(await provider.get_recent_messages("c"))

    assert asyncio.run(main()) == 1
    assert not InMemorySpanExporter().get_finished_spans()
