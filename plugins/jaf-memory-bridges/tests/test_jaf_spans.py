"""The spans of a run of JAF's engine on the servers: their tree, and all that they say."""

import asyncio

import pytest
from jaf_memory_bridges.jaf import create_memory_provider_from_env
from jaf_memory_otel import Telemetry
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from services.stores import settings_of

CANARY = "CANARY-6b0d"


@pytest.fixture(params=["redis", "postgres"])
def served(request, tmp_path):
    """Variables of a store on a server."""
    return settings_of(request.param, request, tmp_path)


def tree(spans):
    """Name of a parent → the names of its children, in the order in which they began."""
    names = {span.context.span_id: span.name for span in spans}
    found = {}
    for span in sorted(spans, key=lambda one: one.start_time):
        parent = names[span.parent.span_id] if span.parent else None
        found.setdefault(parent, []).append(span.name)
    return found


def test_a_run(served, engine):
    """A run is what the engine asks of the memory, each a span under the application's, and nothing of what is said."""
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = tracers.get_tracer("application")

    async def use():
        memory = await create_memory_provider_from_env(served, user_id=f"user-{CANARY}", observers=[Telemetry(tracers)])
        tools = [engine.tool("look")]
        script = engine.Script([("1", "look", {"what": CANARY})], CANARY, CANARY)
        config = engine.config(memory, script, tools=tools)
        for number in (1, 2):
            with tracer.start_as_current_span(f"request {number}"):
                await engine.run(config, CANARY)
        await memory.close()

    asyncio.run(use())
    spans = exporter.get_finished_spans()
    tracers.shutdown()
    shown = tree(spans)
    assert shown.pop(None) == ["open", "request 1", "request 2"]
    assert set(shown) == {"request 1", "request 2"}
    ours = [span for span in spans if span.parent]
    first, second = shown["request 1"], shown["request 2"]
    assert first[-1] == second[-1] == "append_messages"
    assert set(first + second) <= {"append_messages", "get_conversation", "get_messages", "get_recent_messages"}
    system = {"redis": "redis", "postgres": "postgresql"}[served["JAF_MEMORY_TYPE"]]
    for span in ours:
        assert span.kind is SpanKind.CLIENT
        assert span.status.status_code is StatusCode.UNSET
        assert not span.events
        assert span.attributes["db.system.name"] == system
        assert span.attributes["db.operation.name"] == span.name
    written = [dict(span.attributes) for span in ours if span.name == "append_messages"]
    assert [(one["gen_ai.operation.name"], one["gen_ai.memory.record.count"]) for one in written] == [
        ("upsert_memory", 4),
        ("upsert_memory", 2),
    ]
    assert all(one["jaf.memory.size"] > 100 for one in written)
    allowed = {
        "db.system.name",
        "db.operation.name",
        "db.operation.batch.size",
        "db.response.returned_rows",
        "gen_ai.operation.name",
        "gen_ai.memory.record.count",
        "jaf.memory.size",
    }
    assert {key for span in ours for key in span.attributes} <= allowed
    assert CANARY not in "".join(span.to_json() for span in spans)
