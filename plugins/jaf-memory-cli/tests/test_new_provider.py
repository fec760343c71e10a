"""`jaf-memory new-provider`: what it writes, and what it refuses; tests/packaging installs what it wrote."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from jaf_memory_cli import scaffold

EXAMPLE = Path(__file__).parents[3] / "examples" / "jaf-memory-files"
SHARED = ("jaf_memory_files/__init__.py", "jaf_memory_files/folder.py", "tests/test_conformance.py")
OF_ITS_OWN = {"authors", "classifiers", "dependencies", "description", "optional-dependencies", "readme"}
"""What the example's pyproject.toml has in another way: it is released with ours, and to nobody."""


def contents(folder):
    """Return each file below a folder, with its text."""
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in found}


def test_the_example_is_what_it_writes():
    """The example of this repository is the provider `files` as the command writes it: there are no two truths."""
    written = scaffold.rendered("files")
    for path in SHARED:
        assert (EXAMPLE / path).read_text(encoding="utf-8") == written[path], path
    example = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))
    project = tomllib.loads(written["pyproject.toml"])
    assert example.pop("project").keys() - OF_ITS_OWN == project["project"].keys() - OF_ITS_OWN
    assert set(project.pop("project")["classifiers"]) > {"Private :: Do Not Upload", "Typing :: Typed"}
    example["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"].append("tests")
    assert example == project


def test_it_says_what_comes_next(fresh):
    """It writes the whole folder, and commands to go on with; as JSON, too."""
    ran = fresh.run("new-provider", "acme-cloud")
    assert "made jaf-memory-acme-cloud" in ran.out
    assert contents(fresh.folder / "jaf-memory-acme-cloud") == scaffold.rendered("acme-cloud")
    steps = fresh.run("new-provider", "acme-cloud", "--folder", "the place", "--json").document["next"]
    assert steps[0] == "cd 'the place'"
    assert steps[3] == "JAF_MEMORY_TYPE=acme-cloud jaf-memory doctor"
    assert [step in ran.out for step in steps[1:]] == [True] * 4


def test_nothing_of_the_template_is_left():
    """No mark is left in a name or a text, and the name stands where the template has its own."""
    for path, text in scaffold.rendered("acme-cloud").items():
        assert not scaffold._MARK.search(path + text), path
        assert "files" not in path
    written = scaffold.rendered("acme-cloud")
    assert "class AcmeCloudBackend(Backend):" in written["jaf_memory_acme_cloud/__init__.py"]
    assert 'env_prefix = "JAF_ACME_CLOUD_"' in written["jaf_memory_acme_cloud/__init__.py"]


@pytest.mark.parametrize("name", ["x", "a2", "a-name-of-24-characters-"[:23] + "s"])
def test_style_and_types_hold_for_every_name(name, tmp_path):
    """Whatever the name, what is written is clean by its own rules: style, format, `mypy --strict`."""
    pytest.importorskip("ruff", reason="pip install ruff")
    pytest.importorskip("mypy", reason="pip install mypy")
    place = tmp_path / "written"
    scaffold.write(place, scaffold.rendered(name))
    for tool in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        ran = subprocess.run(
            [sys.executable, "-m", *tool], cwd=place, check=False, capture_output=True, text=True, timeout=300
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Acme", "did you mean acme?"),
        ("my store", "did you mean my-store?"),
        ("my_store", "did you mean my-store?"),
        ("jaf-memory-acme", "give the provider's name alone, without jaf-memory-: acme"),
        ("2fast", "a letter first"),
        ("x--y", "did you mean x-y?"),
        ("a" * 25, "24 characters at most"),
        ("", "cannot be a provider's name"),
        ("class", "a word of Python's own"),
        ("memory", "a name of jaf-memory's own"),
        ("memory-of-mine", "a name of jaf-memory's own"),
        ("postgres", "a name of jaf-memory's own"),
        ("otel", "a name of jaf-memory's own"),
        ("testing", "a name of jaf-memory's own"),
        ("files", "'files' (jaf-memory-files 0.1.0) is installed already"),
        ("six", "'six' (sample-providers 1.5) is installed already"),
        ("standing", "there is a package jaf_memory_standing here already"),
    ],
)
def test_names_that_it_refuses(name, said, sampled, tmp_path):
    """A name that cannot be one, or is taken, is refused with what is allowed, and nothing is written."""
    (tmp_path / "path" / "jaf_memory_standing").mkdir(parents=True)
    (tmp_path / "path" / "jaf_memory_standing" / "__init__.py").touch()
    path = os.pathsep.join([sampled.environ["PYTHONPATH"], str(tmp_path / "path")])
    standing = set(tmp_path.iterdir())
    error = json.loads(sampled.given(PYTHONPATH=path).run("new-provider", "--json", "--", name, status=2).err)
    assert said in error["error"]
    assert set(tmp_path.iterdir()) == standing


def test_places_that_it_refuses(fresh):
    """What stands in the place stays as it is: a folder with a file in it, a file, a link; an empty folder is taken."""
    folder = fresh.folder
    (folder / "full").mkdir()
    (folder / "full" / "mine").write_text("mine")
    (folder / "file").write_text("mine")
    (folder / "empty").mkdir()
    (folder / "link").symlink_to(folder / "empty")
    before = set(folder.iterdir())
    for place in ("full", "file", "link"):
        ran = fresh.run("new-provider", "acme", "--folder", place, status=2)
        assert f"{place} is there already, and is no empty folder" in ran.err
    assert "there is no folder" in fresh.run("new-provider", "acme", "--folder", "absent/below", status=2).err
    assert set(folder.iterdir()) == before
    fresh.run("new-provider", "acme", "--folder", "empty")
    assert (folder / "empty" / "pyproject.toml").is_file()


def test_it_writes_all_or_nothing(tmp_path, monkeypatch):
    """What cannot be written to its end leaves nothing, beside the place neither."""
    whole = Path.write_text

    def failing(path, *arguments, **named):
        if path.name == "README.md":
            raise OSError(28, "No space left on device")
        return whole(path, *arguments, **named)

    monkeypatch.setattr(Path, "write_text", failing)
    with pytest.raises(OSError, match="No space"):
        scaffold.write(tmp_path / "place", scaffold.rendered("acme"))
    assert not [*tmp_path.iterdir()]
