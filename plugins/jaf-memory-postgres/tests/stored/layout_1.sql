-- What version 0.1.0 left in a database: four conversations, one of them expired, as pg_dump wrote it.
CREATE FUNCTION public.talks__labels(metadata jsonb, user_id text) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
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
$$;
CREATE FUNCTION public.talks__shown(bodies text[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
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
$$;
CREATE TABLE public.talks__header (
    id bigint NOT NULL,
    conversation_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    user_id character varying(255) COLLATE pg_catalog."C",
    incarnation text NOT NULL,
    version bigint NOT NULL,
    metadata jsonb NOT NULL,
    first_position bigint NOT NULL,
    message_count bigint NOT NULL,
    size bigint NOT NULL,
    trimmed boolean NOT NULL,
    ttl double precision,
    expires_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.05');
CREATE TABLE public.talks__message (
    conversation bigint NOT NULL,
    "position" bigint NOT NULL,
    message_id character varying(255) NOT NULL COLLATE pg_catalog."C",
    body text NOT NULL
);
CREATE VIEW public.talks AS
 SELECT header.id,
    header.conversation_id,
    header.user_id,
    public.talks__shown(
        CASE
            WHEN (header.size < 250000000) THEN ARRAY( SELECT message.body
               FROM public.talks__message message
              WHERE ((message.conversation = header.id) AND (message."position" >= header.first_position))
              ORDER BY message."position")
            ELSE ARRAY['{"too_large_for_jsonb": true}'::text]
        END) AS messages,
    public.talks__labels(header.metadata, (header.user_id)::text) AS metadata,
    header.created_at,
    header.updated_at
   FROM public.talks__header header
  WHERE ((header.expires_at IS NULL) OR (header.expires_at > clock_timestamp()));
ALTER TABLE public.talks__header ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.talks__header_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.talks__layout (
    version integer NOT NULL,
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
INSERT INTO public.talks__header OVERRIDING SYSTEM VALUE VALUES (1, 'plain', 'u1', '1962668cab774905', 1, '{}', 0, 2, 114, false, NULL, NULL, '2026-11-29 06:02:31.708867+00', '2026-11-29 06:02:31.708867+00');
INSERT INTO public.talks__header OVERRIDING SYSTEM VALUE VALUES (2, 'labelled', 'u1', 'bb55247eaaa6378b', 2, '{"n": ["1.0"], "deep": ["{\"a\":[null],\"b\":1}", "{\"b\":1,\"a\":[null]}"], "more": ["true"], "k\\u0000": ["\"\\u00e9\""], "trace_id": ["\"t1\""]}', 0, 2, 103, false, NULL, NULL, '2026-11-29 06:02:31.712187+00', '2026-11-29 06:02:31.725134+00');
INSERT INTO public.talks__header OVERRIDING SYSTEM VALUE VALUES (3, 'kept', 'u2', 'd9ddd7fc3662b7ac', 2, '{"trace_id": ["\"t2\""]}', 0, 1, 49, false, 1000000000, '2058-08-07 07:49:11.726751+00', '2026-11-29 06:02:31.725995+00', '2026-11-29 06:02:31.726751+00');
INSERT INTO public.talks__header OVERRIDING SYSTEM VALUE VALUES (4, 'gone', NULL, '5c9c8134bc502394', 2, '{"trace_id": ["\"t3\""]}', 0, 1, 53, false, 0.001, '2026-11-29 06:02:31.736967+00', '2026-11-29 06:02:31.731765+00', '2026-11-29 06:02:31.735967+00');
INSERT INTO public.talks__layout VALUES (1, 'conversations', '2026-11-29 06:02:31.70225+00');
INSERT INTO public.talks__message VALUES (1, 0, 'm1', '{"role":"user","content":"hello","message_id":"m1"}');
INSERT INTO public.talks__message VALUES (1, 1, 'm2', '{"role":"assistant","content":"hi \u0000 é","message_id":"m2"}');
INSERT INTO public.talks__message VALUES (2, 0, 'm1', '{"role":"user","content":"one","message_id":"m1"}');
INSERT INTO public.talks__message VALUES (2, 1, 'm2', '{"role":"assistant","content":"two","message_id":"m2"}');
INSERT INTO public.talks__message VALUES (3, 0, 'm1', '{"role":"user","content":"ttl","message_id":"m1"}');
INSERT INTO public.talks__message VALUES (4, 0, 'm1', '{"role":"user","content":"expired","message_id":"m1"}');
SELECT pg_catalog.setval('public.talks__header_id_seq', 4, true);
ALTER TABLE ONLY public.talks__header
    ADD CONSTRAINT talks__header_conversation_id_key UNIQUE (conversation_id);
ALTER TABLE ONLY public.talks__header
    ADD CONSTRAINT talks__header_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.talks__layout
    ADD CONSTRAINT talks__layout_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.talks__message
    ADD CONSTRAINT talks__message_id UNIQUE (conversation, message_id);
ALTER TABLE ONLY public.talks__message
    ADD CONSTRAINT talks__message_pkey PRIMARY KEY (conversation, "position");
CREATE INDEX talks__created_at ON public.talks__header USING btree (created_at, conversation_id);
CREATE INDEX talks__expires_at ON public.talks__header USING btree (expires_at) WHERE (expires_at IS NOT NULL);
CREATE INDEX talks__metadata ON public.talks__header USING gin (metadata jsonb_path_ops) WITH (gin_pending_list_limit='256') WHERE (metadata <> '{}'::jsonb);
CREATE INDEX talks__updated_at ON public.talks__header USING btree (updated_at, conversation_id);
CREATE INDEX talks__user_id ON public.talks__header USING btree (user_id, updated_at, conversation_id);
