"""Moving ten thousand conversations at once, into a store and out of it, beside the quickest way that a driver has."""

from __future__ import annotations

from statistics import median

from benchmarks.competitors import Competitor, Ours
from benchmarks.figures import Figure
from benchmarks.measurement import Case, by_turns
from benchmarks.payload import BODY, messages
from jaf_memory_core import ConversationMemory

IMPORT = "import, speed"
EXPORT = "export, speed"

MESSAGES = 20
"""Messages of each conversation."""

PARTS = 5
"""An import is measured in so many parts, by turns."""


async def in_bulk(ours: Ours, bare: Competitor, count: int) -> list[Figure]:
    """Import of many conversations into empty stores, and export of them; a value is our speed over the driver's.

    The conversations are made before the clock starts. Whoever imports lets go of them afterwards.
    """
    size = max(1, count // PARTS)
    sizes = [max(1, size // 10), *[size] * PARTS]  # the first warms up
    given = {part: _conversations(part, size) for part, size in enumerate(sizes)}
    bodies = {
        part: [(one.conversation_id, [BODY] * MESSAGES) for one in conversations]
        for part, conversations in given.items()
    }
    importing = Case(
        *(IMPORT, count, 1),
        {
            ours.name: lambda part: ours.bulk_import(given.pop(part)),
            bare.name: lambda part: bare.bulk_import(bodies.pop(part)),
        },
    )
    await by_turns([importing], PARTS)
    exporting = Case(
        EXPORT, count, 1, {ours.name: lambda _part: ours.bulk_export(), bare.name: lambda _part: bare.bulk_export()}
    )
    await by_turns([exporting], 2)
    return [
        Figure(
            *("beside", "", case.what, case.at, bare.name),
            value=median(case.ratios(bare.name, ours.name)),
            ours=case.median(ours.name) * parts,
            theirs=case.median(bare.name) * parts,
        )
        for case, parts in ((importing, PARTS), (exporting, 1))
    ]


def _conversations(part: int, size: int) -> list[ConversationMemory]:
    return [
        ConversationMemory(f"b{part}-{number}", user_id="bulk", messages=messages(MESSAGES)) for number in range(size)
    ]
