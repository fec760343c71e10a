-- name: tables
-- As langchain-postgres makes them, and the older PostgresChatMessageHistory and SQLChatMessageHistory.
SELECT table_schema, table_name, bool_or(column_name = 'created_at') AS dated
FROM information_schema.columns
WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND ($1::text IS NULL OR table_name = $1)
GROUP BY table_schema, table_name
HAVING bool_or(column_name = 'id' AND data_type IN ('integer', 'bigint'))
   AND bool_or(column_name = 'session_id' AND data_type IN ('uuid', 'text', 'character varying'))
   AND bool_or(column_name = 'message' AND data_type IN ('json', 'jsonb', 'text', 'character varying'))
ORDER BY table_schema, table_name

-- name: dated
SELECT session_id::text AS session, id, message::text AS message, created_at FROM {table} ORDER BY 1, 2

-- name: undated
SELECT session_id::text AS session, id, message::text AS message, NULL AS created_at FROM {table} ORDER BY 1, 2
