"""Names: of attributes, metrics and operations, as OpenTelemetry's semantic conventions have them.

Database: version 1.44.0, stable but for `db.response.returned_rows` and `db.client.connection.*`.
GenAI: the memory operations of the repository `semantic-conventions-genai` (mid-2026), all in development.
Beside them stand names of our own, below `jaf.memory`.
"""

from __future__ import annotations

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"

SYSTEM = "db.system.name"
OPERATION = "db.operation.name"
BATCH_SIZE = "db.operation.batch.size"
RETURNED_ROWS = "db.response.returned_rows"
ERROR_TYPE = "error.type"
POOL = "db.client.connection.pool.name"
STATE = "db.client.connection.state"

GENAI_OPERATION = "gen_ai.operation.name"
GENAI_CONVERSATION = "gen_ai.conversation.id"
GENAI_RECORDS = "gen_ai.memory.record.count"

OUTCOME = "jaf.memory.outcome"
ATTEMPTS = "jaf.memory.attempts"
CONFLICT = "jaf.memory.conflict"
SIZE = "jaf.memory.size"

SYSTEMS = {"postgres": "postgresql"}
"""Providers whose system has another name in the conventions; that of all others is the provider's."""

GENAI_OPERATIONS = {
    "store_messages": "upsert_memory",
    "append_messages": "upsert_memory",
    "import_conversation": "upsert_memory",
    "import_conversations": "upsert_memory",
    "store_summary": "upsert_memory",
    "revise_messages": "update_memory",
    "update_metadata": "update_memory",
    "fork_conversation": "create_memory",
    "get_conversation": "search_memory",
    "get_conversation_until_message": "search_memory",
    "get_condensed_conversation": "search_memory",
    "get_recent_messages": "search_memory",
    "get_messages": "search_memory",
    "find_conversations": "search_memory",
    "iter_conversations": "search_memory",
    "search_messages": "search_memory",
    "truncate_conversation_after": "delete_memory",
    "delete_messages": "delete_memory",
    "delete_conversation": "delete_memory",
    "clear_user_conversations": "delete_memory",
    "purge_expired": "delete_memory",
}
"""Our operations that are operations on memory in the GenAI conventions."""

KNOWN_ERRORS = frozenset(
    {
        "CancelledError",
        "KeyboardInterrupt",
        "MemoryConfigurationError",
        "MemoryConflictError",
        "MemoryConnectionError",
        "MemoryError",
        "MemoryInvalidInputError",
        "MemoryNotFoundError",
        "MemoryStorageError",
        "TimeoutError",
    }
)
"""Errors that are told by their names; all others are `_OTHER`: their number has no bound."""

OTHER = "_OTHER"

DURATIONS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Bounds of the buckets of `db.client.operation.duration`, as the convention has them."""


def system(provider: str) -> str:
    """The name of a provider's system."""
    return SYSTEMS.get(provider, provider)


def error_type(name: str) -> str:
    """The name of an error, out of a bounded number."""
    return name if name in KNOWN_ERRORS else OTHER
