"""Pages that show figures: their tables stand between two marks, and are made from the figures in the documentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import tables
from benchmarks.figures import Report
from benchmarks.payload import ROOT

FOLDER = ROOT / "docs" / "charts"
FIGURES = FOLDER / "figures.json"
BEGIN, END = "<!-- figures made by `python3 dev.py bench -- --docs` -->", "<!-- end of the figures -->"

PAGES: dict[Path, Callable[[Report], str]] = {
    ROOT / "docs" / "performance.md": tables.text,
    ROOT / "docs" / "comparison.md": tables.peers_short,
    ROOT / "README.md": tables.short,
}
"""What stands between the marks of each page."""


def rewritten(page: str, table: str, mark: str = BEGIN) -> str:
    """A page with another table behind a mark.

    Raises:
        ValueError: the page has lost a mark.
    """
    before, begin, rest = page.partition(mark)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has lost its marks: {mark} and {END}")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def publish(report: Report) -> None:
    """Write figures, charts and pages."""
    from benchmarks import charts

    charts.draw(report, FOLDER)
    report.write(FIGURES)
    for page, table in PAGES.items():
        page.write_text(rewritten(page.read_text(encoding="utf-8"), table(report)), encoding="utf-8")
