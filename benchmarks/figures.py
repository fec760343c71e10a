"""Figures: what a process measured, what five of them come to, and how they are kept as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

MOST, LEAST = "most", "least"


@dataclass(frozen=True)
class Target:
    """What a figure should be: at `most` or at `least` so much."""

    sense: str
    bound: float

    def met(self, value: float) -> bool:
        """Whether a value reaches it, as exactly as the tables show it."""
        shown = round(value, 2)
        return shown <= self.bound if self.sense == MOST else shown >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.sense == MOST else '≥'} {self.bound:g}"


@dataclass(frozen=True)
class Figure:
    """One thing that was measured.

    Attributes:
        section: the table that it belongs to.
        backend: memory, sqlite, redis or postgres; empty for what concerns none of them.
        what: what was done.
        at: messages that the conversation holds, or tasks that do it at once.
        beside: whom ours is compared with; empty if with nobody.
        loop: the event loop.
        unit: of the value; `x` is a ratio.
        value: the median over the processes; `None` if there is none, and `error` says why.
        low, high: the lowest and the highest of the processes.
        ours, theirs: medians of what the ratio is of, in seconds for times.
        target: what we want.
        error: why there is no value.
    """

    section: str
    backend: str
    what: str
    at: int | None = None
    beside: str = ""
    loop: str = "asyncio"
    unit: str = "x"
    value: float | None = None
    low: float | None = None
    high: float | None = None
    ours: float | None = None
    theirs: float | None = None
    target: Target | None = None
    error: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes it the same figure in another process."""
        return self.section, self.backend, self.what, self.at, self.beside, self.loop

    @property
    def met(self) -> bool | None:
        """Whether it reaches its target; `None` without one."""
        if self.target is None:
            return None
        return self.value is not None and self.target.met(self.value)


def merged(found: Iterable[Figure]) -> list[Figure]:
    """One figure for what several processes measured: the median, with the lowest and the highest.

    Whoever failed in one process has no figures, only the error: what is left would flatter or wrong it.
    """
    found = list(found)
    failed = {(one.section, one.backend, one.beside): one for one in found if one.error}
    groups: dict[tuple[Any, ...], list[Figure]] = {}
    for figure in found:
        if (figure.section, figure.backend, figure.beside) not in failed:
            groups.setdefault(figure.key, []).append(figure)
    return [*map(_one, groups.values()), *failed.values()]


def _one(group: list[Figure]) -> Figure:
    values = [figure.value for figure in group if figure.value is not None]
    return replace(
        group[0],
        value=_median(values),
        low=_short(min(values)),
        high=_short(max(values)),
        ours=_median(figure.ours for figure in group),
        theirs=_median(figure.theirs for figure in group),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _short(statistics.median(known)) if known else None


def _short(value: float) -> float:
    """Four digits: more would be a machine's mood, and new in every run."""
    return float(f"{value:.4g}")


@dataclass(frozen=True)
class Report:
    """One run.

    Attributes:
        machine: what it ran on, name to text.
        figures: all figures.
    """

    machine: dict[str, str]
    figures: list[Figure]

    def of(self, section: str, **wanted: object) -> list[Figure]:
        """The figures of a section whose fields have these values."""
        return [
            figure
            for figure in self.figures
            if figure.section == section and all(getattr(figure, name) == value for name, value in wanted.items())
        ]

    def write(self, file: Path) -> None:
        """Keep it as JSON; what is absent is left out."""
        figures = [{name: value for name, value in asdict(one).items() if value is not None} for one in self.figures]
        lines = ",\n  ".join(json.dumps(figure, ensure_ascii=False) for figure in figures)
        machine = json.dumps(self.machine, indent=2, ensure_ascii=False).replace("\n", "\n ")
        file.write_text(f'{{\n "machine": {machine},\n "figures": [\n  {lines}\n ]\n}}\n', encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Report:
        """Read what `write` wrote."""
        found = json.loads(file.read_text(encoding="utf-8"))
        return cls(found["machine"], [as_figure(fields) for fields in found["figures"]])


def as_figure(fields: dict[str, Any]) -> Figure:
    """A figure from its fields as JSON has them."""
    target = fields.pop("target", None)
    return Figure(**fields, target=Target(**target) if target else None)
