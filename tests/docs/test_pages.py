"""Every page of documentation does what it says: its blocks of code are run, in the order of the page.

- `python`: run. The blocks of a page share their names, one event loop, and an empty folder.
- `text` behind `python`, `output` behind `bash`: what that block prints; `…` stands for anything.
- `bash`: `export` lines set variables for what follows, lines that begin with one of `RUN` are run and must end
  well, `python3 dev.py` lines must name sessions that there are. Other lines (installation) are not run.
- a block behind `<!-- file NAME -->`: is written to that file in the page's folder, as its reader does.
- a block behind `<!-- server PROVIDER -->`: finds an empty server of the tests' where the reader has one.
- a block behind `<!-- with MODULE -->`: is run where that is installed.
- a page with `<!-- hosts: NAME = FIXTURE, … -->`: those names and ports are servers that the tests start for it.
- a block behind `<!-- commands FIXTURE -->`: is given to that server, by its administrator.
- a block behind `<!-- from FILE -->`: stands in that file, word for word, and is not run here.
- a block behind `<!-- part PATH -->`: is a file of the distribution that the page builds; another test runs that.
- a block behind `<!-- not run: REASON -->`: is not run, because what it needs is the reader's.
- a page with `<!-- needs MODULE: EXTRA -->` is run where that engine is installed, as for its bridge's tests.
"""

import inspect
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from page_code import BLOCK, PAGES, ROOT
from services.programs import SERVER

NEEDED = re.compile(r"^<!-- needs ([\w.]+): (\S+) -->$", re.MULTILINE)
SESSION = re.compile(r'^@nox\.session(?:\(name="(\w+)"\))?\n(?:@.*\n)*def (\w+)', re.MULTILINE)
FORKED = {"jaf-memory", "python"}
RUN = FORKED | {"pg_dump", "psql"}
SHELL = re.compile(r"[|&;<>$`*?]")
HOSTS = re.compile(r"^<!-- hosts: (.+) -->$", re.MULTILINE)
SERVERS = {"redis": "redis_settings", "postgres": "postgres_settings"}
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_a_page_does_what_it_says(page, console, monkeypatch, request):
    """Every block of a page runs in its turn, and prints what the page says that it prints."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)  # a reader's programs import what lies beside them
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a reader has not all of ours, which take seconds
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p anyio -p no:cacheprovider")
    names, printed, shown = {"__name__": "page"}, None, ""
    request.addfinalizer(lambda: close_providers(names, console))
    text = page.read_text(encoding="utf-8")
    for module, extra in NEEDED.findall(text):
        pytest.importorskip(module, reason=f"needs {extra}")
    text = with_servers(text, request)
    for mark, source, language, block in BLOCK.findall(text):
        if not runs(mark, source) or is_used(mark, source, block, request):
            pass
        elif language == "python":
            printed = console.run(block, names, title=page.name)
            continue
        elif language == "bash":
            shown = run_lines(block, monkeypatch, request.getfixturevalue(SERVERS[source]) if mark else {})
        elif language == "output":
            assert_prints(block, shown)
        elif language == "text" and printed is not None:
            assert_prints(block, printed)
        printed = None


def run_program(line, words):
    """Run what a line says; its status, and what it wrote."""
    if words[0] in FORKED and words[1:2] != ["-m"] and not SHELL.search(line):
        return SERVER.run(words[words[0] == "python" :], Path.cwd(), dict(os.environ))
    ran = subprocess.run(["bash", "-c", line], check=False, capture_output=True, text=True, timeout=300)
    return ran.returncode, ran.stdout, ran.stderr


def runs(mark, source):
    """Whether a block is run here, by what is said above it."""
    return mark != "not run:" and (mark != "with" or find_spec(source) is not None)


def is_used(mark, source, block, request):
    """Do with a block that is not the reader's code what is said above it; whether there was such a word."""
    if mark == "from":
        assert block in (ROOT / source).read_text(encoding="utf-8"), f"not in {source}:\n{block}"
    elif mark == "commands":
        give_commands(request.getfixturevalue(source), block)
    elif mark == "file":
        Path(source).write_text(block, encoding="utf-8")
    return mark in {"from", "commands", "file", "part"}


def with_servers(text, request):
    """The text of a page, with addresses of the tests' servers in the place of those that it names."""
    for pairs in HOSTS.findall(text):
        for name, fixture in (pair.split(" = ") for pair in pairs.split(", ")):
            server = request.getfixturevalue(fixture)
            text = text.replace(name, getattr(server, "hosts", None) or f"127.0.0.1:{server.port}")
    return text


def give_commands(server, block):
    """Give a block to a server: SQL to psql, else a command a line."""
    if hasattr(server, "sql"):
        server.sql(block, "postgres")
        return
    for line in block.replace("\\\n", "").splitlines():
        server.command(*shlex.split(line))


def assert_prints(block, printed):
    """See that something printed what the page says that it prints."""
    pattern = re.escape(block.rstrip()).replace("…", ".*")
    assert re.fullmatch(pattern, printed.rstrip()), f"it prints:\n{printed}"


def run_lines(block, monkeypatch, server):
    """Do what a reader of a `bash` block would do, but for installing anything; what that printed."""
    printed = []
    for line in block.replace("\\\n", "").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["export"]:
            for name, value in (word.split("=", 1) for word in words[1:]):
                monkeypatch.setenv(name, value)
            for name, value in server.items():
                monkeypatch.setenv(name, value)
        elif words and words[0] in RUN:
            status, out, err = run_program(line, words)
            assert status == 0, f"{line}\n{out}{err}"
            printed.append(out)
        elif words[:2] == ["python3", "dev.py"]:
            known = {name or function for name, function in SESSION.findall((ROOT / "noxfile.py").read_text())}
            asked = words[2 : words.index("--") if "--" in words else None]
            assert {word.partition("(")[0] for word in asked} <= known
    return "".join(printed)


def close_providers(names, console):
    """Close what a page has left open, so that nothing warns of it."""
    for value in names.values():
        if callable(getattr(value, "close", None)) and hasattr(value, "store_messages") and not isinstance(value, type):
            closing = value.close()  # a synchronous provider has closed when it answers
            if inspect.isawaitable(closing):
                console.wait(closing)


@each_page
def test_the_links_of_a_page_lead_to_files(page):
    """Every relative link of a page leads to a file of the repository."""
    links = LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8")))
    assert not [link for link in links if not (page.parent / link).exists()]
