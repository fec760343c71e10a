"""`SyncMemoryProvider`: the same provider, without asyncio."""

import asyncio
import inspect
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sync_stub
from jaf_memory_testing.samples import ids, talk

from jaf_memory_core import (
    BackendProvider,
    ConversationMemory,
    InMemoryConfig,
    MemoryConfigurationError,
    MemoryConnectionError,
    MemoryInvalidInputError,
    MemoryNotFoundError,
    MemoryQuery,
    Success,
    SyncMemoryProvider,
    create_in_memory_provider,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.factory import DOCUMENTED, MANAGED


@pytest.fixture
def provider():
    """A synchronous provider, closed in the end."""
    with SyncMemoryProvider(create_in_memory_provider()) as door:
        yield door


_earlier = set()


@pytest.fixture(autouse=True)
def earlier():
    """Note which threads there are: a test of another file may have left some of ours."""
    _earlier.update(threading.enumerate())
    yield
    _earlier.clear()


def threads():
    """How many private loops run, of this test."""
    return sum(thread.name == "jaf-memory" for thread in set(threading.enumerate()) - _earlier)


def test_every_method_is_there():
    """Each method of both protocols is there, blocking, with the async one's signature and documentation."""
    for name in (*DOCUMENTED, *MANAGED):
        method = getattr(SyncMemoryProvider, name)
        assert not inspect.iscoroutinefunction(method)
        assert method.__doc__
        assert next(iter(inspect.signature(method).parameters)) == "self"
    signature = inspect.signature(SyncMemoryProvider.get_messages)
    assert list(signature.parameters) == ["self", "conversation_id", "before", "limit", "leading", "after"]


def test_use(provider):
    """Writing, reading, finding, iterating and erasing answer as the async provider does."""
    result = provider.append_messages("c", talk(3), user_id="u", create=True)
    assert isinstance(result, Success)
    conversation = provider.get_conversation("c")
    assert isinstance(conversation, ConversationMemory)
    assert ids(conversation.messages) == ["m0", "m1", "m2"]
    assert provider.find_conversations(MemoryQuery(user_id="u")) == [conversation]
    assert list(provider.iter_conversations()) == [conversation]
    assert provider.fork_conversation("c", "d") == 3
    assert provider.health_check()["healthy"] is True
    assert provider.name == "memory"
    with pytest.raises(MemoryNotFoundError):
        provider.get_recent_messages("missing")
    assert provider.clear_user_conversations("u") == 2


def test_a_users_view(provider):
    """A view sees its user's conversations only, and closing it closes nothing."""
    provider.store_messages("c", talk(1), user_id="u")
    with provider.for_user("v") as view:
        assert view.get_conversation("c") is None
    assert provider.for_user("u").get_conversation("c") is not None


def test_iterators_are_lazy_and_may_be_left(provider):
    """A plain `for` pulls one after the other, and may stop anywhere."""
    for number in range(5):
        provider.store_messages(f"c{number}", talk(1))
    for conversation in provider.iter_conversations():
        assert conversation.conversation_id == "c0"
        break
    iterator = provider.iter_conversations()
    assert next(iterator).conversation_id == "c0"
    provider.delete_conversation("c1")
    assert [one.conversation_id for one in iterator] == ["c2", "c3", "c4"]


def test_from_any_thread(provider):
    """Many threads at once lose nothing, and one private loop serves them all."""
    provider.store_messages("c", [])
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: provider.append_messages("c", talk(2, f"w{n}-")), range(64)))
    assert all(isinstance(answer, Success) for answer in answers)
    assert len(provider.get_conversation("c").messages) == 128
    assert threads() == 1


def test_while_a_loop_runs(provider):
    """It works inside a running event loop as well."""

    async def use():
        return provider.store_messages("c", talk(1))

    assert isinstance(asyncio.run(use()), Success)


def test_not_within_its_own_loop():
    """What runs on the private loop is told at once that it cannot wait for itself."""
    problems = []

    def observe(_event):
        try:
            door.get_conversation("c")
        except MemoryInvalidInputError as error:
            problems.append(error)

    with SyncMemoryProvider(BackendProvider(InMemoryBackend(), observers=[observe])) as door:
        door.store_messages("c", talk(1))
    assert len(problems) == 1


