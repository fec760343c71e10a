-- An append changes nothing that stands in an index, so that the server can put the new header into the old one's page
-- (a "HOT" update): the indexes are left alone, among them that of the metadata, and a busy conversation stays quick
-- even while somebody's old snapshot keeps all of its dead rows.

DROP INDEX IF EXISTS {index_of:user_id}, {index_of:updated_at}, {index_of:expires_at}, {index_of:metadata};

-- Room for that in each page.
ALTER TABLE {header} SET (fillfactor = 80);

-- The beginning of the quarter of a minute in which a time lies: it changes that seldom, and whoever sorts by it first, and
-- by the time then, sorts by the time.
ALTER TABLE {header}
    ADD COLUMN active_span timestamptz NOT NULL
        GENERATED ALWAYS AS (date_bin('15 s', updated_at, timestamptz '2000-01-01Z')) STORED,
    ADD COLUMN expiry_span timestamptz
        GENERATED ALWAYS AS (date_bin('15 s', expires_at, timestamptz '2000-01-01Z')) STORED;

CREATE INDEX {index:user_id} ON {header} (user_id, active_span);
CREATE INDEX {index:updated_at} ON {header} (active_span);
CREATE INDEX {index:expires_at} ON {header} (expiry_span) WHERE expiry_span IS NOT NULL;
