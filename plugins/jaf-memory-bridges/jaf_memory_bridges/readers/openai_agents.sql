-- name: tables
SELECT name FROM sqlite_master WHERE type = 'table'

-- name: sessions
-- Rows without a session are read as well: nothing that is there is to be lost silently.
SELECT session_id, created_at, updated_at FROM agent_sessions
UNION ALL
SELECT session_id, min(created_at), max(created_at) FROM agent_messages AS item
WHERE NOT EXISTS (SELECT 1 FROM agent_sessions AS session WHERE session.session_id = item.session_id) GROUP BY session_id
ORDER BY 2, 1

-- name: items
SELECT id, message_data FROM agent_messages WHERE session_id = ? ORDER BY id

-- name: branches
-- Of an AdvancedSQLiteSession; branches share what stands before they part.
SELECT branch_id FROM message_structure WHERE session_id = ? GROUP BY branch_id ORDER BY min(id)

-- name: branch_items
SELECT item.id, item.message_data FROM message_structure AS place
JOIN agent_messages AS item ON item.id = place.message_id
WHERE place.session_id = ? AND place.branch_id = ? ORDER BY place.sequence_number, place.id

-- name: taken
SELECT EXISTS (SELECT 1 FROM agent_sessions WHERE session_id = :id)
    OR EXISTS (SELECT 1 FROM agent_messages WHERE session_id = :id)
