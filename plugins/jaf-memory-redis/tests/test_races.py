"""Somebody else acts between two round trips of one operation."""

import asyncio

from jaf_memory_redis import RedisConfig, create_redis_provider

from jaf_memory_core import MemoryQuery, Message


def test_revised_by_another_meanwhile(server7, prefix):
    """Who asks for what another has just written learns the version that stands, not the one read before."""

    async def use():
        provider = await create_redis_provider(RedisConfig(key_prefix=prefix, port=server7.port))
        other = await create_redis_provider(RedisConfig(key_prefix=prefix, port=server7.port))
        async with provider, other:
            await provider.store_messages("c", [Message("user", "a", message_id="m")])
            revised = {"m": Message("user", "b", message_id="m")}
            reader = provider.backend._reader
            replacements, versions = reader.replacements, []

            async def after_another(record, revise):
                if not versions:
                    versions.append(await other.revise_messages("c", revised))
                return await replacements(record, revise)

            reader.replacements = after_another
            versions.append(await provider.revise_messages("c", revised))
            return versions, (await other.get_conversation("c")).version

    versions, stands = asyncio.run(use())
    assert versions == [stands, stands]


def test_listed_while_another_writes(server7, prefix):
    """A list that looks a second time, since a conversation has gone, shows what lies behind one written meanwhile."""

    async def use():
        provider = await create_redis_provider(RedisConfig(key_prefix=prefix, port=server7.port))
        other = await create_redis_provider(RedisConfig(key_prefix=prefix, port=server7.port))
        async with provider, other:
            for name in ("quiet", "written", "gone"):
                await provider.store_messages(name, [Message("user", "a")])
            finder = provider.backend._finder
            matching, looks = finder._matching, []

            async def after_another(page, query):
                if not looks:
                    await other.delete_conversation("gone")
                found = await matching(page, query)
                if not looks:
                    await other.append_messages("written", [Message("user", "b")])
                looks.append(page)
                return found

            finder._matching = after_another
            found = await provider.find_conversations(MemoryQuery(limit=2))
            return [one.conversation_id for one in found]

    assert "quiet" in asyncio.run(use())


def test_a_large_append_while_another_message_is_deleted(server7, prefix):
    """What is held stands at other places of the list from then on, and is the same all the same."""
    messages = [Message("user", f"says {n}", message_id=f"m{n}") for n in range(400)]

    async def use():
        provider = await create_redis_provider(RedisConfig(key_prefix=prefix, port=server7.port))
        other = await create_redis_provider(RedisConfig(key_prefix=prefix, port=server7.port))
        async with provider, other:
            await provider.store_messages("c", messages[:300])
            topology, deleted = provider.backend._copier._topology, []
            run_all = topology.run_all

            async def after_another(commands, **options):
                if not deleted and any(command.parts[0] == "LRANGE" for command in commands):
                    deleted.append(await other.delete_messages("c", ["m0"]))
                return await run_all(commands, **options)

            topology.run_all = after_another
            result = (await provider.append_messages("c", messages[1:])).unwrap()
            return deleted, result, (await other.get_conversation("c")).messages

    deleted, result, stand = asyncio.run(use())
    assert deleted == [1]
    assert result.added == 100
    assert [one.message_id for one in stand] == [one.message_id for one in messages[1:]]
