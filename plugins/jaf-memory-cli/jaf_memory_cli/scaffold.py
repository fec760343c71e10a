"""`new-provider`: a whole distribution of a provider, as `template/` has it, that its author goes on from."""

from __future__ import annotations

import keyword
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from importlib_metadata import version

from jaf_memory_cli.errors import USAGE, Stop
from jaf_memory_cli.options import Json, local
from jaf_memory_cli.output import Output
from jaf_memory_cli.terminal import safe
from jaf_memory_core import registry
from jaf_memory_core.settings.errors import quoted

LONGEST = 24
"""Characters of a name: with more, lines of the template would become longer than its own rules allow."""

OURS = {"memory", "core", "cli", "testing", "bridges", *registry.OURS, *registry.OUR_PLUGINS}
"""Names that are taken wherever one is: our providers, and what our distributions are called behind `jaf-memory-`."""

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_MARK = re.compile("@(name|package|Class|PREFIX|range|year)@")
_SUFFIX = ".tmpl"

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="What JAF_MEMORY_TYPE will call the provider.", show_default=False)
]
Folder = Annotated[
    str | None,
    typer.Option("--folder", metavar="FOLDER", help="Where to write it, instead of ./jaf-memory-NAME; new or empty."),
]


async def new_provider(name: Name, folder: Folder = None, *, as_json: Json = False) -> None:
    """Write the distribution of a new provider, for you to go on from.

    It keeps conversations in files, passes the conformance kit as it is, and says what to replace.
    """
    output = Output(as_json=as_json)
    refuse_name(name)
    place = local(folder if folder is not None else f"jaf-memory-{name}")
    write(place, rendered(name))
    steps = [
        f"cd {shlex.quote(str(place))}",
        'python -m pip install --editable ".[test]"',
        "python -m pytest -x",
        f"JAF_MEMORY_TYPE={name} jaf-memory doctor",
        "grep -rn Replace .",
    ]
    output.done({"made": str(place), "next": steps}, f"made {place}, a provider in files that passes the kit as it is")
    if not as_json:
        output.show("next, in an environment of its own or in this one:", *(f"  {safe(step)}" for step in steps))


def refuse_name(name: str) -> None:
    """Let a name pass that a provider, its distribution, package, class and variables can have.

    Raises:
        Stop: it cannot, or it is taken.
    """
    if _NAME.fullmatch(name) is None or len(name) > LONGEST:
        near = re.sub("[^a-z0-9]+", "-", name.lower().removeprefix("jaf-memory-")).strip("-")
        hint = f"; did you mean {near}?" if _NAME.fullmatch(near) and len(near) <= LONGEST else ""
        what = f"small letters, digits and single dashes between them, a letter first, {LONGEST} characters at most"
        raise Stop(f"{quoted(name)} cannot be a provider's name; allowed: {what}{hint}", USAGE)
    if name.startswith("jaf-memory-"):
        raise Stop(f"give the provider's name alone, without jaf-memory-: {name.removeprefix('jaf-memory-')}", USAGE)
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise Stop(f"{name!r} is a word of Python's own; choose another name", USAGE)
    if name in OURS or name.startswith("memory-"):
        raise Stop(f"{name!r} is a name of jaf-memory's own; choose another, for example my-{name}", USAGE)
    for one in (*registry.installed(), *registry.installed(registry.PLUGINS)):
        if one.name == name:
            raise Stop(f"{one} is installed already; choose another name, or uninstall it", USAGE)
    if find_spec(values(name)["package"]) is not None:
        raise Stop(f"there is a package {values(name)['package']} here already; choose another name", USAGE)


def values(name: str) -> Mapping[str, str]:
    """What stands in the template's marks for a name."""
    words = name.split("-")
    major, minor = map(int, version("jaf-memory-core").split(".")[:2])
    # Below 1.0 a minor version may change what a backend is asked.
    beyond = f"{major}.{minor + 1}" if major == 0 else f"{major + 1}"
    return {
        "name": name,
        "package": "_".join(("jaf_memory", *words)),
        "Class": "".join(word.capitalize() for word in words),
        "PREFIX": "_".join(("JAF", *words, "")).upper(),
        "range": f">={major}.{minor},<{beyond}",
        "year": f"{datetime.now(UTC):%Y}",
    }


def rendered(name: str) -> dict[str, str]:
    """Each file of the distribution of a provider: path → text."""
    known = values(name)

    def filled(text: str) -> str:
        return _MARK.sub(lambda mark: known[mark[1]], text)

    return {filled(path).removesuffix(_SUFFIX): filled(text) for path, text in _templates(files(__package__), "")}


def _templates(folder: Traversable, path: str) -> Iterator[tuple[str, str]]:
    for one in (folder / "template" if not path else folder).iterdir():
        below = f"{path}/{one.name}".removeprefix("/")
        if one.is_dir():
            yield from _templates(one, below)
        elif one.name.endswith(_SUFFIX):
            yield below, one.read_text(encoding="utf-8")


def write(place: Path, texts: Mapping[str, str]) -> None:
    """Write files into a folder that is not there, or is empty: all of them, or none.

    Raises:
        Stop: something stands there, or there is no folder to make it in.
    """
    if place.is_symlink() or (place.exists() and not (place.is_dir() and not any(place.iterdir()))):
        raise Stop(f"{place} is there already, and is no empty folder; name another by --folder", USAGE)
    if not place.absolute().parent.is_dir():
        raise Stop(f"there is no folder {place.absolute().parent}; make it, or name another by --folder", USAGE)
    with tempfile.TemporaryDirectory(dir=place.absolute().parent, prefix=".new-provider-") as made:
        whole = Path(made) / "whole"  # with the rights that a new folder gets here; the one above is its owner's alone
        for path, text in texts.items():
            file = whole / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        if place.is_dir():
            place.rmdir()
        shutil.move(whole, place)
