"""`python3 dev.py release`: its refusals, each seen on what was broken on purpose, and its checks on what is built."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from release import __main__ as program
from release import bill, files, sources, trial

ROOT = Path(__file__).parents[2]
FOUND = sources.sources(ROOT)
CLI = next(one for one in FOUND if one.name == "jaf-memory-cli")
EPOCH = "1700000000"

PROJECT = """
[project]
name = "{name}"
version = "1.0"
dependencies = [{dependencies}]
optional-dependencies.more = ["acme-plug[fast]==1.0"]
classifiers = ["Programming Language :: Python :: 3.11", "Programming Language :: Python :: 3.9"]
"""


@pytest.fixture
def tree(tmp_path):
    """A small repository that can be released."""
    for place, name, dependencies in (("", "acme-core", '"x>=1"'), ("plugins/plug", "acme-plug", '"acme-core==1.0"')):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        text = PROJECT.format(name=name, dependencies=dependencies)
        (tmp_path / place / "pyproject.toml").write_text(text, encoding="utf-8")
    for place, text in {
        "changes/+it.added.md": "It.",
        "changes/README.md": "",
        "CHANGELOG.md": "# Changes\n",
        "tests/docs/test_names.py": "def test_names():\n    pass\n",
        ".gitignore": "__pycache__/\n",
    }.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text, encoding="utf-8")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(folder, *words):
    """Run git there."""
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=folder, check=True)


def commit(folder):
    """Commit all that stands there."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "It")


def replace(file, old, new):
    """Change a file."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_what_is_sound_is_not_refused(tree):
    """A clean tree with equal versions, a fragment and its names documented can be released."""
    assert sources.refusals(tree, workers="0") == []
    assert sources.sources(tree)[1].pythons == ["3.9", "3.11"]


def test_a_section_does_for_fragments(tree):
    """Where the fragments stand in a section of the changelog already, there is one."""
    (tree / "changes/+it.added.md").unlink()
    replace(tree / "CHANGELOG.md", "# Changes\n", "# Changes\n\n## 1.0 (2026-11-29)\n")
    commit(tree)
    assert sources.refusals(tree, workers="0") == []


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("plugins/plug/pyproject.toml", 'version = "1.0"', 'version = "1.1"', "acme-plug has 1.1, acme-core has 1.0"),
        ("plugins/plug/pyproject.toml", "acme-core==1.0", "acme-core>=1.0", "requires acme-core>=1.0, and not ==1.0"),
        ("pyproject.toml", "[fast]==1.0", "[fast]==0.9", "requires acme-plug[fast]==0.9, and not ==1.0"),
        ("tests/docs/test_names.py", "pass", "assert not 'undocumented'", "test_names.py::test_names"),
    ],
)
def test_what_is_broken_is_refused(tree, file, old, new, said):
    """Unequal versions, and names that the documentation lacks, are refused, each by name."""
    replace(tree / file, old, new)
    commit(tree)
    told = sources.refusals(tree, workers="0")
    assert told
    assert all(said in one for one in told if file in one or "versions" in one)
    assert any(said in one for one in told)


def test_an_empty_changelog_is_refused(tree):
    """Without a fragment and without a section of this version there is nothing to tell."""
    (tree / "changes/+it.added.md").unlink()
    replace(tree / "CHANGELOG.md", "# Changes\n", "# Changes\n\n## 0.9 (2026-01-01)\n\n## 1.0.1\n")
    replace(tree / "CHANGELOG.md", "## 1.0.1", "## 1.1")
    commit(tree)
    assert [one.partition(":")[0] for one in sources.refusals(tree, workers="0")] == ["the changelog is empty"]


@pytest.mark.parametrize("file", ["pyproject.toml", "new.py"])
def test_a_dirty_tree_is_refused(tree, file):
    """What is changed, or new and not ignored, would not be what the commit says."""
    with (tree / file).open("a", encoding="utf-8") as opened:
        opened.write("# more\n")
    assert [one for one in sources.refusals(tree, workers="0") if one == f"the tree is dirty: commit or remove {file}"]


def test_a_folder_that_is_there_is_refused(tmp_path):
    """What stands in the folder already may be anything, and would be published with the rest."""
    with pytest.raises(SystemExit, match="is there already; remove it"):
        program.main([str(tmp_path)])


# ---- What is built --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """All that is released, built once."""
    for module in ("trove_classifiers", "twine"):
        pytest.importorskip(module, reason="dev.py wheels, and dev.py release, have it")
    folder = tmp_path_factory.mktemp("dist")
    files.build(FOUND, folder, EPOCH)
    return folder


def test_all_that_is_released_is_sound(built):
    """Metadata, contents, licences, classifiers, RECORD and bill of every wheel and sdist are as they should be."""
    assert files.problems_of_metadata(built) == []
    for one in FOUND:
        assert files.problems_of_wheel(one, files.wheel_of(one, built)) == []
        assert files.problems_of_sdist(one, files.sdist_of(one, built)) == []
    assert len([*built.iterdir()]) == 2 * len(FOUND)


def test_it_is_built_to_the_same_bytes(built, tmp_path):
    """Built again at another moment, a distribution is the same to the byte."""
    for name, content in files.build([CLI], tmp_path, EPOCH).items():
        assert content == (built / name).read_bytes(), name


def test_pip_takes_a_wheel_with_its_bill(built, tmp_path):
    """What pip has installed knows its bill as one of its files, and uninstalls it with them."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(tmp_path)]
    subprocess.run([*command, str(files.wheel_of(CLI, built))], check=True, timeout=300)
    (place,) = tmp_path.glob("*.dist-info/sboms/*.cdx.json")
    assert place.relative_to(tmp_path).as_posix() in next(tmp_path.glob("*.dist-info/RECORD")).read_text()


