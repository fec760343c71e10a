"""Charts for the documentation, as SVG: cost against the length of the history, throughput against tasks, and peers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
from matplotlib.figure import Figure as Drawing

from benchmarks import comparisons
from benchmarks.figures import Figure, Report
from benchmarks.payload import MANY_TASKS
from benchmarks.tables import NAMES, label

OURS, BARE, OTHER, MARK = "#1f6feb", "#8b949e", "#bf8700", "#cf222e"
"""Colours that can be told apart in grey too."""

STYLE = {
    "svg.fonttype": "none",  # text stays text: small, and searched by browsers
    "svg.hashsalt": "jaf-memory",  # the same figures give the same file
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#d8dee4",
    "axes.axisbelow": True,
}


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw all charts that a report has figures for.

    Returns:
        the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    charts: dict[str, Callable[[Report], Drawing | None]] = {"length": by_length, "tasks": by_tasks, "peers": of_peers}
    files = []
    with mpl.rc_context(STYLE):
        for name, chart in charts.items():
            drawing = chart(report)
            if drawing is not None:
                file = folder / f"{name}.svg"
                drawing.savefig(file, metadata={"Date": None}, bbox_inches="tight")
                lines = [line.rstrip() for line in file.read_text(encoding="utf-8").splitlines()]
                file.write_text("\n".join(lines) + "\n", encoding="utf-8")
                files.append(file)
    return files


def _panels(backends: Sequence[str], height: float) -> tuple[Drawing, list[Any]]:
    """A picture with a panel for each store."""
    drawing = Drawing(figsize=(2.6 * len(backends) + 0.6, height), layout="constrained")
    axes = drawing.subplots(1, len(backends), squeeze=False)[0]
    for axis, backend in zip(axes, backends, strict=True):
        axis.set_title(NAMES[backend])
    return drawing, list(axes)


def _legend(drawing: Drawing, axes: Sequence[Any]) -> None:
    """One legend for all panels, under them."""
    lines = {text: line for axis in axes for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    drawing.legend(lines.values(), lines, loc="outside lower center", ncols=3, frameon=False)


def _backends(figures: Sequence[Figure]) -> list[str]:
    return [name for name in NAMES if any(one.backend == name for one in figures)]


def by_length(report: Report) -> Drawing | None:
    """What an append and a read of recent messages cost, over what the driver needs for the same at 10 messages."""
    kinds = ((comparisons.APPEND, "-", "o"), (comparisons.RECENT_READ, "--", "s"))
    figures = [one for one in report.of("beside", loop="asyncio") if one.what in {kind for kind, *_ in kinds}]
    backends = _backends(figures)
    if not backends:
        return None
    drawing, axes = _panels(backends, 3.6)
    for axis, backend in zip(axes, backends, strict=True):
        for what, line, dot in kinds:
            points = sorted((one for one in figures if (one.backend, one.what) == (backend, what)), key=_at)
            unit = points[0].theirs or math.nan
            lengths = [one.at for one in points]
            # By the ratios, which are sure; the driver's own times come from other minutes of the machine.
            bare = [(one.theirs or math.nan) / unit for one in points]
            ours = [(one.value or math.nan) * other for one, other in zip(points, bare, strict=True)]
            axis.plot(lengths, ours, line, marker=dot, color=OURS, label=f"{what}: ours")
            axis.plot(lengths, bare, line, marker=dot, color=BARE, label=f"{what}: the bare driver")
            theirs = report.of("peers", backend=backend, beside="jaf-py", what=what)
            _dots(axis, theirs, dict(zip(lengths, ours, strict=True)), dot)
        axis.set(xscale="log", yscale="log", xlabel="messages in the conversation")
        axis.set_xticks([one.at for one in points], [f"{one.at:,}" for one in points])
        axis.minorticks_off()
        low, high = axis.get_ylim()
        axis.set_ylim(min(low, 0.5), max(high, 10))  # a panel of small differences is not to look dramatic
        axis.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
    _legend(drawing, axes)
    axes[0].set_ylabel("cost (1: the bare driver at 10 messages)")
    return drawing


def _dots(axis: Any, theirs: Sequence[Figure], ours: dict[Any, float], dot: str) -> None:
    """jaf-py's own provider, at the lengths at which peers were measured."""
    points = sorted((_at(one), one.value * ours[one.at]) for one in theirs if one.value and one.at in ours)
    if points:
        lengths, costs = zip(*points, strict=True)
        axis.plot(lengths, costs, ":", marker=dot, color=OTHER, label=f"{theirs[0].what}: jaf-py")


def by_tasks(report: Report) -> Drawing | None:
    """Pairs of append and read a second, over what the driver does with one task."""
    figures = report.of("beside", loop="asyncio", what=comparisons.PAIRS)
    backends = _backends(figures)
    if not backends:
        return None
    drawing, axes = _panels(backends, 3.3)
    for axis, backend in zip(axes, backends, strict=True):
        points = sorted((one for one in figures if one.backend == backend), key=_at)
        unit = points[0].theirs or math.nan
        tasks = [one.at for one in points]
        bare = [unit / (one.theirs or math.nan) for one in points]
        ours = [(one.value or math.nan) * other for one, other in zip(points, bare, strict=True)]
        axis.plot(tasks, ours, marker="o", color=OURS, label="ours")
        axis.plot(tasks, bare, marker="o", color=BARE, label="the bare driver")
        axis.set(xscale="log", xlabel="tasks", xticks=tasks, xticklabels=tasks, ylim=(0, None))
        axis.minorticks_off()
    _legend(drawing, axes)
    axes[0].set_ylabel("pairs a second (1: the driver, one task)")
    return drawing


def _at(figure: Figure) -> int:
    return figure.at or 0


def of_peers(report: Report) -> Drawing | None:
    """How many times faster ours is than other libraries."""
    figures = [one for one in report.of("peers") if one.value is not None and (one.at or 0) >= MANY_TASKS]
    if not figures:
        return None
    figures.sort(key=lambda one: (list(NAMES).index(one.backend), one.beside))
    names = [f"{one.beside}, {NAMES[one.backend]}: {label(one)}" for one in figures]
    drawing = Drawing(figsize=(8, 0.19 * len(names) + 0.8), layout="constrained")
    axis = drawing.subplots()
    rows = range(len(figures))
    values = [one.value or math.nan for one in figures]
    axis.barh(rows, [value - 1 for value in values], left=1, color=[OURS if value >= 1 else MARK for value in values])
    wanted = [(one.target.bound, row) for row, one in zip(rows, figures, strict=True) if one.target]
    if wanted:
        axis.plot(*zip(*wanted, strict=True), "|", color=MARK, markersize=9, markeredgewidth=2, label="target")
        axis.legend(frameon=False, loc="lower right")
    axis.set(xscale="log", xlabel="times faster than the other library (left of 1: slower)")
    axis.set_yticks(list(rows), names, fontsize=7)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    return drawing
