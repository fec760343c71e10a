"""Every command that developing needs: `python3 dev.py` lists them, `python3 dev.py NAME` runs one."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PLUGINS = ROOT / "plugins"
#: The folder of each distribution, the core's first.
DISTRIBUTIONS = [
    file.parent for place in ("", "plugins/*/", "examples/*/") for file in sorted(ROOT.glob(f"{place}pyproject.toml"))
]

#: The bridges to agent engines, with all engines; jaf-py alone brings some 150 packages, the others 26 more.
BRIDGES = f"{PLUGINS / 'jaf-memory-bridges'}[jaf,openai-agents,langchain,pydantic-ai,adk]"

#: What `tests/fuzz/targets.py` has to be fed.
FUZZED = ("intake", "stored", "import_lines", "settings", "command_line")

nox.needs_version = ">=2025.11"
nox.options.envdir = ROOT / ".nox" / "{}.{}".format(*sys.version_info)  # no interpreter evicts another's
nox.options.default_venv_backend = "virtualenv"  # with pip, so that pip's own configuration counts
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True
nox.options.sessions = []


@nox.session
def demo(session: nox.Session) -> None:
    """Show the main job: keep a conversation in a file, and read it back in a second process."""
    session.install(ROOT, PLUGINS / "jaf-memory-cli", PLUGINS / "jaf-memory-sqlite")
    session.run("python", "examples/demo.py", *session.posargs)


@nox.session
def test(session: nox.Session) -> None:
    """Run the suite on the checkout: tests of all kinds, each store; arguments after -- go to pytest."""
    test_checkout(session)


@nox.session
def everything(session: nox.Session) -> None:
    """Run the long form: all servers and ways to them with all checks, more random examples, large conversations."""
    test_checkout(session, "--jaf-slow")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Let atheris look for bytes that bring out a raw error; after -- names of targets, and its own options."""
    session.install(*group("test"), *group("fuzz"))
    install_checkout(session)
    names = [one for one in session.posargs if not one.startswith("-")] or FUZZED
    options = [one for one in session.posargs if one.startswith("-")] or ["-max_total_time=600"]
    for name in names:
        session.run("python", "tests/fuzz/coverage_guided.py", name, *options)


@nox.session
def simulate(session: nox.Session) -> None:
    """Run our providers on a simulated loop and network, by the thousand schedules; after -- --help tells how."""
    session.install(*group("test"))
    install_checkout(session)
    session.run("python", "-m", "simulation", *session.posargs, env={"PYTHONPATH": str(ROOT / "tests")})


@nox.session
def wheels(session: nox.Session) -> None:
    """Run on built wheels, as a user installs them, what would miss a file of theirs; paths after -- run others."""
    session.install(*group("test"), *group("notebook"), *group("release"))
    install_wheels(session)
    kinds = ("cli", "encryption", "otel", "redaction", "sqlite")
    whole = ("tests/packaging", "tests/integration", "tests/docs")
    ours = (*whole, *(f"plugins/jaf-memory-{kind}" for kind in kinds))
    run_tests(session, "wheels", *() if session.posargs else ours)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check", *session.posargs)


@nox.session(name="format")
def format_(session: nox.Session) -> None:
    """Mend format, order of imports, and what else ruff can mend safely."""
    session.install(*group("lint"))
    session.run("ruff", "check", "--fix-only", *session.posargs)
    session.run("ruff", "format", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of every distribution, and the code of README and documentation as a user's editor would."""
    session.install(*group("types"))
    install_checkout(session)
    session.install("--editable", BRIDGES.replace("jaf,", ""))  # whose types the pages' code is checked against
    session.run("mypy", *(folder / import_name(folder) for folder in DISTRIBUTIONS), *session.posargs)
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "tests/page_code.py", folder)
        session.run("mypy", folder)
        with session.chdir(folder):  # where pyright finds what files of one page import of each other
            session.run("pyright", "--pythonpath", Path(session.bin) / "python", ".")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; a warning, a link to nowhere, and a request to another host are errors."""
    session.install(*group("docs"))
    install_checkout(session)  # whose docstrings, settings and commands are the reference
    shutil.rmtree(ROOT / "site", ignore_errors=True)  # what an earlier one has left would be checked, and shown, too
    session.run("sphinx-build", "--fail-on-warning", "--fresh-env", "--quiet", *session.posargs, "docs", "site")
    session.run("python", "tests/built_site.py", "site")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure every store beside its bare driver and other libraries; after -- --help tells how much of it."""
    install_beside(session, "peers")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def contention(session: nox.Session) -> None:
    """Let eight tasks write to one conversation, on every store, by other libraries too; after -- --help."""
    install_beside(session, "contenders")
    session.run("python", "-m", "benchmarks.contention", *session.posargs)