def rewritten(wheel, folder, change):
    """Write a wheel whose files are changed, under its own name elsewhere."""
    with zipfile.ZipFile(wheel) as archive:
        texts = {name: archive.read(name) for name in archive.namelist()}
    change(texts)
    place = folder / wheel.name
    with zipfile.ZipFile(place, "w") as archive:
        for name, content in texts.items():
            archive.writestr(name, content)
    return place


INFO = f"{CLI.stem}.dist-info"
FAULTS = {
    "a file of the package": (lambda texts: texts.pop("jaf_memory_cli/app.py"), "jaf_memory_cli/app.py is missing"),
    "the mark of types": (lambda texts: texts.pop("jaf_memory_cli/py.typed"), "py.typed is missing"),
    "a template": (lambda texts: texts.pop("jaf_memory_cli/template/.gitignore.tmpl"), "tmpl is missing"),
    "the licence": (lambda texts: texts.pop(f"{INFO}/licenses/LICENSE"), "LICENSE is missing"),
    "the bill": (lambda texts: texts.pop(f"{INFO}/sboms/jaf-memory-cli.cdx.json"), "cdx.json is missing"),
    "tests": (lambda texts: texts.update({"tests/test_it.py": b""}), "tests/test_it.py has no business there"),
    "other content": (lambda texts: texts.update({"jaf_memory_cli/app.py": b"1"}), "RECORD is wrong of"),
    "no line in RECORD": (
        lambda texts: texts.update({f"{INFO}/RECORD": texts[f"{INFO}/RECORD"].partition(b"\n")[2]}),
        "RECORD does not name",
    ),
    "a classifier": (
        lambda texts: texts.update(
            {f"{INFO}/METADATA": texts[f"{INFO}/METADATA"].replace(b"Topic :: Database", b"Topic :: Memory")}
        ),
        "there is no classifier 'Topic :: Memory'",
    ),
    "another licence": (
        lambda texts: texts.update({f"{INFO}/METADATA": texts[f"{INFO}/METADATA"].replace(b"MIT", b"BSD")}),
        "METADATA says",
    ),
    "no description": (
        lambda texts: texts.update({f"{INFO}/METADATA": texts[f"{INFO}/METADATA"].partition(b"\n\n")[0] + b"\n\n"}),
        "no description",
    ),
    "another's bill": (
        lambda texts: texts.update({f"{INFO}/sboms/jaf-memory-cli.cdx.json": bill.bill("x", "1", [])}),
        "bill of materials is another",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_wheel_is_refused(fault, built, tmp_path):
    """Each fault that a wheel can have is told by name."""
    change, said = FAULTS[fault]
    told = files.problems_of_wheel(CLI, rewritten(files.wheel_of(CLI, built), tmp_path, change))
    assert any(said in one for one in told), told


def test_the_bill_says_what_is_required():
    """A bill has what is required without an extra: a version where one alone is allowed, else the range."""
    text = bill.bill("acme", "1.0", ["Acme_Core==1.0", "x>=2,<3", 'y; extra == "more"', 'z>=1; python_version < "4"'])
    assert b'"purl": "pkg:pypi/acme-core@1.0"' in text
    assert b'"purl": "pkg:pypi/x"' in text
    assert b'"value": "<3,>=2"' in text
    assert b"pkg:pypi/z" in text
    assert b"pkg:pypi/y" not in text


def test_a_failed_trial_is_a_refusal(built, monkeypatch, capsys):
    """A distribution that does not install or do its work stops the release, by name; what was not tried is told."""
    monkeypatch.setattr(trial, "pythons", lambda _: {"3.11": "python3.11", "3.13": "python3.13"})
    monkeypatch.setattr(trial, "tried", lambda one, *_: (one.name != CLI.name, "it does not"))
    problems = program.try_all(FOUND, built)
    assert len(problems) == 4
    assert problems[0] == "jaf-memory-cli on Python 3.11 with the lowest of what it requires"
    assert "untested here: Python 3.12, 3.14" in capsys.readouterr().out
    monkeypatch.setattr(trial, "pythons", lambda _: {})
    assert program.try_all(FOUND, built) == ["no Python that is declared was found"]


def test_what_is_required_is_named_to_uv(monkeypatch, tmp_path):
    """What a distribution requires is named beside it: uv takes the lowest of what it is asked for itself alone."""
    asked = []

    def uv(*arguments):
        asked.extend(arguments)
        return subprocess.CompletedProcess(arguments, 1, "", "no such version")

    monkeypatch.setattr(trial, "_uv", uv)
    assert trial.tried(CLI, tmp_path, "python", "lowest-direct") == (False, "no such version")
    assert {*CLI.project["dependencies"], "lowest-direct"} <= set(asked)
    assert any(one.startswith("rich>=") for one in asked)


def test_the_python_that_runs_is_found():
    """An interpreter of this version is found, and none of one that there is not."""
    this = "{}.{}".format(*sys.version_info)
    assert list(trial.pythons([this, "3.99"])) == [this]


# ---- What runs it ---------------------------------------------------------------------------------------------

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_run_what_there_is(file):
    """Workflows call sessions that there are, by actions pinned to a commit, and have the rights that they name."""
    text = file.read_text(encoding="utf-8")
    known = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE))
    lists = re.findall(r"run: python dev\.py ([^$\n]*)", text) + re.findall(r"session: \[(.*)\]", text)
    assert {word for line in lists for word in line.replace(",", " ").split()} <= known
    used = re.findall(r"uses: (\S+)", text)
    assert used
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", one) for one in used), used
    assert re.search(r"^permissions:", text, re.MULTILINE)


def test_every_declared_python_is_tried_by_ci():
    """CI's matrix has each Python that the distributions declare, and all declare the same."""
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    (matrix,) = re.findall(r"python: \[(.*)\]", text)
    declared = FOUND[0].pythons
    assert re.findall(r"3\.\d+", matrix) == declared == ["3.11", "3.12", "3.13", "3.14"]
    assert all(one.pythons == declared for one in FOUND)
