"""The tables of settings in docs/providers.md are what the classes of settings say.

`python tests/docs/test_settings.py` writes them anew.
"""

import re
from importlib import import_module
from pathlib import Path

import pytest

from jaf_memory_core.settings import ProviderConfig
from jaf_memory_core.settings.environment import describe

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"
TABLE = re.compile(r"^<!-- settings: ([\w.]+):(\w+) -->\n\n?((?:\|.*\n)*)", re.MULTILINE)


def table(config_type):
    """The rows of a class's own settings: of those that it has beside `ProviderConfig`'s, or that differ from them."""
    common = {(row.field, row.default, row.help) for row in describe(ProviderConfig, {})}
    rows = [
        row
        for row in describe(config_type, {})
        if config_type is ProviderConfig or (row.field, row.default, row.help) not in common
    ]
    prefix = "JAF_NAME_" if config_type is ProviderConfig else ""
    lines = ["| variable | default | what it means |", "|---|---|---|"]
    lines += [f"| `{prefix}{row.variable}` | {row.default or '–'} | {escaped(row.help)} |" for row in rows]
    return "".join(f"{line}\n" for line in lines)


def escaped(text):
    """Text that can stand in a cell."""
    return text.replace("|", "\\|")


def rewritten(text):
    """The page with tables that are true."""
    return TABLE.sub(
        lambda found: (
            f"<!-- settings: {found[1]}:{found[2]} -->\n\n{table(getattr(import_module(found[1]), found[2]))}"
        ),
        text,
    )


@pytest.mark.parametrize(("module", "name", "rows"), TABLE.findall(PAGE.read_text(encoding="utf-8")))
def test_a_table_is_what_the_settings_say(module, name, rows):
    """Every variable of a provider stands in its table, with its default and meaning, and no other does."""
    assert rows == table(getattr(import_module(module), name)), "python tests/docs/test_settings.py writes it anew"


def test_older_names_are_told():
    """A variable that is read under an older name is documented under that too."""
    text = PAGE.read_text(encoding="utf-8")
    for module, name, _ in TABLE.findall(text):
        for older in getattr(import_module(module), name).env_older_names:
            assert f"`{older}`" in text


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
