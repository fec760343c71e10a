-- A header a conversation, a row a message, and a view with the documented columns over both.

CREATE TABLE {header} (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversation_id varchar(255) COLLATE "C" NOT NULL UNIQUE,
    user_id         varchar(255) COLLATE "C",
    incarnation     text NOT NULL,
    version         bigint NOT NULL,
    -- Key → [canonical JSON of the value], with the value as it was given behind it where that differs. Keys and values
    -- are escaped, so that jsonb keeps what it would refuse or change; `@>` compares the canonical form, type-exactly.
    metadata        jsonb NOT NULL,
    first_position  bigint NOT NULL,
    message_count   bigint NOT NULL,
    size            bigint NOT NULL,
    trimmed         boolean NOT NULL,
    ttl             double precision,
    expires_at      timestamptz,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL
);

CREATE INDEX {index:user_id} ON {header} (user_id, updated_at, conversation_id);
CREATE INDEX {index:created_at} ON {header} (created_at, conversation_id);
CREATE INDEX {index:updated_at} ON {header} (updated_at, conversation_id);
CREATE INDEX {index:expires_at} ON {header} (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX {index:metadata} ON {header} USING gin (metadata jsonb_path_ops)
    WITH (gin_pending_list_limit = 256) WHERE metadata <> '{}';

-- Each append writes a header anew, so that a few busy conversations leave many dead rows.
ALTER TABLE {header} SET (autovacuum_vacuum_scale_factor = 0.05);

-- The body is text, which keeps every byte; jsonb does not. There is no foreign key: it would take a lock of its own for
-- each message, and whoever writes messages holds the header's lock already.
CREATE TABLE {message} (
    conversation bigint NOT NULL,
    position     bigint NOT NULL,
    message_id   varchar(255) COLLATE "C" NOT NULL,
    body         text NOT NULL,
    PRIMARY KEY (conversation, position),
    CONSTRAINT {index:message_id} UNIQUE (conversation, message_id)
);

-- Messages as an application gave them. Pure functions, so that the view's reader needs no right on the tables.
CREATE FUNCTION {shown}(bodies text[]) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $function$
DECLARE
    body text;
    one jsonb;
    part jsonb;
    parts jsonb;
    field text;
    messages jsonb[] := '{}';
BEGIN
    FOREACH body IN ARRAY coalesce(bodies, '{}') LOOP
        IF body ~ '\\u(0000|[dD][89a-fA-F])' THEN
            -- What jsonb cannot hold, NUL and lone surrogates, is shown as U+FFFD. Escaped backslashes step aside meanwhile.
            body := replace(body, '\\', chr(1));
            body := replace(body, '\u0000', '\ufffd');
            body := regexp_replace(body, '\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])', '\ufffd', 'g');
            body := regexp_replace(
                body, '(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}', '\ufffd', 'g'
            );
            body := replace(body, chr(1), '\\');
        END IF;
        one := body::jsonb;
        -- Further fields are kept apart from ours; here they stand among them again.
        FOREACH field IN ARRAY ARRAY['content', 'tool_calls', 'attachments'] LOOP
            IF jsonb_typeof(one -> field) = 'array' THEN
                parts := '[]';
                FOR part IN SELECT element FROM jsonb_array_elements(one -> field) AS each(element) LOOP
                    IF field = 'tool_calls' THEN
                        part := '{"type": "function"}' || part;
                        IF part #> '{function,further}' IS NOT NULL THEN
                            part := jsonb_set(
                                part, ARRAY['function'], (part -> 'function') - 'further' || (part #> '{function,further}')
                            );
                        END IF;
                    END IF;
                    parts := parts || jsonb_build_array(part - 'further' || coalesce(part -> 'further', '{}'));
                END LOOP;
                one := jsonb_set(one, ARRAY[field], parts);
            END IF;
        END LOOP;
        messages := messages || ('{"content": null}' || (one - 'further') || coalesce(one -> 'further', '{}'));
    END LOOP;
    RETURN to_jsonb(messages);
EXCEPTION WHEN program_limit_exceeded OR numeric_value_out_of_range OR data_exception THEN
    -- More than jsonb can hold. The provider reads it all the same.
    RETURN jsonb_build_array(jsonb_build_object('content', NULL, 'too_large_for_jsonb', cardinality(bodies)));
END
$function$;

CREATE FUNCTION {labels}(metadata jsonb, user_id text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $function$
DECLARE
    body text;
    decoded jsonb;
BEGIN
    SELECT '{' || coalesce(string_agg('"' || key || '":' || (value ->> -1), ','), '') || '}' INTO body
        FROM jsonb_each(metadata);
    IF body ~ '\\u(0000|[dD][89a-fA-F])' THEN
        body := replace(body, '\\', chr(1));
        body := replace(body, '\u0000', '\ufffd');
        body := regexp_replace(body, '\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])', '\ufffd', 'g');
        body := regexp_replace(
            body, '(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}', '\ufffd', 'g'
        );
        body := replace(body, chr(1), '\\');
    END IF;
    decoded := body::jsonb;
    RETURN CASE WHEN user_id IS NULL THEN decoded ELSE decoded || jsonb_build_object('user_id', user_id) END;
EXCEPTION WHEN program_limit_exceeded OR numeric_value_out_of_range OR data_exception THEN
    RETURN jsonb_build_object('user_id', user_id, 'too_large_for_jsonb', true);
END
$function$;

CREATE VIEW {view} AS
SELECT
    header.id,
    header.conversation_id,
    header.user_id,
    {shown}(
        -- A text array has a limit of its own, 1 GB.
        CASE WHEN header.size < 250000000 THEN ARRAY(
            SELECT message.body FROM {message} AS message
            WHERE message.conversation = header.id AND message.position >= header.first_position
            ORDER BY message.position
        ) ELSE ARRAY['{"too_large_for_jsonb": true}'] END
    ) AS messages,
    {labels}(header.metadata, header.user_id) AS metadata,
    header.created_at,
    header.updated_at
FROM {header} AS header
WHERE header.expires_at IS NULL OR header.expires_at > clock_timestamp();
