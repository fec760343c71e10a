-- What the provider sends. A header is a row of {header}, a message a row of {message}; fragments that several
-- statements share come first.

-- name: live
(header.expires_at IS NULL OR header.expires_at > clock_timestamp())

-- name: columns
-- A header, in the order of `rows.header`.
header.conversation_id, header.incarnation, header.version, header.created_at, header.updated_at, header.user_id,
header.metadata::text, header.expires_at, header.ttl, header.first_position, header.trimmed, header.message_count,
header.amended_at, header.gaps

-- name: large
-- Bytes of a conversation above which no value holds several of its messages: it would meet limits of the server.
134217728

-- name: all_messages
-- Without a limit the server takes few messages for granted, and sorts all of them; one more than there should be tells
-- that there are more.
SELECT message.position, message.body FROM {message} AS message
WHERE message.conversation = header.id AND message.position >= header.first_position
ORDER BY message.position LIMIT least(greatest(header.message_count, 0), 4611686018427387903) + 1

-- name: bodies
CASE WHEN header.size <= {large} THEN ARRAY(SELECT listed.body FROM ({all_messages}) AS listed) END

-- Reading.

-- name: read
-- A row for each message, or one for none; the first has the header, with the time behind it. One value that holds
-- 1,000 of them costs the server more than twice as much, and each value of each row as much as the message does.
SELECT CASE WHEN listed.position > header.first_position THEN NULL ELSE ROW({columns}, {places}, clock_timestamp()) END,
    listed.body
FROM {header} AS header LEFT JOIN LATERAL ({all_messages}) AS listed ON true
WHERE header.conversation_id = $1

-- name: places
-- Positions of all messages, where they do not follow each other; as text, since within a row the driver reads no array.
CASE WHEN header.gaps > 0 THEN array_to_string(ARRAY(
    SELECT message.position FROM {message} AS message
    WHERE message.conversation = header.id AND message.position >= header.first_position
    ORDER BY message.position
), ',') END

-- name: page_end
least($2::bigint, header.first_position + header.message_count + header.gaps)

-- name: page
-- A hidden limit makes the server expect a part of the messages, and so go through the index, whatever the number is. Where a
-- row is missing, none that is older stands in for it: the page is too short then, and told as damaged.
SELECT message.position, message.body FROM {message} AS message
WHERE message.conversation = header.id AND message.position < {page_end}
    AND message.position >= greatest(header.first_position, {page_end} - (SELECT $3::bigint))
ORDER BY message.position DESC LIMIT (SELECT $3::bigint)

-- name: seen
header.conversation_id = $1 AND {live} AND ($4::text IS NULL OR header.user_id = $4)

-- name: tail
-- A row for each message, the newest first, or one for none; the first has where the conversation begins, and how many
-- messages it has.
SELECT CASE WHEN listed.position < {page_end} - 1 AND header.gaps = 0 THEN NULL
    ELSE ROW(header.first_position, header.message_count, header.gaps) END, listed.body
FROM {header} AS header LEFT JOIN LATERAL ({page}) AS listed ON true
WHERE {seen}

-- name: forwards
-- The first messages behind a position ($2), below another ($5), each with where the conversation begins and how many it has;
-- one row for none. Where a row is missing, none that comes later stands in for it. Of a conversation with gaps the number is
-- -1, and `oldest_placed` has the page.
SELECT header.first_position, CASE WHEN header.gaps = 0 THEN header.message_count ELSE -1 END, listed.body
FROM {header} AS header LEFT JOIN LATERAL (
    SELECT message.position, message.body FROM {message} AS message
    WHERE message.conversation = header.id
        AND message.position >= greatest(header.first_position, $2::bigint + 1)
        AND header.gaps = 0 AND message.position < least($5::bigint, header.first_position + header.message_count,
            greatest(header.first_position, $2::bigint + 1) + $3::bigint)
    ORDER BY message.position LIMIT (SELECT $3::bigint)
) AS listed ON true
WHERE {seen}

-- name: short_tail
-- The same for a short page: its messages as one text, in their order, or null for a large conversation or one with gaps.
SELECT header.first_position, header.message_count, {short_page}, header.gaps FROM {header} AS header WHERE {seen}

-- name: tail_together
-- Those of a group, a row each for what can be seen; the last column says whose it is. What is long on average would keep all
-- others waiting. As values of a subquery the arrays tell the server nothing, so that it keeps one plan for groups of any size,
-- and each conversation is looked up by itself (OFFSET keeps that apart).
SELECT page.first_position, page.message_count, page.bodies, asked.place
FROM unnest((SELECT $1::text[]), (SELECT $2::bigint[]), (SELECT $3::bigint[]), (SELECT $4::text[]))
    WITH ORDINALITY AS asked (conversation_id, before, count, scope, place)
CROSS JOIN LATERAL (
    SELECT header.first_position, header.message_count,
        CASE WHEN header.size <= 16384 * header.message_count AND header.size <= {large} AND header.gaps = 0 THEN (
            SELECT coalesce(string_agg(listed.body, ','), '') FROM (
                SELECT message.position, message.body FROM {message} AS message
                WHERE message.conversation = header.id AND message.position < {end_asked}
                    AND message.position >= greatest(header.first_position, {end_asked} - asked.count)
                ORDER BY message.position DESC LIMIT asked.count
            ) AS listed
        ) END AS bodies
    FROM {header} AS header
    WHERE header.conversation_id = asked.conversation_id AND {live}
        AND (asked.scope IS NULL OR header.user_id = asked.scope)
    OFFSET 0
) AS page

-- name: end_asked
least(asked.before, header.first_position + header.message_count + header.gaps)

