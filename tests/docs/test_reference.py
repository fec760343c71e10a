"""The reference names everything that is public: what is, is read from the code.

- names in `__all__` of a distribution's package, or of a module that a page's code imports from, and what it imports;
- all of a module that the example of a stranger's backend is written with;
- classes of settings, commands, hooks, spans, metrics, records of the log.

That a name which a page names is there, with its signature, is seen by the session `docs`, which makes the pages.
"""

import ast
import importlib
import inspect
import itertools
import re
import textwrap
from pathlib import Path

import pytest
import typer
from jaf_memory_cli.app import COMMANDS, app
from page_code import BLOCK, PAGES, ROOT
from typer.main import get_command

from jaf_memory_core import ManagedMemoryProvider, MemoryProvider, hooks
from jaf_memory_core.settings import Settings, environment

REFERENCE = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md")}
PACKAGES = [ROOT / "jaf_memory_core", *sorted((ROOT / "plugins").glob("*/jaf_memory_*"))]
DIRECTIVE = re.compile(r"^\.\. auto(\w+):: (\S+)\n((?:   :.*\n)*)", re.MULTILINE)


def file_of(module):
    """The file of one of our modules, or `None`."""
    top, *below = module.split(".")
    places = [folder.joinpath(*below) for folder in PACKAGES if folder.name == top]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return next((file for file in files if file.exists()), None)


def tree_of(module):
    """What stands in a module."""
    return ast.parse(file_of(module).read_text(encoding="utf-8"))


