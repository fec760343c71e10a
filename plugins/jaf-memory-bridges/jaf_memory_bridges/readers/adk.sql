-- name: layout
-- An older layout keeps what an event did as a pickle, which nobody should load from a database.
SELECT count(*) FROM pragma_table_info('events') WHERE name = 'event_data'

-- name: layout_on_server
SELECT count(*) FROM information_schema.columns
WHERE table_name = 'events' AND column_name = 'event_data' AND table_schema = ANY (current_schemas(false))

-- name: sessions
SELECT app_name, user_id, id, state, create_time, update_time FROM sessions
ORDER BY create_time, app_name, user_id, id

-- name: events
SELECT id, invocation_id, timestamp, event_data FROM events
WHERE app_name = ? AND user_id = ? AND session_id = ? ORDER BY timestamp, id

-- name: events_on_server
SELECT id, invocation_id, timestamp, event_data FROM events
WHERE app_name = $1 AND user_id = $2 AND session_id = $3 ORDER BY timestamp, id

-- name: user_states
SELECT app_name, user_id, state, update_time FROM user_states ORDER BY app_name, user_id

-- name: app_states
SELECT app_name, NULL, state, update_time FROM app_states ORDER BY app_name