-- name: leading
-- The first messages, below a position, of those that stand before the page, as one text, in their order.
(SELECT coalesce(string_agg(first.body, ','), '') FROM (
    SELECT message.position, message.body FROM {message} AS message
    WHERE message.conversation = header.id AND message.position >= header.first_position
        AND message.position < least($5::bigint, {page_end} - $3::bigint)
    ORDER BY message.position LIMIT (SELECT $5::bigint)
) AS first)

-- name: short_page
-- Without a limit, which costs more than it saves: between the two bounds there are no more.
CASE WHEN header.size <= {large} AND header.gaps = 0 THEN (
    SELECT coalesce(string_agg(listed.body, ','), '') FROM (
        SELECT message.body FROM {message} AS message
        WHERE message.conversation = header.id AND message.position < {page_end}
            AND message.position >= greatest(header.first_position, {page_end} - $3::bigint)
        ORDER BY message.position DESC
    ) AS listed
) END

-- name: short_ends
SELECT header.first_position, header.message_count, header.gaps, {short_page}, {leading}
FROM {header} AS header WHERE {seen}

-- name: short_ends_with_header
SELECT {columns}, {short_page}, {leading} FROM {header} AS header WHERE {seen}

-- name: ends
SELECT CASE WHEN listed.position < {page_end} - 1 AND header.gaps = 0 THEN NULL ELSE ROW({columns}, {leading}) END,
    listed.body
FROM {header} AS header LEFT JOIN LATERAL ({page}) AS listed ON true
WHERE {seen}

-- name: placed
-- Of a conversation with gaps: a row for each message of a page, or one for none; the first has the header, how many messages
-- there are, and the first messages, below a position ($6), with their places.
SELECT CASE WHEN listed.place > 1 THEN NULL ELSE ROW(
        {columns},
        (SELECT count(*) FROM {message} AS held WHERE held.conversation = header.id),
        array_to_string(ARRAY(SELECT ahead.position FROM ({ahead}) AS ahead), ','),
        array_to_string(ARRAY(SELECT ahead.body FROM ({ahead}) AS ahead), ',')
    ) END, listed.body, listed.position

-- name: ahead
SELECT message.position, message.body FROM {message} AS message
WHERE message.conversation = header.id AND message.position < $6::bigint
ORDER BY message.position LIMIT (SELECT $6::bigint)

-- name: placed_seen
header.conversation_id = $1 AND {live} AND ($5::text IS NULL OR header.user_id = $5)

-- name: newest_placed
{placed}
FROM {header} AS header LEFT JOIN LATERAL (
    SELECT message.position, message.body, row_number() OVER (ORDER BY message.position DESC) AS place
    FROM {message} AS message
    WHERE message.conversation = header.id AND message.position >= $2::bigint AND message.position < $3::bigint
    ORDER BY message.position DESC LIMIT (SELECT $4::bigint)
) AS listed ON true
WHERE {placed_seen}

-- name: oldest_placed
{placed}
FROM {header} AS header LEFT JOIN LATERAL (
    SELECT message.position, message.body, row_number() OVER (ORDER BY message.position) AS place
    FROM {message} AS message
    WHERE message.conversation = header.id AND message.position >= $2::bigint AND message.position < $3::bigint
    ORDER BY message.position LIMIT (SELECT $4::bigint)
) AS listed ON true
WHERE {placed_seen}

