-- `updated_at` has become the time of the last change of messages, by which lists go; what changes nothing of them (metadata,
-- expiry, a summary, a lease) sets `amended_at` instead, and no index on activity. Whatever of the two is later is when the
-- conversation was changed last, so that an append, which sets the other, leaves this one alone, and its index with it.
-- Whatever is missing is made again by applying this file once more.

ALTER TABLE {header} ADD COLUMN IF NOT EXISTS amended_at timestamptz;

CREATE INDEX IF NOT EXISTS {index:amended_at} ON {header} (amended_at) WHERE amended_at IS NOT NULL;

CREATE OR REPLACE VIEW {view} AS
SELECT
    header.id,
    header.conversation_id,
    header.user_id,
    {shown}(
        -- A text array has a limit of its own, 1 GB.
        CASE WHEN header.size < 250000000 THEN ARRAY(
            SELECT message.body FROM {message} AS message
            WHERE message.conversation = header.id AND message.position >= header.first_position
                AND (NOT row_security_active(message.tableoid) OR {admits_message}(message.conversation, message.position))
            ORDER BY message.position
        ) ELSE ARRAY['{"too_large_for_jsonb": true}'] END
    ) AS messages,
    {labels}(header.metadata, header.user_id) AS metadata,
    header.created_at,
    greatest(header.updated_at, header.amended_at) AS updated_at
FROM {header} AS header
WHERE (header.expires_at IS NULL OR header.expires_at > clock_timestamp())
    AND (NOT row_security_active(header.tableoid) OR {admits}(header.id));
