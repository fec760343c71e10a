-- Schema 4. Lists go by `listed_at`. Where a conversation rests, that is `updated_at` itself, so that a list needs no sorting
-- however many were active within one second. A write makes it a busy one, if there are not too many: -2^60 + the time from which
-- on it has been busy, below all that rest. Up to a minute later, writes leave it and its indexes alone, and a list puts the few
-- busy ones of one minute into their order. A minute is part of the stored form: rows.LAG.
DROP INDEX conversation_of_user;
DROP INDEX conversation_updated;
ALTER TABLE conversation RENAME COLUMN updated_second TO listed_at;
UPDATE conversation SET listed_at = updated_at;
CREATE INDEX conversation_of_user ON conversation (user_id, listed_at, conversation_id) WHERE user_id IS NOT NULL;
CREATE INDEX conversation_updated ON conversation (listed_at, conversation_id);
