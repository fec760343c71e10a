"""Other libraries that keep conversations, each on the stores that it has.

Each is used as its documentation shows, over a pool of the same size as ours. What a library cannot do, say reading the
last messages only, is no figure.
"""

from __future__ import annotations

from importlib import import_module

from benchmarks.competitors import Competitor, Place
from benchmarks.measurement import describe

PEERS = {
    "memory": {
        "jaf-py": "jaf:InMemory",
        "Pydantic AI": "pydantic_ai:InMemory",
        "py-key-value": "key_value:InMemory",
    },
    "sqlite": {
        "OpenAI Agents SDK": "openai_agents:Sqlite",
        "LangGraph": "langgraph:Sqlite",
        "py-key-value": "key_value:Sqlite",
    },
    "redis": {
        "jaf-py": "jaf:Redis",
        "OpenAI Agents SDK": "openai_agents:Redis",
        "py-key-value": "key_value:Redis",
    },
    "postgres": {
        "jaf-py": "jaf:Postgres",
        "OpenAI Agents SDK": "openai_agents:Postgres",
        "LangChain": "langchain:Postgres",
        "LangGraph": "langgraph:Postgres",
        "Google ADK": "adk:Postgres",
        "py-key-value": "key_value:Postgres",
    },
}
"""Module and class of each peer, by store and name."""

DISTRIBUTIONS = (
    "jaf-py",
    "openai-agents",
    "langchain-postgres",
    "langgraph",
    "langgraph-checkpoint-postgres",
    "langgraph-checkpoint-sqlite",
    "google-adk",
    "pydantic-ai-slim",
    "py-key-value-aio",
)
"""What brings them."""


def load(backend: str, place: Place) -> tuple[list[Competitor], dict[str, str]]:
    """The peers on a store that can be imported, and why the others cannot."""
    found, failed = [], {}
    for name, where in PEERS[backend].items():
        module, _, kind = where.partition(":")
        try:
            peer = getattr(import_module(f"benchmarks.peers.{module}"), kind)(place)
        except Exception as error:  # noqa: BLE001  (whatever a library's import raises is told in the table)
            failed[name] = describe(error)
        else:
            peer.name = name
            found.append(peer)
    return found, failed
