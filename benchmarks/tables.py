"""Tables of ratios with their targets, as Markdown: the same in a terminal and in the documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks import bulk, comparisons
from benchmarks.figures import Figure, Report
from benchmarks.payload import MANY_TASKS, WHOLE
from benchmarks.plan import LOOPS

NAMES = {"memory": "in memory", "sqlite": "SQLite", "redis": "Redis", "postgres": "PostgreSQL"}
DURABLE = ("sqlite", "redis", "postgres")
NOTHING = "-"

BY_TASKS = (comparisons.PAIRS, comparisons.CONTENDED)
BY_TASKS_TOO = (", p50", ", p99", " away", "'s processor")
"""How figures are called, and how their names end, that are told by the number of tasks."""


def text(report: Report) -> str:
    """All tables, with a heading each."""
    parts = [", ".join(f"{name} {value}" for name, value in report.machine.items()) + "."]
    for loop in LOOPS:
        parts += _part(f"Beside the bare driver, {loop}", beside(report, loop))
    parts += _part("Times of this machine, in milliseconds: ours, and the bare driver's", times(report))
    parts += _part("Times faster than other libraries", peers(report))
    parts += _part("What else it costs", costs(report))
    parts += _part("Memory of the process", resident(report))
    return "\n\n".join([*parts, summary(report)])


def _part(heading: str, table: str) -> list[str]:
    return [f"### {heading}", table] if table else []


def summary(report: Report) -> str:
    """How many targets are reached."""
    marks = [figure.met for figure in report.figures if figure.met is not None]
    failed = sorted({f"{one.beside} on {NAMES[one.backend]}" for one in report.figures if one.error})
    told = f" Failed, and not counted: {', '.join(failed)}." if failed else ""
    return f"{sum(marks)} of {len(marks)} targets are reached.{told}"


def beside(report: Report, loop: str) -> str:
    """A row an operation, a column a store."""
    return _by_backend([one for one in report.of("beside", loop=loop) if _shown(one)], cell)


def times(report: Report) -> str:
    """The same in milliseconds."""
    figures = [
        one
        for one in report.of("beside", loop="asyncio")
        if one.unit == "x" and comparisons.GROWTH not in one.what and _shown(one)
    ]
    return _by_backend(figures, lambda one: f"{_ms(one.ours)}, {_ms(one.theirs)}")


def short(report: Report) -> str:
    """The ratios alone, of what every turn does."""
    wanted = [
        (comparisons.APPEND, 100),
        (comparisons.APPEND, 10_000),
        (comparisons.RECENT_READ, 10_000),
        (comparisons.LOAD, WHOLE),
    ]
    figures = [
        one
        for one in report.of("beside", loop="asyncio")
        if (one.what, one.at) in wanted and one.backend in DURABLE and one.value is not None
    ]
    return _by_backend(figures, lambda one: number(one.value or 0))


def _shown(figure: Figure) -> bool:
    return figure.what != comparisons.PAIRS or figure.at in {1, MANY_TASKS, 128, 1_000}


def _ms(seconds: float | None) -> str:
    return NOTHING if seconds is None else f"{seconds * 1e3:.3g}"


def _by_backend(figures: Sequence[Figure], show: Callable[[Figure], str]) -> str:
    rows = list(dict.fromkeys(label(one) for one in figures))
    rows.sort(
        key=lambda row: 1 if comparisons.GROWTH in row else 2 if row.startswith((bulk.IMPORT, bulk.EXPORT)) else 0
    )
    backends = [name for name in NAMES if any(one.backend == name for one in figures)]
    found = {(label(one), one.backend): one for one in figures}
    cells = [[row, *(show(found[row, name]) if (row, name) in found else NOTHING for name in backends)] for row in rows]
    return markdown(["", *map(NAMES.__getitem__, backends)], cells)


def label(figure: Figure) -> str:
    """What was done, and at which length or how many at once."""
    if figure.at is None:
        return figure.what
    if figure.what.startswith(BY_TASKS) or figure.what.endswith(BY_TASKS_TOO):
        return f"{figure.what}, {figure.at:,} {'task' if figure.at == 1 else 'tasks'}"
    if figure.what in {bulk.IMPORT, bulk.EXPORT}:
        return f"{figure.what}, {figure.at:,} conversations"
    return f"{figure.what}, at {figure.at:,}"


def cell(figure: Figure) -> str:
    """A value, the spread over the processes, and the target with its mark; in memory, where no driver is, the time."""
    if figure.value is None or figure.low is None or figure.high is None:
        return f"failed: {figure.error}"
    if (
        figure.backend == "memory"
        and figure.section == "beside"
        and figure.ours
        and comparisons.GROWTH not in figure.what
    ):
        return f"{figure.ours * 1e6:,.3g} µs" if figure.ours < 1e-3 else f"{figure.ours * 1e3:.3g} ms"
    spread = "" if figure.low == figure.high else f" ({number(figure.low)}…{number(figure.high)})"
    mark = f" {figure.target} {'✓' if figure.met else '✗'}" if figure.target else ""
    return f"{number(figure.value)}{spread}{mark}"


def number(value: float) -> str:
    """Two digits behind the point, or three digits."""
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def peers(report: Report) -> str:
    """A row a library and store, a column an operation."""
    figures = report.of("peers")
    columns = list(dict.fromkeys(label(one) for one in figures if not one.error)) or [""]
    rows = []
    for backend, place in NAMES.items():
        for name in dict.fromkeys(one.beside for one in figures if one.backend == backend):
            theirs = [one for one in figures if (one.backend, one.beside) == (backend, name)]
            rows.append([f"{name}, {place}", *_of_peer(theirs, columns)])
    return markdown(["", *columns], rows) if rows else ""


def peers_short(report: Report) -> str:
    """The ratios alone, of a conversation of 1,000 messages."""
    figures = [one for one in report.of("peers") if one.at == WHOLE and one.value is not None]
    columns = list(dict.fromkeys(one.what for one in figures))
    places = list(dict.fromkeys((one.beside, one.backend) for one in figures))
    found = {(one.beside, one.backend, one.what): number(one.value or 0) for one in figures}
    rows = [
        [f"{name}, {NAMES[store]}", *(found.get((name, store, what), NOTHING) for what in columns)]
        for name, store in places
    ]
    return markdown(["", *columns], rows)


def _of_peer(figures: Sequence[Figure], columns: Sequence[str]) -> list[str]:
    error = next((one.error for one in figures if one.error), None)
    if error:
        return [f"failed: {error}", *[""] * (len(columns) - 1)]
    found = {label(one): cell(one) for one in figures}
    return [found.get(column, NOTHING) for column in columns]


def costs(report: Report) -> str:
    """A row a thing."""
    return _list(report.of("costs"), lambda one: one.what)


def resident(report: Report) -> str:
    """A row a proof."""
    return _list(report.of("resident"), label)


def _list(figures: Sequence[Figure], name: Callable[[Figure], str]) -> str:
    rows = []
    for one in figures:
        words = (NAMES.get(one.backend), name(one), one.beside)
        value = NOTHING if one.value is None else f"{number(one.value)}{'' if one.unit == 'x' else ' ' + one.unit}"
        mark = f"{one.target} {'✓' if one.met else '✗'}" if one.target else ""
        rows.append([", ".join(filter(None, words)), value, mark])
    return markdown(["", "", "target"], rows) if rows else ""


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns stand under each other."""
    body = [list(row) for row in rows]
    if not body:
        return ""
    widths = [max(3, *(len(row[at]) for row in (head, *body))) for at in range(len(head))]
    lines = [head, ["-" * width for width in widths], *body]
    return "\n".join(
        f"| {' | '.join(part.ljust(width) for part, width in zip(line, widths, strict=True))} |" for line in lines
    )
