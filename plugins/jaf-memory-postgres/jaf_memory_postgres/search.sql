-- The index for searches: made and dropped on demand, beside the numbered layouts, which know nothing of it.
--
-- What words a message has, Python says. So a change only notes the message, by a trigger, whoever makes it: another
-- program, an older one. The notes are carried over later, many at once, and until then a search reads what they name.

-- A key, because a table without one takes no UPDATE while a publication of all tables is there.
CREATE TABLE {search_state} (
    rule               text PRIMARY KEY,    -- which words a text has: jaf_memory_core.search.RULE of who made this
    built_conversation bigint NOT NULL,     -- of what stood here before, all up to this message is noted
    built_position     bigint NOT NULL,
    complete           boolean NOT NULL     -- all of it is
);

-- One message may stand here twice: who carries it over removes the notes that he has seen, and no later one.
CREATE TABLE {search_waiting} (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversation bigint NOT NULL,
    position     bigint NOT NULL
);

CREATE INDEX {index:search_place} ON {search_waiting} (conversation, position);

CREATE TABLE {search} (
    conversation bigint NOT NULL,
    position     bigint NOT NULL,
    words        tsvector NOT NULL,
    PRIMARY KEY (conversation, position)
);

CREATE INDEX {index:search_words} ON {search} USING gin (words) WITH (gin_pending_list_limit = 256);

-- As its owner: whoever may write messages needs no right to write here. First what waits, then what is in the index: who
-- carries a message over at this moment holds its note.
CREATE FUNCTION {search_notes}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM {search_waiting} AS note USING dropped
            WHERE note.conversation = dropped.conversation AND note.position = dropped.position;
        DELETE FROM {search} AS found USING dropped
            WHERE found.conversation = dropped.conversation AND found.position = dropped.position;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO {search_waiting} (conversation, position) SELECT conversation, position FROM added;
    END IF;
    RETURN NULL;
END
$function$;

CREATE TRIGGER {index:search_added} AFTER INSERT ON {message} REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION {search_notes}();

CREATE TRIGGER {index:search_changed} AFTER UPDATE ON {message} REFERENCING OLD TABLE AS dropped NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION {search_notes}();

CREATE TRIGGER {index:search_dropped} AFTER DELETE ON {message} REFERENCING OLD TABLE AS dropped
    FOR EACH STATEMENT EXECUTE FUNCTION {search_notes}();
