"""How the documentation becomes a site: `sphinx-build -W docs site`, as the session `docs` runs it.

docs/decisions/0011-site.md says why it is made so.
"""

from __future__ import annotations

import functools
import html
import inspect
import itertools
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import typer
from docutils import nodes
from docutils.statemachine import StringList
from jaf_memory_bridges import extras
from jaf_memory_cli.app import NAME, app
from msgspec import Struct
from sphinx.application import Sphinx
from sphinx.builders.text import TextBuilder
from sphinx.environment import BuildEnvironment
from sphinx.ext.autodoc.mock import mock
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode
from sphinx.util.typing import stringify_annotation
from sphinx.writers.text import TextTranslator
from typer.main import get_command

from jaf_memory_core import MemoryQuery, records
from jaf_memory_core.search import Phrase
from jaf_memory_core.settings import ProviderConfig, Settings, environment

NAVIGATION = {
    "Build with it": "getting-started conversations providers sessions guarantees moving-from-jaf-py comparison",
    "Recipes": "recipes/index",
    "Run it": "operations command-line performance reliability",
    "Extend it": "writing-a-backend conformance plugins",
    "Look up": "reference/index",
    "Maintain it": "architecture decisions/index document/index",
}
"""The site's map, by who reads: names of pages, with `*` for those to come."""

REFERENCE = "providers messages sessions errors settings commands telemetry plugins bridges backends testing"
DISTRIBUTIONS = "distributions/"
"""Pages here are the README of the distribution that they are named for."""

CHILDREN = {
    "providers": "distributions/sqlite distributions/redis distributions/postgres",
    "sessions": "distributions/bridges engines/*",
    "plugins": "distributions/redaction distributions/encryption distributions/otel",
    "decisions/index": "decisions/0*",
    "recipes/index": "recipes/[!i]*",
    "reference/index": re.sub(r"\w+", r"reference/\g<0>", REFERENCE),
}
"""Pages that stand below another one in the map; what it would leave out, the build refuses."""

project = "jaf-memory"
html_title = "jaf-memory"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["document/*.py"]

myst_heading_anchors = 4
highlight_language = "text"

add_module_names = False
autodoc_default_options = {
    "member-order": "bysource",
    "exclude-members": "model_config",
    # What Python, pydantic and msgspec bring is not ours to document.
    "inherited-members": "ABC,BaseException,BaseModel,Generic,Protocol,ProviderConfig,Struct,dict,list,object,tuple",
}
autodoc_mock_imports = ["agents", "google", "jaf", "langchain_core", "pydantic_ai", "starlette", "uvicorn"]
default_role = "py:obj"  # what stands in `…` in a docstring is a name, and a link where the reference has it
maximum_signature_line_length = 88
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
smartquotes_action = "D"  # dashes only
toc_object_entries_show_parents = "hide"

# Engines need not be installed: their names are enough.
extras.require = lambda *_, **__: None
with mock(autodoc_mock_imports), patch("pydantic.TypeAdapter"):
    import_module("jaf_memory_bridges.pydantic_ai")
vars(records).update(MemoryQuery=MemoryQuery, Phrase=Phrase)  # which its types name

html_theme = "furo"
html_theme_options = {"top_of_page_buttons": []}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/mark.svg"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False


def take_readme(_app: Sphinx, page: str, source: list[str]) -> None:
    """Put a distribution's README in the place of the page that stands for it in the repository."""
    source[0] = _readme(page, source[0])


def _readme(page: str, text: str) -> str:
    if not page.startswith(DISTRIBUTIONS):
        return text
    file = PLUGINS / f"jaf-memory-{page.removeprefix(DISTRIBUTIONS)}" / "README.md"

    def led(link: re.Match[str]) -> str:
        shown, path, anchor = link.groups()
        if not path or urlsplit(path).scheme:
            return link[0]
        target = (file.parent / path).resolve()
        target = DOCS / "index.md" if target == DOCS.parent / "README.md" else target
        # What is not on the site keeps its name, and loses the link.
        return f"[{shown}](../{target.relative_to(DOCS)}{anchor})" if target.is_relative_to(DOCS) else shown

    return re.sub(r"\[([^\]\n]+)\]\(([^)#\s]*)(#[^)\s]*|)\)", led, file.read_text(encoding="utf-8"))


DOCS = Path(__file__).resolve().parent
PLUGINS = DOCS.parent / "plugins"


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


def name_attributes(_app: Sphinx, page: nodes.document) -> None:
    """Call what a docstring calls attributes so, and not variables."""
    for name in page.findall(nodes.field_name):
        if name.astext() == "Variables":
            name[:] = [nodes.Text("Attributes")]


SHORT, LONG = 16, 40
"""Characters up to which a name in a table is never broken, and up to which it is not where there is room."""


