"""What the tests of the command line install: a small provider, ones in trouble, one with upkeep to do; readers."""

import asyncio
import itertools
import json
import os
import signal
from pathlib import Path

from pydantic import SecretStr

from jaf_memory_core import ConversationMemory, Message, Success, WriteResult
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.hooks import ProviderSpec, ReaderSpec, hookimpl
from jaf_memory_core.maintenance import Adopted
from jaf_memory_core.settings import ProviderConfig


class SixConfig(ProviderConfig):
    """Settings of the small provider."""

    env_prefix = "JAF_SIX_"

    path: Path = Path("six.json")
    """Its file."""


class SixProvider:
    """The document's six methods over one JSON file, and nothing else: no base class, no `close`."""

    def __init__(self, config):
        self._path = config.path

    def _read(self):
        return json.loads(self._path.read_text()) if self._path.exists() else {}

    def _write(self, conversation_id, messages, metadata):
        kept = self._read()
        kept[conversation_id] = {"messages": [one.dict() for one in messages], "metadata": metadata}
        self._path.write_text(json.dumps(kept))
        return Success(WriteResult(1, len(messages), len(messages)))

    async def store_messages(self, conversation_id, messages, metadata=None):
        """Put the conversation in the file."""
        return self._write(conversation_id, messages, dict(metadata or {}))

    async def get_conversation(self, conversation_id):
        """Look in the file."""
        kept = self._read().get(conversation_id)
        if kept is None:
            return None
        messages = [Message(**one) for one in kept["messages"]]
        return ConversationMemory(conversation_id, messages=messages, metadata=kept["metadata"])

    async def append_messages(self, conversation_id, messages, metadata=None):
        """Read, add, write."""
        there = await self.get_conversation(conversation_id)
        merged = {**there.metadata, **(metadata or {})}
        return self._write(conversation_id, [*there.messages, *messages], merged)

    async def get_recent_messages(self, conversation_id, limit=50):
        """The last ones."""
        return list((await self.get_conversation(conversation_id)).messages[-limit:])

    async def delete_conversation(self, conversation_id):
        """Take it out of the file."""
        kept = self._read()
        found = kept.pop(conversation_id, None)
        self._path.write_text(json.dumps(kept))
        return found is not None

    async def health_check(self):
        """It is well."""
        return {"healthy": True, "provider": "six"}


class UnreachableConfig(ProviderConfig):
    """Settings of a store behind a server that is down."""

    env_prefix = "JAF_UNREACHABLE_"


class UnreachableBackend(InMemoryBackend):
    """A store that nobody reaches."""

    name = "unreachable"
    waits = True

    def __init__(self, _config):
        super().__init__()

    async def open(self):
        """Nobody is there."""
        raise ConnectionRefusedError


class SleepyConfig(ProviderConfig):
    """Settings of a store that takes its time."""

    env_prefix = "JAF_SLEEPY_"


class SleepyBackend(UnreachableBackend):
    """A store that lets everybody wait, and shows it by a file."""

    name = "sleepy"

    async def open(self):
        """Sleep."""
        Path("asleep").touch()  # noqa: ASYNC240  (nobody else is on this loop)
        await asyncio.sleep(60)


class TornConfig(ProviderConfig):
    """Settings of a store whose disk fails."""

    env_prefix = "JAF_TORN_"


class TornBackend(InMemoryBackend):
    """A store that fails behind the second conversation."""

    name = "torn"

    def __init__(self, _config):
        super().__init__()

    async def scan(self, query):
        """Fail behind the second."""
        assert query.cursor is None
        from jaf_memory_core.records import Record, new_incarnation

        for number in range(2):
            now = self.now()
            yield Record(f"torn-{number}", new_incarnation(), 1, now, now)
        raise OSError(5, "Input/output error")


class EndlessConfig(ProviderConfig):
    """Settings of a store without an end."""

    env_prefix = "JAF_ENDLESS_"


