"""What another process does for a check: forked by `processes.py`, or, where that cannot be, run as a program.

It imports neither pytest nor the rest of the kit, so that it starts quickly.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import importlib
import importlib.util
import io
import json
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

Open = Callable[..., Awaitable[Any]]

MARK = "jaf-memory-kit:"
"""Begins the lines that are meant for the check; a store may print others."""


def tell(kind: str, value: Any = None) -> None:
    """Write one line for the check."""
    sys.stdout.write(f"{MARK}{json.dumps([kind, value])}\n")
    sys.stdout.flush()


# The jobs: coroutine functions that take how to open a provider, and arguments of JSON.


async def append_many(open_: Open, *, conversation_id: str, name: str, tasks: int, batches: int, size: int) -> int:
    """Append from several tasks at once; how many messages were added."""
    from jaf_memory_core import Message, Success

    provider = await open_()

    async def writer(task: int) -> int:
        added = 0
        for batch in range(batches):
            messages = [Message(role="user", content="x", message_id=f"{name}.{task}.{batch}.{n}") for n in range(size)]
            answer = await provider.append_messages(conversation_id, messages)
            if not isinstance(answer, Success):
                raise answer.error
            added += answer.data.added
        return added

    added = await asyncio.gather(*map(writer, range(tasks)))
    await provider.close()
    return sum(added)


async def append_until_killed(open_: Open, *, conversation_id: str, name: str) -> None:
    """Append batches of three from four tasks, and tell of each that was acknowledged."""
    from jaf_memory_core import Message, Success

    provider = await open_()

    async def writer(task: int) -> None:
        for batch in range(1_000_000):
            ids = [f"{name}.{task}.{batch}.{n}" for n in range(3)]
            messages = [Message(role="user", content="x", message_id=one) for one in ids]
            if isinstance(await provider.append_messages(conversation_id, messages), Success):
                tell("acknowledged", ids)
            # A store that waits for nothing lets no other writer have a turn.
            await asyncio.sleep(0)

    await asyncio.gather(*map(writer, range(4)))


async def store_one(open_: Open, *, conversation_id: str, user_id: str) -> int:
    """Store a conversation; its version."""
    from jaf_memory_core import Message, Success

    provider = await open_()
    answer = await provider.store_messages(
        conversation_id, [Message(role="user", content="hello", message_id="m")], {"n": 1}, user_id=user_id
    )
    await provider.close()
    if not isinstance(answer, Success):
        raise answer.error
    version: int = answer.data.version
    return version


async def read_digest(open_: Open, *, conversation_id: str) -> str | None:
    """The digest of a conversation, or `None`."""
    from jaf_memory_core import digest

    provider = await open_()
    conversation = await provider.get_conversation(conversation_id)
    await provider.close()
    return None if conversation is None else digest(conversation)


async def purge(open_: Open) -> int:
    """Purge; how many conversations."""
    provider = await open_()
    removed: int = await provider.purge_expired()
    await provider.close()
    return removed


async def clear_user(open_: Open, *, user_id: str) -> int:
    """Clear a user; how many conversations."""
    provider = await open_()
    removed: int = await provider.clear_user_conversations(user_id)
    await provider.close()
    return removed


async def request(open_: Open, *, cells: list[list[str]]) -> list[str]:
    """Make requests of the table, each about a conversation; what each answers."""
    from jaf_memory_testing.cells import REQUESTS
    from jaf_memory_testing.model import told

    provider = await open_()
    await provider.open()
    tell("opened")
    answers = [repr(await told(provider.backend, REQUESTS[name](key))) for name, key in cells]
    await provider.close()
    return answers


async def fork_and_use(open_: Open) -> dict[str, Any]:
    """Use a provider, fork, and use it on both sides; what came of each."""
    from jaf_memory_core import Message

    provider = await open_()
    await provider.store_messages("before-the-fork", [Message(role="user", content="x", message_id="m")])
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # The loop of the parent is running in this thread; a forked worker would make its own in another.
        import threading

        thread = threading.Thread(target=lambda: _in_the_child(provider, writing))
        thread.start()
        thread.join(20)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = json.loads(pipe.read() or b'"nothing"')
    os.waitpid(child, 0)  # noqa: ASYNC222  (it has ended)
    conversation = await provider.get_conversation("before-the-fork")
    await provider.close()
    return {"child": told, "parent": conversation is not None}


def _in_the_child(provider: Any, writing: int) -> None:
    from jaf_memory_core import MemoryError

    async def use() -> list[Any]:
        try:
            await provider.get_conversation("before-the-fork")
        except MemoryError as error:
            return [type(error).__name__, error.retryable]
        return ["no error", None]

    os.write(writing, json.dumps(asyncio.run(use())).encode())
    os.close(writing)


async def killed_in_rounds(open_: Open, *, conversation_id: str, rounds: int) -> list[list[str]]:
    """Write in a process that is killed, retry what it did not acknowledge, again and again; what must stand."""
    standing: list[list[str]] = []
    for number in range(rounds):
        child, pipe = _forked(functools.partial(_write_on, open_, conversation_id, number))
        begun: dict[str, bool] = {}
        wanted = 2 + number % 5
        for line in pipe:
            name, done = json.loads(line)
            begun[name] = done
            # In the middle of a write: one has begun, and is not acknowledged yet.
            if sum(begun.values()) >= wanted and not done:
                time.sleep(0.0004 * (7 * number % 10))  # noqa: ASYNC251  (nobody else is on this loop)
                break
        _kill(child)
        # The kill may have cut the last line.
        begun.update(dict(json.loads(line) for line in pipe if line.endswith("\n")))
        pipe.close()
        lost = [name for name, done in begun.items() if not done]
        child, pipe = _forked(functools.partial(_retry, open_, conversation_id, lost))
        begun.update(dict(json.loads(line) for line in pipe))
        pipe.close()
        _kill(child)
        assert all(begun.values()), f"a retry after a kill did not succeed: {lost}"
        standing += [_batch_ids(name) for name in begun]
    return standing


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _forked(work: Callable[[Callable[..., None]], Any]) -> tuple[int, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, os.fdopen(reading, "r")

    def told(name: str, *, done: bool) -> None:
        os.write(writing, json.dumps([name, done]).encode() + b"\n")

    thread = threading.Thread(target=lambda: asyncio.run(work(told)))  # the parent's loop runs in this one
    thread.start()
    thread.join(60)
    # Not `exit`: what is registered for the end is the parent's.
    os._exit(0)


def _batch_ids(name: str) -> list[str]:
    return [f"{name}-{n}" for n in range(3)]


def _batch(name: str) -> list[Any]:
    from jaf_memory_core import Message

    return [Message(role="user", content=one, message_id=one) for one in _batch_ids(name)]


async def _write_on(open_: Open, key: str, number: int, told: Callable[..., None]) -> None:
    from jaf_memory_core import MemoryError, Success

    provider = await open_()
    for n in range(1_000):
        name = f"r{number}-{n}"
        # Before the write: whoever kills this has to know what was under way.
        told(name, done=False)
        if isinstance(await provider.append_messages(key, _batch(name)), Success):
            told(name, done=True)
        other = f"o{n % 3}"
        turns = (
            lambda other=other, name=name: provider.store_messages(other, _batch(name), {"a": 1}, user_id="u"),
            lambda other=other, name=name: provider.append_messages(other, _batch(name), create=True, user_id="u"),
            lambda other=other, name=name: provider.fork_conversation(other, f"fork-{name}"),
            lambda other=other: provider.set_expiry(other, 600),
            lambda other=other, name=name: provider.update_metadata(other, {"of": name}),
            lambda other=other, name=name: provider.truncate_conversation_after(other, _batch_ids(name)[1]),
            lambda other=other: provider.delete_conversation(other),
        )
        with contextlib.suppress(MemoryError):
            await turns[(n + number) % len(turns)]()


async def _retry(open_: Open, key: str, names: list[str], told: Callable[..., None]) -> None:
    from jaf_memory_core import Success

    provider = await open_()
    for name in names:
        if isinstance(await provider.append_messages(key, _batch(name)), Success):
            told(name, done=True)
    await provider.close()


# Being the program.


class _Unpickler(pickle.Unpickler):
    """Finds functions and classes by module and file: a test file has no name under which it could be imported."""

    def persistent_load(self, place: tuple[str, str, str]) -> Any:
        module, file, name = place
        found: Any = _module(module, file)
        for part in name.split("."):
            found = getattr(found, part)
        return found


def _module(name: str, file: str) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is not None and spec.origin == file:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Read a job from the first line of standard input, get ready, wait for the second line, and do it."""
    order = json.loads(sys.stdin.readline())
    # The check's own path: what is tested there must be what is imported here.
    sys.path[:] = order["path"]
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environ"])
    if hasattr(time, "tzset"):
        time.tzset()
    open_ = _Unpickler(io.BytesIO(base64.b64decode(order["open"]))).load()
    import jaf_memory_core  # noqa: F401  (so that all start at the same time)

    tell("ready")
    sys.stdin.readline()
    tell("done", asyncio.run(globals()[order["job"]](open_, **order["arguments"])))


if __name__ == "__main__":
    main()
