"""How the documentation becomes a site: `sphinx-build -W docs site`, as the session `docs` runs it.

docs/decisions/0011-site.md says why it is made so.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

NAVIGATION = {
    "Build with it": "getting-started conversations providers sessions guarantees moving-from-jaf-py comparison",
    "Recipes": "recipes/*",
    "Run it": "operations command-line performance reliability",
    "Extend it": "writing-a-backend conformance plugins",
    "Look up": "reference/index",
    "Maintain it": "architecture decisions/index document/index",
}
"""The site's map, by who reads: names of pages, with `*` for those to come."""

CHILDREN = {"sessions": "engines/*", "decisions/index": "decisions/0*"}
"""Pages that stand below another one in the map."""

project = "jaf-memory"
html_title = "jaf-memory"
extensions = ["myst_parser"]
exclude_patterns = ["document/*.py"]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
highlight_language = "text"

html_theme = "furo"
html_theme_options = {"top_of_page_buttons": []}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/mark.svg"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False


def add_map(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the map below a page that has a part of it, for Sphinx only: other readers of Markdown would see its code."""
    if page == "index":
        source[0] += "".join(_tree(app, entries, caption) for caption, entries in NAVIGATION.items())
    elif page in CHILDREN:
        source[0] += _tree(app, CHILDREN[page])


def _tree(app: Sphinx, entries: str, caption: str = "") -> str:
    pages = [f"/{page}" for page in _matching(app, entries)]
    lines = [":hidden:", *([f":caption: {caption}"] if caption else []), "", *pages]
    return "\n\n```{toctree}\n" + "\n".join(lines) + "\n```\n" if pages else ""


def _matching(app: Sphinx, entries: str) -> list[str]:
    """The pages that entries of the map stand for."""
    found = (sorted(app.srcdir.glob(f"{entry}.md")) for entry in entries.split())
    return [file.relative_to(app.srcdir).with_suffix("").as_posix() for files in found for file in files]


def break_names(app: Sphinx, page: nodes.document, _name: str) -> None:
    """Let long names in tables go on in another line, behind `_`, `.` and `/`: tables fit a phone then."""
    if app.builder.format != "html":
        return
    for literal in list(page.findall(nodes.literal)):
        if isinstance(literal.parent.parent, nodes.entry):
            text = re.sub(r"(?<=[_./])(?=\w)", "<wbr>", html.escape(literal.astext()))
            literal.replace_self(nodes.raw("", f'<code class="literal">{text}</code>', format="html"))


def write_texts(app: Sphinx, error: Exception | None) -> None:
    """Write each page as Markdown beside its HTML, and `llms.txt` and `llms-full.txt` for readers that are programs."""
    if error is not None or app.builder.format != "html":
        return
    lines, whole = [f"# {project}", "", f"> {_opening(app, 'index')}"], []
    for caption, entries in NAVIGATION.items():
        pages = _matching(app, entries)
        lines += ["", f"## {caption}", ""] if pages else []
        for page in (one for above in pages for one in (above, *_matching(app, CHILDREN.get(above, "")))):
            lines.append(f"- [{app.env.titles[page].astext()}]({page}.md): {_opening(app, page)}")
            text = app.env.doc2path(page).read_text(encoding="utf-8")
            whole.append(text)
            copy = Path(app.outdir, f"{page}.md")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text, encoding="utf-8")
    Path(app.outdir, "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Path(app.outdir, "llms-full.txt").write_text("\n\n".join(whole), encoding="utf-8")


def _opening(app: Sphinx, page: str) -> str:
    """How a page begins: a sentence of it, or two short ones."""
    text = " ".join(next(app.env.get_doctree(page).findall(nodes.paragraph)).astext().split())
    sentence = re.match(r".{30,}?\.(?= |$)", text)
    return sentence[0] if sentence else text.rstrip(":")


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls first."""
    app.connect("source-read", add_map)
    app.connect("doctree-resolved", break_names)
    app.connect("build-finished", write_texts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
