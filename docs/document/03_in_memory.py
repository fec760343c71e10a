from jaf_memory_core import create_in_memory_provider, InMemoryConfig

# Create provider with configuration
config = InMemoryConfig(
    max_conversations=1000,  # Maximum conversations to store
    max_messages=1000  # Maximum messages per conversation
)
provider = create_in_memory_provider(config)
