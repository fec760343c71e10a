BEGIN TRANSACTION;
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
INSERT INTO "conversation" VALUES(1,'user-1:chat/ü','user-1','488c16243b2322f3',3,1795510005491724,1795510005502782,1795510005,2795510005502782,1000000000.0,0,4,0,642,293,'"trace"','{"title":"Reise","trace_id":"trace","n":{"z":1,"y":1.0}}');
INSERT INTO "conversation" VALUES(2,'capped',NULL,'a60984b0af2b71a2',2,1795510005543474,1795510005562438,1795510005,NULL,NULL,3,3,1,157,54,NULL,'{}');
CREATE TABLE message (
    id           INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
    message_id   TEXT    NOT NULL,
    body         TEXT    NOT NULL       -- the message as JSON, as jaf_memory_core.codec writes it
);
INSERT INTO "message" VALUES(4294967296,1,'s1','{"role":"system","content":"You help.","message_id":"s1"}');
INSERT INTO "message" VALUES(4294967297,1,'u1','{"role":"user","content":[{"type":"text","text":"Gr\u00fc\u00dfe \ud83d\ude00 \u0000 \ud800"},{"type":"image_url","further":{"image_url":{"url":"https://example.org/x.png"}}}],"name":"ann","attachments":[{"kind":"image","mime_type":"image/png","name":"a.png","data":"aGk="}],"message_id":"u1"}');
INSERT INTO "message" VALUES(4294967298,1,'a1','{"role":"assistant","tool_calls":[{"id":"call-1","function":{"name":"look","arguments":"{\"q\": 1}"}}],"message_id":"a1","further":{"refusal":null,"score":{"b":1,"a":[1.0,-0.0,1e22,1180591620717411303424,true,null]}}}');
INSERT INTO "message" VALUES(4294967299,1,'t1','{"role":"tool","content":"found","tool_call_id":"call-1","message_id":"t1"}');
INSERT INTO "message" VALUES(8589934595,2,'m3','{"role":"assistant","content":"m 3","message_id":"m3"}');
INSERT INTO "message" VALUES(8589934596,2,'m4','{"role":"user","content":"m 4","message_id":"m4"}');
INSERT INTO "message" VALUES(8589934597,2,'m5','{"role":"assistant","content":"m 5","message_id":"m5"}');
CREATE INDEX conversation_of_user ON conversation (user_id, updated_second) WHERE user_id IS NOT NULL;
CREATE INDEX conversation_updated ON conversation (updated_second);
CREATE INDEX conversation_created ON conversation (created_at, conversation_id);
CREATE INDEX conversation_expires ON conversation (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX conversation_traced ON conversation (trace_id) WHERE trace_id IS NOT NULL;
CREATE UNIQUE INDEX message_once ON message (conversation, message_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('conversation',2);
COMMIT;
