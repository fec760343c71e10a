"""A class with the six documented methods and no base class, and some that are less."""

import asyncio

from jaf_memory_core import ConversationMemory, Success, WriteResult
from jaf_memory_core.hooks import ProviderSpec, hookimpl
from jaf_memory_core.settings import ProviderConfig


class Six:
    """What the user's document asks of a provider, and nothing more."""

    def __init__(self):
        self.conversations = {}

    async def store_messages(self, conversation_id, messages, metadata=None):
        """Keep it."""
        self.conversations[conversation_id] = ConversationMemory(
            conversation_id=conversation_id, messages=messages, metadata=metadata or {}
        )
        return Success(WriteResult(version=1, message_count=len(messages), added=len(messages)))

    async def get_conversation(self, conversation_id):
        """Find it."""
        return self.conversations.get(conversation_id)

    async def append_messages(self, conversation_id, messages, metadata=None):
        """Add to it."""
        before = self.conversations[conversation_id]
        return await self.store_messages(conversation_id, [*before.messages, *messages], metadata)

    async def get_recent_messages(self, conversation_id, limit=50):
        """Find its end."""
        return [*self.conversations[conversation_id].messages[-limit:]]

    async def delete_conversation(self, conversation_id):
        """Forget it."""
        return self.conversations.pop(conversation_id, None) is not None

    async def health_check(self):
        """Say the least."""
        return {"healthy": True}


class Three:
    """Half of a provider."""

    store_messages = Six.store_messages
    get_conversation = Six.get_conversation
    append_messages = Six.append_messages
    closed = 0
    fails = False

    async def close(self):
        """Count, and fail where that is asked for."""
        Three.closed += 1
        if self.fails:
            raise ZeroDivisionError


class Unreachable(Six):
    """What an application may meet when a third party's store is down."""

    async def health_check(self):
        """Fail as a driver does."""
        raise ConnectionRefusedError("cannot reach acme://user:hunter2@store")


class Plugin:
    """One provider."""

    def __init__(self, name, create):
        self._spec = ProviderSpec(
            name=name, config=ProviderConfig, create=create, persistence="Kept until the process ends.", api=1
        )

    @hookimpl
    def jaf_memory_provider(self):
        """Return the provider."""
        return self._spec


async def connect(_config):
    """Create a provider as one that has to connect does."""
    await asyncio.sleep(0)
    return Six()


async def never(_config):
    """Wait for a store that does not answer."""
    await asyncio.sleep(3600)


plain = Plugin("six-plain", lambda _config: Six())
three = Plugin("three", lambda _config: Three())
slow = Plugin("slow", never)
unreachable = Plugin("unreachable", lambda _config: Unreachable())


@hookimpl
def jaf_memory_provider():
    """Return the provider named `six`."""
    return ProviderSpec(
        name="six", config=ProviderConfig, create=connect, persistence="Kept until the process ends.", api=1
    )
