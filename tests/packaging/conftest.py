"""A fresh environment with core, command line and the distributions of distributions/, built and installed for real."""

import tomllib
from pathlib import Path

import pytest
from environments import ROOT, House, build

SOURCES = Path(__file__).parent / "distributions"

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "{version}"
[project.entry-points."jaf.memory.providers"]
{providers}
[project.entry-points."jaf.memory.plugins"]
{plugins}
[tool.hatch.build]
include = ["{module}.py"]
"""


def project(folder, name, *, module=None, version="1.0", providers=None, plugins=None):
    """Write the project of a distribution of one module, and return its folder."""
    module = module or name.replace("-", "_")
    place = folder / name
    place.mkdir(parents=True)
    entries = {
        group: "\n".join(f'{entry} = "{value}"' for entry, value in (found or {}).items())
        for group, found in {"providers": providers, "plugins": plugins}.items()
    }
    text = PYPROJECT.format(name=name, version=version, module=module, **entries)
    (place / "pyproject.toml").write_text(text, encoding="utf-8")
    (place / f"{module}.py").write_bytes((SOURCES / f"{module}.py").read_bytes())
    return place


@pytest.fixture(scope="session")
def house(tmp_path_factory):
    """The environment with the core, the command line without its libraries, and all of distributions.toml."""
    folder = tmp_path_factory.mktemp("house")
    table = tomllib.loads((SOURCES / "distributions.toml").read_text(encoding="utf-8"))
    projects = [project(folder / "projects", name, **entry) for name, entry in table.items()]
    made = House(folder)
    made.install(*build(folder / "wheels", ROOT, ROOT / "plugins" / "jaf-memory-cli", *projects))
    made.link_dependencies("jaf-memory-core")
    return made


@pytest.fixture
def another(house, tmp_path):
    """Build another distribution of a module of distributions/, and return the folder that it is installed in."""

    def install(name, **entry):
        target = tmp_path / f"target-{name}"
        wheels = build(tmp_path / f"wheels-{name}", project(tmp_path / f"project-{name}", name, **entry))
        house.install(*wheels, target=target)
        return target

    return install