def test_close_joins():
    """After `close` the thread is gone, closing again does nothing, and every method refuses."""
    door = SyncMemoryProvider(create_in_memory_provider(InMemoryConfig()))
    view = door.for_user("u")
    iterator = door.iter_conversations()
    assert threads() == 1
    door.close()
    door.close()
    assert threads() == 0
    for call in (lambda: door.get_conversation("c"), lambda: view.get_conversation("c"), lambda: next(iterator)):
        with pytest.raises(MemoryConnectionError) as caught:
            call()
        assert caught.value.retryable is False
    health = door.health_check()
    assert health["healthy"] is False
    assert health["error"]


def test_close_ends_what_is_under_way():
    """A call that another thread waits for does not wait for ever."""

    class Slow(InMemoryBackend):
        waits = True

        async def read(self, _conversation_id):
            await asyncio.sleep(60)

    door = SyncMemoryProvider(BackendProvider(Slow()))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(door.get_conversation, "c")
        time.sleep(0.1)
        door.close()
        with pytest.raises(MemoryConnectionError):
            waiting.result(timeout=5)


def test_from_env():
    """The environment's provider is made on the private loop; a wrong setting leaves no thread behind."""
    with SyncMemoryProvider.from_env({"JAF_MEMORY_TYPE": "memory"}) as door:
        assert isinstance(door.store_messages("c", talk(1)), Success)
    with pytest.raises(MemoryConfigurationError):
        SyncMemoryProvider.from_env({"JAF_MEMORY_TYPE": "nothing-of-this-name"})
    assert threads() == 0


def test_from_env_with_processors_and_observers():
    """They are taken in code here, too, and one that cannot work leaves no thread behind."""
    seen = []
    with SyncMemoryProvider.from_env({"JAF_MEMORY_TYPE": "memory"}, observers=[seen.append]) as door:
        door.store_messages("c", talk(1))
    assert "store_messages" in {event.operation for event in seen}
    with pytest.raises(MemoryConfigurationError, match="processors must hold processors"):
        SyncMemoryProvider.from_env({"JAF_MEMORY_TYPE": "memory"}, processors=[5])
    assert threads() == 0


def test_six_methods_are_enough():
    """A provider with just the six documented methods serves, and what it does not offer is an `AttributeError`."""
    inner = create_in_memory_provider()

    class Six:
        pass

    for name in DOCUMENTED:
        setattr(Six, name, staticmethod(getattr(inner, name)))
    with SyncMemoryProvider(Six()) as door:
        assert isinstance(door.store_messages("c", talk(1)), Success)
        with pytest.raises(AttributeError, match="get_stats"):
            door.get_stats()
    with pytest.raises(MemoryInvalidInputError):
        SyncMemoryProvider("memory")


def test_not_closed_does_not_keep_a_script_alive():
    """A script that forgets to close ends all the same, without a warning."""
    script = (
        "from jaf_memory_core import *\n"
        "door = SyncMemoryProvider(create_in_memory_provider())\n"
        "door.store_messages('c', [Message(role='user', content='x')])\n"
    )
    ended = subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, capture_output=True, timeout=60)
    assert ended.stderr == b""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork():
    """In a forked child it refuses at once, instead of waiting for a thread that is not there."""
    script = (
        "import os\n"
        "from jaf_memory_core import *\n"
        "door = SyncMemoryProvider(create_in_memory_provider())\n"
        "pid = os.fork()\n"
        "if pid:\n"
        "    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "try:\n"
        "    door.get_conversation('c')\n"
        "except MemoryConnectionError:\n"
        "    os._exit(7)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, timeout=60)
    assert ended.returncode == 7


def test_type_checkers_see_every_method():
    """The stub beside `sync.py` is what the protocols make of it: after a change, run `tests/sync_stub.py`."""
    assert sync_stub.STUB.read_text(encoding="utf-8") == sync_stub.stub()
