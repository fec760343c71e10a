-- Every statement on conversations and messages; `migrations/` has the tables.
--
-- The same text each time, so that each connection prepares it once. Bodies are TEXT for whoever opens the file with a
-- tool, and bytes to us, hence the casts, which copy nothing.

-- name: columns
id, conversation_id, user_id, incarnation, version, created_at, updated_at, expires_at, ttl,
first_position, message_count, trimmed, size, largest, listed_at, amended_at, gaps

-- name: live
(expires_at IS NULL OR expires_at > ?)

-- Headers, read. `rows.kept` reads them.

-- name: headers
SELECT {columns}, metadata FROM conversation

-- name: whole
-- The same with the messages, their bodies with commas between them, unless they have too many bytes, or gaps.
SELECT {columns}, metadata, CASE WHEN size <= ? AND gaps = 0 THEN (
    SELECT CAST(group_concat(body) AS BLOB) FROM (
        SELECT body FROM message WHERE id >= conversation.id << 32 AND id < (conversation.id + 1) << 32 ORDER BY id
    )
) END FROM conversation

-- name: keys
SELECT created_at, conversation_id FROM conversation

-- name: header
SELECT {columns} FROM conversation WHERE conversation_id = ?

-- name: header_with_metadata
{headers} WHERE conversation_id = ?

-- name: stats
SELECT count(*), sum(typeof(message_count) || typeof(size) || typeof(created_at) = 'integerintegerinteger'), sum(message_count), sum(size), min(created_at), max(created_at) FROM conversation WHERE {live}

-- name: stats_of_user
{stats} AND user_id = ?

-- name: count_of_user
SELECT count(*) FROM conversation WHERE user_id = ? AND {live}

-- name: owners
-- From one owner to the next, each found in the index by its first column: whoever has many conversations costs no more.
WITH RECURSIVE owner (id) AS (
    SELECT min(user_id) FROM conversation WHERE user_id > ?1
    UNION ALL
    SELECT (SELECT min(user_id) FROM conversation WHERE user_id > owner.id) FROM owner WHERE owner.id IS NOT NULL
)
SELECT id FROM owner
WHERE id IS NOT NULL AND EXISTS (
    SELECT 1 FROM conversation WHERE user_id = owner.id AND (expires_at IS NULL OR expires_at > ?2)
)
LIMIT ?3

-- Headers, written in parts: a column that a statement names costs a change of each of its indexes, though it stays equal.

