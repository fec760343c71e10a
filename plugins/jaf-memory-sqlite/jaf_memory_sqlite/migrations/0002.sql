-- Schema 2. `updated_at` has become the time of the last change of messages, by which lists go; what changes nothing of
-- them (metadata, expiry, a summary, a lease) sets this one instead, and moves no entry of an index on activity. Whatever
-- of the two is later is when the conversation was changed last, so that an append, which sets the other, leaves it alone.
ALTER TABLE conversation ADD COLUMN amended_at INTEGER;

CREATE INDEX conversation_amended ON conversation (amended_at) WHERE amended_at IS NOT NULL;
