"""The definitions as an administrator runs them, and the rights that go with them."""

from __future__ import annotations

from jaf_memory_core.statements import quoted
from jaf_memory_postgres.connection.execution import BEGIN
from jaf_memory_postgres.migrations import locking, migrations
from jaf_memory_postgres.names import Names


def script(names: Names, role: str) -> str:
    """What an administrator runs, with psql, to make the layout: all of it or nothing.

    Args:
        names: our names.
        role: whom the provider logs in as; it gets the rights it needs, and no others.
    """
    parts = [
        BEGIN,
        locking(names),
        # Every database has `public`, and even IF NOT EXISTS wants the right to make one.
        *([names.fill("CREATE SCHEMA IF NOT EXISTS {schema}")] if names.schema != "public" else []),
        names.sql["create_ledger"],
    ]
    for migration in migrations():
        parts.append(names.fill(migration.template).strip().removesuffix(";"))
        entry = names.sql["ledger_entry"].replace("$1", str(migration.version))
        parts.append(entry.replace("$2", f"'{migration.name}'"))
    parts += [grant + f" TO {quoted(role)}" for grant in map(names.fill, GRANTS)]
    return ";\n\n".join([*parts, "COMMIT"]) + ";\n"


GRANTS = (
    "GRANT USAGE ON SCHEMA {schema}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON {header}, {message}",
    "GRANT SELECT ON {layout}, {view}",
    # Databases in which nobody may execute a new function are common where security is taken seriously.
    "GRANT EXECUTE ON FUNCTION {shown}(text[]), {labels}(jsonb, text)",
    "GRANT EXECUTE ON FUNCTION {admits}(bigint), {admits_message}(bigint, bigint)",
)
"""The rights that a provider needs which does not own the tables."""

READING = "GRANT SELECT ON {view}"
"""The right of somebody who reads by SQL; where nobody may execute new functions he needs that of `GRANTS`, too."""
