"""`schema` and `adopt`: what a store needs before it can be used, where its plugin offers it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, Literal, TypeVar, cast

import typer

from jaf_memory_cli.errors import FAILED, OK
from jaf_memory_cli.execution import confirm
from jaf_memory_cli.options import Json, Yes
from jaf_memory_cli.output import Output, count, progress
from jaf_memory_cli.stores import Store, chosen
from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.maintenance import Adopts, HasRights, HasSchema, HasSearchIndex, KeepsOlder
from jaf_memory_core.transfer.reports import Problems

T = TypeVar("T")


SEARCHES: tuple[Literal["index", "scan"], ...] = ("index", "scan")
"""How a store is searched."""


@asynccontextmanager
async def _offered(store: Store, offer: type[T], lacking: str, operation: str) -> AsyncIterator[T]:
    """The backend, made and not opened; its driver's errors translated."""
    async with store.unopened() as backend:
        offers = isinstance(backend, offer)
        if not offers:
            raise MemoryConfigurationError(f"provider {store.name!r} {lacking}", provider=store.name)
        try:
            yield backend
        except backend.driver_errors as error:
            raise backend.translate(error, operation) from error


async def schema(
    context: typer.Context,
    *,
    apply: Annotated[
        bool, typer.Option("--apply", metavar="", help="Apply what is missing, instead of printing all.")
    ] = False,
    role: Annotated[
        str | None, typer.Option("--role", metavar="ROLE", help="Give this role the rights that a provider needs.")
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", help="Build the index for searches; scan: drop it.", metavar="WAY")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the store's own definitions, or apply them.

    --search index builds the full-text index that searches go by where
    the setting JAF_…_SEARCH=index says so; --search scan drops it.
    """
    output, store = Output(as_json=as_json), chosen(context)
    if search is not None:
        if apply or role is not None:
            raise MemoryConfigurationError("--search goes by itself, without --apply and --role")
        way = next((one for one in SEARCHES if one == search), None)
        if way is None:  # what was given may be an address with a password, and is not repeated
            raise MemoryConfigurationError("--search takes index or scan")
        lacking = "has no index for searches to build or drop"
        async with _offered(store, HasSearchIndex, lacking, "schema") as backend:  # type: ignore[type-abstract]
            done = await backend.apply_search(way)
        output.done({"search": way, "done": done}, done)
        return
    async with _offered(store, HasSchema, "has no schema of its own to print or apply", "schema") as backend:  # type: ignore[type-abstract]
        has_rights = isinstance(backend, HasRights)
        if role is not None and not has_rights:
            raise MemoryConfigurationError(f"provider {store.name!r} has no rights to give", provider=store.name)
        if not apply:
            _print(
                output, await backend.schema(), [] if role is None else await cast("HasRights", backend).grants(role)
            )
            return
        applied = list(await backend.apply_schema())
        if role is not None:
            await cast("HasRights", backend).grant(role)
    said = f"applied {', '.join(applied)}" if applied else "nothing was missing"
    if role is not None:
        output.done({"applied": applied, "granted": role}, f"{said}; {role} has the rights that it needs")
        return
    output.done({"applied": applied}, said)
    if applied and has_rights:
        output.note("an application that logs in as another role needs rights: say --role ROLE as well")


def _print(output: Output, text: str, grants: Sequence[str]) -> None:
    text = "\n".join([text.rstrip("\n"), *(f"{grant};" for grant in grants)])
    if output.as_json:
        output.document({"schema": text})
    else:
        output.raw(text)


async def adopt(
    context: typer.Context,
    *,
    remove: Annotated[
        bool, typer.Option("--remove", metavar="", help="Remove the older form of what was moved.")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", metavar="", help="Only remove what an adoption has kept, refused ones as well.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Move data of an older layout into this one.

    It can be stopped at any time, and run again to go on.
    """
    output, store = Output(as_json=as_json), chosen(context)
    if finish:
        await _finished(output, store, yes=yes)
        return OK
    counts: Counter[str] = Counter()
    refused, notes = Problems(), []
    async with _offered(store, Adopts, "knows of no older data to adopt", "adopt") as backend:  # type: ignore[type-abstract]
        if remove:
            # Before the first step: a store may remove the older form of each as soon as that one is verified.
            confirm("Remove the older form of all that is moved?", yes=yes)
        with progress(output, "adopting", None) as advance:
            async with aclosing(cast("Any", backend.adopt(remove=remove))) as steps:
                async for step in steps:
                    if step.outcome == "note":
                        notes.append(step.text)
                        output.note(step.text, mark="·")
                        continue
                    counts[step.outcome] += 1
                    if step.outcome == "refused":
                        refused.add(step.conversation_id, step.text)
                    advance(1, step.total)
    document = {
        "moved": counts["moved"],
        "already_moved": counts["held"],
        "refused": refused.count,
        "refused_first": [{"conversation_id": key, "reason": why} for key, why in refused],
        "notes": notes,
    }
    held = f", {counts['held']:,} had been moved before" if counts["held"] else ""
    output.done(document, f"moved {count(counts['moved'], 'conversation')}{held}")
    output.problems(refused, "refused, left as they are")
    return FAILED if refused else OK


async def _finished(output: Output, store: Store, *, yes: bool) -> None:
    """Remove what an adoption has kept, after saying what it is."""
    async with _offered(store, KeepsOlder, "keeps no older data as a whole; say --remove", "adopt") as backend:  # type: ignore[type-abstract]
        older = await backend.older()
        if older is None:
            output.done({"removed": None}, "nothing of an older form is kept")
            return
        output.note(older, mark="·")
        confirm("Remove it for good?", yes=yes)
        output.done({"removed": older}, await backend.finish_adoption())
