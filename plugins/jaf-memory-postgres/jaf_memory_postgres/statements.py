"""The SQL that the provider sends; `{header}` and `{message}` stand for the names of the storage tables."""

from __future__ import annotations

from jaf_memory_postgres.names import Names

LIVE = "(header.expires_at IS NULL OR header.expires_at > clock_timestamp())"

COLUMNS = (
    "header.conversation_id, header.incarnation, header.version, header.created_at, header.updated_at, header.user_id, "
    "header.metadata, header.expires_at, header.ttl, header.first_position, header.trimmed, header.message_count"
)
"""A header, in the order of `rows.header`."""

MOST = (1 << 62) - 1
"""Stands for "all" where the server counts in 64 bits."""

LARGE = 128 << 20
"""Bytes of a conversation above which no value holds several of its messages: it would meet limits of the server."""

_ALL = """
SELECT message.position, message.body FROM {message} AS message
WHERE message.conversation = header.id AND message.position >= header.first_position
ORDER BY message.position LIMIT header.message_count"""
# The limit changes nothing, but without one the server takes few messages for granted, and sorts all of them.

BODIES = f"""
CASE WHEN header.size <= {LARGE} THEN ARRAY(SELECT listed.body FROM ({_ALL}) AS listed) END AS bodies"""  # noqa: S608


# A row for each message: one value that holds 1,000 of them costs the server more than twice as much. The header is in
# the first row only, because each value of each row costs as much as the message does.

READ = f"""
SELECT CASE WHEN listed.position > header.first_position THEN NULL ELSE ROW({COLUMNS}, clock_timestamp()) END,
    listed.body
FROM {{header}} AS header LEFT JOIN LATERAL ({_ALL}) AS listed ON true
WHERE header.conversation_id = $1"""  # noqa: S608  (pieces of ours)
"""A row for each message, or one for none; the first has the header, with the time behind it."""

_END = "least($2::bigint, header.first_position + header.message_count)"

# A hidden limit makes the server expect a part of the messages, and so go through the index, whatever the number is.
_PAGE = f"""
SELECT message.position, message.body FROM {{message}} AS message
WHERE message.conversation = header.id AND message.position >= header.first_position AND message.position < {_END}
ORDER BY message.position DESC LIMIT (SELECT $3::bigint)"""  # noqa: S608  (pieces of ours)

_SEEN = f"""
WHERE header.conversation_id = $1 AND {LIVE} AND ($4::text IS NULL OR header.user_id = $4)"""

TAIL = f"""
SELECT CASE WHEN listed.position < {_END} - 1 THEN NULL ELSE ROW(header.first_position, header.message_count) END,
    listed.body
FROM {{header}} AS header LEFT JOIN LATERAL ({_PAGE}) AS listed ON true {_SEEN}"""  # noqa: S608  (pieces of ours)
"""A row for each message, the newest first, or one for none; the first has where the conversation begins, and how many
messages it has."""

SHORT_PAGE = 50
"""Messages up to which a page comes in one row."""

SHORT_TAIL = f"""
SELECT header.first_position, header.message_count, CASE WHEN header.size <= {LARGE} THEN (
    SELECT coalesce(string_agg(listed.body, ','), '') FROM ({_PAGE}) AS listed
) END
FROM {{header}} AS header {_SEEN}"""  # noqa: S608  (pieces of ours)
"""The same for a short page: its messages as one text, in their order, or null for a large conversation."""

# Writing.

_RENEWED = "CASE WHEN header.ttl IS NULL THEN header.expires_at ELSE {now} + make_interval(secs => header.ttl) END"

_TOUCHED = f"""
    version = header.version + 1,
    updated_at = greatest(header.updated_at, clock_timestamp()),
    expires_at = {_RENEWED.replace("{now}", "clock_timestamp()")},
    user_id = coalesce(header.user_id, $3),
    metadata = CASE WHEN $5::jsonb IS NULL THEN header.metadata ELSE header.metadata || $5 END"""

_ADMITTED = f"""
    header.conversation_id = $1 AND {LIVE}
    AND ($2::text IS NULL OR header.user_id = $2)
    AND ($3::text IS NULL OR header.user_id IS NULL OR header.user_id = $3)
    AND ($4::bigint IS NULL OR header.version = $4)"""

FEW = 4
"""Messages up to which an append has a statement of its own for their number, as a turn has."""

_ARRAYS = "unnest($7::text[], $8::text[]) WITH ORDINALITY AS batch(message_id, body, place)"


def _appending(count: str, batch: str) -> str:
    return f"""
WITH changed AS (
    UPDATE {{header}} AS header SET {_TOUCHED},
        message_count = header.message_count + {count},
        size = header.size + $6
    WHERE {_ADMITTED}
    RETURNING header.id, header.version, header.message_count,
        header.first_position + header.message_count - {count} AS fresh_from
), {_added(batch)}
SELECT version, message_count FROM changed"""  # noqa: S608  (pieces of ours)


