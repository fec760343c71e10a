"""Writers that go on appending whatever happens to the servers, and the check that nothing acknowledged is missing."""

import asyncio
import time
from collections import Counter

from jaf_memory_core import MemoryConnectionError, Message, Success

BATCH = 2
"""Messages of one append."""


class Load:
    """Writers on one conversation.

    Attributes:
        acknowledged: (writer, number) of every append that was answered with `Success`.
        failed: how many appends ended with `MemoryConnectionError`.
        longest_gap: seconds between two acknowledgements, at most, of all writers together.
    """

    def __init__(self, provider, conversation="under load", pause=0.0):
        self.provider = provider
        self.conversation = conversation
        self.acknowledged = []
        self.failed = 0
        self.longest_gap = 0.0
        self._pause = pause
        self._last = 0.0
        self._stopping = False

    async def run(self, writers, during):
        """Write with so many tasks while the coroutine `during` runs."""
        assert isinstance(await self.provider.store_messages(self.conversation, []), Success)
        self._last = time.monotonic()
        tasks = [asyncio.create_task(self._write(f"w{number}")) for number in range(writers)]
        try:
            await during
        finally:
            self._stopping = True
            await asyncio.gather(*tasks)

    async def _write(self, writer):
        number = 0
        while not self._stopping:
            try:
                result = await self.provider.append_messages(self.conversation, batch(writer, number))
            except MemoryConnectionError:
                self.failed += 1
            else:
                assert isinstance(result, Success), result
                self._acknowledge(writer, number)
            number += 1
            await asyncio.sleep(self._pause)

    def _acknowledge(self, writer, number):
        self.acknowledged.append((writer, number))
        now = time.monotonic()
        self.longest_gap = max(self.longest_gap, now - self._last)
        self._last = now

    async def settled(self, count=50, patience=60.0):
        """Wait until so many more appends were acknowledged."""
        wanted, end = len(self.acknowledged) + count, time.monotonic() + patience
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < end, "the provider does not go on by itself"
            await asyncio.sleep(0.005)

    async def damage(self):
        """What the conversation shows: see `damage_of`."""
        conversation = await self.provider.get_conversation(self.conversation)
        return damage_of([message.message_id for message in conversation.messages], self.acknowledged)


def batch(writer, number):
    """One append: messages whose ids tell where they belong."""
    return [
        Message("user", f"message {part} of append {number} by {writer}", message_id=f"{writer}/{number}/{part}")
        for part in range(BATCH)
    ]


def damage_of(ids, acknowledged):
    """How many of the acknowledged appends are lost, and how many are doubled, torn or out of order."""
    held = Counter(ids)
    lost = sum(f"{writer}/{number}/0" not in held for writer, number in acknowledged)
    doubled = sum(count - 1 for count in held.values())
    torn = disordered = 0
    latest = {}
    starts = [at for at, one in enumerate(ids) if one.endswith("/0")]
    for at in starts:
        writer, number, _ = ids[at].split("/")
        torn += ids[at : at + BATCH] != [f"{writer}/{number}/{part}" for part in range(BATCH)]
        disordered += int(number) < latest.get(writer, -1)
        latest[writer] = int(number)
    torn += len(ids) != BATCH * len(starts)
    return {"lost": lost, "doubled": doubled, "torn": torn, "disordered": disordered}


UNHARMED = {"lost": 0, "doubled": 0, "torn": 0, "disordered": 0}
