from jaf_memory_core import create_memory_provider_from_env, MemoryConfig

# Create provider based on JAF_MEMORY_TYPE
provider = await create_memory_provider_from_env()

# Create memory config for engine
memory_config = MemoryConfig(
    provider=provider,
    auto_store=True,  # Automatically store conversations
    max_messages=1000,  # Limit messages per conversation
    ttl=86400  # Time to live in seconds
)