def break_names(app: Sphinx, page: nodes.document, _name: str) -> None:
    """Let long names in tables go on in another line, behind `_`, `.` and `/`: tables fit a phone then."""
    if app.builder.format != "html":
        return
    for literal in list(page.findall(nodes.literal)):
        if isinstance(literal.parent.parent, nodes.entry):
            name = html.escape(literal.astext())
            kind = "short" if len(name) <= SHORT else "long" if len(name) > LONG else "literal"
            name = name if kind == "short" else re.sub(r"(?<=[_./])(?=\w)", "<wbr>", name)
            literal.replace_self(nodes.raw("", f'<code class="{kind}">{name}</code>', format="html"))


def write_texts(app: Sphinx, error: Exception | None) -> None:
    """Write each page as Markdown beside its HTML, and `llms.txt` and `llms-full.txt` for readers that are programs."""
    if error is not None or app.builder.format != "html":
        return
    lines, whole = [f"# {project}", "", f"> {_opening(app, 'index')}"], []
    builder = TextBuilder(app, app.env)
    builder.init()
    for caption, entries in NAVIGATION.items():
        pages = _matching(app, entries)
        lines += ["", f"## {caption}", ""] if pages else []
        for page in (one for above in pages for one in (above, *_matching(app, CHILDREN.get(above, "")))):
            lines.append(f"- [{app.env.titles[page].astext()}]({page}.md): {_opening(app, page)}")
            text = _text(app, page, builder)
            whole.append(text)
            copy = Path(app.outdir, f"{page}.md")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text, encoding="utf-8")
    Path(app.outdir, "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Path(app.outdir, "llms-full.txt").write_text("\n\n".join(whole), encoding="utf-8")


def _text(app: Sphinx, page: str, builder: TextBuilder) -> str:
    """A page as Markdown, as it is written; of one that is made from code, as text."""
    text = _readme(page, app.env.doc2path(page).read_text(encoding="utf-8"))
    if "{eval-rst}" not in text:
        return text
    writer = TextTranslator(app.env.get_and_resolve_doctree(page, builder), builder)
    writer.document.walkabout(writer)
    return writer.body


def _opening(app: Sphinx, page: str) -> str:
    """How a page begins: a sentence of it, or two short ones."""
    text = " ".join(next(app.env.get_doctree(page).findall(nodes.paragraph)).astext().split())
    sentence = re.match(r".{30,}?\.(?= |$)", text)
    return sentence[0] if sentence else text.rstrip(":")


SECTIONS = frozenset({"Args:", "Attributes:", "Raises:", "Returns:", "Yields:"})
"""Of docstrings, in Google's style; what stands indented under another line is code."""


def explain(_app: Sphinx, kind: str, name: str, thing: Any, _options: Any, lines: list[str]) -> None:
    """Make of a docstring of ours what Sphinx understands, and add what only the code says."""
    text = re.sub(r"(?<!`)(`[^`\n]+`)(?=\w)", r"\1\\ ", "\n".join(lines))  # `Message`s
    text = _typed(text, thing) if kind in {"class", "exception"} else text
    lines[:] = _with_code(text.split("\n"))
    if kind == "class" and issubclass(thing, ProviderConfig) and thing is not ProviderConfig:
        common = [f"``{thing.env_prefix}{field.upper()}``" for field in ProviderConfig.model_fields]
        lines += [f"Beside what follows, the fields of `ProviderConfig`: {', '.join(common)}.", ""]
    if kind in {"attribute", "data", "property"}:
        KEPT[name] = [*lines, *(_variable(name) if kind == "attribute" else ())]


def sign(
    _app: Sphinx, kind: str, _name: str, thing: Any, _options: Any, given: str | None, answer: str | None
) -> tuple[str | None, str | None]:
    """Show how a value is made with plain types: what else its annotations say is for those who check them."""
    if kind != "class" or not (issubclass(thing, (Struct, Settings)) or is_dataclass(thing)):
        return given, answer
    if issubclass(thing, Settings):
        return "(**fields)", None
    hints, parts = _hints(thing), []
    if not hints:
        return given, answer
    for name, parameter in inspect.signature(thing).parameters.items():
        if name != "further":
            default = parameter.default
            shown = "" if default is parameter.empty else " = {}" if default == {} else f" = {default!r}"
            parts.append(f"{name}: {stringify_annotation(hints[name], 'smart')}{shown.replace('<factory>', '...')}")
        else:
            parts.append("**further: Any")
    return f"({', '.join(parts)})", None


def keep(_app: Sphinx, _kind: str, name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    """Put the docstring of a value back, of which napoleon takes what stands before a colon for a type."""
    lines[:] = KEPT.get(name, lines)


KEPT: dict[str, list[str]] = {}


def _hints(kind: type) -> dict[str, Any]:
    """The types of a class's fields; none where they name what is not here, an engine's for one."""
    try:
        return typing.get_type_hints(kind)
    except (NameError, TypeError):
        return {}


def _typed(text: str, kind: type) -> str:
    """The docstring of a class with the types of the fields that it names."""
    hints = _hints(kind)

    def typed(found: re.Match[str]) -> str:
        hint = hints.get(found[1].partition(",")[0])
        return found[0] if hint is None else f"    {found[1]} ({stringify_annotation(hint, 'smart')}): "

    return re.sub(r"^    ([a-z_]\w*(?:, [a-z_]\w*)*): ", typed, text, flags=re.MULTILINE)


def _with_code(lines: Sequence[str]) -> Iterator[str]:
    section = code = False
    for before, line in itertools.pairwise(["", *lines]):
        if before in {"Returns:", "Yields:"}:  # of whose first words napoleon would make a type
            yield f":returns: {line.strip()}"
        elif line in {"Returns:", "Yields:"}:
            section, code = True, False
        elif line == "Example:":
            yield from (".. rubric:: Example", "", *MARK)
            section = code = True
        elif line and not line.startswith(" "):
            section, code = line in SECTIONS, False
            yield line
        else:
            if line and not before and not section and not code:
                yield from MARK
                code = True
            yield line
    yield ""


MARK = (".. code-block:: python", "   :force:", "")


def _variable(name: str) -> list[str]:
    """What is to be known of a setting beside what it means."""
    module, kind, field = name.rsplit(".", 2)
    found = getattr(import_module(module), kind, None)
    if not isinstance(found, type) or not issubclass(found, Settings) or field not in found.model_fields:
        return []
    (row,) = (row for row in settings_of(found) if row.field == field)
    variable = row.variable if found.env_prefix else f"JAF_NAME_{row.variable}"
    older = "".join(f", ``{one}``" for one, meant in found.env_older_names.items() if meant == field)
    allowed = _escaped(row.help.rpartition("Allowed: ")[2])
    return [f"Variable: ``{variable}``{older}. Default: {_escaped(row.default or 'none')}. Allowed: {allowed}", ""]


settings_of = functools.cache(lambda kind: environment.describe(kind, {}))


def _escaped(text: str) -> str:
    """Text in which nothing but what stands in `…` means more than it says."""
    text = re.sub(r"(`[^`]+`)|([\\*_|`])", lambda found: found[1] or f"\\{found[2]}", text)
    return re.sub(r"(?<![\w`-])--[\w-]+", r"``\g<0>``", text)


class CommandDirective(SphinxDirective):
    """`.. command:: list`: what `jaf-memory list` does and takes; `.. command::` what stands before a command."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write it as options of Sphinx's own, which can be linked to and found."""
        command: Any = get_command(app)
        context = typer.Context(command, info_name=NAME)
        if self.arguments:
            name, command, _ = command.resolve_command(context, self.arguments)
            context = typer.Context(command, info_name=name, parent=context)
        shown = context.command_path
        lines = [*_escaped(command.help or "").split("\n"), "", f".. program:: {shown}", ""]
        for parameter in command.get_params(context):
            names, text = parameter.get_help_record(context)
            if parameter.param_type_name == "argument":
                names = parameter.metavar
            if names != "--help" or not self.arguments:
                text = re.sub(r"x>=(\d+)", r"at least \1", _escaped(text))
                lines += [f".. option:: {names}", "", f"   {text}", ""]
        place = nodes.container()
        self.state.nested_parse(StringList(lines, source=shown), self.content_offset, place)
        return place.children


def find(app: Sphinx, env: BuildEnvironment, node: nodes.Element, content: nodes.Element) -> nodes.Element | None:
    """Where a name leads that a type or a docstring uses: to where it can be imported from."""
    if not FOUND:
        kinds = {"class", "data", "exception", "function"}
        for name, entry in env.domains.python_domain.objects.items():
            if entry.objtype in kinds:
                FOUND.setdefault(name.rpartition(".")[2], (name, entry))
    name, entry = FOUND.get(node.get("reftarget", "").rpartition(".")[2], ("", None))
    if entry is None or node.get("refdomain") != "py":
        return None
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)


FOUND: dict[str, tuple[str, Any]] = {}


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls first."""
    app.add_directive("command", CommandDirective)
    app.connect("source-read", take_readme)
    app.connect("source-read", add_map)
    app.connect("autodoc-process-docstring", explain, priority=400)  # before napoleon, which has 500
    app.connect("autodoc-process-docstring", keep, priority=600)
    app.connect("autodoc-process-signature", sign)
    app.connect("missing-reference", find)
    app.connect("doctree-read", name_attributes)
    app.connect("doctree-resolved", break_names)
    app.connect("build-finished", write_texts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
