"""What holds for every distribution: for its source, for its wheel, and as it is installed here."""

import ast
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata, util
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECTS = {
    project["name"]: (file.parent, project)
    for place in ("", "plugins/*/", "examples/*/")
    for file in sorted(ROOT.glob(f"{place}pyproject.toml"))
    for project in [tomllib.loads(file.read_text(encoding="utf-8"))["project"]]
}
VERSION = PROJECTS["jaf-memory-core"][1]["version"]
RUNTIME = {"importlib-metadata", "msgspec", "pluggy", "pydantic", "pydantic-settings"}

each_distribution = pytest.mark.parametrize("name", PROJECTS)


def package(name):
    """Return the one package of a distribution."""
    return name.replace("-", "_")


def build(name, kind, target):
    """Build a distribution into a folder, and return the file."""
    command = ["-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(target), str(PROJECTS[name][0])]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    (built,) = target.iterdir()
    return built


def top_folders(names, depth=0):
    """Return the distinct parts of paths at a depth."""
    return {Path(name).parts[depth] for name in names}


def test_there_are_distributions():
    """The core, plugins of each kind and the example are found, so that the tests below test something."""
    kinds = {"jaf-memory-sqlite", "jaf-memory-cli", "jaf-memory-testing"}
    assert {"jaf-memory-core", "jaf-memory-files", *kinds} <= set(PROJECTS)


def test_an_extra_brings_the_distribution_of_its_name():
    """Each extra of the core is a distribution of this repository: `cli` is jaf-memory-cli, in this very version."""
    extras = PROJECTS["jaf-memory-core"][1]["optional-dependencies"]
    assert extras == {name: [f"jaf-memory-{name}=={VERSION}"] for name in extras}
    assert {f"jaf-memory-{name}" for name in extras} <= set(PROJECTS)
    assert {"cli", "testing"} <= set(extras)


@each_distribution
def test_versions_are_equal(name):
    """Every distribution has the core's version in its source and as it is installed."""
    assert PROJECTS[name][1]["version"] == VERSION
    assert metadata.version(name) == VERSION


@each_distribution
def test_ours_are_named_by_their_very_version(name):
    """A distribution requires others of ours in its own version, and all but the core require the core."""
    project = PROJECTS[name][1]
    lists = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
    required = [Requirement(text) for texts in lists for text in texts]
    ours = {one.name: str(one.specifier) for one in required if one.name.startswith("jaf-memory-")}
    assert set(ours.values()) <= {f"=={VERSION}"}
    assert name == "jaf-memory-core" or "jaf-memory-core" in ours


def test_the_core_depends_on_five_and_no_more():
    """The core, installed without an extra, needs its five libraries and nothing else."""
    required = [Requirement(text) for text in metadata.requires("jaf-memory-core")]
    assert {one.name for one in required if "extra" not in str(one.marker)} == RUNTIME


@each_distribution
def test_all_take_the_same_pythons_under_the_same_licence(name):
    """Every distribution takes Python 3.11 and newer, is typed, and has the MIT licence beside it."""
    folder, project = PROJECTS[name]
    assert project["requires-python"] == PROJECTS["jaf-memory-core"][1]["requires-python"] == ">=3.11"
    assert project["license"] == "MIT"
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (folder / package(name) / "py.typed").is_file()
    assert "Typing :: Typed" in project["classifiers"]


@each_distribution
def test_a_wheel_holds_its_package_only(name, tmp_path):
    """A built wheel holds its licence and one package, whole, data files included, and no tests."""
    with zipfile.ZipFile(build(name, "wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
    info = f"{package(name)}-{VERSION}.dist-info"
    assert top_folders(names) == {package(name), info}
    assert f"{info}/licenses/LICENSE" in names
    folder = PROJECTS[name][0]
    files = {file.relative_to(folder) for file in (folder / package(name)).rglob("*") if file.is_file()}
    whole = {file.as_posix() for file in files if "__pycache__" not in file.parts}
    assert {one for one in names if not one.startswith(info)} == whole


@each_distribution
def test_an_sdist_holds_no_neighbour(name, tmp_path):
    """A built sdist has its package and what building needs, and nothing of the workspace around it."""
    with tarfile.open(build(name, "sdist", tmp_path)) as sdist:
        found = top_folders((member for member in sdist.getnames() if "/" in member), depth=1)
    extras = {"CHANGELOG.md"} if name == "jaf-memory-core" else set()
    if PROJECTS[name][1].get("readme") == "README.md":
        extras.add("README.md")
    assert found == {package(name), "pyproject.toml", "LICENSE", "PKG-INFO", ".gitignore"} | extras


@each_distribution
def test_the_suite_runs_what_it_says(name):
    """The packages under test come from the checkout or from installed wheels, as JAF_TEST_INSTALLED says."""
    installed = os.environ.get("JAF_TEST_INSTALLED", "checkout")
    folder = Path(util.find_spec(package(name)).origin).parent
    assert (folder == PROJECTS[name][0] / package(name)) == (installed == "checkout")


def test_providers_are_entry_points():
    """Each provider is registered once, under its name, by the distribution that brings it."""
    group = "jaf.memory.providers"
    found = [(one.name, one.value) for one in metadata.entry_points(group=group)]
    groups = [project.get("entry-points", {}).get(group, {}) for _, project in PROJECTS.values()]
    declared = [one for providers in groups for one in providers.items()]
    assert sorted(found) == sorted(declared)


def test_the_core_is_no_pytest_plugin():
    """Installing the core changes nothing in anyone's pytest: the kit is imported by those who want it."""
    ours = [one for one in metadata.distribution("jaf-memory-core").entry_points if one.group == "pytest11"]
    assert not ours


def test_an_old_python_can_read_dev_py():
    """An old Python can read all of dev.py, and so gets to the line that says which Python it needs."""
    tree = ast.parse((ROOT / "dev.py").read_text(encoding="ascii"), feature_version=(3, 4))
    newer = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.Starred)
    nodes = list(ast.walk(tree))
    assert not [node for node in nodes if isinstance(node, newer) or getattr(node, "annotation", None)]