def exported(module):
    """The names in a module's `__all__`, or `None`."""
    for node in tree_of(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return {f"{module}.{name}" for name in ast.literal_eval(node.value)}
    return None


def defined(module):
    """Classes, functions and documented values that a module defines, but those with an underscore."""
    body, kinds = tree_of(module).body, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = [node.name for node in body if isinstance(node, kinds)]
    documented = (node for node, after in itertools.pairwise(body) if isinstance(after, ast.Expr))
    names += [ast.unparse(node.targets[0]) for node in documented if isinstance(node, ast.Assign)]
    return {f"{module}.{name}" for name in names if not name.startswith("_")}


def imports(code):
    """Module and name of each import from ours."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module and file_of(node.module):
            yield from ((node.module, alias.name) for alias in node.names)


def public_names():
    """Every name that the code says is public."""
    names = set().union(*(exported(folder.name) or () for folder in PACKAGES))
    for page in PAGES:
        for mark, _, language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language == "python" and mark != "from":
                for module, name in imports(block):
                    names |= exported(module) or {f"{module}.{name}"}
    for file in (ROOT / "examples").glob("*/jaf_memory_*/*.py"):
        for module, name in imports(file.read_text(encoding="utf-8")):
            whole = f"{module}.{name}" if file_of(f"{module}.{name}") else module
            names |= exported(whole) or defined(whole)
    return {name for name in names if not theirs(name) and not is_hook(name)}


def theirs(name):
    """Whether jaf-py's own name is meant, which stands in our module so that imports need not change."""
    module, _, one = name.rpartition(".")
    found = [node for node in tree_of(module).body if isinstance(node, ast.ImportFrom)]
    return any(one == alias.name for node in found if node.module.split(".")[0] == "jaf" for alias in node.names)


def is_hook(name):
    """Whether this is a plugin's answer to a hook, which nobody calls but the core."""
    return name.rpartition(".")[2] in vars(hooks) and not name.startswith("jaf_memory_core.hooks.")


def documented_names():
    """Every name that the reference has a place for."""
    names = set()
    for kind, name, options in DIRECTIVE.findall("".join(REFERENCE.values())):
        if kind != "module":
            names.add(name)
        elif ":members:" in options:
            names |= exported(name) or defined(name)
    return names


def absent(public, documented):
    """Names that have no place; where it is made is as good as where it is imported from."""
    return {
        name
        for name in public - documented
        if not any(
            one.startswith(f"{name.rpartition('.')[0]}.") and one.rpartition(".")[2] == name.rpartition(".")[2]
            for one in documented
        )
    }


def test_every_public_name():
    """Every public class, function and value has a place in the reference."""
    assert absent(public_names(), documented_names()) == set()


def test_a_name_that_is_absent():
    """A public name without a place is found, and one that is documented where it is made is none."""
    public = public_names()
    assert len(public) > 200
    assert absent(public | {"jaf_memory_core.New"}, documented_names()) == {"jaf_memory_core.New"}
    assert absent({"jaf_memory_testing.FEATURES"}, {"jaf_memory_testing.target.FEATURES"}) == set()


def test_every_method_says_what_it_does():
    """Every public method and property of a documented class has a docstring, its own or that of what it overrides."""
    silent = []
    for name in sorted(documented_names()):
        module, _, one = name.rpartition(".")
        if module.startswith("jaf_memory_bridges"):
            continue  # engines may be absent; ruff asks for the docstrings of what is written here
        kind = getattr(importlib.import_module(module), one)
        if inspect.isclass(kind):
            members = {key: value for key, value in vars(kind).items() if not key.startswith("_")}
            called = [key for key, value in members.items() if inspect.isroutine(value) or isinstance(value, property)]
            silent += [f"{name}.{key}" for key in called if not inspect.getdoc(getattr(kind, key))]
    assert silent == []


def settings_classes():
    """Every class of settings of ours."""
    for folder in PACKAGES:
        if folder.name != "jaf_memory_bridges":
            importlib.import_module(folder.name)
    found, waiting = [], [Settings]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if file_of(kind.__module__):
            found.append(kind)
    return found


@pytest.mark.parametrize("kind", settings_classes(), ids=lambda kind: kind.__name__)
def test_every_setting(kind):
    """Every class of settings stands on the page of settings with its fields, and each of these says what it means."""
    named = {name: options for _, name, options in DIRECTIVE.findall(REFERENCE["settings.md"])}
    (place,) = [name for name in named if name.rpartition(".")[2] == kind.__name__]
    assert ":members:" in named[place]
    assert [row.field for row in environment.describe(kind, {}) if row.help.startswith("Allowed")] == []


def test_every_command():
    """Every command stands on the page of commands, under its name; each of its options and arguments has a help."""
    page = REFERENCE["commands.md"]
    places = re.findall(r"^### (\S+)\n\n~~~\{eval-rst\}\n\.\. command:: (\S+)\n", page, re.MULTILINE)
    assert places == [(name, name) for name in COMMANDS]
    assert ".. command::\n" in page
    group = get_command(app)
    context = typer.Context(group, info_name="jaf-memory")
    commands = [group, *(group.resolve_command(context, [name])[1] for name in COMMANDS)]
    assert [(one.name, param.name) for one in commands for param in one.get_params(context) if not param.help] == []


def test_every_hook():
    """The page of hooks has all of the module of hooks; a hook without a docstring would not stand there."""
    specs = [value for name, value in vars(hooks).items() if hasattr(value, "jaf_memory_spec")]
    assert len(specs) == len(re.findall(r"^@hookspec", Path(hooks.__file__).read_text(encoding="utf-8"), re.MULTILINE))
    assert all(inspect.getdoc(spec) for spec in specs)
    assert re.search(
        r"^\.\. automodule:: jaf_memory_core\.hooks\n   :members:\n", REFERENCE["backends.md"], re.MULTILINE
    )


def constants(*modules):
    """Texts in the code of modules that look like names of OpenTelemetry's."""
    for module in modules:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.Constant) and re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", str(node.value)):
                yield node.value


