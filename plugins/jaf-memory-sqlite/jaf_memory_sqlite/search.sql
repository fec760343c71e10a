-- The index for searches: made and dropped on demand, beside the numbered schemas, which know nothing of it.
--
-- What words a message has, Python says. So a change only notes the message, by a trigger, whoever makes it: another
-- program, an older one. The notes are carried over later, many at once, and until then a search reads what they name.
CREATE TABLE search_state (
    rule     TEXT    NOT NULL,      -- which words a text has: jaf_memory_core.search.RULE of who made this
    built    INTEGER NOT NULL,      -- of what stood here before, all up to this row of `message` is carried over
    complete INTEGER NOT NULL       -- 1: all of it
);

CREATE TABLE search_waiting (id INTEGER PRIMARY KEY);

-- No phrases, for the rule decides; with the words in it, so that a trigger can take a message out.
CREATE VIRTUAL TABLE search USING fts5 (words, tokenize = 'ascii', detail = none, columnsize = 0);

CREATE TRIGGER search_added AFTER INSERT ON message BEGIN
    INSERT OR IGNORE INTO search_waiting (id) VALUES (new.id);
END;

CREATE TRIGGER search_changed AFTER UPDATE ON message BEGIN
    DELETE FROM search WHERE rowid = old.id;
    DELETE FROM search_waiting WHERE id = old.id;
    INSERT OR IGNORE INTO search_waiting (id) VALUES (new.id);
END;

CREATE TRIGGER search_dropped AFTER DELETE ON message BEGIN
    DELETE FROM search WHERE rowid = old.id;
    DELETE FROM search_waiting WHERE id = old.id;
END;
