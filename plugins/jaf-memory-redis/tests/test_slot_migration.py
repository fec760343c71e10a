"""Slots of a Cluster that move while somebody reads: what a reader sees is of one moment."""

import asyncio

import pytest
from jaf_memory_redis import RedisConfig, create_redis_provider
from jaf_memory_redis.topology import Cluster
from redis.crc import key_slot

from jaf_memory_core import MemoryQuery, Message


class Move:
    """A slot on its way from one master to another, key by key.

    Args:
        group: the Cluster.
        key: a key of that slot.
    """

    def __init__(self, group, key):
        self.slot = group.servers[0].command("CLUSTER", "KEYSLOT", key)
        self.source = group.master_of(key)
        self.target = next(server for server in group.masters() if server is not self.source)
        self.others = [server for server in group.masters() if server not in (self.source, self.target)]
        source, target = (server.command("CLUSTER", "MYID").decode() for server in (self.source, self.target))
        self.target.command("CLUSTER", "SETSLOT", self.slot, "IMPORTING", source)
        self.source.command("CLUSTER", "SETSLOT", self.slot, "MIGRATING", target)

    def take(self, key):
        """Move one key."""
        self.source.command("MIGRATE", "127.0.0.1", self.target.port, key, 0, 5000)

    def end(self):
        """Move what is left, and tell all masters whose the slot is."""
        for key in self.source.command("CLUSTER", "GETKEYSINSLOT", self.slot, 100):
            self.take(key.decode())
        target = self.target.command("CLUSTER", "MYID").decode()
        for server in (self.target, self.source, *self.others):
            server.command("CLUSTER", "SETSLOT", self.slot, "NODE", target)


READS = {
    "long": lambda provider: provider.get_conversation("c"),
    "long again": lambda provider: provider.get_conversation("c"),  # whose length it knows by then
    "whole": lambda provider: provider.get_conversation("c"),
    "recent": lambda provider: provider.get_recent_messages("c", 3),
    "page": lambda provider: provider.get_messages("c", limit=3),
    "list": lambda provider: provider.find_conversations(MemoryQuery(limit=5)),
    "gaps": lambda provider: provider.get_conversation("c"),
}


@pytest.mark.parametrize("read", READS)
def test_an_append_while_a_read_is_redirected(cluster, prefix, monkeypatch, read):
    """A reader whose header was answered, and whose bodies have moved on, does not mix two moments."""
    count = 300 if read in {"long", "long again"} else 5
    late_behind = {"long": "LLEN", "gaps": "ZCARD"}  # behind the pages of a long one, or behind its positions

    async def main():
        config = RedisConfig(host=cluster.hosts, cluster=True, key_prefix=prefix, operation_timeout=20.0)
        async with await create_redis_provider(config) as reading, await create_redis_provider(config) as writing:
            await writing.store_messages("c", [Message("user", "x", message_id=f"m{n}") for n in range(count)])
            if read == "gaps":
                await writing.delete_messages("c", ["m1"])
            header, bodies, ids = (key.decode() for key in writing.backend.keys.conversation("c"))
            await READS["recent" if read == "long" else read](reading)  # so that it knows the owner, and the nodes
            move = Move(cluster, header)
            move.take(ids if read == "gaps" else bodies)
            follow, redirected = Cluster.run, []

            async def late(self, command, *behind):
                late_enough = command.parts[0] == late_behind.get(read, command.parts[0])
                if not redirected and late_enough and key_slot(command.slot_key) == move.slot:
                    redirected.append(command)
                    await asyncio.to_thread(move.end)
                    await writing.append_messages("c", [Message("user", "y", message_id=f"m{count}")])
                return await follow(self, command, *behind)

            monkeypatch.setattr(Cluster, "run", late)
            try:
                found = await READS[read](reading)
            finally:
                if not redirected:
                    await asyncio.to_thread(move.end)
            return found, redirected

    found, redirected = asyncio.run(main())
    assert redirected, "nothing was redirected"
    if read in ("long", "long again", "whole", "list", "gaps"):
        (conversation,) = found if read == "list" else [found]
        assert len(conversation.messages) == conversation.message_count == count + (read != "gaps")
    else:
        assert [message.message_id for message in found] == ["m3", "m4", "m5"]
