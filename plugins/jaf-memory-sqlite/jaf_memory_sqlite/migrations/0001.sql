-- Schema 1. One row of `conversation` for each conversation, one row of `message` for each of its messages.
--
-- Times are whole microseconds since 1970, UTC; text is compared byte by byte, which for UTF-8 is the order of code points.
-- AUTOINCREMENT: the number of a deleted conversation is never given to another, so that a row of `message` that some tool
-- has left behind (foreign keys are off unless asked for) can never turn up in somebody else's conversation.
CREATE TABLE conversation (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation_id TEXT    NOT NULL UNIQUE,
    user_id         TEXT,
    incarnation     TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    updated_second  INTEGER NOT NULL,   -- updated_at in whole seconds: see below
    expires_at      INTEGER,
    ttl             REAL,               -- seconds by which a write renews expires_at
    first_position  INTEGER NOT NULL,   -- messages stand at first_position, …, first_position + message_count - 1
    message_count   INTEGER NOT NULL,
    trimmed         INTEGER NOT NULL,   -- 1: a cap has left out messages
    size            INTEGER NOT NULL,   -- bytes of all bodies
    largest         INTEGER NOT NULL,   -- no body has more bytes
    trace_id        TEXT,               -- metadata.trace_id as canonical JSON, so that it can be looked up
    metadata        TEXT    NOT NULL    -- last: it may be long, and most writes leave it alone
);

-- Who was active when, to the second only: so the many writes of one turn change these two indexes once, and the few
-- conversations of one second are sorted when they are asked for.
CREATE INDEX conversation_of_user ON conversation (user_id, updated_second) WHERE user_id IS NOT NULL;
CREATE INDEX conversation_updated ON conversation (updated_second);
CREATE INDEX conversation_created ON conversation (created_at, conversation_id);
CREATE INDEX conversation_expires ON conversation (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX conversation_traced ON conversation (trace_id) WHERE trace_id IS NOT NULL;

-- `id` is conversation * 2^32 + position: the messages of a conversation lie together, in their order, wherever in the file
-- other conversations grow meanwhile, and a page of them is one range.
CREATE TABLE message (
    id           INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
    message_id   TEXT    NOT NULL,
    body         TEXT    NOT NULL       -- the message as JSON, as jaf_memory_core.codec writes it
);

CREATE UNIQUE INDEX message_once ON message (conversation, message_id);
