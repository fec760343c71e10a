"""`schema` and `adopt`: what a store needs before it can be used, where its plugin offers it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, TypeVar, cast

import typer

from jaf_memory_cli.erasure import confirm
from jaf_memory_cli.errors import FAILED, OK
from jaf_memory_cli.options import Json, Yes
from jaf_memory_cli.output import Output, count, progress
from jaf_memory_cli.stores import Store, chosen
from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.maintenance import Adopts, HasSchema
from jaf_memory_core.transfer.reports import Problems

T = TypeVar("T")


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
    as_json: Json = False,
) -> None:
    """Print the store's own definitions, or apply them."""
    output, store = Output(as_json=as_json), chosen(context)
    async with _offered(store, HasSchema, "has no schema of its own to print or apply", "schema") as backend:  # type: ignore[type-abstract]
        if not apply:
            text = await backend.schema()
            if as_json:
                output.document({"schema": text})
            else:
                output.raw(text)
            return
        applied = list(await backend.apply_schema())
    said = f"applied {', '.join(applied)}" if applied else "nothing was missing"
    output.done({"applied": applied}, said)


async def adopt(
    context: typer.Context,
    *,
    remove: Annotated[
        bool, typer.Option("--remove", metavar="", help="Remove the older form of what was moved.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Move data of an older layout into this one.

    It can be stopped at any time, and run again to go on.
    """
    output, store = Output(as_json=as_json), chosen(context)
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