@nox.session
def mutate(session: nox.Session) -> None:
    """Change a backend a little, again and again, and run the kit on each; after -- its name, or --help."""
    session.install(*group("test"))
    install_checkout(session)
    session.run("python", "-m", "mutation", *session.posargs, env={"PYTHONPATH": str(ROOT / "tests")})


@nox.session
def release(session: nox.Session) -> None:
    """Build all distributions into dist/, check them, and try each alone; only what is there may be published."""
    session.install(*group("test"), *group("release"))
    install_checkout(session)
    environ = {"JAF_TEST_PATIENCE": "600", "PYTHONPATH": str(ROOT / "tests"), "PYTHONSAFEPATH": "1"}
    session.run("python", "-m", "release", *session.posargs, env=environ)


@nox.session
def changelog(session: nox.Session) -> None:
    """Show what the fragments in changes/ will add to CHANGELOG.md; with -- --yes, move them there."""
    session.install(*group("changelog"))
    version = PROJECT["project"]["version"]
    session.run("towncrier", "build", "--version", version, *(session.posargs or ["--draft"]))


def test_checkout(session: nox.Session, *arguments: str) -> None:
    """Run the suite on the checkout, an edit of which counts at once."""
    session.install(*group("test"))
    install_checkout(session)
    session.install("--editable", BRIDGES)
    run_tests(session, "checkout", *arguments)


def run_tests(session: nox.Session, installed: str, *arguments: str) -> None:
    """Run pytest, on twice as many processes as there are processors: some always wait for a server or the disk."""
    # Neither `python -m pytest` nor unsafe paths in what the tests start: Python would put the current
    # folder, the checkout, before the wheels.
    with files_of_tests(installed) as folder:
        session.run(
            *("pytest", "-n", str((os.cpu_count() or 1) * 2), "--dist", "worksteal", *arguments, *session.posargs),
            env={
                "JAF_TEST_INSTALLED": installed,
                # Sixteen processes that start at once have taken forty seconds where others worked as well.
                "JAF_TEST_PATIENCE": "600",
                # A thousand processes of Python start; each would compile what it imports again.
                "PYTHONDONTWRITEBYTECODE": None,
                "PYTHONSAFEPATH": "1",
                "PYTEST_DEBUG_TEMPROOT": folder,
            },
        )


def files_of_tests(installed: str) -> contextlib.AbstractContextManager[str | None]:
    """Make a folder for the files of tests in memory, where there is room, so that none waits for the disk.

    The wheels are tested on the disk: on a slow one SQLite goes other ways.
    """
    memory = Path("/dev/shm")  # noqa: S108  (what is made in it has a name of its own, and is ours alone)
    room = shutil.disk_usage(memory).free if os.access(memory, os.W_OK) else 0
    if installed == "wheels" or room < 8 << 30 or "PYTEST_DEBUG_TEMPROOT" in os.environ:
        return contextlib.nullcontext(os.environ.get("PYTEST_DEBUG_TEMPROOT"))
    return tempfile.TemporaryDirectory(prefix="jaf-memory-", dir=memory)


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of a dependency group of pyproject.toml."""
    return nox.project.dependency_groups(PROJECT, name)


def import_name(folder: Path) -> str:
    """Return the one package that the distribution in a folder brings."""
    name: str = nox.project.load_toml(folder / "pyproject.toml")["project"]["name"]
    return name.replace("-", "_")


def install_checkout(session: nox.Session) -> None:
    """Install every distribution so that an edit counts at once."""
    session.install(*(part for place in DISTRIBUTIONS for part in ("--editable", place)))


def install_beside(session: nox.Session, others: str) -> None:
    """Install what measures us beside a group of other libraries; one that cannot be installed is told in the table."""
    session.install(*group("bench"))
    install_checkout(session)
    session.install("--editable", f"{PLUGINS / 'jaf-memory-bridges'}[jaf]", success_codes=(0, 1))
    try:
        session.install(*group(others))
    except nox.command.CommandFailed:  # nothing is installed then, be it for one alone that does not know this Python
        for one in group(others):
            session.install(one, success_codes=(0, 1))


def install_wheels(session: nox.Session) -> None:
    """Build every distribution, each wheel from its sdist, and install the wheels."""
    with tempfile.TemporaryDirectory() as folder:
        for distribution in DISTRIBUTIONS:
            session.run(*("python", "-m", "build", "--no-isolation", "--outdir", folder, distribution), silent=True)
        built = [next(Path(folder).glob(f"{import_name(place)}-*.whl")) for place in DISTRIBUTIONS]
        # pip would keep a wheel of an equal version, of an earlier run.
        session.run("pip", "uninstall", "--yes", *map(import_name, DISTRIBUTIONS), silent=True)
        session.install(*built)