class EndlessBackend(InMemoryBackend):
    """A store that goes on and on, a conversation in a hundredth of a second."""

    name = "endless"

    def __init__(self, _config):
        super().__init__()

    async def scan(self, query):
        """Give one after the other."""
        assert query.cursor is None
        from jaf_memory_core.records import Record, new_incarnation

        for number in itertools.count():
            now = self.now()
            await asyncio.sleep(0.01)
            yield Record(f"endless-{number}", new_incarnation(), 1, now, now)


class TidyConfig(ProviderConfig):
    """Settings of a store with upkeep to do."""

    env_prefix = "JAF_TIDY_"

    url: SecretStr | None = None
    """Where it is; wins over the host."""

    host: str = "localhost"
    """Where it is."""

    def notes(self):
        """The host is overruled."""
        if self.url and "host" in self.model_fields_set:
            return ["JAF_TIDY_URL is set, so that JAF_TIDY_HOST has no effect."]
        return []


class TidyBackend(InMemoryBackend):
    """A store with definitions of its own, over which older data stands: it refuses to open."""

    name = "tidy"
    finished = False

    def __init__(self, _config):
        super().__init__()

    async def open(self):
        """Nobody should call it."""
        raise AssertionError("upkeep is done before a store is opened")

    async def schema(self):
        """Something that a terminal could take for markup."""
        return "CREATE TABLE [bold]conversations[/bold] (id text);"

    async def apply_schema(self):
        """One thing is missing, each time."""
        return ["0001-tables"]

    async def adopt(self, *, remove=False):
        """Three conversations, each with another fate."""
        yield Adopted("note", text=f"found 3 older conversations; they {'go' if remove else 'stay'}", total=3)
        yield Adopted("moved", "one", total=3)
        yield Adopted("held", "two", total=3)
        yield Adopted("refused", "three", "another stands there", total=3)

    async def older(self):
        """One conversation, until it is finished."""
        return None if self.finished else "the older table holds 1 conversation"

    async def finish_adoption(self):
        """Nothing is left then."""
        type(self).finished = True
        return "the older table was removed"

    async def grants(self, role):
        """One right."""
        return [f"GRANT SELECT TO {role}"]

    async def grant(self, role):
        """Nobody has rights here."""
        if role == "nobody":
            raise MemoryConfigurationError("there is no role 'nobody'", provider="tidy")


class _Plugin:
    def __init__(self, **described):
        self._spec = ProviderSpec(persistence="as long as the test", summary="for a test", **described)

    @hookimpl
    def jaf_memory_provider(self):
        return self._spec


six = _Plugin(name="six", config=SixConfig, create=SixProvider)
unreachable = _Plugin(name="unreachable", config=UnreachableConfig, backend=UnreachableBackend)
sleepy = _Plugin(name="sleepy", config=SleepyConfig, backend=SleepyBackend)
torn = _Plugin(name="torn", config=TornConfig, backend=TornBackend)
endless = _Plugin(name="endless", config=EndlessConfig, backend=EndlessBackend)
tidy = _Plugin(name="tidy", config=TidyConfig, backend=TidyBackend)


def read_notes(path, user_id, on_bad):
    """Read a file of notes, `ID TEXT` in each line; `!` ends the program from outside, `?` is bad."""
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            key, _, text = line.strip().partition(" ")
            if key == "!":
                os.kill(os.getpid(), signal.SIGTERM)
            elif key == "?":
                on_bad(f"line {number + 1}", "asks something")
            else:
                yield ConversationMemory(key, messages=[Message("user", text, message_id="m")], user_id=user_id)


async def read_address(address, _user_id, _on_bad):
    """Read one conversation of an address, which says whose it is, and wait for it."""
    await asyncio.sleep(0)
    yield ConversationMemory("from-afar", messages=[Message("user", str(len(address)), message_id="m")], user_id="ada")


class _Reader:
    def __init__(self, *described, **more):
        self._spec = ReaderSpec(*described, **more)

    @hookimpl
    def jaf_memory_reader(self):
        return self._spec


notes = _Reader("notes", read_notes)
afar = _Reader("afar", read_address, source="address", owned=True)
misnamed = _Reader("another", read_notes)