def test_every_span_and_metric():
    """Every attribute and metric that the telemetry tells stands in the tables."""
    told = {*constants("jaf_memory_otel.conventions", "jaf_memory_otel.metrics")}
    assert len(told) > 20
    assert {name for name in told if f"`{name}`" not in REFERENCE["telemetry.md"]} == set()
    assert set(re.findall(r"^\| `((?:jaf|db|gen_ai|error)\.[\w.]+)`", REFERENCE["telemetry.md"], re.MULTILINE)) <= told


def records():
    """Logger, level and text of every record that our code writes."""
    for folder in PACKAGES:
        for file in folder.rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            texts = {
                ast.unparse(node.targets[0]): ast.literal_eval(node.value)
                for node in tree.body
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            }
            logger = re.search(r'getLogger\("([\w.]+)"\)', ast.unparse(tree).replace("'", '"'))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and re.fullmatch(
                    r"_?logger\.(debug|info|warning|error|critical|exception)", ast.unparse(node.func)
                ):
                    text = node.args[0]
                    said = text.value if isinstance(text, ast.Constant) else texts[ast.unparse(text)]
                    yield logger[1], node.func.attr.upper(), said


def test_every_record_of_the_log():
    """Every record that our code writes stands in the table with its logger and level, and no other does."""
    row = re.compile(r"^\| `(jaf_memory_\w+)` \| ([A-Z]+) \| `(.+?)` \|", re.MULTILINE)
    table = {(logger, level): [] for logger, level, _ in row.findall(REFERENCE["telemetry.md"])}
    for logger, level, text in row.findall(REFERENCE["telemetry.md"]):
        table[logger, level].append(re.compile(re.escape(text).replace("…", ".*")))
    written = list(records())
    missing = [one for one in written if not any(row.fullmatch(one[2]) for row in table.get(one[:2], ()))]
    assert missing == []
    assert sum(map(len, table.values())) == len(written)


def examples():
    """Each example in the docstring of a documented name, or of a method of it."""
    for name in sorted(documented_names()):
        module, _, one = name.rpartition(".")
        if module.startswith("jaf_memory_bridges"):
            continue  # their pages have examples, which need the engines
        thing = getattr(importlib.import_module(module), one)
        members = {one: thing} | {key: getattr(thing, key) for key in dir(thing) if inspect.isclass(thing)}
        for key, member in members.items():
            if key.startswith("_") or not str(getattr(member, "__module__", "")).startswith("jaf_memory"):
                continue
            _, _, code = (inspect.getdoc(member) or "").partition("\nExample:\n")
            if code:
                yield f"{name}.{key}", textwrap.dedent(code)


EXAMPLES = dict(examples())

NAMES = """
from datetime import UTC, datetime, timedelta
from jaf_memory_core import *
from jaf_memory_core.factory import missing_methods
from jaf_memory_postgres import *
from jaf_memory_redis import *
from jaf_memory_sqlite import *
provider = await create_memory_provider("memory")
asked = Message("user", "Where is my order?", message_id="m1")
answer = Message("assistant", "On its way.", message_id="m2")
(await provider.store_messages("user-123:chat", [asked, answer], user_id="user-123")).unwrap()
"""


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example(name, console):
    """An example in a docstring runs over a small conversation, and prints what stands behind it in a remark."""
    code = EXAMPLES[name]
    if ".example" in code and "create_" in code:
        compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # the server is the reader's
        return
    names = {"__name__": "example"}
    console.run(NAMES, names, title=name)
    told = re.findall(r"print\(.*\)  # (.+)", code)
    printed = console.run(code, names, title=name).splitlines()
    assert [line for line in told if line not in printed and line != "try again later"] == []


def test_main_names_have_examples():
    """Whatever is used every day shows how."""
    methods = {
        name
        for name in vars(MemoryProvider) | vars(ManagedMemoryProvider)
        if not name.startswith("_") and name != "close"
    }
    without = {"get_condensed_conversation", "mark_regeneration_point", "renew_lease", "release_lease"}  # beside others
    found = {name.rpartition(".")[2] for name in EXAMPLES if ".BackendProvider." in name}
    assert methods - found == without