-- name: tails
-- Short pages of several conversations ($1), a row each, in their order; nothing where there is none to be seen. What
-- stands behind more than $5 bytes of messages is left out.
SELECT seen.head, seen.bodies FROM (
    SELECT asked.place, page.head, page.bodies,
        coalesce(sum(octet_length(page.bodies)) OVER (
            ORDER BY asked.place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0) AS before
    FROM unnest($1::text[]) WITH ORDINALITY AS asked (id, place) LEFT JOIN LATERAL (
        SELECT ROW({columns}) AS head, {short_page} AS bodies FROM {header} AS header
        WHERE header.conversation_id = asked.id AND {live} AND ($4::text IS NULL OR header.user_id = $4)
    ) AS page ON true
) AS seen
WHERE seen.before < $5::bigint OR seen.place = 1
ORDER BY seen.place

-- name: header_seen
SELECT {columns} FROM {header} AS header
WHERE header.conversation_id = $1 AND {live} AND ($2::text IS NULL OR header.user_id = $2)

-- name: find_headers
-- Its conditions, order and limit are put behind it.
SELECT {columns} FROM {header} AS header WHERE

-- name: find_whole
SELECT {columns}, {bodies} AS bodies FROM {header} AS header WHERE

-- name: bounded_ids
-- `:within` are the conditions that an index in this order answers, `:where` all of them; both stand in `:walk` newest and
-- in all that match. The second part is not run where the first has enough.
WITH walked AS MATERIALIZED (
    SELECT header.id FROM (
        SELECT header.* FROM {header} AS header WHERE :within {newest_first} LIMIT :walk
    ) AS header WHERE :where LIMIT :most
), matched AS MATERIALIZED (
    SELECT header.id, header.active_span, header.updated_at, header.conversation_id FROM {header} AS header
    WHERE (SELECT count(*) FROM walked) < :most AND :where AND :among
), chosen AS (
    SELECT id FROM walked WHERE (SELECT count(*) FROM walked) >= :most
    UNION ALL
    (SELECT header.id FROM matched AS header {newest_first} LIMIT :most)
)

-- name: bounded_headers
{bounded_ids}
SELECT {columns} FROM {header} AS header WHERE header.id = ANY(ARRAY(SELECT id FROM chosen))
{newest_first} LIMIT :limit OFFSET :offset

-- name: bounded_whole
{bounded_ids}
SELECT {columns}, {bodies} AS bodies FROM {header} AS header WHERE header.id = ANY(ARRAY(SELECT id FROM chosen))
{newest_first} LIMIT :limit OFFSET :offset

-- name: newest_first
-- By the time, and within an index: whoever sorts by its twentieth of a second first has only a few to sort by itself.
{newest_spans}, {within_span}

-- name: newest_spans
-- The same without the order within a span, which costs the server as much as ten rows.
ORDER BY header.active_span DESC

-- name: newest_of_user
ORDER BY header.user_id DESC, header.active_span DESC

-- name: within_span
header.updated_at DESC, header.conversation_id DESC

-- name: span
-- The twentieth of a second of the time that is put in the place of `:time`, as the column has it.
date_bin('50 ms', :time, timestamptz '2000-01-01Z')

-- name: labelled
-- What matches the metadata at `:wanted`, by its own index. As an array, because the server guesses that one in a hundred
-- conversations matches, and would rather read all headers.
header.id = ANY(ARRAY(SELECT label.conversation FROM {label} AS label WHERE label.metadata @> :wanted::text::jsonb))

-- name: scan
SELECT {columns}, header.size FROM {header} AS header WHERE

-- name: scan_whole
-- The same with messages, up to where there is no more `:room` for them, but one conversation at least.
SELECT {columns}, header.size, {bodies} AS bodies FROM (
    SELECT header.*, coalesce(sum(greatest(header.size, 0)) OVER (
        {oldest_first} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ), 0) AS before
    FROM (SELECT header.* FROM {header} AS header WHERE :where {oldest_first} LIMIT :most) AS header
) AS header
WHERE header.before < :room
{oldest_first}

-- name: oldest_first
ORDER BY header.created_at, header.conversation_id

-- name: whole
-- Conversations with their messages, by their ids.
SELECT {columns}, {bodies} AS bodies FROM {header} AS header WHERE header.conversation_id = ANY($1::text[])

-- name: stamps
SELECT header.conversation_id, header.incarnation, header.version
FROM {header} AS header WHERE header.conversation_id = ANY($1::text[])

-- name: stats
SELECT count(*), coalesce(sum(header.message_count), 0)::bigint, coalesce(sum(header.size), 0)::bigint,
    min(header.created_at), max(header.created_at)
FROM {header} AS header WHERE {live}

-- name: stats_of_user
{stats} AND header.user_id = $1

-- name: owners
-- From one owner to the next, each found in the index by its first column: whoever has many conversations costs no more.
WITH RECURSIVE owner AS (
    (SELECT header.user_id FROM {header} AS header WHERE header.user_id > $1 ORDER BY header.user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT header.user_id FROM {header} AS header WHERE header.user_id > owner.user_id
        ORDER BY header.user_id LIMIT 1)
    FROM owner WHERE owner.user_id IS NOT NULL
)
SELECT owner.user_id FROM owner
WHERE owner.user_id IS NOT NULL
    AND EXISTS (SELECT FROM {header} AS header WHERE header.user_id = owner.user_id AND {live})
LIMIT $2

-- Appending and creating, in one statement each.

-- name: touched
-- Of a write that changes messages; see `migrations/0005_amended.sql` for the two times.
{renewed}, version = header.version + 1, user_id = coalesce(header.user_id, $3)

-- name: renewed
updated_at = greatest(header.updated_at, clock_timestamp()),
expires_at = CASE WHEN header.ttl IS NULL THEN header.expires_at
    ELSE clock_timestamp() + make_interval(secs => header.ttl) END

-- name: merged
metadata = CASE WHEN $5::text IS NULL THEN header.metadata ELSE header.metadata || $5::text::jsonb END

-- name: admitted
header.conversation_id = $1 AND {live}
    AND ($2::text IS NULL OR header.user_id = $2)
    AND ($3::text IS NULL OR header.user_id IS NULL OR header.user_id = $3)
    AND ($4::bigint IS NULL OR header.version = $4)

-- name: added
-- The batch stands behind it.
INSERT INTO {message} (conversation, position, message_id, body)
SELECT changed.id, changed.fresh_from + batch.place - 1, batch.message_id, batch.body FROM changed,

-- name: arrays
unnest($7::text[], $8::text[]) WITH ORDINALITY AS batch(message_id, body, place)

-- name: append
-- The header's row lock, then the messages. Nothing comes back where a rule has to decide; error 23505 says that one of
-- the messages is held. Either way nothing was changed.
-- $9 is half of what metadata may have: as it stands here, it is never less than half as long as the rules count it.
WITH changed AS (
    UPDATE {header} AS header SET {touched}, {merged},
        message_count = header.message_count + cardinality($7::text[]), size = header.size + $6
    WHERE {admitted}
        AND ($5::text IS NULL OR octet_length((header.metadata || $5::text::jsonb)::text) <= $9::bigint)
    RETURNING header.id, header.version, header.message_count,
        header.first_position + header.message_count + header.gaps - cardinality($7::text[]) AS fresh_from
), added AS ({added} {arrays})
SELECT version, message_count FROM changed

-- name: append_1
-- An append of so few messages as a turn has, without metadata, each bound by itself: arrays cost the driver and the
-- server more. It does not so much as name the metadata, so that their trigger has nothing to compare.
WITH changed AS (
    UPDATE {header} AS header SET {touched}, message_count = header.message_count + 1, size = header.size + $5
    WHERE {admitted}
    RETURNING header.id, header.version, header.message_count,
        header.first_position + header.message_count + header.gaps - 1 AS fresh_from
), added AS ({added} (VALUES (1, $6::text, $7::text)) AS batch(place, message_id, body))
SELECT version, message_count FROM changed

-- name: append_2
WITH changed AS (
    UPDATE {header} AS header SET {touched}, message_count = header.message_count + 2, size = header.size + $5
    WHERE {admitted}
    RETURNING header.id, header.version, header.message_count,
        header.first_position + header.message_count + header.gaps - 2 AS fresh_from
), added AS ({added} (
    VALUES (1, $6::text, $7::text), (2, $8::text, $9::text)
) AS batch(place, message_id, body))
SELECT version, message_count FROM changed

-- name: append_3
WITH changed AS (
    UPDATE {header} AS header SET {touched}, message_count = header.message_count + 3, size = header.size + $5
    WHERE {admitted}
    RETURNING header.id, header.version, header.message_count,
        header.first_position + header.message_count + header.gaps - 3 AS fresh_from
), added AS ({added} (
    VALUES (1, $6::text, $7::text), (2, $8::text, $9::text), (3, $10::text, $11::text)
) AS batch(place, message_id, body))
SELECT version, message_count FROM changed

-- name: append_4
WITH changed AS (
    UPDATE {header} AS header SET {touched}, message_count = header.message_count + 4, size = header.size + $5
    WHERE {admitted}
    RETURNING header.id, header.version, header.message_count,
        header.first_position + header.message_count + header.gaps - 4 AS fresh_from
), added AS ({added} (
    VALUES (1, $6::text, $7::text), (2, $8::text, $9::text), (3, $10::text, $11::text), (4, $12::text, $13::text)
) AS batch(place, message_id, body))
SELECT version, message_count FROM changed

-- name: append_together
-- The same of a group, in one statement: a row for each conversation, to which one append or several add, and a row for each
-- message, which says whose it is. The last column of what comes back says so, too. A header that somebody holds is skipped, so
-- that a group waits for nobody. One plan is kept, whatever the size of groups and tables: the arrays are values of a subquery,
-- each header is looked up by itself, and the hidden limit lets the server expect one of them.
WITH free AS MATERIALIZED (
    SELECT held.id, asked.* FROM unnest(
        (SELECT $1::text[]), (SELECT $2::text[]), (SELECT $3::text[]), (SELECT $4::bigint[]), (SELECT $5::integer[]),
        (SELECT $6::integer[]), (SELECT $7::bigint[])
    ) WITH ORDINALITY AS asked (conversation_id, scope, user_id, version, writes, count, size, place)
    CROSS JOIN LATERAL (
        SELECT header.id FROM {header} AS header WHERE header.conversation_id = asked.conversation_id
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS held
), changed AS (
    UPDATE {header} AS header SET {renewed}, version = header.version + asked.writes,
        user_id = coalesce(header.user_id, asked.user_id),
        message_count = header.message_count + asked.count, size = header.size + asked.size
    FROM (SELECT * FROM free LIMIT (SELECT 4611686018427387903)) AS asked
    WHERE header.id = asked.id AND {live}
        AND (asked.scope IS NULL OR header.user_id = asked.scope)
        AND (asked.user_id IS NULL OR header.user_id IS NULL OR header.user_id = asked.user_id)
        AND (asked.version IS NULL OR header.version = asked.version)
    RETURNING header.id, header.version, header.message_count,
        header.first_position + header.message_count + header.gaps - asked.count AS fresh_from, asked.place
), added AS (
    INSERT INTO {message} (conversation, position, message_id, body)
    SELECT changed.id, changed.fresh_from + batch.nth, batch.message_id, batch.body
    FROM unnest($8::integer[], $9::integer[], $10::text[], $11::text[]) AS batch(place, nth, message_id, body)
        JOIN changed ON changed.place = batch.place
)
SELECT version, message_count, place FROM changed

-- name: append_capped
-- The same with the oldest removed. It goes ahead only if nobody wrote between its snapshot and its lock (`seen`),
-- because its other parts see that snapshot.
WITH seen AS (
    SELECT header.id, header.version, header.first_position, header.message_count,
        greatest(0, header.message_count + cardinality($7::text[]) - $9::bigint) AS cut
    FROM {header} AS header WHERE header.conversation_id = $1
), cut AS (
    SELECT coalesce(sum(octet_length(message.body)), 0) AS size
    FROM seen, {message} AS message
    WHERE message.conversation = seen.id AND message.position < seen.first_position + seen.cut
), changed AS (
    UPDATE {header} AS header SET {touched}, {merged},
        message_count = header.message_count + cardinality($7::text[]) - (SELECT cut FROM seen),
        first_position = header.first_position + (SELECT cut FROM seen),
        trimmed = header.trimmed OR $10 OR (SELECT cut FROM seen) > 0,
        size = header.size + $6 - (SELECT size FROM cut)
    WHERE {admitted} AND header.version = (SELECT version FROM seen) AND header.id = (SELECT id FROM seen)
        AND header.gaps = 0
        AND ($5::text IS NULL OR octet_length((header.metadata || $5::text::jsonb)::text) <= $11::bigint)
    RETURNING header.id, header.version, header.message_count, header.first_position,
        header.first_position + header.message_count - cardinality($7::text[]) AS fresh_from
), gone AS (
    DELETE FROM {message} AS message USING changed
    WHERE message.conversation = changed.id AND message.position < changed.first_position
), added AS ({added} {arrays})
SELECT version, message_count FROM changed

-- name: create
-- A conversation that is not there yet; nothing comes back, and nothing was changed, if one is.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now),
changed AS (
    INSERT INTO {header} (conversation_id, user_id, incarnation, version, metadata, first_position, message_count, size,
        trimmed, ttl, expires_at, created_at, updated_at, amended_at)
    SELECT $1::text, $2::text, $3::text, 1, $4::text::jsonb, 0, cardinality($5::text[]), $7::bigint, $8::boolean,
        $9::double precision, coalesce($10::timestamptz, now + make_interval(secs => $9)),
        coalesce($11::timestamptz, now), coalesce($12::timestamptz, now), $13::timestamptz
    FROM clock
    ON CONFLICT (conversation_id) DO NOTHING
    RETURNING id, version, message_count
), added AS (
    INSERT INTO {message} (conversation, position, message_id, body)
    SELECT changed.id, batch.ordinality - 1, batch.message_id, batch.body
    FROM changed, unnest($5::text[], $6::text[]) WITH ORDINALITY AS batch(message_id, body, ordinality)
)
SELECT version, message_count FROM changed

-- name: create_many
-- Conversations that are not there yet. In one order: who makes the same ones waits, and two never wait in a circle.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
INSERT INTO {header} (conversation_id, user_id, incarnation, version, metadata, first_position, message_count, size,
    trimmed, ttl, expires_at, created_at, updated_at, amended_at)
SELECT new.conversation_id, new.user_id, new.incarnation, 1, new.metadata::jsonb, 0, new.message_count, new.size,
    new.trimmed, new.ttl, coalesce(new.expires_at, now + make_interval(secs => new.ttl)),
    coalesce(new.created_at, now), coalesce(new.active_at, now), new.amended_at
FROM clock, unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::boolean[], $8::double precision[],
    $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[]
) AS new(conversation_id, user_id, incarnation, metadata, message_count, size, trimmed, ttl, expires_at, created_at, active_at,
    amended_at)
