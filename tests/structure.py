"""How the house is built, in figures: `python tests/structure.py [CHECKOUT]`; with `--tree`, the list of its rooms.

Modules, names that end in -ing, modules that only one other imports, the longest chain of imports in the core, lines by
distribution, the share of comments and docstrings. It reads sources only.
"""

import ast
import functools
import io
import sys
import tokenize
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("jaf_memory_core", "plugins/*/jaf_memory_*")
PAGE = ROOT / "docs" / "architecture.md"
MARKS = ("<!-- tree -->\n", "<!-- end of the tree -->\n")


@dataclass
class Module:
    """One module: its name, where it stands, and which of ours it imports when it is imported itself."""

    name: str
    file: Path
    imports: set[str] = field(default_factory=set)
    lines: int = 0
    comments: int = 0
    docstrings: int = 0
    ignores: int = 0

    @property
    def distribution(self):
        """Return the package that it belongs to."""
        return self.name.partition(".")[0]


def modules(root=ROOT):
    """Return every module of every distribution, by name."""
    found = {}
    for place in PACKAGES:
        for package in sorted(root.glob(place)):
            for file in sorted(package.rglob("*.py")):
                parts = file.relative_to(package.parent).with_suffix("").parts
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                found[name] = Module(name, file)
    for module in found.values():
        _read(module, found)
    return found


def _read(module, known):
    text = module.file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    module.lines = len(text.splitlines())
    module.imports = {name for name in _imported(tree.body, known) if name != module.name}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            module.ignores += "noqa" in token.string
            module.comments += "noqa" not in token.string and "type: ignore" not in token.string
        elif token.type == tokenize.STRING and token.line.lstrip().startswith(('"""', 'r"""')):
            module.docstrings += token.end[0] - token.start[0] + 1


def _imported(body, known):
    """Yield which of our modules statements import at once; what stands in functions or for type checkers does not."""
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield from (name for name in (whole if whole in known else node.module,) if name in known)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.Try):
            yield from _imported(node.body, known)


def importers(known):
    """Return by which modules each is imported, wherever the import stands."""
    found = {name: set() for name in known}
    for module in known.values():
        tree = ast.parse(module.file.read_text(encoding="utf-8"))
        statements = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        for name in _imported(statements, known):
            if name != module.name:
                found[name].add(module.name)
    return found


def single(known, distribution):
    """Return the modules of a distribution that only one other imports, its front page aside."""
    by = importers(known)
    return sorted(
        name
        for name, module in known.items()
        if module.distribution == distribution and name != distribution and len(by[name]) == 1
    )


def chain(known, distribution="jaf_memory_core"):
    """Return the longest chain of imports inside a distribution, the first to import first; a cycle counts once."""

    @functools.cache
    def longest(name, seen):
        inner = [
            longest(other, seen | {name})
            for other in known[name].imports
            if other not in seen and other != distribution and known[other].distribution == distribution
        ]
        return (name, *max(inner, key=len, default=()))

    inside = [name for name, module in known.items() if module.distribution == distribution]
    return max((longest(name, frozenset()) for name in inside), key=len)


def report(root):
    """Return the figures as lines of text."""
    known = modules(root)
    lines = sum(module.lines for module in known.values())
    yield f"modules                       {len(known)}"
    rooms = [name for name in known if "." in name]  # a distribution is called as people install it
    yield f"called *-ing                  {sum(name.endswith('ing') for name in rooms)}"
    yield f"longest import chain, core    {len(chain(known))}"
    yield f"noqa                          {sum(module.ignores for module in known.values())}"
    for what in ("comments", "docstrings"):
        share = 100 * sum(getattr(module, what) for module in known.values()) / lines
        yield f"{what:<29} {share:.1f} % of the lines"
    yield ""
    yield f"{'distribution':<22} {'modules':>8} {'lines':>7} {'imported by one':>16}"
    for distribution in sorted({module.distribution for module in known.values()}):
        inside = [module for module in known.values() if module.distribution == distribution]
        alone = len(single(known, distribution))
        yield f"{distribution:<22} {len(inside):>8} {sum(one.lines for one in inside):>7} {alone:>16}"


def tree(root=ROOT):
    """Return the rooms as Markdown: a list a distribution, and what the first sentence of each module says."""
    lines = []
    known = modules(root)
    for distribution in dict.fromkeys(module.distribution for module in known.values()):
        inside = [module for module in known.values() if module.distribution == distribution]
        folder = inside[0].file.parent
        lines += [f"### {distribution}", ""]
        lines += [f"- `{module.file.relative_to(folder)}`: {_says(module)}" for module in inside]
        lines += [""]
    return "\n".join(lines)


def _says(module):
    first = (ast.get_docstring(ast.parse(module.file.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
    return " ".join(first.split()).rstrip(".:")


def page_with_tree(text):
    """Return the page of the architecture with the tree as it stands."""
    before, _, rest = text.partition(MARKS[0])
    return f"{before}{MARKS[0]}\n{tree()}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--tree"]:
        PAGE.write_text(page_with_tree(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write("\n".join(report(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)) + "\n")