-- name: new_header
INTO conversation (
    conversation_id, user_id, incarnation, version, created_at, updated_at, listed_at, expires_at, ttl,
    first_position, message_count, trimmed, size, largest, trace_id, metadata, amended_at, gaps
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: create
INSERT {new_header}

-- name: create_missing
INSERT OR IGNORE {new_header}

-- name: touch
UPDATE conversation
SET version = ?, updated_at = ?, first_position = ?, message_count = ?, trimmed = ?, size = ?, largest = ?
WHERE id = ?

-- name: space
UPDATE conversation SET gaps = ? WHERE id = ?

-- name: move
UPDATE conversation SET listed_at = ? WHERE id = ?

-- name: busy
-- How many are busy from a time on, up to a limit; it looks at the index alone.
SELECT count(*) FROM (
    SELECT 1 FROM conversation INDEXED BY conversation_updated WHERE listed_at > ? AND listed_at < ? LIMIT ?
)

-- name: amend
UPDATE conversation SET amended_at = ? WHERE id = ?

-- name: renew
UPDATE conversation SET expires_at = ?, ttl = ? WHERE id = ?

-- name: own
UPDATE conversation SET user_id = ? WHERE id = ?

-- name: label
UPDATE conversation SET trace_id = ?, metadata = ? WHERE id = ?

-- name: write_nothing
-- Fails where nothing can be written; BEGIN IMMEDIATE does not, on a file without the right to write.
DELETE FROM conversation WHERE 0

-- Messages, read.

-- name: bodies
SELECT CAST(body AS BLOB) FROM message WHERE id >= ? AND id < ? ORDER BY id

-- name: newest_placed
-- Of a conversation with gaps: the newest so many between two rows, the newest first.
SELECT id, CAST(body AS BLOB) FROM message WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT ?

-- name: oldest_placed
SELECT id, CAST(body AS BLOB) FROM message WHERE id >= ? AND id < ? ORDER BY id LIMIT ?

-- name: row_at
-- The row of the message at a place, counted from a row.
SELECT id FROM message WHERE id >= ? AND id < ? ORDER BY id LIMIT 1 OFFSET ?

-- name: count_held
SELECT count(*) FROM message INDEXED BY message_once WHERE conversation = ?

-- name: messages_before
SELECT count(*) FROM message WHERE id >= ? AND id < ?

-- name: tail
-- A small page in one row, its bodies with commas between them: cheaper than 20 rows, and a snapshot by itself.
SELECT
    user_id, expires_at, first_position, message_count, gaps,
    CASE WHEN size <= ? OR largest * ? <= ? THEN ({joined_page}) END
FROM conversation WHERE conversation_id = ?

-- name: joined_page
SELECT CAST(group_concat(body) AS BLOB) FROM (
    SELECT body FROM message
    WHERE id >= (conversation.id << 32) + max(first_position, min(first_position + message_count, ?) - ?)
      AND id < (conversation.id << 32) + min(first_position + message_count, ?)
    ORDER BY id
)

-- name: ends
-- The same, and behind it the first messages, below a position, of those that stand before the page.
SELECT
    user_id, expires_at, first_position, message_count, gaps,
    CASE WHEN size <= ? OR largest * ? <= ? THEN ({joined_page}) END,
    CASE WHEN size <= ? OR largest * ? <= ? THEN (
        SELECT CAST(group_concat(body) AS BLOB) FROM (
            SELECT body FROM message
            WHERE id >= (conversation.id << 32) + first_position
              AND id < (conversation.id << 32) + min(?, min(first_position + message_count, ?) - ?)
            ORDER BY id
        )
    ) END
FROM conversation WHERE conversation_id = ?

-- name: row_of_message
-- INDEXED BY, here and below, because a planner without statistics may take the index's first column for the whole way.
SELECT id FROM message INDEXED BY message_once WHERE conversation = ? AND message_id = ?

-- name: held
-- `rows.held` puts as many places into the brackets as it has ids.
SELECT message_id, CAST(body AS BLOB) FROM message INDEXED BY message_once
WHERE conversation = ? AND message_id IN (?)

-- name: bytes
SELECT ifnull(sum(length(CAST(body AS BLOB))), 0) FROM message WHERE id >= ? AND id < ?

-- Messages, written.

-- name: new_message
INTO message (id, conversation, message_id, body) VALUES (?, ?, ?, CAST(? AS TEXT))

-- name: add
INSERT {new_message}

-- name: add_unheld
INSERT OR IGNORE {new_message}

-- name: copy
INSERT INTO message (id, conversation, message_id, body)
SELECT id + ?, ?, message_id, body FROM message WHERE id >= ? AND id < ?

-- name: drop
DELETE FROM message WHERE id >= ? AND id < ?

-- Erasing; the messages go with their conversation.

-- name: standing
-- No more than it takes, so that what is damaged can be erased.
SELECT id, CASE typeof(expires_at) WHEN 'integer' THEN expires_at END
FROM conversation WHERE conversation_id = ? AND (? IS NULL OR user_id = ?)

-- name: erase
DELETE FROM conversation WHERE id = ?

-- name: erase_user
DELETE FROM conversation WHERE user_id = ?

-- name: purge
DELETE FROM conversation WHERE id IN (SELECT id FROM conversation WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)

-- name: purge_of_user
DELETE FROM conversation WHERE id IN (
    SELECT id FROM conversation INDEXED BY conversation_of_user WHERE user_id = ? AND expires_at <= ? LIMIT ?
)

-- The index for searches, where there is one: `search.sql` makes it.

-- name: search_stands
-- Each of its triggers too: without one, what is written passes by.
SELECT count(*) FROM sqlite_master WHERE name IN
('search_state', 'search_waiting', 'search', 'search_added', 'search_changed', 'search_dropped')

-- name: search_state
SELECT rule, built, complete FROM search_state

-- name: search_begin
INSERT INTO search_state (rule, built, complete) VALUES (?, -1, NOT EXISTS (SELECT 1 FROM message))

-- name: search_built
UPDATE search_state SET built = ?, complete = ?

-- name: search_waits
SELECT count(*) FROM (SELECT 1 FROM search_waiting LIMIT ?)

-- name: search_unread
SELECT waiting.id, CAST(message.body AS BLOB) FROM search_waiting AS waiting LEFT JOIN message ON message.id = waiting.id
ORDER BY waiting.id LIMIT ?

-- name: search_unbuilt
SELECT id, CAST(body AS BLOB) FROM message WHERE id > ? ORDER BY id LIMIT ?

-- name: search_keep
INSERT OR REPLACE INTO search (rowid, words) VALUES (?, ?)

-- name: search_carried
DELETE FROM search_waiting WHERE id = ?

-- name: search_merge
INSERT INTO search (search, rank) VALUES ('merge', ?)

-- name: search_optimize
INSERT INTO search (search) VALUES ('optimize')

-- name: search_count
SELECT count(*) FROM (SELECT 1 FROM search WHERE search MATCH ? LIMIT ?)

-- name: search_proposed
-- CROSS JOIN: from the messages to their conversations, of which there are fewer than a filter may leave.
WITH proposed (place) AS (
    SELECT rowid FROM search WHERE search MATCH ? UNION SELECT id FROM search_waiting
)
SELECT {columns}, metadata, place FROM proposed CROSS JOIN conversation ON conversation.id = place >> 32

-- name: search_body
SELECT CAST(body AS BLOB) FROM message WHERE id = ?
