"""What the files themselves promise, beside what every provider does."""

import ast
import asyncio
import inspect
import subprocess
import sys

import pytest
from jaf_memory_core import BackendProvider, MemoryStorageError, Message

import jaf_memory_files
from jaf_memory_files import FilesBackend, FilesConfig


def open_folder(path):
    """A provider over a folder."""
    return BackendProvider(FilesBackend(FilesConfig(path=str(path))))


def names(path):
    """The names of the files that hold conversations."""
    return sorted(file.name for file in path.glob("*.json"))


def test_the_backend_is_short():
    """Backend, settings and registration are fewer than 45 lines; imports, documentation and blank ones not counted."""
    source = inspect.getsource(jaf_memory_files)
    uncounted = set()
    for node in ast.walk(ast.parse(source)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text or isinstance(node, (ast.Import, ast.ImportFrom)):
            uncounted |= set(range(node.lineno, node.end_lineno + 1))
    lines = [line.strip() for at, line in enumerate(source.splitlines(), 1) if at not in uncounted]
    assert 0 < len([line for line in lines if line and not line.startswith("#")]) < 45


def test_each_conversation_has_a_file_of_its_own(tmp_path):
    """Ids that differ in case, in a slash, in a dot or in form only are kept apart, and none leaves the folder."""
    ids = ["a", "A", "a/b", "a\\b", "../a", ".", "", "\u00e9", "e\u0301", "x" * 255, "é" * 255, "a.json", "lock"]
    ids.remove("")

    async def store():
        async with open_folder(tmp_path / "folder") as provider:
            for key in ids:
                await provider.store_messages(key, [Message("user", key)])
            return [(await provider.get_recent_messages(key))[0].content for key in ids]

    assert asyncio.run(store()) == ids
    assert len(names(tmp_path / "folder")) == len(ids)
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


def test_a_crash_leaves_the_old_state(tmp_path):
    """A process that is killed while it writes leaves the conversation as it was, and the next write works."""
    dying = (
        "import asyncio, os, pathlib, sys; import jaf_memory_files as f; from jaf_memory_core import *\n"
        "pathlib.Path.replace = lambda *_: os._exit(9)\n"
        "provider = BackendProvider(f.FilesBackend(f.FilesConfig(path=sys.argv[1])))\n"
        "asyncio.run(provider.append_messages('chat', [Message('user', 'lost')]))\n"
    )

    async def append(text):
        async with open_folder(tmp_path) as provider:
            await provider.append_messages("chat", [Message("user", text)], create=True)
            return [message.content for message in await provider.get_recent_messages("chat")]

    assert asyncio.run(append("one")) == ["one"]
    assert subprocess.run([sys.executable, "-c", dying, str(tmp_path)], check=False).returncode == 9
    assert asyncio.run(append("two")) == ["one", "two"]


def test_what_is_no_conversation_is_not_taken_for_one(tmp_path):
    """A file that somebody else has written over is refused with a storage error, which does not quote it."""

    async def read():
        async with open_folder(tmp_path) as provider:
            await provider.store_messages("chat", [Message("user", "Hello!")])
            (tmp_path / names(tmp_path)[0]).write_text("a secret", encoding="utf-8")
            return await provider.get_conversation("chat")

    with pytest.raises(MemoryStorageError, match="what is stored of conversation 'chat' is damaged") as caught:
        asyncio.run(read())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("content", ["5\n{}", "no key at all", ""])
def test_a_file_without_its_key_ends_no_listing(tmp_path, content):
    """Files that do not even tell their key any more are told as damaged, and what else there is is listed."""

    async def listed():
        async with open_folder(tmp_path) as provider:
            await provider.store_messages("chat", [Message("user", "Hello!")])
            for name in ("one.json", "other.json"):
                (tmp_path / name).write_text(content, encoding="utf-8")
            told = []
            found = [one.conversation_id async for one in provider.iter_conversations(on_damaged=told.append)]
            return found, [error.conversation_id for error in told]

    assert asyncio.run(listed()) == (["chat"], [None, None])


def test_the_entry_point_says_what_an_operator_asks():
    """What is found by name has the settings, the backend, and words about its durability."""
    spec = jaf_memory_files.jaf_memory_provider()
    assert (spec.name, spec.config, spec.backend) == ("files", FilesConfig, FilesBackend)
    assert "survive a crash" in spec.persistence
    assert "JSON" in spec.summary
