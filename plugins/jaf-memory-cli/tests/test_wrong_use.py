"""Wrong use of the command line gets a sentence: hostile texts for every argument and option of every command.

The table is made from what each command takes, so that a new command or option is in it by itself.
"""

import json
import logging
import sys

import pytest
from jaf_memory_cli import app, terminal

HOSTILE = [
    "",
    " ",
    "-1",
    "1e999",
    "nan",
    "9" * 5000,
    "x" * 300,
    "\udcff",
    "a://b:SECRET@d",
    "../../x",
    "=",
    "max_messages=x",
    "{}",
]
"""Texts as a shell may hand them over; a byte that is no UTF-8 comes as a lone surrogate."""

GLOBAL = ("--type", "--set", "--env-file")


def surface():
    """(command, how the option is written, or nothing for an argument, and how many arguments stand before it)."""
    for name in app.COMMANDS:
        params = app._imported(name).params
        arguments = [one for one in params if one.param_type_name == "argument"]
        yield from ((name, "", number, len(arguments)) for number in range(len(arguments)))
        yield from (
            (name, param.opts[0], 0, len(arguments))
            for param in params
            if param.param_type_name == "option" and not param.is_flag
        )
    yield from (("list", option, 0, 0) for option in GLOBAL)


ROWS = sorted(set(surface()))


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run the program in this process, in a folder of its own, over a store in memory; its status and texts."""
    logger = logging.getLogger("jaf_memory_core")
    handlers, propagate = logger.handlers[:], logger.propagate
    monkeypatch.chdir(tmp_path)
    for name in ("JAF_MEMORY_PLUGINS", "JAF_SQLITE_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAF_MEMORY_TYPE", "memory")
    monkeypatch.setattr(terminal, "prepare", lambda: None)  # the streams and signals are the tests'
    monkeypatch.setattr(terminal, "leave", lambda: None)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["jaf-memory", *arguments])
        status = app.run()
        return status, capsys.readouterr()

    yield call
    logger.handlers[:], logger.propagate = handlers, propagate


@pytest.mark.parametrize(("command", "option", "place", "count"), ROWS)
def test_hostile_texts(command, option, place, count, run):
    """Whatever is given, the program ends with a status of its own, says why, and shows no secret."""
    for text in HOSTILE:
        given = ["c"] * count
        if not option:
            given[place] = text
        before = [option, text] if option in GLOBAL else []
        behind = [option, text] if option and option not in GLOBAL else []
        status, written = run(*before, command, *behind, "--json", "--", *given)
        assert status in (0, 1, 2), (text, status)
        assert "Traceback" not in written.err, text
        assert "SECRET" not in written.out + written.err, text
        if status == 2:
            assert json.loads(written.err.splitlines()[-1])["error"], text


def test_the_table_is_the_surface():
    """Every command that takes anything is in it, and each of the options before them."""
    assert {command for command, *_ in ROWS} >= {"list", "show", "import", "export", "copy", "delete", "forget-user"}
    assert {option for _, option, *_ in ROWS} >= {*GLOBAL, "--limit", "--user"}
