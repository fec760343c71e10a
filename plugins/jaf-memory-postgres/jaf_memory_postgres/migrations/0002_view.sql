-- The view is for reading. What can be made again at any time stands here, and only here from now on: functions, the
-- view, its triggers. Whatever is missing of it is made again by applying this file once more.

-- Messages as an application gave them. The settings are bound to the function, because a session may have others.
-- Not parallel: within a parallel plan PL/pgSQL can catch no error.
CREATE OR REPLACE FUNCTION {shown}(bodies text[]) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $function$
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

CREATE OR REPLACE FUNCTION {labels}(metadata jsonb, user_id text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $function$
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

-- A reader of the view needs no right on the tables. Where an administrator has put row level security on them, he needs
-- it, and sees what these two see as himself: functions in a view run as its reader, while its tables are its owner's.
CREATE OR REPLACE FUNCTION {admits}(header bigint) RETURNS boolean LANGUAGE sql STABLE AS $function$
    SELECT EXISTS (SELECT FROM {header} AS one WHERE one.id = $1)
$function$;

CREATE OR REPLACE FUNCTION {admits_message}(conversation bigint, place bigint) RETURNS boolean LANGUAGE sql STABLE AS $function$
    SELECT EXISTS (SELECT FROM {message} AS one WHERE one.conversation = $1 AND one.position = $2)
$function$;

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
    header.updated_at
FROM {header} AS header
WHERE (header.expires_at IS NULL OR header.expires_at > clock_timestamp())
    AND (NOT row_security_active(header.tableoid) OR {admits}(header.id));

-- PostgreSQL would pass a DELETE through to the headers, and leave the messages.
CREATE OR REPLACE FUNCTION {refuses}() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'object_not_in_prerequisite_state',
        MESSAGE = 'the view ' || quote_ident(TG_TABLE_NAME) || ' is for reading',
        HINT = 'Write and erase conversations through jaf-memory (its provider, or the command jaf-memory).';
END
$function$;

DROP TRIGGER IF EXISTS {index:refuses_row} ON {view};
CREATE TRIGGER {index:refuses_row} INSTEAD OF INSERT OR UPDATE OR DELETE ON {view}
    FOR EACH ROW EXECUTE FUNCTION {refuses}();

-- Before any row is looked at, and where none is found.
DROP TRIGGER IF EXISTS {index:refuses} ON {view};
CREATE TRIGGER {index:refuses} BEFORE INSERT OR UPDATE OR DELETE ON {view}
    FOR EACH STATEMENT EXECUTE FUNCTION {refuses}();
