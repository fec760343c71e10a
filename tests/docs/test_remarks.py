"""What remarks and pages call by its name stands where they say: files, and rules that a script follows."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("jaf_memory_core", "plugins", "examples", "tests", "benchmarks", "docs", "changes")
ENDINGS = ("py", "pyi", "lua", "sql", "md", "toml", "yml")
FILE = re.compile(rf"(?<![\w/.*<>{{}}-])((?:[\w-]+/)*[\w-]+\.(?:{'|'.join(ENDINGS)}))(?![\w*])")
WRITTEN = re.compile(r"<!-- file (\S+) -->")
"""A file that a page has its reader write."""
RULE = re.compile(r"`(\w+)\.(\w+)")
MADE = {
    "test_it.py",
    "sitecustomize.py",
    *(f"jaf_memory_lmdb/{name}.py" for name in ("__init__", "conversations", "environment")),
}
"""Files that tests write, and tell of."""


def files(*endings):
    """Return the files of the checkout that end so."""
    found = [
        path for place in SOURCES for path in (ROOT / place).rglob("*") if path.suffix.removeprefix(".") in endings
    ]
    return [*found, *(path for path in ROOT.glob("*") if path.suffix.removeprefix(".") in endings)]


def remarks(path):
    """Return what a file says to people: its comments and docstrings, all of a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in {".lua", ".sql"}:
        return "\n".join(line.partition("--")[2] for line in text.splitlines())
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    said = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    said += [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return "\n".join([*comments, *(ast.get_docstring(node) or "" for node in said)])


def absent_files(text, standing):
    """Return the names of files in a text that none of those that stand bears."""
    named = set(FILE.findall(text)) - {path.rpartition("/")[2] for path in standing}
    return {name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in standing)}


def absent_rules(text, code):
    """Return what a text calls `module.name` that is neither defined in that module nor used beside the text.

    Args:
        text: the remarks.
        code: module → its sources; under "" the code beside the remarks.
    """
    return {
        f"{module}.{name}"
        for module, name in RULE.findall(text)
        if name not in ENDINGS
        and f"{module}.{name}" not in code[""]
        and not re.search(rf"^(?:async )?(?:def|class) {name}\b|^{name}\b.* = ", code.get(module, ""), re.MULTILINE)
    }


def test_files_that_remarks_name():
    """Every file that a comment, a docstring or a page names is there."""
    everything = files(*ENDINGS)
    standing = [path.relative_to(ROOT).as_posix() for path in everything]
    pages = [path.read_text(encoding="utf-8") for path in everything if path.suffix == ".md"]
    standing += [name for text in pages for name in WRITTEN.findall(text)]
    # Nearly all name nothing that is absent, in their code neither, and need not be taken apart.
    doubtful = [path for path in everything if absent_files(path.read_text(encoding="utf-8"), standing)]
    absent = {path.relative_to(ROOT).as_posix(): absent_files(remarks(path), standing) - MADE for path in doubtful}
    assert {path: names for path, names in absent.items() if names} == {}


def test_rules_that_scripts_name():
    """Every rule of ours that a script in Lua or SQL says it follows is there."""
    sources = {}
    for path in [*(ROOT / "jaf_memory_core").rglob("*.py"), *(ROOT / "plugins").glob("*/jaf_memory_*/**/*.py")]:
        sources[path.stem] = sources.get(path.stem, "") + path.read_text(encoding="utf-8")
    absent = {}
    for path in files("lua", "sql"):
        code = "\n".join(line.partition("--")[0] for line in path.read_text(encoding="utf-8").splitlines())
        absent[path.name] = absent_rules(remarks(path), {**sources, "": code})
    assert {name: rules for name, rules in absent.items() if rules} == {}


@pytest.mark.parametrize(
    ("text", "files", "rules"),
    [
        ("see `gone.lua` and kept.py", {"gone.lua"}, set()),
        ("as in old/kept.py", {"old/kept.py"}, set()),
        ("as `kept.rule` and `kept.other` decide", set(), {"kept.other"}),
        ("as `gone.rule` decides, for `request.id`", set(), {"gone.rule"}),
    ],
)
def test_the_checks_find_what_is_gone(text, files, rules):
    """A file and a rule that are not there are found."""
    assert absent_files(text, ["new/kept.py"]) == files
    assert absent_rules(text, {"kept": "def rule():\n", "": "local x = request.id"}) == rules
