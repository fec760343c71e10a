-- The metadata of each conversation once more, to search in: an index over the headers would be written anew with each
-- new place of a header, all keys of it. Nothing here is data of its own. Whatever is missing of it is made again by
-- applying this file once more.

CREATE TABLE IF NOT EXISTS {label} (
    conversation bigint PRIMARY KEY,
    metadata     jsonb NOT NULL
);

CREATE INDEX IF NOT EXISTS {index:metadata} ON {label} USING gin (metadata jsonb_path_ops)
    WITH (gin_pending_list_limit = 256);

-- As its owner: whoever may write headers needs no right to write here.
CREATE OR REPLACE FUNCTION {keeps}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.metadata <> '{}') THEN
        INSERT INTO {label} (conversation, metadata) VALUES (NEW.id, NEW.metadata)
            ON CONFLICT (conversation) DO UPDATE SET metadata = EXCLUDED.metadata;
    ELSE
        DELETE FROM {label} WHERE conversation = OLD.id;
    END IF;
    RETURN NULL;
END
$function$;

DROP TRIGGER IF EXISTS {index:keeps_made} ON {header};
CREATE TRIGGER {index:keeps_made} AFTER INSERT ON {header}
    FOR EACH ROW WHEN (NEW.metadata <> '{}') EXECUTE FUNCTION {keeps}();

DROP TRIGGER IF EXISTS {index:keeps_changed} ON {header};
CREATE TRIGGER {index:keeps_changed} AFTER UPDATE OF metadata ON {header}
    FOR EACH ROW WHEN (OLD.metadata IS DISTINCT FROM NEW.metadata) EXECUTE FUNCTION {keeps}();

DROP TRIGGER IF EXISTS {index:keeps_erased} ON {header};
CREATE TRIGGER {index:keeps_erased} AFTER DELETE ON {header}
    FOR EACH ROW WHEN (OLD.metadata <> '{}') EXECUTE FUNCTION {keeps}();

DELETE FROM {label} WHERE NOT EXISTS (SELECT FROM {header} AS header WHERE header.id = conversation);

INSERT INTO {label} AS label (conversation, metadata)
SELECT header.id, header.metadata FROM {header} AS header WHERE header.metadata <> '{}'
ON CONFLICT (conversation) DO UPDATE SET metadata = EXCLUDED.metadata WHERE label.metadata <> EXCLUDED.metadata;