ORDER BY new.conversation_id COLLATE "C"
ON CONFLICT (conversation_id) DO NOTHING
RETURNING conversation_id, id

-- Under the header's lock.

-- name: lock
-- The header under its lock, or nulls; the time is taken behind the lock.
WITH header AS MATERIALIZED (
    SELECT header.* FROM {header} AS header WHERE header.conversation_id = $1 FOR UPDATE
)
SELECT {columns}, header.id, clock_timestamp() AS now
FROM (SELECT 1) AS always LEFT JOIN header ON true

-- name: held
SELECT message_id, body FROM {message} WHERE conversation = $1 AND message_id = ANY($2::text[])

-- name: position
SELECT position FROM {message} WHERE conversation = $1 AND message_id = $2 AND position >= $3

-- name: position_at
-- The position of the message at a place.
SELECT position FROM {message} WHERE conversation = $1 AND position >= $2 ORDER BY position LIMIT 1 OFFSET $3

-- name: messages_between
SELECT count(*) FROM {message} WHERE conversation = $1 AND position >= $2 AND position < $3

-- name: insert_messages
INSERT INTO {message} (conversation, position, message_id, body)
SELECT $1, $2 + batch.ordinality - 1, batch.message_id, batch.body
FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS batch(message_id, body, ordinality)