def _added(batch: str) -> str:
    return f"""added AS (
    INSERT INTO {{message}} (conversation, position, message_id, body)
    SELECT changed.id, changed.fresh_from + batch.place - 1, batch.message_id, batch.body
    FROM changed, {batch}
)"""  # noqa: S608  (pieces of ours)


def _append_few(count: int) -> str:
    """An append of so many messages, each bound by itself: arrays cost the driver and the server more."""
    values = ", ".join(f"({place}, ${5 + 2 * place}::text, ${6 + 2 * place}::text)" for place in range(1, count + 1))
    return _appending(str(count), f"(VALUES {values}) AS batch(place, message_id, body)")


APPEND = _appending("cardinality($7::text[])", _ARRAYS)
"""One statement: the header's row lock, then the messages. Nothing comes back where a rule has to decide; error 23505
says that one of the messages is held. Either way nothing was changed."""

APPEND_CAPPED = f"""
WITH seen AS (
    SELECT header.id, header.version, header.first_position, header.message_count,
        greatest(0, header.message_count + cardinality($7::text[]) - $9::bigint) AS cut
    FROM {{header}} AS header WHERE header.conversation_id = $1
), cut AS (
    SELECT coalesce(sum(octet_length(message.body)), 0) AS size
    FROM seen, {{message}} AS message
    WHERE message.conversation = seen.id AND message.position < seen.first_position + seen.cut
), changed AS (
    UPDATE {{header}} AS header SET {_TOUCHED},
        message_count = header.message_count + cardinality($7::text[]) - (SELECT cut FROM seen),
        first_position = header.first_position + (SELECT cut FROM seen),
        trimmed = header.trimmed OR $10 OR (SELECT cut FROM seen) > 0,
        size = header.size + $6 - (SELECT size FROM cut)
    WHERE {_ADMITTED} AND header.version = (SELECT version FROM seen) AND header.id = (SELECT id FROM seen)
    RETURNING header.id, header.version, header.message_count, header.first_position,
        header.first_position + header.message_count - cardinality($7::text[]) AS fresh_from
), gone AS (
    DELETE FROM {{message}} AS message USING changed
    WHERE message.conversation = changed.id AND message.position < changed.first_position
), {_added(_ARRAYS)}
SELECT version, message_count FROM changed"""  # noqa: S608  (pieces of ours)
"""The same with the oldest removed. It goes ahead only if nobody wrote between its snapshot and its lock (`seen`),
because its other parts see that snapshot."""

CREATE = """
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now),
changed AS (
    INSERT INTO {header} (conversation_id, user_id, incarnation, version, metadata, first_position, message_count, size,
        trimmed, ttl, expires_at, created_at, updated_at)
    SELECT $1::text, $2::text, $3::text, 1, $4::jsonb, 0, cardinality($5::text[]), $7::bigint, $8::boolean,
        $9::double precision, coalesce($10::timestamptz, now + make_interval(secs => $9)),
        coalesce($11::timestamptz, now), now
    FROM clock
    ON CONFLICT (conversation_id) DO NOTHING
    RETURNING id, version, message_count
), added AS (
    INSERT INTO {message} (conversation, position, message_id, body)
    SELECT changed.id, batch.ordinality - 1, batch.message_id, batch.body
    FROM changed, unnest($5::text[], $6::text[]) WITH ORDINALITY AS batch(message_id, body, ordinality)
)
SELECT version, message_count FROM changed"""
"""A conversation that is not there yet; nothing comes back, and nothing was changed, if one is."""

LOCK = f"""
WITH header AS MATERIALIZED (
    SELECT header.* FROM {{header}} AS header WHERE header.conversation_id = $1 FOR UPDATE
)
SELECT {COLUMNS}, header.id, clock_timestamp() AS now
FROM (SELECT 1) AS always LEFT JOIN header ON true"""  # noqa: S608  (columns of ours)
"""The header under its lock, or nulls; the time is taken behind the lock."""

HELD = "SELECT message_id, body FROM {message} WHERE conversation = $1 AND message_id = ANY($2::text[])"

CUT = """
WITH gone AS (
    DELETE FROM {message} WHERE conversation = $1 AND (position < $2 OR position >= $3) RETURNING body
)
SELECT coalesce(sum(octet_length(body)), 0) FROM gone"""
"""Keeps what stands from $2 to below $3; how many bytes went."""

INSERT_MESSAGES = """
INSERT INTO {message} (conversation, position, message_id, body)
SELECT $1, $2 + batch.ordinality - 1, batch.message_id, batch.body
FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS batch(message_id, body, ordinality)"""

UPDATE_HEADER = """
UPDATE {header} SET version = $2, updated_at = $3, user_id = $4,
    metadata = CASE WHEN $5::jsonb IS NULL THEN metadata ELSE metadata || $5 END,
    expires_at = $6, ttl = $7, first_position = $8, message_count = $9, trimmed = $10, size = size + $11
WHERE id = $1"""

