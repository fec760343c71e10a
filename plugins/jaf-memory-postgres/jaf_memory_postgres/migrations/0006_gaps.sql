-- Single messages may be deleted, and the others keep their positions: messages stand from first_position to below
-- first_position + message_count + gaps, and so many of these positions have none. A default, so that no row is written anew.

ALTER TABLE {header} ADD COLUMN IF NOT EXISTS gaps bigint NOT NULL DEFAULT 0;