-- name: insert_header
INSERT INTO {header} (conversation_id, incarnation, version, created_at, updated_at, user_id, metadata, expires_at, ttl,
    first_position, trimmed, message_count, size, amended_at, gaps)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8, $9, $10, $11, $12, $13, $14, $15)
ON CONFLICT (conversation_id) DO NOTHING
RETURNING id

-- name: update_header
UPDATE {header} SET version = $2, updated_at = $3, user_id = $4,
    metadata = CASE WHEN $5::text IS NULL THEN metadata ELSE metadata || $5::text::jsonb END,
    expires_at = $6, ttl = $7, first_position = $8, message_count = $9, trimmed = $10, size = size + $11,
    amended_at = greatest(amended_at, $12), gaps = $13
WHERE id = $1

-- name: replace_header
UPDATE {header} SET incarnation = $2, version = $3, created_at = $4, updated_at = $5, user_id = $6,
    metadata = $7::text::jsonb,
    expires_at = $8, ttl = $9, first_position = $10, trimmed = $11, message_count = $12, size = $13,
    amended_at = $14, gaps = $15
WHERE id = $1

-- name: set_metadata
UPDATE {header} SET metadata = $2::text::jsonb WHERE id = $1

-- name: copy_messages
-- The copy's header knows the size only now; nobody has seen it yet.
WITH copied AS (
    INSERT INTO {message} (conversation, position, message_id, body)
    SELECT $1, position, message_id, body FROM {message}
    WHERE conversation = $2 AND position >= $3 AND position < $4
    RETURNING octet_length(body) AS size
)
UPDATE {header} SET size = (SELECT coalesce(sum(size), 0) FROM copied) WHERE id = $1

-- name: take
DELETE FROM {message} WHERE conversation = $1 AND message_id = ANY($2::text[]) RETURNING message_id, position

-- name: place
INSERT INTO {message} (conversation, position, message_id, body)
SELECT $1, placed.* FROM unnest($2::bigint[], $3::text[], $4::text[]) AS placed

-- Erasing. Everybody who takes several locks takes them in the order of the ids (COLLATE "C", as Python sorts), so that
-- nobody waits in a circle.

-- name: cut
-- Keeps what stands from $2 to below $3; how many bytes went.
WITH gone AS (
    DELETE FROM {message} WHERE conversation = $1 AND (position < $2 OR position >= $3) RETURNING body
)
SELECT coalesce(sum(octet_length(body)), 0) FROM gone

-- name: pick
-- Single messages go; where each stood, and how many bytes it had.
DELETE FROM {message} WHERE conversation = $1 AND message_id = ANY($2::text[])
RETURNING position, octet_length(body)

-- name: delete_messages
DELETE FROM {message} WHERE conversation = ANY($1::bigint[])

-- name: delete_headers
DELETE FROM {header} WHERE id = ANY($1::bigint[]) RETURNING conversation_id, user_id