REPLACE_HEADER = """
UPDATE {header} SET incarnation = $2, version = $3, created_at = $4, updated_at = $5, user_id = $6, metadata = $7,
    expires_at = $8, ttl = $9, first_position = $10, trimmed = $11, message_count = $12, size = $13
WHERE id = $1"""

INSERT_HEADER = """
INSERT INTO {header} (conversation_id, incarnation, version, created_at, updated_at, user_id, metadata, expires_at, ttl,
    first_position, trimmed, message_count, size)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (conversation_id) DO NOTHING
RETURNING id"""

SET_METADATA = "UPDATE {header} SET metadata = $2 WHERE id = $1"

COPY_MESSAGES = """
WITH copied AS (
    INSERT INTO {message} (conversation, position, message_id, body)
    SELECT $1, position, message_id, body FROM {message}
    WHERE conversation = $2 AND position >= $3 AND position < $4
    RETURNING octet_length(body) AS size
)
UPDATE {header} SET size = (SELECT coalesce(sum(size), 0) FROM copied) WHERE id = $1"""
"""The copy's header knows the size only now; nobody has seen it yet."""

TAKE = """
DELETE FROM {message} WHERE conversation = $1 AND message_id = ANY($2::text[]) RETURNING message_id, position"""

PLACE = """
INSERT INTO {message} (conversation, position, message_id, body)
SELECT $1, placed.* FROM unnest($2::bigint[], $3::text[], $4::text[]) AS placed"""

POSITION = "SELECT position FROM {message} WHERE conversation = $1 AND message_id = $2 AND position >= $3"

DELETE_MESSAGES = "DELETE FROM {message} WHERE conversation = ANY($1::bigint[])"
DELETE_HEADERS = "DELETE FROM {header} WHERE id = ANY($1::bigint[])"

# Many at once. The locks are taken in one order: two who do the same wait for each other, and never in a circle.

LAST_ID = "SELECT coalesce(max(id), 0) FROM {header} WHERE user_id = $1"

ANY_LEFT = "SELECT EXISTS (SELECT FROM {header} WHERE user_id = $1 AND id <= $2)"

LOCK_OF_USER = f"""
SELECT header.id, {LIVE} AS live FROM {{header}} AS header
WHERE header.user_id = $1 AND header.id <= $2 ORDER BY header.id LIMIT $3 FOR UPDATE"""  # noqa: S608

LOCK_EXPIRED = """
SELECT header.id FROM {header} AS header
WHERE header.expires_at <= clock_timestamp() AND ($1::text IS NULL OR header.user_id = $1)
ORDER BY header.expires_at LIMIT $2 FOR UPDATE SKIP LOCKED"""

STATS = f"""
SELECT count(*), coalesce(sum(header.message_count), 0)::bigint, coalesce(sum(header.size), 0)::bigint,
    min(header.created_at), max(header.created_at)
FROM {{header}} AS header WHERE {LIVE}"""  # noqa: S608

HEALTH = """
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS standby,
    current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS full_page_writes, current_setting('max_connections')::integer AS most,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
    (SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND datname = current_database()) AS connections_here,
    (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS tls,
    pg_total_relation_size(to_regclass($1)) + pg_total_relation_size(to_regclass($2)) AS size"""


class Statements:
    """The statements, with the names of one table in them."""

    def __init__(self, names: Names) -> None:
        self.read = names.fill(READ)
        self.tail = names.fill(TAIL)
        self.short_tail = names.fill(SHORT_TAIL)
        self.append = names.fill(APPEND)
        self.append_few = tuple(names.fill(_append_few(count)) for count in range(1, FEW + 1))
        self.append_capped = names.fill(APPEND_CAPPED)
        self.create = names.fill(CREATE)
        self.lock = names.fill(LOCK)
        self.held = names.fill(HELD)
        self.cut = names.fill(CUT)
        self.insert_messages = names.fill(INSERT_MESSAGES)
        self.update_header = names.fill(UPDATE_HEADER)
        self.replace_header = names.fill(REPLACE_HEADER)
        self.insert_header = names.fill(INSERT_HEADER)
        self.set_metadata = names.fill(SET_METADATA)
        self.copy_messages = names.fill(COPY_MESSAGES)
        self.take = names.fill(TAKE)
        self.place = names.fill(PLACE)
        self.position = names.fill(POSITION)
        self.delete_messages = names.fill(DELETE_MESSAGES)
        self.delete_headers = names.fill(DELETE_HEADERS)
        self.last_id = names.fill(LAST_ID)
        self.any_left = names.fill(ANY_LEFT)
        self.lock_of_user = names.fill(LOCK_OF_USER)
        self.lock_expired = names.fill(LOCK_EXPIRED)
        self.stats = names.fill(STATS)
        self.health = names.fill(HEALTH)
