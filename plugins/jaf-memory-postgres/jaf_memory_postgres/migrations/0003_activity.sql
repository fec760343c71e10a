-- An append to a busy conversation changes nothing that stands in an index, so that the server can put the new header into
-- the old one's page (a "HOT" update): the indexes are left alone, and the conversation stays quick even while somebody's
-- old snapshot keeps all of its dead rows.

DROP INDEX IF EXISTS {index_of:user_id}, {index_of:updated_at}, {index_of:expires_at}, {index_of:metadata};

-- Room for that in each page.
ALTER TABLE {header} SET (fillfactor = 80);

-- The beginning of the twentieth of a second in which the activity lies: whoever sorts by it first, and by the time then, sorts
-- by the time. Not longer, because who made thousands of conversations in one go would have all of them sorted for the ten
-- newest. By the expiry nobody sorts.
ALTER TABLE {header}
    ADD COLUMN active_span timestamptz NOT NULL
        GENERATED ALWAYS AS (date_bin('50 ms', updated_at, timestamptz '2000-01-01Z')) STORED,
    ADD COLUMN expiry_span timestamptz
        GENERATED ALWAYS AS (date_bin('15 s', expires_at, timestamptz '2000-01-01Z')) STORED;

-- The id in the second one is of no use but that it makes the first the smaller one: where few users have many
-- conversations each, the server would rather leave out those of the others than go by the user.

CREATE INDEX {index:user_id} ON {header} (user_id, active_span);
CREATE INDEX {index:updated_at} ON {header} (active_span, conversation_id);
CREATE INDEX {index:expires_at} ON {header} (expiry_span) WHERE expiry_span IS NOT NULL;