-- name: writable
-- Always true. It locks no row, but a standby refuses it: what it has not heard of yet is not erased.
NOT EXISTS (SELECT FROM {header} WHERE false FOR UPDATE)

-- name: last_id
SELECT coalesce(max(id), 0) FROM {header} WHERE user_id = $1 AND {writable}

-- name: any_left
SELECT EXISTS (SELECT FROM {header} WHERE user_id = $1 AND id <= $2) AND {writable}

-- name: lock_of_user
SELECT header.id, {live} AS live FROM {header} AS header
WHERE header.user_id = $1 AND header.id <= $2 ORDER BY header.conversation_id LIMIT $3 FOR UPDATE

-- name: lock_expired
SELECT header.id FROM {header} AS header
-- Within a SELECT of its own the time is one for the whole statement, and so may bound the index.
WHERE header.expiry_span <= (SELECT clock_timestamp()) AND header.expires_at <= (SELECT clock_timestamp())
    AND ($1::text IS NULL OR header.user_id = $1)
ORDER BY header.expiry_span LIMIT $2 FOR UPDATE SKIP LOCKED

-- Health.

-- name: health
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS standby,
    current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS full_page_writes, current_setting('max_connections')::integer AS most,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
    (SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND datname = current_database()) AS connections_here,
    (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS tls,
    (SELECT sum(pg_total_relation_size(to_regclass(name)))::bigint FROM unnest($1::text[]) AS name) AS size,
    to_regclass($2) IS NOT NULL AS indexed

-- The layout.

-- name: look
SELECT
    (SELECT array_agg(relation.relname::text) FROM pg_class AS relation
        WHERE relation.relnamespace = schema.oid AND relation.relname = ANY($2::text[])
            -- An index that was never finished is none, unless somebody is about it.
            AND NOT EXISTS (SELECT FROM pg_index WHERE indexrelid = relation.oid AND NOT indisvalid
                AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE index_relid = indexrelid))) AS ours,
    (SELECT relation.relkind::text FROM pg_class AS relation
        WHERE relation.relnamespace = schema.oid AND relation.relname = $3::text) AS standing,
    -- Of a domain the type that it is made of.
    (SELECT jsonb_object_agg(attribute.attname,
            format_type(coalesce(nullif(type.typbasetype, 0), attribute.atttypid), attribute.atttypmod))::text
        FROM pg_attribute AS attribute JOIN pg_class AS relation ON relation.oid = attribute.attrelid
            JOIN pg_type AS type ON type.oid = attribute.atttypid
        WHERE relation.relnamespace = schema.oid AND relation.relname = $3::text
            AND attribute.attnum > 0 AND NOT attribute.attisdropped) AS columns,
    (SELECT array_agg(proname::text) FROM pg_proc
        WHERE pronamespace = schema.oid AND proname = ANY($4::text[])) AS functions,
    (SELECT array_agg(tgname::text) FROM pg_trigger JOIN pg_class AS relation ON relation.oid = tgrelid
        WHERE relation.relnamespace = schema.oid AND relation.relname = ANY($3::text || $6::text[])
            -- One that is switched off is none.
            AND tgname = ANY($5::text[]) AND tgenabled IN ('O', 'A')) AS triggers,
    (SELECT json_object_agg(relation.relname, ARRAY(
            SELECT attribute.attname::text FROM pg_attribute AS attribute
            WHERE attribute.attrelid = relation.oid AND attribute.attnum > 0 AND NOT attribute.attisdropped))::text
        FROM pg_class AS relation
        WHERE relation.relnamespace = schema.oid AND relation.relname = ANY($6::text[])) AS held,
    (SELECT array_agg(relation.relname || ' ' || (
            SELECT string_agg(attribute.attname, ',' ORDER BY part.place)
            FROM unnest(key.indkey::smallint[]) WITH ORDINALITY AS part(number, place)
                JOIN pg_attribute AS attribute ON attribute.attrelid = key.indrelid AND attribute.attnum = part.number
            WHERE part.place <= key.indnkeyatts))
        FROM pg_index AS key JOIN pg_class AS relation ON relation.oid = key.indrelid
        WHERE relation.relnamespace = schema.oid AND relation.relname = ANY($6::text[])
            AND key.indisunique AND key.indisvalid AND key.indimmediate AND key.indpred IS NULL) AS keys,
    schema.oid IS NOT NULL AS has_schema,
    current_setting('server_encoding') AS encoding,
    current_setting('session_replication_role') AS replication,
    current_user::text AS role,
    current_setting('server_version_num')::integer AS server,
    clock_timestamp() AS now
FROM (SELECT 1) AS always LEFT JOIN pg_namespace AS schema ON schema.nspname = $1::text

-- name: no_timeouts
-- For the rest of a transaction that makes the layout: its deadline is the caller's, whatever the role's settings say.
SELECT set_config(name, '0', true) FROM pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')

-- name: clear_ledger
DELETE FROM {layout}

-- name: counted_anew
-- Of a new column the server knows nothing, and takes bad ways, until it has looked.
ANALYZE {header}, {label}

-- name: drop_derived
-- What holds nothing of its own, and words of what is gone.
DROP TABLE IF EXISTS {label}, {search_state}, {search_waiting}, {search};
DROP FUNCTION IF EXISTS {shown}(text[]), {labels}(jsonb, text), {search_notes}()

-- name: create_schema
CREATE SCHEMA {schema}

-- name: create_ledger
CREATE TABLE {layout} (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)

-- name: ledger_version
SELECT coalesce(max(version), 0) FROM {layout}

-- name: ledger_entry
INSERT INTO {layout} (version, name) VALUES ($1, $2)

-- Adoption of an older table.

-- name: adoption_unfinished
SELECT NOT coalesce(bool_and(done), true) FROM {adoption}

