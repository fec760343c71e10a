# Production memory configuration
memory_config = MemoryConfig(
    provider=provider,
    auto_store=True,
    max_messages=1000,  # Limit conversation length
    ttl=2592000,  # 30 days retention
    compression_threshold=100  # Compress conversations > 100 messages
)
