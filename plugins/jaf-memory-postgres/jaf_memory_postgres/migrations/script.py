"""The definitions as an administrator runs them, and the rights that go with them."""

from __future__ import annotations

from jaf_memory_postgres.connection.execution import BEGIN
from jaf_memory_postgres.migrations import locking, migrations
from jaf_memory_postgres.migrations.rights import grants
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
    parts += grants(names, role)
    return ";\n\n".join([*parts, "COMMIT"]) + ";\n"