-- name: set_aside
ALTER TABLE {view} RENAME TO {index:before}

-- name: create_adoption
-- A key, because a table without one takes no UPDATE while a publication of all tables is there.
CREATE TABLE {adoption} (
    source  text PRIMARY KEY,
    total   bigint NOT NULL,
    last    text,
    moved   bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0,
    done    boolean NOT NULL DEFAULT false
)

-- name: identify_adoption
-- The same for one that an earlier version made.
ALTER TABLE {adoption} REPLICA IDENTITY FULL

-- name: lock_timeout
-- For the rest of a transaction. Whoever waits for a table's exclusive lock makes all others wait behind it.
SET LOCAL lock_timeout = '3s'

-- name: rights_on
-- Who may do what with a table, beside whoever asks; a role that may write is one that uses the provider. Its owner is one
-- where an administrator asks. As text a `regrole` is quoted.
SELECT CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END AS grantee,
    bool_or(acl.privilege_type = 'SELECT') AS reads,
    bool_or(acl.privilege_type IN ('INSERT', 'UPDATE', 'DELETE')) AS writes
FROM pg_class AS relation
    CROSS JOIN LATERAL aclexplode(coalesce(relation.relacl, acldefault('r', relation.relowner))) AS acl
WHERE relation.oid = to_regclass($1) AND acl.grantee <> quote_ident(current_user)::regrole
GROUP BY acl.grantee
ORDER BY 1

-- name: older_followers
-- What refers to the older table by its identity, and so follows it to its new name.
SELECT 'foreign key ' || conname || ' of the table ' || conrelid::regclass::text AS follower
FROM pg_constraint WHERE contype = 'f' AND confrelid = to_regclass($1) AND conrelid <> confrelid
UNION
SELECT DISTINCT CASE reading.relkind WHEN 'm' THEN 'materialized view ' ELSE 'view ' END || reading.oid::regclass::text
FROM pg_depend AS depends JOIN pg_rewrite AS rule ON rule.oid = depends.objid
    JOIN pg_class AS reading ON reading.oid = rule.ev_class
WHERE depends.classid = 'pg_rewrite'::regclass AND depends.refobjid = to_regclass($1) AND reading.oid <> to_regclass($1)
UNION
SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = to_regclass($1) AND NOT tgisinternal
ORDER BY 1

-- name: of_user_before
before.user_id = $1 OR before.metadata ->> 'user_id' = $1

-- name: lock_user_before
-- Whoever erases several takes them in the order of their ids, like headers.
SELECT FROM {before} AS before WHERE {of_user_before} ORDER BY before.conversation_id COLLATE "C" FOR UPDATE

-- name: erase_user_before
DELETE FROM {before} AS before WHERE {of_user_before}

-- name: erase_before
DELETE FROM {before}
WHERE conversation_id = $1 AND ($2::text IS NULL OR user_id = $2 OR metadata ->> 'user_id' = $2)

-- name: goes_with
-- What has no owner there may have been given one here; what has another one is another's.
before.conversation_id = gone.id
    AND coalesce(before.user_id, before.metadata ->> 'user_id', gone.owner) IS NOT DISTINCT FROM gone.owner

-- name: lock_with
SELECT FROM {before} AS before, unnest($1::text[], $2::text[]) AS gone (id, owner)
WHERE {goes_with} ORDER BY before.conversation_id COLLATE "C" FOR UPDATE OF before

-- name: erase_with
DELETE FROM {before} AS before USING unnest($1::text[], $2::text[]) AS gone (id, owner) WHERE {goes_with}

-- name: grant_adoption
-- A role that does not own the tables looks at it when it starts.
GRANT SELECT (done) ON {adoption} TO PUBLIC

-- name: insert_adoption
INSERT INTO {adoption} (source, total) SELECT $1, count(*) FROM {before}

-- name: adoption_progress
SELECT source, total, last, moved, refused, done FROM {adoption} FOR UPDATE

-- name: adoption_stands
SELECT count(*) > 0 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = $1::text AND relname = $2::text

-- name: older_documented
-- The driver cannot read a date before Christ or after the year 9999, and the whole page would fail with it. A column
-- without a time zone holds the server's local time.
SELECT DISTINCT ON (conversation_id) conversation_id, user_id, messages::text, metadata::text,
    CASE WHEN created_at >= '0001-01-02' AND created_at < '9999-12-31' THEN created_at::timestamptz END AS created_at,
    CASE WHEN updated_at >= '0001-01-02' AND updated_at < '9999-12-31' THEN updated_at::timestamptz END AS updated_at,
    coalesce(created_at < '0001-01-02' OR created_at >= '9999-12-31', false)
        OR coalesce(updated_at < '0001-01-02' OR updated_at >= '9999-12-31', false) AS has_odd_time
FROM {before}
WHERE conversation_id IS NOT NULL AND ($1::text IS NULL OR conversation_id > $1) ORDER BY conversation_id LIMIT $2

-- name: older_jaf_py
SELECT DISTINCT ON (conversation_id) conversation_id, user_id, messages::text, metadata::text FROM {before}
WHERE conversation_id IS NOT NULL AND ($1::text IS NULL OR conversation_id > $1) ORDER BY conversation_id LIMIT $2

-- name: older_repeated
-- A table without a key may have several rows of one id, and some without any.
SELECT conversation_id, count(*) AS rows FROM {before}
GROUP BY conversation_id HAVING count(*) > 1 OR conversation_id IS NULL ORDER BY conversation_id

-- name: advance_adoption
UPDATE {adoption} SET last = coalesce($1, last), moved = moved + $2, refused = refused + $3, done = $4

