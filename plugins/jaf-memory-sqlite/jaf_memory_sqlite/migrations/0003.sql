-- Schema 3. Single messages may be deleted, and the others keep their positions: messages stand at first_position, …,
-- first_position + message_count + gaps - 1, of which `gaps` have none. At 0, as nearly always, each place is a position.
ALTER TABLE conversation ADD COLUMN gaps INTEGER NOT NULL DEFAULT 0;
