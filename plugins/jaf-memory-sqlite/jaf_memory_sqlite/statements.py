"""Every statement on conversations and messages; `schema/` has the tables.

The same text each time, so that each connection prepares it once. Bodies are TEXT for whoever opens the file with a
tool, and bytes to us, hence the casts, which copy nothing.
"""
# ruff: noqa: S608  (these texts are put together from one another; every value is bound)

from __future__ import annotations

_HEADER = (
    "id, conversation_id, user_id, incarnation, version, created_at, updated_at, expires_at, ttl, "
    "first_position, message_count, trimmed, size, largest, updated_second"
)
WHOLE = f"SELECT {_HEADER}, metadata FROM conversation"
"""Rows that `rows.kept` reads."""

KEYS = "SELECT created_at, conversation_id FROM conversation"

HEADER = f"SELECT {_HEADER} FROM conversation WHERE conversation_id = ?"
HEADER_WITH_METADATA = f"{WHOLE} WHERE conversation_id = ?"
METADATA = "SELECT metadata FROM conversation WHERE id = ?"

# Messages. INDEXED BY, because a planner without statistics may take the index's first column for the whole way.
BODIES = "SELECT CAST(body AS BLOB) FROM message WHERE id >= ? AND id < ? ORDER BY id"
TAIL = """
SELECT
    user_id, expires_at, first_position, message_count,
    CASE WHEN size <= ? OR largest * ? <= ? THEN (
        SELECT CAST(group_concat(body) AS BLOB) FROM (
            SELECT body FROM message
            WHERE id >= (conversation.id << 32) + max(first_position, min(first_position + message_count, ?) - ?)
              AND id < (conversation.id << 32) + min(first_position + message_count, ?)
            ORDER BY id
        )
    ) END
FROM conversation WHERE conversation_id = ?
"""
"""A small page in one row, its bodies with commas between them: cheaper than 20 rows, and a snapshot by itself."""

ROW_OF_MESSAGE = "SELECT id FROM message INDEXED BY message_once WHERE conversation = ? AND message_id = ?"
BYTES = "SELECT ifnull(sum(length(CAST(body AS BLOB))), 0) FROM message WHERE id >= ? AND id < ?"
ADD = "INSERT INTO message (id, conversation, message_id, body) VALUES (?, ?, ?, CAST(? AS TEXT))"
ADD_UNHELD = ADD.replace("INSERT", "INSERT OR IGNORE", 1)
DROP = "DELETE FROM message WHERE id >= ? AND id < ?"
COPY = (
    "INSERT INTO message (id, conversation, message_id, body) "
    "SELECT id + ?, ?, message_id, body FROM message WHERE id >= ? AND id < ?"
)


def held(count: int) -> str:
    """Look for so many message ids in a conversation."""
    return (
        "SELECT message_id, CAST(body AS BLOB) FROM message INDEXED BY message_once "
        f"WHERE conversation = ? AND message_id IN ({', '.join('?' * count)})"
    )


# Headers, in parts: a column that a statement names costs a change of each of its indexes, though it stays equal.
CREATE = """
INSERT INTO conversation (
    conversation_id, user_id, incarnation, version, created_at, updated_at, updated_second, expires_at, ttl,
    first_position, message_count, trimmed, size, largest, trace_id, metadata
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
TOUCH = """
UPDATE conversation
SET version = ?, updated_at = ?, first_position = ?, message_count = ?, trimmed = ?, size = ?, largest = ?
WHERE id = ?
"""
MOVE = "UPDATE conversation SET updated_second = ? WHERE id = ?"
RENEW = "UPDATE conversation SET expires_at = ?, ttl = ? WHERE id = ?"
OWN = "UPDATE conversation SET user_id = ? WHERE id = ?"
LABEL = "UPDATE conversation SET trace_id = ?, metadata = ? WHERE id = ?"

# Erasing; the messages go with their conversation.
ERASE = "DELETE FROM conversation WHERE id = ?"
COUNT_OF_USER = "SELECT count(*) FROM conversation WHERE user_id = ? AND (expires_at IS NULL OR expires_at > ?)"
ERASE_USER = "DELETE FROM conversation WHERE user_id = ?"
PURGE = (
    "DELETE FROM conversation WHERE id IN "
    "(SELECT id FROM conversation WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"
)
PURGE_OF_USER = (
    "DELETE FROM conversation WHERE id IN "
    "(SELECT id FROM conversation INDEXED BY conversation_of_user WHERE user_id = ? AND expires_at <= ? LIMIT ?)"
)

WRITE_NOTHING = "DELETE FROM conversation WHERE 0"
"""Fails where nothing can be written; BEGIN IMMEDIATE does not, on a file without the right to write."""

STATS = (
    "SELECT count(*), sum(message_count), sum(size), min(created_at), max(created_at) "
    "FROM conversation WHERE (expires_at IS NULL OR expires_at > ?)"
)
STATS_OF_USER = f"{STATS} AND user_id = ?"