-- name: before_holds
SELECT count(*), count(*) FILTER (
    WHERE NOT EXISTS (SELECT FROM {header} AS header WHERE header.conversation_id = before.conversation_id)
), pg_size_pretty(pg_total_relation_size(to_regclass($1)))
FROM {before} AS before

-- name: drop_before
DROP TABLE IF EXISTS {before}

-- The index for searches, where there is one: `search.sql` makes it.

-- name: search_stands
-- Each of its triggers too: without one, what is written passes by.
SELECT to_regclass($1) IS NOT NULL AND (
    SELECT count(*) FROM pg_trigger
    WHERE tgrelid = to_regclass($2) AND tgname = ANY($3::text[]) AND tgenabled IN ('O', 'A')
) = 3

-- name: search_tables
SELECT count(to_regclass(name)) = cardinality($1::text[]) FROM unnest($1::text[]) AS name

-- name: search_state_held
{search_state_seen} FOR UPDATE

-- name: search_state_seen
SELECT rule, built_conversation, built_position, complete FROM {search_state}

-- name: search_begin
INSERT INTO {search_state} (rule, built_conversation, built_position, complete)
VALUES ($1, -1, -1, NOT EXISTS (SELECT FROM {message}))

-- name: search_unhook
DROP TRIGGER IF EXISTS {index:search_added} ON {message};
DROP TRIGGER IF EXISTS {index:search_changed} ON {message};
DROP TRIGGER IF EXISTS {index:search_dropped} ON {message}

-- name: search_drop
-- Whoever takes several of these tables takes them in this order, so that nobody waits in a circle.
DROP TABLE IF EXISTS {search_state}, {search_waiting}, {search};
DROP FUNCTION IF EXISTS {search_notes}()

-- name: search_waits
SELECT count(*) FROM (SELECT FROM {search_waiting} LIMIT $1) AS waits

-- name: search_share
-- How far the building has come, as the share of the conversations.
SELECT coalesce(100 * $1::bigint / nullif(max(id), 0), 0) FROM {header}

-- name: search_note
-- The next of what stood here before; the last of them is where to go on.
WITH noted AS (
    INSERT INTO {search_waiting} (conversation, position)
    SELECT message.conversation, message.position FROM {message} AS message
    WHERE (message.conversation, message.position) > ($1, $2)
    ORDER BY message.conversation, message.position LIMIT $3
    RETURNING conversation, position
)
SELECT conversation, position, (SELECT count(*) FROM noted) AS count
FROM noted ORDER BY conversation DESC, position DESC LIMIT 1

-- name: search_noted
UPDATE {search_state} SET built_conversation = $1, built_position = $2, complete = $3

-- name: search_take
SELECT id, conversation, position FROM {search_waiting} ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED

-- name: search_hold
-- Who writes messages holds their header. Whom somebody else holds is left for later: nobody waits here.
SELECT id FROM {header} WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED

-- name: search_read
SELECT message.conversation, message.position, message.body
FROM {message} AS message JOIN unnest($1::bigint[], $2::bigint[]) AS place (conversation, position)
    ON message.conversation = place.conversation AND message.position = place.position

-- name: search_keep
INSERT INTO {search} (conversation, position, words)
SELECT place.conversation, place.position, array_to_tsvector(string_to_array(place.words, ' '))
FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS place (conversation, position, words)
ON CONFLICT (conversation, position) DO UPDATE SET words = EXCLUDED.words

-- name: search_carried
-- Those too whose conversation is gone: a note may have come while it went.
DELETE FROM {search_waiting} AS note WHERE id = ANY($1::bigint[]) AND (
    conversation = ANY($2::bigint[]) OR NOT EXISTS (SELECT FROM {header} AS header WHERE header.id = note.conversation)
)

-- name: search_proposed
-- `:where` are the filters, `:limit` the most rows. One row without a message, where there are none, says how many were
-- proposed. Each header is looked up by itself (OFFSET keeps that apart), whatever the server thinks of their number.
-- The tables come in the order of `search_drop`.
WITH known AS MATERIALIZED (
    SELECT FROM {search_state} WHERE complete AND rule = $4
), waits AS MATERIALIZED (
    SELECT conversation, position FROM {search_waiting} LIMIT $3::bigint
), found AS MATERIALIZED (
    SELECT conversation, position FROM {search} WHERE words @@ ($1::text)::tsquery LIMIT $2::bigint
), counted AS MATERIALIZED (
    SELECT (SELECT count(*) FROM found) < $2::bigint AND (SELECT count(*) FROM waits) < $3::bigint AND EXISTS (SELECT FROM known) AND (
        SELECT count(*) FROM pg_trigger
        WHERE tgrelid = to_regclass($5) AND tgname = ANY($6::text[]) AND tgenabled IN ('O', 'A')
    ) = 3 AS of_use
)
SELECT counted.of_use, page.position, page.body, page.header FROM counted LEFT JOIN LATERAL (
    SELECT chosen.position, message.body, ROW({columns}) AS header,
        header.active_span, header.updated_at, header.conversation_id
    FROM (
        SELECT header.id, place.position
        FROM (SELECT * FROM found UNION SELECT * FROM waits) AS place
        CROSS JOIN LATERAL (SELECT one.* FROM {header} AS one WHERE one.id = place.conversation OFFSET 0) AS header
        WHERE counted.of_use AND place.position >= header.first_position
            AND place.position < header.first_position + header.message_count + header.gaps AND :where
        {newest_first}, place.position DESC LIMIT :limit
    ) AS chosen
    JOIN {header} AS header ON header.id = chosen.id
    JOIN {message} AS message ON message.conversation = chosen.id AND message.position = chosen.position
) AS page ON true
ORDER BY page.active_span DESC, page.updated_at DESC, page.conversation_id DESC, page.position DESC
